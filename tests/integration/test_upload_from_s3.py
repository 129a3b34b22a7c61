# SPDX-License-Identifier: Apache-2.0
"""Uploads whose file is in S3, by a real server and its Airflow connection."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.api.errors import CapillaryUploadError
from tests.child import ChildProcess, peak_of_memory
from tests.operators.running import HEADER, PERSONAL, job_ids, row, upload

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox
    from tests.integration.seaweedfs import SeaweedFS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("capillary_connection")]


def put(s3: SeaweedFS, rows: int, *, filling: str = "") -> str:
    """Put a file into the bucket, and return its URI."""
    key = f"redeemed/{uuid.uuid4().hex}.csv"
    line = row(1).rstrip("\n") + f",{filling}\n"
    content = "".join(map(row, range(rows))) if not filling else line * rows
    s3.put(key, (HEADER.replace("\n", ",details\n" if filling else "\n") + content).encode())
    return s3.uri(key)


def test_a_file_in_s3_is_uploaded_in_several_jobs_through_its_connection(
    sandbox: Sandbox, s3: SeaweedFS, aws_connection: str
) -> None:
    source = put(s3, 7)
    assert upload(source, object_storage_conn_id=aws_connection, max_rows_per_job=3) == job_ids(sandbox)
    assert [(job.rows, job.errors) for job in sandbox.jobs()] == [(3, 0), (3, 0), (1, 0)]


def test_the_connection_may_stand_in_the_uri(sandbox: Sandbox, s3: SeaweedFS, aws_connection: str) -> None:
    source = put(s3, 1).replace("s3://", f"s3://{aws_connection}@")
    assert upload(source) == job_ids(sandbox)
    assert len(job_ids(sandbox)) == 1


def test_an_object_that_is_not_there_is_named_and_nothing_is_sent(
    sandbox: Sandbox, s3: SeaweedFS, aws_connection: str
) -> None:
    with pytest.raises(CapillaryUploadError, match=r"source: there is no file at s3://lake/missing\.csv"):
        upload(s3.uri("missing.csv"), object_storage_conn_id=aws_connection)
    assert sandbox.requests == []


def test_a_large_file_in_s3_is_sent_in_constant_memory(sandbox: Sandbox, s3: SeaweedFS, aws_connection: str) -> None:
    small = put(s3, 3)
    large = put(s3, 250_000, filling="X" * 200)
    with ChildProcess(growth_of_upload, small=small, large=large, conn_id=aws_connection) as child:
        assert child.result() < 64 << 20
    assert len(job_ids(sandbox)) == 2
    assert PERSONAL not in str(sandbox.jobs())


def growth_of_upload(small: str, large: str, conn_id: str) -> int:
    """Return the bytes by which the peak of memory grows from a small upload to one of 64 MiB."""
    upload(small, object_storage_conn_id=conn_id)
    before = peak_of_memory()
    upload(large, object_storage_conn_id=conn_id)
    return peak_of_memory() - before
