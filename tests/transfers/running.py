# SPDX-License-Identifier: Apache-2.0
"""How the tests run the operator: with the real hook against a sandbox, as a task would."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._storage.transfer_log import TransferLog
from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.transfers import capillary_to_object_storage
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.running import TaskInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob

SERIES = 535512
MIB = 1 << 20
SMALL = b"message,coupon code\nCoupon is expired, the redemption was not recorded,WELCOME10\n"
#: Two whole parts of a multipart upload and a bit, and no two MiB of it alike.
LARGE = b"".join(number.to_bytes(4, "big") * (MIB // 4) for number in range(17)) + b"the end"

#: As many attempts as by default, without the waits.
QUICK = HttpRetry(base_seconds=0.001, cap_seconds=0.01)


def connect(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, **extra: Any) -> None:
    """Make `capillary_default` lead to the sandbox, without a noticeable limit of requests."""
    extra = {"requests_per_minute": 60_000, **extra}
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", sandbox.connection_json(**extra))


def file_url(sandbox: Sandbox, name: str = "errors.csv") -> str:
    """An `errorFileUrl` that is a URL of the sandbox, where byte ranges are served."""
    return f"{sandbox.base_url}/files/{name}"


class Run:
    """One run of the operator.

    :ivar xcoms: what was pushed to XCom
    :ivar result: what it returned
    """

    def __init__(self, job: SandboxJob, destination: str, **arguments: Any) -> None:
        ids = {"coupon_series_id": job.coupon_series_id, "job_id": job.job_id}
        self.operator = CapillaryErrorFileToObjectStorageOperator(
            task_id="errors", destination=destination, **(ids | arguments)
        )
        self.operator.hook = CapillaryHook(self.operator.capillary_conn_id, http_retry=QUICK)
        self.ti = TaskInstance()
        self.result: str | None = None

    @property
    def xcoms(self) -> Mapping[str, Any]:
        return self.ti.xcoms

    def __call__(self) -> Run:
        # Unwrapped, as Airflow 2 keeps count of its callers for the main thread only.
        self.result = inspect.unwrap(type(self.operator).execute)(self.operator, {"ti": self.ti})
        return self


def pull(job: SandboxJob, destination: str, **arguments: Any) -> Run:
    """Run the operator to its end."""
    return Run(job, destination, **arguments)()


@contextmanager
def interrupting(error: BaseException, *, when: Callable[[], bool]) -> Iterator[None]:
    """Raise an error in the main thread, wherever that is, as Airflow's timeout of a task and Ctrl-C do."""

    def interrupt(number: int, frame: Any) -> None:
        raise error

    def watch() -> None:
        while not over.is_set():
            if when():
                # What the server shows may still be on its way to the client.
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGUSR1)
                return
            time.sleep(0.01)

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    previous = signal.signal(signal.SIGUSR1, interrupt)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, previous)


@contextmanager
def interrupting_at_line(number: int, *files: str) -> Iterator[None]:
    """Raise KeyboardInterrupt once, before the line of some files that is the `number`-th to be executed."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        lines += event == "line"
        if event == "line" and lines == number:
            raise KeyboardInterrupt
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(previous)


@contextmanager
def clock_of_transfers(clock: Callable[[], float]) -> Iterator[None]:
    """Let the operator measure the time of its transfers by another clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capillary_to_object_storage, "TransferLog", partial(TransferLog, clock=clock))
        yield
