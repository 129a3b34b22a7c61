# SPDX-License-Identifier: Apache-2.0
"""``get_conn()``: a session for requests of one's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_capillary.exceptions import CapillaryAuthError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import QUICK, SERIES, TOKEN_HEADER
from tests.hooks.servers import connect_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import RecordedRequest, Sandbox
    from tests.hooks.conftest import Authority, Connect, Start

STATUS = f"/coupon/api/v1/upload/getUploadRedeemedCouponStatus/{SERIES}"
OURS = (TOKEN_HEADER, "X-Brand")


def carried(request: RecordedRequest) -> list[str]:
    """Capillary headers of a request."""
    return [name for name in OURS if name in request.headers]


@pytest.fixture
def session(sandbox: Sandbox, connect: Connect) -> Iterator[requests.Session]:
    """A session on the sandbox."""
    connect(sandbox, headers={"X-Brand": "header-value-77kx"}, timeout_seconds=0.3)
    with CapillaryHook(http_retry=QUICK).get_conn() as opened:
        yield opened


def test_it_is_a_session_of_requests(session: requests.Session) -> None:
    assert isinstance(session, requests.Session)


def test_it_carries_token_and_extra_headers_to_the_api_host(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.add_job(SERIES)
    answer = session.get(f"{sandbox.base_url}{STATUS}")
    assert len(answer.json()["result"]["redeemUploadJobStatuses"]) == 1
    assert carried(sandbox.requests[-1]) == [*OURS]
    assert sandbox.requests[-1].headers[TOKEN_HEADER] == sandbox.tokens_issued[-1]


def test_an_extra_header_does_not_belie_the_body_of_a_request(sandbox: Sandbox, connect: Connect) -> None:
    connect(sandbox, headers={"content-type": "text/csv", "X-Brand": "header-value-77kx"})
    with CapillaryHook(http_retry=QUICK).get_conn() as session:
        session.post(f"{sandbox.base_url}/coupon/x", json={}, headers={"X-Brand": "other"})
        session.post(f"{sandbox.base_url}/coupon/x", data=b"a,b")
    *_, first, second = sandbox.requests
    assert [first.headers["Content-Type"], second.headers["Content-Type"]] == ["application/json", "text/csv"]
    assert first.headers["X-Brand"] == "header-value-77kx"


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head", "options"])
def test_it_does_so_by_every_method(sandbox: Sandbox, session: requests.Session, method: str) -> None:
    getattr(session, method)(f"{sandbox.base_url}/coupon/x")
    assert carried(sandbox.requests[-1]) == [*OURS]


def test_no_token_is_fetched_for_other_hosts(sandbox: Sandbox, start: Start, session: requests.Session) -> None:
    elsewhere = start()
    session.get(f"{elsewhere.base_url}/coupon/x")
    assert sandbox.counts == {}
    assert [carried(request) for request in elsewhere.requests] == [[]]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_port_loses_them(
    sandbox: Sandbox, start: Start, session: requests.Session, status: int
) -> None:
    elsewhere = start()
    sandbox.inject(Fault("redirect", endpoint="other", status=status, location=f"{elsewhere.base_url}/y"))
    assert session.get(f"{sandbox.base_url}/coupon/x").status_code == 404
    assert carried(sandbox.requests[-1]) == [*OURS]
    assert [carried(request) for request in elsewhere.requests] == [[]]


def test_a_redirect_within_the_api_host_keeps_them(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.inject(Fault("redirect", endpoint="other", location=STATUS))
    assert session.get(f"{sandbox.base_url}/coupon/x").json()["success"] is True
    assert carried(sandbox.requests[-1]) == [*OURS]


def test_they_do_not_come_back_on_a_way_over_another_host(
    sandbox: Sandbox, start: Start, session: requests.Session
) -> None:
    elsewhere = start()
    sandbox.inject(Fault("redirect", endpoint="other", location=f"{elsewhere.base_url}/y"))
    elsewhere.inject(Fault("redirect", endpoint="other", location=f"{sandbox.base_url}/coupon/z"))
    session.get(f"{sandbox.base_url}/coupon/x")
    assert [request.path for request in sandbox.requests[1:]] == ["/coupon/x", "/coupon/z"]
    assert carried(sandbox.requests[-1]) == []


def test_a_redirect_to_another_name_over_tls_loses_them(
    start: Start, authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"api.example.test": start(ssl_context=authority.server_context("api.example.test"))}
    names["other.example.test"] = start(ssl_context=authority.server_context("other.example.test"))
    api, other = names.values()
    api.inject(Fault("redirect", endpoint="other", location="https://other.example.test/y"))
    connect(
        api,
        fields={"host": "https://api.example.test", "port": None},
        headers={"X-Brand": "header-value-77kx"},
        verify=str(authority.bundle),
    )
    with connect_proxy({f"{name}:443": sandbox.port for name, sandbox in names.items()}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with CapillaryHook(http_retry=QUICK).get_conn() as session:
            assert session.get("https://api.example.test/coupon/x").status_code == 404
    assert [carried(request) for request in api.requests] == [["X-Brand"], [*OURS]]
    assert [carried(request) for request in other.requests] == [[]]


def test_it_has_the_timeout_of_the_connection(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.inject(Fault("slow", endpoint="other", seconds=9))
    with pytest.raises(requests.Timeout):
        session.get(f"{sandbox.base_url}/coupon/x")


def test_it_has_that_timeout_for_a_prepared_request_as_well(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.inject(Fault("slow", endpoint="other", seconds=0.9))
    prepared = session.prepare_request(requests.Request("GET", f"{sandbox.base_url}/coupon/x"))
    with pytest.raises(requests.Timeout):
        session.send(prepared)


def test_another_timeout_can_be_given(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.inject(Fault("slow", endpoint="other", seconds=0.4))
    assert session.get(f"{sandbox.base_url}/coupon/x", timeout=9).status_code == 404


def test_it_does_not_try_again(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.inject(Fault("status", endpoint="other", status=503, times=None))
    assert session.get(f"{sandbox.base_url}/coupon/x").status_code == 503
    assert sandbox.count("other") == 1


def test_wrong_credentials_are_reported_as_by_every_other_call(sandbox: Sandbox, connect: Connect) -> None:
    connect(sandbox, fields={"password": "wrong"})
    with CapillaryHook(http_retry=QUICK).get_conn() as session, pytest.raises(CapillaryAuthError):
        session.get(f"{sandbox.base_url}/coupon/x")
    assert sandbox.counts == {"token": 1}


def test_threads_may_share_it(sandbox: Sandbox, session: requests.Session) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: session.get(f"{sandbox.base_url}{STATUS}", timeout=20), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert sandbox.counts == {"token": 1, "status": 24}


def test_each_is_a_session_of_its_own(sandbox: Sandbox, hook: CapillaryHook) -> None:
    first = hook.get_conn()
    first.close()
    first.headers["X-Mine"] = "1"
    with hook.get_conn() as second:
        second.get(f"{sandbox.base_url}/coupon/x")
    assert "X-Mine" not in sandbox.requests[-1].headers


def test_it_is_not_held_to_the_rules_for_error_files(sandbox: Sandbox, start: Start, session: requests.Session) -> None:
    # These rules are about places that an answer from outside names; here the user does.
    elsewhere = start()
    assert session.get(f"http://localhost:{elsewhere.port}/coupon/x").status_code == 404
