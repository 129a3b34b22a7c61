# SPDX-License-Identifier: Apache-2.0
"""A triggerer that freezes and goes on after another one has taken over its watchers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._polling import series_watch
from airflow_provider_capillary.api import timing
from airflow_provider_capillary.triggers import capillary as triggers
from tests.airflow_compat import needs_asset_watchers, needs_shared_streams
from tests.child import ChildProcess
from tests.triggers.test_event_trigger import AssetState, Triggerer, some_polls, triggerer, watcher
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import Sandbox

SERIES = 535512

pytestmark = [pytest.mark.usefixtures("capillary_connection", "quick_retries"), needs_asset_watchers]


class FileState(AssetState):
    """The state store of an asset in a file, for watchers in several processes."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    async def aget(self, key: str, default: Any = None) -> Any:
        self._read()
        return await super().aget(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self._read()
        await super().aset(key, value)
        replaced = self.path.with_suffix(f".{os.getpid()}")
        replaced.write_text(json.dumps(self.stored))
        replaced.replace(self.path)

    def _read(self) -> None:
        self.stored = json.loads(self.path.read_text()) if self.path.exists() else {}


def run_triggerer(folder: str, name: str, state_file: str | None, stores: bool, is_shared: bool) -> bool:
    """Run one watcher in this process until a file says so, and write its events to another one."""
    timing._FREEZE_SECONDS = 1.0
    series_watch._FREEZE_CHECK_SECONDS = 0.2
    triggers._EVENT_PASSED_ON_SECONDS = triggers._RESTART_PAUSE = 0.05

    async def run() -> None:
        running = Triggerer(stores=stores, ack_timeout=300.0)
        if not is_shared:
            running.manager = None
        running.start(1, watcher(), None if state_file is None else FileState(state_file))
        written = 0
        while not Path(folder, "stop").exists():
            await asyncio.sleep(0.05)
            for event in running.events[written:]:
                written += 1
                with Path(folder, name).open("a") as file:
                    file.write(json.dumps(event) + "\n")
        await running.stop()

    asyncio.run(run())
    return True


class Frozen:
    """Two triggerers in processes of their own, which share the state store of an asset."""

    def __init__(self, folder: Path, *, has_state: bool, stores: bool, is_shared: bool) -> None:
        self.folder = folder
        self._given = {"state_file": str(folder / "state") if has_state else None, "is_shared": is_shared}
        self._stores = stores
        self._children: dict[str, ChildProcess] = {}

    def start(self, name: str, *, stores: bool = True) -> ChildProcess:
        child = ChildProcess(run_triggerer, folder=str(self.folder), name=name, stores=stores, **self._given)
        self._children[name] = child
        return child

    def events(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def jobs(self, name: str) -> list[int]:
        return [job["job_id"] for event in self.events(name) for job in event["jobs"]]

    @property
    def pending(self) -> list[int]:
        """The jobs that are pending by the stored cursor."""
        (cursor,) = map(json.loads, json.loads((self.folder / "state").read_text()).values())
        return list(cursor["pending_job_ids"])

    def stop(self) -> None:
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.thaw()  # a test may have failed while it was frozen
        (self.folder / "stop").touch()
        for child in self._children.values():
            with child:
                assert child.result(seconds=30.0) is True

    def assert_none_repeated_without_the_flag(self) -> None:
        times: dict[int, list[bool]] = {}
        for name in self._children:
            for event in self.events(name):
                for job in event["jobs"]:
                    times.setdefault(job["job_id"], []).append(event["possible_duplicates"])
        assert {job_id: flags for job_id, flags in times.items() if flags.count(False) > 1} == {}


@contextmanager
def two_triggerers(folder: Path, **given: Any) -> Iterator[Frozen]:
    running = Frozen(folder, **given)
    try:
        yield running
    finally:
        running.stop()


PATHS = pytest.mark.parametrize(
    "is_shared", [False, pytest.param(True, marks=needs_shared_streams)], ids=["run", "shared stream"]
)


@PATHS
async def test_a_triggerer_that_goes_on_after_a_freeze_reports_nothing_that_another_one_has_reported(
    sandbox: Sandbox, tmp_path: Path, is_shared: bool
) -> None:
    first, second, third, fourth = (sandbox.add_job(SERIES, status="STARTED") for _ in range(4))
    with two_triggerers(tmp_path, has_state=True, stores=True, is_shared=is_shared) as both:
        frozen = both.start("frozen")
        await until(lambda: sandbox.count("status") >= 3)
        sandbox.finish(first)
        await until(lambda: both.jobs("frozen") == [first.job_id])
        await some_polls(sandbox, 4)
        frozen.freeze()
        began = time.monotonic()
        both.start("takes over")
        for job in (second, third):
            sandbox.finish(job)
            await until(lambda job=job: job.job_id in both.jobs("takes over"))  # type: ignore[misc] # bound here
        await until(lambda: both.pending == [fourth.job_id])
        await asyncio.sleep(max(0.0, began + 2.0 - time.monotonic()))
        frozen.thaw()
        await asyncio.sleep(1.0)
        assert both.jobs("frozen") == [first.job_id]
        sandbox.finish(fourth)
        # Both watch it until Airflow ends the one that was frozen.
        await until(lambda: fourth.job_id in both.jobs("takes over") + both.jobs("frozen"))
        await asyncio.sleep(0.5)

    assert both.jobs("takes over")[:2] == [second.job_id, third.job_id]
    assert {*both.jobs("frozen")} <= {first.job_id, fourth.job_id}
    both.assert_none_repeated_without_the_flag()


@pytest.mark.parametrize("has_state", [True, False], ids=["cursor not stored yet", "no state store"])
@PATHS
async def test_what_is_reported_twice_after_a_freeze_has_the_flag(
    sandbox: Sandbox, tmp_path: Path, has_state: bool, is_shared: bool
) -> None:
    if has_state and not is_shared:
        pytest.skip("run() stores its cursor by itself")
    first, second, third = (sandbox.add_job(SERIES, status="STARTED") for _ in range(3))
    with two_triggerers(tmp_path, has_state=has_state, stores=True, is_shared=is_shared) as both:
        frozen = both.start("frozen")
        await until(lambda: sandbox.count("status") >= 3)
        sandbox.finish(first)
        await until(lambda: both.jobs("frozen") == [first.job_id])
        await some_polls(sandbox, 4)
        frozen.freeze()
        began = time.monotonic()
        both.start("takes over", stores=False)
        for job in (second, third):
            await some_polls(sandbox, 2)
            sandbox.finish(job)
            await until(lambda job=job: job.job_id in both.jobs("takes over"))  # type: ignore[misc] # bound here
        await asyncio.sleep(max(0.0, began + 2.0 - time.monotonic()))
        frozen.thaw()
        await until(lambda: third.job_id in both.jobs("frozen"))

    assert [event["possible_duplicates"] for event in both.events("takes over")] == [True, False]
    (event,) = both.events("frozen")[1:]
    assert event["possible_duplicates"] is True
    assert [job["job_id"] for job in event["jobs"]] == [second.job_id, third.job_id]
    both.assert_none_repeated_without_the_flag()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "_EVENT_PASSED_ON_SECONDS", 0.05)
    monkeypatch.setattr(timing, "_FREEZE_SECONDS", 0.6)


@pytest.mark.usefixtures("quick")
async def test_a_supervisor_that_was_frozen_alone_is_noticed_by_its_late_answer(sandbox: Sandbox) -> None:
    state = AssetState()
    async with triggerer(state) as running:
        await until(lambda: state.stored)
        first = sandbox.add_job(SERIES)
        await until(lambda: state.stored and state.cursor["after_job_id"] == first.job_id)
        answers = asyncio.Event()
        read = state.aget

        async def late(key: str, default: Any = None) -> Any:
            await answers.wait()
            return await read(key, default)

        state.aget = late  # type: ignore[method-assign]
        second = sandbox.add_job(SERIES)
        await asyncio.sleep(1.0)
        assert running.reported == [first.job_id]  # the answer decides whether another one has reported it
        answers.set()
        await until(lambda: len(running.events) == 2)

    assert running.reported == [first.job_id, second.job_id]
    assert running.events[1]["possible_duplicates"] is True


@pytest.mark.usefixtures("quick")
async def test_jobs_that_another_triggerer_reported_and_stored_are_left_out(sandbox: Sandbox) -> None:
    state = AssetState()
    async with triggerer(state) as running:
        await until(lambda: state.stored)
        first = sandbox.add_job(SERIES)
        await until(lambda: state.stored and state.cursor["after_job_id"] == first.job_id)
        running_job = sandbox.add_job(SERIES, status="STARTED")
        await until(lambda: state.cursor["pending_job_ids"] == [running_job.job_id])
        await some_polls(sandbox)
        (key,) = state.stored
        state.stored[key] = json.dumps({"after_job_id": running_job.job_id, "pending_job_ids": []})

        sandbox.finish(running_job)
        await some_polls(sandbox, 4)
        assert running.reported == [first.job_id]
        later = sandbox.add_job(SERIES)
        await until(lambda: len(running.events) == 2)

    assert running.reported == [first.job_id, later.job_id]
    assert running.events[1]["possible_duplicates"] is True


@pytest.mark.usefixtures("quick")
async def test_polls_that_fail_or_are_far_apart_are_no_freeze(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series_watch, "_FREEZE_CHECK_SECONDS", 0.05)
    monkeypatch.setattr(timing, "_FREEZE_SECONDS", 1.2)
    state = AssetState()
    async with triggerer(state, poll_interval=1.5) as running:
        await until(lambda: state.stored)
        first = sandbox.add_job(SERIES)
        await until(lambda: state.stored and state.cursor["after_job_id"] == first.job_id)
        await some_polls(sandbox, 1)
        second = sandbox.add_job(SERIES)
        await until(lambda: second.job_id in running.reported)

    assert "frozen" not in capsys.readouterr().out
    assert running.events[-1]["possible_duplicates"] is False


async def test_a_watcher_that_was_left_checks_for_freezes_no_more(sandbox: Sandbox) -> None:
    async with triggerer(AssetState()):
        await some_polls(sandbox)

    loop: Any = asyncio.get_running_loop()
    assert [each for each in loop._scheduled if not each.cancelled() and "_check_regularly" in repr(each)] == []
