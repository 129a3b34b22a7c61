# SPDX-License-Identifier: Apache-2.0
"""What version 0.1.0 left in Airflow's database goes on in this version.

The samples were recorded by that version's own sensor, triggers and watcher: arguments of triggers, events, and the
cursor of a watcher.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.assets import capillary as assets
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.triggers import capillary as triggers
from airflow_provider_capillary.triggers.capillary import (
    CapillaryRedeemUploadEventTrigger,
    CapillaryRedeemUploadTrigger,
)
from tests.airflow_compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    needs_asset_state_store,
    needs_asset_watchers,
    needs_shared_streams,
)
from tests.running import TaskInstance
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_capillary.sandbox import Sandbox

SAMPLES = Path(__file__).parent / "samples" / "0.1.0"
SERIES = 535512
#: Sample -> the end of the task.
ENDS = {
    "event-job-failed": (AirflowFailException, "upload job 4456 ended as ERRORED"),
    "event-too-many-errors": (AirflowFailException, "more than max_error_count=3"),
    "event-timeout": (AirflowSensorTimeout, "last seen: job 4457 was STARTED"),
    "event-error-settings": (CapillaryConfigurationError, "job_id must be a positive whole number"),
    "event-error-outage": (Exception, "HTTP 503"),
    "event-error-missing-connection": (Exception, "AirflowNotFoundException"),
}

pytestmark = pytest.mark.usefixtures("capillary_connection", "quick_retries")


def sample(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return value


def stored_arguments(name: str) -> dict[str, Any]:
    """Return what 0.1.0 stored of a wait, with a deadline, an interval and a backoff that a test can sit out."""
    arguments: dict[str, Any] = {**sample(name)["kwargs"], "poke_interval": 0.05}
    if arguments.get("exponential_backoff"):
        arguments["max_wait"] = 0.05
    return {**arguments, "deadline": time.time() + 20} if arguments.get("deadline") else arguments


def end_task(name: str) -> Any:
    sensor = CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=SERIES, job_id=4455, deferrable=True)
    method = sample("deferral-by-id")["next_method"]
    return sensor.resume_execution(method, {"event": sample(name)}, {"ti": TaskInstance()})


@pytest.mark.parametrize("name", sorted(each.stem for each in SAMPLES.glob("deferral-*.json")))
async def test_a_stored_wait_keeps_each_of_its_arguments(name: str) -> None:
    stored = sample(name)["kwargs"]

    _, arguments = CapillaryRedeemUploadTrigger(**stored).serialize()

    names = {"deadline": "end_time", "ends_after": "execution_deadline"}
    expected = {names.get(each, each): value for each, value in stored.items()}
    assert {each: arguments[each] for each in expected} == expected
    assert all(value is None or each == "failures" for each, value in arguments.items() if each not in expected)


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("deferral-by-id", None),
        ("deferral-by-name", "redeemed_2026-11-20_1.csv"),
        ("deferral-after-job", None),
        ("deferral-newest-with-limits", None),
    ],
)
async def test_a_stored_wait_ends_with_the_job_that_it_was_for(
    sandbox: Sandbox, name: str, file_name: str | None
) -> None:
    sandbox.add_job(SERIES)
    wanted = sandbox.add_job(SERIES, rows=10, **({} if file_name is None else {"uploaded_file_name": file_name}))

    events = [event.payload async for event in CapillaryRedeemUploadTrigger(**stored_arguments(name)).run()]

    assert [(event["status"], event["job"]["job_id"]) for event in events] == [("success", wanted.job_id)]


async def test_the_deadline_of_a_stored_wait_holds(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES)
    arguments = {**stored_arguments("deferral-by-id"), "deadline": time.time() - 60}

    (event,) = [event.payload async for event in CapillaryRedeemUploadTrigger(**arguments).run()]

    assert event["status"] == "timeout"


async def test_a_wait_that_the_scheduler_stored_ends_by_the_start_of_its_task(sandbox: Sandbox) -> None:
    given = {**stored_arguments("deferral-from-trigger"), "coupon_series_id": SERIES, "job_id": 4455}
    trigger = CapillaryRedeemUploadTrigger(**given)
    # Airflow's own timeout is 300 seconds behind that of the sensor: this one began a week and a minute ago.
    trigger.timeout_after = datetime.now(UTC) + timedelta(seconds=240)  # type: ignore[attr-defined]

    (event,) = [event.payload async for event in trigger.run()]

    assert event["status"] == "timeout"


def test_a_stored_success_ends_the_task_with_the_job() -> None:
    job = end_task("event-completed")

    assert job == sample("event-completed")["job"]


@pytest.mark.parametrize("name", sorted(ENDS))
def test_any_other_stored_event_ends_the_task_as_it_says(name: str) -> None:
    error, message = ENDS[name]

    with pytest.raises(error, match=message):
        end_task(name)


def test_each_recorded_event_has_its_test() -> None:
    assert {each.stem for each in SAMPLES.glob("event-*.json")} == {"event-completed", *ENDS}


@pytest.mark.parametrize(("name", "include_existing"), [("watcher", False), ("watcher-with-backfill", True)])
@needs_asset_watchers
def test_a_stored_watcher_keeps_its_arguments_and_its_asset(name: str, include_existing: bool) -> None:
    recorded = sample(name)

    watcher = CapillaryRedeemUploadEventTrigger(**recorded["kwargs"])

    asset = assets.capillary_redeem_uploads(SERIES, include_existing=include_existing)
    assert (asset.name, asset.uri) == (recorded["asset"]["name"], recorded["asset"]["uri"])
    assert watcher.serialize() == asset.watchers[0].trigger.serialize()
    assert watcher.serialize()[0] == recorded["classpath"]
    assert watcher.include_existing is include_existing


@needs_asset_watchers
def test_a_watcher_in_a_dag_file_is_checked_by_its_new_arguments() -> None:
    with pytest.raises(CapillaryConfigurationError, match="include_existing"):
        CapillaryRedeemUploadEventTrigger(coupon_series_id=SERIES, include_existing="perhaps")  # type: ignore[arg-type] # the test's point
    with pytest.raises(TypeError, match="look_for"):
        CapillaryRedeemUploadEventTrigger(coupon_series_id=SERIES, look_for="jobs")  # type: ignore[call-arg] # the test's point


@needs_asset_watchers
def test_a_stored_watcher_that_cannot_be_used_is_an_error_that_a_triggerer_survives() -> None:
    # Airflow's triggerer ends on any other class of error that a constructor raises.
    with pytest.raises(TypeError, match=r"version 0\.1\.0 stored cannot be used; .* clear the task"):
        CapillaryRedeemUploadEventTrigger(**{**sample("watcher")["kwargs"], "backfill": "perhaps"})


def test_jobs_of_a_stored_event_of_a_watcher_are_read() -> None:
    (payload,) = sample("watcher")["events"]

    class Event:
        extra = {"payload": payload}  # noqa: RUF012 - read only

    jobs = assets.finished_redeem_uploads({"asset": [Event()]})

    assert [job.to_dict() for job in jobs] == payload["jobs"]


class Store:
    """The state store of an asset, as 0.1.0 left it."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    async def aget(self, key: str) -> Any:
        return self.values.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value


@needs_asset_state_store
async def test_a_stored_cursor_neither_loses_nor_repeats_a_job(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "_EVENT_PASSED_ON_SECONDS", 0.01)
    recorded = sample("watcher")
    ids = recorded["jobs"]
    sandbox.add_job(SERIES)
    assert sandbox.add_job(SERIES).job_id == ids["reported"]
    running = sandbox.add_job(SERIES, status="STARTED")
    assert running.job_id == ids["running"]
    watcher = CapillaryRedeemUploadEventTrigger(**{**recorded["kwargs"], "poll_interval": 0.05})
    watcher.asset_state_store = store = Store(recorded["stored"])  # type: ignore[assignment]
    reported: list[int] = []

    async def collect(events: AsyncIterator[Any]) -> None:
        async for event in events:
            reported.extend(job["job_id"] for job in event.payload["jobs"])

    task = asyncio.create_task(collect(watcher.run()))
    try:
        # The job that ran during the upgrade, and one that was uploaded since.
        await until(lambda: sandbox.count("status") > 1)
        sandbox.finish(running)
        await until(lambda: reported == [ids["running"]])
        newer = sandbox.add_job(SERIES)
        await until(lambda: reported == [ids["running"], newer.job_id])
        await until(lambda: store.values["capillary_redeem_uploads"]["after_job_id"] == newer.job_id)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await watcher.cleanup()


@needs_shared_streams
async def test_airflows_triggerer_runs_what_was_stored_and_survives_what_cannot_be_used(sandbox: Sandbox) -> None:
    from airflow.executors import workloads
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger

    job = sandbox.add_job(SERIES)
    wait, watcher = sample("deferral-by-id")["classpath"], sample("watcher-with-backfill")["classpath"]
    watched = {**sample("watcher-with-backfill")["kwargs"], "poll_interval": 0.05}
    rows = {
        1: (wait, {**stored_arguments("deferral-by-id"), "job_id": job.job_id}),
        2: (watcher, watched),
        3: (watcher, {**watched, "backfill": "perhaps"}),
    }
    runner = TriggerRunner()
    for trigger_id, (classpath, kwargs) in rows.items():
        row = {"classpath": classpath, "encrypted_kwargs": Trigger.encrypt_kwargs(kwargs)}
        runner.to_create.append(workloads.RunTrigger(id=trigger_id, **row))

    await runner.create_triggers()

    assert [trigger_id for trigger_id, _ in runner.failed_triggers] == [3]
    try:
        await until(lambda: {each.trigger_id for each in runner.events} == {1, 2})
    finally:
        tasks = [details["task"] for details in runner.triggers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner._shared_streams.stop_all()
    payloads = {each.trigger_id: each.event.payload for each in runner.events}
    assert (payloads[1]["status"], payloads[1]["job"]["job_id"]) == ("success", job.job_id)
    assert [each["job_id"] for each in payloads[2]["jobs"]] == [job.job_id]
