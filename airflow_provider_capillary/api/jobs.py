# SPDX-License-Identifier: Apache-2.0
"""Upload jobs, as the status endpoint reports them.

Fields, status words and the unreliable timestamps: docs/capillary/api.md, 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import pendulum
from msgspec import Struct
from pendulum import DateTime

from airflow_provider_capillary.api.errors import CapillaryResponseError
from airflow_provider_capillary.api.secrecy import without_query
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_capillary.api.upload_kinds import UploadKind

_COMPLETED = frozenset({"COMPLETED", "FINISHED"})
_FAILED = frozenset({"ERRORED", "ERRORRED", "ERRED", "ERROR", "FAILED", "CANCELLED", "CANCELED"})
DONE = _COMPLETED | _FAILED
_PAUSED = frozenset({"PAUSED", "PAUSE"})
_RUNNING = frozenset({"QUEUED", "OPEN", "STARTED", "RUNNING", "VALIDATED", "COMMITED", "COMMITTED"}) | _PAUSED

# Stored uploads are named {name}_{milliseconds}_{series}.csv (docs/capillary/api.md, 4).
_STORED_NAME = re.compile(r"_(?P<millis>\d{13})_\d+(\.[A-Za-z0-9]+)?\Z", re.ASCII)
#: Which of the files that Capillary keeps of a job.
JobFile = Literal["error", "success", "uploaded"]
JOB_FILES: tuple[str, ...] = get_args(JobFile)
_DATES = ("created_on", "updated_on")
_FILES = ("error_file_url", "success_file_url", "uploaded_file_url")


@dataclass(frozen=True, kw_only=True, repr=False)
class UploadJob:
    """One upload of redeemed coupons or of coupons, as the status endpoint reports it.

    :param job_id: Id of the job; it grows with time, which the timestamps do not.
    :param status: The status word as Capillary sent it.
    :param org_id: Organisation.
    :param coupon_series_id: Coupon series.
    :param created_on: Day of the job in the cluster's time zone. For a finished job Capillary returns midnight of
        that day, so it neither orders jobs nor shows their age.
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
        shown_fields = ", ".join(f"{name}={self._without_query(name)!r}" for name in _FIELDS)
        return f"UploadJob({shown_fields})"

    @property
    def is_completed(self) -> bool:
        """Whether Capillary worked through the file. Says nothing about its rows: see :attr:`error_rate`."""
        return status_word(self.status) in _COMPLETED

    @property
    def is_failed(self) -> bool:
        """Whether Capillary gave the job up."""
        return status_word(self.status) in _FAILED

    @property
    def is_done(self) -> bool:
        """Whether the job will not change any more."""
        return status_word(self.status) in DONE

    @property
    def is_paused(self) -> bool:
        """Whether the job stands still until somebody at Capillary resumes it."""
        return status_word(self.status) in _PAUSED

    @property
    def has_known_status(self) -> bool:
        """Whether the status is a word that this package has a meaning for; an unknown one counts as running."""
        return status_word(self.status) in DONE | _RUNNING

    @property
    def error_rate(self) -> float | None:
        """Refused rows as a fraction of uploaded rows (0.0 to 1.0); None where Capillary did not report the counts."""
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
        """Return where a file of the job is; None where Capillary names none.

        :param file_type: ``error``, ``success`` or ``uploaded``.
        """
        url: str | None = getattr(self, f"{file_type}_file_url")
        return url

    @property
    def uploaded_at(self) -> DateTime | None:
        """Moment of the upload (UTC), read from the stored file's name; None where it is not in the name."""
        for name in (self.uploaded_file_url, self.uploaded_file_name):
            if name and (match := _STORED_NAME.search(name)):
                return _moment(int(match["millis"]), "UTC")
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values: numbers, text and None, dates in ISO 8601.

        This is what goes into XComs and events. So a file's URL comes without its query, which may be a signature that
        opens the file to whoever reads it; a bare handle comes as it is. The hook returns the job with the whole URL.
        """
        # asdict would copy each value: a third of what the end of a wait costs a triggerer.
        value: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        for name in _FILES:
            value[name] = self._without_query(name)
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
        known: dict[str, Any] = {name: value.get(name) for name in _FIELDS}
        known["job_id"] = as_int(known["job_id"])
        if known["job_id"] is None or not isinstance(known["status"], str):
            raise CapillaryResponseError("an upload job needs a job_id and a status")
        for name in _DATES:
            if known[name] is not None:
                known[name] = _parse_iso(name, known[name])
        return cls(**known)


_FIELDS = tuple(field.name for field in fields(UploadJob))


def read_jobs(payload: Mapping[str, Any], kind: UploadKind, *, timezone: str = "UTC") -> list[UploadJob]:
    """Read the answer of the status endpoint, or of the upload.

    :param payload: The JSON object, known to report no failure.
    :param kind: The kind of upload that it answers for.
    :param timezone: Zone of the cluster's day.
    :return: All jobs of the series in the order of the answer, which promises none; empty where there are none yet.
    :raises CapillaryResponseError: The answer has no ``result``, or a job without id or status.
    """
    return [job_of(row) for row in read_fields(payload, kind, timezone)]


class JobFields(Struct, frozen=True, gc=False):
    """The fields of a job as a response has them, times in epoch milliseconds.

    The garbage collector does not track it, as it does a named tuple: 20,000 of these a poll would trigger a full
    collection that stalls the triggerer.
    """

    job_id: int
    status: str
    uploaded_file_name: str | None
    uploaded_file_url: str | None
    org_id: int | None = None
    coupon_series_id: int | None = None
    created_on: int | None = None
    updated_on: int | None = None
    timezone: str = "UTC"
    error_file_url: str | None = None
    success_file_url: str | None = None
    total_uploaded_count: int | None = None
    actual_row_count: int | None = None
    error_count: int | None = None
    upload_table_name: str | None = None


def read_fields(payload: Mapping[str, Any], kind: UploadKind, timezone: str) -> list[JobFields]:
    """Read the fields of each job of a response; :func:`job_of` makes a job of them.

    :param payload: The JSON object, known to report no failure.
    :param kind: The kind of upload that it answers for.
    :param timezone: Zone of the cluster's day.
    :raises CapillaryResponseError: As :func:`read_jobs`.
    """
    result = payload.get("result")
    if not isinstance(result, dict):
        raise CapillaryResponseError("Capillary's answer has no result", is_transient=True)
    jobs = result.get(kind.jobs_field)
    if jobs is None:
        return []
    if not isinstance(jobs, list):
        raise CapillaryResponseError(f"{kind.jobs_field} in Capillary's answer is not a list", is_transient=True)
    org_id, series_id = as_int(result.get("orgId")), as_int(result.get("couponSeriesId"))
    status_field = kind.status_field
    return [_fields_of(job, status_field, org_id, series_id, timezone) for job in jobs]


def _fields_of(
    job: Any, status_field: str, org_id: int | None, coupon_series_id: int | None, timezone: str
) -> JobFields:
    if not isinstance(job, dict):
        raise CapillaryResponseError("a job in Capillary's answer is not an object", is_transient=True)
    job_id, status = as_int(job.get("jobId")), job.get(status_field)
    if job_id is None or not isinstance(status, str) or not status.strip():
        raise CapillaryResponseError(
            f"a job in Capillary's answer has no jobId or no {status_field}", is_transient=True
        )
    return JobFields(
        job_id=job_id,
        status=status,
        uploaded_file_name=_name(job.get("uploadedFileName")),
        uploaded_file_url=_name(job.get("uploadedFileUrl")),
        org_id=org_id,
        coupon_series_id=coupon_series_id,
        created_on=as_int(job.get("createdOn")),
        updated_on=as_int(job.get("updatedOn")),
        timezone=timezone,
        error_file_url=_name(job.get("errorFileUrl")),
        success_file_url=_name(job.get("successFileUrl")),
        total_uploaded_count=as_int(job.get("totalUploadedCount")),
        actual_row_count=as_int(job.get("actualRowCount")),
        error_count=as_int(job.get("errorCount")),
        upload_table_name=_name(job.get("uploadTableName")),
    )


def job_of(found: JobFields) -> UploadJob:
    """Make the job that has these fields.

    :param found: Those of :func:`read_fields`.
    """
    return UploadJob(
        job_id=found.job_id,
        status=found.status,
        org_id=found.org_id,
        coupon_series_id=found.coupon_series_id,
        created_on=_moment(found.created_on, found.timezone),
        updated_on=_moment(found.updated_on, found.timezone),
        error_file_url=found.error_file_url,
        success_file_url=found.success_file_url,
        uploaded_file_url=found.uploaded_file_url,
        uploaded_file_name=found.uploaded_file_name,
        total_uploaded_count=found.total_uploaded_count,
        actual_row_count=found.actual_row_count,
        error_count=found.error_count,
        upload_table_name=found.upload_table_name,
    )


def status_word(status: str) -> str:
    """Return a status word as it is compared: without spaces around it, in upper case.

    :param status: The status as Capillary sent it.
    """
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
