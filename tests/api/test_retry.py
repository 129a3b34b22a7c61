# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.retry import (
    RETRY_CODES,
    RETRY_STATUSES,
    HttpRetry,
    current_http_retry,
    default_http_retry,
    parse_retry_after,
)
from tests.api.flows import any_text, examples

NOW = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)


def test_the_statuses_that_are_tried_again() -> None:
    expected = {408, 425, 429, 461, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526}
    assert expected == RETRY_STATUSES


def test_a_521_in_a_body_is_a_business_code_and_4001_the_authorization_service_down() -> None:
    assert {408, 425, 429, 461, 500, 502, 503, 504, 4001} == RETRY_CODES


def test_the_defaults() -> None:
    assert HttpRetry() == HttpRetry(max_attempts=5, base_seconds=1.0, cap_seconds=30.0, retry_after_cap_seconds=120.0)


def test_the_default_can_be_replaced_for_a_while() -> None:
    with default_http_retry(HttpRetry(max_attempts=2)):
        assert current_http_retry() == HttpRetry(max_attempts=2)
        with default_http_retry(HttpRetry(max_attempts=3)):
            assert current_http_retry() == HttpRetry(max_attempts=3)
        assert current_http_retry() == HttpRetry(max_attempts=2)
    assert current_http_retry() == HttpRetry()


def test_a_failure_restores_the_default() -> None:
    with pytest.raises(KeyError), default_http_retry(HttpRetry(max_attempts=2)):
        raise KeyError
    assert current_http_retry() == HttpRetry()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"max_attempts": "3", "base_seconds": "0.5"}, HttpRetry(max_attempts=3, base_seconds=0.5)),
        ({"cap_seconds": timedelta(minutes=1)}, HttpRetry(cap_seconds=60.0)),
        ({"max_attempts": Decimal(3), "cap_seconds": 0}, HttpRetry(max_attempts=3, cap_seconds=0.0)),
    ],
)
def test_its_numbers_are_read_for_what_they_mean(given: dict[str, Any], read: HttpRetry) -> None:
    assert HttpRetry(**given) == read


@pytest.mark.parametrize("name", ["max_attempts", "base_seconds", "cap_seconds", "retry_after_cap_seconds"])
@pytest.mark.parametrize("value", [None, True, "many", -1, float("nan"), float("inf")])
def test_a_number_that_cannot_be_meant_is_refused_by_name(name: str, value: Any) -> None:
    # time.sleep(nan) would raise in the middle of a wait, and 0 attempts send nothing.
    with pytest.raises(CapillaryConfigurationError, match=rf"^{name} must be a.+ is {value!r}"):
        HttpRetry(**{name: value})


def test_a_refusal_says_that_seconds_may_be_0_and_attempts_may_not() -> None:
    with pytest.raises(CapillaryConfigurationError, match=r"^cap_seconds must be a number of seconds from 0 on"):
        HttpRetry(cap_seconds=-1)
    with pytest.raises(CapillaryConfigurationError, match=r"^max_attempts must be a whole number, 1 or more, but is 0"):
        HttpRetry(max_attempts=0)


@pytest.mark.parametrize(("attempt", "bound"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (10**6, 30)])
def test_the_wait_is_drawn_from_a_doubling_capped_range(attempt: int, bound: float) -> None:
    policy = HttpRetry()
    assert policy.delay(attempt, retry_after=None, random=lambda: 0.0) == 0.0
    assert policy.delay(attempt, retry_after=None, random=lambda: 0.25) == bound / 4
    assert policy.delay(attempt, retry_after=None, random=lambda: 0.999) == pytest.approx(bound * 0.999)


@examples(60)
@given(
    st.integers(1, 10**9),
    st.floats(0.001, 100),
    st.floats(0.001, 1000),
    st.floats(0, 1, exclude_max=True),
)
def test_no_wait_of_our_own_is_negative_or_above_the_cap(attempt: int, base: float, cap: float, drawn: float) -> None:
    policy = HttpRetry(base_seconds=base, cap_seconds=cap)
    delay = policy.delay(attempt, retry_after=None, random=lambda: drawn)
    assert 0 <= delay <= min(cap, base * 2.0 ** min(attempt - 1, 900))


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 0.0), (7.0, 7.0), (120.0, 120.0), (86_400.0, 120.0), (-3.0, 0.0)])
def test_what_the_server_asks_for_is_obeyed_up_to_the_cap_and_without_jitter(asked: float, waited: float) -> None:
    def no_dice() -> float:
        raise AssertionError("jitter on top of Retry-After")

    assert HttpRetry().delay(1, retry_after=asked, random=no_dice) == waited


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("99999999999999999999", 999_999_999.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\u0665", None),
        ("²", None),
        (None, None),
    ],
)
def test_retry_after_in_seconds(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_a_date_is_measured_against_the_servers_own_clock() -> None:
    wrong_clock = NOW + timedelta(days=400)
    seconds = parse_retry_after("Wed, 21 Oct 2026 07:28:30 GMT", date="Wed, 21 Oct 2026 07:28:00 GMT", now=wrong_clock)
    assert seconds == 30.0


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_without_a_usable_date_header_a_date_is_measured_against_our_clock(date: str | None) -> None:
    assert parse_retry_after("Wed, 21 Oct 2026 07:29:00 GMT", date=date, now=NOW) == 60.0


def test_a_date_that_cannot_be_measured_is_ignored() -> None:
    assert parse_retry_after("Wed, 21 Oct 2026 07:29:00 GMT") is None


def test_a_date_in_the_past_means_now() -> None:
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now=NOW) == 0.0


@pytest.mark.parametrize(
    "value",
    [
        "Wed, 21 Oct 2026 07:29:00 GMT",
        "Wednesday, 21-Oct-26 07:29:00 GMT",
        "Wed Oct 21 07:29:00 2026",
        "Wed, 21 Oct 2026 07:29:00 -0000",
        "Wed, 21 Oct 2026 12:59:00 +0530",
    ],
    ids=["imf", "rfc850", "asctime", "no zone", "offset"],
)
def test_every_form_of_an_http_date_is_read(value: str) -> None:
    assert parse_retry_after(value, now=NOW) == 60.0


@examples(60)
@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)), st.integers(-(10**6), 10**6))
def test_any_date_is_as_far_away_as_it_is(moment: datetime, seconds: int) -> None:
    server = moment.replace(microsecond=0, tzinfo=UTC)
    header = format_datetime(server + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(header, date=format_datetime(server, usegmt=True)) == max(seconds, 0)


words = [
    "Wed",
    "Oct",
    ",",
    "21",
    "2026",
    "07:28:00",
    "99:99:99",
    "GMT",
    "+0530",
    "-9999",
    "+99999999",
    "0",
    "-1",
    "9" * 14,
]
date_like = st.lists(st.sampled_from(words), max_size=8).map(" ".join)


@examples(80)
@given(any_text | date_like, st.none() | any_text | date_like, st.none() | st.just(NOW))
def test_no_header_however_strange_breaks_the_reading(value: str, date: str | None, now: datetime | None) -> None:
    seconds = parse_retry_after(value, date=date, now=now)
    assert seconds is None or seconds >= 0
