# SPDX-License-Identifier: Apache-2.0
"""The log of a wait: what it waits for, each change, and once an hour that nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_capillary.api.job_messages import shown_file_name, shown_status
from airflow_provider_capillary.api.log_lines import one_line, write_lines
from airflow_provider_capillary.api.secrecy import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pendulum import DateTime

    from airflow_provider_capillary.api.job_history import JobSelector
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind

_LONGEST_NAME = 60
#: A wait without a change says after this time that it goes on.
_QUIET_SECONDS = 3600.0


class Log(Protocol):
    """The log of a wait: Airflow's loggers, and those of the standard library."""

    def info(self, message: Any, /, *args: Any) -> Any:
        """Log progress."""

    def warning(self, message: Any, /, *args: Any) -> Any:
        """Log what may need attention."""

    def error(self, message: Any, /, *args: Any) -> Any:
        """Log an error."""


@dataclass(frozen=True, kw_only=True)
class WaitTimes:
    """How often a wait is polled, and until when.

    :param interval: Seconds between two polls.
    :param backs_off: Whether the interval grows.
    :param end: Epoch seconds at which the wait ends; None where that is not known.
    :param is_resumed: Whether an earlier process has logged the beginning.
    """

    interval: float
    backs_off: bool = False
    end: float | None = None
    is_resumed: bool = False

    def __str__(self) -> str:
        text = f"polled every {self.interval:.10g} s" + (" at first" if self.backs_off else "")
        if self.end is not None:
            try:
                text += f" until {datetime.fromtimestamp(self.end, UTC):%Y-%m-%d %H:%M:%S} UTC"
            except (OverflowError, ValueError, OSError):  # a timeout of millions of years
                text += " without an end"
        return text


def subject_of(choice: JobSelector, kind: UploadKind, coupon_series_id: int | str) -> str:
    """Return what a wait waits for, the longest part last.

    :param choice: Selects the job.
    :param kind: The kind of upload.
    :param coupon_series_id: The series.
    """
    if choice.job_id is not None:
        return f"{kind.title} job {choice.job_id} of coupon series {coupon_series_id}"
    text = f"the newest {kind.title} job of coupon series {coupon_series_id}"
    if choice.after_job_id is not None:
        text += f" after job {choice.after_job_id}"
    if choice.uploaded_file_name is not None:
        text += f" with file {shown(choice.uploaded_file_name, most=_LONGEST_NAME)!r}"
    return text


class WaitLog:
    """Logs the beginning of a wait, each change, and once an hour that it goes on.

    :param log: Where the lines go.
    :param kind: The kind of upload.
    :param coupon_series_id: The series.
    :param subject: What is waited for, as :func:`subject_of` returns it.
    :param now: The clock.
    """

    def __init__(
        self, log: Log, *, kind: UploadKind, coupon_series_id: int | str, subject: str, now: Callable[[], DateTime]
    ) -> None:
        #: None where another process logs the beginning.
        self.times: WaitTimes | None = None
        self._log = log
        self._kind = kind
        self._series_id = coupon_series_id
        self._subject = subject
        self._now = now
        self._has_begun = False
        self._line_at = now().timestamp()
        self._newest_id: int | None = None
        self._job_id: int | None = None
        self._status: str | None = None
        self._unknown: set[str] = set()

    @property
    def is_new(self) -> bool:
        """Whether nothing was logged yet, neither here nor by an earlier process of this wait."""
        return not self._has_begun and self.times is not None and not self.times.is_resumed

    def to_memory(self) -> dict[str, Any] | None:
        """Return what the next process of this wait must know to repeat no line, as JSON."""
        if not self._has_begun:
            return None
        return {
            "newest": self._newest_id,
            "job": self._job_id,
            "status": self._status,
            "unknown": sorted(self._unknown),
            "line_at": self._line_at,
            "end": None if self.times is None else self.times.end,
        }

    def recall(self, memory: Any) -> None:
        """Go on where another process left off.

        :param memory: What :meth:`to_memory` returned; anything else is ignored.
        """
        match memory:
            case {
                "newest": int() | None as newest,
                "job": int() | None as job,
                "status": str() | None as status,
                "unknown": list() as unknown,
                "line_at": int() | float() as line_at,
                "end": int() | float() | None as end,
            }:
                self._has_begun, self._newest_id, self._job_id, self._status = True, newest, job, status
                self._unknown, self._line_at = set(map(str, unknown)), line_at
                if self.times is not None:
                    self.times = replace(self.times, end=end)

    def on_jobs(self, newest: UploadJob | None, job: UploadJob | None, *, last_seen: str) -> None:
        """Log what a successful poll has changed.

        :param newest: The newest job of the series.
        :param job: The job that is waited for.
        :param last_seen: State of the wait.
        """
        if not self._has_begun:
            there = "no job there yet" if newest is None else f"the newest job there is {_with_status(newest)}"
            self._begin(there, job, last_seen)
        elif job is None and newest is not None and newest.job_id != self._newest_id:
            self._info(
                f"Not there yet: the newest {self._kind.title} job of coupon series {self._series_id} is now "
                f"{_with_status(newest)}, file {shown_file_name(newest)}"
            )
        self._newest_id = None if newest is None else newest.job_id
        if job is not None:
            self._log_progress(job)
        if self.seconds_to_reminder() <= 0:
            self.remind(last_seen)

    def on_error(self, text: str, write: Callable[..., Any], *, last_seen: str) -> None:
        """Log a failed poll.

        :param text: What failed. A long one becomes several lines.
        :param write: Method of the log for its level.
        :param last_seen: State of the wait.
        """
        if not self._has_begun:
            self._begin("the newest job there is not known yet", None, last_seen)
        self._line_at = self._now().timestamp()
        write_lines(write, text)

    def seconds_to_reminder(self) -> float:
        """Return after how many seconds without a change the wait says that it goes on."""
        return min(_QUIET_SECONDS, max(0.0, _QUIET_SECONDS - (self._now().timestamp() - self._line_at)))

    def remind(self, last_seen: str) -> None:
        """Log that the wait goes on.

        :param last_seen: State of the wait.
        """
        times = "" if self.times is None else f"; {self.times}"
        self._info(f"Still waiting for {self._subject}", f"; last seen: {last_seen}{times}")

    def _begin(self, there: str, job: UploadJob | None, last_seen: str) -> None:
        self._has_begun = True
        if self.times is None:
            return
        if not self.times.is_resumed:
            self._info(f"Waiting for {self._subject}", f"; {there}; {self.times}")
            return
        # One line, because an earlier process has logged the others.
        if job is not None:
            self._job_id = job.job_id
        if job is None or not job.is_done:
            self.remind(last_seen)
            if job is not None and job.has_known_status:
                self._status = _word(job)

    def _log_progress(self, job: UploadJob) -> None:
        if job.job_id != self._job_id:
            self._job_id = job.job_id
            self._info(
                f"Found {self._kind.title} job {job.job_id} of coupon series {self._series_id}, "
                f"file {shown_file_name(job)}",
                f", {self._age(job)}",
            )
        word = _word(job)
        if job.has_known_status and word != self._status:
            self._status = word
            if job.is_paused:
                self._warn(
                    f"Upload job {job.job_id} is {shown_status(job)}: it waits until somebody at Capillary resumes it"
                )
            else:
                self._info(f"Upload job {job.job_id} is {shown_status(job)}")
        elif not job.has_known_status and word not in self._unknown:
            self._unknown.add(word)
            self._warn(f"Upload job {job.job_id} has the unknown status {shown_status(job)!r}, taken as still running")

    def _age(self, job: UploadJob) -> str:
        if (uploaded := job.uploaded_at) is not None:
            at = f"{uploaded.in_timezone('UTC').to_datetime_string()} UTC"
            return f"uploaded {at} ({uploaded.diff_for_humans(self._now())} this poll)"
        if job.created_on is not None:
            return f"created on {job.created_on.to_date_string()}"
        return "of unknown age"

    def _info(self, head: str, tail: str = "") -> None:
        self._line_at = self._now().timestamp()
        self._log.info("%s", one_line(head, tail))

    def _warn(self, text: str) -> None:
        self._line_at = self._now().timestamp()
        self._log.warning("%s", one_line(text))


def _word(job: UploadJob) -> str:
    return job.status.strip().upper()


def _with_status(job: UploadJob) -> str:
    return f"{job.job_id} ({shown_status(job)})"
