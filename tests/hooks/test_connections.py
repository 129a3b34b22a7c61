# SPDX-License-Identifier: Apache-2.0
"""TCP connections: kept while they are of use, and gone afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.api.timing import slot_seconds
from airflow_provider_capillary.exceptions import CapillaryError
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import QUICK, SERIES
from tests.hooks.servers import relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Authority, Connect, Start, Watch
    from tests.hooks.servers import Server


@pytest.fixture
def counting(sandbox: Sandbox, connect: Connect) -> Iterator[Server]:
    """A relay before the sandbox, to which the connection leads."""
    with relay(sandbox.port) as server:
        connect(sandbox, fields={"port": server.port})
        yield server


def client_sockets(port: int) -> int:
    """How many sockets of this process are connected to a port of loopback.

    Found by inode, because the other end, the sandbox, is in this process too.
    """
    peers = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port:
            peers.add(fields[9])
    count = 0
    for handle in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115
        except OSError:
            continue
        count += target.startswith("socket:[") and target[8:-1] in peers
    return count


@contextmanager
def no_resource_warning() -> Iterator[None]:
    """Fail if something was left for the garbage collector to close."""
    gc.collect()
    gc.freeze()  # what is here already, all of Airflow, need not be scanned again
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            yield
            gc.collect()
    finally:
        gc.unfreeze()
    assert [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)] == []


class TestKept:
    def test_many_calls_take_one_connection(self, client: Client, sandbox: Sandbox, counting: Server) -> None:
        with client.opened() as hook:
            for _ in range(20):
                hook.jobs()
        assert sandbox.counts == {"token": 1, "status": 20}
        assert counting.accepted == 1

    def test_error_answers_do_not_cost_one(self, client: Client, sandbox: Sandbox, counting: Server) -> None:
        for kind in ("status", "html", "empty", "text", "gzip", "expired_token"):
            sandbox.inject(Fault(kind, endpoint="status"))
        with client.opened() as hook:
            hook.jobs()
        assert sandbox.counts["status"] >= 5
        assert counting.accepted == 1

    def test_a_broken_one_is_replaced(self, client: Client, sandbox: Sandbox, counting: Server) -> None:
        sandbox.inject(Fault("cut", endpoint="status", fraction=0.5))
        with client.opened() as hook:
            hook.jobs()
            hook.jobs()
        assert counting.accepted == 2

    def test_one_that_the_host_closed_while_idle_costs_nothing(
        self, client: Client, sandbox: Sandbox, conn_id: str
    ) -> None:
        with client.opened(conn_id) as hook:
            hook.jobs()
            sandbox.stop()
            sandbox.start()
            hook.jobs()
        assert sandbox.counts == {"token": 1, "status": 2}

    def test_files_take_it_too(self, sandbox: Sandbox, counting: Server) -> None:
        hook = CapillaryHook(http_retry=QUICK)
        for size in (10, 100_000, 3_000_000):
            job = sandbox.add_job(SERIES, errors=1, error_file=b"x" * size)
            with hook.open_error_file(hook.get_redeem_upload_job(SERIES, job.job_id)) as stream:
                assert len(stream.read()) == size
        assert counting.accepted <= 2  # one for questions, one for files

    async def test_requests_that_come_together_take_one_while_answers_are_quick(
        self, sandbox: Sandbox, counting: Server
    ) -> None:
        async with CapillaryAsyncHook() as hook:
            await asyncio.gather(*(hook.get_redeem_upload_jobs(series) for series in range(SERIES, SERIES + 10)))
        assert sandbox.counts == {"token": 1, "status": 10}
        assert counting.accepted == 1

    async def test_a_slow_answer_holds_up_requests_that_come_with_it_for_a_moment_only(
        self, sandbox: Sandbox, counting: Server
    ) -> None:
        sandbox.inject(Fault("slow", endpoint="status", seconds=2.0))
        ended: list[int] = []

        async def ask(series: int) -> None:
            await hook.get_redeem_upload_jobs(series)
            ended.append(series)

        async with CapillaryAsyncHook() as hook:
            await asyncio.gather(*(ask(series) for series in range(SERIES, SERIES + 5)))
        assert ended[-1] == SERIES
        assert counting.accepted > 1

    async def test_one_that_is_idle_from_slot_to_slot_is_kept(self, sandbox: Sandbox, counting: Server) -> None:
        async with CapillaryAsyncHook() as hook:
            await hook.get_redeem_upload_jobs(SERIES)
            await asyncio.sleep(slot_seconds(3600.0) + 0.5)
            await hook.get_redeem_upload_jobs(SERIES)
        assert counting.accepted == 1

    def test_one_over_tls_is_kept_as_well(
        self, client: Client, start: Start, authority: Authority, connect: Connect
    ) -> None:
        sandbox = start(ssl_context=authority.server_context())
        with relay(sandbox.port) as counting:
            connect(sandbox, fields={"port": counting.port}, verify=str(authority.bundle))
            with client.opened() as hook:
                for _ in range(5):
                    hook.jobs()
            assert counting.accepted == 1


class TestGone:
    @pytest.mark.parametrize("kind", [None, "cut", "slow"])
    def test_a_closed_hook_leaves_none(
        self, client: Client, sandbox: Sandbox, connect: Connect, kind: str | None
    ) -> None:
        connect(sandbox, timeout_seconds=0.1 if kind == "slow" else 30)
        if kind is not None:
            sandbox.inject(Fault(kind, endpoint="status", seconds=9, times=None))
        with no_resource_warning():
            with client.opened() as hook:
                try:
                    hook.jobs()
                except CapillaryError:
                    assert kind is not None
                if not client.is_async:
                    assert client_sockets(sandbox.port) <= 1
            del hook
            gc.collect()  # the blocking hook is closed by being forgotten
            assert client_sockets(sandbox.port) == 0

    def test_a_file_that_is_not_read_to_its_end_leaves_none_open(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=b"x" * 20_000_000)
        found = hook.get_redeem_upload_job(SERIES, job.job_id)
        with no_resource_warning():
            with hook.open_error_file(found) as stream:
                assert stream.read(10) == b"x" * 10
                while_open = client_sockets(sandbox.port)
                assert while_open >= 1
            # Half an answer makes a connection useless; one that is kept for questions may stay.
            assert client_sockets(sandbox.port) == while_open - 1
            assert stream.closed

    def test_neither_does_an_error_in_between(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=b"x" * 20_000_000)
        found = hook.get_redeem_upload_job(SERIES, job.job_id)

        while_open = 0

        def stumble() -> None:
            nonlocal while_open
            with hook.open_error_file(found) as stream:
                stream.read(10)
                while_open = client_sockets(sandbox.port)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            stumble()
        assert client_sockets(sandbox.port) == while_open - 1

    def test_a_file_that_is_not_read_at_all_is_not_asked_for(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        job = sandbox.add_job(SERIES, errors=1)
        found = hook.get_redeem_upload_job(SERIES, job.job_id)
        with no_resource_warning(), hook.open_error_file(found):
            pass
        assert sandbox.count("download") == 0

    def test_a_session_of_ones_own_leaves_none(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        with no_resource_warning():
            with hook.get_conn() as session:
                session.get(f"{sandbox.base_url}/coupon/x")
            del session
            hook._connection.open().close()
            assert client_sockets(sandbox.port) == 0

    def test_the_test_of_a_connection_leaves_none(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        with no_resource_warning():
            assert hook.test_connection()[0]
            gc.collect()
            assert client_sockets(sandbox.port) == 0

    def test_an_awaited_hook_that_cannot_be_opened_leaves_nothing(
        self, sandbox: Sandbox, connect: Connect, client: Client, watch: Watch
    ) -> None:
        connect(sandbox, verify="/no/such/bundle.pem")
        with pytest.raises(CapillaryError):
            client.jobs()
        assert watch.of("socket.connect") == []
