# SPDX-License-Identifier: Apache-2.0
"""The awaited hook shares its loop with every other trigger: it never blocks it, and it can be cancelled."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api import client as client_module
from airflow_provider_capillary.exceptions import CapillaryError
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import QUICK, SERIES
from tests.hooks.servers import silent
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.conftest import Connect, Watch

CALLS = 30


class SlowReading:
    """Reads an answer, but only once it is allowed to."""

    def __init__(self, read: Callable[..., Any]) -> None:
        self.is_held = False
        self.began, self.go_on = threading.Event(), threading.Event()
        self._read = read

    def __call__(self, *given: Any, **named: Any) -> Any:
        if self.is_held:
            self.began.set()
            assert self.go_on.wait(20)
        return self._read(*given, **named)


async def ask_with_faults(sandbox: Sandbox, conn_id: str) -> None:
    """Ask many times at once, while all kinds of things go wrong."""
    sandbox.expire_tokens()
    for kind in ("status", "reset", "cut", "html", "empty", "text", "expired_token", "gzip", "drip"):
        sandbox.inject(Fault(kind, endpoint="any", times=3, skip=1, seconds=0.2, retry_after=1))
    async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
        asked = (hook.get_redeem_upload_jobs(SERIES) for _ in range(CALLS))
        ends = await asyncio.gather(*asked, return_exceptions=True)
    sandbox.clear_faults()
    assert all(isinstance(end, list | CapillaryError) for end in ends)
    assert sum(isinstance(end, list) for end in ends) > CALLS / 2


async def test_nothing_that_blocks_is_called_on_the_loop(sandbox: Sandbox, conn_id: str, watch: Watch) -> None:
    await ask_with_faults(sandbox, conn_id)  # what is imported the first time is read from files
    watch.events.clear()
    await ask_with_faults(sandbox, conn_id)
    ours = threading.get_ident()
    assert watch.of("time.sleep", thread=ours) == []
    assert watch.of("socket.getaddrinfo", thread=ours) == []
    assert watch.of("open", thread=ours) == []
    assert watch.of("socket.connect", thread=ours)  # the loop itself connects, without waiting


async def test_certificates_are_read_off_the_loop_and_once_for_all_hooks(
    sandbox: Sandbox, connect: Connect, watch: Watch, authority: object
) -> None:
    conn_id = connect(sandbox, verify=str(authority.bundle))
    for _ in range(3):
        async with CapillaryAsyncHook(conn_id):
            pass
    assert not [path for path, *_ in watch.of("open", thread=threading.get_ident()) if str(path).endswith(".pem")]


async def test_no_slow_callback_is_reported(sandbox: Sandbox, conn_id: str, caplog: pytest.LogCaptureFixture) -> None:
    await ask_with_faults(sandbox, conn_id)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.1
    reports: list[str] = []
    # Another process may hold the processor for as long; what blocks by itself does so every time.
    for _ in range(8):
        gc.collect()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "asyncio"):
            await ask_with_faults(sandbox, conn_id)
        reports = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
        if not reports:
            break
    loop.set_debug(False)
    assert reports == []


async def test_the_loop_goes_on_while_an_answer_is_awaited(sandbox: Sandbox, conn_id: str) -> None:
    sandbox.inject(Fault("slow", endpoint="token", seconds=0.3))
    async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
        asked = asyncio.create_task(hook.get_redeem_upload_jobs(SERIES))
        turns = 0
        while not asked.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert await asked == []
    assert turns >= 5


@pytest.mark.parametrize("endpoint", ["token", "status"])
async def test_a_question_can_be_cancelled_while_an_answer_is_awaited(
    sandbox: Sandbox, conn_id: str, endpoint: str
) -> None:
    sandbox.inject(Fault("slow", endpoint=endpoint, seconds=60))
    async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
        asked = asyncio.create_task(hook.get_redeem_upload_jobs(SERIES))
        await until(lambda: sandbox.count(endpoint) == 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        # The hook is as good as before.
        assert await hook.get_redeem_upload_jobs(SERIES) == []


async def test_a_question_can_be_cancelled_while_a_long_answer_is_read(
    sandbox: Sandbox, conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(500):
        sandbox.add_job(SERIES)
    reading = SlowReading(client_module.read_payload)
    monkeypatch.setattr(client_module, "read_payload", reading)
    async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
        assert (await hook.get_redeem_upload_jobs(1)) == []  # and with it comes the token
        reading.is_held = True
        asked = asyncio.create_task(hook.get_redeem_upload_jobs(SERIES))
        await until(reading.began.is_set)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        reading.go_on.set()
        assert len(await hook.get_redeem_upload_jobs(SERIES)) == 500


async def test_it_can_be_cancelled_while_waiting_to_try_again(sandbox: Sandbox, conn_id: str) -> None:
    sandbox.inject(Fault("status", endpoint="status", retry_after=60))
    async with CapillaryAsyncHook(conn_id) as hook:
        asked = asyncio.create_task(hook.get_redeem_upload_jobs(SERIES))
        await until(lambda: sandbox.count("status") == 1)
        await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert sandbox.count("status") == 1


async def test_a_timeout_from_outside_is_not_taken_for_one_of_the_network(sandbox: Sandbox, connect: Connect) -> None:
    with silent() as server:
        async with CapillaryAsyncHook(connect(sandbox, fields={"port": server.port}), http_retry=QUICK) as hook:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await hook.get_redeem_upload_jobs(SERIES)
        assert server.accepted == 1


async def test_closing_ends_the_hook_while_questions_are_open(sandbox: Sandbox, conn_id: str) -> None:
    sandbox.inject(Fault("slow", endpoint="status", seconds=60))
    async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
        asked = asyncio.create_task(hook.get_redeem_upload_jobs(SERIES))
        await until(lambda: sandbox.count("status") == 1)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert asked.done()


async def test_the_limit_of_requests_is_waited_for_without_blocking(sandbox: Sandbox, connect: Connect) -> None:
    conn_id = connect(sandbox, requests_per_minute=600)  # sixty at once, then one every tenth of a second
    async with CapillaryAsyncHook(conn_id) as hook:
        await asyncio.gather(*(hook.get_redeem_upload_jobs(SERIES) for _ in range(62)))
    moments = [request.at for request in sandbox.requests]
    assert len(moments) == 63
    assert moments[-1] - moments[0] >= 0.2
