# SPDX-License-Identifier: Apache-2.0
"""The watch over a series: which jobs are done that were not told before.

It goes by edges and not by levels: each job is told once, when it is done, and what was done before the watch began is
not told at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.envelopes import as_int
from airflow_provider_capillary.api.errors import CapillaryResponseError

if TYPE_CHECKING:
    from airflow_provider_capillary.api.jobs import JobHistory, UploadJob

#: Jobs that one event carries at most; the others follow with the next look. Airflow maps a task over 1,024 values at
#: most, unless told otherwise, and stores an event's payload in one piece.
MOST_JOBS = 1000


@dataclass(frozen=True)
class WatchCursor:
    """How far the jobs of a series were told.

    :param after_job_id: All jobs up to this id were told, or were done before the watch began; 0 for none.
    :param pending_job_ids: Those up to there that were not done yet.
    """

    after_job_id: int = 0
    pending_job_ids: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the cursor as JSON-ready values."""
        return {"after_job_id": self.after_job_id, "pending_job_ids": list(self.pending_job_ids)}

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
                    return cls(after, tuple(each for each in ids if each is not None))
        raise CapillaryResponseError("the stored cursor is not one of this version")


def begin_watch(jobs: JobHistory, *, backfill: bool) -> WatchCursor:
    """Return the cursor of a watch that begins.

    :param jobs: What is there.
    :param backfill: Whether to tell what was done before, too. Jobs that still run are told in any case, once they
        are done.
    """
    newest = jobs.newest()
    if backfill or newest is None:
        return WatchCursor()
    return WatchCursor(newest.job_id, tuple(jobs.running_ids))


def watch(jobs: JobHistory, cursor: WatchCursor, *, most: int = MOST_JOBS) -> tuple[list[UploadJob], WatchCursor]:
    """Return the jobs that are done and were not told yet, the oldest first, and the cursor behind them.

    :param jobs: All jobs of the series.
    :param cursor: How far they were told.
    :param most: Return no more jobs than this.
    """
    untold = [job for each in cursor.pending_job_ids if (job := jobs.get(each)) is not None]
    for job in jobs.newest_first:
        if job.job_id <= cursor.after_job_id:
            break
        untold.append(job)
    untold.sort(key=lambda job: job.job_id)
    done = [job for job in untold if job.is_done]
    told = done[:most]
    if len(done) > most:
        after = max(cursor.after_job_id, told[-1].job_id)
    else:
        after = max([cursor.after_job_id, *(job.job_id for job in untold)])
    told_ids = {job.job_id for job in told}
    # A pending job that is missing in this answer stays pending: an answer can be empty for a moment.
    pending = {*cursor.pending_job_ids, *(job.job_id for job in untold if job.job_id <= after)} - told_ids
    return told, WatchCursor(after, tuple(sorted(pending)))
