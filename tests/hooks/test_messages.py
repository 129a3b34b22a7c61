# SPDX-License-Identifier: Apache-2.0
"""Requests and responses on the wire, which are the same with both HTTP libraries."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.exceptions import CapillaryError
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import SERIES
from tests.hooks.servers import answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Connect

ANSWER = json.dumps({"data": {"accessToken": "token-1", "ttlSeconds": 300}, "success": True, "result": {}}).encode()


def http_of(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *lines, b"", body])


@pytest.mark.parametrize(
    ("host", "port", "header"),
    [
        ("http://capillary.example.test", 80, "capillary.example.test"),
        ("http://capillary.example.test", 8080, "capillary.example.test:8080"),
        ("http://[2001:db8::7]", 80, "[2001:db8::7]"),
        ("http://[2001:db8::7]", 8080, "[2001:db8::7]:8080"),
    ],
)
def test_the_host_header_names_the_port_where_it_is_not_the_default(
    client: Client,
    sandbox: Sandbox,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    port: int,
    header: str,
) -> None:
    with answering(http_of(ANSWER)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        connect(sandbox, fields={"host": host, "port": port}, allow_http=True, auth_url="")
        assert client.jobs() == []
        received = proxy.received.decode()
    assert re.findall(r"^Host: (\S+)\r$", received, re.MULTILINE) == [header, header]


def test_only_a_request_with_a_body_has_a_length(client: Client, sandbox: Sandbox, conn_id: str) -> None:
    client.jobs(conn_id)
    token, status = sandbox.requests
    assert int(token.headers["Content-Length"]) > 0
    assert "Content-Length" not in status.headers
    assert not [name for each in (token, status) for name in each.headers if name.lower() == "transfer-encoding"]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_answer_is_read(
    client: Client, sandbox: Sandbox, conn_id: str, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = compress(ANSWER)
    sandbox.inject(Fault("body", endpoint="status", status=200, body=body, headers={"Content-Encoding": encoding}))
    assert client.jobs(conn_id) == []
    assert sandbox.counts == {"token": 1, "status": 1}


def test_headers_that_are_repeated_or_not_ascii_are_read(client: Client, sandbox: Sandbox, connect: Connect) -> None:
    lines = (b"X-CAP-REQUEST-ID: one", b"x-cap-request-id: two", b"X-Place: K\xf6ln")
    refusal = http_of(b"{}", *lines, status=b"400 Bad Request")
    with answering(refusal) as server:
        connect(sandbox, fields={"port": server.port}, auth_url=f"{sandbox.base_url}/v3/oauth/token/generate")
        with pytest.raises(CapillaryError) as caught:
            client.job(SERIES, 7)
    assert caught.value.request_id == "one, two"
