# SPDX-License-Identifier: Apache-2.0
"""Upload jobs: how they come to be, what they say of themselves, and their files."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_provider_capillary.sandbox.answers import Body
from airflow_provider_capillary.sandbox.fields import FieldError, number, text, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable
    from zoneinfo import ZoneInfo

#: Words after which a job changes no more. COMPLETED was seen in samples of this endpoint, FINISHED in those of
#: its sibling, ERRORED and its misspelling in client code, ERRED in a table definition; nobody ever published a list.
DONE = frozenset({"COMPLETED", "FINISHED", "ERRORED", "ERRORRED", "ERRED", "ERROR", "FAILED", "CANCELLED", "CANCELED"})

_FIRST_JOB_ID = 4455
# A larger error file has to be given.
_MOST_MADE_UP_ERRORS = 1_000_000
# Thirty years: beyond the age of any job, and within that of dates.
_OLDEST_SECONDS = 30 * 366 * 86_400.0
_MESSAGES = (
    "Coupon is not issued, or belongs to another series",
    "Coupon is already redeemed, on an earlier bill",
    "Coupon is expired, the redemption was not recorded",
)


def error_line(message: str, coupon: str) -> str:
    """Write a row of an error file: not quoted, although the message has commas (seen in client code)."""
    # A line break in the coupon would make two rows of one.
    return f"{message},{' '.join(coupon.split())}\n"


def error_header(coupon_column: str = "coupon code") -> str:
    """Write the first line of an error file."""
    return f"message,{coupon_column}\n"


def _made_up_error_file(errors: int) -> bytes:
    lines = (error_line(_MESSAGES[row % len(_MESSAGES)], f"SANDBOX{row + 1:06d}") for row in range(errors))
    return (error_header() + "".join(lines)).encode()


@dataclass(frozen=True)
class Clocks:
    """The two clocks of the sandbox.

    :param monotonic: seconds, for the progress of jobs and the life of tokens
    :param wall: seconds since the epoch, for the timestamps in answers
    :param zone: zone of the cluster's day
    """

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    zone: ZoneInfo

    def local(self, *, age_seconds: float = 0.0) -> datetime:
        """Return the time on the cluster, ``age_seconds`` ago."""
        return datetime.fromtimestamp(self.wall() - age_seconds, self.zone)


@dataclass(kw_only=True)
class Progress:
    """How the status of a job moves with time.

    :param clock: monotonic clock, in seconds
    :param starts_at: when it goes from QUEUED to STARTED
    :param ends_at: when it ends
    :param ends: word in which it ends
    :param fixed: word in which it stays whatever the time; None: it moves
    """

    clock: Callable[[], float]
    starts_at: float
    ends_at: float
    ends: str
    fixed: str | None

    def word(self) -> str:
        """Return the status of this moment."""
        if self.fixed is not None:
            return self.fixed
        now = self.clock()
        if now < self.starts_at:
            return "QUEUED"
        return "STARTED" if now < self.ends_at else self.ends


@dataclass(frozen=True)
class StoredFile:
    """A file of a job, ready to be served.

    :param content: bytes, or the path of a file
    :param made_at: when its job was made, on the cluster
    """

    content: bytes | Path
    made_at: datetime


@dataclass(kw_only=True, eq=False, repr=False)
class SandboxJob:
    """One upload job. Made by ``Sandbox.add_job`` and by uploads, never by hand.

    :ivar job_id: number of the job; grows
    :ivar coupon_series_id: number of the coupon series
    :ivar org_id: number of the org
    :ivar uploaded_file_name: name under which the upload is stored
    :ivar rows: number of rows in the upload
    :ivar errors: number of rows refused
    :ivar handle: name of the error file in the sandbox
    :ivar error_file: the error file: bytes, or the path of a file; None where there is none
    :ivar url: what :attr:`error_file_url` is once it shows
    :ivar success_file: the file of the accepted rows; None where there is none, as in every sample
    :ivar uploaded_file: what was uploaded; None where nobody kept it
    :ivar made_at: when the job was made, on the cluster
    :ivar progress: how its status moves
    """

    job_id: int
    coupon_series_id: int
    org_id: int
    uploaded_file_name: str
    rows: int
    errors: int
    handle: str
    error_file: bytes | Path | None
    url: str | None
    success_file: bytes | Path | None
    uploaded_file: bytes | Path | None
    made_at: datetime
    progress: Progress

    def __repr__(self) -> str:
        return f"<SandboxJob {self.job_id} of series {self.coupon_series_id}: {self.status()}>"

    def status(self) -> str:
        """Return the status word of this moment."""
        return self.progress.word()

    @property
    def is_done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.status().strip().upper() in DONE

    @property
    def error_file_url(self) -> str | None:
        """What ``errorFileUrl`` says now: nothing before the job is done, nor without errors (samples).

        A job that was given an error file of its own shows it all the same.
        """
        return self.url if self.is_done and self.error_file is not None else None

    @property
    def success_handle(self) -> str:
        """Name of the success file, made after that of the error file: none was ever seen."""
        return f"success_{self.handle.removeprefix('error_')}"

    @property
    def success_file_url(self) -> str | None:
        """What ``successFileUrl`` says now."""
        return self.success_handle if self.is_done and self.success_file is not None else None

    @property
    def error_file_size(self) -> int:
        """Size of the error file in bytes, 0 where there is none."""
        return Body.of(self.error_file).size if self.error_file is not None else 0

    def read_error_file(self) -> bytes:
        """Return the whole error file; ``b""`` where there is none."""
        if isinstance(self.error_file, Path):
            return self.error_file.read_bytes()
        return self.error_file or b""

    def finish(self, status: str) -> None:
        """End the job at once, in the word ``status``."""
        self.progress.fixed = status

    def file_names(self) -> dict[str, str]:
        """Return every name under which a client may ask for a file, with the attribute that holds the file."""
        names = {self.handle}
        if self.url is not None:
            # Whatever was given as the URL leads here too, also where it is an address under /files/.
            name = re.split("[?#]", self.url.partition("/files/")[2])[0]
            names |= {self.url, unquote(name)} - {""}
        others = {self.success_handle: "success_file", self.uploaded_file_name: "uploaded_file"}
        return others | dict.fromkeys(names, "error_file")

    def file(self, attribute: str) -> StoredFile | None:
        """Return a file of the job, once it is there.

        :param attribute: which of :meth:`file_names`
        """
        content = getattr(self, attribute)
        if content is None or not (self.is_done or attribute == "uploaded_file"):
            return None
        return StoredFile(content, self.made_at)

    def to_json(self) -> dict[str, Any]:
        """Describe the job as the status endpoint does."""
        status = self.status()
        word = status.strip().upper()
        rows = 0 if word == "QUEUED" else self.rows
        stamp = f"{self.made_at:%Y%m%d_%H%M%S}{self._milliseconds() % 1000:03d}"
        # Worked out from samples: both timestamps are midnight of the job's day on the cluster, as text.
        midnight = self.made_at.replace(hour=0, minute=0, second=0, microsecond=0)
        day = str(int(midnight.timestamp()) * 1000)
        return {
            "jobId": self.job_id,
            "uploadRedeemedCouponStatus": status,
            "createdOn": day,
            "updatedOn": day,
            "errorFileUrl": self.error_file_url,
            "successFileUrl": self.success_file_url,
            "uploadedFileUrl": self.uploaded_file_name,
            "totalUploadedCount": rows,
            "actualRowCount": rows,
            "errorCount": self.errors if word in DONE else 0,
            "uploadTableName": None if word == "QUEUED" else f"temp_redemption_upload_{self.org_id}_{stamp}",
            "uploadedFileName": self.uploaded_file_name,
        }

    def to_upload_json(self) -> dict[str, Any]:
        """Describe the job as the answer to its upload does: queued, with timestamps to the millisecond."""
        stamp = str(self._milliseconds())
        queued = {"uploadRedeemedCouponStatus": "QUEUED", "createdOn": stamp, "updatedOn": stamp}
        nothing_yet = {"totalUploadedCount": 0, "actualRowCount": 0, "errorCount": 0}
        no_names = dict.fromkeys(("errorFileUrl", "successFileUrl", "uploadTableName"))
        return self.to_json() | queued | nothing_yet | no_names

    def _milliseconds(self) -> int:
        return round(self.made_at.timestamp() * 1000)


class JobStore:
    """All jobs of the org, and the coupons they redeemed. Safe to use from several threads.

    :param org_id: number of the org
    :param clocks: clocks of the sandbox
    :param queued_seconds: how long a job is queued, in seconds, where it is not said for the job
    :param started_seconds: how long it is then at work
    """

    def __init__(self, *, org_id: int, clocks: Clocks, queued_seconds: float, started_seconds: float) -> None:
        self._org_id = org_id
        self._clocks = clocks
        self._queued_seconds = queued_seconds
        self._started_seconds = started_seconds
        self._lock = threading.RLock()
        self._jobs: dict[int, SandboxJob] = {}
        self._files: dict[str, tuple[SandboxJob, str]] = {}
        self._file_names: set[str] = set()
        self._redeemed: set[tuple[int, str]] = set()

    def add(
        self,
        coupon_series_id: int,
        *,
        status: str | None = None,
        ends: str = "COMPLETED",
        rows: int = 3,
        errors: int = 0,
        error_file: bytes | Path | None = None,
        job_id: int | None = None,
        uploaded_file_name: str | None = None,
        queued_seconds: float | None = None,
        started_seconds: float | None = None,
        error_file_url: str | None = "handle",
        success_file: bytes | Path | None = None,
        uploaded_file: bytes | Path | None = None,
        age_seconds: float = 0.0,
    ) -> SandboxJob:
        """Add a job; for the parameters see ``Sandbox.add_job``."""
        whole_number("coupon_series_id", coupon_series_id)
        if status is not None:
            text("status", status)
        text("ends", ends)
        whole_number("rows", rows)
        whole_number("errors", errors, most=None if error_file is not None else _MOST_MADE_UP_ERRORS)
        for name, file in (
            ("error_file", error_file),
            ("success_file", success_file),
            ("uploaded_file", uploaded_file),
        ):
            if isinstance(file, Path):
                if not file.is_file():
                    raise FieldError(name, "is not a file")
            elif file is not None and not isinstance(file, bytes):
                raise FieldError(name, "must be bytes or a pathlib.Path")
        if uploaded_file_name is not None:
            text("uploaded_file_name", uploaded_file_name)
        queued_seconds = self._queued_seconds if queued_seconds is None else queued_seconds
        started_seconds = self._started_seconds if started_seconds is None else started_seconds
        number("queued_seconds", queued_seconds)
        number("started_seconds", started_seconds)
        if error_file_url is not None:
            text("error_file_url", error_file_url)
        number("age_seconds", age_seconds, most=_OLDEST_SECONDS)
        if error_file is None and errors:
            error_file = _made_up_error_file(errors)

        with self._lock:
            if job_id is None:
                job_id = max(self._jobs, default=_FIRST_JOB_ID - 1) + 1
            elif whole_number("job_id", job_id) in self._jobs:
                raise FieldError("job_id", "is taken")
            made_at = self._clocks.local(age_seconds=age_seconds)
            handle = f"error_redemption_upload_{self._org_id}_{coupon_series_id}{made_at:%Y_%m_%d_%H_%M_%S}"
            if handle in self._files:
                handle = f"{handle}_{job_id}"
            if uploaded_file_name is None:
                uploaded_file_name = self._stored_name("redeemed", coupon_series_id, made_at)
            starts_at = self._clocks.monotonic() - age_seconds + queued_seconds
            job = SandboxJob(
                job_id=job_id,
                coupon_series_id=coupon_series_id,
                org_id=self._org_id,
                uploaded_file_name=uploaded_file_name,
                rows=rows,
                errors=errors,
                handle=handle,
                error_file=error_file,
                url=handle if error_file_url == "handle" else error_file_url,
                success_file=success_file,
                uploaded_file=uploaded_file,
                made_at=made_at,
                progress=Progress(
                    clock=self._clocks.monotonic,
                    starts_at=starts_at,
                    ends_at=starts_at + started_seconds,
                    ends=ends,
                    fixed=status,
                ),
            )
            self._jobs[job_id] = job
            self._files |= {name: (job, attribute) for name, attribute in job.file_names().items()}
            self._file_names.add(job.uploaded_file_name)
            return job

    def add_upload(
        self, coupon_series_id: int, *, file_name: str, rows: int, errors: int, error_file: bytes | None
    ) -> SandboxJob:
        """Add the job of an upload.

        :param file_name: name of the file as the client gave it; it is stored as
            ``{name}_{milliseconds}_{series}.csv``
        """
        with self._lock:
            name = Path(file_name).stem or "upload"
            stored = self._stored_name(name, coupon_series_id, self._clocks.local())
            return self.add(
                coupon_series_id, uploaded_file_name=stored, rows=rows, errors=errors, error_file=error_file
            )

    def jobs(self, coupon_series_id: int | None = None) -> list[SandboxJob]:
        """Return the jobs of a series, or of all, in the order they were added."""
        with self._lock:
            return [job for job in self._jobs.values() if coupon_series_id in (None, job.coupon_series_id)]

    def file(self, name: str) -> StoredFile | None:
        """Return the file that goes by ``name``, once it is there. No path is ever looked up."""
        with self._lock:
            job, attribute = self._files.get(name, (None, ""))
        return None if job is None else job.file(attribute)

    def redeem(self, coupon_series_id: int, coupon: str) -> bool:
        """Redeem a coupon; False if it was redeemed before."""
        with self._lock:
            if (coupon_series_id, coupon) in self._redeemed:
                return False
            self._redeemed.add((coupon_series_id, coupon))
            return True

    def _stored_name(self, name: str, coupon_series_id: int, made_at: datetime) -> str:
        stamp = round(made_at.timestamp() * 1000)
        # Two uploads in one millisecond must not share a name: a client tells its job by it.
        while (stored := f"{name}_{stamp}_{coupon_series_id}.csv") in self._file_names:
            stamp += 1
        return stored
