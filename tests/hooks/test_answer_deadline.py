# SPDX-License-Identifier: Apache-2.0
"""The bound of a whole answer on a worker, also through TLS, a proxy, or both."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.exceptions import CapillaryTransportError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from tests.hooks.clients import CONN_ID, SERIES
from tests.hooks.servers import answering, connect_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.conftest import Authority, Connect

HOST = "api.example.test"
DRIPS = [b"HTTP/1.1 200 OK\r\nX-Drop: ", *[b"1"] * 60]
ONCE = HttpRetry(max_attempts=1)


@contextmanager
def given_up_in_time() -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(CapillaryTransportError, match=r"no answer within 0\.3 seconds"):
        yield
    assert 1.2 < time.monotonic() - began < 4  # five times the timeout, of the six seconds that it drips


def test_headers_that_drip_through_tls_are_given_up(sandbox: Sandbox, connect: Connect, authority: Authority) -> None:
    with answering(*DRIPS, pause=0.1, tls=authority.server_context()) as server:
        connect(
            sandbox,
            fields={"host": "127.0.0.1", "schema": "https", "port": server.port},
            auth_url=f"{sandbox.base_url}/v3/oauth/token/generate",
            verify=str(authority.bundle),
            timeout_seconds=0.3,
        )
        with given_up_in_time():
            CapillaryHook(CONN_ID, http_retry=ONCE).get_redeem_upload_jobs(SERIES)


def test_the_answer_of_a_proxy_to_connect_that_drips_is_given_up(
    sandbox: Sandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(*DRIPS, pause=0.1) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        connect(sandbox, fields={"host": HOST, "schema": "https", "port": 443}, timeout_seconds=0.3)
        with given_up_in_time():
            CapillaryHook(CONN_ID, http_retry=ONCE).get_redeem_upload_jobs(SERIES)


@pytest.mark.parametrize("is_by_tls", [False, True], ids=["http proxy", "https proxy"])
def test_headers_that_drip_through_a_proxy_and_tls_are_given_up(
    sandbox: Sandbox, connect: Connect, authority: Authority, monkeypatch: pytest.MonkeyPatch, is_by_tls: bool
) -> None:
    tls = authority.server_context("localhost") if is_by_tls else None
    with (
        answering(*DRIPS, pause=0.1, tls=authority.server_context(HOST)) as server,
        connect_proxy({f"{HOST}:443": server.port}, tls=tls) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"{'https' if is_by_tls else 'http'}://localhost:{proxy.port}")
        connect(
            sandbox,
            fields={"host": HOST, "schema": "https", "port": 443},
            verify=str(authority.bundle),
            timeout_seconds=0.3,
        )
        with given_up_in_time():
            CapillaryHook(CONN_ID, http_retry=ONCE).get_redeem_upload_jobs(SERIES)


def test_the_headers_of_a_file_that_drip_are_given_up(sandbox: Sandbox, connect: Connect) -> None:
    with answering(*DRIPS, pause=0.1) as server:
        connect(
            sandbox,
            fields={"port": server.port},
            auth_url=f"{sandbox.base_url}/v3/oauth/token/generate",
            timeout_seconds=0.3,
        )
        job = UploadJob(job_id=1, status="COMPLETED", error_file_url="handle", error_count=1)
        with given_up_in_time(), CapillaryHook(CONN_ID, http_retry=ONCE).open_error_file(job) as stream:
            stream.read()


def test_a_file_may_take_longer_than_any_other_answer(sandbox: Sandbox, connect: Connect) -> None:
    rows = b"row,reason\n" + b"1,refused\n" * 2
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n" % len(rows)
    with answering(head, *(bytes([byte]) for byte in rows), pause=0.05) as server:
        connect(
            sandbox,
            fields={"port": server.port},
            auth_url=f"{sandbox.base_url}/v3/oauth/token/generate",
            timeout_seconds=0.2,
        )
        job = UploadJob(job_id=1, status="COMPLETED", error_file_url="handle", error_count=2)
        with CapillaryHook(CONN_ID, http_retry=ONCE).open_error_file(job) as stream:
            assert stream.read() == rows
