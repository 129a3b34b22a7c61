# SPDX-License-Identifier: Apache-2.0
"""Runs a sensor to its end as Airflow does in each mode, without a scheduler between the steps."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tests.airflow_compat import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
    timezone,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor

MODES = ("poke", "reschedule", "deferrable")


@dataclass
class StateStore:
    """Keeps values between the processes of one task, as Airflow's own does: as JSON."""

    values: dict[str, str] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)


class TaskInstance:
    """What a sensor asks of its task instance."""

    def __init__(self, try_number: int) -> None:
        self.try_number = try_number
        self.first_reschedule_date: Any = None

    def get_first_reschedule_date(self, context: Any) -> Any:
        return self.first_reschedule_date


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
    make_sensor: Callable[..., CapillaryRedeemUploadSensor],
    *,
    store: StateStore | None = None,
    try_number: int = 1,
    between: Callable[[int], None] = lambda step: None,
) -> End:
    """Run one try of a task.

    :param mode: One of :data:`MODES`.
    :param make_sensor: Makes the sensor, given the arguments of the mode; called anew for each process.
    :param store: The task's state store.
    :param try_number: Number of the try.
    :param between: Called between two processes with their count.
    """
    ti = TaskInstance(try_number)
    context: Any = {"ti": ti, "task_state_store": store or StateStore()}
    arguments = {"deferrable": True} if mode == "deferrable" else {"deferrable": False, "mode": mode}
    step: Callable[[], Any] = lambda: make_sensor(**arguments).execute(context)  # noqa: E731
    for count in range(1000):
        try:
            return End("success", value=step())
        except AirflowRescheduleException:
            ti.first_reschedule_date = ti.first_reschedule_date or timezone.utcnow()
            between(count)
        except TaskDeferred as deferred:
            between(count)
            event = asyncio.run(_fire(deferred))
            method, given = deferred.method_name, {**(deferred.kwargs or {}), "event": event}
            resumed = make_sensor(**arguments)
            step = lambda: resumed.resume_execution(method, given, context)  # noqa: E731, B023
        except AirflowSkipException as error:
            return End("skipped", message=str(error))
        except (AirflowFailException, AirflowSensorTimeout) as error:
            return End("failed", type(error).__name__, str(error))
        except Exception as error:
            return End("up_for_retry", type(error).__name__, str(error))
    raise AssertionError("the sensor does not come to an end")


async def _fire(deferred: TaskDeferred) -> Any:
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
