# SPDX-License-Identifier: Apache-2.0
"""Intervals, budgets and deadlines of waits that share a poll, by a clock that is moved by hand."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.timing import (
    BACKSTOP_SECONDS,
    Deadline,
    EvenSpread,
    FreezeDetector,
    LookupTimes,
    PollPlan,
    PollSchedule,
    PollTimer,
    end_of_wait,
    slot_seconds,
)
from tests.api.flows import examples

# --- the schedule of one wait --------------------------------------------------------------------------------------


def test_without_backoff_the_interval_stays_and_max_wait_means_nothing() -> None:
    # As in Airflow's poke and reschedule mode.
    for max_wait in (None, 0.0, 5.0, 600.0):
        schedule = PollSchedule(60.0, max_wait=max_wait)
        assert [schedule.after(elapsed) for elapsed in (0.0, 61.0, 1e6)] == [60.0] * 3


def test_a_backoff_doubles_with_jitter_up_to_max_wait() -> None:
    schedule = PollSchedule(60.0, exponential_backoff=True, max_wait=500.0, seed="a wait")
    elapsed, steps = 0.0, []
    for _ in range(7):
        steps.append(schedule.after(elapsed))
        elapsed += PollSchedule(60.0, exponential_backoff=True, seed="a wait").after(elapsed)

    for least, step in zip((30, 60, 120, 240), steps, strict=False):
        assert least <= step < 2 * least
    assert steps[4] <= 500.0
    assert steps[5:] == [500.0, 500.0]


def test_the_jitter_of_a_backoff_depends_on_the_wait_and_on_the_poll() -> None:
    # Waits that begin together must not go in step, and a restarted triggerer keeps the schedule.
    def steps(seed: str) -> list[float]:
        schedule = PollSchedule(600.0, exponential_backoff=True, seed=seed)
        return [schedule.after(elapsed) for elapsed in (0.0, 1200.0, 4800.0)]

    first = [steps(f"wait {number}")[0] for number in range(50)]
    assert min(first) < 375.0
    assert max(first) > 525.0
    assert len(set(first)) > 40
    assert steps("wait 1") == steps("wait 1")
    assert len({step % 300 for step in steps("wait 1")}) == 3


def test_a_max_wait_of_0_bounds_no_backoff() -> None:
    schedule = PollSchedule(60.0, exponential_backoff=True, max_wait=0.0)

    assert schedule.after(3600.0) >= 60.0


@pytest.mark.parametrize("backoff", [False, True])
@pytest.mark.parametrize("max_wait", [None, 0.0, 30.0])
def test_an_interval_of_0_is_no_hot_loop(backoff: bool, max_wait: float | None) -> None:
    assert PollSchedule(0.0, exponential_backoff=backoff, max_wait=max_wait).after(7 * 86400.0) == 1.0


@given(
    interval=st.floats(0.01, 7200.0),
    elapsed=st.floats(0.0, 30 * 86400.0),
    max_wait=st.none() | st.floats(0.0, 7200.0),
    seed=st.text(max_size=5),
)
@examples(200)
def test_a_backoff_is_neither_below_a_second_nor_far_above_what_has_passed(
    interval: float, elapsed: float, max_wait: float | None, seed: str
) -> None:
    step = PollSchedule(interval, exponential_backoff=True, max_wait=max_wait, seed=seed).after(elapsed)

    assert step >= min(1.0, max_wait or 1.0)
    assert step <= max(2.0, interval, 4 * elapsed + 4)
    assert not max_wait or step <= max_wait


# --- many that share one poll --------------------------------------------------------------------------------------


@dataclass(eq=False)
class Member:
    """A wait or watch that shares a poll, and what came to it."""

    timer: PollTimer
    joined: float
    leaves: float
    results: list[tuple[float, float, bool, bool, float]] = field(default_factory=list)

    def own(self, *, failed: bool) -> list[float]:
        return [began for began, _, has_failed, is_own, _ in self.results if is_own and has_failed == failed]


def play(
    members: list[Member],
    *,
    until: float,
    durations: list[float],
    outages: list[tuple[float, float]] = [],  # noqa: B006 - never changed
    spread: float = 0.0,
) -> list[float]:
    """Let one poll run as the triggerer does, and return when its requests began."""
    plan = PollPlan()
    active: list[Member] = []
    coming = sorted(members, key=lambda member: member.joined)
    requests: list[float] = []
    began: float | None = None
    now = 0.0
    ends = float("inf")
    while True:
        joins = coming[0].joined if coming else float("inf")
        leaves = min((member.leaves for member in active), default=float("inf"))
        due = max(plan.due, now) if began is None and active else float("inf")
        now = min(joins, leaves, due, ends)
        if now > until:
            return requests
        if now == joins:
            member = coming.pop(0)
            plan.join(member.timer, now, spread=None if active else spread)
            active.append(member)
        elif now == leaves:
            active = [member for member in active if member.leaves > now]
        elif now == ends:
            assert began is not None
            failed = any(start <= began < end for start, end in outages)
            for member in active:
                is_own = member.timer.take(began, failed=failed)
                member.results.append((began, now, failed, is_own, member.timer.interval))
            assert not plan.is_waiting
            plan.end(member.timer.interval for member in active)
            assert plan.is_waiting
            began, ends = None, float("inf")
        else:
            plan.begin(now)
            began, ends = now, now + durations[len(requests) % len(durations)]
            requests.append(now)
        if not active and began is None:
            plan = PollPlan()


def plain(interval: float, *, joined: float = 0.0, leaves: float = float("inf"), watch: bool = False) -> Member:
    return Member(PollTimer(PollSchedule(interval), now=joined, slows_down=watch), joined, leaves)


intervals = st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0, 2.5, 10.0])
seldom = st.sampled_from([0.0, 0.0, 0.001, 0.05, 0.4])


@st.composite
def crowds(draw: Any, *, watches: bool = False) -> list[Member]:
    found = []
    for _ in range(draw(st.integers(1, 6))):
        joined = draw(st.floats(0.0, 20.0))
        leaves = draw(st.just(float("inf")) | st.floats(0.0, 40.0).map(lambda lasts, at=joined: at + lasts))
        found.append(plain(draw(intervals), joined=joined, leaves=leaves, watch=watches and draw(st.booleans())))
    return found


outages_of = st.lists(
    st.tuples(st.floats(0.0, 40.0), st.floats(0.0, 20.0)).map(lambda o: (o[0], o[0] + o[1])), max_size=3
)


@given(
    members=crowds(watches=True),
    durations=st.lists(seldom, min_size=1, max_size=5),
    outages=outages_of,
    spread=st.floats(0.0, 1.0),
)
@examples(200)
def test_each_gets_a_result_within_its_interval_a_slot_and_the_time_of_two_polls(
    members: list[Member], durations: list[float], outages: list[tuple[float, float]], spread: float
) -> None:
    play(members, until=40.0, durations=durations, outages=outages, spread=spread)
    slow = 2 * max(durations) + 1e-6
    for member in members:
        last, interval = member.joined, member.timer._schedule.interval
        for began, ended, _, _, wanted in member.results:
            assert ended - last <= interval + slot_seconds(interval) + slow
            last, interval = began, wanted
        assert min(member.leaves, 40.0) - last <= interval + slot_seconds(interval) + slow


@given(members=crowds(), durations=st.lists(seldom, min_size=1, max_size=5), spread=st.floats(0.0, 1.0))
@examples(200)
def test_there_are_no_more_requests_than_the_shortest_interval_wants(
    members: list[Member], durations: list[float], spread: float
) -> None:
    requests = play(members, until=40.0, durations=durations, spread=spread)
    shortest = min(member.timer.interval for member in members)
    comings = 2 * len(members)
    assert len(requests) <= 40.0 / shortest + 1 + comings


@given(
    members=crowds(),
    backing_off=st.booleans(),
    interval=intervals,
    durations=st.lists(seldom, min_size=1, max_size=5),
    outages=outages_of,
)
@examples(200)
def test_the_interval_of_a_wait_depends_on_the_time_and_on_no_neighbour(
    members: list[Member],
    backing_off: bool,
    interval: float,
    durations: list[float],
    outages: list[tuple[float, float]],
) -> None:
    schedule = PollSchedule(interval, exponential_backoff=backing_off, seed="x")
    wait = Member(PollTimer(schedule, now=5.0, elapsed=3.0), 5.0, float("inf"))
    play([*members, wait], until=40.0, durations=durations, outages=outages)
    last = schedule.after(3.0)
    for began, _, _, is_own, wanted in wait.results:
        if is_own:
            last = schedule.after(began - 2.0)
        assert wanted == last


@given(
    members=crowds(),
    interval=intervals,
    durations=st.lists(seldom, min_size=1, max_size=5),
)
@examples(200)
def test_a_budget_of_failures_lasts_as_long_as_for_a_wait_that_is_alone(
    members: list[Member], interval: float, durations: list[float]
) -> None:
    wait = plain(interval, joined=5.0)
    play([*members, wait], until=40.0, durations=durations, outages=[(0.0, 100.0)])

    failed = wait.own(failed=True)

    assert wait.timer.failures == len(failed)
    # None is counted earlier than it would be without the neighbours ...
    assert all(began >= failed[0] + (number - 0.01) * interval - 1e-6 for number, began in enumerate(failed))
    # ... nor is there more than one poll of this interval, with what it takes and the way to its slot, between two
    # that are.
    slow = max(durations) + 1e-6
    longest = 2 * interval + slot_seconds(interval) + 2 * slow
    assert all(later - earlier <= longest for earlier, later in pairwise(failed))
    passed = failed[-1] - failed[0]
    assert len(failed) >= passed / (interval + (slow if slow > interval else 1e-6)) - 1


@given(
    interval=intervals, durations=st.lists(seldom | st.just(3.0), min_size=1, max_size=5), spread=st.floats(0.0, 1.0)
)
@examples(100)
def test_for_a_wait_that_is_alone_every_poll_is_its_own(interval: float, durations: list[float], spread: float) -> None:
    wait = plain(interval)
    requests = play([wait], until=40.0, durations=durations, outages=[(10.0, 30.0)], spread=spread)

    assert wait.own(failed=False) + wait.own(failed=True) == [
        *(began for began in requests[: len(wait.results)] if not 10.0 <= began < 30.0),
        *(began for began in requests[: len(wait.results)] if 10.0 <= began < 30.0),
    ]


def test_beside_a_quick_neighbour_a_poll_is_its_own_only_when_its_interval_has_passed() -> None:
    quick, wait = plain(0.1), plain(0.5)
    play([quick, wait], until=10.05, durations=[0.0], outages=[(0.0, 100.0)])

    assert len(quick.own(failed=True)) == pytest.approx(100, abs=2)
    assert len(wait.own(failed=True)) == pytest.approx(20, abs=1)


def test_intervals_that_were_missed_are_not_made_up_for() -> None:
    timer = PollTimer(PollSchedule(10.0), now=0.0)
    assert timer.take(0.0, failed=True)

    # The process was frozen, and a neighbour polls every second.
    own = [began for began in range(55, 86) if timer.take(float(began), failed=True)]

    assert own == [55, 60, 70, 80]


def test_intervals_that_do_not_fit_each_other_keep_their_budgets() -> None:
    # Polls come every 0.5 s. Counted from each of them on, 0.7 s would become 1 s: 31 in 30 s.
    quick, wait = plain(0.5), plain(0.7)
    play([quick, wait], until=30.05, durations=[0.0], outages=[(0.0, 100.0)])

    assert len(wait.own(failed=True)) == pytest.approx(1 + 30 / 0.7, abs=1)


def test_a_success_of_whoever_ends_the_row_of_failures() -> None:
    quick, wait = plain(0.1), plain(5.0)
    play([quick, wait], until=3.0, durations=[0.0], outages=[(0.0, 1.05)])

    assert wait.own(failed=True) == [0.0]
    assert wait.timer.failures == 0


# --- the first poll of a new wait -------------------------------------------------------------------------------------


def first_due(spread: float | None, **given: Any) -> float:
    plan = PollPlan()
    plan.join(PollTimer(PollSchedule(3600.0), now=0.0, **given), 0.0, spread=spread)
    return plan.due


@pytest.mark.parametrize("spread", [None, 1.0, 0.2])
def test_a_new_wait_is_polled_within_ten_seconds(spread: float | None) -> None:
    part = 1.0 if spread is None else spread
    assert first_due(spread, begins_soon=True) == 10.0 * part
    assert first_due(spread, begins_soon=True, elapsed=3599.0) == 10.0 * part
    # One that goes on after a restart of the triggerer, and a watch, are not.
    assert first_due(spread, begins_soon=True, elapsed=3600.0) == 3600.0 * part
    assert first_due(spread, slows_down=True) == 3600.0 * part


def test_a_short_interval_is_not_made_longer_by_that() -> None:
    plan = PollPlan()
    plan.join(PollTimer(PollSchedule(2.0), now=0.0, begins_soon=True), 0.0)
    assert plan.due == 2.0


def test_a_wait_younger_than_a_minute_is_new_however_short_its_interval() -> None:
    ages = (0.0, 59.0, 60.0)
    timers = [PollTimer(PollSchedule(1.0), now=0.0, elapsed=age) for age in ages]
    assert [timer.is_new for timer in timers] == [True, True, False]


@pytest.mark.parametrize(
    ("spread", "wanted"), [(0.0, [0.0]), (0.2, [2.0, 10.0]), (0.75, [6.0, 45.0]), (1.0, [10.0, 60.0])]
)
def test_waits_that_begin_together_are_out_of_step_from_the_second_poll_on(spread: float, wanted: list[float]) -> None:
    wait = Member(PollTimer(PollSchedule(60.0), now=0.0, begins_soon=True), 0.0, float("inf"))

    requests = play([wait], until=200.0, durations=[0.0], spread=spread)

    while wanted[-1] + 60.0 <= 200.0:
        wanted = [*wanted, wanted[-1] + 60.0]
    assert requests == pytest.approx(wanted)


# --- slots ------------------------------------------------------------------------------------------------------------


def test_polls_of_series_with_the_same_interval_begin_together_in_five_slots() -> None:
    spread = EvenSpread(random.Random(12).random())
    began = sorted(
        at
        for _ in range(50)
        for at in play([plain(10.0)], until=100.0, durations=[0.05, 0.4], spread=spread.take())
        if at >= 10.0
    )

    # Yet they are spread over the interval, with as many in each slot.
    slots = Counter(at % 10.0 for at in began)
    assert slots.keys() == {0.0, 2.0, 4.0, 6.0, 8.0}
    assert sum(slots.values()) == pytest.approx(450, abs=50)
    assert max(slots.values()) <= 1.4 * min(slots.values())


@pytest.mark.parametrize("first", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("count", [1, 5, 12, 50, 1000])
@pytest.mark.parametrize("slots", [5, 12, 60])
def test_first_polls_are_spread_evenly_however_many_series_there_are(first: float, count: int, slots: int) -> None:
    spread = EvenSpread(first)
    numbers = Counter(int(spread.take() * slots) for _ in range(count))
    assert set(numbers) <= set(range(slots))
    assert all(abs(numbers[slot] - count / slots) <= 2 for slot in range(slots))


@pytest.mark.parametrize("interval", [0.5, 2.0, 10.0, 60.0, 60.5, 3600.0])
def test_a_poll_stays_in_its_slot_though_it_always_begins_a_little_late(interval: float) -> None:
    plan, timer = PollPlan(), PollTimer(PollSchedule(interval), now=0.0)
    plan.join(timer, 0.0, spread=0.3)
    first = plan.due
    for _ in range(100):
        began = plan.due + 0.004 * min(interval, 10.0)
        plan.begin(began)
        assert timer.take(began, failed=False)
        plan.end([timer.interval])

    assert plan.due == pytest.approx(first + 100 * interval)


def test_a_poll_that_was_wanted_in_between_is_followed_by_one_in_the_next_slot() -> None:
    plan, timer = PollPlan(), PollTimer(PollSchedule(10.0), now=0.0)
    plan.begin(3.3)
    plan.end([timer.interval])

    assert plan.due == 14.0


@given(interval=st.floats(0.001, 1e5))
@examples(100)
def test_slots_are_at_most_five_seconds_and_a_fifth_of_the_interval_and_fit_into_it(interval: float) -> None:
    slot = slot_seconds(interval)

    assert slot <= min(5.0, interval / 5) * (1 + 1e-9)
    assert interval / slot == pytest.approx(round(interval / slot))


# --- a watch --------------------------------------------------------------------------------------------------------


def test_a_watch_slows_down_by_its_own_failures_up_to_a_quarter_of_an_hour() -> None:
    watch = plain(60.0, watch=True)
    play([watch], until=7200.0, durations=[0.0], outages=[(0.0, 1e6)])

    pauses = [wanted for *_, wanted in watch.results]
    assert pauses[:5] == [120.0, 240.0, 480.0, 900.0, 900.0]


def test_a_watch_with_a_longer_interval_than_that_keeps_it() -> None:
    watch = plain(3600.0, watch=True)
    play([watch], until=10000.0, durations=[0.0], outages=[(0.0, 1e6)])

    assert [wanted for *_, wanted in watch.results] == [3600.0] * len(watch.results)


def test_an_outage_of_a_second_beside_a_quick_wait_slows_no_watch_down() -> None:
    quick, watch = plain(0.1), plain(1.0, watch=True)
    play([quick, watch], until=20.0, durations=[0.0], outages=[(5.0, 6.0)])

    assert len(watch.own(failed=True)) <= 2
    assert max(wanted for *_, wanted in watch.results) <= 4.0
    assert watch.timer.interval == 1.0


@given(
    members=crowds(),
    interval=intervals,
    durations=st.lists(seldom, min_size=1, max_size=5),
    outages=outages_of,
)
@examples(200)
def test_a_watch_is_back_at_its_interval_with_the_first_success(
    members: list[Member], interval: float, durations: list[float], outages: list[tuple[float, float]]
) -> None:
    watch = plain(interval, watch=True)
    play([*members, watch], until=70.0, durations=durations, outages=outages)

    slow = 2 * max(durations) + 1e-6
    for before, after in pairwise(watch.results):
        _, _, failed, _, wanted = before
        if not failed:
            assert wanted == interval
            assert after[1] - before[0] <= interval + slot_seconds(interval) + slow
    # And what fails after that counts again within an interval, and not only after the pause of the first outage.
    own = [began for began, _, _, is_own, _ in watch.results if is_own]
    successes = {began for began, _, failed, _, _ in watch.results if not failed}
    longest = 2 * interval + slot_seconds(interval) + slow
    assert all(later - earlier <= longest for earlier, later in pairwise(own) if earlier in successes)


# --- the end --------------------------------------------------------------------------------------------------------


def test_the_last_poll_may_take_as_long_as_airflow_lets_the_trigger_live() -> None:
    by_default = Deadline.of(1000.0, now=0.0, backstop=None)
    known = Deadline.of(1000.0, now=0.0, backstop=1000.0 + 900.0)

    assert by_default.seconds_left_for_last_poll(1000.0) == pytest.approx(BACKSTOP_SECONDS, abs=30)
    assert known.seconds_left_for_last_poll(1000.0) == pytest.approx(900.0, abs=30)
    for each in (by_default, known):
        assert each.seconds_left_for_last_poll(1000.0) < BACKSTOP_SECONDS or each is known


@pytest.mark.parametrize("backstop", [None, 500.0, 1010.0])
@pytest.mark.parametrize("late", [0.0, 100.0, 86400.0])
def test_there_is_time_for_a_last_poll_even_where_airflow_should_have_ended_the_wait(
    backstop: float | None, late: float
) -> None:
    deadline = Deadline.of(1000.0, now=1000.0 + late, backstop=backstop)

    assert deadline.seconds_left(1000.0 + late) == 0.0
    assert deadline.seconds_left_for_last_poll(1000.0 + late) >= 60.0


def test_the_end_of_a_wait_that_no_worker_began_follows_from_airflows_own() -> None:
    assert end_of_wait(5000.0, timeout=600.0, backstop=1900.0, execution_seconds=900.0) == 1600.0
    assert end_of_wait(5000.0, timeout=600.0, backstop=None, execution_seconds=900.0) == 5600.0
    assert end_of_wait(5000.0, timeout=600.0, backstop=1900.0, execution_seconds=None) == 5600.0


# --- lookups of the connection -------------------------------------------------------------------------------------


def lookups(wants: list[float], *, polls: list[float]) -> list[float]:
    """Return when lookups begin: polls make them, where one is due."""
    times, began = LookupTimes(), []
    wants = sorted(wants)
    for at in sorted(polls):
        while wants and wants[0] <= at:
            times.want(wants.pop(0))
        if at >= times.due():
            times.begin(at)
            began.append(at)
    return began


def test_a_connection_in_use_is_read_again_after_five_minutes_at_the_latest() -> None:
    began = lookups([], polls=[float(at) for at in range(0, 3600, 10)])

    assert began == [float(at) for at in range(0, 3600, 300)]
    times = LookupTimes()
    assert times.due_while_idle() == float("inf")  # nobody was polled yet
    times.begin(7.0)
    assert times.due_while_idle() == 307.0


def test_a_thousand_that_join_within_a_second_cause_few_lookups() -> None:
    began = lookups([10.0 + number / 1000 for number in range(1000)], polls=[0.0, *(9 + n / 100 for n in range(400))])

    assert 1 <= len([at for at in began if at >= 10.0]) <= 5
    assert began[-1] >= 10.999  # and the last one is later than the last who joined


@given(
    wants=st.lists(st.floats(0.0, 100.0), max_size=40), polls=st.lists(st.floats(0.0, 120.0), min_size=1, max_size=200)
)
@examples(200)
def test_every_wish_is_met_by_a_later_lookup_and_there_is_at_most_one_a_second(
    wants: list[float], polls: list[float]
) -> None:
    began = lookups(wants, polls=[*polls, *(float(at) for at in range(130))])

    for want in wants:
        assert any(want <= at <= want + 4.0 for at in began)
    for start in began:
        assert len([at for at in began if start <= at < start + 10.0]) <= 10 + 3


@pytest.mark.parametrize(
    ("monotonic", "wall", "frozen_for"),
    [
        (5.0, 5.0, 0.0),
        (14.9, 14.9, 0.0),
        (40.0, 40.0, 40.0),  # SIGSTOP: the monotonic clock goes on
        (5.0, 3605.0, 3605.0),  # a suspended machine: it does not
        (5.0, -3600.0, 0.0),  # a clock that is set back
        (40.0, -3600.0, 40.0),
    ],
)
def test_a_freeze_is_detected_by_whichever_clock_went_on(monotonic: float, wall: float, frozen_for: float) -> None:
    detector = FreezeDetector(monotonic=100.0, wall=1_700_000_000.0)

    detector.observe(monotonic=100.0 + monotonic, wall=1_700_000_000.0 + wall)

    assert detector.frozen_for == frozen_for


def test_a_freeze_counts_until_it_was_dealt_with() -> None:
    detector = FreezeDetector(monotonic=0.0, wall=0.0)
    detector.observe(monotonic=60.0, wall=60.0)
    detector.observe(monotonic=65.0, wall=65.0)
    assert detector.frozen_for == 60.0

    detector.reset()
    detector.observe(monotonic=70.0, wall=70.0)
    assert detector.frozen_for == 0.0


def test_many_short_observations_are_no_freeze_however_long_they_go_on() -> None:
    detector = FreezeDetector(monotonic=0.0, wall=0.0)
    for seconds in range(0, 3600, 5):  # the polls of a watch may be 15 minutes apart
        detector.observe(monotonic=float(seconds), wall=float(seconds))

    assert detector.frozen_for == 0.0
