# SPDX-License-Identifier: Apache-2.0
"""Runs a sensor to its end as Airflow does in each mode, without a scheduler between the steps."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow_provider_capillary.api.waiting import WaitOptions
from airflow_provider_capillary.triggers import capillary as triggers
from tests.airflow_compat import (
    HAS_TASK_STATE_STORE,
    IS_AIRFLOW_2,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
    timezone,
)
from tests.running import StateStore, TaskInstance

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sensors.capillary import CapillaryCouponUploadSensor, CapillaryRedeemUploadSensor

    UploadSensor = CapillaryRedeemUploadSensor | CapillaryCouponUploadSensor

MODES = ("poke", "reschedule", "deferrable")
#: The last is not even begun on a worker, so that all checks are made in the trigger as well.
ALL_MODES = (*MODES, "triggerer")


@dataclass(frozen=True)
class End:
    """How a task ended, in the terms in which Airflow goes on from there.

    :param state: ``success``, ``skipped``, ``failed`` (never retried) or ``up_for_retry``.
    :param error: Class of the exception; None for success and for skipped, where Airflow's own differ in class.
    :param message: Text of the exception.
    :param value: What goes into XCom.
    """

    state: str
    error: str | None = None
    message: str = ""
    value: Any = None


def run_to_end(
    mode: str,
    make_sensor: Callable[..., UploadSensor],
    *,
    store: StateStore | None = None,
    try_number: int = 1,
    between: Callable[[int], None] = lambda step: None,
) -> End:
    """Run one try of a task.

    :param mode: One of :data:`ALL_MODES`.
    :param make_sensor: Makes the sensor, given the arguments of the mode; called once for each process.
    :param store: The task's state store.
    :param try_number: Number of the try.
    :param between: Called between two processes with their count.
    """
    ti = TaskInstance(try_number)
    context: Any = {"ti": ti, "task_state_store": store or StateStore()} if HAS_TASK_STATE_STORE else {"ti": ti}
    # Airflow does not mind the mode of a deferrable sensor.
    arguments = {"deferrable": False, "mode": mode} if mode in MODES[:2] else {"deferrable": True, "mode": "reschedule"}
    step: Callable[[], Any] = lambda: make_sensor(**arguments).execute(context)  # noqa: E731
    if mode == "triggerer":
        step = lambda: _defer_at_once(make_sensor(**arguments))  # noqa: E731
    for count in range(1000):
        try:
            with _first_reschedule(ti):
                return End("success", value=step())
        except AirflowRescheduleException:
            ti.first_reschedule_date = ti.first_reschedule_date or timezone.utcnow()
            between(count)
        except TaskDeferred as deferred:
            between(count)
            event = asyncio.run(fire(deferred))
            method, given = deferred.method_name, {**(deferred.kwargs or {}), "event": event}
            resumed = make_sensor(**arguments)
            step = lambda: resumed.resume_execution(method, given, context)  # noqa: E731, B023
        except AirflowSkipException as error:
            return End("skipped", message=str(error))
        except (AirflowFailException, AirflowSensorTimeout) as error:
            return End("failed", type(error).__name__, str(error))
        except (Exception, AirflowTaskTimeout) as error:
            return End("up_for_retry", type(error).__name__, str(error))
    raise AssertionError("the sensor does not come to an end")


def _first_reschedule(ti: TaskInstance) -> Any:
    """Answer Airflow 2, which asks its database and not the task instance."""
    if not IS_AIRFLOW_2:
        return nullcontext()
    return patch("airflow.sensors.base._orig_start_date", lambda **_: ti.first_reschedule_date)


def _defer_at_once(sensor: UploadSensor) -> None:
    """Do what the scheduler does where a task starts in the triggerer, on every Airflow."""
    raise TaskDeferred(
        trigger=getattr(triggers, sensor._trigger_name)(
            **WaitOptions.of(sensor).to_dict(),
            capillary_conn_id=sensor.capillary_conn_id,
            **sensor._trigger_times(),
            end_time=time.time() + sensor.timeout,
        ),
        method_name="execute_complete",
    )


async def fire(deferred: TaskDeferred) -> Any:
    """Do what the triggerer does: build the trigger from its stored arguments and take its first event."""
    path, arguments = deferred.trigger.serialize()
    module, _, name = path.rpartition(".")
    trigger = getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))
    events = trigger.run()
    try:
        event = await anext(events)
        return json.loads(json.dumps(event.payload))
    finally:
        await events.aclose()
        await trigger.cleanup()
