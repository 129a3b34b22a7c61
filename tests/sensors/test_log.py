# SPDX-License-Identifier: Apache-2.0
"""The log of a whole wait, over all processes that it goes through."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api import wait_log
from airflow_provider_capillary.sandbox import Fault, Sandbox
from airflow_provider_capillary.sensors.capillary import CapillaryCouponUploadSensor, CapillaryRedeemUploadSensor
from airflow_provider_capillary.triggers.capillary import CapillaryCouponUploadTrigger, CapillaryRedeemUploadTrigger
from tests.airflow_compat import needs_task_state_store
from tests.sensors.running import ALL_MODES, End, run_to_end
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sensors.running import UploadSensor

SERIES = 535512
SENSORS = [
    pytest.param(CapillaryRedeemUploadSensor, "redeem", id="redeem"),
    pytest.param(CapillaryCouponUploadSensor, "coupon", id="coupon"),
]
ALL = (
    CapillaryRedeemUploadSensor,
    CapillaryCouponUploadSensor,
    CapillaryRedeemUploadTrigger,
    CapillaryCouponUploadTrigger,
)

pytestmark = pytest.mark.usefixtures("capillary_connection", "quick_retries")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines that sensors and triggers of this package have logged, each without what Airflow puts around it."""
    caplog.set_level(logging.DEBUG, logger="tests.wait")
    for each in ALL:
        monkeypatch.setattr(each, "log", logging.getLogger("tests.wait"))
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name == "tests.wait" and "airflow_provider_capillary" in record.pathname  # not those of Airflow
    ]


def run(mode: str, sensor_class: type[UploadSensor] = CapillaryRedeemUploadSensor, **given: Any) -> End:
    arguments = {"task_id": "wait", "coupon_series_id": SERIES, "poke_interval": 0.05, "timeout": 20, **given}
    return run_to_end(mode, lambda **of_mode: sensor_class(**arguments, **of_mode))


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=needs_task_state_store if mode == "reschedule" else ()) for mode in ALL_MODES]
)
@pytest.mark.parametrize(("sensor_class", "kind"), SENSORS)
def test_what_is_waited_for_and_each_status_are_logged_once_over_all_processes(
    sensor_class: type[UploadSensor], kind: str, mode: str, sandbox: Sandbox, lines: Callable[[], list[str]]
) -> None:
    job = sandbox.add_job(SERIES, status="QUEUED", kind=kind)

    def proceed() -> None:
        for status in ("STARTED", "COMPLETED"):
            asked = sandbox.count("status")
            wait_until(lambda: sandbox.count("status") >= asked + 3)  # noqa: B023
            sandbox.finish(job, status)

    proceeding = threading.Thread(target=proceed)
    proceeding.start()
    assert run(mode, sensor_class).state == "success"
    proceeding.join()

    first, found, *others = lines()
    assert first.startswith(
        f"Waiting for the newest {kind} upload job of coupon series {SERIES}; the newest job there is {job.job_id} "
        "(QUEUED); polled every 0.05 s until 20"
    )
    assert found.startswith(f"Found {kind} upload job {job.job_id} of coupon series {SERIES}, file ")
    assert [line for line in others if line.startswith("Upload job")] == [
        f"Upload job {job.job_id} is {status}" for status in ("QUEUED", "STARTED", "COMPLETED")
    ]
    assert not [line for line in others if "aiting" in line]


@pytest.mark.parametrize("mode", ALL_MODES)
def test_no_line_of_a_wait_is_longer_than_200_characters(
    mode: str, sandbox: Sandbox, lines: Callable[[], list[str]]
) -> None:
    name = "night_" * 30
    sandbox.add_job(SERIES, uploaded_file_name=f"{name}_1.csv", status="PONDERING")
    sandbox.inject(
        Fault("body", endpoint="status", status=503, body={"errors": [{"code": 1, "message": "Try later " * 90}]})
    )

    end = run(mode, uploaded_file_name=f"{name}*", after_job_id=0, timeout=1)

    assert end.error == "AirflowSensorTimeout"
    assert len(end.message) <= 200
    assert max(map(len, lines())) <= 200
    assert any("unknown status" in line for line in lines())


def test_a_reschedule_without_a_memory_logs_one_line_a_poll(
    sandbox: Sandbox, lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.sensors.running.HAS_TASK_STATE_STORE", False)
    sandbox.add_job(SERIES, status="STARTED")

    run("reschedule", timeout=0.4)

    polls = sandbox.count("status")
    assert polls >= 3
    assert sum(line.startswith("Waiting") for line in lines()) == 1
    assert sum(line.startswith(("Found", "Upload job")) for line in lines()) == 2
    assert sum(line.startswith("Still waiting") for line in lines()) == polls - 1


async def test_a_wait_that_goes_on_in_another_triggerer_logs_one_line(
    sandbox: Sandbox, lines: Callable[[], list[str]]
) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    end = time.time() + 1.0

    await ended(CapillaryRedeemUploadTrigger(coupon_series_id=SERIES, poke_interval=0.1, timeout=7200, end_time=end))

    (line,) = lines()
    assert line.startswith(
        f"Still waiting for the newest redeem upload job of coupon series {SERIES}; last seen: job {job.job_id} was "
        "STARTED; polled every 0.1 s until 20"
    )


async def test_a_deferred_wait_that_no_poll_wakes_logs_that_it_goes_on(
    sandbox: Sandbox, lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_log, "_QUIET_SECONDS", 0.5)
    sandbox.add_job(SERIES, job_id=7, status="STARTED")
    waits = [
        CapillaryRedeemUploadTrigger(
            coupon_series_id=SERIES, job_id=job_id, poke_interval=0.05, timeout=2, end_time=time.time() + 2
        )
        for job_id in (7, 8)
    ]

    await asyncio.gather(*map(ended, waits))

    for seen in ("job 7 was STARTED", "no such job yet, the newest was 7 (STARTED)"):
        still = [line for line in lines() if line.startswith("Still waiting") and f"last seen: {seen};" in line]
        assert 2 <= len(still) <= 4, lines()


async def ended(trigger: CapillaryRedeemUploadTrigger) -> dict[str, Any]:
    (event,) = [event.payload async for event in trigger.run()]
    assert event["status"] == "timeout"
    return event
