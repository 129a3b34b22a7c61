# SPDX-License-Identifier: Apache-2.0
"""The wait in the triggerer, where it differs from a poke: deadline, cancellation, intervals, and never raising."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._transport.async_connection import AsyncConnection
from airflow_provider_capillary._transport.connection_state import connection_state
from airflow_provider_capillary.api import timing
from airflow_provider_capillary.api.connection_parser import parse_connection
from airflow_provider_capillary.api.waiting import WaitOptions
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook
from airflow_provider_capillary.sandbox import Fault
from airflow_provider_capillary.triggers.capillary import CapillaryRedeemUploadTrigger
from tests.airflow_compat import Connection

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox

SERIES = 535512

pytestmark = pytest.mark.usefixtures("capillary_connection", "quick_retries")


def trigger(**given: Any) -> CapillaryRedeemUploadTrigger:
    arguments = {"coupon_series_id": SERIES, "poke_interval": 0.05, "timeout": 20.0, "end_time": time.time() + 20}
    return CapillaryRedeemUploadTrigger(**{**arguments, **given})


async def only_event(running: CapillaryRedeemUploadTrigger) -> dict[str, Any]:
    events = [event.payload async for event in running.run()]
    assert len(events) == 1
    assert json.loads(json.dumps(events[0])) == events[0]
    return events[0]


def test_the_trigger_takes_and_serialises_each_wait_option() -> None:
    given = {each.name: f"{each.name} of the sensor" for each in fields(WaitOptions)}

    _, arguments = CapillaryRedeemUploadTrigger(timeout=1.0, **given).serialize()

    assert {name: arguments[name] for name in given} == given
    assert CapillaryRedeemUploadTrigger(**arguments).serialize()[1] == arguments


@pytest.mark.parametrize("given", [{"coupon_series_id": SERIES, "job_ids": [1]}, {"job_id": 1}])
def test_a_misspelt_or_missing_wait_option_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"job_ids|coupon_series_id"):
        CapillaryRedeemUploadTrigger(timeout=1.0, **given)


async def test_it_fires_one_event_when_the_job_is_done(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, rows=5, errors=2, queued_seconds=0.1, started_seconds=0.1)

    event = await only_event(trigger())

    assert event["status"] == "success"
    assert event["job"]["job_id"] == job.job_id
    assert event["job"]["error_count"] == 2


async def test_it_polls_until_the_deadline_and_reports_what_was_last_seen(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")

    event = await only_event(trigger(timeout=600.0, end_time=time.time() + 3))

    assert event["status"] == "timeout"
    assert event["message"] == (
        f"the newest redeem upload job of coupon series {SERIES} did not end within 600 seconds; "
        f"last seen: job {job.job_id} was STARTED"
    )
    assert sandbox.count("status") >= 2


async def test_a_restarted_triggerer_does_not_begin_the_time_again(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    first = trigger(end_time=time.time() - 60, poke_interval=3600.0)
    path, arguments = first.serialize()

    event = await only_event(CapillaryRedeemUploadTrigger(**json.loads(json.dumps(arguments))))

    assert path == "airflow_provider_capillary.triggers.capillary.CapillaryRedeemUploadTrigger"
    assert event["status"] == "timeout"
    assert sandbox.count("status") == 1  # one last poll, as the job may have ended meanwhile


async def test_a_job_that_ended_while_no_triggerer_ran_is_still_a_success(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES)

    event = await only_event(trigger(end_time=time.time() - 60, poke_interval=3600.0))

    assert event["status"] == "success"


async def test_failed_polls_before_the_deferral_count(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", endpoint="status", status=503, times=None))

    event = await only_event(trigger(max_consecutive_failures=3, failures=2))

    assert event["status"] == "error"
    assert event["error"]["error"] == "CapillaryApiError"
    assert event["error"]["http_status"] == 503
    assert sandbox.count("status") == 2  # one poll of two attempts


async def test_errors_are_waited_out_and_never_looped_through(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", endpoint="status", status=503, times=None))

    event = await only_event(
        trigger(max_consecutive_failures=1000, poke_interval=0.2, end_time=time.time() + 2.0, timeout=2.0)
    )

    assert event["status"] == "timeout"
    # Polls are 0.2 s apart and of two attempts each: a trigger that does not wait would send hundreds.
    assert 4 <= sandbox.count("status") <= 24


async def test_a_connection_that_is_not_defined_ends_in_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    event = await only_event(trigger(capillary_conn_id="nowhere"))

    assert event["status"] == "error"
    assert (event["error"]["error"], event["error"]["is_transient"]) == ("CapillaryConfigurationError", False)
    assert event["message"].startswith("Airflow connection 'nowhere' is not defined")


async def test_a_connection_that_cannot_be_used_ends_in_an_event_that_names_the_field(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", sandbox.connection_json(timeout_seconds=-1))

    event = await only_event(trigger())

    assert event["status"] == "error"
    assert event["error"]["error"] == "CapillaryConfigurationError"
    assert "field 'Timeout'" in event["message"]


async def test_no_secret_and_no_row_is_in_the_event_or_the_log(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    job = sandbox.add_job(SERIES, errors=2, error_file=b"message,code\nunknown,SAVE-9876543210\n")
    sandbox.inject(Fault("expired_token", endpoint="status"))

    event = await only_event(trigger())

    assert event["job"]["job_id"] == job.job_id
    assert len(sandbox.tokens_issued) == 2
    shown = json.dumps(event) + "".join(capfd.readouterr())
    for secret in ("sandbox-secret", "sandbox-key", "SAVE-9876543210", *sandbox.tokens_issued):
        assert secret not in shown


async def test_the_signature_of_a_signed_url_is_not_in_the_event(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES, errors=1, error_file_url="https://files.example.com/errors.csv?X-Amz-Signature=c0ffee")

    event = await only_event(trigger())

    assert event["job"]["error_file_url"] == "https://files.example.com/errors.csv"
    assert "c0ffee" not in json.dumps(event)


async def test_a_cancelled_wait_leaves_no_task_and_no_socket_behind(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    sandbox.inject(Fault("slow", endpoint="status", seconds=30, times=None, skip=1))
    before = asyncio.all_tasks()
    waiting = [asyncio.create_task(only_event(trigger())) for _ in range(5)]
    while sandbox.count("status") < 2:  # noqa: ASYNC110 - the sandbox runs in another thread
        await asyncio.sleep(0.01)

    for task in waiting:
        task.cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(each, asyncio.CancelledError) for each in ended)
    assert asyncio.all_tasks() == before
    gc.collect()  # an open transport would warn of itself, which is an error in these tests
    async with CapillaryAsyncHook() as hook:
        sandbox.clear_faults()
        assert len(await hook.get_redeem_upload_jobs(SERIES)) == 1


async def test_max_wait_without_backoff_is_ignored_as_in_poke_mode(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES, status="STARTED")

    await only_event(trigger(poke_interval=1.0, max_wait=0.01, end_time=time.time() + 1.5))

    assert sandbox.count("status") <= 3


@pytest.mark.parametrize(
    "intervals",
    [
        {"poke_interval": 0.5, "max_wait": 0.0},
        {"poke_interval": 0.5, "max_wait": 0.0, "exponential_backoff": True},
        {"poke_interval": 0.0},
        {"poke_interval": 0.0, "max_wait": 0.0, "exponential_backoff": True},
    ],
)
async def test_an_interval_or_a_max_wait_of_0_is_no_hot_loop(sandbox: Sandbox, intervals: dict[str, Any]) -> None:
    sandbox.add_job(SERIES, status="STARTED")

    await only_event(trigger(**intervals, end_time=time.time() + 1.5))

    assert 1 <= sandbox.count("status") <= 5


async def test_the_last_poll_may_queue_for_the_request_limit_as_long_as_airflow_lets_the_trigger_live(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_LAST_POLL_SECONDS", 0.2)
    connection = Connection.from_json(
        sandbox.connection_json(requests_per_minute=1_000_000), conn_id="capillary_default"
    )
    settings = parse_connection("capillary_default", connection)
    job = sandbox.add_job(SERIES)
    connection_state(settings).limiter.pause(3.0)  # as behind hundreds of waits that end at the same moment

    event = await only_event(trigger(poke_interval=3600.0, timeout=7200.0, end_time=time.time() + 0.5))

    assert event["status"] == "success"
    assert event["job"]["job_id"] == job.job_id


async def test_the_last_poll_ends_before_airflow_ends_the_trigger(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_LAST_POLL_SECONDS", 0.2)
    sandbox.add_job(SERIES)
    sandbox.inject(Fault("slow", endpoint="status", seconds=30, times=None))
    running = trigger(poke_interval=3600.0, timeout=7200.0, end_time=time.time() + 0.5)
    running.timeout_after = datetime.now(UTC) + timedelta(seconds=timing._EVENT_SECONDS + 1.5)  # type: ignore[attr-defined]
    began = time.monotonic()

    event = await only_event(running)

    assert event["status"] == "timeout"
    assert 1.0 <= time.monotonic() - began <= 3.0


async def test_a_poll_that_failed_before_the_deadline_is_not_the_last_one(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES)
    sandbox.inject(Fault("slow", endpoint="status", seconds=0.8, times=1))
    sandbox.inject(Fault("status", endpoint="status", status=503, times=2, skip=0))

    event = await only_event(trigger(poke_interval=0.05, end_time=time.time() + 0.4, max_consecutive_failures=100))

    assert event["status"] == "success"
    assert event["job"]["job_id"] == job.job_id


@pytest.mark.parametrize("silent_fail", [False, True])
async def test_an_error_of_another_kind_ends_a_wait_unless_it_is_to_be_silent(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, silent_fail: bool
) -> None:
    job = sandbox.add_job(SERIES)
    run = AsyncConnection.run
    raised: list[int] = []

    async def fail_once(connection: AsyncConnection, *args: Any) -> Any:
        if len(raised) < 2:  # a poll asks once more over a new client
            raised.append(1)
            raise RuntimeError("a secret")
        return await run(connection, *args)

    monkeypatch.setattr(AsyncConnection, "run", fail_once)

    event = await only_event(trigger(silent_fail=silent_fail, poke_interval=0.2))

    if silent_fail:
        assert event["job"]["job_id"] == job.job_id
    else:
        assert event["error"]["message"].startswith("the wait ended with an unexpected RuntimeError")


@pytest.mark.parametrize("conn_id", ["None", "", 7])
async def test_a_connection_id_that_can_never_work_ends_a_silent_wait_at_once(sandbox: Sandbox, conn_id: Any) -> None:
    event = await only_event(trigger(silent_fail=True, capillary_conn_id=conn_id))

    assert event["error"]["error"] == "CapillaryConfigurationError"
    assert event["message"].startswith("capillary_conn_id ")
