# SPDX-License-Identifier: Apache-2.0
"""One token per connection and process, fetched once however many need it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary._transport.connection_state import connection_state
from airflow_provider_capillary.exceptions import CapillaryAuthError, CapillaryError, CapillaryTransportError
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import ASYNC, CONN_ID, QUICK, SERIES, SYNC, TOKEN_HEADER
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Connect, Start

FORMS = ("http_401", "http_498", "body_401", "body_498")


def in_threads(count: int, work: Callable[[], object]) -> list[object]:
    """Do the same in many threads, which begin together; return results, or the errors they ended in."""
    together = threading.Barrier(count)

    def one() -> object:
        together.wait()
        try:
            return work()
        except CapillaryError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [future.result(30) for future in [pool.submit(one) for _ in range(count)]]


def ask_blocking() -> list[object]:
    return list(CapillaryHook(CONN_ID, http_retry=QUICK).get_redeem_upload_jobs(SERIES))


async def ask_awaited() -> list[object]:
    async with CapillaryAsyncHook(CONN_ID, http_retry=QUICK) as hook:
        return list(await hook.get_redeem_upload_jobs(SERIES))


@pytest.mark.parametrize("ttl", [600, 3600])
def test_a_token_without_a_ttl_is_used_as_long_as_its_claims_say(
    client: Client, start: Start, connect: Connect, ttl: int
) -> None:
    sandbox = start(token_ttl_seconds=ttl, ttl_in_answer=False)
    settings = CapillaryHook(connect(sandbox)).settings
    client.jobs()
    token = connection_state(settings).tokens.held()
    assert token is not None
    assert token.use_until - time.monotonic() == pytest.approx(ttl - 60, abs=5)


@pytest.fixture
def slow_tokens(sandbox: Sandbox) -> None:
    """A token takes its time, so that whoever asks at once really has to wait for the same one."""
    sandbox.inject(Fault("slow", endpoint="token", seconds=0.3))


class TestSharing:
    def test_many_questions_take_one_token(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        with client.opened(conn_id) as hook:
            for _ in range(12):
                hook.jobs()
        assert sandbox.counts == {"token": 1, "status": 12}

    def test_all_hooks_of_a_connection_share_it_blocking_or_awaited(self, sandbox: Sandbox, conn_id: str) -> None:
        for each in (SYNC, ASYNC, SYNC, ASYNC):
            each.jobs(conn_id)
        assert sandbox.counts == {"token": 1, "status": 4}
        used = {request.headers[TOKEN_HEADER] for request in sandbox.requests if request.endpoint == "status"}
        assert used == set(sandbox.tokens_issued)

    def test_connections_do_not_share_it_even_to_the_same_host(
        self, client: Client, sandbox: Sandbox, connect: Connect
    ) -> None:
        for name in ("brand_one", "brand_two"):
            client.jobs(connect(sandbox, name))
        assert sandbox.count("token") == 2

    def test_a_session_of_ones_own_uses_the_same(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        hook.get_redeem_upload_jobs(SERIES)
        path = f"/coupon/api/v1/upload/getUploadRedeemedCouponStatus/{SERIES}"
        with hook.get_conn() as session:
            assert session.get(sandbox.base_url + path).json()["success"] is True
        assert sandbox.counts == {"token": 1, "status": 2}


@pytest.mark.usefixtures("conn_id", "slow_tokens")
class TestOneFetchAtATime:
    def test_twenty_threads_with_a_hook_each(self, sandbox: Sandbox) -> None:
        assert in_threads(20, ask_blocking) == [[]] * 20
        assert sandbox.counts == {"token": 1, "status": 20}

    def test_twenty_threads_with_one_hook(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        assert in_threads(20, lambda: hook.get_redeem_upload_jobs(SERIES)) == [[]] * 20
        assert sandbox.counts == {"token": 1, "status": 20}

    async def test_fifty_coroutines_with_one_hook(self, sandbox: Sandbox, conn_id: str) -> None:
        async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
            answers = await asyncio.gather(*(hook.get_redeem_upload_jobs(SERIES) for _ in range(50)))
        assert answers == [[]] * 50
        assert sandbox.counts == {"token": 1, "status": 50}

    async def test_fifty_coroutines_with_a_hook_each(self, sandbox: Sandbox) -> None:
        assert await asyncio.gather(*(ask_awaited() for _ in range(50))) == [[]] * 50
        assert sandbox.counts == {"token": 1, "status": 50}

    @pytest.mark.parametrize("first", ["threads", "loop"])
    async def test_threads_and_a_loop_together(self, sandbox: Sandbox, first: str) -> None:
        async def threads() -> object:
            return await asyncio.to_thread(in_threads, 10, ask_blocking)

        async def coroutines() -> object:
            return await asyncio.gather(*(ask_awaited() for _ in range(10)))

        work = [threads, coroutines] if first == "threads" else [coroutines, threads]
        running = []
        for each in work:
            running.append(asyncio.create_task(each()))
            await asyncio.sleep(0.1)  # the token is still on its way
        assert [await task for task in running] == [[[]] * 10] * 2
        assert sandbox.counts == {"token": 1, "status": 20}

    async def test_two_loops_in_two_threads(self, sandbox: Sandbox) -> None:
        def own_loop() -> list[object]:
            return asyncio.run(ask_awaited())

        assert await asyncio.to_thread(in_threads, 2, own_loop) == [[], []]
        assert sandbox.counts == {"token": 1, "status": 2}

    def test_who_waited_also_shares_the_error(self, sandbox: Sandbox, connect: Connect) -> None:
        connect(sandbox, fields={"password": "wrong"})
        ends = in_threads(10, ask_blocking)
        assert [type(end) for end in ends] == [CapillaryAuthError] * 10
        # Not the same exception object: it would collect the tracebacks of ten threads.
        assert len({id(end) for end in ends}) == 10
        assert len({str(end) for end in ends}) == 1
        assert sandbox.counts == {"token": 1}

    def test_a_failure_is_not_kept(self, sandbox: Sandbox, client: Client) -> None:
        sandbox.clear_faults()
        sandbox.inject(Fault("reset", endpoint="token", times=QUICK.max_attempts))
        with pytest.raises(CapillaryTransportError):
            client.jobs()
        assert client.jobs() == []


class TestCancelling:
    async def test_the_next_in_line_takes_over_from_a_cancelled_leader(
        self, sandbox: Sandbox, conn_id: str, slow_tokens: None
    ) -> None:
        async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
            leader = asyncio.create_task(hook.get_redeem_upload_jobs(SERIES))
            await until(lambda: sandbox.count("token") == 1)
            waiting = [asyncio.create_task(hook.get_redeem_upload_jobs(SERIES)) for _ in range(5)]
            await asyncio.sleep(0)
            leader.cancel()
            assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [[]] * 5
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert sandbox.counts == {"token": 2, "status": 5}

    async def test_a_thread_takes_over_from_a_cancelled_coroutine(
        self, sandbox: Sandbox, conn_id: str, slow_tokens: None
    ) -> None:
        async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
            leader = asyncio.create_task(hook.get_redeem_upload_jobs(SERIES))
            await until(lambda: sandbox.count("token") == 1)
            waiting = asyncio.create_task(asyncio.to_thread(ask_blocking))
            await asyncio.sleep(0.05)
            leader.cancel()
            assert await asyncio.wait_for(waiting, 10) == []
        assert sandbox.counts == {"token": 2, "status": 1}

    async def test_a_cancelled_waiter_takes_nobody_along(
        self, sandbox: Sandbox, conn_id: str, slow_tokens: None
    ) -> None:
        async with CapillaryAsyncHook(conn_id, http_retry=QUICK) as hook:
            leader = asyncio.create_task(hook.get_redeem_upload_jobs(SERIES))
            await until(lambda: sandbox.count("token") == 1)
            waiters = [asyncio.create_task(hook.get_redeem_upload_jobs(SERIES)) for _ in range(3)]
            await asyncio.sleep(0)
            waiters[1].cancel()
            assert await leader == await waiters[0] == await waiters[2] == []
            with pytest.raises(asyncio.CancelledError):
                await waiters[1]
        assert sandbox.counts == {"token": 1, "status": 3}

    async def test_a_waiter_that_left_with_its_loop_does_not_disturb_the_fetch(
        self, sandbox: Sandbox, conn_id: str, slow_tokens: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        leader = asyncio.create_task(asyncio.to_thread(ask_blocking))
        await until(lambda: sandbox.count("token") == 1)

        async def leave() -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ask_awaited(), 0.05)

        await asyncio.to_thread(asyncio.run, leave())
        assert await leader == []
        assert sandbox.counts == {"token": 1, "status": 1}
        assert not [record for record in caplog.records if record.name.startswith(("concurrent", "asyncio"))]


class TestExpiry:
    def test_a_token_is_renewed_before_capillary_refuses_it(
        self, client: Client, start: Start, connect: Connect
    ) -> None:
        ttl_seconds = 2
        sandbox = start(token_ttl_seconds=ttl_seconds)
        connect(sandbox)
        asked = 0
        with client.opened() as hook:
            end = time.monotonic() + ttl_seconds * 1.15
            while time.monotonic() < end:
                hook.jobs()
                asked += 1
                time.sleep(ttl_seconds / 20)
        # A refused token would have cost a status request more than was asked: none was ever refused.
        assert sandbox.count("status") == asked
        used = [request.headers[TOKEN_HEADER] for request in sandbox.requests if request.endpoint == "status"]
        assert set(used) == set(sandbox.tokens_issued)
        assert len(set(used)) >= 2

    @pytest.mark.parametrize("form", FORMS)
    def test_a_refused_token_leads_to_one_new_token_and_one_more_request(
        self, client: Client, start: Start, connect: Connect, form: str
    ) -> None:
        sandbox = start(refusal=form)
        connect(sandbox)
        sandbox.add_job(SERIES)
        with client.opened() as hook:
            hook.jobs()
            sandbox.expire_tokens()
            assert len(hook.jobs()) == 1
            assert len(hook.jobs()) == 1
        assert sandbox.counts == {"token": 2, "status": 4}

    @pytest.mark.parametrize("form", FORMS)
    def test_a_second_refusal_is_an_error_of_authentication(
        self, client: Client, sandbox: Sandbox, conn_id: str, form: str
    ) -> None:
        sandbox.inject(Fault("expired_token", endpoint="status", form=form, times=None))
        with pytest.raises(CapillaryAuthError, match="refuses even a fresh token") as caught:
            client.jobs(conn_id)
        assert type(caught.value) is CapillaryAuthError
        layer, _, code = form.partition("_")
        assert caught.value.http_status == (int(code) if layer == "http" else 200)
        assert caught.value.api_code == code
        assert not caught.value.is_transient
        assert sandbox.counts == {"token": 2, "status": 2}

    def test_a_refusal_without_any_body_counts_as_well(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.inject(Fault("body", endpoint="status", status=401, body=""))
        assert client.jobs(conn_id) == []
        assert sandbox.counts == {"token": 2, "status": 2}

    def test_a_refusal_does_not_use_up_the_attempts(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.inject(Fault("status", endpoint="status", status=503, times=2))
        sandbox.inject(Fault("expired_token", endpoint="status"))
        sandbox.inject(Fault("status", endpoint="status", status=503, times=2))
        assert client.jobs(conn_id) == []
        assert sandbox.counts == {"token": 2, "status": 6}

    def test_many_who_are_refused_together_fetch_one_new_token(self, sandbox: Sandbox, conn_id: str) -> None:
        assert ask_blocking() == []
        sandbox.expire_tokens()
        assert in_threads(10, ask_blocking) == [[]] * 10
        # Whoever is refused late finds the new token already there.
        assert sandbox.count("token") == 2
        assert sandbox.count("status") <= 1 + 10 + 10


class TestCredentials:
    @pytest.mark.parametrize("status", [200, 400, 401])
    @pytest.mark.parametrize("wrong", ["login", "password"])
    def test_wrong_ones_are_an_error_at_once(
        self, client: Client, start: Start, connect: Connect, status: int, wrong: str
    ) -> None:
        sandbox = start(bad_credentials_status=status)
        connect(sandbox, fields={wrong: "wrong-credential"})
        refused = "Connection '.+': Capillary does not accept the client key and secret"
        with pytest.raises(CapillaryAuthError, match=refused) as caught:
            client.jobs()
        assert sandbox.counts == {"token": 1}
        assert (caught.value.http_status, caught.value.api_code) == (status, "320001")
        assert caught.value.request_id
        assert not caught.value.is_transient
        assert "wrong-credential" not in str(caught.value)

    @pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"accessToken": ""}}, {"data": {"accessToken": 7}}])
    def test_an_answer_without_a_token_is_one_too(
        self, client: Client, sandbox: Sandbox, conn_id: str, body: object
    ) -> None:
        sandbox.inject(Fault("body", endpoint="token", status=200, body=body, times=None))
        with pytest.raises(CapillaryAuthError, match="without a token"):
            client.jobs(conn_id)
        assert sandbox.counts == {"token": 1}

    def test_a_transient_error_of_the_token_endpoint_is_none(
        self, client: Client, sandbox: Sandbox, conn_id: str
    ) -> None:
        sandbox.inject(Fault("status", endpoint="token", status=503, times=2))
        sandbox.inject(Fault("reset", endpoint="token"))
        sandbox.inject(Fault("html", endpoint="token", status=200))
        assert client.jobs(conn_id) == []
        assert sandbox.counts == {"token": 5, "status": 1}

    def test_a_token_that_no_header_can_carry_is_refused(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        body = {"data": {"accessToken": "line\r\nX-Evil: 1", "ttlSeconds": 300}}
        sandbox.inject(Fault("body", endpoint="token", status=200, body=body))
        with pytest.raises(CapillaryAuthError, match="no header can carry"):
            client.jobs(conn_id)
        assert sandbox.counts == {"token": 1}

    @pytest.mark.parametrize("changed", ["password", "login", "auth_url"])
    def test_an_edited_connection_begins_with_a_new_token(
        self, client: Client, sandbox: Sandbox, connect: Connect, changed: str
    ) -> None:
        client.jobs(connect(sandbox))
        if changed == "auth_url":
            connect(sandbox, auth_url=f"{sandbox.base_url}/v3/oauth/token/generate?edited=1")
            client.jobs()
        else:
            connect(sandbox, fields={changed: "edited"})
            with pytest.raises(CapillaryAuthError):
                client.jobs()
        assert sandbox.count("token") == 2

    def test_an_edit_that_does_not_matter_to_the_token_keeps_it(
        self, client: Client, sandbox: Sandbox, connect: Connect
    ) -> None:
        client.jobs(connect(sandbox))
        client.jobs(connect(sandbox, timeout_seconds=7))
        assert sandbox.counts == {"token": 1, "status": 2}
