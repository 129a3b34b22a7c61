# SPDX-License-Identifier: Apache-2.0
"""An Airflow connection that changes, fails or is missing while waits and watches over it run."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._polling import shared_connection, shared_poll
from airflow_provider_capillary._polling.shared_connection import SharedConnection
from airflow_provider_capillary._polling.shared_poll import poll_series
from airflow_provider_capillary.api import timing
from airflow_provider_capillary.api.timing import LookupTimes
from airflow_provider_capillary.api.upload_kinds import REDEEM
from airflow_provider_capillary.sandbox import Fault, Sandbox
from airflow_provider_capillary.triggers.capillary import CapillaryRedeemUploadTrigger
from tests.airflow_compat import api_server_error, before_awaited_lookups
from tests.connections import assert_not_sent_after_its_end, bearer_connection, forget_connection_states
from tests.ports import free_ports
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SERIES = 535512
ENV = "AIRFLOW_CONN_CAPILLARY_DEFAULT"
CHANGED = "Airflow connection 'capillary_default' changed"

pytestmark = pytest.mark.usefixtures("capillary_connection", "quick_retries", "nothing_left")


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    forget_connection_states()
    before = asyncio.all_tasks()
    yield
    state = shared_poll._loop_states.get(asyncio.get_running_loop())
    assert asyncio.all_tasks() - {asyncio.current_task()} <= before
    assert state is None or (state.connections, state.polls) == ({}, {})
    gc.collect()  # an open transport would warn of itself, which is an error in these tests


@pytest.fixture
def other() -> Iterator[Sandbox]:
    """Where the cluster has moved to."""
    with Sandbox(queued_seconds=0, started_seconds=0) as running:
        yield running


def trigger(series: int = SERIES, **given: Any) -> CapillaryRedeemUploadTrigger:
    arguments = {"coupon_series_id": series, "poke_interval": 0.1, "timeout": 30.0, "end_time": time.time() + 30}
    return CapillaryRedeemUploadTrigger(**{**arguments, **given})


async def event_of(running: CapillaryRedeemUploadTrigger) -> dict[str, Any]:
    (event,) = [event.payload async for event in running.run()]
    return event


def start(running: CapillaryRedeemUploadTrigger) -> asyncio.Task[dict[str, Any]]:
    return asyncio.create_task(event_of(running))


async def stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def connection(sandbox: Sandbox, **fields: Any) -> str:
    return json.dumps(sandbox.connection(requests_per_minute=1_000_000) | fields)


class Lookups:
    """Counts how often Airflow is asked for a connection, and lets it fail as it does when its API server is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.failing = 0
        self.hangs: asyncio.Event | None = None

        async def counted(conn_id: str) -> None:
            self.count += 1
            if self.hangs is not None:
                await self.hangs.wait()
            if self.failing:
                self.failing -= 1
                raise api_server_error("the vault says hunter2")

        before_awaited_lookups(monkeypatch, counted)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    return Lookups(monkeypatch)


async def test_a_wait_over_a_host_that_is_dead_goes_on_over_the_one_that_is_put_in_its_place(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = sandbox.add_job(SERIES)
    monkeypatch.setenv(ENV, connection(sandbox, port=free_ports(1)[0]))
    waits = [start(trigger(max_consecutive_failures=1000)) for _ in range(3)]
    await asyncio.sleep(0.5)

    monkeypatch.setenv(ENV, connection(sandbox))

    assert {(await wait)["job"]["job_id"] for wait in waits} == {job.job_id}
    assert caplog.text.count(CHANGED) == 1


async def test_a_wait_that_joins_reaches_the_cluster_that_has_moved_and_takes_those_along_that_run(
    sandbox: Sandbox, other: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sandbox.add_job(SERIES, status="STARTED")
    before = start(trigger())
    await until(lambda: sandbox.count("status") >= 3)
    job = other.add_job(SERIES)
    monkeypatch.setenv(ENV, connection(other))
    await asyncio.sleep(0.5)
    assert other.requests == []  # the old one still works, and it is no five minutes yet

    after = start(trigger())

    assert [(await each)["job"]["job_id"] for each in (before, after)] == [job.job_id] * 2
    assert caplog.text.count(CHANGED) == 1


async def test_a_wait_on_another_series_takes_them_along_as_well(
    sandbox: Sandbox, other: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_job(1, status="STARTED")
    before = start(trigger(1))
    await until(lambda: sandbox.count("status") >= 3)
    jobs = [other.add_job(series) for series in (1, 2)]
    monkeypatch.setenv(ENV, connection(other))

    after = start(trigger(2))

    assert [(await each)["job"]["job_id"] for each in (before, after)] == [job.job_id for job in jobs]


@pytest.mark.parametrize(
    "changed", [{"login": "sandbox-key"}, {"extra": {"requests_per_minute": 1000}}, {"extra": {"timeout_seconds": 7}}]
)
async def test_a_connection_in_use_is_read_again_by_and_by_although_all_is_well(
    sandbox: Sandbox, other: Sandbox, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    monkeypatch.setattr(timing, "_MOST_AGE", 0.5)
    sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger())
    await until(lambda: sandbox.count("status") >= 2)
    hook = shared_poll._loop_state().connections["capillary_default"]
    fields = changed if "extra" in changed else {"port": other.port}
    monkeypatch.setenv(ENV, connection(sandbox, **fields))
    version = hook.version

    await until(lambda: hook.version > version)
    asked = (other if "port" in fields else sandbox).count("status")
    await until(lambda: (other if "port" in fields else sandbox).count("status") > asked)

    await stop(wait)


async def test_a_header_that_is_added_reaches_the_polls_and_the_token_stays(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger())
    await until(lambda: sandbox.count("status") >= 2)
    extra = {"requests_per_minute": 1_000_000, "headers": {"X-Cap-Org": "100458"}}
    monkeypatch.setenv(ENV, connection(sandbox, extra=extra))

    joins = start(trigger(job_id=999_999))
    await until(lambda: sandbox.requests[-1].headers.get("x-cap-org") == "100458")

    assert sandbox.count("token") == 1
    await stop(wait, joins)


async def test_a_connection_that_was_corrected_counts_before_wrong_credentials_are_reported(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sandbox.add_job(SERIES)
    sandbox.inject(Fault("slow", endpoint="token", seconds=0.5))
    good = connection(sandbox)
    monkeypatch.setenv(ENV, good.replace("sandbox-secret", "expired-secret"))
    waits = [start(trigger()) for _ in range(3)]
    await until(lambda: sandbox.count("token") >= 1)

    monkeypatch.setenv(ENV, good)

    assert [(await wait)["status"] for wait in waits] == ["success"] * 3
    assert sandbox.count("token") == 2
    assert (await event_of(trigger()))["job"]["job_id"] == job.job_id


@pytest.mark.parametrize("ending", ["expired", "refused"])
async def test_a_ready_token_that_is_rotated_reaches_all_waits_and_the_watch_without_a_failed_poll(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    caplog.set_level(logging.INFO)
    jobs = [sandbox.add_job(series, status="STARTED") for series in (1, 2)]
    # Long enough for the first polls on a busy machine.
    sandbox.token_ttl_seconds = 4.0 if ending == "expired" else 300.0
    old = bearer_connection(sandbox, monkeypatch)
    waits = [start(trigger(series, max_consecutive_failures=1)) for series in (1, 1, 2)]
    watched = poll_series("capillary_default", REDEEM, 1, interval=0.1, log=logging.getLogger("test"))
    await anext(watched)
    await until(lambda: sandbox.count("status") >= 2)

    sandbox.token_ttl_seconds = 300.0
    if ending == "refused":
        sandbox.expire_tokens()
    new = bearer_connection(sandbox, monkeypatch)
    await until(lambda: sandbox.requests[-1].headers["Authorization"] == f"Bearer {new}")
    for job in jobs:
        sandbox.finish(job)

    assert [(await wait)["status"] for wait in waits] == ["success"] * 3
    assert len(await anext(watched)) == 1
    await watched.aclose()
    assert caplog.text.count(CHANGED) == 1
    assert "failed" not in caplog.text
    assert [token for token in (old, new) if token in caplog.text] == []
    if ending == "expired":
        assert_not_sent_after_its_end(old, sandbox)


async def test_an_expired_ready_token_that_nobody_rotates_ends_the_wait_before_anything_is_sent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, lookups: Lookups
) -> None:
    sandbox.token_ttl_seconds = -60.0
    token = bearer_connection(sandbox, monkeypatch)

    event = await event_of(trigger())

    assert (event["status"], event["error"]["error"]) == ("error", "CapillaryAuthError")
    assert "expired at " in event["message"]
    assert token not in json.dumps(event)
    assert sandbox.requests == []
    assert lookups.count >= 2  # at least once more than to begin with


async def test_a_time_zone_that_changes_dates_the_same_jobs_anew(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timing, "_MOST_AGE", 0.2)
    sandbox.add_job(SERIES)
    watched = poll_series("capillary_default", REDEEM, SERIES, interval=0.1, log=logging.getLogger("the watch"))

    async def zone() -> str:
        (job,) = (await anext(watched)).newest_first
        assert job.created_on is not None
        return str(job.created_on.timezone_name)

    assert await zone() == "+00:00"
    fields = sandbox.connection(requests_per_minute=1_000_000)
    extra = fields["extra"] if isinstance(fields["extra"], dict) else json.loads(fields["extra"])
    monkeypatch.setenv(ENV, json.dumps(fields | {"extra": extra | {"cluster_timezone": "Asia/Kolkata"}}))
    async with asyncio.timeout(20):
        while await zone() != "+05:30":
            pass

    assert CHANGED in caplog.text
    await watched.aclose()


async def test_a_request_under_way_ends_over_the_hook_that_it_began_with(
    sandbox: Sandbox, other: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_job(1)
    other.add_job(2)
    sandbox.inject(Fault("slow", endpoint="status", seconds=1.0))
    slow = start(trigger(1, poke_interval=0.05))
    await until(lambda: sandbox.count("status") >= 1)
    monkeypatch.setenv(ENV, connection(other))

    assert (await event_of(trigger(2)))["status"] == "success"
    assert not slow.done()

    assert (await slow)["status"] == "success"
    assert other.count("status") == 1  # the slow one was not asked for again


async def test_a_lookup_that_fails_is_a_transient_error(
    sandbox: Sandbox, lookups: Lookups, capfd: pytest.CaptureFixture[str]
) -> None:
    job = sandbox.add_job(SERIES)
    lookups.failing = 3

    event = await event_of(trigger(max_consecutive_failures=5))

    assert event["job"]["job_id"] == job.job_id
    assert lookups.failing == 0
    assert "hunter2" not in "".join(capfd.readouterr())


async def test_lookups_that_fail_use_the_budget_up(sandbox: Sandbox, lookups: Lookups) -> None:
    lookups.failing = 1000

    event = await event_of(trigger(max_consecutive_failures=3))

    assert event["status"] == "error"
    assert (event["error"]["error"], event["error"]["is_transient"]) == ("CapillaryTransportError", True)
    assert "'capillary_default' cannot be read" in event["message"]
    assert "unexpected" not in event["message"]
    assert "hunter2" not in json.dumps(event)
    assert sandbox.requests == []


async def test_a_lookup_that_fails_leaves_the_hook_that_works(
    sandbox: Sandbox, lookups: Lookups, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timing, "_MOST_AGE", 0.2)
    sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger(max_consecutive_failures=1))
    await until(lambda: sandbox.count("status") >= 2)
    lookups.failing, looked_up = 1000, lookups.count
    await until(lambda: lookups.count >= looked_up + 3)
    goes_on = "Polls go on with the Airflow connection 'capillary_default' as it was"
    assert caplog.text.count(goes_on) == 1
    monkeypatch.delenv(ENV)
    lookups.failing = 0
    await until(lambda: "is not defined" in caplog.text)  # another cause is logged, too
    sandbox.finish(sandbox.jobs(SERIES)[0])

    assert (await wait)["status"] == "success"
    assert caplog.text.count(goes_on) == 2


async def test_a_connection_that_is_deleted_leaves_the_hook_that_works(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Airflow 3.3 says "not defined" of every connection while its API server is away.
    sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger())
    await until(lambda: sandbox.count("status") >= 2)
    monkeypatch.delenv(ENV)
    joins = start(trigger(max_consecutive_failures=1))
    await until(lambda: "is not defined" in caplog.text)
    sandbox.finish(sandbox.jobs(SERIES)[0])

    assert [(await each)["status"] for each in (wait, joins)] == ["success"] * 2


async def test_a_lookup_that_never_ends_holds_polls_up_once(
    sandbox: Sandbox, lookups: Lookups, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_connection, "_LOOKUP_WITHIN_IN_USE", 0.1)
    monkeypatch.setattr(shared_connection, "_CLOSED_WITHIN", 0.1)
    sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger())
    await until(lambda: sandbox.count("status") >= 2)
    lookups.hangs, looked_up = asyncio.Event(), lookups.count
    joins = start(trigger(job_id=999_999))
    await until(lambda: "no answer within 0.1 seconds" in caplog.text)
    # A poll that waited for it once more would wait for ever.
    monkeypatch.setattr(shared_connection, "_LOOKUP_WITHIN_IN_USE", 3600.0)
    asked = sandbox.count("status")

    await until(lambda: sandbox.count("status") >= asked + 6)

    assert lookups.count == looked_up + 1
    await stop(wait, joins)


async def test_a_lookup_that_airflow_cancels_is_a_transient_error(
    sandbox: Sandbox, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sandbox.add_job(SERIES)
    cancelled: list[str] = []

    async def cancel_twice(conn_id: str) -> None:
        if len(cancelled) < 2:
            cancelled.append(conn_id)
            raise asyncio.CancelledError("Reader loop exited")

    before_awaited_lookups(monkeypatch, cancel_twice)

    assert (await event_of(trigger()))["job"]["job_id"] == job.job_id


async def test_what_goes_wrong_with_the_http_client_is_not_unexpected(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")  # whose package is not installed
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy")

    event = await event_of(trigger(max_consecutive_failures=1))

    assert event["status"] == "error"
    assert event["error"]["error"].startswith("Capillary")
    assert "unexpected" not in event["message"]


async def test_an_http_client_that_cannot_be_made_ends_in_an_error_that_names_the_connection(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*given: Any, **named: Any) -> None:
        raise ValueError("hunter2")

    monkeypatch.setattr(shared_connection.AsyncConnection, "open", refuse)

    event = await event_of(trigger(max_consecutive_failures=1))

    assert event["status"] == "error"
    expected = "Airflow connection 'capillary_default' cannot be used: no HTTP client can be made (ValueError)"
    assert event["message"].startswith(expected)


async def test_however_many_waits_join_there_are_no_more_lookups_than_the_rate_allows(
    sandbox: Sandbox, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long they take to join, there are no more than the burst.
    monkeypatch.setattr(timing, "_LOOKUP_GAP", 3600.0)
    for series in range(1, 11):
        sandbox.add_job(series, status="STARTED")
    waits = []
    for _ in range(20):
        waits += [start(trigger(series, timeout=600.0, end_time=time.time() + 600)) for series in range(1, 11)]
        asked = sandbox.count("status")
        await until(lambda asked=asked: sandbox.count("status") > asked)
    # Each of those polls would have read the connection.
    assert 1 <= lookups.count <= 1 + timing._LOOKUP_BURST
    await stop(*waits)


async def test_a_watch_names_the_connection_that_is_missing_and_goes_on_once_it_is_there(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timing, "_MOST_AGE", 1.0)
    sandbox.add_job(SERIES)
    monkeypatch.delenv(ENV)
    watched = poll_series("capillary_default", REDEEM, SERIES, interval=0.1, log=logging.getLogger("the watch"))
    first = asyncio.ensure_future(anext(watched))
    await until(lambda: "(5 in a row)" in caplog.text)  # the next poll is 3.2 s away
    monkeypatch.setenv(ENV, connection(sandbox))

    async with asyncio.timeout(2):
        assert len(await first) == 1

    assert "Airflow connection 'capillary_default' is not defined" in caplog.text
    await watched.aclose()


async def test_a_watch_that_waits_out_failures_is_back_at_once_when_the_connection_changed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.add_job(SERIES)
    sandbox.add_job(2)
    monkeypatch.setenv(ENV, connection(sandbox, port=free_ports(1)[0]))
    watched = poll_series("capillary_default", REDEEM, SERIES, interval=0.1, log=logging.getLogger("the watch"))
    first = asyncio.ensure_future(anext(watched))
    await until(lambda: "(5 in a row)" in caplog.text)  # the next poll is 3.2 s away
    monkeypatch.setenv(ENV, connection(sandbox))

    async with asyncio.timeout(2):
        assert (await event_of(trigger(2)))["status"] == "success"  # it joins, so the connection is read
        assert len(await first) == 1

    await watched.aclose()


def rotate(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotate the secret in the right order: first the Airflow connection, then Capillary refuses the old one."""
    sandbox.client_secret = f"{sandbox.client_secret}-renewed"
    monkeypatch.setenv(ENV, connection(sandbox))
    sandbox.expire_tokens()


def use_lookups_up(monkeypatch: pytest.MonkeyPatch, *, gap: float = 1.0) -> None:
    """Let each lookup come after a pause, as after a burst of them."""
    monkeypatch.setattr(timing, "_LOOKUP_BURST", 0)
    monkeypatch.setattr(timing, "_LOOKUP_GAP", gap)


@pytest.mark.parametrize("interval", [0.05, 2.0])
@pytest.mark.parametrize("is_budget_used_up", [False, True], ids=["lookups free", "lookups used up"])
async def test_a_rotated_secret_fails_no_wait_and_no_poll_of_a_watch_on_any_series(
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lookups: Lookups,
    interval: float,
    is_budget_used_up: bool,
) -> None:
    jobs = [sandbox.add_job(series, status="STARTED") for series in (1, 2, 3)]
    waits = [
        start(trigger(job.coupon_series_id, poke_interval=interval, max_consecutive_failures=1))
        for job in jobs
        for _ in range(2)
    ]
    watched = poll_series("capillary_default", REDEEM, 1, interval=interval, log=logging.getLogger("the watch"))
    await anext(watched)
    await until(lambda: sandbox.count("status") >= 6)
    if is_budget_used_up:
        use_lookups_up(monkeypatch)

    rotate(sandbox, monkeypatch)
    for job in jobs:
        sandbox.finish(job)

    assert [(await wait)["status"] for wait in waits] == ["success"] * 6
    while not (await anext(watched)).newest().is_done:
        pass
    await watched.aclose()
    assert "failed" not in caplog.text


async def test_a_rotated_secret_fails_no_wait_although_the_connection_is_read_slowly(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, lookups: Lookups
) -> None:
    monkeypatch.setattr(shared_connection, "_LOOKUP_WITHIN_IN_USE", 0.2)
    job = sandbox.add_job(SERIES, status="STARTED")
    waits = [start(trigger(max_consecutive_failures=1)) for _ in range(2)]
    await until(lambda: sandbox.count("status") >= 2)
    lookups.hangs = asyncio.Event()

    rotate(sandbox, monkeypatch)
    sandbox.finish(job)
    await until(lambda: sandbox.count("token") >= 2)
    await asyncio.sleep(0.7)
    assert not any(wait.done() for wait in waits)
    lookups.hangs.set()

    assert [(await wait)["status"] for wait in waits] == ["success"] * 2


async def test_a_lookup_that_began_before_the_secret_was_refused_does_not_count(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, lookups: Lookups
) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    read_too_early = asyncio.Event()
    wait = start(trigger(max_consecutive_failures=1))
    await until(lambda: sandbox.count("status") >= 2)
    answers = [connection(sandbox)]

    async def old_answer(conn_id: str) -> None:
        if answers:
            monkeypatch.setenv(ENV, answers.pop())
            await read_too_early.wait()

    before_awaited_lookups(monkeypatch, old_answer)
    monkeypatch.setattr(shared_connection, "_LOOKUP_WITHIN_IN_USE", 0.1)
    shared_poll._loop_state().connections["capillary_default"].times.want(time.monotonic())
    await until(lambda: not answers)
    asked = sandbox.count("token")
    sandbox.client_secret = "the-next-secret"
    sandbox.expire_tokens()
    await until(lambda: sandbox.count("token") > asked)
    sandbox.finish(job)
    read_too_early.set()
    await asyncio.sleep(0)
    monkeypatch.setenv(ENV, connection(sandbox))

    assert (await wait)["status"] == "success"


@pytest.mark.parametrize("gone", ["fails", "not defined"])
async def test_a_refused_secret_is_no_final_error_while_the_connection_cannot_be_read(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, lookups: Lookups, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger(max_consecutive_failures=1000))
    await until(lambda: sandbox.count("status") >= 2)
    if gone == "fails":
        lookups.failing = 2
        rotate(sandbox, monkeypatch)
    else:  # as while `airflow connections delete` and `add` run, or the API server is away
        rotate(sandbox, monkeypatch)
        monkeypatch.delenv(ENV)
        await until(lambda: "is not defined" in caplog.text)
        await asyncio.sleep(0.3)
        monkeypatch.setenv(ENV, connection(sandbox))
    sandbox.finish(job)

    assert (await wait)["status"] == "success"
    assert "hunter2" not in caplog.text


async def test_a_refused_secret_and_a_connection_that_stays_unreadable_end_in_an_error_with_both(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, lookups: Lookups
) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger(max_consecutive_failures=2))
    await until(lambda: sandbox.count("status") >= 2)
    lookups.failing = 1000
    rotate(sandbox, monkeypatch)

    event = await wait

    assert (event["status"], event["error"]["error"], event["error"]["is_transient"]) == (
        "error",
        "CapillaryAuthError",
        True,
    )
    assert "does not accept the client key and secret" in event["message"]
    assert "'capillary_default' cannot be read for the moment" in event["message"]
    assert "hunter2" not in json.dumps(event)


async def test_a_lookup_without_an_answer_delays_the_error_of_refused_credentials_for_a_limited_time(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, lookups: Lookups
) -> None:
    monkeypatch.setattr(shared_connection, "_LOOKUP_WITHIN", 0.5)
    monkeypatch.setattr(shared_connection, "_CLOSED_WITHIN", 0.1)
    sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger(max_consecutive_failures=1))
    await until(lambda: sandbox.count("status") >= 2)
    lookups.hangs = asyncio.Event()
    rotate(sandbox, monkeypatch)

    async with asyncio.timeout(10):
        event = await wait

    assert (event["status"], event["error"]["is_transient"]) == ("error", True)
    assert "no answer within 0.5 seconds" in event["message"]


async def test_a_secret_that_is_rotated_once_more_while_it_is_refused_fails_no_wait(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, lookups: Lookups
) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    wait = start(trigger(max_consecutive_failures=1))
    await until(lambda: sandbox.count("status") >= 2)
    between = connection(sandbox).replace("sandbox-secret", "secret-between")
    sandbox.client_secret = "newest-secret"
    steps = [between, connection(sandbox)]

    async def step(conn_id: str) -> None:
        if steps:
            monkeypatch.setenv(ENV, steps.pop(0))

    before_awaited_lookups(monkeypatch, step)
    sandbox.finish(job)
    sandbox.expire_tokens()

    assert (await wait)["status"] == "success"
    assert steps == []


@pytest.mark.parametrize(("status", "opened"), [(503, 1), (403, 2)], ids=["transient", "permanent"])
async def test_a_poll_that_fails_has_a_new_client_opened_only_where_the_error_is_permanent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, status: int, opened: int
) -> None:
    # For a permanent one, certificates on the disk may have been replaced.
    settings: list[object] = []
    open_one = shared_connection.AsyncConnection.open

    async def counted(given: Any, **named: Any) -> Any:
        settings.append(given)
        return await open_one(given, **named)

    monkeypatch.setattr(shared_connection.AsyncConnection, "open", counted)
    sandbox.inject(Fault("status", endpoint="status", status=status, times=None))

    event = await event_of(trigger(max_consecutive_failures=1))

    assert (event["status"], event["error"]["is_transient"]) == ("error", status == 503)
    assert len(settings) == opened


# --- one poll's part in a lookup --------------------------------------------------------------------------------------


@pytest.fixture
async def shared(lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SharedConnection]:
    """A connection that was not read yet, lent without a poll."""
    monkeypatch.setattr(shared_connection, "_LONGEST_PATIENCE", 3600.0)
    async with shared_poll.shared_connection("capillary_default") as lent:
        yield lent
        if lookups.hangs is not None:
            lookups.hangs.set()


async def test_a_poll_waits_for_its_lookup_and_the_next_one_needs_none(
    shared: SharedConnection, lookups: Lookups
) -> None:
    await shared.refresh()
    assert shared.is_open

    await shared.refresh(patiently=True)

    assert lookups.count == 1


async def test_a_poll_that_finds_a_lookup_under_way_has_another_one_begun_if_a_wait_has_joined_since(
    shared: SharedConnection, lookups: Lookups
) -> None:
    lookups.hangs = asyncio.Event()
    first = asyncio.create_task(shared.refresh())
    await until(lambda: lookups.count == 1)
    shared.times.want(time.monotonic())
    second = asyncio.create_task(shared.refresh())
    await asyncio.sleep(0)
    assert lookups.count == 1
    lookups.hangs.set()

    await asyncio.gather(first, second)

    assert lookups.count == 2


async def test_a_lookup_without_an_answer_ends_the_patience_of_a_poll_and_not_that_of_the_next_while_none_is_open(
    shared: SharedConnection, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up: list[str] = []
    failed = SharedConnection._failed
    monkeypatch.setattr(SharedConnection, "_failed", lambda *given: (given_up.append(str(given[1])), failed(*given)))
    monkeypatch.setattr(shared_connection, "_LOOKUP_WITHIN", 0.1)
    lookups.hangs = asyncio.Event()
    await shared.refresh()
    await shared.refresh()
    assert (
        given_up
        == ["Airflow connection 'capillary_default' cannot be read for the moment (no answer within 0.1 seconds)"] * 2
    )

    # It waits, as there is nothing to go on with, and so it gets the answer.
    monkeypatch.setattr(shared_connection, "_LOOKUP_WITHIN", 3600.0)
    poll = asyncio.create_task(shared.refresh())
    await asyncio.sleep(0)
    assert lookups.count == 1
    lookups.hangs.set()
    await poll

    assert shared.is_open


async def test_only_a_patient_poll_waits_until_the_rate_allows_a_lookup(
    shared: SharedConnection, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_lookups_up(monkeypatch, gap=3600.0)
    await shared.refresh()
    shared.times.want(time.monotonic())

    await shared.refresh()
    assert lookups.count == 1

    monkeypatch.setattr(shared_connection, "_LONGEST_PATIENCE", 0.01)
    await shared.refresh(patiently=True)  # and not for longer than this
    assert lookups.count == 1

    use_lookups_up(monkeypatch, gap=0.1)
    shared.times = LookupTimes()
    monkeypatch.setattr(shared_connection, "_LONGEST_PATIENCE", 3600.0)
    await shared.refresh()
    shared.times.want(time.monotonic())
    await shared.refresh(patiently=True)
    assert lookups.count == 3
