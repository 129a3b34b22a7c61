# SPDX-License-Identifier: Apache-2.0
"""What is sent along with a request, and to whom."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary import __version__
from airflow_provider_capillary.exceptions import CapillaryConfigurationError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import QUICK, SERIES, TOKEN_HEADER
from tests.hooks.servers import answering

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Connect, Start

EXTRA = {"X-CAP-API-AUTH-ORG-ID": "100458", "X-Brand": "header-value-77kx"}


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with credentials for the hosts of the tests, as developers have them."""
    (tmp_path / ".netrc").write_text(
        "machine 127.0.0.1 login netrc-user password netrc-password\ndefault login netrc-user password netrc-password\n"
    )
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))


def test_every_request_names_its_sender(client: Client, sandbox: Sandbox, conn_id: str) -> None:
    client.jobs(conn_id)
    agents = {request.headers["User-Agent"] for request in sandbox.requests}
    assert agents == {f"airflow-provider-capillary/{__version__}"}


def test_so_do_downloads_and_a_session_of_ones_own(sandbox: Sandbox, start: Start, connect: Connect) -> None:
    files = start()
    job = files.add_job(SERIES, errors=1)
    sandbox.add_job(SERIES, errors=1, error_file_url=job.handle, job_id=job.job_id)
    connect(sandbox, error_file_url=f"{files.base_url}/files/{{handle}}")
    hook = CapillaryHook(http_retry=QUICK)
    with hook.open_error_file(hook.get_redeem_upload_job(SERIES, job.job_id)) as stream:
        stream.read()
    with hook.get_conn() as session:
        session.get(f"{sandbox.base_url}/coupon/x")
    requests = [*files.requests, *sandbox.requests]
    assert [request.endpoint for request in requests] == ["files", "token", "status", "other"]
    assert {request.headers["User-Agent"] for request in requests} == {f"airflow-provider-capillary/{__version__}"}


def test_extra_headers_go_with_every_request_to_the_api_host(
    client: Client, sandbox: Sandbox, connect: Connect
) -> None:
    connect(sandbox, headers=EXTRA)
    client.jobs()
    assert [request.endpoint for request in sandbox.requests] == ["token", "status"]
    for request in sandbox.requests:
        assert {name: request.headers.get(name) for name in EXTRA} == EXTRA


def test_extra_headers_in_another_case_than_ours_are_sent_once(
    client: Client, sandbox: Sandbox, connect: Connect
) -> None:
    names = ("content-type", "accept", "user-agent", "x-brand")
    answer = json.dumps({"data": {"accessToken": "token-1", "ttlSeconds": 300}, "success": True, "result": {}})
    with answering(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode()) as server:
        extra = {"content-type": "text/csv", "ACCEPT": "text/html", "user-agent": "brand/1", "x-brand": "one"}
        connect(sandbox, fields={"port": server.port}, headers=extra)
        assert client.jobs() == []
        lines = server.received.decode().split("\r\n")
    sent = [(name.lower(), value) for name, separator, value in (line.partition(": ") for line in lines) if separator]
    assert sorted(each for each in sent if each[0] in names) == [
        ("accept", "application/json"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("content-type", "text/csv"),
        ("user-agent", "brand/1"),
        ("user-agent", "brand/1"),
        ("x-brand", "one"),
        ("x-brand", "one"),
    ]


@pytest.mark.parametrize("name", [TOKEN_HEADER, TOKEN_HEADER.lower()])
def test_the_token_is_no_extra_header(client: Client, sandbox: Sandbox, connect: Connect, name: str) -> None:
    connect(sandbox, headers={name: "header-value-77kx"})
    with pytest.raises(CapillaryConfigurationError, match=f"'Extra headers': '{name}'") as caught:
        client.jobs()
    assert "header-value-77kx" not in str(caught.value)
    assert sandbox.counts == {}


def test_extra_headers_may_be_stored_as_text(client: Client, sandbox: Sandbox, connect: Connect) -> None:
    connect(sandbox, headers='{"X-Brand": 7}')
    client.jobs()
    assert {request.headers["X-Brand"] for request in sandbox.requests} == {"7"}


def test_neither_token_nor_extra_headers_go_to_an_authentication_url_elsewhere(
    client: Client, sandbox: Sandbox, start: Start, connect: Connect
) -> None:
    tokens = start()
    connect(sandbox, headers=EXTRA, auth_url=f"{tokens.base_url}/v3/oauth/token/generate")
    # The sandbox does not know the token of the other one; the refusal does not matter here.
    sandbox.inject(Fault("body", endpoint="status", status=200, body={"success": True, "result": {}}))
    client.jobs()
    assert tokens.counts == {"token": 1}
    assert sandbox.counts == {"status": 1}
    (asked,) = tokens.requests
    assert not {TOKEN_HEADER, *EXTRA} & {name for name in (TOKEN_HEADER, *EXTRA) if name in asked.headers}
    (answered,) = sandbox.requests
    assert answered.headers[TOKEN_HEADER] == tokens.tokens_issued[0]
    assert answered.headers["X-Brand"] == EXTRA["X-Brand"]


def test_an_authentication_url_by_another_name_of_this_machine_works(
    client: Client, sandbox: Sandbox, start: Start, connect: Connect
) -> None:
    # A token sidecar: the user wrote this host into the connection, so it is no name from outside.
    tokens = start()
    connect(sandbox, auth_url=f"http://localhost:{tokens.port}/v3/oauth/token/generate")
    sandbox.inject(Fault("body", endpoint="status", status=200, body={"success": True, "result": {}}))
    assert client.jobs() == []
    assert tokens.counts == {"token": 1}


def test_the_token_can_go_by_another_name(client: Client, sandbox: Sandbox, connect: Connect) -> None:
    connect(sandbox, auth_header_name="CAP-API-ACCESS-TOKEN")
    sandbox.inject(Fault("body", endpoint="status", status=200, body={"success": True, "result": {}}))
    client.jobs()
    (_, status) = sandbox.requests
    assert status.headers["CAP-API-ACCESS-TOKEN"] == sandbox.tokens_issued[0]
    assert TOKEN_HEADER not in status.headers


@pytest.mark.usefixtures("netrc")
class TestNetrc:
    def test_is_not_used_for_the_api(self, client: Client, sandbox: Sandbox, conn_id: str) -> None:
        client.jobs(conn_id)
        assert [request.endpoint for request in sandbox.requests if "Authorization" in request.headers] == []
        assert sandbox.counts == {"token": 1, "status": 1}

    def test_is_not_used_for_files(self, sandbox: Sandbox, start: Start, connect: Connect) -> None:
        files = start()
        job = files.add_job(SERIES, errors=1)
        sandbox.add_job(SERIES, errors=1, error_file_url=job.handle, job_id=job.job_id)
        files.inject(Fault("redirect", endpoint="files", location=f"/files/{job.handle}"))
        connect(sandbox, error_file_url=f"{files.base_url}/files/{{handle}}")
        hook = CapillaryHook(http_retry=QUICK)
        with hook.open_error_file(hook.get_redeem_upload_job(SERIES, job.job_id)) as stream:
            assert stream.read() == job.read_error_file()
        assert files.count("files") == 2
        assert [request.path for request in files.requests if "Authorization" in request.headers] == []

    def test_is_not_used_by_a_session_of_ones_own(self, sandbox: Sandbox, start: Start, hook: CapillaryHook) -> None:
        elsewhere = start()
        with hook.get_conn() as session:
            session.get(f"{sandbox.base_url}/coupon/x")
            session.get(f"{elsewhere.base_url}/coupon/x")
        for request in [*sandbox.requests, *elsewhere.requests]:
            assert "Authorization" not in request.headers

    def test_is_not_used_by_such_a_session_after_a_redirect(
        self, sandbox: Sandbox, start: Start, hook: CapillaryHook
    ) -> None:
        elsewhere = start()
        sandbox.inject(Fault("redirect", endpoint="other", location=f"{elsewhere.base_url}/coupon/y"))
        sandbox.inject(Fault("redirect", endpoint="other", location="/coupon/z"))
        with hook.get_conn() as session:
            session.get(f"{sandbox.base_url}/coupon/x")
            session.get(f"{sandbox.base_url}/coupon/x")
        assert (sandbox.count("other"), elsewhere.count("other")) == (3, 1)
        for request in [*sandbox.requests, *elsewhere.requests]:
            assert "Authorization" not in request.headers
