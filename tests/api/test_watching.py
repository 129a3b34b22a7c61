# SPDX-License-Identifier: Apache-2.0
"""The watch of a series: each job is reported once, when it finishes, in any order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.errors import CapillaryResponseError
from airflow_provider_capillary.api.job_history import JobHistory
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.watching import WatchCursor, begin_watch, merge_cursors, watch
from tests.api.flows import examples


def history(**statuses: str) -> JobHistory:
    """Make a history from ``j7="STARTED"`` and so on."""
    return JobHistory.of(UploadJob(job_id=int(name[1:]), status=status) for name, status in statuses.items())


def ids(jobs: list[UploadJob]) -> list[int]:
    return [job.job_id for job in jobs]


def test_a_watch_begins_behind_what_is_there() -> None:
    there = history(j1="COMPLETED", j2="ERRORED", j3="COMPLETED")

    cursor = begin_watch(there, include_existing=False)

    assert cursor == WatchCursor(3)
    assert watch(there, cursor) == ([], cursor)


def test_what_still_runs_when_a_watch_begins_is_reported_once_it_finishes() -> None:
    cursor = begin_watch(history(j1="COMPLETED", j2="STARTED", j3="COMPLETED"), include_existing=False)

    reported, cursor = watch(history(j1="COMPLETED", j2="COMPLETED", j3="COMPLETED"), cursor)

    assert (ids(reported), cursor) == ([2], WatchCursor(3))


def test_include_existing_reports_what_finished_before_too() -> None:
    there = history(j1="COMPLETED", j2="STARTED", j3="ERRORED")

    reported, cursor = watch(there, begin_watch(there, include_existing=True))

    assert (ids(reported), cursor) == ([1, 3], WatchCursor(3, (2,)))


def test_an_empty_series_begins_at_nothing() -> None:
    cursor = begin_watch(history(), include_existing=False)

    reported, _ = watch(history(j1="COMPLETED"), cursor)

    assert ids(reported) == [1]


BEGAN = 1_795_400_000.0


def uploaded(job_id: int, *, seconds: float, status: str = "COMPLETED") -> UploadJob:
    """Make a job that was uploaded so many seconds after the watch began."""
    name = f"redeemed_{int((BEGAN + seconds) * 1000)}_535512.csv"
    return UploadJob(job_id=job_id, status=status, uploaded_file_name=name)


def watched(*answers: list[UploadJob], include_existing: bool = False) -> list[list[int]]:
    """Return the jobs that each answer makes a watch report, which is restarted after each."""
    cursor: WatchCursor | None = None
    reported = []
    for answer in answers:
        jobs = JobHistory.of(answer)
        if cursor is None:
            cursor = begin_watch(jobs, include_existing=include_existing, now=BEGAN)
        done, cursor = watch(jobs, cursor)
        reported.append(ids(done))
        cursor = WatchCursor.from_dict(json.loads(json.dumps(cursor.to_dict())))
    return reported


@pytest.mark.parametrize("named", [True, False])
def test_jobs_that_the_first_answer_left_out_are_not_reported_as_new(named: bool) -> None:
    old = [
        uploaded(number, seconds=number - 6000.0) if named else UploadJob(job_id=number, status="COMPLETED")
        for number in range(1, 5001)
    ]
    late = uploaded(5001, seconds=120)

    assert watched([], old, [*old, late]) == [[], [], [5001]]


def test_old_jobs_that_stay_left_out_for_long_are_not_reported_as_new_either() -> None:
    old = [uploaded(number, seconds=number - 86_400.0) for number in range(1, 51)]
    running, late = uploaded(51, seconds=-3600, status="STARTED"), uploaded(52, seconds=300)

    reported = watched([], [], [], [*old, running, late], [*old, uploaded(51, seconds=-3600), late])

    assert reported == [[], [], [], [52], [51]]


def test_the_first_job_of_a_new_series_is_reported_even_if_it_ends_before_the_second_answer() -> None:
    assert watched([], [uploaded(1, seconds=15)]) == [[], [1]]
    assert watched([], [uploaded(1, seconds=10)]) == [[], [1]]
    # Of a job whose name does not say when it was uploaded, only a second empty answer shows that it is new.
    assert watched([], [], [UploadJob(job_id=1, status="COMPLETED")]) == [[], [], [1]]
    # Capillary's clock may be behind.
    assert watched([], [], [uploaded(1, seconds=-30)]) == [[], [], [1]]


def test_include_existing_reports_what_the_first_answer_left_out() -> None:
    assert watched([], [uploaded(1, seconds=-86_400)], include_existing=True) == [[], [1]]


def test_jobs_that_end_out_of_order_are_each_reported_once() -> None:
    cursor = WatchCursor(5)
    reported, cursor = watch(history(j6="STARTED", j7="COMPLETED", j8="QUEUED"), cursor)
    assert (ids(reported), cursor) == ([7], WatchCursor(8, (6, 8)))

    reported, cursor = watch(history(j6="STARTED", j7="COMPLETED", j8="ERRORED", j9="STARTED"), cursor)
    assert (ids(reported), cursor) == ([8], WatchCursor(9, (6, 9)))

    reported, cursor = watch(history(j6="COMPLETED", j7="COMPLETED", j8="ERRORED", j9="FINISHED"), cursor)
    assert (ids(reported), cursor) == ([6, 9], WatchCursor(9))


def test_an_answer_that_is_empty_for_a_moment_forgets_nothing() -> None:
    cursor = WatchCursor(8, (6,))

    assert watch(history(), cursor) == ([], cursor)
    assert ids(watch(history(j6="COMPLETED", j8="COMPLETED"), cursor)[0]) == [6]


def test_more_jobs_than_one_event_carries_follow_with_the_next() -> None:
    there = history(**{f"j{number}": "STARTED" if number == 2 else "COMPLETED" for number in range(1, 8)})

    first, cursor = watch(there, WatchCursor(), most=3)
    assert (ids(first), cursor) == ([1, 3, 4], WatchCursor(4, (2,)))

    second, cursor = watch(there, cursor, most=3)
    assert (ids(second), cursor) == ([5, 6, 7], WatchCursor(7, (2,)))


@given(data=st.data())
@examples(200)
def test_every_job_is_reported_exactly_once_in_any_order_and_with_any_restarts(data: Any) -> None:
    statuses: dict[int, str] = {}
    reported: list[int] = []
    cursor = begin_watch(JobHistory.of([]), include_existing=False)
    for _ in range(data.draw(st.integers(1, 12))):
        for _ in range(data.draw(st.integers(0, 4))):
            statuses[len(statuses) + 1] = "STARTED"
        for job_id in data.draw(st.lists(st.sampled_from(sorted(statuses)), max_size=3)) if statuses else []:
            statuses[job_id] = "COMPLETED"
        there = JobHistory.of(UploadJob(job_id=each, status=status) for each, status in statuses.items())
        jobs, cursor = watch(there, cursor, most=data.draw(st.integers(1, 3)))
        reported += ids(jobs)
        cursor = WatchCursor.from_dict(json.loads(json.dumps(cursor.to_dict())))
    while True:
        there = JobHistory.of(UploadJob(job_id=each, status=status) for each, status in statuses.items())
        jobs, cursor = watch(there, cursor, most=2)
        if not jobs:
            break
        reported += ids(jobs)

    assert sorted(reported) == [job_id for job_id, status in statuses.items() if status == "COMPLETED"]
    assert cursor.pending_job_ids == tuple(job_id for job_id, status in statuses.items() if status == "STARTED")


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        {},
        [],
        {"after_job_id": 7},
        {"after_job_id": "x", "pending_job_ids": []},
        {"after_job_id": 7, "pending_job_ids": "6"},
        {"after_job_id": 7, "pending_job_ids": ["x"]},
    ],
)
def test_a_stored_cursor_of_another_form_is_an_error_and_never_a_default(value: Any) -> None:
    with pytest.raises(CapillaryResponseError, match="stored cursor"):
        WatchCursor.from_dict(value)


@pytest.mark.parametrize(
    ("ours", "stored", "merged"),
    [
        (WatchCursor(4, (2,)), WatchCursor(7, (2, 6)), WatchCursor(7, (2, 6))),  # the other one went on
        (WatchCursor(4, (2,)), WatchCursor(7, (6,)), WatchCursor(7, (6,))),  # and reported what was pending here
        (WatchCursor(9, (6,)), WatchCursor(7, (2, 6)), WatchCursor(9, (6,))),  # ours went on
        (WatchCursor(9, (2, 8)), WatchCursor(7, (3,)), WatchCursor(9, (8,))),  # both did
        (WatchCursor(empty_since=5), WatchCursor(7, (6,)), WatchCursor(7, (6,))),
        (WatchCursor(7, (6,)), WatchCursor(empty_since=5, empty_answers=2), WatchCursor(7, (6,))),
        (WatchCursor(empty_since=5), WatchCursor(empty_since=9), WatchCursor(empty_since=5)),
    ],
)
def test_cursors_of_two_watches_are_merged(ours: WatchCursor, stored: WatchCursor, merged: WatchCursor) -> None:
    assert merge_cursors(ours, stored) == merged


@given(data=st.data())
@examples(200)
def test_a_merged_cursor_reports_exactly_what_neither_watch_has_reported(data: Any) -> None:
    statuses: dict[int, str] = {}
    both = [WatchCursor(), WatchCursor()]
    reported: set[int] = set()
    for _ in range(data.draw(st.integers(1, 8))):
        for _ in range(data.draw(st.integers(0, 4))):
            statuses[len(statuses) + 1] = "STARTED"
        for job_id in data.draw(st.lists(st.sampled_from(sorted(statuses)), max_size=3)) if statuses else []:
            statuses[job_id] = "COMPLETED"
        there = JobHistory.of(UploadJob(job_id=each, status=status) for each, status in statuses.items())
        number = data.draw(st.integers(0, 1))
        jobs, both[number] = watch(there, both[number], most=data.draw(st.integers(1, 3)))
        reported.update(ids(jobs))

    there = JobHistory.of(UploadJob(job_id=each, status=status) for each, status in statuses.items())
    jobs, _ = watch(there, merge_cursors(*both))

    assert ids(jobs) == [each for each, status in statuses.items() if status == "COMPLETED" and each not in reported]


def test_a_cursor_that_adds_nothing_leaves_the_own_one_as_it_is() -> None:
    ours = WatchCursor(9, (6,))

    assert merge_cursors(ours, WatchCursor(7, (2, 6))) is ours
    assert merge_cursors(ours, WatchCursor(9, (6,))) is ours
