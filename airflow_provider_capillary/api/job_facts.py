# SPDX-License-Identifier: Apache-2.0
"""Facts about the jobs in an answer of the status endpoint, fit for the public (docs/capillary/api.md, 3)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_capillary.api.jobs import UploadJob, status_word
from airflow_provider_capillary.api.response_facts import kind_of_value
from airflow_provider_capillary.api.upload_kinds import REDEEM
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_capillary.api.public_words import PublicWords

_ENVELOPE_FIELDS = frozenset({"success", "status", "result"})
_RESULT_FIELDS = frozenset({"orgId", "couponSeriesId", REDEEM.jobs_field})
_TEXT, _NUMBER = frozenset({"text", "null"}), frozenset({"number"})
#: Fields of a job -> their types in the documents and samples (docs/capillary/api.md, 3.3).
JOB_FIELDS: Mapping[str, frozenset[str]] = {
    "jobId": _NUMBER,
    REDEEM.status_field: frozenset({"text"}),
    "createdOn": frozenset({"text"}),
    "updatedOn": frozenset({"text"}),
    "errorFileUrl": _TEXT,
    "successFileUrl": _TEXT,
    "uploadedFileUrl": frozenset({"text"}),
    "totalUploadedCount": _NUMBER,
    "actualRowCount": _NUMBER,
    "errorCount": _NUMBER,
    "uploadTableName": _TEXT,
    "uploadedFileName": frozenset({"text"}),
}
_DATE_FIELDS = ("createdOn", "updatedOn")
_DAY, _QUARTER = 86_400, 900


def describe_jobs(payload: Mapping[str, Any], *, timezone: str, words: PublicWords) -> dict[str, Any]:
    """Describe the jobs in an answer of the status endpoint: names, types and counts, but no value but a status word.

    :param payload: The JSON object.
    :param timezone: Zone of the cluster's day.
    :param words: Which words are shown.
    """
    result = payload.get("result")
    result = result if isinstance(result, dict) else {}
    listed = result.get(REDEEM.jobs_field)
    listed = listed if isinstance(listed, list) else []
    jobs = [job for job in listed if isinstance(job, dict)]
    kinds: dict[str, set[str]] = {}
    for job in jobs:
        for name, value in job.items():
            kinds.setdefault(name, set()).add(kind_of_value(value))
    expected = (
        ("", payload, _ENVELOPE_FIELDS),
        ("result.", result, _RESULT_FIELDS),
        ("job.", kinds, frozenset(JOB_FIELDS) if jobs else frozenset()),
    )
    statuses = Counter(str(job.get(REDEEM.status_field)) for job in jobs)
    finished = [job for job in jobs if _is_finished(job)]
    dates = [value for job in jobs for value in (job.get(name) for name in _DATE_FIELDS) if value is not None]
    midnights = [job for job in finished if _offsets_of(job) is not None]
    return {
        "jobs": len(listed),
        "status_words": _counted(statuses, words),
        "unknown_status_words": words.words(word for word in statuses if not _is_known(word)),
        "fields": {words.word(name): sorted(types) for name, types in sorted(kinds.items())},
        "unknown_fields": sorted(
            f"{place}{words.word(name)}" for place, seen, known in expected for name in seen if name not in known
        ),
        "missing_fields": sorted(f"{place}{name}" for place, seen, known in expected for name in known - seen.keys()),
        "fields_of_other_types": sorted(name for name, known in JOB_FIELDS.items() if kinds.get(name, set()) - known),
        "dates_are": sorted({_kind_of_date(value) for value in dates}),
        "finished_jobs": len(finished),
        "finished_jobs_not_at_a_midnight": len(finished) - len(midnights),
        "finished_jobs_at_midnight_of_cluster_timezone": sum(_is_midnight(job, timezone) for job in midnights),
        "midnight_at_utc_offsets": _common_offsets(midnights),
        "jobs_with_error_file": sum(bool(job.get("errorFileUrl")) for job in jobs),
        "jobs_with_success_file": sum(bool(job.get("successFileUrl")) for job in jobs),
    }


def _counted(statuses: Counter[str], words: PublicWords) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for status, count in sorted(statuses.items()):
        counts[words.word(status)] += count
    return dict(counts)


def _is_known(word: str) -> bool:
    return UploadJob(job_id=1, status=word).has_known_status


def _is_finished(job: Mapping[str, Any]) -> bool:
    return UploadJob(job_id=1, status=status_word(str(job.get(REDEEM.status_field)))).is_done


def _kind_of_date(value: Any) -> str:
    number = as_int(value)
    if number is None:
        return f"{kind_of_value(value)} that is no whole number"
    return f"{kind_of_value(value)} of {len(str(abs(number)))} digits"


def _offsets_of(job: Mapping[str, Any]) -> frozenset[int] | None:
    """Return the offsets from UTC, in seconds, at which the job's date is midnight; None if it is none anywhere."""
    millis = as_int(job.get("createdOn"))
    if millis is None or millis % (_QUARTER * 1000):
        return None
    ahead = -(millis // 1000) % _DAY
    return frozenset(offset for offset in (ahead, ahead - _DAY) if -12 * 3600 <= offset <= 14 * 3600)


def _common_offsets(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    offsets = {offset for job in jobs for offset in _offsets_of(job) or ()}
    return [f"{'-' if each < 0 else '+'}{abs(each) // 3600:02}:{abs(each) % 3600 // 60:02}" for each in sorted(offsets)]


def _is_midnight(job: Mapping[str, Any], timezone: str) -> bool:
    millis = as_int(job.get("createdOn"))
    try:
        moment = pendulum.from_timestamp((millis or 0) / 1000, tz=timezone)
    except (ValueError, OverflowError, OSError):
        return False
    return millis is not None and moment == moment.start_of("day")
