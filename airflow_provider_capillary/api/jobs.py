# SPDX-License-Identifier: Apache-2.0
"""Upload jobs: what the status endpoint tells of them, and the choice of one among all that a series ever had.

Fields, status words and the unreliable timestamps: docs/capillary-api.md, 3.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from fnmatch import translate
from functools import cached_property, lru_cache
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, get_args

import pendulum
from pendulum import DateTime

from airflow_provider_capillary.api.errors import (
    CapillaryConfigurationError,
    CapillaryJobNotFoundError,
    CapillaryResponseError,
)
from airflow_provider_capillary.api.secrecy import without_query
from airflow_provider_capillary.api.values import CHECK_TEMPLATE, as_int, as_whole_number, short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_COMPLETED = frozenset({"COMPLETED", "FINISHED"})
_FAILED = frozenset({"ERRORED", "ERRORRED", "ERRED", "ERROR", "FAILED", "CANCELLED", "CANCELED"})
_DONE = _COMPLETED | _FAILED
_PAUSED = frozenset({"PAUSED", "PAUSE"})
_RUNNING = frozenset({"QUEUED", "OPEN", "STARTED", "RUNNING", "VALIDATED", "COMMITED", "COMMITTED"}) | _PAUSED

# Stored uploads are named {name}_{milliseconds}_{series}.csv (docs/capillary-api.md, 4).
_STORED_NAME = re.compile(r"_(?P<millis>\d{13})_\d+(\.[A-Za-z0-9]+)?\Z", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
#: Which of the files that Capillary keeps of a job.
JobFile = Literal["error", "success", "uploaded"]
JOB_FILES: tuple[str, ...] = get_args(JobFile)
_DATES = ("created_on", "updated_on")
_FILES = ("error_file_url", "success_file_url", "uploaded_file_url")


@dataclass(frozen=True, kw_only=True, repr=False)
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

    def __repr__(self) -> str:
        # A signed URL must not get into a log with the job.
        shown_fields = ", ".join(f"{field.name}={self._without_query(field.name)!r}" for field in fields(self))
        return f"UploadJob({shown_fields})"

    @property
    def is_completed(self) -> bool:
        """Whether Capillary worked through the file. Says nothing about its rows: see :attr:`error_rate`."""
        return _word(self.status) in _COMPLETED

    @property
    def is_failed(self) -> bool:
        """Whether Capillary gave the job up."""
        return _word(self.status) in _FAILED

    @property
    def is_done(self) -> bool:
        """Whether the job will not change any more."""
        return _word(self.status) in _DONE

    @property
    def is_paused(self) -> bool:
        """Whether the job stands still until somebody at Capillary resumes it."""
        return _word(self.status) in _PAUSED

    @property
    def has_known_status(self) -> bool:
        """Whether the status is a word that this package has a meaning for; an unknown one counts as running."""
        return _word(self.status) in _DONE | _RUNNING

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

    def file_url(self, file_type: JobFile) -> str | None:
        """Return where a file of the job is; None where Capillary tells of none.

        :param file_type: ``error``, ``success`` or ``uploaded``.
        """
        url: str | None = getattr(self, f"{file_type}_file_url")
        return url

    @property
    def uploaded_at(self) -> DateTime | None:
        """Moment of the upload (UTC), read from the stored file's name; None where the name does not tell it."""
        for name in (self.uploaded_file_url, self.uploaded_file_name):
            if name and (match := _STORED_NAME.search(name)):
                return _moment(int(match["millis"]), "UTC")
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values: numbers, text and None, dates in ISO 8601.

        This is what goes into XComs and events. So a file's URL comes without its query, which may be a signature that
        opens the file to whoever reads it; a bare handle comes as it is. The hook gives the job anew, whole.
        """
        value = asdict(self) | {name: self._without_query(name) for name in _FILES}
        for name in _DATES:
            if value[name] is not None:
                value[name] = value[name].isoformat()
        return value

    def _without_query(self, name: str) -> Any:
        """Return the value of a field, that of a URL without its query."""
        value = getattr(self, name)
        return without_query(value) if name in _FILES and value is not None and "://" in value else value

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
    return [_job_of(row) for row in _read_rows(payload, timezone)]


def read_history(payload: Mapping[str, Any], *, timezone: str = "UTC", digest: bytes | None = None) -> JobHistory:
    """Read the same answer for those who look something up in it and need few of the jobs.

    :param payload: The JSON object, known to report no failure.
    :param timezone: Zone of the cluster's day.
    :param digest: Digest of the answer.
    :raises CapillaryResponseError: As :func:`read_jobs`.
    """
    return JobHistory(_read_rows(payload, timezone), _job_of, digest=digest)


#: What is known of a job, as numbers and texts only: job_id, status and both names of the uploaded file come first.
_Row = tuple[Any, ...]


def _read_rows(payload: Mapping[str, Any], timezone: str) -> list[_Row]:
    result = payload.get("result")
    if not isinstance(result, dict):
        raise CapillaryResponseError("Capillary's answer has no result", is_transient=True)
    jobs = result.get("redeemUploadJobStatuses")
    if jobs is None:
        return []
    if not isinstance(jobs, list):
        raise CapillaryResponseError("redeemUploadJobStatuses in Capillary's answer is not a list", is_transient=True)
    org_id, series_id = as_int(result.get("orgId")), as_int(result.get("couponSeriesId"))
    return [_read_row(job, org_id, series_id, timezone) for job in jobs]


def _read_row(job: Any, org_id: int | None, coupon_series_id: int | None, timezone: str) -> _Row:
    if not isinstance(job, dict):
        raise CapillaryResponseError("a job in Capillary's answer is not an object", is_transient=True)
    job_id, status = as_int(job.get("jobId")), job.get("uploadRedeemedCouponStatus")
    if job_id is None or not isinstance(status, str) or not status.strip():
        raise CapillaryResponseError(
            "a job in Capillary's answer has no jobId or no uploadRedeemedCouponStatus", is_transient=True
        )
    return (
        job_id,
        status,
        _name(job.get("uploadedFileName")),
        _name(job.get("uploadedFileUrl")),
        org_id,
        coupon_series_id,
        as_int(job.get("createdOn")),
        as_int(job.get("updatedOn")),
        timezone,
        _name(job.get("errorFileUrl")),
        _name(job.get("successFileUrl")),
        as_int(job.get("totalUploadedCount")),
        as_int(job.get("actualRowCount")),
        as_int(job.get("errorCount")),
        _name(job.get("uploadTableName")),
    )


def _job_of(row: _Row) -> UploadJob:
    (
        job_id,
        status,
        uploaded_file_name,
        uploaded_file_url,
        org_id,
        coupon_series_id,
        created_on,
        updated_on,
        timezone,
        error_file_url,
        success_file_url,
        total_uploaded_count,
        actual_row_count,
        error_count,
        upload_table_name,
    ) = row
    return UploadJob(
        job_id=job_id,
        status=status,
        org_id=org_id,
        coupon_series_id=coupon_series_id,
        created_on=_moment(created_on, timezone),
        updated_on=_moment(updated_on, timezone),
        error_file_url=error_file_url,
        success_file_url=success_file_url,
        uploaded_file_url=uploaded_file_url,
        uploaded_file_name=uploaded_file_name,
        total_uploaded_count=total_uploaded_count,
        actual_row_count=actual_row_count,
        error_count=error_count,
        upload_table_name=upload_table_name,
    )


def _word(status: str) -> str:
    return status.strip().upper()


def _name(value: Any) -> str | None:
    """Read an optional text that may come as a number; an empty one means none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


@lru_cache(maxsize=4096)  # a history of years has few days
def _moment(millis: int | None, timezone: str) -> DateTime | None:
    """Read epoch milliseconds."""
    if millis is None:
        return None
    try:
        moment = pendulum.from_timestamp(millis / 1000, tz=timezone)
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


def parse_id(name: str, value: Any, *, least: int = 1) -> int:
    """Read an id that a user gave as a number or as text, often from a template.

    :param name: What to call it in the message.
    :param value: What was given.
    :param least: The smallest that it may be.
    :raises CapillaryConfigurationError: It is no whole number, or smaller than that.
    """
    number = as_whole_number(value)
    if number is None or number < least:
        kind = "a positive whole number" if least == 1 else f"a whole number from {least} on"
        raise CapillaryConfigurationError(f"{name} must be {kind}, but is {short_repr(value)}; {CHECK_TEMPLATE}")
    return number


def validate_choice(name: str, value: Any, words: tuple[str, ...]) -> None:
    """Check a word that a user chose, often by a template.

    :param name: What to call it in the message.
    :param value: What was given.
    :param words: What it may be.
    :raises CapillaryConfigurationError: It is none of them.
    """
    if value not in words:
        raise CapillaryConfigurationError(f"{name} must be one of {', '.join(words)}, but is {short_repr(value)}")


def find_job(jobs: JobHistory, job_id: int, *, coupon_series_id: int | str) -> UploadJob:
    """Return the job with an id.

    :param jobs: All jobs of the series.
    :param job_id: The id.
    :param coupon_series_id: The series, for the message.
    :raises CapillaryJobNotFoundError: The series has no such job.
    """
    job = jobs.get(job_id)
    if job is None:
        raise CapillaryJobNotFoundError(
            f"coupon series {coupon_series_id} has no redeem upload job {job_id}; "
            "check both ids, and that the connection is that of the series' organisation"
        )
    return job


class JobHistory:
    """All jobs that a series ever had, put in order once, so that many can look something up in them.

    A job is a row of numbers and texts until somebody asks for it. Of years of jobs hardly anybody asks for any, and
    20,000 new objects would have Python's garbage collector go through the whole process, which stops for that.

    :param rows: What is known of the jobs, in any order.
    :param make: Makes the job of a row.
    :param digest: Digest of the answer that told of them.
    """

    def __init__(self, rows: Iterable[_Row], make: Callable[[_Row], UploadJob], *, digest: bytes | None = None) -> None:
        self._by_id: dict[int, _Row] = {}
        for row in rows:
            self._by_id.setdefault(row[0], row)  # a job that is told twice is what was told first
        self.rows = sorted(self._by_id.values(), key=itemgetter(0), reverse=True)
        self.digest = digest
        self._make = make
        self._by_name = {name: row for row in reversed(self.rows) for name in row[2:4] if name is not None}

    @classmethod
    def of(cls, jobs: JobHistory | Iterable[UploadJob]) -> JobHistory:
        """Return the history that consists of these jobs.

        :param jobs: The jobs, in any order, or a history, which is returned as it is.
        """
        if isinstance(jobs, JobHistory):
            return jobs
        listed = list(jobs)
        rows = (
            (job.job_id, job.status, job.uploaded_file_name, job.uploaded_file_url, index)
            for index, job in enumerate(listed)
        )
        return cls(rows, lambda row: listed[row[4]])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def newest_first(self) -> Iterator[UploadJob]:
        """All jobs, one after the other."""
        return map(self._make, self.rows)

    def get(self, job_id: int) -> UploadJob | None:
        """Return the job with this id."""
        row = self._by_id.get(job_id)
        return None if row is None else self._make(row)

    def newest(self, *, newer_than: int | None = None, uploaded_file_name: str | None = None) -> UploadJob | None:
        """Return the newest job, or None where there is none like that.

        :param newer_than: Only one with a larger id than this.
        :param uploaded_file_name: Only one whose file has this name or fits this glob.
        """
        floor = -inf if newer_than is None else newer_than
        if uploaded_file_name is None:
            found = next(iter(self.rows), None)
        else:
            found = self._by_name.get(uploaded_file_name)
            if _GLOB.search(uploaded_file_name):
                least = floor if found is None else max(floor, found[0])
                found = self._newest_fitting(uploaded_file_name, least) or found
        return self._make(found) if found is not None and found[0] > floor else None

    def _newest_fitting(self, glob: str, newer_than: float) -> _Row | None:
        # Hundreds of waits may go through the history of years.
        fits = re.compile(translate(glob)).match
        for row in self.rows:
            if row[0] <= newer_than:
                break
            # In samples both are names of the file, and not always the same.
            _, _, name, url, *_ = row
            if (name is not None and fits(name)) or (url is not None and url != name and fits(url)):
                return row
        return None

    @cached_property
    def running_ids(self) -> list[int]:
        """The ids of the jobs that are not done yet, in order."""
        return [row[0] for row in reversed(self.rows) if _word(row[1]) not in _DONE]

    @cached_property
    def settled_up_to(self) -> int | None:
        """The id up to which no job will change any more, its file name included; None where there is no such id."""
        first_running = self.running_ids[0] if self.running_ids else inf
        return next((row[0] for row in self.rows if row[0] < first_running), None)


@dataclass(frozen=True, kw_only=True)
class JobSelector:
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

    def select(self, jobs: JobHistory | Iterable[UploadJob], *, newer_than: int | None = None) -> UploadJob | None:
        """Return the job that is meant, or None where it is not there (yet).

        :param jobs: All jobs of the series.
        :param newer_than: Leave out jobs up to this id, where it is known that none of them is meant.
        """
        history = JobHistory.of(jobs)
        if self.job_id is not None:
            return history.get(self.job_id)
        floor = max((each for each in (newer_than, self.after_job_id) if each is not None), default=None)
        return history.newest(newer_than=floor, uploaded_file_name=self.uploaded_file_name)

    def __str__(self) -> str:
        if self.job_id is not None:
            return f"job {self.job_id}"
        parts = [
            f"file name {self.uploaded_file_name!r}" if self.uploaded_file_name is not None else "",
            f"id above {self.after_job_id}" if self.after_job_id is not None else "",
        ]
        return "newest job" + "".join(f" with {part}" for part in parts if part)
