# SPDX-License-Identifier: Apache-2.0
"""The wait for one job: what each poll of the series means for it.

Poke, reschedule and deferrable mode differ only in where the waiting happens; the decisions are made here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_capillary.api.earlier_versions import current_event
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError
from airflow_provider_capillary.api.job_history import JobHistory, JobSelector
from airflow_provider_capillary.api.job_messages import failure_hint, shown_status
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.log_lines import one_line
from airflow_provider_capillary.api.values import (
    CHECK_TEMPLATE,
    as_number,
    as_whole_number,
    parse_id,
    read_text,
    short_repr,
)
from airflow_provider_capillary.api.wait_log import WaitLog, subject_of

if TYPE_CHECKING:
    from pendulum import DateTime

    from airflow_provider_capillary.api.upload_kinds import UploadKind
    from airflow_provider_capillary.api.wait_log import Log

WaitStatus = Literal["success", "failed", "error_limit_exceeded", "timeout", "error"]
_STATUSES: tuple[WaitStatus, ...] = ("success", "failed", "error_limit_exceeded", "timeout", "error")


@dataclass(frozen=True, kw_only=True)
class WaitOptions:
    """What to wait for, and when to give up. This is the one list of these options.

    Sensor and trigger take them as arguments and keep them as attributes, both under the names of these fields.

    :param coupon_series_id: The series, a number or text.
    :param job_id: See :class:`JobSelector`.
    :param uploaded_file_name: See :class:`JobSelector`.
    :param after_job_id: See :class:`JobSelector`.
    :param max_error_count: Most refused rows that a completed job may have, number or text; None for any.
    :param max_error_rate: The same as a fraction of the uploaded rows, 0.0 to 1.0; None for any.
    :param max_consecutive_failures: How many polls in a row may end in a transient error before the wait does.
    :param silent_fail: Airflow's option: no failed poll ends the wait.
    """

    coupon_series_id: int | str
    job_id: int | str | None = None
    uploaded_file_name: str | None = None
    after_job_id: int | str | None = None
    max_error_count: int | str | None = None
    max_error_rate: float | str | None = None
    max_consecutive_failures: int = 10
    silent_fail: bool = False

    @classmethod
    def of(cls, owner: object) -> WaitOptions:
        """Read the options from an object.

        :param owner: A sensor or trigger, which has each option as an attribute of the same name.
        """
        return cls(**{each.name: getattr(owner, each.name) for each in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Return the options as keyword arguments, with the values as they are."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def resolved(self) -> WaitOptions:
        """Return the same options with ids and limits as plain numbers, which every log and JSON can take.

        :raises CapillaryConfigurationError: One of them has an unusable value.
        """
        choice, (count, rate) = self.choice(), self.limits()
        return replace(
            self,
            coupon_series_id=self.series_id,
            job_id=choice.job_id,
            uploaded_file_name=choice.uploaded_file_name,
            after_job_id=choice.after_job_id,
            max_error_count=count,
            max_error_rate=rate,
            max_consecutive_failures=self._budget(),
        )

    @property
    def series_id(self) -> int:
        """The coupon series as a number.

        :raises CapillaryConfigurationError: It is not a number.
        """
        return parse_id("coupon_series_id", self.coupon_series_id)

    def choice(self) -> JobSelector:
        """Return the selector of the job.

        :raises CapillaryConfigurationError: An id is not a number, a name is empty, or ``job_id`` is not given alone.
        """
        validate_selector(self.job_id, self.uploaded_file_name, self.after_job_id)
        name = self.uploaded_file_name
        return JobSelector(
            job_id=None if self.job_id is None else parse_id("job_id", self.job_id),
            uploaded_file_name=None if name is None else read_text("uploaded_file_name", name),
            # 0 precedes all jobs: the start value if the last id is kept from run to run.
            after_job_id=None if self.after_job_id is None else parse_id("after_job_id", self.after_job_id, least=0),
        )

    def limits(self) -> tuple[int | None, float | None]:
        """Return the most refused rows, and the same as a fraction, as numbers.

        :raises CapillaryConfigurationError: One of them, or ``max_consecutive_failures``, has an unusable value.
        """
        count = as_whole_number(self.max_error_count)
        if self.max_error_count is not None and (count is None or count < 0):
            raise CapillaryConfigurationError(
                "max_error_count must be a whole number, 0 or more, but is "
                f"{short_repr(self.max_error_count)}; leave it out for no limit, and {CHECK_TEMPLATE}"
            )
        rate = as_number(self.max_error_rate)
        if self.max_error_rate is not None and (rate is None or not 0 <= rate <= 1):
            raise CapillaryConfigurationError(
                "max_error_rate must be a number, a fraction of the uploaded rows from 0.0 to 1.0, but is "
                f"{short_repr(self.max_error_rate)}; leave it out for no limit, and {CHECK_TEMPLATE}"
            )
        self._budget()
        return count, rate

    def _budget(self) -> int:
        budget = as_whole_number(self.max_consecutive_failures)
        if budget is None or budget < 1:
            raise CapillaryConfigurationError(
                "max_consecutive_failures must be a whole number, 1 or more, but is "
                f"{short_repr(self.max_consecutive_failures)}; for a wait that sits out any outage, give a large one"
            )
        return budget


def validate_selector(job_id: Any, uploaded_file_name: Any, after_job_id: Any) -> None:
    """Refuse arguments that select a job in two ways.

    :raises CapillaryConfigurationError: ``job_id`` comes with ``uploaded_file_name`` or ``after_job_id``.
    """
    if job_id is not None and (uploaded_file_name is not None or after_job_id is not None):
        raise CapillaryConfigurationError(
            "job_id already picks one job; leave out uploaded_file_name and after_job_id, or leave out job_id"
        )


@dataclass(frozen=True, kw_only=True)
class WaitOutcome:
    """How a wait ended.

    :param status: The outcome.
    :param message: Its description.
    :param job: The job, if it was found.
    :param error: The last error, for status ``error``.
    """

    status: WaitStatus
    message: str
    job: UploadJob | None = None
    error: CapillaryError | None = None

    def to_event(self) -> dict[str, Any]:
        """Return the outcome as the JSON-ready payload of a trigger event."""
        return {
            "status": self.status,
            "message": self.message,
            "job": None if self.job is None else self.job.to_dict(),
            "error": None if self.error is None else self.error.to_dict(),
        }

    @classmethod
    def from_event(cls, event: Any) -> WaitOutcome:
        """Read the payload of a trigger event.

        :param event: What :meth:`to_event` returned, in this version or in 0.1.0.
        :raises CapillaryError: It is anything else, such as the event of another version. An error, because a
            default would be read as the end of the job.
        """
        event = current_event(event)
        if not isinstance(event, Mapping) or event.get("status") not in _STATUSES:
            raise CapillaryError("the trigger ended with an event that this version does not know; clear the task")
        status, job, error = event["status"], event.get("job"), event.get("error")
        needed = {"timeout": None, "error": error}.get(status, job)
        if any(part is not None and not isinstance(part, dict) for part in (job, error)) or (
            needed is None and status != "timeout"
        ):
            raise CapillaryError(
                f"the trigger ended with a {status!r} event that lacks what this version needs of it; clear the task"
            )
        return cls(
            status=status,
            message=str(event.get("message", "")),
            job=None if job is None else UploadJob.from_dict(job),
            error=None if error is None else CapillaryError.from_dict(error),
        )


class JobWaiter:
    """Takes the result of each poll of the series, and decides when the wait ends.

    :param options: What to wait for.
    :param kind: The kind of upload that the job belongs to.
    :param log: Where the choice of the job, its progress and transient errors are logged.
    :param now: The clock, for the age of the job in the log.
    :param failures: Failed polls in a row so far, where an earlier process counted them.
    """

    def __init__(
        self,
        options: WaitOptions,
        *,
        kind: UploadKind,
        log: Log,
        now: Callable[[], DateTime],
        failures: int = 0,
    ) -> None:
        self.options = options.resolved()
        self.kind = kind
        self.failures = failures
        self.last_seen = "nothing yet"
        self._choice = self.options.choice()
        self._most_errors, self._highest_rate = self.options.limits()
        self._subject = subject_of(self._choice, kind, self.options.coupon_series_id)
        #: The log of the wait.
        self.wait_log = WaitLog(
            log, kind=kind, coupon_series_id=self.options.coupon_series_id, subject=self._subject, now=now
        )
        self._log = log
        self._none_up_to: int | None = None
        #: What the last successful poll has shown: the job, or while it is not there, the newest one.
        self._seen: tuple[UploadJob | None, UploadJob | None] | None = None

    def on_jobs(self, jobs: JobHistory | Iterable[UploadJob]) -> WaitOutcome | None:
        """Take the jobs of a successful poll.

        :param jobs: All jobs of the series.
        :return: The outcome, or None while the wait goes on.
        """
        self.failures = 0
        history = JobHistory.of(jobs)
        job = self._choice.select(history, newer_than=self._none_up_to)
        if job is None and history.settled_up_to is not None:
            # Finished jobs that do not match never will: search the history of years only once.
            self._none_up_to = history.settled_up_to
        newest = history.newest()
        seen = (job, newest if job is None else None)
        if seen == self._seen:
            # The change that woke this wait was for another one.
            self.remind()
            return None
        if job is not None:
            self.last_seen = f"job {job.job_id} was {shown_status(job)}"
        elif newest is None:
            self.last_seen = "no job in the series yet"
        else:
            self.last_seen = f"no such job yet, the newest was {newest.job_id} ({shown_status(newest)})"
        self.wait_log.on_jobs(newest, job, last_seen=self.last_seen)
        if job is None or not job.is_done:
            self._seen = seen
            return None
        if job.is_failed:
            hint = failure_hint(job, self.kind, self.options.coupon_series_id)
            return WaitOutcome(
                status="failed",
                message=f"{self.kind.title} job {job.job_id} ended as {shown_status(job)}; {hint}",
                job=job,
            )
        excess = self._excess(job)
        if excess is not None:
            return WaitOutcome(status="error_limit_exceeded", message=excess, job=job)
        return WaitOutcome(status="success", message=f"{self.kind.title} job {job.job_id} is complete", job=job)

    def on_error(self, error: CapillaryError) -> WaitOutcome | None:
        """Take the error of a poll whose retries are used up.

        :param error: The error.
        :return: The outcome, or None while the wait goes on.
        """
        self.failures += 1
        budget = self.options.max_consecutive_failures
        if self.options.silent_fail:
            self._log_error(f"Poll of the upload job failed, going on as silent_fail says: {error}", self._log.error)
            return None
        if not error.is_transient:
            return WaitOutcome(status="error", message=str(error), error=error)
        if self.failures >= budget:
            self._log_error(f"Poll of the upload job failed {self.failures} times in a row; giving up", self._log.error)
            return WaitOutcome(status="error", message=str(error), error=error)
        self._log_error(
            f"Poll of the upload job failed ({self.failures} in a row, giving up at {budget}): {error}",
            self._log.warning,
        )
        return None

    def remind(self) -> None:
        """Log that the wait goes on, where nothing was logged for an hour."""
        if self.wait_log.seconds_to_reminder() <= 0:
            self.wait_log.remind(self.last_seen)

    def time_out(self, timeout_seconds: float) -> WaitOutcome:
        """Return the outcome of a wait that timed out.

        :param timeout_seconds: The sensor's timeout.
        """
        return WaitOutcome(
            status="timeout",
            message=one_line(
                self._subject, f" did not end within {timeout_seconds:.10g} seconds; last seen: {self.last_seen}"
            ),
        )

    def _log_error(self, text: str, write: Callable[..., Any]) -> None:
        self.wait_log.on_error(text, write, last_seen=self.last_seen)

    def _excess(self, job: UploadJob) -> str | None:
        """Return a message if a completed job exceeds an error limit, else None."""
        most, rate = self._most_errors, self._highest_rate
        if most is None and rate is None:
            return None
        if job.error_count is None or (rate is not None and job.error_rate is None):
            return (
                f"{self.kind.title} job {job.job_id} is complete, but Capillary did not report its counts, "
                "so the error limit cannot be checked"
            )
        counts = f"{self.kind.title} job {job.job_id} has {job.error_count} errors"
        if job.total_uploaded_count is not None:
            counts += f" in {job.total_uploaded_count} rows"
        if most is not None and job.error_count > most:
            return f"{counts}, more than max_error_count={most}"
        if rate is not None and job.error_rate is not None and job.error_rate > rate:
            return f"{counts}, more than max_error_rate={rate:g}"
        return None
