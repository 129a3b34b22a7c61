# SPDX-License-Identifier: Apache-2.0
"""What is tried again, how often, after how long, and what the last error says."""

from __future__ import annotations

import gzip
import json
import socket
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.retry import HttpRetry, default_http_retry
from airflow_provider_capillary.exceptions import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryError,
    CapillaryJobNotFoundError,
    CapillaryRateLimitError,
    CapillaryResponseError,
    CapillaryTransportError,
)
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.hooks.clients import QUICK, SERIES
from tests.hooks.servers import answering, closed_port, connect_proxy, silent

if TYPE_CHECKING:
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Connect, Start

ALL = QUICK.max_attempts
RETRIED = (408, 425, 429, 461, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526)
NOT_RETRIED = (400, 404, 405, 410, 415, 501)
#: An example of each of the five envelopes, with a code that no rule is about.
ENVELOPES: dict[str, tuple[Any, str]] = {
    "coupon": ({"success": False, "status": 8001, "message": "it went wrong"}, "8001"),
    "v3": ({"data": None, "errors": [{"code": 8001, "message": "it went wrong"}]}, "8001"),
    "v2": ({"entity": None, "errors": [{"status": False, "code": "8001", "message": "it went wrong"}]}, "8001"),
    "v1.1": ({"response": {"status": {"success": "false", "code": "8001", "message": "it went wrong"}}}, "8001"),
    "auth": ({"status": {"success": "false", "code": 8001, "message": "it went wrong"}}, "8001"),
}
WHOLE = json.dumps({"success": True, "status": 200, "result": {"redeemUploadJobStatuses": []}}).encode()


def head(body: bytes = WHOLE, **headers: str) -> bytes:
    """The head of a good answer with this body."""
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{''.join(lines)}\r\n".encode()


class TestTriedAgain:
    @pytest.mark.parametrize("status", RETRIED)
    def test_after_these_statuses(self, client: Client, sandbox: Sandbox, conn_id: str, status: int) -> None:
        job = sandbox.add_job(SERIES)
        sandbox.inject(Fault("status", endpoint="status", status=status, times=2))
        assert [found.job_id for found in client.jobs(conn_id)] == [job.job_id]
        assert sandbox.counts == {"token": 1, "status": 3}

    @pytest.mark.parametrize("status", [429, 461, 503, 524])
    def test_but_not_for_ever(self, client: Client, sandbox: Sandbox, conn_id: str, status: int) -> None:
        sandbox.inject(Fault("status", endpoint="status", status=status, times=None))
        with pytest.raises(CapillaryApiError) as caught:
            client.jobs(conn_id)
        assert sandbox.count("status") == ALL
        assert caught.value.http_status == status
        assert caught.value.is_transient
        assert isinstance(caught.value, CapillaryRateLimitError) == (status == 429)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("reset", endpoint="status", times=2),
            Fault("cut", endpoint="status", times=2, fraction=0.0),
            Fault("cut", endpoint="status", times=2, fraction=0.5),
            Fault("cut", endpoint="status", times=2, fraction=0.99),
            Fault("cut", endpoint="status", times=2, fraction=0.5, content_length=False),
            Fault("cut", endpoint="status", times=2, fraction=1.0, content_length=False),
            Fault("cut", endpoint="status", times=2, fraction=0.5, rst=True),
            Fault("unmarked", endpoint="status", times=2, fraction=0.5),
            Fault("wrong_length", endpoint="status", times=2),
            Fault("html", endpoint="status", times=2, status=200),
            Fault("html", endpoint="status", times=2, status=503),
            Fault("html", endpoint="status", times=2, status=521),
            Fault("empty", endpoint="status", times=2),
            Fault("text", endpoint="status", times=2),
            Fault("text", endpoint="status", times=2, body="[]"),
            Fault("text", endpoint="status", times=2, body="null"),
            Fault("text", endpoint="status", times=2, body="[" * 100_000),
            Fault("body", endpoint="status", times=2, status=200, body={}),
            Fault("body", endpoint="status", times=2, status=200, body={"success": False, "status": 503}),
            Fault("body", endpoint="status", times=2, status=503, body={"errors": [{"code": 4001, "message": "down"}]}),
            Fault("body", endpoint="status", times=2, status=200, body=b"?", headers={"Content-Encoding": "gzip"}),
        ],
        ids=str,
    )  # fmt: skip
    def test_after_these_faults(self, client: Client, sandbox: Sandbox, conn_id: str, fault: Fault) -> None:
        job = sandbox.add_job(SERIES)
        sandbox.inject(fault)
        assert [found.job_id for found in client.jobs(conn_id)] == [job.job_id]
        assert sandbox.counts == {"token": 1, "status": 3}

    @pytest.mark.parametrize("endpoint", ["token", "status"])
    def test_after_an_answer_that_takes_too_long(
        self, client: Client, sandbox: Sandbox, connect: Connect, endpoint: str
    ) -> None:
        job = sandbox.add_job(SERIES)
        sandbox.inject(Fault("slow", endpoint=endpoint, times=1, seconds=9))
        connect(sandbox, timeout_seconds=0.35)
        assert [found.job_id for found in client.jobs()] == [job.job_id]
        assert sandbox.counts == {"token": 1, "status": 1, endpoint: 2}

    @pytest.mark.parametrize("kind", ["reset", "cut", "wrong_length", "slow"])
    def test_where_no_whole_answer_ever_comes_it_is_a_transport_error(
        self, client: Client, sandbox: Sandbox, connect: Connect, kind: str
    ) -> None:
        client.jobs(connect(sandbox))  # so that the token is there
        sandbox.inject(Fault(kind, endpoint="status", times=None, seconds=5))
        connect(sandbox, timeout_seconds=0.1 if kind == "slow" else 30)
        with pytest.raises(CapillaryTransportError, match=f"{sandbox.base_url}/coupon/api") as caught:
            client.jobs()
        assert sandbox.counts == {"token": 1, "status": 1 + ALL}
        assert caught.value.is_transient
        assert caught.value.http_status is None
        expected = "no answer within 0.1 seconds" if kind == "slow" else "the connection broke off"
        assert expected in str(caught.value)

    @pytest.mark.parametrize("kind", ["html", "empty", "text"])
    def test_where_what_comes_is_never_json_it_is_an_error_of_the_response(
        self, client: Client, sandbox: Sandbox, conn_id: str, kind: str
    ) -> None:
        sandbox.inject(Fault(kind, endpoint="status", times=None, status=200))
        with pytest.raises(CapillaryResponseError) as caught:
            client.jobs(conn_id)
        assert sandbox.count("status") == ALL
        assert (caught.value.http_status, caught.value.is_transient) == (200, True)
        named = {"html": "an HTML page", "empty": "an empty body", "text": "a body that is not JSON"}
        assert named[kind] in str(caught.value)

    def test_attempts_are_those_of_the_policy(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.inject(Fault("status", endpoint="status", times=None))
        with pytest.raises(CapillaryApiError):
            client.jobs(conn_id, policy=HttpRetry(max_attempts=2, base_seconds=0.0))
        assert sandbox.count("status") == 2
        with pytest.raises(CapillaryApiError):
            client.jobs(conn_id, policy=HttpRetry(max_attempts=1))
        assert sandbox.count("status") == 3

    def test_a_host_that_cannot_be_reached_is_said_to_be_so(
        self, client: Client, sandbox: Sandbox, connect: Connect
    ) -> None:
        connect(sandbox, fields={"port": closed_port()})
        with pytest.raises(CapillaryTransportError, match="the host cannot be reached") as caught:
            client.jobs()
        assert caught.value.is_transient

    def test_a_host_that_comes_back_is_found_again(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        with client.opened(conn_id) as hook:
            hook.jobs()
            sandbox.stop()
            with pytest.raises(CapillaryTransportError, match="the host cannot be reached"):
                hook.jobs()
            sandbox.start()
            assert hook.jobs() == []
        assert sandbox.count("token") == 1

    def test_a_name_that_does_not_resolve_is_said_to_be_so(
        self, client: Client, sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        # A patch, because a machine without a resolver waits for seconds.
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        connect(sandbox, fields={"host": "https://nowhere.example.test", "port": 443})
        with pytest.raises(CapillaryTransportError, match="the host name cannot be resolved") as caught:
            client.jobs()
        assert caught.value.is_transient

    def test_https_where_http_is_spoken_is_said_to_be_a_failed_handshake(
        self, client: Client, sandbox: Sandbox, connect: Connect
    ) -> None:
        connect(sandbox, fields={"host": "https://127.0.0.1"})
        with pytest.raises(CapillaryTransportError, match="the TLS handshake failed"):
            client.jobs()

    def test_a_body_that_cannot_be_decompressed_is_not_blamed_on_the_network(
        self, client: Client, sandbox: Sandbox, conn_id: str
    ) -> None:
        garbage = Fault("body", status=200, body=b"\x1f\x8b garbage", headers={"Content-Encoding": "gzip"}, times=None)
        sandbox.inject(garbage)
        with pytest.raises(CapillaryError) as caught:
            client.jobs(conn_id)
        assert caught.value.is_transient
        assert "cannot be reached" not in str(caught.value)

    def test_a_proxy_that_refuses_is_named_and_its_password_is_not(
        self, client: Client, sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(sandbox, fields={"host": "https://capillary.example.test", "port": 443})
        with connect_proxy({}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://agent:proxy-password@127.0.0.1:{proxy.port}")
            with pytest.raises(CapillaryTransportError, match="the proxy did not pass the request on") as caught:
                client.jobs()
            assert proxy.accepted == ALL
        assert "proxy-password" not in str(caught.value)


class TestDrip:
    """A timeout per read does not end an answer that never stops coming in."""

    def test_a_slow_answer_is_taken_as_long_as_it_comes_in_time(
        self, client: Client, sandbox: Sandbox, connect: Connect
    ) -> None:
        sandbox.add_job(SERIES)
        sandbox.inject(Fault("drip", endpoint="status", seconds=0.4))
        connect(sandbox, timeout_seconds=0.3)
        assert len(client.jobs()) == 1
        assert sandbox.count("status") == 1

    def test_a_body_that_drips_beyond_the_overall_bound_is_given_up(
        self, client: Client, sandbox: Sandbox, connect: Connect
    ) -> None:
        sandbox.inject(Fault("drip", endpoint="status", seconds=1, times=None))
        connect(sandbox, timeout_seconds=0.1)
        with pytest.raises(CapillaryTransportError, match="no answer within"):
            client.jobs(policy=HttpRetry(max_attempts=1))

    @pytest.mark.parametrize(
        "pieces",
        [
            pytest.param([head()[:-2], *(b"X-Drop: 1\r\n" for _ in range(40)), b"\r\n", WHOLE], id="lines of a head"),
            pytest.param([bytes([byte]) for byte in head() + WHOLE], id="bytes of a head"),
            pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n"] * 40, id="one answer after the other"),
            pytest.param([head()[:-2] + b"X: ", *[b"1"] * 40], id="one endless header"),
            pytest.param(
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", *[b"1"] * 40], id="length of a chunk"
            ),
        ],
    )
    def test_an_answer_that_drips_beyond_the_overall_bound_is_given_up(
        self, client: Client, sandbox: Sandbox, connect: Connect, pieces: list[bytes]
    ) -> None:
        with answering(*pieces, pause=0.1) as dripping:
            connect(
                sandbox,
                fields={"port": dripping.port},
                auth_url=f"{sandbox.base_url}/v3/oauth/token/generate",
                timeout_seconds=0.2,
            )
            began = time.monotonic()
            with pytest.raises(CapillaryTransportError, match=r"no answer within 0\.2 seconds"):
                client.jobs(policy=HttpRetry(max_attempts=1))
            assert time.monotonic() - began < 2.5  # the pieces take 4 seconds and more

    def test_a_host_that_accepts_and_never_answers_is_given_up(
        self, client: Client, sandbox: Sandbox, connect: Connect
    ) -> None:
        with silent() as server:
            connect(sandbox, fields={"port": server.port}, timeout_seconds=0.1)
            with pytest.raises(CapillaryTransportError, match=r"no answer within 0\.1 seconds"):
                client.jobs()
            assert server.accepted == ALL

    def test_a_compressed_answer_may_drip_too(self, client: Client, sandbox: Sandbox, connect: Connect) -> None:
        body = gzip.compress(WHOLE)
        with answering(head(body, Content_Encoding="gzip"), *(bytes([byte]) for byte in body), pause=0.003) as server:
            connect(sandbox, fields={"port": server.port}, auth_url=f"{sandbox.base_url}/v3/oauth/token/generate")
            assert client.jobs() == []
            assert server.accepted == 1


class TestRetryAfter:
    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize("form", ["seconds", "date"])
    def test_is_obeyed_and_capped(self, client: Client, sandbox: Sandbox, conn_id: str, status: int, form: str) -> None:
        retry_after = 3600 if form == "seconds" else formatdate(time.time() + 3600, usegmt=True)
        sandbox.inject(Fault("status", endpoint="status", status=status, retry_after=retry_after))
        assert client.jobs(conn_id) == []
        first, second = [request.at for request in sandbox.requests if request.endpoint == "status"]
        # Without the header the wait would be at most 0.05 s, without the cap an hour.
        assert second - first >= 0.19

    @pytest.mark.parametrize("retry_after", [0, -5, "soon", "", "0.5", "9" * 40])
    def test_in_any_form_does_no_harm(
        self, client: Client, sandbox: Sandbox, conn_id: str, retry_after: float | str
    ) -> None:
        sandbox.inject(Fault("status", endpoint="status", retry_after=retry_after))
        assert client.jobs(conn_id) == []
        assert sandbox.count("status") == 2

    def test_of_a_rate_limit_holds_for_all_who_use_the_connection(
        self, client: Client, sandbox: Sandbox, conn_id: str
    ) -> None:
        client.jobs(conn_id)
        sandbox.inject(Fault("status", endpoint="status", status=429, retry_after=1))
        with pytest.raises(CapillaryRateLimitError):
            client.jobs(conn_id, policy=HttpRetry(max_attempts=1, retry_after_cap_seconds=0.4))
        client.jobs(conn_id)
        refused, after = [request.at for request in sandbox.requests if request.endpoint == "status"][1:]
        assert after - refused >= 0.39


class TestSentOnce:
    @pytest.mark.parametrize("status", NOT_RETRIED)
    def test_after_these_statuses(self, client: Client, sandbox: Sandbox, conn_id: str, status: int) -> None:
        sandbox.inject(Fault("status", endpoint="status", status=status, times=None))
        with pytest.raises(CapillaryError) as caught:
            client.jobs(conn_id)
        assert sandbox.counts == {"token": 1, "status": 1}
        assert caught.value.http_status == status
        assert not caught.value.is_transient

    @pytest.mark.parametrize("envelope", ENVELOPES)
    @pytest.mark.parametrize("status", [200, 400])
    def test_after_a_failure_in_any_envelope_with_all_that_support_asks_for(
        self, client: Client, sandbox: Sandbox, conn_id: str, envelope: str, status: int
    ) -> None:
        body, code = ENVELOPES[envelope]
        sandbox.inject(
            Fault("body", endpoint="status", status=status, body=body, headers={"X-CAP-REQUEST-ID": "req-4711"})
        )
        with pytest.raises(CapillaryApiError, match="it went wrong") as caught:
            client.jobs(conn_id)
        assert sandbox.count("status") == 1
        error = caught.value
        assert (error.http_status, error.api_code, error.request_id) == (status, code, "req-4711")
        assert f"HTTP {status}, code {code}, X-CAP-REQUEST-ID req-4711" in str(error)

    def test_the_other_spelling_of_the_request_id_is_read_as_well(
        self, client: Client, sandbox: Sandbox, conn_id: str
    ) -> None:
        headers = {"X-CAP-REQUEST-ID": "", "X-Cap-RequestID": "req-4712"}
        sandbox.inject(Fault("status", endpoint="status", status=400, headers=headers))
        with pytest.raises(CapillaryApiError) as caught:
            client.jobs(conn_id)
        assert caught.value.request_id == "req-4712"

    def test_no_access_says_what_to_ask_for(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        body = {"errors": [{"status": False, "code": 4000, "message": "Access denied"}]}
        sandbox.inject(Fault("body", endpoint="status", status=403, body=body))
        with pytest.raises(CapillaryAccessError, match="coupon resource") as caught:
            client.jobs(conn_id)
        assert sandbox.counts == {"token": 1, "status": 1}
        assert caught.value.api_code == "4000"

    def test_html_with_403_is_not_taken_for_a_refused_token(
        self, client: Client, sandbox: Sandbox, conn_id: str
    ) -> None:
        sandbox.inject(Fault("html", endpoint="status", status=403))
        with pytest.raises(CapillaryApiError, match="the edge in front of Capillary") as caught:
            client.jobs(conn_id)
        assert type(caught.value) is CapillaryApiError
        assert sandbox.counts == {"token": 1, "status": 1}

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_a_redirect_of_the_api_is_never_followed(
        self, client: Client, sandbox: Sandbox, start: Start, conn_id: str, status: int
    ) -> None:
        elsewhere = start()
        for endpoint in ("token", "status"):
            sandbox.inject(Fault("redirect", endpoint=endpoint, status=status, location=f"{elsewhere.base_url}/x"))
        for _ in range(2):
            with pytest.raises(CapillaryResponseError, match="redirect") as caught:
                client.jobs(conn_id)
            assert caught.value.http_status == status
            assert not caught.value.is_transient
        assert sandbox.counts == {"token": 2, "status": 1}
        assert elsewhere.counts == {}

    def test_a_job_that_is_not_there(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.add_job(SERIES)
        with pytest.raises(CapillaryJobNotFoundError, match=rf"series {SERIES} has no redeem upload job 99"):
            client.job(SERIES, 99)
        assert sandbox.count("status") == 1

    def test_a_host_of_the_wrong_kind_is_named(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.inject(Fault("html", endpoint="status", status=404))
        with pytest.raises(CapillaryResponseError, match="check that it is an API host"):
            client.jobs(conn_id)
        assert sandbox.count("status") == 1


class TestGoodAnswers:
    def test_may_be_compressed(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.add_job(SERIES)
        sandbox.inject(Fault("gzip", endpoint="token"))
        sandbox.inject(Fault("gzip", endpoint="status"))
        assert len(client.jobs(conn_id)) == 1
        assert sandbox.counts == {"token": 1, "status": 1}

    def test_may_come_in_chunks(self, client: Client, sandbox: Sandbox, connect: Connect) -> None:
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(WHOLE[at : at + 7]), WHOLE[at : at + 7]) for at in range(0, len(WHOLE), 7)
        )
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        with answering(answer) as server:
            connect(sandbox, fields={"port": server.port}, auth_url=f"{sandbox.base_url}/v3/oauth/token/generate")
            assert client.jobs() == []

    def test_may_be_long(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        for _ in range(400):
            sandbox.add_job(SERIES)
        jobs = client.jobs(conn_id)
        assert len({job.job_id for job in jobs}) == 400
        assert sandbox.count("status") == 1

    def test_may_come_from_an_ipv6_address(self, client: Client, connect: Connect) -> None:
        try:
            sandbox = Sandbox(host="::1")
            sandbox.start()
        except OSError:
            pytest.skip("this machine has no IPv6")
        try:
            connect(sandbox)
            assert client.jobs() == []
        finally:
            sandbox.stop()


class TestDefaultForTests:
    """``default_http_retry``, by which tests of DAGs need not wait."""

    def test_it_applies_to_a_hook_without_a_policy_of_its_own(
        self, client: Client, sandbox: Sandbox, conn_id: str
    ) -> None:
        sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
        with default_http_retry(HttpRetry(max_attempts=2, base_seconds=0)), pytest.raises(CapillaryApiError):
            client.jobs(conn_id, policy=None)
        assert sandbox.count("status") == 2

    def test_a_policy_of_a_hook_s_own_stays(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
        with default_http_retry(HttpRetry(max_attempts=2, base_seconds=0)), pytest.raises(CapillaryApiError):
            client.jobs(conn_id, policy=HttpRetry(max_attempts=3, base_seconds=0))
        assert sandbox.count("status") == 3
