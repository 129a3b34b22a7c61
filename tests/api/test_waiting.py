# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import re
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.errors import (
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryConfigurationError,
    CapillaryError,
    CapillaryTransportError,
)
from airflow_provider_capillary.api.jobs import UploadJob, read_jobs
from airflow_provider_capillary.api.upload_kinds import REDEEM
from airflow_provider_capillary.api.waiting import (
    JobWaiter,
    WaitOptions,
    WaitOutcome,
    validate_selector,
)
from tests.api.flows import examples, raw_jobs

NOW = pendulum.datetime(2020, 10, 20, 10, 0, 0)
FAULT = CapillaryTransportError("no answer", is_transient=True)


def job(job_id: int = 4455, status: str = "COMPLETED", **fields: Any) -> UploadJob:
    return UploadJob(job_id=job_id, status=status, coupon_series_id=909234, **fields)


def wait_for(failures: int = 0, **options: Any) -> JobWaiter:
    return JobWaiter(
        WaitOptions(**{"coupon_series_id": 909234, **options}),
        kind=REDEEM,
        log=logging.getLogger("the wait"),
        now=lambda: NOW,
        failures=failures,
    )


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="the wait")
    return caplog


# --- outcomes ----------------------------------------------------------------------------------------------------


def test_a_series_without_jobs_is_waited_for() -> None:
    wait = wait_for()
    assert wait.on_jobs([]) is None
    assert wait.last_seen == "no job in the series yet"


def test_a_job_that_is_not_there_yet_is_waited_for() -> None:
    wait = wait_for(job_id="99")
    assert wait.on_jobs([job(98)]) is None
    assert wait.last_seen == "no such job yet, the newest was 98 (COMPLETED)"


@pytest.mark.parametrize("status", ["QUEUED", "started", "VALIDATED", "COMMITED", "PARKED"])
def test_a_running_job_is_waited_for(status: str) -> None:
    wait = wait_for()
    assert wait.on_jobs([job(status=status)]) is None
    assert wait.last_seen == f"job 4455 was {status}"


@pytest.mark.parametrize("status", ["COMPLETED", " finished "])
def test_a_completed_job_ends_the_wait(status: str) -> None:
    done = job(status=status)
    assert wait_for().on_jobs([done]) == WaitOutcome(
        status="success", message="redeem upload job 4455 is complete", job=done
    )


@pytest.mark.parametrize("status", ["ERRORED", "errorred ", "ERROR", "FAILED", "CANCELLED"])
def test_a_failed_job_ends_the_wait(status: str) -> None:
    failed = job(status=status)
    assert wait_for().on_jobs([failed]) == WaitOutcome(
        status="failed",
        message=f"redeem upload job 4455 ended as {status.strip()}; part of its rows may have been redeemed all the "
        "same; ask Capillary's support for the reason, with coupon series 909234 and job 4455",
        job=failed,
    )


def test_a_failed_job_has_org_series_and_job_for_the_support() -> None:
    outcome = wait_for().on_jobs([job(status="ERRORED", org_id=100458)])
    assert outcome is not None
    assert outcome.message.endswith("with org 100458, coupon series 909234 and job 4455")


@pytest.mark.parametrize("status", ["COM\x1b[31mPLETED\nx", "X" * 5000, "\u202eQUEUED"])
def test_a_status_word_goes_into_messages_as_a_short_printable_one(status: str, log: pytest.LogCaptureFixture) -> None:
    wait = wait_for()
    name = "a\nb\x1b" + "c" * 5000
    assert wait.on_jobs([job(status=status, uploaded_file_name=name)]) is None
    for line in (wait.last_seen, wait.time_out(1).message, *messages(log)):
        assert line.isprintable()
        assert len(line) < 500


def test_a_failed_job_is_failed_with_any_number_of_errors() -> None:
    outcome = wait_for(max_error_count=0).on_jobs([job(status="FAILED", error_count=5, total_uploaded_count=5)])
    assert outcome is not None
    assert outcome.status == "failed"


def test_only_the_chosen_job_counts() -> None:
    jobs = [job(1, "FAILED"), job(2, "COMPLETED"), job(3, "QUEUED")]
    assert wait_for().on_jobs(jobs) is None
    ends = [wait_for(job_id=number).on_jobs(jobs) for number in (1, 2, 3)]
    assert [end and end.status for end in ends] == ["failed", "success", None]


def test_a_wait_that_took_too_long_says_what_it_saw_last() -> None:
    wait = wait_for()
    newest = "the newest redeem upload job of coupon series 909234"
    assert wait.time_out(600).message == f"{newest} did not end within 600 seconds; last seen: nothing yet"
    wait.on_jobs([job(status="QUEUED")])
    assert wait.time_out(600) == WaitOutcome(
        status="timeout", message=f"{newest} did not end within 600 seconds; last seen: job 4455 was QUEUED"
    )


@pytest.mark.parametrize(("seconds", "shown"), [(0.5, "0.5"), (604_800, "604800"), (2_592_000.0, "2592000")])
def test_the_timeout_is_reported_in_plain_digits(seconds: float, shown: str) -> None:
    assert f"within {shown} seconds" in wait_for().time_out(seconds).message


def test_what_a_wait_was_given_is_plain_numbers_from_then_on() -> None:
    # They go into JSON, and into logs by %d.
    wait = JobWaiter(
        WaitOptions(
            coupon_series_id=Decimal(535512),  # type: ignore[arg-type]
            job_id="9001.0",
            max_error_count=Decimal(5),  # type: ignore[arg-type]
            max_error_rate=Decimal("0.25"),  # type: ignore[arg-type]
            max_consecutive_failures=3.0,  # type: ignore[arg-type]
        ),
        kind=REDEEM,
        log=logging.getLogger(),
        now=pendulum.now,
    )
    plain = {name: value for name, value in wait.options.to_dict().items() if value is not None}
    assert json.dumps(plain) == json.dumps(
        {
            "coupon_series_id": 535512,
            "job_id": 9001,
            "max_error_count": 5,
            "max_error_rate": 0.25,
            "max_consecutive_failures": 3,
            "silent_fail": False,
        }
    )


@pytest.mark.parametrize("name", [20261121, 1.5, ["a.csv"], "None", "null", " none "])
def test_a_file_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(CapillaryConfigurationError, match=r"^uploaded_file_name "):
        WaitOptions(coupon_series_id=1, uploaded_file_name=name).choice()


# --- error limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "total", "limits", "status"),
    [
        (5, 5, {}, "success"),
        (None, None, {}, "success"),
        (0, 10, {"max_error_count": 0}, "success"),
        (1, 10, {"max_error_count": 0}, "error_limit_exceeded"),
        (3, 10, {"max_error_count": 3}, "success"),
        (4, 10, {"max_error_count": 3}, "error_limit_exceeded"),
        (4, None, {"max_error_count": 4}, "success"),
        (4, None, {"max_error_count": 3}, "error_limit_exceeded"),
        (1, 4, {"max_error_rate": 0.25}, "success"),
        (2, 4, {"max_error_rate": 0.25}, "error_limit_exceeded"),
        (4, 4, {"max_error_rate": 1.0}, "success"),
        (0, 4, {"max_error_rate": 0.0}, "success"),
        (1, 4, {"max_error_rate": 0.0}, "error_limit_exceeded"),
        (0, 0, {"max_error_rate": 0.0}, "success"),
        (1, 0, {"max_error_rate": 0.5}, "error_limit_exceeded"),
        (0, None, {"max_error_rate": 0.0}, "success"),
        (1, None, {"max_error_rate": 0.9}, "error_limit_exceeded"),
        (None, 10, {"max_error_rate": 0.9}, "error_limit_exceeded"),
        (None, 10, {"max_error_count": 9}, "error_limit_exceeded"),
        (1, 10, {"max_error_count": 0, "max_error_rate": 0.9}, "error_limit_exceeded"),
        (9, 10, {"max_error_count": 9, "max_error_rate": 0.5}, "error_limit_exceeded"),
    ],
)
def test_refused_rows_beyond_the_limits_end_the_wait_in_failure(
    errors: int | None, total: int | None, limits: dict[str, Any], status: str
) -> None:
    seen = job(error_count=errors, total_uploaded_count=total)
    outcome = wait_for(**limits).on_jobs([seen])
    assert outcome is not None
    assert (outcome.status, outcome.job) == (status, seen)


@pytest.mark.parametrize(
    ("errors", "total", "limits", "message"),
    [
        (4, 10, {"max_error_count": 3}, "redeem upload job 4455 has 4 errors in 10 rows, more than max_error_count=3"),
        (
            6,
            10,
            {"max_error_rate": 0.5},
            "redeem upload job 4455 has 6 errors in 10 rows, more than max_error_rate=0.5",
        ),
        (
            None,
            10,
            {"max_error_count": 3},
            "redeem upload job 4455 is complete, but Capillary did not report its counts, so the error limit cannot be checked",  # noqa: E501 - quoted whole
        ),
    ],
)
def test_the_message_names_counts_and_limit(
    errors: int | None, total: int | None, limits: dict[str, Any], message: str
) -> None:
    outcome = wait_for(**limits).on_jobs([job(error_count=errors, total_uploaded_count=total)])
    assert outcome is not None
    assert outcome.message == message


def test_a_count_that_is_not_known_is_not_reported_as_one() -> None:
    outcome = wait_for(max_error_count=3).on_jobs([job(error_count=4)])
    assert outcome is not None
    assert outcome.message.startswith("redeem upload job 4455 has 4 errors")
    assert "None" not in outcome.message


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ((-1, None, 10), "max_error_count"),
        ((True, None, 10), "max_error_count"),
        (("many", None, 10), "max_error_count"),
        (("nan", None, 10), "max_error_count"),
        (("None", None, 10), "max_error_count"),
        ((float("inf"), None, 10), "max_error_count"),
        ((Decimal("2.5"), None, 10), "max_error_count"),
        ((None, -0.1, 10), "max_error_rate"),
        ((None, 1.1, 10), "max_error_rate"),
        ((None, 50, 10), "max_error_rate"),
        ((None, float("nan"), 10), "max_error_rate"),
        ((None, "nan", 10), "max_error_rate"),
        ((None, "null", 10), "max_error_rate"),
        ((None, True, 10), "max_error_rate"),
        ((None, "50", 10), "max_error_rate"),
        ((None, None, 0), "max_consecutive_failures"),
        ((None, None, None), "max_consecutive_failures"),
        ((None, None, True), "max_consecutive_failures"),
        ((None, None, float("inf")), "max_consecutive_failures"),
        ((None, None, float("nan")), "max_consecutive_failures"),
        ((None, None, 2.5), "max_consecutive_failures"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused_by_name(limits: tuple[Any, Any, Any], named: str) -> None:
    count, rate, budget = limits
    options = WaitOptions(
        coupon_series_id=1, max_error_count=count, max_error_rate=rate, max_consecutive_failures=budget
    )
    with pytest.raises(CapillaryConfigurationError, match=named):
        options.limits()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ((None, None), (None, None)),
        ((0, 0), (0, 0)),
        ((5, 1.0), (5, 1.0)),
        (("5", "0.5"), (5, 0.5)),  # as templates render them
        ((" 1000000 ", "1"), (1_000_000, 1)),
        ((Decimal(5), Decimal("0.5")), (5, 0.5)),  # as XComs bring them
        (("5.0", "1e-3"), (5, 0.001)),
    ],
)
def test_limits_in_their_range_are_fine(given: tuple[Any, Any], read: tuple[Any, Any]) -> None:
    options = WaitOptions(coupon_series_id=1, max_error_count=given[0], max_error_rate=given[1])
    assert options.limits() == read


# --- faults ------------------------------------------------------------------------------------------------------


def test_transient_errors_are_counted_in_a_row_and_the_last_one_ends_the_wait(log: pytest.LogCaptureFixture) -> None:
    wait = wait_for(max_consecutive_failures=3)
    assert [wait.on_error(FAULT), wait.on_error(FAULT)] == [None, None]
    last = CapillaryApiError("down", http_status=503, is_transient=True)
    assert wait.on_error(last) == WaitOutcome(status="error", message="down (HTTP 503)", error=last)
    assert messages(log)[-1] == "Poll of the upload job failed 3 times in a row; giving up"


def test_ten_in_a_row_are_the_default() -> None:
    wait = wait_for()
    outcomes = [wait.on_error(FAULT) for _ in range(10)]
    assert outcomes[:9] == [None] * 9
    assert outcomes[9] is not None


@pytest.mark.parametrize("jobs", [[], [job(status="QUEUED")]])
def test_every_successful_poll_resets_the_count(jobs: list[UploadJob]) -> None:
    wait = wait_for(max_consecutive_failures=2)
    for _ in range(5):
        assert wait.on_error(FAULT) is None
        assert wait.failures == 1
        assert wait.on_jobs(jobs) is None
        assert wait.failures == 0


def test_the_count_of_an_earlier_process_goes_on() -> None:
    wait = wait_for(failures=9)
    outcome = wait.on_error(FAULT)
    assert outcome is not None
    assert outcome.status == "error"


@pytest.mark.parametrize("error", [CapillaryAuthError("no"), CapillaryApiError("bad", http_status=400)])
def test_a_lasting_fault_ends_the_wait_at_once(error: CapillaryError) -> None:
    assert wait_for().on_error(error) == WaitOutcome(status="error", message=str(error), error=error)


@pytest.mark.parametrize("error", [FAULT, CapillaryAuthError("no")])
def test_with_silent_fail_no_fault_ends_the_wait(error: CapillaryError, log: pytest.LogCaptureFixture) -> None:
    wait = wait_for(silent_fail=True, max_consecutive_failures=1)
    assert [wait.on_error(error) for _ in range(20)] == [None] * 20
    assert messages(log, "ERROR") == [f"Poll of the upload job failed, going on as silent_fail says: {error}"] * 20


def test_a_failed_poll_is_never_taken_for_a_failed_job() -> None:
    wait = wait_for(max_consecutive_failures=1)
    outcome = wait.on_error(FAULT)
    assert outcome is not None
    assert outcome.status != "failed"
    assert outcome.job is None


def test_a_transient_error_is_a_warning_that_says_how_many_are_left(log: pytest.LogCaptureFixture) -> None:
    wait_for().on_error(FAULT)
    (record,) = log.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == "Poll of the upload job failed (1 in a row, giving up at 10): no answer"


# --- the log -----------------------------------------------------------------------------------------------------


def messages(log: pytest.LogCaptureFixture, level: str | None = None) -> list[str]:
    return [record.getMessage() for record in log.records if level in (None, record.levelname)]


def test_the_choice_is_logged_once_with_id_file_name_and_age(log: pytest.LogCaptureFixture) -> None:
    wait = wait_for()
    seen = job(status="QUEUED", uploaded_file_name="couponCode_1603183613031_253234.csv")
    for _ in range(3):
        wait.on_jobs([seen])
    choice, progress = messages(log)
    assert re.fullmatch(
        r"Found redeem upload job 4455 of coupon series 909234, file couponCode_1603183613031_253234\.csv, "
        r"uploaded 2020-10-20 08:46:53 UTC \(1 hour before this poll\)",
        choice,
    )
    assert progress == "Upload job 4455 is QUEUED"


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"uploaded_file_url": "stored.csv"}, "file stored.csv, of unknown age"),
        ({"created_on": pendulum.datetime(2020, 10, 19)}, "file (no name), created on 2020-10-19"),
        ({}, "file (no name), of unknown age"),
    ],
)
def test_a_job_with_fewer_fields_is_logged_with_what_there_is(
    fields: dict[str, Any], reported: str, log: pytest.LogCaptureFixture
) -> None:
    wait_for().on_jobs([job(status="QUEUED", **fields)])
    assert messages(log)[0] == f"Found redeem upload job 4455 of coupon series 909234, {reported}"


def test_a_newer_job_that_takes_over_is_logged_too(log: pytest.LogCaptureFixture) -> None:
    wait = wait_for()
    wait.on_jobs([job(1, "QUEUED")])
    wait.on_jobs([job(1, "QUEUED"), job(2, "QUEUED")])
    assert [text for text in messages(log) if text.startswith("Found")] == [
        f"Found redeem upload job {number} of coupon series 909234, file (no name), of unknown age" for number in (1, 2)
    ]


def test_a_change_of_another_job_is_not_logged(log: pytest.LogCaptureFixture) -> None:
    wait = wait_for(job_id=7)
    wait.on_jobs([job(7, "QUEUED"), job(8, "QUEUED")])
    before = len(log.messages)
    for word in ("STARTED", "COMPLETED"):
        assert wait.on_jobs([job(7, "QUEUED"), job(8, word)]) is None
    assert len(log.messages) == before

    assert wait.on_jobs([job(7, "STARTED"), job(8, "COMPLETED")]) is None
    assert log.messages[before:] == ["Upload job 7 is STARTED"]


def test_a_wait_for_a_job_to_come_is_reminded_of_though_other_jobs_change(log: pytest.LogCaptureFixture) -> None:
    clock = {"now": NOW}
    wait = JobWaiter(
        WaitOptions(coupon_series_id=909234, uploaded_file_name="mine.csv"),
        kind=REDEEM,
        log=logging.getLogger("the wait"),
        now=lambda: clock["now"],
    )
    wait.on_jobs([job(7, "QUEUED"), job(8, "QUEUED")])
    clock["now"] = NOW.add(minutes=59)
    wait.on_jobs([job(7, "STARTED"), job(8, "QUEUED")])
    assert "Still waiting" not in log.text
    clock["now"] = NOW.add(minutes=60)
    wait.on_jobs([job(7, "COMPLETED"), job(8, "QUEUED")])
    assert log.text.count("Still waiting") == 1
    wait.on_jobs([job(7, "COMPLETED"), job(8, "QUEUED"), job(9, "QUEUED", uploaded_file_name="other.csv")])
    assert "is now 9" in log.messages[-1]


def test_progress_is_logged_when_it_happens(log: pytest.LogCaptureFixture) -> None:
    wait = wait_for()
    for status in ("QUEUED", "QUEUED", "STARTED", "STARTED", "COMPLETED"):
        wait.on_jobs([job(status=status)])
    assert messages(log)[1:] == [
        "Upload job 4455 is QUEUED",
        "Upload job 4455 is STARTED",
        "Upload job 4455 is COMPLETED",
    ]


@pytest.mark.parametrize("word", ["PAUSED", "paused ", "PAUSE"])
def test_a_paused_job_is_waited_for_and_logged_as_what_it_is(word: str, log: pytest.LogCaptureFixture) -> None:
    wait = wait_for()
    for status in ("RUNNING", word, word, "RUNNING", "COMPLETED"):
        wait.on_jobs([job(status=status)])
    assert messages(log)[1:] == [
        "Upload job 4455 is RUNNING",
        f"Upload job 4455 is {word.strip()}: it waits until somebody at Capillary resumes it",
        "Upload job 4455 is RUNNING",
        "Upload job 4455 is COMPLETED",
    ]
    assert len(messages(log, "WARNING")) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["PARKED", "PARKED", "PARKED"],
        ["PARKED", "parked ", "Parked"],
        ["PARKED", "QUEUED", "PARKED"],
    ],
    ids=["same", "spelt differently", "back again"],
)
def test_an_unknown_word_is_warned_about_once(words: list[str], log: pytest.LogCaptureFixture) -> None:
    wait = wait_for()
    for word in words:
        assert wait.on_jobs([job(status=word)]) is None
    assert messages(log, "WARNING") == ["Upload job 4455 has the unknown status 'PARKED', taken as still running"]


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_id", [909234, "909234", " 909234 "])
def test_the_series_may_be_a_number_or_text(given_id: Any) -> None:
    assert WaitOptions(coupon_series_id=given_id).series_id == 909234


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"job_id": ""}, "job_id"),
        ({"job_id": "None"}, "job_id"),
        ({"job_id": 5, "uploaded_file_name": "a"}, "job_id"),
        ({"job_id": 5, "after_job_id": 4}, "job_id"),
        ({"uploaded_file_name": "  "}, "uploaded_file_name"),
        ({"after_job_id": "x"}, "after_job_id"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused_before_the_first_poll(options: dict[str, Any], named: str) -> None:
    with pytest.raises(CapillaryConfigurationError, match=named):
        wait_for(**options)


def test_a_name_goes_together_with_a_job_to_come_after() -> None:
    validate_selector(None, "a*.csv", 4)
    choice = WaitOptions(coupon_series_id=1, uploaded_file_name="a*.csv", after_job_id="4").choice()
    assert (choice.job_id, choice.uploaded_file_name, choice.after_job_id) == (None, "a*.csv", 4)


def test_the_job_to_come_after_may_be_0_but_no_less() -> None:
    assert WaitOptions(coupon_series_id=1, after_job_id=0).choice().after_job_id == 0
    with pytest.raises(CapillaryConfigurationError, match=r"^after_job_id must be a whole number from 0 on"):
        WaitOptions(coupon_series_id=1, after_job_id=-1).choice()


def test_options_are_read_from_the_attributes_of_their_owner() -> None:
    options = WaitOptions(coupon_series_id="5", job_id=7, max_error_rate=0.5, silent_fail=True)
    assert WaitOptions.of(SimpleNamespace(**options.to_dict(), other=1)) == options


def test_options_travel_as_json() -> None:
    options = WaitOptions(coupon_series_id="5", job_id=7, max_error_rate=0.5, silent_fail=True)
    assert WaitOptions(**json.loads(json.dumps(options.to_dict()))) == options


# --- events ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        WaitOutcome(status="success", message="m", job=job(created_on=pendulum.datetime(2020, 1, 1))),
        WaitOutcome(status="failed", message="m", job=job(status="FAILED")),
        WaitOutcome(status="error_limit_exceeded", message="m", job=job(error_count=5)),
        WaitOutcome(status="timeout", message="m"),
    ],
    ids=lambda outcome: outcome.status,
)
def test_an_outcome_survives_the_way_from_the_triggerer(outcome: WaitOutcome) -> None:
    assert WaitOutcome.from_event(json.loads(json.dumps(outcome.to_event()))) == outcome


def test_an_error_survives_the_way_from_the_triggerer() -> None:
    error = CapillaryApiError("down", http_status=503, api_code="4001", request_id="r", is_transient=True)
    event = json.loads(json.dumps(WaitOutcome(status="error", message="m", error=error).to_event()))
    again = WaitOutcome.from_event(event)
    assert again.error is not None
    assert (again.status, type(again.error), again.error.to_dict()) == ("error", CapillaryApiError, error.to_dict())


@pytest.mark.parametrize(
    "event",
    [
        None,
        "success",
        [],
        {},
        {"status": None},
        {"status": "success"},
        {"status": ["success"]},
        {"status": "success", "message": "m"},
        {"status": "success", "message": "m", "job": "4455"},
        {"status": "success", "message": "m", "job": {}},
        {"status": "success", "message": "m", "job": None},
        {"status": "failed", "message": "m"},
        {"status": "error", "message": "m", "error": None},
        {"status": "error", "message": "m", "error": "down"},
    ],
    ids=str,
)
def test_an_event_that_is_none_of_ours_fails_loudly(event: Any) -> None:
    with pytest.raises(CapillaryError):
        WaitOutcome.from_event(event)


polls = st.lists(st.none() | st.lists(raw_jobs, max_size=3), max_size=12)


@examples(100)
@given(polls, st.none() | st.integers(0, 5), st.none() | st.floats(0, 1), st.integers(1, 4))
def test_after_any_results_the_wait_goes_on_or_ends_in_an_outcome_that_travels(
    seen: list[list[dict[str, Any]] | None], most: int | None, rate: float | None, budget: int
) -> None:
    wait = wait_for(max_error_count=most, max_error_rate=rate, max_consecutive_failures=budget)
    in_a_row = 0
    for poll in seen:
        try:
            jobs = None if poll is None else read_jobs({"result": {"redeemUploadJobStatuses": poll}}, REDEEM)
        except CapillaryError:
            jobs = None
        outcome = wait.on_error(FAULT) if jobs is None else wait.on_jobs(jobs)
        in_a_row = in_a_row + 1 if jobs is None else 0
        newest = max(jobs or [], key=lambda each: each.job_id, default=None)
        assert (outcome is not None) == (in_a_row == budget or (newest is not None and newest.is_done))
        if outcome is not None:
            event = json.loads(json.dumps(outcome.to_event()))
            assert WaitOutcome.from_event(event).to_event() == event
            break


def test_a_job_whose_id_is_0_is_seen_like_any_other() -> None:
    outcome = wait_for().on_jobs([job(job_id=0, status="COMPLETED")])
    assert outcome is not None
    assert outcome.status == "success"
