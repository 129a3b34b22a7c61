# SPDX-License-Identifier: Apache-2.0
"""What the transfer relies on: how an object store behaves through Airflow's own path and connection."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.seaweedfs import SeaweedFS

if TYPE_CHECKING:
    from tests.airflow_compat import ObjectStoragePath

pytestmark = pytest.mark.slow

BLOCK_SIZE = 8 << 20
SMALL = b"Card number,Reason\n12345,expired\n"
# More than two blocks, so that it goes up in parts.
LARGE = b"0123456789abcdef" * ((2 * BLOCK_SIZE + 1000) // 16)


@pytest.fixture
def key() -> str:
    return f"test-seaweedfs/{uuid.uuid4().hex}/errors.csv"


@pytest.fixture
def path(s3: SeaweedFS, aws_connection: str, key: str) -> ObjectStoragePath:
    from tests.airflow_compat import ObjectStoragePath

    return ObjectStoragePath(s3.uri(key), conn_id=aws_connection)


def write_uncommitted(path: ObjectStoragePath, content: bytes) -> Any:
    file = path.open("wb", autocommit=False, block_size=BLOCK_SIZE)
    for start in range(0, len(content), 1 << 20):
        file.write(content[start : start + (1 << 20)])
    return file


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["one part", "several parts"])
class TestUncommittedWrite:
    def test_is_invisible_until_commit(self, s3: SeaweedFS, path: ObjectStoragePath, key: str, content: bytes) -> None:
        file = write_uncommitted(path, content)
        assert s3.keys(key) == []
        file.close()
        assert s3.keys(key) == []
        file.commit()
        assert s3.keys(key) == [key]
        assert s3.read(key) == content
        assert s3.open_uploads(key) == []

    def test_leaves_nothing_when_discarded(
        self, s3: SeaweedFS, path: ObjectStoragePath, key: str, content: bytes
    ) -> None:
        file = write_uncommitted(path, content)
        file.close()
        file.discard()
        assert s3.keys(key) == []
        assert s3.open_uploads(key) == []

    def test_leaves_the_old_object_when_discarded(
        self, s3: SeaweedFS, path: ObjectStoragePath, key: str, content: bytes
    ) -> None:
        s3.put(key, b"yesterday")
        file = write_uncommitted(path, content)
        file.close()
        assert s3.read(key) == b"yesterday"
        file.discard()
        assert s3.read(key) == b"yesterday"

    def test_replaces_the_old_object_when_committed(
        self, s3: SeaweedFS, path: ObjectStoragePath, key: str, content: bytes
    ) -> None:
        s3.put(key, b"yesterday")
        file = write_uncommitted(path, content)
        file.close()
        file.commit()
        assert s3.read(key) == content


def test_abandoned_upload_is_seen(s3: SeaweedFS, path: ObjectStoragePath, key: str) -> None:
    # Otherwise an empty list of open uploads would prove nothing.
    file = write_uncommitted(path, LARGE)
    assert s3.open_uploads(key) == [key]
    file.close()
    file.discard()
    assert s3.open_uploads(key) == []


def test_plain_open_publishes_what_a_failed_write_left(s3: SeaweedFS, path: ObjectStoragePath, key: str) -> None:
    # The reason for all of the above. When this fails, s3fs has got better, and the transfer may get simpler.
    def write_half() -> None:
        with path.open("wb") as file:
            file.write(SMALL[:10])
            raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError):
        write_half()
    assert s3.read(key) == SMALL[:10]


def test_a_second_server_runs_beside_the_first(s3: SeaweedFS) -> None:
    with SeaweedFS(bucket="other") as other:
        other.put("key", b"value")
        assert other.keys() == ["key"]
        assert other.endpoint_url != s3.endpoint_url
        process = other._process
        folder = other._folder
    assert process is not None
    assert process.poll() is not None
    assert folder is not None
    assert not folder.exists()
