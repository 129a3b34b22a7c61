# SPDX-License-Identifier: Apache-2.0
"""The Test button: says in plain words what is wrong, soon, and without a secret."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._transport import connection_check
from airflow_provider_capillary._transport.requests_transport import RequestsTransport
from airflow_provider_capillary.hooks import capillary as module
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.airflow_compat import AIRFLOW_VERSION, Connection
from tests.hooks.clients import CONN_ID, SERIES
from tests.hooks.servers import answering, closed_port, silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.hooks.conftest import Authority, Connect, Logged, Start

    Tried = Callable[..., tuple[bool, str]]

SECRET = "client-secret-zq81"
HEADER_VALUE = "header-value-77kx"


@pytest.fixture
def sandbox(start: Start) -> Sandbox:
    """A sandbox with a secret that is found in no other text."""
    return start(client_secret=SECRET)


@pytest.fixture
def tried(connect: Connect, sandbox: Sandbox, logged: Logged) -> Tried:
    """Test a connection to the sandbox; the message must always be presentable."""

    def test(*, fields: dict[str, Any] | None = None, **extra: Any) -> tuple[bool, str]:
        connect(sandbox, fields=fields, headers={"X-Brand": HEADER_VALUE}, **extra)
        good, message = CapillaryHook().test_connection()
        assert message
        assert len(message) < 400
        assert message.isprintable()
        for secret in (SECRET, HEADER_VALUE, *sandbox.tokens_issued):
            assert secret not in message
            assert secret not in logged.text
        return good, message

    return test


class TestGood:
    def test_says_so(self, tried: Tried, sandbox: Sandbox) -> None:
        good, message = tried()
        assert good
        assert message == "Connected to 127.0.0.1: the credentials are good and the coupon resource answers"

    def test_costs_one_token_and_one_cheap_request(self, tried: Tried, sandbox: Sandbox) -> None:
        tried()
        assert sandbox.counts == {"token": 1, "status": 1}
        assert sandbox.requests[1].headers["X-Brand"] == HEADER_VALUE

    def test_asks_for_a_token_of_its_own_because_the_one_in_use_proves_nothing(
        self, tried: Tried, sandbox: Sandbox, connect: Connect
    ) -> None:
        CapillaryHook(connect(sandbox)).get_redeem_upload_jobs(SERIES)
        sandbox.expire_tokens()
        assert tried()[0]
        assert sandbox.count("token") == 2

    @pytest.mark.parametrize("status", [400, 404, 422])
    def test_an_error_about_the_series_counts_as_connected(self, tried: Tried, sandbox: Sandbox, status: int) -> None:
        body = {"success": False, "status": status, "message": "Incorrect or invalid input."}
        sandbox.inject(Fault("body", endpoint="status", status=status, body=body))
        good, message = tried()
        assert good, message

    def test_works_over_tls(self, start: Start, authority: Authority, connect: Connect) -> None:
        secure = start(ssl_context=authority.server_context())
        connect(secure, verify=str(authority.bundle))
        assert CapillaryHook().test_connection()[0]


class TestNotGood:
    def test_wrong_credentials(self, tried: Tried, sandbox: Sandbox) -> None:
        good, message = tried(fields={"password": "not-the-secret"})
        assert not good
        assert message.startswith("Wrong credentials")
        assert "not-the-secret" not in message
        assert sandbox.counts == {"token": 1}

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (403, {"message": "Access forbidden"}),
            (403, {"status": {"success": False, "code": 403, "message": "Access forbidden"}}),
            (200, {"errors": [{"code": 4000, "message": "Access forbidden"}]}),
        ],
        ids=["message alone", "envelope", "code alone"],
    )
    def test_a_forbidden_token_call_names_credentials_and_access_group(
        self, tried: Tried, sandbox: Sandbox, status: int, body: dict[str, Any]
    ) -> None:
        sandbox.inject(Fault("body", endpoint="token", status=status, body=body))
        good, message = tried()
        assert not good
        assert message.startswith("No token: ")
        for words in ("Access forbidden", "the client key or the secret is wrong", "has no access group"):
            assert words in message
        assert sandbox.counts == {"token": 1}

    def test_no_access_in_the_v1_1_envelope(self, tried: Tried, sandbox: Sandbox) -> None:
        body = {"response": {"status": {"success": "false", "code": "403", "message": "Forbidden"}}}
        sandbox.inject(Fault("body", endpoint="status", status=403, body=body))
        good, message = tried()
        assert not good
        assert "credentials are good, but without access" in message
        assert "coupon resource" in message

    @pytest.mark.parametrize("status", [200, 403])
    def test_no_access_as_error_4000(self, tried: Tried, sandbox: Sandbox, status: int) -> None:
        body = {"errors": [{"status": False, "code": 4000, "message": "Access denied"}], "warnings": []}
        sandbox.inject(Fault("body", endpoint="status", status=status, body=body))
        good, message = tried()
        assert not good
        assert "credentials are good, but without access" in message

    def test_a_token_that_the_api_host_does_not_accept(self, tried: Tried, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("expired_token", endpoint="status", times=None))
        good, message = tried()
        assert not good
        assert "does not accept it" in message
        assert "same cluster" in message

    def test_an_edge_that_refuses_the_machine(self, tried: Tried, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("html", endpoint="status", status=403))
        good, message = tried()
        assert not good
        assert "no way to the API" in message
        assert "without access" not in message

    def test_a_port_where_nobody_listens(self, tried: Tried, sandbox: Sandbox) -> None:
        good, message = tried(fields={"port": closed_port()})
        assert not good
        assert "cannot be reached" in message
        assert "within" not in message

    def test_an_api_host_that_is_down_although_tokens_come(self, tried: Tried, sandbox: Sandbox, start: Start) -> None:
        tokens = start(client_secret=SECRET)
        good, message = tried(fields={"port": closed_port()}, auth_url=f"{tokens.base_url}/v3/oauth/token/generate")
        assert not good
        assert message.startswith("There is a token, but the API host cannot be reached")

    def test_a_name_that_does_not_resolve(self, tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        good, message = tried(fields={"host": "https://nowhere.example.test", "port": None})
        assert not good
        assert "the host name cannot be resolved" in message

    def test_a_host_that_serves_pages(self, tried: Tried, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("html", status=200, times=None))
        good, message = tried()
        assert not good
        assert "gave no token" in message
        assert "an HTML page" in message

    def test_a_host_without_the_token_endpoint(self, tried: Tried, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("html", endpoint="token", status=404))
        good, message = tried()
        assert not good
        assert "gave no token" in message

    def test_a_host_without_the_coupon_api(self, tried: Tried, sandbox: Sandbox) -> None:
        sandbox.inject(Fault("html", endpoint="status", status=404))
        good, message = tried()
        assert not good
        assert "127.0.0.1 is not the kind of host that serves coupons" in message

    @pytest.mark.parametrize("endpoint", ["token", "status"])
    def test_a_redirect(self, tried: Tried, sandbox: Sandbox, start: Start, endpoint: str) -> None:
        elsewhere = start()
        sandbox.inject(Fault("redirect", endpoint=endpoint, location=f"{elsewhere.base_url}/login"))
        good, message = tried()
        assert not good
        assert "redirect" in message
        assert elsewhere.counts == {}

    @pytest.mark.parametrize("endpoint", ["token", "status"])
    def test_a_transient_error_which_is_not_waited_out(self, tried: Tried, sandbox: Sandbox, endpoint: str) -> None:
        sandbox.inject(Fault("status", endpoint=endpoint, status=503))
        good, message = tried()
        assert not good
        assert "HTTP 503" in message
        assert sandbox.count(endpoint) == 1
        assert tried()[0]

    def test_a_certificate_of_nobody_known(self, start: Start, authority: Authority, connect: Connect) -> None:
        connect(start(ssl_context=authority.server_context()))
        good, message = CapillaryHook().test_connection()
        assert not good
        assert "not trusted" in message
        assert "'Verify TLS'" in message

    @pytest.mark.parametrize(
        ("fields", "extra", "named"),
        [
            ({"password": None}, {}, "'Client secret'"),
            ({"login": ""}, {}, "'Client key'"),
            ({"host": None}, {}, "'API host'"),
            ({}, {"timeout_seconds": "soon"}, "'Timeout'"),
            ({}, {"verify": "/no/such/bundle.pem"}, "'Verify TLS'"),
            ({"host": "http://gateway.example.test"}, {}, "'API host'"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_a_field_that_cannot_be_used_is_named(
        self, tried: Tried, sandbox: Sandbox, fields: dict[str, Any], extra: dict[str, Any], named: str
    ) -> None:
        good, message = tried(fields=fields, **extra)
        assert not good
        assert named in message
        assert message.startswith("This connection, ")
        assert CONN_ID not in message
        assert sandbox.counts == {}

    def test_a_bundle_that_is_no_certificate(self, tried: Tried, tmp_path: Path) -> None:
        bundle = tmp_path / "bundle.pem"
        bundle.write_text("no certificate")
        good, message = tried(fields={"host": "https://127.0.0.1"}, verify=str(bundle))
        assert not good
        assert "'Verify TLS'" in message

    def test_an_echo_of_the_secrets(self, tried: Tried, sandbox: Sandbox) -> None:
        body = {"errors": [{"code": 320001, "message": f"secret {SECRET} and header {HEADER_VALUE} are wrong"}]}
        sandbox.inject(Fault("body", endpoint="token", status=401, body=body))
        good, message = tried()
        assert not good
        assert "are wrong" in message


class TestInTime:
    """Every answer comes within 15 seconds, at any fault of the network."""

    def test_a_host_that_accepts_and_never_answers(self, connect: Connect, sandbox: Sandbox) -> None:
        with silent() as server:
            connect(sandbox, fields={"port": server.port})  # with the default timeout of 30 seconds
            began = time.monotonic()
            good, message = CapillaryHook().test_connection()
            assert time.monotonic() - began < 15
        assert not good
        assert "cannot be reached" in message
        assert "no answer within 5 seconds" in message

    def test_a_shorter_timeout_of_the_connection_holds(self, tried: Tried) -> None:
        with silent() as server:
            good, message = tried(fields={"port": server.port}, timeout_seconds=0.2)
        assert not good
        assert "no answer within 0.2 seconds" in message

    @pytest.fixture
    def hurried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same with less patience: nobody wants to wait for these tests."""
        monkeypatch.setattr(module, "_TEST_DEADLINE_SECONDS", 0.4)

    def test_the_deadline_is_below_15_seconds(self) -> None:
        assert 0 < module._TEST_DEADLINE_SECONDS < 15

    def test_a_head_that_drips(self, tried: Tried, hurried: None) -> None:
        pieces = [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: 1\r\n" % number for number in range(90))]
        with answering(*pieces, pause=0.2) as server:
            good, message = tried(fields={"port": server.port})
        assert not good
        assert "no answer within 0.4 seconds" in message

    def test_a_body_that_drips(self, tried: Tried, hurried: None) -> None:
        with answering(b"HTTP/1.1 200 OK\r\n\r\n", *[b" "] * 90, pause=0.2) as server:
            good, message = tried(fields={"port": server.port})
        assert not good
        assert "no answer within 0.4 seconds" in message

    def test_a_resolver_that_hangs(self, tried: Tried, hurried: None, monkeypatch: pytest.MonkeyPatch) -> None:
        over = threading.Event()

        def hang(*_: object, **__: object) -> None:
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        # A patch, because no resolver here can be made to hang.
        monkeypatch.setattr(socket, "getaddrinfo", hang)
        try:
            good, message = tried(fields={"host": "https://slow.example.test", "port": None})
        finally:
            over.set()
        assert not good
        assert "slow.example.test cannot be reached" in message


@pytest.mark.skipif(
    AIRFLOW_VERSION < (3, 1), reason="this Airflow tests a connection under the id of one that is stored"
)
class TestByAirflow:
    """The way of `airflow connections test` and of the form."""

    @pytest.fixture
    def connection(self, sandbox: Sandbox) -> Callable[..., Connection]:
        """Build the connection object, which no backend knows."""

        def build(**fields: Any) -> Connection:
            values = sandbox.connection(requests_per_minute=None, headers=None) | fields
            return Connection(conn_id="only_in_memory", **values | {"extra": json.dumps(values["extra"])})

        return build

    def test_a_good_one(self, connection: Callable[..., Connection], sandbox: Sandbox) -> None:
        good, message = connection().test_connection()
        assert good, message
        assert sandbox.counts == {"token": 1, "status": 1}

    def test_wrong_credentials(self, connection: Callable[..., Connection]) -> None:
        good, message = connection(password="wrong").test_connection()
        assert not good
        assert message.startswith("Wrong credentials: Capillary does not accept the client key and secret")
        assert "only_in_memory" not in message

    def test_no_access(self, connection: Callable[..., Connection], sandbox: Sandbox) -> None:
        sandbox.inject(
            Fault("body", endpoint="status", status=403, body={"errors": [{"code": 4000, "message": "No"}]}, times=None)
        )
        good, message = connection().test_connection()
        assert not good
        assert message.startswith("The credentials are good, but without access: the API client has no access")
        assert "only_in_memory" not in message

    def test_an_expired_ready_token(self, connection: Callable[..., Connection], sandbox: Sandbox) -> None:
        extra = {"auth_type": "bearer"}
        token = sandbox.issue_token(ttl_seconds=-60)
        good, message = connection(login=None, password=token, extra=extra).test_connection()
        assert not good
        assert message.startswith("No token: the ready token of this connection (Authentication type bearer) expired")
        assert "only_in_memory" not in message

    def test_a_field_that_cannot_be_used(self, connection: Callable[..., Connection]) -> None:
        good, message = connection(password=None).test_connection()
        assert not good
        assert message.startswith("This connection, field 'Client secret': ")
        assert "only_in_memory" not in message


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault("status", endpoint="token", status=503)],
        [Fault("status", endpoint="token", status=401)],
        [Fault("html", endpoint="token")],
        [Fault("status", endpoint="status", status=503)],
    ],
    ids=["none", "token 503", "token 401", "token page", "status 503"],
)
def test_connections_are_closed_however_it_ends(
    tried: Tried, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, faults: list[Fault]
) -> None:
    for fault in faults:
        sandbox.inject(fault)
    opened: list[RequestsTransport] = []
    closed: list[RequestsTransport] = []

    class Driver(RequestsTransport):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            opened.append(self)

        def close(self) -> None:
            super().close()
            closed.append(self)

    # Left open, they would end with the garbage collector, which no test can wait for.
    monkeypatch.setattr(connection_check, "RequestsTransport", Driver)
    good, _ = tried()
    assert good is not bool(faults)
    assert len(opened) == 1
    assert closed == opened
