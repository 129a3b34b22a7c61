# SPDX-License-Identifier: Apache-2.0
"""Waits that share: one poll a series, one client and one token a connection, nothing left when the last is gone."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._polling import shared_poll
from airflow_provider_capillary._polling.shared_poll import poll_series, subscribe
from airflow_provider_capillary.api import limiter, timing
from airflow_provider_capillary.api.job_history import JobHistory
from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.api.timing import PollSchedule, PollTimer
from airflow_provider_capillary.api.upload_kinds import REDEEM
from airflow_provider_capillary.api.waiting import JobWaiter
from airflow_provider_capillary.sandbox import Fault
from airflow_provider_capillary.triggers.capillary import CapillaryCouponUploadTrigger, CapillaryRedeemUploadTrigger
from tests.connections import forget_connection_states
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from airflow_provider_capillary.sandbox import Sandbox

    UploadTrigger = CapillaryRedeemUploadTrigger | CapillaryCouponUploadTrigger

SERIES = 535512
CONN_ID = "capillary_default"

pytestmark = pytest.mark.usefixtures("capillary_connection", "quick_retries")


def trigger(series: int = SERIES, **given: Any) -> CapillaryRedeemUploadTrigger:
    arguments = {"coupon_series_id": series, "poke_interval": 0.1, "timeout": 20.0, "end_time": time.time() + 20}
    return CapillaryRedeemUploadTrigger(**{**arguments, **given})


def coupon_trigger(**given: Any) -> CapillaryCouponUploadTrigger:
    return CapillaryCouponUploadTrigger(**trigger(**given).serialize()[1])


async def event_of(running: UploadTrigger) -> dict[str, Any]:
    (event,) = [event.payload async for event in running.run()]
    return event


def every(interval: float) -> PollTimer:
    return PollTimer(PollSchedule(interval), now=time.monotonic())


def waiting(
    *triggers: CapillaryRedeemUploadTrigger | CapillaryCouponUploadTrigger,
) -> list[asyncio.Task[dict[str, Any]]]:
    return [asyncio.create_task(event_of(each)) for each in triggers]


def nothing_is_left(before: set[asyncio.Task[Any]]) -> bool:
    state = shared_poll._loop_states.get(asyncio.get_running_loop())
    return asyncio.all_tasks() <= before and (state is None or (state.connections, state.polls) == ({}, {}))


async def test_all_waits_on_a_series_share_one_poll_and_all_on_a_connection_one_token(sandbox: Sandbox) -> None:
    jobs = {series: sandbox.add_job(series, status="STARTED") for series in (1, 2, 3)}
    before = asyncio.all_tasks()

    tasks = waiting(*[trigger(1 + number % 3, poke_interval=0.3) for number in range(90)])
    await until(lambda: sandbox.count("status") >= 9)
    for job in jobs.values():
        sandbox.finish(job)
    asked = sandbox.count("status")
    events = await asyncio.gather(*tasks)

    assert [event["status"] for event in events] == ["success"] * 90
    assert {event["job"]["job_id"] for event in events} == {job.job_id for job in jobs.values()}
    # Each series is asked once more at most twice: what was under way, and what reported the end.
    assert sandbox.count("status") - asked <= 6
    assert sandbox.count("token") == 1
    assert nothing_is_left(before)


async def test_a_redeem_and_a_coupon_wait_on_one_series_are_two_polls_over_one_connection(sandbox: Sandbox) -> None:
    redeem = sandbox.add_job(SERIES, job_id=6, status="STARTED", rows=4, errors=1)
    coupon = sandbox.add_job(SERIES, job_id=7, status="STARTED", rows=9, errors=2, kind="coupon")
    before = asyncio.all_tasks()

    tasks = waiting(*[trigger(), coupon_trigger()] * 5)
    await until(lambda: sandbox.count("status") >= 6)
    paths = {request.path for request in sandbox.requests if request.endpoint == "status"}
    state = shared_poll._loop_states[asyncio.get_running_loop()]
    assert len(state.polls) == 2
    assert len(state.connections) == 1
    sandbox.finish(redeem)
    redeem_events = await asyncio.gather(*tasks[0::2])
    assert not any(task.done() for task in tasks[1::2])
    sandbox.finish(coupon)
    coupon_events = await asyncio.gather(*tasks[1::2])

    assert paths == {
        f"/coupon/api/v1/upload/getUploadRedeemedCouponStatus/{SERIES}",
        f"/coupon/api/v1/upload/getUploadStatus/{SERIES}",
    }
    assert {event["job"]["total_uploaded_count"] for event in redeem_events} == {4}
    assert {event["job"]["total_uploaded_count"] for event in coupon_events} == {9}
    assert {event["message"] for event in coupon_events} == {"coupon upload job 7 is complete"}
    assert sandbox.count("token") == 1
    assert nothing_is_left(before)


async def test_the_failed_polls_of_one_kind_do_not_count_for_the_other(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    refused = {"success": True, "result": {"uploadJobStatuses": "none"}}
    waits = waiting(trigger(max_consecutive_failures=1), coupon_trigger(max_consecutive_failures=1))
    await until(lambda: sandbox.count("status") >= 4)
    # An answer that only the coupon kind refuses: for redeemed coupons it is an empty list.
    sandbox.inject(Fault("body", endpoint="status", status=200, body=refused, times=8))

    event = await waits[1]
    sandbox.finish(job)

    assert (event["status"], event["error"]["error"]) == ("error", "CapillaryResponseError")
    assert (await waits[0])["status"] == "success"


async def test_the_shortest_interval_serves_all(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    patient, quick = waiting(trigger(poke_interval=3600.0), trigger(poke_interval=0.05, job_id=999_999))
    await until(lambda: sandbox.count("status") >= 3)
    sandbox.finish(job)

    assert (await patient)["job"]["job_id"] == job.job_id

    quick.cancel()
    with pytest.raises(asyncio.CancelledError):
        await quick


async def test_a_wait_that_joins_with_a_shorter_interval_need_not_sit_out_the_longer_one(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES)
    (patient,) = waiting(trigger(poke_interval=3600.0, timeout=7200.0))  # it has lasted for two hours
    await asyncio.sleep(0.05)
    assert sandbox.count("status") == 0

    assert (await event_of(trigger(poke_interval=0.05)))["status"] == "success"
    assert (await patient)["status"] == "success"


async def test_a_new_wait_whose_job_has_finished_need_not_sit_out_its_interval(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_FIRST_POLL_SECONDS", 0.5)
    first, second = sandbox.add_job(SERIES), sandbox.add_job(SERIES + 1, status="STARTED")
    arguments: dict[str, Any] = {"poke_interval": 3600.0, "timeout": 7200.0, "end_time": time.time() + 7200}

    async with asyncio.timeout(10):
        assert (await event_of(trigger(**arguments)))["job"]["job_id"] == first.job_id
        # It joins a poll as well.
        (other,) = waiting(trigger(SERIES + 1, **arguments))
        await until(lambda: sandbox.count("status") == 2)
        sandbox.finish(second)
        assert (await event_of(trigger(SERIES + 1, **arguments)))["job"]["job_id"] == second.job_id
        assert (await other)["status"] == "success"


async def test_every_wait_counts_a_failed_poll_and_none_dies_earlier_than_alone(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
    hasty = trigger(poke_interval=0.05, max_consecutive_failures=4)
    steady = trigger(poke_interval=5.0, max_consecutive_failures=4)

    tasks = waiting(hasty, steady)
    ended, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    assert [task.result()["status"] for task in ended] == ["error"]
    assert sandbox.count("status") >= 8  # four polls of two attempts
    assert running == {tasks[1]}  # it has seen the same failures, but not for as long as its own four polls take
    tasks[1].cancel()
    await asyncio.wait(running)


async def test_a_wait_that_backs_off_beside_a_quick_one_keeps_its_own_intervals(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    steady, quick = waiting(
        trigger(poke_interval=0.5, exponential_backoff=True, timeout=60.0, end_time=time.time() + 60),
        trigger(poke_interval=0.05, job_id=999_999),
    )
    await until(lambda: sandbox.count("status") >= 30)
    quick.cancel()
    await asyncio.wait([quick])
    await asyncio.sleep(0.2)  # the poll that the quick one wanted still comes
    sandbox.finish(job)

    # After about two seconds, its own interval is one or two seconds, and not 0.5 s doubled thirty times.
    async with asyncio.timeout(6):
        assert (await steady)["job"]["job_id"] == job.job_id


async def test_a_poll_that_fails_once_ends_no_wait(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    tasks = waiting(*[trigger(max_consecutive_failures=2, poke_interval=0.2) for _ in range(10)])
    await until(lambda: sandbox.count("status") >= 1)
    sandbox.inject(Fault("status", endpoint="status", status=503, times=2))  # one poll of two attempts
    await until(lambda: sandbox.count("status") >= 4)
    sandbox.finish(job)

    assert {event["status"] for event in await asyncio.gather(*tasks)} == {"success"}


async def test_a_poll_that_brings_nothing_new_wakes_no_wait_that_has_seen_one(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    received: dict[str, list[str]] = {"waiting": [], "all": [], "late": []}

    async def receive(name: str, *, receives_every_result: bool = False) -> None:
        async with subscribe(
            CONN_ID, REDEEM, SERIES, every(0.05), receives_every_result=receives_every_result
        ) as subscription:
            while True:
                result = await subscription.next_result()
                received[name].append("failed" if result.jobs is None else result.jobs.newest().status)

    async def results(number: int) -> None:
        asked = len(received["all"])
        await until(lambda: len(received["all"]) >= asked + number)

    tasks = [asyncio.create_task(receive("waiting")), asyncio.create_task(receive("all", receives_every_result=True))]
    await results(4)
    tasks.append(asyncio.create_task(receive("late")))
    await results(4)
    sandbox.inject(Fault("status", endpoint="status", status=503, times=4))  # two polls of two attempts
    await results(6)
    sandbox.finish(job)
    await results(4)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert received["waiting"] == ["STARTED", "failed", "failed", "STARTED", "COMPLETED"]
    assert received["late"] == received["waiting"]
    assert len(received["all"]) >= 18


async def test_what_a_poll_brought_is_not_missed_by_a_wait_that_was_busy(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    async with subscribe(CONN_ID, REDEEM, SERIES, every(0.05)) as subscription:
        await subscription.next_result()
        asked = sandbox.count("status")
        sandbox.finish(job)
        await until(lambda: sandbox.count("status") >= asked + 3)  # reported once, and not again

        async with asyncio.timeout(20):
            result = await subscription.next_result()

    assert result.jobs is not None
    assert result.jobs.newest().is_completed


async def test_the_result_of_a_requested_poll_is_always_received(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    async with subscribe(CONN_ID, REDEEM, SERIES, every(3600.0)) as subscription, asyncio.timeout(20):
        subscription.poll_now()
        first = await subscription.next_result()
        subscription.poll_now()
        second = await subscription.next_result()

    assert second is not first
    assert second.jobs is first.jobs


@pytest.mark.parametrize("quick_retries", [HttpRetry(2, 0.01, 0.02, 60.0)], indirect=True)
async def test_an_answer_429_slows_everyone_on_the_connection_down(sandbox: Sandbox) -> None:
    jobs = {series: sandbox.add_job(series, status="STARTED") for series in (1, 2, 3, 4)}
    tasks = waiting(*[trigger(series, poke_interval=0.1) for series in jobs])
    await until(lambda: sandbox.count("status") >= 8)
    sandbox.inject(Fault("status", endpoint="status", status=429, retry_after=2))
    asked = sandbox.count("status")
    await until(lambda: sandbox.count("status") >= asked + 12)
    for job in jobs.values():
        sandbox.finish(job)
    await asyncio.gather(*tasks)

    moments = sorted(request.at for request in sandbox.requests if request.endpoint == "status")
    # Nothing, of any series, for about as long as Capillary said; without it there are forty polls a second.
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) > 1.5


async def test_never_more_requests_than_the_limit_in_any_window(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A minute of two seconds: 40 series that each want five polls in it, with a limit of 30.
    window = 2.0
    monkeypatch.setattr(limiter, "_WINDOW_SECONDS", window)
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", sandbox.connection_json(requests_per_minute=30))
    forget_connection_states()
    tasks = waiting(*[trigger(series, poke_interval=0.4) for series in range(1, 41)])
    await until(lambda: len(sandbox.requests) >= 120)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    moments = sorted(request.at for request in sandbox.requests)
    # A request is on its way for some milliseconds, not all for the same.
    slack = 0.2 * window
    worst = max(sum(first <= moment < first + window - slack for moment in moments) for first in moments)
    assert worst <= 30
    # And the limit is used: a limiter that sends next to nothing would pass the above, too.
    assert len(moments) / (moments[-1] - moments[0]) > 0.7 * 30 / window


async def test_a_connection_that_was_corrected_is_read_again(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.add_job(SERIES)
    good = sandbox.connection_json(requests_per_minute=1_000_000)
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", good.replace("sandbox-secret", "expired-secret"))
    before = asyncio.all_tasks()
    assert (await event_of(trigger()))["error"]["error"] == "CapillaryAuthError"

    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", good)

    assert (await event_of(trigger()))["status"] == "success"
    assert nothing_is_left(before)


async def test_waits_that_come_and_go_at_any_moment_leave_nothing_behind(sandbox: Sandbox) -> None:
    for series in range(1, 6):
        sandbox.add_job(series, status="STARTED")
    sandbox.inject(Fault("status", endpoint="status", status=503, times=20, skip=5))
    before = asyncio.all_tasks()
    chance = random.Random(4711)

    async def come_and_go() -> None:
        await asyncio.sleep(chance.random() * 0.5)
        (task,) = waiting(trigger(chance.randint(1, 5), poke_interval=chance.choice([0.02, 0.1, 5.0])))
        await asyncio.sleep(chance.random() * 0.3)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    await asyncio.gather(*(come_and_go() for _ in range(200)))

    assert nothing_is_left(before)
    gc.collect()  # an open transport would warn of itself
    # And the next one starts from nothing.
    sandbox.clear_faults()
    job = sandbox.add_job(1)
    assert (await event_of(trigger(1)))["job"]["job_id"] == job.job_id
    assert nothing_is_left(before)


async def test_a_wait_that_is_cancelled_while_a_long_history_is_read_leaves_nothing_behind(sandbox: Sandbox) -> None:
    for _ in range(3000):
        sandbox.add_job(SERIES)
    before = asyncio.all_tasks()

    for part in range(20):
        asked = sandbox.count("status")
        (task,) = waiting(trigger(job_id=1, poke_interval=0.01))
        await until(lambda asked=asked: sandbox.count("status") > asked)
        await asyncio.sleep(0.01 * part)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done == {task}
        assert task.cancelled()
        assert nothing_is_left(before)


async def test_cleanup_leaves_the_poll_of_a_wait_that_was_dropped(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    before = asyncio.all_tasks()
    dropped = trigger()
    await dropped._exit_stack.enter_async_context(subscribe(CONN_ID, REDEEM, SERIES, every(0.05)))
    await until(lambda: sandbox.count("status") >= 1)
    assert not nothing_is_left(before)

    await dropped.cleanup()

    assert nothing_is_left(before)


def test_a_new_event_loop_begins_with_a_poll_of_its_own(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES)

    def run(coroutine: Coroutine[Any, Any, dict[str, Any]]) -> str:
        return str(asyncio.run(coroutine)["status"])

    assert [run(event_of(trigger())) for _ in range(3)] == ["success"] * 3
    assert sandbox.count("token") == 1  # the token is the process's, not the loop's


async def test_polls_that_begin_together_are_spread_over_the_interval(sandbox: Sandbox) -> None:
    tasks = waiting(*[trigger(series, poke_interval=2.0) for series in range(1, 41)])
    await until(lambda: sandbox.count("status") >= 40)
    moments = sorted(request.at for request in sandbox.requests if request.endpoint == "status")[:40]

    # In step they would all come within a few milliseconds.
    assert moments[-1] - moments[0] > 1.0
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_long_history_is_found_one_s_way_in(sandbox: Sandbox) -> None:
    for number in range(3000):
        sandbox.add_job(SERIES, uploaded_file_name=f"night{number}_1795400755483_{SERIES}.csv")
    late = trigger(uploaded_file_name="tonight_*")
    by_name, by_id, missing = waiting(
        trigger(uploaded_file_name="night7_*"), trigger(job_id=sandbox.jobs(SERIES)[1500].job_id), late
    )

    assert (await by_name)["job"]["uploaded_file_name"] == f"night7_1795400755483_{SERIES}.csv"
    assert (await by_id)["job"]["job_id"] == sandbox.jobs(SERIES)[1500].job_id
    job = sandbox.add_job(SERIES, uploaded_file_name=f"tonight_1795400755999_{SERIES}.csv")
    assert (await missing)["job"]["job_id"] == job.job_id


async def test_waits_on_a_long_history_search_it_one_after_the_other(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(1500):
        sandbox.add_job(SERIES)
    loop = asyncio.get_running_loop()
    turn = 0
    turns_of_searches: list[int] = []
    on_jobs = JobWaiter.on_jobs

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        if len(turns_of_searches) < 10:
            loop.call_soon(next_turn)

    def seen(wait: JobWaiter, jobs: JobHistory) -> Any:
        turns_of_searches.append(turn)
        return on_jobs(wait, jobs)

    monkeypatch.setattr(JobWaiter, "on_jobs", seen)
    tasks = waiting(*[trigger(uploaded_file_name="not-there-*", poke_interval=0.5) for _ in range(10)])
    next_turn()
    await until(lambda: len(turns_of_searches) == 10)

    assert len(set(turns_of_searches)) == 10
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_a_job_that_still_runs_is_not_settled_nor_are_those_after_it() -> None:
    from airflow_provider_capillary.api.jobs import UploadJob

    jobs = [UploadJob(job_id=number, status="COMPLETED") for number in (1, 2, 5)]
    running = UploadJob(job_id=3, status="QUEUED")

    assert JobHistory.of(jobs).settled_up_to == 5
    assert JobHistory.of([*jobs, running]).settled_up_to == 2
    assert JobHistory.of([]).settled_up_to is None


async def test_a_poll_that_is_cancelled_by_somebody_else_is_started_again(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    before = asyncio.all_tasks()
    tasks = waiting(*[trigger() for _ in range(3)])
    await until(lambda: sandbox.count("status") >= 2)
    (poll,) = shared_poll._loop_state().polls.values()
    assert poll._task is not None
    poll._task.cancel()
    asked = sandbox.count("status")
    await until(lambda: sandbox.count("status") >= asked + 2)
    sandbox.finish(job)

    assert [event["status"] for event in await asyncio.gather(*tasks)] == ["success"] * 3
    assert nothing_is_left(before)


@pytest.mark.parametrize("where", ["_ask", "_publish", "_until_due"])
async def test_a_poll_that_dies_again_and_again_uses_the_budget_up_and_no_wait_idles_to_its_deadline(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    before, deaths = asyncio.all_tasks(), []
    secret = "hunter2"

    async def die(*given: Any) -> None:
        deaths.append(given)
        raise RuntimeError(f"a fault of our own, with {secret} in its text")

    monkeypatch.setattr(shared_poll.SeriesPoll, where, die)

    async with asyncio.timeout(10):
        events = await asyncio.gather(*waiting(*[trigger(max_consecutive_failures=3) for _ in range(3)]))

    assert {(event["status"], event["message"]) for event in events} == {
        ("error", f"the poll of the redeem uploads of coupon series {SERIES} broke off (RuntimeError)")
    }
    assert len(deaths) == 3  # and not as often as a loop turns
    assert ", in die" in caplog.text  # where it broke off, without the text of the error
    assert secret not in caplog.text
    assert nothing_is_left(before)


async def test_a_watch_whose_poll_dies_goes_on(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.add_job(SERIES)
    watched = poll_series(CONN_ID, REDEEM, SERIES, interval=0.1, log=logging.getLogger("the watch"))
    await anext(watched)
    (poll,) = shared_poll._loop_state().polls.values()
    assert poll._task is not None
    poll._task.cancel()

    async with asyncio.timeout(10):
        assert len(await anext(watched)) == 1

    assert f"the poll of the redeem uploads of coupon series {SERIES} broke off (CancelledError)" in caplog.text
    await watched.aclose()


async def test_an_outage_beside_a_quick_wait_slows_no_watch_down(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    (quick,) = waiting(trigger(poke_interval=0.05, job_id=999_999, max_consecutive_failures=1000))
    watched = poll_series(CONN_ID, REDEEM, SERIES, interval=0.5, log=logging.getLogger("the watch"))
    await anext(watched)
    sandbox.inject(Fault("status", endpoint="status", status=503, times=12))  # six polls of two attempts
    async with asyncio.timeout(10):
        await anext(watched)  # what is published when the outage is over
        quick.cancel()
        await asyncio.wait([quick])
        began = time.monotonic()
        for _ in range(3):
            await anext(watched)

    assert caplog.text.count("Poll of the redeem uploads") <= 4
    assert time.monotonic() - began < 3.0
    await watched.aclose()


async def test_a_watch_is_back_at_its_interval_after_a_recovery(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    watched = poll_series(CONN_ID, REDEEM, SERIES, interval=0.1, log=logging.getLogger("the watch"))
    await anext(watched)
    sandbox.inject(Fault("status", endpoint="status", status=503, times=8))  # four polls of two attempts
    async with asyncio.timeout(10):
        await anext(watched)
        assert "(4 in a row), the next within 1.6 s" in caplog.text
        began = time.monotonic()
        for _ in range(5):
            await anext(watched)

    assert time.monotonic() - began < 1.5
    # And the next outage begins with the shortest pause again.
    sandbox.inject(Fault("status", endpoint="status", status=503, times=2))
    await anext(watched)
    assert caplog.text.count("(1 in a row), the next within 0.2 s") == 2
    await watched.aclose()


async def test_what_a_poll_brought_is_not_hidden_by_a_failure_after_it(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES)
    async with subscribe(CONN_ID, REDEEM, SERIES, every(0.05)) as subscription:
        await until(lambda: sandbox.count("status") >= 1)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
        asked = sandbox.count("status")
        await until(lambda: sandbox.count("status") >= asked + 6)

        first, second = await subscription.next_result(), await subscription.next_result()

    assert first.jobs is not None
    assert second.jobs is None
