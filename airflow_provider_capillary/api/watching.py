# SPDX-License-Identifier: Apache-2.0
"""The watch of a series: which jobs finished that were not reported before.

Each job is reported once, when it finishes. Jobs that finished before the watch began are not reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryResponseError
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.jobs import UploadJob

#: Jobs that one event carries at most; the others follow with the next poll. Airflow maps a task over 1,024 values at
#: most, unless configured otherwise, and stores an event's payload in one piece.
MOST_JOBS = 1000
#: So many empty answers since a watch began, and the series is new.
_SURELY_EMPTY = 2
#: Milliseconds by which Capillary's clock, which uploads are named by, may be behind ours.
_CLOCK_SKEW_MS = 600_000
#: While it is not sure that the series is new, what was uploaded within this time counts as there before.
_BEGIN_MS = 10_000


@dataclass(frozen=True)
class WatchCursor:
    """The position of a watch.

    :param after_job_id: All jobs up to this id were reported, or finished before the watch began; 0 for none.
    :param pending_job_ids: Jobs up to this id that have not finished yet.
    :param empty_since: When the watch began, in epoch milliseconds, as long as the series has been empty since: it may
        be new, or Capillary may have left its jobs out of the answer.
    :param empty_answers: How many answers were empty since then, as far as that matters.
    """

    after_job_id: int = 0
    pending_job_ids: tuple[int, ...] = ()
    empty_since: int | None = None
    empty_answers: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether to store it. After a single empty answer, a restarted watch can start from the beginning."""
        return self.empty_since is None or self.empty_answers >= _SURELY_EMPTY

    def to_dict(self) -> dict[str, Any]:
        """Return the cursor as JSON-ready values."""
        value: dict[str, Any] = {
            "after_job_id": self.after_job_id,
            "pending_job_ids": list(self.pending_job_ids),
        }
        if self.empty_since is not None:
            value |= {"empty_since": self.empty_since, "empty_answers": self.empty_answers}
        return value

    @classmethod
    def from_dict(cls, value: Any) -> WatchCursor:
        """Build the cursor again that :meth:`to_dict` wrote down.

        :param value: What :meth:`to_dict` returned.
        :raises CapillaryResponseError: It is something else.
        """
        if isinstance(value, Mapping):
            after, pending = as_int(value.get("after_job_id")), value.get("pending_job_ids")
            if after is not None and isinstance(pending, list | tuple):
                ids = [as_int(each) for each in pending]
                if None not in ids:
                    return cls(
                        after,
                        tuple(each for each in ids if each is not None),
                        as_int(value.get("empty_since")),
                        as_int(value.get("empty_answers")) or 0,
                    )
        raise CapillaryResponseError("the stored cursor is not one of this version")


def begin_watch(jobs: JobHistory, *, include_existing: bool, now: float | None = None) -> WatchCursor:
    """Return the cursor of a watch that begins.

    :param jobs: What is there.
    :param include_existing: Whether to report jobs that finished before, too. Jobs that still run are reported in any
        case, once they finish.
    :param now: Epoch seconds. With it, a series that is empty only in this answer does not count as new.
    """
    newest = jobs.newest()
    if include_existing or newest is None:
        return WatchCursor(empty_since=None if include_existing or now is None else int(now * 1000))
    return WatchCursor(newest.job_id, tuple(jobs.running_ids))


def _leave_out_the_old(jobs: JobHistory, cursor: WatchCursor, empty_since: int) -> WatchCursor:
    """Return the cursor behind the jobs that an empty answer has hidden when the watch began.

    Job ids grow with time, so all jobs up to the newest old one are old.
    """
    since = empty_since + (-_CLOCK_SKEW_MS if cursor.is_settled else _BEGIN_MS)

    def is_old(job: UploadJob) -> bool:
        uploaded = job.uploaded_at
        return not cursor.is_settled if uploaded is None else uploaded.timestamp() * 1000 < since

    after = next((job.job_id for job in jobs.newest_first if is_old(job)), 0)
    return WatchCursor(after, tuple(each for each in jobs.running_ids if each <= after))


def watch(jobs: JobHistory, cursor: WatchCursor, *, most: int = MOST_JOBS) -> tuple[list[UploadJob], WatchCursor]:
    """Return the jobs that finished and were not reported yet, the oldest first, and the cursor behind them.

    :param jobs: All jobs of the series.
    :param cursor: The position before.
    :param most: Return no more jobs than this.
    """
    if cursor.empty_since is not None:
        if jobs.newest() is None:
            return [], replace(cursor, empty_answers=min(cursor.empty_answers + 1, _SURELY_EMPTY))
        cursor = _leave_out_the_old(jobs, cursor, cursor.empty_since)
    unreported = [job for each in cursor.pending_job_ids if (job := jobs.get(each)) is not None]
    for job in jobs.newest_first:
        if job.job_id <= cursor.after_job_id:
            break
        unreported.append(job)
    unreported.sort(key=lambda job: job.job_id)
    finished = [job for job in unreported if job.is_done]
    reported = finished[:most]
    if len(finished) > most:
        after = max(cursor.after_job_id, reported[-1].job_id)
    else:
        after = max([cursor.after_job_id, *(job.job_id for job in unreported)])
    reported_ids = {job.job_id for job in reported}
    # A pending job that is missing in this answer stays pending: an answer can be empty for a moment.
    pending = {*cursor.pending_job_ids, *(job.job_id for job in unreported if job.job_id <= after)} - reported_ids
    return reported, WatchCursor(after, tuple(sorted(pending)))


def merge_cursors(ours: WatchCursor, stored: WatchCursor) -> WatchCursor:
    """Return the cursor behind all jobs that either of two watches has reported.

    :param ours: The position of this watch.
    :param stored: The position of another one that ran meanwhile, or an older one of this watch.
    :return: ``ours`` itself if the other one reported nothing more.
    """
    if ours.empty_since is not None or stored.empty_since is not None:
        return stored if stored.empty_since is None else ours
    pending = tuple(
        job_id
        for job_id in sorted({*ours.pending_job_ids, *stored.pending_job_ids})
        if all(job_id > each.after_job_id or job_id in each.pending_job_ids for each in (ours, stored))
    )
    merged = WatchCursor(max(ours.after_job_id, stored.after_job_id), pending)
    return ours if merged == ours else merged
