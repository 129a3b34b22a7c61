# SPDX-License-Identifier: Apache-2.0
"""Airflow forks a process for each task: what the parent had under way is not the child's."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import SyncToAsync

from airflow_provider_capillary._transport import connection_state, httpcore_transport
from airflow_provider_capillary._transport.forking import PerProcess
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import CONN_ID, QUICK, SERIES
from tests.hooks.servers import relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Connect

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_child(work: Callable[[], Any]) -> Any:
    """Do something in a forked process and return what came of it; fail if nothing does."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        # Airflow reads connections in a thread that asgiref keeps; the child has none of the parent's threads.
        SyncToAsync.single_thread_executor = ThreadPoolExecutor(1)
        try:
            result = {"result": work()}
        except BaseException as error:
            result = {"error": repr(error)}
        os.write(send, json.dumps(result).encode())
        os._exit(0)
    os.close(send)
    try:
        ready, _, _ = select.select([receive], [], [], 3)
        assert ready, "the child hangs"
        return json.loads(os.read(receive, 65536))
    finally:
        os.close(receive)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_child_fetches_a_token_of_its_own(client: Client, sandbox: Sandbox, conn_id: str) -> None:
    client.jobs(conn_id)
    assert in_child(lambda: len(client.jobs(conn_id))) == {"result": 0}
    assert sandbox.counts == {"token": 2, "status": 2}
    client.jobs(conn_id)  # that of the parent is as good as before
    assert sandbox.count("token") == 2


def test_a_child_does_not_wait_for_the_token_that_the_parent_fetches(
    client: Client, sandbox: Sandbox, conn_id: str
) -> None:
    sandbox.inject(Fault("slow", endpoint="token", seconds=0.5))
    with_parent = threading.Thread(target=lambda: CapillaryHook(conn_id).get_redeem_upload_jobs(SERIES))
    with_parent.start()
    _until(lambda: sandbox.count("token") == 1)
    assert in_child(lambda: len(client.jobs(conn_id))) == {"result": 0}
    with_parent.join(10)
    assert sandbox.counts == {"token": 2, "status": 2}


def test_a_hook_that_was_made_before_works_in_the_child(sandbox: Sandbox, conn_id: str, hook: CapillaryHook) -> None:
    assert in_child(lambda: len(hook.get_redeem_upload_jobs(SERIES))) == {"result": 0}
    assert hook.get_redeem_upload_jobs(SERIES) == []


def test_a_hook_that_was_used_before_does_not_wait_for_the_parent(
    sandbox: Sandbox, conn_id: str, hook: CapillaryHook
) -> None:
    hook.get_redeem_upload_jobs(SERIES)
    sandbox.expire_tokens()
    sandbox.inject(Fault("slow", endpoint="token", seconds=1))
    with_parent = threading.Thread(target=lambda: hook.get_redeem_upload_jobs(SERIES))
    with_parent.start()
    _until(lambda: sandbox.count("token") == 2)
    try:
        assert in_child(lambda: len(hook.get_redeem_upload_jobs(SERIES))) == {"result": 0}
    finally:
        with_parent.join(10)


def test_a_hook_that_was_used_before_does_not_share_its_tcp_connection(sandbox: Sandbox, connect: Connect) -> None:
    # Two processes on one connection read each other's answers.
    with relay(sandbox.port) as counting:
        hook = CapillaryHook(connect(sandbox, CONN_ID, fields={"port": counting.port}), http_retry=QUICK)
        hook.get_redeem_upload_jobs(SERIES)
        assert counting.accepted == 1
        assert in_child(lambda: len(hook.get_redeem_upload_jobs(SERIES))) == {"result": 0}
        assert counting.accepted == 2
        # Nor did the child close it when it forgot it.
        assert hook.get_redeem_upload_jobs(SERIES) == []
        assert counting.accepted == 2


@pytest.mark.parametrize(
    "lock", [connection_state._lock, httpcore_transport._contexts_lock], ids=["connection_state", "httpcore_transport"]
)
def test_a_lock_that_the_parent_holds_while_it_forks_is_free_in_the_child(
    client: Client, sandbox: Sandbox, conn_id: str, lock: PerProcess[Any]
) -> None:
    over, held = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.value:
            held.set()
            over.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    try:
        assert in_child(lambda: len(client.jobs(conn_id))) == {"result": 0}
    finally:
        over.set()
        holder.join(10)


def test_no_module_has_a_lock_that_a_fork_leaves_held() -> None:
    kinds = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Semaphore, threading.Event)
    modules = [module for name, module in sys.modules.items() if name.startswith("airflow_provider_capillary.")]
    found = [
        f"{module.__name__}.{name}"
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, kinds)
    ]
    assert len(modules) > 10
    assert found == []


def test_a_child_starts_with_a_new_value_and_the_parent_keeps_its_own() -> None:
    held = PerProcess(list)
    held.value.append("of the parent")
    assert in_child(lambda: held.value) == {"result": []}
    assert held.value == ["of the parent"]


def test_a_child_of_a_child_starts_with_a_new_value() -> None:
    held = PerProcess(list)

    def fork_again() -> Any:
        held.value.append("of the child")
        return in_child(lambda: held.value)

    assert in_child(fork_again) == {"result": {"result": []}}


def test_a_value_that_nobody_holds_is_not_kept_for_forks() -> None:
    held = PerProcess(list)
    reference = weakref.ref(held)
    del held
    gc.collect()
    assert reference() is None


def _until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.005)
