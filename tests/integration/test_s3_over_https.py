# SPDX-License-Identifier: Apache-2.0
"""S3 over https, as users have it: the checksum of a body goes before it, and the body is not hashed to be signed."""

from __future__ import annotations

import logging
import re
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.integration.seaweedfs import SeaweedFS
from tests.transfers.contract import NAME, OLD
from tests.transfers.running import LARGE, SERIES, SMALL, connect, pull
from tests.transfers.stores import Content, S3Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import Sandbox

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[SeaweedFS]:
    with SeaweedFS(is_https=True) as server:
        yield server


@pytest.fixture
def store(server: SeaweedFS, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> S3Folder:
    connect(monkeypatch, sandbox)
    conn_id = f"aws_{uuid.uuid4().hex}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", server.aws_connection_json())
    return S3Folder(server, f"error-files/{uuid.uuid4().hex}/", conn_id)


@pytest.mark.parametrize(("content", "bodies"), [(SMALL, 1), (LARGE, 3)], ids=["in one request", "in three parts"])
def test_a_file_arrives_with_checksums_in_headers(
    sandbox: Sandbox, store: S3Folder, caplog: pytest.LogCaptureFixture, content: bytes, bodies: int
) -> None:
    store.put(NAME, OLD)
    job = sandbox.add_job(SERIES, errors=1, error_file=content)
    caplog.set_level(logging.DEBUG, logger="botocore.endpoint")

    pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

    assert store.visible() == {NAME: Content.of(content)}
    assert store.unfinished() == []
    sent = [line for line in caplog.messages if re.match(r"Sending http request: .*method=PUT", line)]
    assert len(sent) == bodies
    for request in sent:
        assert "x-amz-checksum-crc32" in request.lower()
        assert "UNSIGNED-PAYLOAD'" in request
        assert "aws-chunked" not in request
