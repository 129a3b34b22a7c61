# SPDX-License-Identifier: Apache-2.0
"""Connections with Authentication type bearer: a ready token that a secrets backend may rotate."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._transport.sync_connection import SyncConnection
from airflow_provider_capillary.exceptions import CapillaryAccessError, CapillaryAuthError, CapillaryError
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.airflow_compat import redact
from tests.hooks.clients import CONN_ID, QUICK, SERIES, TOKEN_HEADER, file_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox import RecordedRequest, Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Connect, Logged, Start

    Store = Callable[..., str]


def issue(sandbox: Sandbox, *, seconds: float = 300) -> str:
    """Return a token that the sandbox accepts for so long; none at all below 0."""
    sandbox.token_ttl_seconds = seconds
    return sandbox.issue_token()


@pytest.fixture
def store(connect: Connect) -> Store:
    """Store a ready token in the connection, as a user or a secrets backend does."""

    def define(sandbox: Sandbox, token: str, **extra: Any) -> str:
        connect(sandbox, fields={"login": None, "password": token}, auth_type="bearer", **extra)
        return token

    return define


def carried(request: RecordedRequest) -> tuple[str | None, str | None]:
    return request.headers.get("Authorization"), request.headers.get(TOKEN_HEADER)


def bearer(token: str) -> tuple[str, None]:
    return f"Bearer {token}", None


class TestSending:
    @pytest.mark.parametrize("prefix", ["", "Bearer "])
    def test_the_token_is_sent_and_none_is_fetched(
        self, client: Client, sandbox: Sandbox, store: Store, prefix: str
    ) -> None:
        token = issue(sandbox)
        store(sandbox, prefix + token)
        assert client.jobs() == client.jobs() == []
        assert sandbox.counts == {"status": 2}
        assert [carried(request) for request in sandbox.requests] == [bearer(token)] * 2

    def test_an_expired_token_is_not_sent(self, client: Client, sandbox: Sandbox, store: Store) -> None:
        store(sandbox, issue(sandbox, seconds=-60))
        with pytest.raises(CapillaryAuthError, match=r"expired at .* store a new token as Client secret"):
            client.jobs()
        assert sandbox.counts == {}

    def test_a_refused_token_is_sent_once(self, client: Client, sandbox: Sandbox, store: Store) -> None:
        store(sandbox, issue(sandbox))
        sandbox.expire_tokens()
        with pytest.raises(CapillaryAuthError, match="it is the ready token of connection 'capillary_default'"):
            client.jobs()
        assert sandbox.counts == {"status": 1}

    def test_a_file_elsewhere_is_fetched_without_it(self, sandbox: Sandbox, start: Start, store: Store) -> None:
        elsewhere = start()
        for each in (elsewhere, sandbox):
            each.add_job(SERIES, errors=1)
        store(sandbox, issue(sandbox), error_file_url=f"{elsewhere.base_url}/files/{{handle}}")
        hook = CapillaryHook(http_retry=QUICK)
        (job,) = hook.get_redeem_upload_jobs(SERIES)
        with hook.open_error_file(job) as stream:
            assert stream.read()
        assert [carried(request) for request in elsewhere.requests] == [(None, None)]

    def test_fields_without_use_are_warned_about_by_name(self, sandbox: Sandbox, store: Store, logged: Logged) -> None:
        store(sandbox, issue(sandbox), auth_url=f"{sandbox.base_url}/token")
        CapillaryHook(http_retry=QUICK).get_redeem_upload_jobs(SERIES)
        assert "has fields that are not used with Authentication type bearer: Authentication URL" in logged.text


class TestRotation:
    """The connection is read once more before an expired or refused token is an error."""

    def test_reaches_a_hook_whose_token_is_refused(self, client: Client, sandbox: Sandbox, store: Store) -> None:
        old = store(sandbox, issue(sandbox))
        with client.opened() as hook:
            hook.jobs()
            sandbox.expire_tokens()
            new = store(sandbox, issue(sandbox))
            assert hook.jobs() == hook.jobs() == []
        assert [carried(request) for request in sandbox.requests] == [bearer(each) for each in (old, old, new, new)]

    def test_reaches_a_hook_whose_token_has_expired(self, client: Client, sandbox: Sandbox, store: Store) -> None:
        store(sandbox, issue(sandbox, seconds=-60))
        with client.opened() as hook:
            if not client.is_async:  # the other has read it by now
                assert hook.hook.settings.ready_token
            new = store(sandbox, issue(sandbox))
            assert hook.jobs() == []
        assert [carried(request) for request in sandbox.requests] == [bearer(new)]

    def test_reaches_a_hook_that_changes_to_oauth(
        self, client: Client, sandbox: Sandbox, store: Store, connect: Connect
    ) -> None:
        store(sandbox, issue(sandbox))
        with client.opened() as hook:
            hook.jobs()
            sandbox.expire_tokens()
            connect(sandbox)
            assert hook.jobs() == []
        assert carried(sandbox.requests[-1]) == (None, sandbox.tokens_issued[-1])

    def test_of_key_and_secret_reaches_a_hook_as_well(self, client: Client, sandbox: Sandbox, connect: Connect) -> None:
        connect(sandbox, fields={"password": "old-secret"})
        with client.opened() as hook:
            if not client.is_async:
                assert hook.hook.settings.client_secret == "old-secret"
            connect(sandbox)
            assert hook.jobs() == []
        assert sandbox.counts == {"token": 2, "status": 1}

    def test_to_another_bad_token_is_read_once(self, client: Client, sandbox: Sandbox, store: Store) -> None:
        store(sandbox, issue(sandbox))
        with client.opened() as hook:
            hook.jobs()
            store(sandbox, issue(sandbox))
            sandbox.expire_tokens()
            with pytest.raises(CapillaryAuthError, match="does not accept the token"):
                hook.jobs()
        assert sandbox.counts == {"status": 3}

    def test_does_not_hide_the_refusal_where_the_connection_cannot_be_read(
        self, client: Client, sandbox: Sandbox, store: Store, logged: Logged, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(sandbox, issue(sandbox))
        with client.opened() as hook:
            hook.jobs()
            sandbox.expire_tokens()
            monkeypatch.delenv(f"AIRFLOW_CONN_{CONN_ID.upper()}")
            with pytest.raises(CapillaryAuthError, match="does not accept the token"):
                hook.jobs()
        assert "Keeping the previous settings of Airflow connection 'capillary_default'" in logged.text

    def test_reaches_all_threads_of_a_hook(self, sandbox: Sandbox, store: Store) -> None:
        store(sandbox, issue(sandbox))
        hook = CapillaryHook(http_retry=QUICK)
        hook.get_redeem_upload_jobs(SERIES)
        for _ in range(5):
            sandbox.expire_tokens()
            store(sandbox, issue(sandbox))
            with ThreadPoolExecutor(8) as pool:
                results = list(pool.map(lambda _: hook.get_redeem_upload_jobs(SERIES), range(24)))
            assert results == [[]] * 24

    def test_leaves_no_connection_open_that_a_thread_opens_with_the_old_settings(
        self, sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(sandbox, issue(sandbox))
        hook = CapillaryHook(http_retry=QUICK)
        assert hook.settings.auth_type == "bearer"
        opening, refreshed = threading.Event(), threading.Event()
        open_connection = SyncConnection.open

        def slow(settings: Any, **given: Any) -> SyncConnection:
            opening.set()
            refreshed.wait(1)
            return open_connection(settings, **given)

        monkeypatch.setattr(SyncConnection, "open", slow)
        thread = threading.Thread(target=hook._connection.open)
        thread.start()
        assert opening.wait(10)
        store(sandbox, issue(sandbox))
        assert hook._refresh()
        refreshed.set()
        thread.join()
        assert hook._connection.open().client.settings == hook.settings

    async def test_reaches_all_requests_of_an_awaited_hook_and_is_read_once(
        self, sandbox: Sandbox, store: Store, logged: Logged
    ) -> None:
        store(sandbox, issue(sandbox))
        async with CapillaryAsyncHook(http_retry=QUICK) as hook:
            await hook.get_redeem_upload_jobs(SERIES)
            sandbox.expire_tokens()
            new = store(sandbox, issue(sandbox))
            results = await asyncio.gather(*(hook.get_redeem_upload_jobs(SERIES) for _ in range(20)))
        assert results == [[]] * 20
        assert [carried(request) for request in sandbox.requests].count(bearer(new)) == 20
        assert logged.text.count("changed; using the new settings") >= 1

    def test_reaches_a_session_of_ones_own(self, sandbox: Sandbox, store: Store) -> None:
        store(sandbox, issue(sandbox, seconds=-60))
        hook = CapillaryHook(http_retry=QUICK)
        with hook.get_conn() as session:
            new = store(sandbox, issue(sandbox))
            session.get(f"{sandbox.base_url}/coupon/x")
        assert [carried(request) for request in sandbox.requests] == [bearer(new)]

    def test_to_another_host_sends_no_new_token_to_the_old_one(
        self, sandbox: Sandbox, start: Start, store: Store
    ) -> None:
        moved = start()
        store(sandbox, issue(sandbox, seconds=-60))
        hook = CapillaryHook(http_retry=QUICK)
        with hook.get_conn() as session:
            store(moved, issue(moved))
            session.get(f"{sandbox.base_url}/coupon/x")
        assert [carried(request) for request in sandbox.requests] == [(None, None)]

    def test_to_oauth_keeps_the_new_header_from_the_host_of_a_redirect(
        self, sandbox: Sandbox, start: Start, store: Store, connect: Connect
    ) -> None:
        elsewhere = start()
        sandbox.inject(Fault("redirect", endpoint="other", location=f"{elsewhere.base_url}/y"))
        store(sandbox, issue(sandbox, seconds=-60))
        with CapillaryHook(http_retry=QUICK).get_conn() as session:
            sandbox.token_ttl_seconds = 300
            connect(sandbox)
            session.get(f"{sandbox.base_url}/coupon/x")
        assert carried(sandbox.requests[-1]) == (None, sandbox.tokens_issued[-1])
        assert [carried(request) for request in elsewhere.requests] == [(None, None)]


class TestFiles:
    def test_a_refused_download_goes_on_with_the_rotated_token(self, sandbox: Sandbox, store: Store) -> None:
        content = file_bytes(3 << 20)
        sandbox.add_job(SERIES, errors=1, error_file=content)
        old = store(sandbox, issue(sandbox))
        hook = CapillaryHook(http_retry=QUICK)
        (job,) = hook.get_redeem_upload_jobs(SERIES)
        sandbox.expire_tokens()
        new = store(sandbox, issue(sandbox))
        with hook.open_error_file(job) as stream:
            assert stream.read() == content
        assert [carried(request) for request in sandbox.requests[1:]] == [bearer(old), bearer(new)]
        assert sandbox.counts == {"status": 1, "download": 2}

    def test_a_token_refused_in_the_middle_of_a_file_ends_the_read(self, sandbox: Sandbox, store: Store) -> None:
        content = file_bytes(4 << 20)
        sandbox.add_job(SERIES, errors=1, error_file=content)
        store(sandbox, issue(sandbox))
        hook = CapillaryHook(http_retry=QUICK)
        (job,) = hook.get_redeem_upload_jobs(SERIES)
        sandbox.inject(Fault("cut", endpoint="download"))
        with hook.open_error_file(job) as stream:
            assert stream.read(1) == content[:1]
            sandbox.expire_tokens()
            store(sandbox, issue(sandbox))
            with pytest.raises(CapillaryAuthError, match="does not accept the token"):
                stream.read()

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_download_names_the_other_credentials(self, sandbox: Sandbox, store: Store, status: int) -> None:
        sandbox.add_job(SERIES, errors=1)
        store(sandbox, issue(sandbox))
        body = {"response": {"status": {"success": "false", "code": status, "message": "no"}}}
        sandbox.inject(Fault("body", endpoint="download", status=status, body=body, times=None))
        hook = CapillaryHook(http_retry=QUICK)
        (job,) = hook.get_redeem_upload_jobs(SERIES)
        kind = CapillaryAuthError if status == 401 else CapillaryAccessError
        with pytest.raises(kind, match=r"Authentication type oauth.*Error file URL"), hook.open_error_file(job) as file:
            file.read()


class TestSessions:
    def test_carry_the_token_to_the_api_host_only(self, sandbox: Sandbox, start: Start, store: Store) -> None:
        elsewhere = start()
        token = store(sandbox, issue(sandbox))
        sandbox.inject(Fault("redirect", endpoint="other", location=f"{elsewhere.base_url}/y"))
        with CapillaryHook(http_retry=QUICK).get_conn() as session:
            session.get(f"{elsewhere.base_url}/z")
            session.get(f"{sandbox.base_url}/coupon/x")
        assert [carried(request) for request in sandbox.requests] == [bearer(token)]
        assert [carried(request) for request in elsewhere.requests] == [(None, None)] * 2

    def test_of_an_expired_token_send_nothing(self, sandbox: Sandbox, store: Store) -> None:
        store(sandbox, issue(sandbox, seconds=-60))
        with CapillaryHook().get_conn() as session, pytest.raises(CapillaryAuthError, match="expired"):
            session.get(f"{sandbox.base_url}/coupon/x")
        assert sandbox.requests == []


class TestTheTestButton:
    @pytest.fixture
    def tried(self, sandbox: Sandbox, store: Store, logged: Logged) -> Callable[..., tuple[bool, str]]:
        def test(token: str, **extra: Any) -> tuple[bool, str]:
            store(sandbox, token, **extra)
            good, message = CapillaryHook().test_connection()
            assert len(message) < 500
            assert message.isprintable()
            assert token not in message
            assert token not in logged.text
            return good, message

        return test

    def test_says_when_the_token_ends(self, tried: Any, sandbox: Sandbox) -> None:
        good, message = tried(issue(sandbox, seconds=3 * 3600 + 12 * 60 + 30))
        assert good
        assert message.startswith(
            "Connected to 127.0.0.1: the credentials are good and the coupon resource answers; "
            "the token ends in 3 h 12 min, at 20"
        )
        assert message.endswith(" UTC")
        assert sandbox.counts == {"status": 1}

    def test_says_that_a_token_does_not_say_when_it_ends(self, tried: Any, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("body", endpoint="status", status=400, body={"success": False, "status": 400}))
        good, message = tried("opaque-token-4711")
        assert good
        assert message.endswith("; the token does not say when it ends")

    def test_says_that_it_has_expired_and_sends_nothing(self, tried: Any, sandbox: Sandbox) -> None:
        good, message = tried(issue(sandbox, seconds=-60))
        assert not good
        assert message.startswith("No token: the ready token of this connection (Authentication type bearer)")
        assert "expired at" in message
        assert sandbox.counts == {}

    def test_says_that_it_is_refused(self, tried: Any, sandbox: Sandbox) -> None:
        token = issue(sandbox)
        sandbox.expire_tokens()
        good, message = tried(token)
        assert not good
        assert message.startswith("There is a token, but the API host does not accept it: ")
        assert "Authentication type bearer" in message


class TestSecrecy:
    def test_nothing_shows_of_requests_that_fail(
        self, client: Client, sandbox: Sandbox, store: Store, logged: Logged
    ) -> None:
        token = store(sandbox, issue(sandbox))
        texts = []
        with client.opened() as hook:
            for fault in (
                Fault("expired_token", endpoint="status"),
                Fault("reset", endpoint="status", times=None),
                Fault("status", endpoint="status", status=503, times=None),
                Fault("body", endpoint="status", status=400, body={"message": f"you sent Bearer {token}"}),
                Fault("html", endpoint="status", status=403),
            ):
                sandbox.inject(fault)
                with pytest.raises(CapillaryError) as caught:
                    hook.jobs()
                texts.append(f"{caught.value!r} {json.dumps(caught.value.to_dict())} {vars(caught.value)}")
                sandbox.clear_faults()
            texts.append(f"{hook.hook!r} {hook.hook} {vars(hook.hook)}")
        everything = "\n".join(texts)
        assert "you sent Bearer ***" in everything
        for text in (everything, logged.text):
            assert len(text) > 1000
            assert token not in text

    @pytest.mark.parametrize("prefix", ["", "Bearer "])
    def test_a_worker_masks_the_whole_token_in_logs(self, sandbox: Sandbox, store: Store, prefix: str) -> None:
        token = issue(sandbox)
        store(sandbox, prefix + token)
        CapillaryHook(http_retry=QUICK).get_redeem_upload_jobs(SERIES)
        assert redact(f"the header is {token}!") == "the header is ***!"

    async def test_the_triggerer_masks_at_least_its_end(self, sandbox: Sandbox, store: Store) -> None:
        token = issue(sandbox)
        store(sandbox, f"Bearer {token}")
        async with CapillaryAsyncHook(http_retry=QUICK) as hook:
            await hook.get_redeem_upload_jobs(SERIES)
        assert token[-32:] not in redact(f"the header is {token}!")
