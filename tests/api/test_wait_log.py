# SPDX-License-Identifier: Apache-2.0
"""The log of a wait: its beginning, each change, and one line an hour."""

from __future__ import annotations

import json
import logging
from typing import Any

import pendulum
import pytest

from airflow_provider_capillary.api.errors import CapillaryTransportError
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.log_lines import one_line
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM
from airflow_provider_capillary.api.wait_log import WaitTimes
from airflow_provider_capillary.api.waiting import JobWaiter, WaitOptions

SERIES = 909234
TEN = pendulum.datetime(2026, 11, 25, 10)
END = pendulum.datetime(2026, 11, 26, 2).timestamp()
TIMES = WaitTimes(interval=60.0, end=END)
UNTIL = "polled every 60 s until 2026-11-26 02:00:00 UTC"
FAULT = CapillaryTransportError("no answer", is_transient=True)


class Wait:
    """A wait with a clock that is set by hand."""

    def __init__(self, kind: Any = REDEEM, times: WaitTimes | None = TIMES, **options: Any) -> None:
        self.time = TEN
        self.waiter = JobWaiter(
            WaitOptions(**{"coupon_series_id": SERIES, **options}),
            kind=kind,
            log=logging.getLogger("the wait"),
            now=lambda: self.time,
        )
        self.waiter.wait_log.times = times

    def sees(self, *jobs: UploadJob, after: float = 0.0) -> Any:
        self.time = self.time.add(seconds=after)
        return self.waiter.on_jobs(jobs)


def job(job_id: int = 4455, status: str = "QUEUED", name: str = "a.csv", **fields: Any) -> UploadJob:
    return UploadJob(job_id=job_id, status=status, coupon_series_id=SERIES, uploaded_file_name=name, **fields)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG, logger="the wait")

    def taken() -> list[str]:
        logged = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return logged

    return taken


@pytest.mark.parametrize(
    ("options", "subject"),
    [
        ({}, f"the newest redeem upload job of coupon series {SERIES}"),
        ({"job_id": "7"}, f"redeem upload job 7 of coupon series {SERIES}"),
        ({"after_job_id": 7}, f"the newest redeem upload job of coupon series {SERIES} after job 7"),
        (
            {"after_job_id": 7, "uploaded_file_name": "night_*"},
            f"the newest redeem upload job of coupon series {SERIES} after job 7 with file 'night_*'",
        ),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, dict) else "",
)
def test_the_first_line_and_the_timeout_name_what_is_waited_for(options: Any, subject: str, lines: Any) -> None:
    wait = Wait(**options)
    wait.sees()
    assert lines() == [f"Waiting for {subject}; no job there yet; {UNTIL}"]
    assert wait.waiter.time_out(600).message.startswith(f"{subject} did not end within 600 seconds; last seen: no job")


def test_the_first_line_names_the_newest_job_that_is_there(lines: Any) -> None:
    Wait(COUPON, job_id=9000).sees(job(4454, "ERRORED"), job(4455, "COMPLETED"))
    assert lines() == [
        f"Waiting for coupon upload job 9000 of coupon series {SERIES}; the newest job there is 4455 (COMPLETED); "
        + UNTIL
    ]


def test_a_wait_whose_job_is_there_logs_it_and_then_each_status_once(lines: Any) -> None:
    wait = Wait()
    for status in ("QUEUED", "QUEUED", "STARTED", "STARTED", "COMPLETED"):
        wait.sees(job(status=status), after=60)
    assert lines() == [
        f"Waiting for the newest redeem upload job of coupon series {SERIES}; the newest job there is 4455 (QUEUED); "
        + UNTIL,
        f"Found redeem upload job 4455 of coupon series {SERIES}, file a.csv, of unknown age",
        "Upload job 4455 is QUEUED",
        "Upload job 4455 is STARTED",
        "Upload job 4455 is COMPLETED",
    ]


def test_each_new_job_that_does_not_match_is_logged_once(lines: Any) -> None:
    wait = Wait(uploaded_file_name="night_*")
    old, new = job(1, "COMPLETED"), job(2, "STARTED", "nite_2.csv")
    wait.sees(old)
    lines()
    for jobs in ([old], [old, new], [old, new], [old, job(2, "COMPLETED", "nite_2.csv")]):
        wait.sees(*jobs, after=60)
    assert lines() == [
        f"Not there yet: the newest redeem upload job of coupon series {SERIES} is now 2 (STARTED), file nite_2.csv"
    ]


def test_an_interval_that_grows_and_an_end_out_of_reach_are_shown(lines: Any) -> None:
    Wait(times=WaitTimes(interval=2.5, backs_off=True, end=1e300)).sees()
    Wait(times=WaitTimes(interval=3600.0)).sees()
    assert [line.rpartition("; ")[2] for line in lines()] == [
        "polled every 2.5 s at first without an end",
        "polled every 3600 s",
    ]


def test_a_first_poll_that_fails_is_logged_after_what_is_waited_for(lines: Any) -> None:
    wait = Wait(job_id=7)
    wait.waiter.on_error(FAULT)
    wait.sees(job(6))
    assert lines() == [
        f"Waiting for redeem upload job 7 of coupon series {SERIES}; the newest job there is not known yet; {UNTIL}",
        "Poll of the upload job failed (1 in a row, giving up at 10): no answer",
        f"Not there yet: the newest redeem upload job of coupon series {SERIES} is now 6 (QUEUED), file a.csv",
    ]


# --- one line an hour ------------------------------------------------------------------------------------------------


def test_a_wait_that_polls_without_a_change_says_once_an_hour_that_it_goes_on(lines: Any) -> None:
    wait = Wait(job_id=7)
    for _ in range(181):  # three hours
        wait.sees(job(6, "STARTED"), after=60)
    still = (
        f"Still waiting for redeem upload job 7 of coupon series {SERIES}; last seen: no such job yet, the newest was 6"
    )
    assert lines()[1:] == [f"{still} (STARTED); {UNTIL}"] * 3


def test_a_wait_that_is_not_woken_by_polls_is_reminded_by_a_timer(lines: Any) -> None:
    wait = Wait()
    wait.sees(job(status="STARTED"))
    lines()
    assert wait.waiter.wait_log.seconds_to_reminder() == 3600.0
    wait.waiter.remind()  # too early
    wait.time = wait.time.add(seconds=3599)
    assert wait.waiter.wait_log.seconds_to_reminder() == 1.0
    wait.waiter.remind()
    assert lines() == []
    wait.time = wait.time.add(seconds=1)
    wait.waiter.remind()
    assert [line.partition(";")[2] for line in lines()] == [f" last seen: job 4455 was STARTED; {UNTIL}"]
    assert wait.waiter.wait_log.seconds_to_reminder() == 3600.0


def test_a_change_or_a_failed_poll_puts_the_hour_off(lines: Any) -> None:
    wait = Wait()
    wait.sees(job(status="QUEUED"))
    wait.sees(job(status="STARTED"), after=3000)
    wait.time = wait.time.add(seconds=3000)
    wait.waiter.on_error(FAULT)
    lines()
    wait.sees(job(status="STARTED"), after=3000)
    assert lines() == []


def test_a_clock_that_is_set_back_makes_no_pause_longer_than_an_hour(lines: Any) -> None:
    wait = Wait()
    wait.sees()
    wait.time = wait.time.subtract(days=1)
    assert wait.waiter.wait_log.seconds_to_reminder() == 3600.0


# --- from process to process -----------------------------------------------------------------------------------------


def test_a_wait_that_goes_on_in_another_process_logs_one_line(lines: Any) -> None:
    wait = Wait(times=WaitTimes(interval=60.0, end=END, is_resumed=True))
    for status in ("STARTED", "STARTED", "COMPLETED"):
        wait.sees(job(status=status))
    assert lines() == [
        f"Still waiting for the newest redeem upload job of coupon series {SERIES}; last seen: job 4455 was STARTED; "
        + UNTIL,
        "Upload job 4455 is COMPLETED",
    ]


def test_a_wait_that_another_process_logs_begins_without_a_line(lines: Any) -> None:
    wait = Wait(times=None, max_consecutive_failures=2)
    wait.waiter.on_error(FAULT)
    assert lines() == ["Poll of the upload job failed (1 in a row, giving up at 2): no answer"]


@pytest.mark.parametrize("word", ["STARTED", "PONDERING", "PAUSED"])
def test_a_memory_of_what_was_logged_repeats_no_line(word: str, lines: Any) -> None:
    first = Wait()
    first.sees(job(status=word))
    memory = json.loads(json.dumps(first.waiter.wait_log.to_memory()))
    lines()

    second = Wait(times=WaitTimes(interval=60.0, end=END + 600))
    second.waiter.wait_log.recall(memory)
    second.sees(job(status=word), after=60)
    assert lines() == []
    second.sees(job(status=word), after=3540)
    assert [line.endswith(UNTIL) for line in lines()] == [True]  # the end is that of the first process
    second.sees(job(status="COMPLETED"), after=60)
    assert lines() == ["Upload job 4455 is COMPLETED"]


@pytest.mark.parametrize("memory", [None, 7, [], {}, {"newest": "x"}, {"newest": None, "job": 7}], ids=repr)
def test_a_memory_that_is_none_is_ignored(memory: Any, lines: Any) -> None:
    wait = Wait()
    assert wait.waiter.wait_log.to_memory() is None
    wait.waiter.wait_log.recall(memory)
    wait.sees()
    assert len(lines()) == 1


# --- length ----------------------------------------------------------------------------------------------------------


def test_no_line_of_a_whole_wait_is_longer_than_200_characters(lines: Any) -> None:
    long = "x" * 5000
    wait = Wait(uploaded_file_name=f"*{long}*", after_job_id=10**12, coupon_series_id=10**12)
    wait.waiter.on_error(CapillaryTransportError("no answer " * 100, is_transient=True))
    wait.sees(job(10**12, long, long))
    wait.sees(job(10**12 + 1, long, long))
    wait.sees(job(10**12 + 2, "STARTED", long, uploaded_file_url=long), after=3600)
    wait.waiter.remind()
    wait.waiter.on_error(CapillaryTransportError(long, is_transient=True))
    wait.sees(job(10**12 + 3, f"PAUSED {long}", f"{long}*{long}", created_on=TEN))
    logged = [*lines(), wait.waiter.time_out(1e300).message]

    assert len(logged) > 10
    assert max(map(len, logged)) <= 200
    assert all(line.isprintable() for line in logged)
    assert UNTIL in logged[0]


def test_what_is_too_long_is_cut_in_the_first_part() -> None:
    assert one_line("a" * 300, "; the end") == "a" * 190 + "…; the end"
    assert one_line("a" * 191, "; the end") == "a" * 191 + "; the end"
    assert one_line("a", "b" * 300) == "…" + "b" * 199
