# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.limiter import RequestLimiter
from tests.api.flows import Clock, examples

#: Sums of intervals are not exact.
EPSILON = 1e-6


def make(limit: int, now: float = 0.0) -> tuple[RequestLimiter, Clock]:
    clock = Clock(now)
    return RequestLimiter(limit, monotonic=clock), clock


def moments_of(limiter: RequestLimiter, clock: Clock, count: int) -> list[float]:
    return [clock.now + limiter.reserve() for _ in range(count)]


def assert_within(limit: int, moments: list[float]) -> None:
    for first, behind in zip(moments, moments[limit:], strict=False):
        assert behind - first >= 60 - EPSILON, f"{limit + 1} requests in {behind - first} seconds"


arrivals = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.5, 3.0, 59.9, 60.0, 300.0]) | st.floats(0, 90),
        st.none() | st.none() | st.none() | st.floats(0, 130),
    ),
    min_size=1,
    max_size=150,
)


@examples(100)
@given(st.integers(1, 45), arrivals)
def test_no_sixty_seconds_ever_see_more_than_the_limit(limit: int, pattern: list[tuple[float, float | None]]) -> None:
    limiter, clock = make(limit)
    moments = []
    for gap, pause in pattern:
        clock.now += gap
        if pause is not None:
            limiter.pause(pause)
        moments.append(clock.now + limiter.reserve())
    assert_within(limit, moments)


@examples(80)
@given(st.integers(1, 45), arrivals)
def test_first_come_first_served(limit: int, pattern: list[tuple[float, float | None]]) -> None:
    limiter, clock = make(limit)
    moments = []
    for gap, _ in pattern:
        clock.now += gap
        wait = limiter.reserve()
        assert wait >= 0
        moments.append(clock.now + wait)
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    ("limit", "burst"), [(1, 1), (2, 1), (9, 1), (10, 1), (19, 1), (20, 2), (100, 10), (1000, 100)]
)
def test_at_most_a_tenth_of_the_limit_goes_out_at_once(limit: int, burst: int) -> None:
    limiter, clock = make(limit)
    moments = moments_of(limiter, clock, burst + 1)
    assert [moment for moment in moments if moment == 0.0] == [0.0] * burst
    assert moments[burst] > 0.05


@pytest.mark.parametrize("idle", [61.0, 3600.0, 10**6])
def test_a_long_pause_does_not_save_up_a_larger_burst(idle: float) -> None:
    limiter, clock = make(100)
    moments_of(limiter, clock, 50)
    clock.now += idle
    moments = moments_of(limiter, clock, 11)
    assert moments[:10] == pytest.approx([clock.now] * 10, abs=EPSILON)
    assert moments[10] > clock.now + 0.5


def test_a_limit_of_one_is_one_a_minute() -> None:
    limiter, clock = make(1)
    assert moments_of(limiter, clock, 4) == [0.0, 60.0, 120.0, 180.0]


@pytest.mark.parametrize("limit", [1, 5, 10, 60, 100, 1000])
def test_a_saturated_limiter_uses_at_least_nine_tenths_of_the_limit(limit: int) -> None:
    limiter, clock = make(limit)
    moments = moments_of(limiter, clock, 10 * limit + 1)
    assert_within(limit, moments)
    assert moments[-1] <= 600 / 0.9


def test_a_lone_request_now_and_then_never_waits() -> None:
    limiter, clock = make(6)
    for _ in range(20):
        clock.now += 10.0 + EPSILON
        assert limiter.reserve() == pytest.approx(0.0, abs=EPSILON)


def test_a_pause_holds_everyone_back() -> None:
    limiter, clock = make(100)
    limiter.pause(30.0)
    assert [limiter.reserve() for _ in range(10)] == [30.0] * 10
    assert limiter.reserve() > 30.0
    clock.now += 29.0
    assert limiter.reserve() > 1.0


def test_a_shorter_pause_does_not_cut_a_longer_one_short() -> None:
    limiter, _ = make(100)
    limiter.pause(30.0)
    limiter.pause(5.0)
    assert limiter.reserve() == 30.0


def test_a_pause_that_is_over_costs_nothing() -> None:
    limiter, clock = make(100)
    limiter.pause(30.0)
    clock.now += 30.0
    assert limiter.reserve() == 0.0


def test_nothing_depends_on_where_the_clock_begins() -> None:
    assert [make(10, now)[0].reserve() for now in (-1e6, 0.0, 1e9)] == [0.0, 0.0, 0.0]


def test_threads_get_moments_of_their_own() -> None:
    limiter, clock = make(10)
    moments: list[float] = []
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait()
        for _ in range(25):
            moments.append(clock.now + limiter.reserve())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(moments) == 200
    assert_within(10, sorted(moments))
