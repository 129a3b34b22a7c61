# SPDX-License-Identifier: Apache-2.0
"""Runs the operator in a process of its own, to be measured or killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.child import ChildProcess, peak_of_memory
from tests.running import StateStore, TaskInstance

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import SandboxJob


def run_operator(**arguments: Any) -> dict[str, Any]:
    state = StateStore(arguments.pop("state_file", None))
    operator = CapillaryErrorFileToObjectStorageOperator(task_id="errors", **arguments)
    ti = TaskInstance()
    context: Any = {"ti": ti, "task_state_store": state}
    before = peak_of_memory()
    uri = operator.execute(context)
    growth = peak_of_memory() - before
    return {"uri": uri, "error_file": ti.xcoms.get("error_file"), "growth": growth}


class Child(ChildProcess):
    """A run of the operator in a process of its own, from the start on.

    Its result is ``{"uri", "error_file", "growth"}``: the URI, the XCom, and the bytes by which the peak of memory
    grew.

    :param arguments: the operator's, and `state_file`: where Airflow would keep the state of the task from try to try
    """

    def __init__(self, job: SandboxJob, destination: str, **arguments: Any) -> None:
        given = {"coupon_series_id": job.coupon_series_id, "job_id": job.job_id, "destination": destination}
        super().__init__(run_operator, **(given | arguments))


def run_child(job: SandboxJob, destination: str, **arguments: Any) -> dict[str, Any]:
    """Run the operator in a process of its own to its end."""
    with Child(job, destination, **arguments) as child:
        return child.result()
