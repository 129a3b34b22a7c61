# SPDX-License-Identifier: Apache-2.0
"""Upload jobs: their status, their JSON and their files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_provider_capillary.sandbox.http_messages import Body

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

#: Final status words. COMPLETED was seen in samples of this endpoint, FINISHED in those of its sibling, ERRORED and
#: its misspelling in client code, ERRED in a table definition; there is no published list.
FINAL_STATUSES = frozenset(
    {"COMPLETED", "FINISHED", "ERRORED", "ERRORRED", "ERRED", "ERROR", "FAILED", "CANCELLED", "CANCELED"}
)

#: Most rows of an error file that the sandbox makes up.
MAX_GENERATED_ERRORS = 1_000_000
_MESSAGES = (
    "Coupon is not issued, or belongs to another series",
    "Coupon is already redeemed, on an earlier bill",
    "Coupon is expired, the redemption was not recorded",
)


def error_line(message: str, coupon: str) -> str:
    """Return a row of an error file: not quoted, although the message has commas (seen in client code)."""
    # A line break in the coupon would make two rows of one.
    return f"{message},{' '.join(coupon.split())}\n"


def error_header(coupon_column: str = "coupon code") -> str:
    """Return the first line of an error file."""
    return f"message,{coupon_column}\n"


def generate_error_file(errors: int) -> bytes:
    """Make up an error file with ``errors`` rows."""
    lines = (error_line(_MESSAGES[row % len(_MESSAGES)], f"SANDBOX{row + 1:06d}") for row in range(errors))
    return (error_header() + "".join(lines)).encode()


@dataclass(kw_only=True, eq=False, repr=False)
class SandboxJob:
    """One upload job; ``Sandbox.add_job`` and uploads make it.

    :ivar handle: name of the error file in the sandbox
    :ivar error_file: the error file: bytes, or the path of a file; None: there is none
    :ivar url: value of ``errorFileUrl`` once the job is done
    :ivar success_file: the file of the accepted rows; None: there is none, as in every sample
    :ivar uploaded_file: the file that was uploaded; None: it was not kept
    :ivar made_at: when the job was made, on the cluster
    :ivar schedule: each status and when it begins, by ``clock``
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
    clock: Callable[[], float]
    schedule: list[tuple[float, str]]

    def __repr__(self) -> str:
        return f"<SandboxJob {self.job_id} of series {self.coupon_series_id}: {self.status()}>"

    def status(self) -> str:
        """Return the current status."""
        now = self.clock()
        return next(status for begins, status in reversed(self.schedule) if begins <= now)

    @property
    def is_done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.status().strip().upper() in FINAL_STATUSES

    @property
    def error_file_url(self) -> str | None:
        """Current value of ``errorFileUrl``: null before the job is done, and without an error file (samples)."""
        return self.url if self.is_done and self.error_file is not None else None

    @property
    def success_handle(self) -> str:
        """Name of the success file, made after that of the error file: no sample has one."""
        return f"success_{self.handle.removeprefix('error_')}"

    @property
    def error_file_size(self) -> int:
        """Size of the error file in bytes, 0 without one."""
        return Body.of(self.error_file or b"").size

    def read_error_file(self) -> bytes:
        """Return the whole error file; ``b""`` without one."""
        return self.error_file.read_bytes() if isinstance(self.error_file, Path) else self.error_file or b""

    def file_names(self) -> dict[str, str]:
        """Return every name of a file that a client may request, with the attribute that holds the file."""
        names = {self.handle}
        if self.url is not None:
            # Any URL that was given is a name of the file, and so is the last part of an address under /files/.
            name = re.split("[?#]", self.url.partition("/files/")[2])[0]
            names |= {self.url, unquote(name)} - {""}
        others = {self.success_handle: "success_file", self.uploaded_file_name: "uploaded_file"}
        return others | dict.fromkeys(names, "error_file")

    def file(self, attribute: str) -> bytes | Path | None:
        """Return a file of the job by its attribute, once it is available."""
        content: bytes | Path | None = getattr(self, attribute)
        if (isinstance(content, Path) and not content.is_file()) or not (self.is_done or attribute == "uploaded_file"):
            return None  # removed by a test, or not there yet
        return content

    def to_json(self) -> dict[str, Any]:
        """Describe the job as the status endpoint does."""
        status = self.status()
        word = status.strip().upper()
        rows = 0 if word == "QUEUED" else self.rows
        stamp = f"{self.made_at:%Y%m%d_%H%M%S}{self._milliseconds() % 1000:03d}"
        # Inferred from samples: both timestamps are midnight of the job's day on the cluster, as text.
        midnight = self.made_at.replace(hour=0, minute=0, second=0, microsecond=0)
        day = str(int(midnight.timestamp()) * 1000)
        return {
            "jobId": self.job_id,
            "uploadRedeemedCouponStatus": status,
            "createdOn": day,
            "updatedOn": day,
            "errorFileUrl": self.error_file_url,
            "successFileUrl": self.success_handle if self.is_done and self.success_file is not None else None,
            "uploadedFileUrl": self.uploaded_file_name,
            "totalUploadedCount": rows,
            "actualRowCount": rows,
            "errorCount": self.errors if word in FINAL_STATUSES else 0,
            "uploadTableName": None if word == "QUEUED" else f"temp_redemption_upload_{self.org_id}_{stamp}",
            "uploadedFileName": self.uploaded_file_name,
        }

    def to_upload_json(self) -> dict[str, Any]:
        """Describe the job as the response to its upload does: queued, with timestamps to the millisecond."""
        stamp = str(self._milliseconds())
        queued = {"uploadRedeemedCouponStatus": "QUEUED", "createdOn": stamp, "updatedOn": stamp}
        counts = {"totalUploadedCount": 0, "actualRowCount": 0, "errorCount": 0}
        names = dict.fromkeys(("errorFileUrl", "successFileUrl", "uploadTableName"))
        return self.to_json() | queued | counts | names

    def _milliseconds(self) -> int:
        return round(self.made_at.timestamp() * 1000)
