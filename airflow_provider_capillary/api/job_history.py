# SPDX-License-Identifier: Apache-2.0
"""All jobs of a series, and the selection of one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryJobNotFoundError
from airflow_provider_capillary.api.jobs import DONE, JobFields, job_of, read_fields, status_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind

_GLOB = re.compile(r"[*?\[]")


@lru_cache(maxsize=4096)
def _fits(glob: str) -> Callable[[str], re.Match[str] | None]:
    """Return the function that matches a name against a glob."""
    return re.compile(translate(glob)).match


def read_history(
    payload: Mapping[str, Any], kind: UploadKind, *, timezone: str = "UTC", digest: bytes | None = None
) -> JobHistory:
    """Read the same response for callers that search it and need few of the jobs.

    :param payload: The JSON object, known to report no failure.
    :param kind: The kind of upload that it answers for.
    :param timezone: Zone of the cluster's day.
    :param digest: Digest of the response.
    :raises CapillaryResponseError: As :func:`read_jobs`.
    """
    return JobHistory(read_fields(payload, kind, timezone), job_of, digest=digest)


def find_job(jobs: JobHistory, job_id: int, *, kind: UploadKind, coupon_series_id: int | str) -> UploadJob:
    """Return the job with an id.

    :param jobs: All jobs of the series.
    :param job_id: The id.
    :param kind: The kind of upload, for the message.
    :param coupon_series_id: The series, for the message.
    :raises CapillaryJobNotFoundError: The series has no such job.
    """
    job = jobs.get(job_id)
    if job is None:
        raise CapillaryJobNotFoundError(
            f"coupon series {coupon_series_id} has no {kind.title} job {job_id}; "
            "check both ids and the kind of upload, and that the connection is that of the series' organisation"
        )
    return job


class JobHistory:
    """All jobs that a series ever had, sorted once so that many waits can search them.

    Keeps the fields of the jobs and builds an :class:`UploadJob` on demand, once for all waits: 20,000 of them a poll
    would trigger a full garbage collection that stalls the triggerer.

    :param rows: The fields of the jobs, in any order.
    :param make: Makes the job that has these fields.
    :param digest: Digest of the response that they come from.
    """

    def __init__(
        self, rows: Iterable[JobFields], make: Callable[[JobFields], UploadJob], *, digest: bytes | None = None
    ) -> None:
        self._by_id: dict[int, JobFields] = {}
        for row in rows:
            self._by_id.setdefault(row.job_id, row)  # of a job that is listed twice, the first entry counts
        self.rows = sorted(self._by_id.values(), key=attrgetter("job_id"), reverse=True)
        self.digest = digest
        self._make = make
        self._selected: dict[int, UploadJob] = {}
        self._found: dict[tuple[int | None, str | None], JobFields | None] = {}
        self._by_name = {
            name: row
            for row in reversed(self.rows)
            for name in (row.uploaded_file_name, row.uploaded_file_url)
            if name is not None
        }

    @classmethod
    def of(cls, jobs: JobHistory | Iterable[UploadJob]) -> JobHistory:
        """Return the history that consists of these jobs.

        :param jobs: The jobs, in any order, or a history, which is returned as it is.
        """
        if isinstance(jobs, JobHistory):
            return jobs
        by_id: dict[int, UploadJob] = {}
        for job in jobs:
            by_id.setdefault(job.job_id, job)
        rows = (
            JobFields(job.job_id, job.status, job.uploaded_file_name, job.uploaded_file_url) for job in by_id.values()
        )
        return cls(rows, lambda row: by_id[row.job_id])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def newest_first(self) -> Iterator[UploadJob]:
        """All jobs, one after the other."""
        return map(self._make, self.rows)

    def get(self, job_id: int) -> UploadJob | None:
        """Return the job with this id."""
        row = self._by_id.get(job_id)
        return None if row is None else self._job(row)

    def newest(self, *, newer_than: int | None = None, uploaded_file_name: str | None = None) -> UploadJob | None:
        """Return the newest job that matches, or None.

        :param newer_than: Only one with a larger id than this.
        :param uploaded_file_name: Only one whose file has this name or fits this glob.
        """
        searched = newer_than, uploaded_file_name
        if searched not in self._found:  # many waits search for the same
            self._found[searched] = self._search(-inf if newer_than is None else newer_than, uploaded_file_name)
        found = self._found[searched]
        return None if found is None else self._job(found)

    def with_file(self, name: re.Pattern[str]) -> list[UploadJob]:
        """Return the jobs whose uploaded file has a name, the oldest first.

        :param name: The whole name must match this pattern.
        """
        return [
            self._make(row)
            for row in reversed(self.rows)
            if any(name.fullmatch(each) for each in (row.uploaded_file_name, row.uploaded_file_url) if each is not None)
        ]

    def _job(self, row: JobFields) -> UploadJob:
        job = self._selected.get(row.job_id)
        if job is None:
            job = self._selected[row.job_id] = self._make(row)
        return job

    def _search(self, floor: float, uploaded_file_name: str | None) -> JobFields | None:
        if uploaded_file_name is None:
            found = next(iter(self.rows), None)
        else:
            found = self._by_name.get(uploaded_file_name)
            if _GLOB.search(uploaded_file_name):
                least = floor if found is None else max(floor, found.job_id)
                found = self._newest_fitting(uploaded_file_name, least) or found
        return found if found is not None and found.job_id > floor else None

    def _newest_fitting(self, glob: str, newer_than: float) -> JobFields | None:
        # Hundreds of waits may search the history of years.
        fits = _fits(glob)
        for row in self.rows:
            if row.job_id <= newer_than:
                break
            # In samples both are names of the file, and not always the same.
            name, url = row.uploaded_file_name, row.uploaded_file_url
            if (name is not None and fits(name)) or (url is not None and url != name and fits(url)):
                return row
        return None

    @cached_property
    def running_ids(self) -> list[int]:
        """The ids of the jobs that have not finished yet, in order."""
        return [row.job_id for row in reversed(self.rows) if status_word(row.status) not in DONE]

    @cached_property
    def settled_up_to(self) -> int | None:
        """The id up to which no job will change any more, its file name included; None if there is none."""
        first_running = self.running_ids[0] if self.running_ids else inf
        return next((row.job_id for row in self.rows if row.job_id < first_running), None)


@dataclass(frozen=True, kw_only=True)
class JobSelector:
    """Selects one job of a series.

    Without any of the three, the newest. Newest means the largest job id: the timestamps of finished jobs have only the
    day (docs/capillary/api.md, 3.5).

    :param job_id: Exactly this job.
    :param uploaded_file_name: The newest job whose uploaded file has this name, or fits this glob (``*``, ``?``,
        ``[...]``; case matters).
    :param after_job_id: The newest job with a larger id than this.
    """

    job_id: int | None = None
    uploaded_file_name: str | None = None
    after_job_id: int | None = None

    def select(self, jobs: JobHistory | Iterable[UploadJob], *, newer_than: int | None = None) -> UploadJob | None:
        """Return the selected job, or None if it does not exist (yet).

        :param jobs: All jobs of the series.
        :param newer_than: Skip jobs up to this id, if none of them can match.
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
