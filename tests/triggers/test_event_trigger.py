# SPDX-License-Identifier: Apache-2.0
"""The watch that DAGs are scheduled by, run as the triggerer does: by Airflow's own manager of shared streams."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._polling import series_watch, shared_poll
from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.sandbox import Fault
from airflow_provider_capillary.triggers import capillary as triggers
from airflow_provider_capillary.triggers.capillary import (
    CapillaryCouponUploadEventTrigger,
    CapillaryRedeemUploadEventTrigger,
)
from tests.airflow_compat import (
    HAS_SHARED_STREAMS,
    Asset,
    needs_asset_state_store,
    needs_asset_watchers,
    needs_shared_streams,
)

if HAS_SHARED_STREAMS:
    from airflow.triggers.shared_stream import SharedStreamManager
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.triggers.base import TriggerEvent

    from airflow_provider_capillary.sandbox import Sandbox

    EventTrigger = CapillaryRedeemUploadEventTrigger | CapillaryCouponUploadEventTrigger

SERIES = 535512
#: Kind of upload -> number of refused rows of its job.
COUNTS = {"redeem": 1, "coupon": 2}
BOTH_KINDS = pytest.mark.parametrize("kind", ["redeem", "coupon"])

pytestmark = [
    pytest.mark.usefixtures("capillary_connection", "quick_retries", "quick_pauses"),
    needs_asset_watchers,
]


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "_EVENT_PASSED_ON_SECONDS", 0.05)
    monkeypatch.setattr(triggers, "_RESTART_PAUSE", 0.05)
    monkeypatch.setattr(series_watch, "_READ_PAUSE", 0.05)


class AssetState:
    """What the state store of an asset does, for one that lives as long as the test: it keeps JSON."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self.fails: Exception | None = None
        self.failed = 0
        self.writes = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        self._fail()
        return json.loads(self.stored[key]) if key in self.stored else default

    async def aset(self, key: str, value: Any) -> None:
        self._fail()
        self.writes += 1
        self.stored[key] = json.dumps(value)

    def _fail(self) -> None:
        if self.fails is not None:
            self.failed += 1
            raise self.fails

    @property
    def cursor(self) -> Any:
        (value,) = map(json.loads, self.stored.values())
        return value


class Triggerer:
    """Runs watchers as the triggerer does, with the storing of events done by hand.

    :param stores: Whether events are stored as soon as they are fired.
    :param ack_timeout: Seconds after which Airflow gives up on a watcher whose event is not stored.
    """

    def __init__(self, *, stores: bool, ack_timeout: float) -> None:
        self.stores = stores
        self.manager = SharedStreamManager(ack_timeout=ack_timeout) if HAS_SHARED_STREAMS else None
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.events: list[dict[str, Any]] = []
        self.by_trigger: dict[int, list[dict[str, Any]]] = {}
        self.unstored: list[int] = []

    def start(self, trigger_id: int, trigger: EventTrigger, state: AssetState | None) -> None:
        path, arguments = trigger.serialize()
        assert path == f"airflow_provider_capillary.triggers.capillary.{type(trigger).__name__}"
        inflated = type(trigger)(**json.loads(json.dumps(arguments)))
        inflated.asset_state_store = state  # type: ignore[assignment]
        self.tasks[trigger_id] = asyncio.create_task(self._run(trigger_id, inflated))

    async def _run(self, trigger_id: int, trigger: EventTrigger) -> None:
        if self.manager is None:
            try:
                async for event in trigger.run():
                    self._fired(trigger_id, event)
            finally:
                await trigger.cleanup()
            return
        key = trigger.shared_stream_key()
        stream = self.manager.subscribe(trigger_id=trigger_id, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                self._fired(trigger_id, event, key)
        finally:
            await self.manager.unsubscribe(trigger_id, key)
            await trigger.cleanup()

    def _fired(self, trigger_id: int, event: TriggerEvent, key: Any = None) -> None:
        payload = json.loads(json.dumps(event.payload))
        self.events.append(payload)
        self.by_trigger.setdefault(trigger_id, []).append(payload)
        if self.manager is None:
            return
        number = self.manager.bind_pending_event(trigger_id=trigger_id, key=key)
        if number is not None:
            self.unstored.append(number)
        if self.stores:
            self.store()

    def store(self) -> None:
        stored, self.unstored = self.unstored, []
        self.manager.confirm_persisted(stored)

    @property
    def reported(self) -> list[int]:
        return [job["job_id"] for event in self.events for job in event["jobs"]]

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        for task in self.tasks.values():
            with suppress(asyncio.CancelledError):
                await task
        if self.manager is not None:
            await self.manager.stop_all()


@asynccontextmanager
async def triggerer(
    *states: AssetState | None, stores: bool = True, ack_timeout: float = 300.0, kind: str = "redeem", **given: Any
) -> AsyncIterator[Triggerer]:
    """Run one watcher for each state store; at the end nothing of them may be left."""
    before = asyncio.all_tasks()
    running = Triggerer(stores=stores, ack_timeout=ack_timeout)
    for number, state in enumerate(states):
        running.start(number, watcher(kind, **given), state)
    try:
        yield running
        assert not [task for task in running.tasks.values() if task.done()], "a watcher came to an end"
    finally:
        await running.stop()
    state = shared_poll._loop_states.get(asyncio.get_running_loop())
    assert asyncio.all_tasks() <= before
    assert state is None or (state.connections, state.polls) == ({}, {})
    gc.collect()  # an open transport would warn of itself


def watcher(kind: str = "redeem", **given: Any) -> EventTrigger:
    arguments = {"coupon_series_id": SERIES, "poll_interval": 0.05}
    trigger_class = CapillaryRedeemUploadEventTrigger if kind == "redeem" else CapillaryCouponUploadEventTrigger
    return trigger_class(**{**arguments, **given})


async def some_polls(sandbox: Sandbox, number: int = 3) -> None:
    asked = sandbox.count("status")
    await until(lambda: sandbox.count("status") >= asked + number)


@BOTH_KINDS
async def test_it_fires_when_jobs_newer_than_its_cursor_are_done(sandbox: Sandbox, kind: str) -> None:
    sandbox.add_job(SERIES, kind=kind)
    async with triggerer(AssetState(), kind=kind) as running:
        await some_polls(sandbox)
        assert running.events == []

        sandbox.add_job(SERIES, kind="coupon" if kind == "redeem" else "redeem")  # of the other kind: no event
        job = sandbox.add_job(SERIES, rows=5, errors=2, status="STARTED", kind=kind)
        await some_polls(sandbox)
        assert running.events == []
        sandbox.finish(job)
        await until(lambda: running.events)
        await some_polls(sandbox)

    (event,) = running.events
    assert (event["capillary_conn_id"], event["coupon_series_id"], event["possible_duplicates"]) == (
        "capillary_default",
        SERIES,
        True,
    )
    assert event["upload_kind"] == kind
    assert [(reported["job_id"], reported["error_count"]) for reported in event["jobs"]] == [(job.job_id, 2)]


async def test_one_event_a_poll_carries_all_jobs_that_are_done(sandbox: Sandbox) -> None:
    async with triggerer(AssetState()) as running:
        await some_polls(sandbox)
        jobs = [sandbox.add_job(SERIES, status="STARTED") for _ in range(5)]
        await some_polls(sandbox)
        sandbox.inject(Fault("slow", endpoint="status", seconds=0.3))  # all five end while one poll is under way
        await some_polls(sandbox, 1)
        for job in jobs:
            sandbox.finish(job, "ERRORED" if job is jobs[0] else "COMPLETED")
        await until(lambda: len(running.reported) == 5)

    assert running.reported == [job.job_id for job in jobs]
    assert len(running.events) <= 2  # the slow poll may have been answered before or in between
    assert [event["possible_duplicates"] for event in running.events] == [True, False][: len(running.events)]


async def test_include_existing_reports_what_finished_before(sandbox: Sandbox) -> None:
    jobs = [sandbox.add_job(SERIES) for _ in range(3)]
    async with triggerer(AssetState(), include_existing=True) as running:
        await until(lambda: running.events)
        await some_polls(sandbox)

    assert running.reported == [job.job_id for job in jobs]


async def test_jobs_that_the_first_answer_left_out_are_not_reported_as_new(sandbox: Sandbox) -> None:
    for _ in range(50):
        sandbox.add_job(SERIES)
    nothing = {"success": True, "result": {"orgId": 1, "couponSeriesId": SERIES, "redeemUploadJobStatuses": []}}
    sandbox.inject(Fault("body", endpoint="status", status=200, body=nothing, times=1))
    async with triggerer(AssetState()) as running:
        await some_polls(sandbox, 4)
        job = sandbox.add_job(SERIES)
        await until(lambda: running.events)

    assert running.reported == [job.job_id]


@BOTH_KINDS
async def test_a_restart_neither_loses_nor_repeats_a_job(sandbox: Sandbox, kind: str) -> None:
    state = AssetState()
    async with triggerer(state, kind=kind) as first:
        await some_polls(sandbox)
        before = sandbox.add_job(SERIES, kind=kind)
        await until(lambda: first.events and state.cursor["after_job_id"] == before.job_id)
        running = sandbox.add_job(SERIES, status="STARTED", kind=kind)
        await until(lambda: state.cursor["pending_job_ids"] == [running.job_id])
    between = sandbox.add_job(SERIES, kind=kind)
    sandbox.finish(running)

    async with triggerer(state, kind=kind) as second:
        await until(lambda: second.events)
        after = sandbox.add_job(SERIES, kind=kind)
        await until(lambda: len(second.reported) >= 3)
        await some_polls(sandbox)

    assert first.reported == [before.job_id]
    assert second.reported == [running.job_id, between.job_id, after.job_id]
    # A cursor that an earlier version stored for redeem uploads must be found under this key.
    assert list(state.stored) == [f"capillary_{kind}_uploads"]


@needs_shared_streams
async def test_the_cursor_stays_until_airflow_has_stored_the_event(sandbox: Sandbox) -> None:
    state = AssetState()
    async with triggerer(state, stores=False) as first:
        await until(lambda: state.stored)
        job = sandbox.add_job(SERIES)
        await until(lambda: first.events)
        await some_polls(sandbox)
        assert state.cursor["after_job_id"] == 0
    # The triggerer died before the event was in the database.

    async with triggerer(state, stores=False) as second:
        await until(lambda: second.events)
        second.store()
        await until(lambda: state.cursor["after_job_id"] == job.job_id)

    assert first.reported == second.reported == [job.job_id]
    assert second.events[0]["possible_duplicates"] is True  # which it does


def test_watchers_of_two_kinds_share_no_stream() -> None:
    redeem, coupon = watcher("redeem"), watcher("coupon")
    assert redeem.shared_stream_key() == watcher("redeem").shared_stream_key()
    assert redeem.shared_stream_key() != coupon.shared_stream_key()


async def test_watchers_of_both_kinds_of_one_series_report_their_own_jobs(sandbox: Sandbox) -> None:
    async with triggerer() as running:
        for number, kind in enumerate(["redeem", "coupon"]):
            running.start(number, watcher(kind), AssetState())
        await some_polls(sandbox, 6)
        jobs = {kind: sandbox.add_job(SERIES, errors=errors, kind=kind) for kind, errors in COUNTS.items()}
        await until(lambda: len(running.events) == 2)

    assert {event["upload_kind"]: event["jobs"][0]["error_count"] for event in running.events} == COUNTS
    assert {event["upload_kind"]: event["jobs"][0]["job_id"] for event in running.events} == {
        kind: job.job_id for kind, job in jobs.items()
    }


async def test_watchers_of_one_series_share_one_poll_and_each_reports_to_its_own_asset(sandbox: Sandbox) -> None:
    states = [AssetState() for _ in range(5)]
    async with triggerer(*states, poll_interval=0.5) as running:
        await until(lambda: all(state.stored for state in states))
        asked = sandbox.count("status")
        job = sandbox.add_job(SERIES)
        await until(lambda: len(running.events) == 5)
        assert sandbox.count("status") - asked <= 3

    assert {
        number: [reported["job_id"] for reported in events[0]["jobs"]] for number, events in running.by_trigger.items()
    } == {number: [job.job_id] for number in range(5)}
    assert sandbox.count("token") == 1


@needs_shared_streams  # elsewhere the watch logs as a trigger does, and not by the standard library
async def test_faults_are_waited_out_less_and_less_often_and_logged(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    async with triggerer(AssetState()) as running:
        await some_polls(sandbox)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=8))  # four polls of two attempts
        job = sandbox.add_job(SERIES)
        await until(lambda: running.events)

    assert running.reported == [job.job_id]
    reported = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert [line.partition(", the next")[0] for line in reported[:4]] == [
        f"Poll of the redeem uploads of coupon series {SERIES} failed ({number} in a row)" for number in (1, 2, 3, 4)
    ]
    assert [line.partition("within ")[2].partition(" s:")[0] for line in reported[:4]] == ["0.1", "0.2", "0.4", "0.8"]
    assert "Polls of the redeem uploads of coupon series 535512 succeed again" in caplog.text


async def test_wrong_credentials_do_not_end_the_watch(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    good = sandbox.connection_json(requests_per_minute=1_000_000)
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", good.replace("sandbox-secret", "expired-secret"))
    async with triggerer(AssetState(), include_existing=True) as running:
        await until(lambda: sandbox.count("token") >= 2)
        monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", good)
        job = sandbox.add_job(SERIES)
        await until(lambda: running.events)

    assert running.reported == [job.job_id]


@pytest.mark.parametrize("state", [None, object()], ids=["none", "without methods to await"])
async def test_without_a_usable_state_store_it_works_with_a_cursor_in_memory_and_warns_once(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], state: Any
) -> None:
    sandbox.add_job(SERIES)
    async with triggerer(state) as running:
        await some_polls(sandbox)
        jobs = []
        for _ in range(3):
            jobs.append(sandbox.add_job(SERIES))
            await until(lambda: len(running.reported) == len(jobs))

    assert running.reported == [job.job_id for job in jobs]
    assert [event["possible_duplicates"] for event in running.events] == [True, False, False]
    logged = capsys.readouterr().out
    warning = "finish while no triggerer runs will not be reported: this Airflow keeps no state"
    assert logged.count(f"Redeem upload jobs of coupon series {SERIES} that {warning}") == logged.count(warning) == 1


@needs_asset_state_store
async def test_two_assets_that_share_a_trigger_get_a_warning_with_the_remedy_and_the_watch_goes_on(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    shared: Any = AssetStateStoreAccessors(inlets=[Asset("one"), Asset("two")])
    async with triggerer(shared) as running:
        await some_polls(sandbox)
        job = sandbox.add_job(SERIES)
        await until(lambda: running.events)

    assert running.reported == [job.job_id]
    assert "several assets share this trigger" in capsys.readouterr().out


async def test_a_state_store_that_fails_is_tried_again_and_the_watch_keeps_its_position(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    state = AssetState()
    state.stored = {"capillary_redeem_uploads": json.dumps({"after_job_id": 0, "pending_job_ids": []})}
    state.fails = RuntimeError("no API server")
    job = sandbox.add_job(SERIES)
    async with triggerer(state) as running:
        await until(lambda: state.failed >= 2)
        assert running.events == []
        state.fails = None
        await until(lambda: running.events)  # and not: taken for done before the watch began
        await until(lambda: state.cursor["after_job_id"] == job.job_id)
        state.fails, state.failed = RuntimeError("no API server"), 0
        later = sandbox.add_job(SERIES)
        await until(lambda: state.failed >= 2)  # it was read again before the event, and stored after it
        state.fails = None
        await until(lambda: state.cursor["after_job_id"] == later.job_id)

    assert running.reported == [job.job_id, later.job_id]
    assert running.events[1]["possible_duplicates"] is True  # another triggerer may have reported it
    logged = capsys.readouterr().out
    assert "The cursor cannot be read (RuntimeError), trying again" in logged
    assert "The cursor cannot be read again (RuntimeError), going on" in logged
    assert "The cursor cannot be stored (RuntimeError), trying again" in logged


async def test_a_cursor_that_did_not_change_is_not_stored_again(sandbox: Sandbox) -> None:
    state = AssetState()
    async with triggerer(state):
        await some_polls(sandbox)
        job = sandbox.add_job(SERIES)
        await until(lambda: state.stored and state.cursor["after_job_id"] == job.job_id)
        writes = state.writes
        await some_polls(sandbox, 5)

    assert state.writes == writes


async def test_a_watch_that_begins_logs_its_series_and_its_position(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    newest = sandbox.add_job(SERIES)
    async with triggerer(AssetState()):
        await some_polls(sandbox)

    position = f"after job {newest.job_id}, 1 of the jobs up to there still running"
    logged = capsys.readouterr().out
    assert logged.count(f"Watching the redeem uploads of coupon series {SERIES} {position}") == 1
    assert "beginning without it" not in logged  # nothing was stored yet, which is no error


async def test_a_state_store_that_never_answers_does_not_hold_up_a_triggerer_that_stops(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_watch, "_STORE_TIMEOUT", 0.2)
    state = AssetState()
    asked = asyncio.Event()

    async def never(key: str, value: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(state, "aset", never)
    async with asyncio.timeout(20) as limit:
        async with triggerer(state, include_existing=True) as running:
            job = sandbox.add_job(SERIES)
            await until(lambda: running.events)
            await asked.wait()

    assert not limit.expired()
    assert running.reported == [job.job_id]


async def test_a_cursor_of_another_form_is_logged_and_the_watch_starts_from_the_beginning(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    state = AssetState()
    state.stored = {"capillary_redeem_uploads": '{"offset": 7}'}
    sandbox.add_job(SERIES)
    async with triggerer(state) as running:
        await some_polls(sandbox)
        job = sandbox.add_job(SERIES)
        await until(lambda: running.events)

    assert running.reported == [job.job_id]
    assert "the stored cursor is not one of this version" in capsys.readouterr().out


@needs_shared_streams
async def test_a_shared_stream_that_breaks_off_is_gone_on_with_alone_from_what_was_stored(sandbox: Sandbox) -> None:
    state = AssetState()
    async with triggerer(state, stores=False, ack_timeout=2.0) as running:
        await until(lambda: state.stored)
        job = sandbox.add_job(SERIES)
        await until(lambda: running.events)
        # Airflow does not say in time that the event is stored, and gives up on the watcher.
        await until(lambda: len(running.events) == 2)
        await until(lambda: state.cursor["after_job_id"] == job.job_id)

    assert running.reported == [job.job_id, job.job_id]
    assert running.events[1]["possible_duplicates"] is True


async def test_run_alone_does_the_same(sandbox: Sandbox) -> None:
    state = AssetState()
    alone = watcher()
    alone.asset_state_store = state  # type: ignore[assignment]
    events: list[Any] = []

    async def run() -> None:
        async for event in alone.run():
            events.append(event.payload)

    task = asyncio.create_task(run())
    await until(lambda: state.stored)
    jobs = []
    for _ in range(2):
        jobs.append(sandbox.add_job(SERIES).job_id)
        await until(lambda: state.cursor["after_job_id"] == jobs[-1])
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await alone.cleanup()

    assert [[job["job_id"] for job in event["jobs"]] for event in events] == [[each] for each in jobs]


async def test_no_secret_and_no_row_is_in_an_event_or_the_log(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with triggerer(AssetState(), include_existing=True) as running:
        sandbox.inject(Fault("expired_token", endpoint="status"))
        sandbox.inject(Fault("status", endpoint="status", status=503, times=2))
        sandbox.add_job(SERIES, errors=2, error_file=b"message,code\nunknown,SAVE-9876543210\n")
        await until(lambda: running.events)

    assert len(sandbox.tokens_issued) == 2
    shown = json.dumps(running.events) + "".join(capfd.readouterr()) + caplog.text
    assert "failed (1 in a row)" in shown
    for secret in ("sandbox-secret", "sandbox-key", "SAVE-9876543210", *sandbox.tokens_issued):
        assert secret not in shown


@pytest.mark.parametrize("given", [{"coupon_series_id": "x"}, {"coupon_series_id": 0}, {"coupon_series_id": None}])
def test_a_series_that_is_none_is_refused_when_the_dag_is_parsed(given: dict[str, Any]) -> None:
    with pytest.raises(CapillaryConfigurationError, match="coupon_series_id must be a positive whole number"):
        watcher(**given)


@pytest.mark.parametrize("interval", [0, -1, True, None, "soon", float("inf"), float("nan")])
def test_an_interval_that_cannot_be_meant_is_refused_when_the_dag_is_parsed(interval: Any) -> None:
    with pytest.raises(CapillaryConfigurationError, match="poll_interval must be a number of seconds above 0"):
        watcher(poll_interval=interval)


def test_one_meaning_has_one_form_for_all_types() -> None:
    # Airflow distinguishes triggers by their arguments: 535512 and "535512" would become two.
    assert watcher(coupon_series_id="535512", poll_interval=60).serialize() == watcher(poll_interval=60.0).serialize()
    assert watcher(poll_interval="60", include_existing="false").serialize() == watcher(poll_interval=60.0).serialize()
