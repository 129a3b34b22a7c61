# SPDX-License-Identifier: Apache-2.0
"""Upload jobs: what the status endpoint tells of them, and the choice of one among all that a series ever had.

Fields, status words and the unreliable timestamps: docs/capillary-api.md, 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import pendulum
from pendulum import DateTime

from airflow_provider_capillary.api.envelopes import as_int
from airflow_provider_capillary.api.errors import (
    CapillaryJobNotFoundError,
    CapillaryResponseError,
    CapillarySettingsError,
)
from airflow_provider_capillary.api.messages import without_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_COMPLETED = frozenset({"COMPLETED", "FINISHED"})
_FAILED = frozenset({"ERRORED", "ERRORRED", "ERROR", "FAILED", "CANCELLED", "CANCELED"})
_RUNNING = frozenset({"QUEUED", "STARTED", "VALIDATED", "COMMITED", "COMMITTED"})

# Stored uploads are named {name}_{milliseconds}_{series}.csv (docs/capillary-api.md, 4).
_STORED_NAME = re.compile(r"_(?P<millis>\d{13})_\d+(\.[A-Za-z0-9]+)?\Z", re.ASCII)
#: Which of the files that Capillary keeps of a job.
JobFile = Literal["error", "success", "uploaded"]
JOB_FILES: tuple[str, ...] = get_args(JobFile)
_DATES = ("created_on", "updated_on")
_FILES = ("error_file_url", "success_file_url", "uploaded_file_url")


@dataclass(frozen=True, kw_only=True)
class UploadJob:
    """One upload of redeemed coupons, as the status endpoint tells of it.

    :param job_id: Id of the job; it grows with time, which the timestamps do not.
    :param status: The status word as Capillary sent it.
    :param org_id: Organisation.
    :param coupon_series_id: Coupon series.
    :param created_on: Day of the job in the cluster's time zone. Of a finished job Capillary tells midnight of that
        day, so it neither orders nor ages jobs.
    :param updated_on: The same for the last change.
    :param error_file_url: Where the error file is; in every sample a bare handle. None while the job runs, and where
        there are no errors.
    :param success_file_url: The same for accepted rows; None in every sample.
    :param uploaded_file_url: Name of the uploaded file.
    :param uploaded_file_name: Name of the uploaded file.
    :param total_uploaded_count: Number of uploaded rows.
    :param actual_row_count: Number of rows in the file.
    :param error_count: Number of refused rows.
    :param upload_table_name: Capillary's working table.
    """

    job_id: int
    status: str
    org_id: int | None = None
    coupon_series_id: int | None = None
    created_on: DateTime | None = None
    updated_on: DateTime | None = None
    error_file_url: str | None = None
    success_file_url: str | None = None
    uploaded_file_url: str | None = None
    uploaded_file_name: str | None = None
    total_uploaded_count: int | None = None
    actual_row_count: int | None = None
    error_count: int | None = None
    upload_table_name: str | None = None

    @property
    def _word(self) -> str:
        return self.status.strip().upper()

    @property
    def is_completed(self) -> bool:
        """Whether Capillary worked through the file. Says nothing about its rows: see :attr:`error_rate`."""
        return self._word in _COMPLETED

    @property
    def is_failed(self) -> bool:
        """Whether Capillary gave the job up."""
        return self._word in _FAILED

    @property
    def is_done(self) -> bool:
        """Whether the job will not change any more."""
        return self.is_completed or self.is_failed

    @property
    def has_known_status(self) -> bool:
        """Whether the status is a word that this package has a meaning for; an unknown one counts as running."""
        return self.is_done or self._word in _RUNNING

    @property
    def error_rate(self) -> float | None:
        """Refused rows as a fraction of uploaded rows (0.0 to 1.0); None where Capillary did not tell the counts."""
        if self.error_count is None:
            return None
        if self.error_count <= 0:
            return 0.0
        if self.total_uploaded_count is None:
            return None
        if self.error_count >= self.total_uploaded_count:
            return 1.0
        return self.error_count / self.total_uploaded_count

    def file_url(self, which: JobFile) -> str | None:
        """Return where a file of the job is; None where Capillary tells of none.

        :param which: ``error``, ``success`` or ``uploaded``.
        """
        url: str | None = getattr(self, f"{which}_file_url")
        return url

    @property
    def uploaded_at(self) -> DateTime | None:
        """Moment of the upload (UTC), read from the stored file's name; None where the name does not tell it."""
        for name in (self.uploaded_file_url, self.uploaded_file_name):
            if name and (match := _STORED_NAME.search(name)):
                return _moment(match["millis"], "UTC")
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values: numbers, text and None, dates in ISO 8601.

        This is what goes into XComs and events. So a file's URL comes without its query, which may be a signature that
        opens the file to whoever reads it; a bare handle comes as it is. The hook gives the job anew, whole.
        """
        value = asdict(self)
        for name in _FILES:
            if value[name] is not None and "://" in value[name]:
                value[name] = without_query(value[name])
        for name in _DATES:
            if value[name] is not None:
                value[name] = value[name].isoformat()
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> UploadJob:
        """Build the job again that :meth:`to_dict` wrote down.

        :param value: What :meth:`to_dict` returned; keys of later versions are ignored.
        :raises CapillaryResponseError: ``job_id`` or ``status`` is missing, or a date cannot be read.
        """
        known: dict[str, Any] = {field.name: value.get(field.name) for field in fields(cls)}
        known["job_id"] = as_int(known["job_id"])
        if known["job_id"] is None or not isinstance(known["status"], str):
            raise CapillaryResponseError("an upload job needs a job_id and a status")
        for name in _DATES:
            if known[name] is not None:
                known[name] = _parse_iso(name, known[name])
        return cls(**known)


def read_jobs(payload: Mapping[str, Any], *, timezone: str = "UTC") -> list[UploadJob]:
    """Read the answer of the status endpoint, or of the upload.

    :param payload: The JSON object, known to report no failure.
    :param timezone: Zone of the cluster's day.
    :return: All jobs of the series in the order of the answer, which promises none; empty where there are none yet.
    :raises CapillaryResponseError: The answer has no ``result``, or a job without id or status.
    """
    result = payload.get("result")
    if not isinstance(result, dict):
        raise CapillaryResponseError("Capillary's answer has no result", is_transient=True)
    jobs = result.get("redeemUploadJobStatuses")
    if jobs is None:
        return []
    if not isinstance(jobs, list):
        raise CapillaryResponseError("redeemUploadJobStatuses in Capillary's answer is not a list", is_transient=True)
    org_id, series_id = as_int(result.get("orgId")), as_int(result.get("couponSeriesId"))
    return [_read_job(job, org_id=org_id, coupon_series_id=series_id, timezone=timezone) for job in jobs]


def _read_job(job: Any, *, org_id: int | None, coupon_series_id: int | None, timezone: str) -> UploadJob:
    if not isinstance(job, dict):
        raise CapillaryResponseError("a job in Capillary's answer is not an object", is_transient=True)
    job_id, status = as_int(job.get("jobId")), job.get("uploadRedeemedCouponStatus")
    if job_id is None or not isinstance(status, str) or not status.strip():
        raise CapillaryResponseError(
            "a job in Capillary's answer has no jobId or no uploadRedeemedCouponStatus", is_transient=True
        )
    return UploadJob(
        job_id=job_id,
        status=status,
        org_id=org_id,
        coupon_series_id=coupon_series_id,
        created_on=_moment(job.get("createdOn"), timezone),
        updated_on=_moment(job.get("updatedOn"), timezone),
        error_file_url=_name(job.get("errorFileUrl")),
        success_file_url=_name(job.get("successFileUrl")),
        uploaded_file_url=_name(job.get("uploadedFileUrl")),
        uploaded_file_name=_name(job.get("uploadedFileName")),
        total_uploaded_count=as_int(job.get("totalUploadedCount")),
        actual_row_count=as_int(job.get("actualRowCount")),
        error_count=as_int(job.get("errorCount")),
        upload_table_name=_name(job.get("uploadTableName")),
    )


def _name(value: Any) -> str | None:
    """Read an optional text that may come as a number; an empty one means none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _moment(millis: Any, timezone: str) -> DateTime | None:
    """Read epoch milliseconds, text or number."""
    number = as_int(millis)
    return None if number is None else _moment_of(number, timezone)


@lru_cache(maxsize=4096)  # a history of years has few days
def _moment_of(number: int, timezone: str) -> DateTime | None:
    try:
        moment = pendulum.from_timestamp(number / 1000, tz=timezone)
        # With the offset of that moment instead of the zone. In the hour that a zone repeats, Python holds equal
        # moments for different, and a job would not equal itself once it went through an XCom.
        return moment.in_timezone(pendulum.FixedTimezone(int(moment.offset or 0)))
    except (ValueError, OverflowError, OSError):
        return None


def _parse_iso(name: str, value: Any) -> DateTime:
    try:
        parsed = pendulum.parse(value)
    except (ValueError, TypeError) as error:
        raise CapillaryResponseError(f"{name} of an upload job is not an ISO 8601 date") from error
    if not isinstance(parsed, DateTime):
        raise CapillaryResponseError(f"{name} of an upload job is not an ISO 8601 date")
    return parsed


def read_id(name: str, value: Any, *, least: int = 1) -> int:
    """Read an id that a user gave as a number or as text, often from a template.

    :param name: What to call it in the message.
    :param value: What was given.
    :param least: The smallest that it may be.
    :raises CapillarySettingsError: It is no whole number, or smaller than that.
    """
    number = as_int(value)
    if number is None or number < least:
        kind = "a positive whole number" if least == 1 else f"a whole number from {least} on"
        raise CapillarySettingsError(
            f"{name} must be {kind}, but is {value!r}; if it comes from a template, check what the template renders to"
        )
    return number


def read_ids(name: str, value: Any) -> list[int]:
    """Read ids that a user gave as a list, or as text that a template made of one: ``[1, 2]``, ``1,2``.

    :param name: What to call them in the message.
    :param value: What was given.
    :return: Each id once, in their order; empty for an empty list, ``[]``.
    :raises CapillarySettingsError: It is no list, or one of them no positive whole number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]  # what a list of one, joined by commas, renders to natively
    elif isinstance(value, str):
        text = value.strip()
        bracketed = text[:1] + text[-1:] in ("[]", "()")
        inner = text[1:-1].strip().removesuffix(",") if bracketed else text
        value = [each.strip().strip("'\"") for each in inner.split(",")] if inner or not bracketed else []
    elif not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise CapillarySettingsError(
            f"{name} must be a list of ids, but is a {type(value).__name__}; if it comes from a template, check what "
            "the template renders to"
        )
    return list(dict.fromkeys(read_id(name, each) for each in value))


def read_word(name: str, value: Any, words: tuple[str, ...]) -> None:
    """Check a word that a user chose, often by a template.

    :param name: What to call it in the message.
    :param value: What was given.
    :param words: What it may be.
    :raises CapillarySettingsError: It is none of them.
    """
    if value not in words:
        raise CapillarySettingsError(f"{name} must be one of {', '.join(words)}, but is {value!r}")


def find_jobs(jobs: Iterable[UploadJob], job_ids: Iterable[int], *, coupon_series_id: int | str) -> list[UploadJob]:
    """Return the jobs with these ids, in the order of the ids.

    :param jobs: All jobs of the series.
    :param job_ids: Which of them.
    :param coupon_series_id: The series, for the message.
    :raises CapillaryJobNotFoundError: The series has not all of them.
    """
    by_id = {job.job_id: job for job in jobs}
    wanted = list(job_ids)
    if missing := [str(job_id) for job_id in wanted if job_id not in by_id]:
        raise CapillaryJobNotFoundError(
            f"coupon series {coupon_series_id} has no redeem upload job {', '.join(missing)}; "
            "check both ids, and that the connection is that of the series' organisation"
        )
    return [by_id[job_id] for job_id in wanted]


class JobHistory:
    """All jobs that a series ever had, put in order once, so that many can look something up in them.

    :param jobs: The jobs, in any order.
    """

    def __init__(self, jobs: Iterable[UploadJob]) -> None:
        self.newest_first = sorted(jobs, key=lambda job: job.job_id, reverse=True)
        self._by_id = {job.job_id: job for job in self.newest_first}

    def get(self, job_id: int) -> UploadJob | None:
        """Return the job with this id."""
        return self._by_id.get(job_id)

    @cached_property
    def settled_up_to(self) -> int | None:
        """The id up to which no job will change any more, its file name included; None where there is no such id."""
        settled = None
        for job in reversed(self.newest_first):
            if not job.is_done:
                break
            settled = job.job_id
        return settled


@dataclass(frozen=True, kw_only=True)
class JobChoice:
    """Which job of a series is meant.

    With none of the three, the newest. Newest is always the largest job id: the timestamps of finished jobs are cut
    to the day (docs/capillary-api.md, 3.5).

    :param job_id: Exactly this job.
    :param uploaded_file_name: The newest job whose uploaded file has this name, or fits this glob (``*``, ``?``,
        ``[...]``; case matters).
    :param after_job_id: The newest job with a larger id than this.
    """

    job_id: int | None = None
    uploaded_file_name: str | None = None
    after_job_id: int | None = None

    def pick(self, jobs: JobHistory | Iterable[UploadJob], *, newer_than: int | None = None) -> UploadJob | None:
        """Return the job that is meant, or None where it is not there (yet).

        :param jobs: All jobs of the series.
        :param newer_than: Leave out jobs up to this id, where it is known that none of them is meant.
        """
        history = jobs if isinstance(jobs, JobHistory) else JobHistory(jobs)
        if self.job_id is not None:
            return history.get(self.job_id)
        floor = max((each for each in (newer_than, self.after_job_id) if each is not None), default=None)
        for job in history.newest_first:
            if floor is not None and job.job_id <= floor:
                return None
            if self._fits(job):
                return job
        return None

    def _fits(self, job: UploadJob) -> bool:
        wanted = self.uploaded_file_name
        if wanted is None:
            return True
        # In samples both are names of the file, and not always the same.
        names = (job.uploaded_file_name, job.uploaded_file_url)
        return any(name is not None and (name == wanted or fnmatchcase(name, wanted)) for name in names)

    def __str__(self) -> str:
        if self.job_id is not None:
            return f"job {self.job_id}"
        parts = [
            f"file name {self.uploaded_file_name!r}" if self.uploaded_file_name is not None else "",
            f"id above {self.after_job_id}" if self.after_job_id is not None else "",
        ]
        return "newest job" + "".join(f" with {part}" for part in parts if part)
