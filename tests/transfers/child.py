# SPDX-License-Identifier: Apache-2.0
"""Runs the operator in a process of its own, to be measured or killed.

The process is forked from a server that has imported Airflow and the clients of S3, so that it starts at once. All that
Airflow makes of the environment happens in the process itself.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.running import StateStore, TaskInstance

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from airflow_provider_capillary.sandbox import SandboxJob

_context = multiprocessing.get_context("forkserver")
# Without the clients each child for S3 imports them again, which takes more than a second. The server ignores a name
# that is not installed.
_context.set_forkserver_preload([__name__, "s3fs", "boto3.session", "airflow.providers.amazon.aws.hooks.s3"])


def peak_of_memory() -> int:
    """Return the most bytes this process ever held; `ru_maxrss` would also count what the parent held at the fork."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def run_operator(arguments: dict[str, Any]) -> dict[str, Any]:
    state = StateStore(arguments.pop("state_file", None))
    operator = CapillaryErrorFileToObjectStorageOperator(task_id="errors", **arguments)
    ti = TaskInstance()
    context: Any = {"ti": ti, "task_state_store": state}
    before = peak_of_memory()
    uri = operator.execute(context)
    growth = peak_of_memory() - before
    return {"uri": uri, "error_file": ti.xcoms.get("error_file"), "growth": growth}


def main(results: Connection, environment: dict[str, str], arguments: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    try:
        results.send(run_operator(arguments))
    except BaseException:
        results.send(traceback.format_exc())
        raise


class Child:
    """A run of the operator in a process of its own, from the start on.

    :param arguments: the operator's, and `state_file`: where Airflow would keep the state of the task from try to try
    """

    def __init__(self, job: SandboxJob, destination: str, **arguments: Any) -> None:
        given = {"coupon_series_id": job.coupon_series_id, "job_id": job.job_id, "destination": destination}
        self._results, results = _context.Pipe(duplex=False)
        self._process = _context.Process(target=main, args=(results, dict(os.environ), given | arguments))
        self._process.start()
        # The process has its own; where it ends without a result, reading is to end too.
        results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.join()
        self._results.close()

    def kill(self) -> None:
        self._process.kill()

    @property
    def ended(self) -> bool:
        return not self._process.is_alive()

    def result(self, *, seconds: float = 120.0) -> dict[str, Any]:
        """Wait for the end, and return the URI, the XCom "error_file" and the bytes by which the peak of memory grew.

        :return: ``{"uri", "error_file", "growth"}``
        """
        assert self._results.poll(seconds), "the operator does not come to an end"
        result = self._results.recv()
        assert isinstance(result, dict), result
        return result


def run_child(job: SandboxJob, destination: str, **arguments: Any) -> dict[str, Any]:
    """Run the operator in a process of its own to its end."""
    with Child(job, destination, **arguments) as child:
        return child.result()
