# SPDX-License-Identifier: Apache-2.0
"""The SHA-256 of a transfer is that of the download, which hashes the bytes for resuming: nobody hashes them again."""

from __future__ import annotations

import gzip
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._storage import part_writer
from airflow_provider_capillary._storage.part_writer import HashingWriter
from airflow_provider_capillary.sandbox import Fault
from tests.transfers.contract import NAME
from tests.transfers.running import LARGE, SERIES, SMALL, file_url, pull
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import LocalFolder


class CountingHash:
    """A SHA-256 that counts what the writer hashes itself."""

    hashed = 0

    def __init__(self) -> None:
        self._digest = sha256()

    def update(self, data: bytes) -> None:
        type(self).hashed += len(data)
        self._digest.update(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> type[CountingHash]:
    class Hash(CountingHash):
        pass

    class Hashlib:
        sha256 = Hash

    monkeypatch.setattr(part_writer, "hashlib", Hashlib)
    return Hash


@pytest.mark.parametrize("overwrite", [True, "if_changed"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "of several parts"])
def test_the_writer_does_not_hash_a_download(
    sandbox: Sandbox, store: LocalFolder, hashed: type[CountingHash], content: bytes, overwrite: Any
) -> None:
    store.put(NAME, content[::-1])
    job = sandbox.add_job(SERIES, errors=1, error_file=content)

    run = pull(job, store.folder + NAME, overwrite=overwrite)

    assert run.xcoms["error_file"]["sha256"] == sha256(content).hexdigest()
    assert hashed.hashed == 0


def test_the_hash_of_a_resumed_download_is_that_of_the_object(
    sandbox: Sandbox, store: LocalFolder, hashed: type[CountingHash]
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=LARGE, error_file_url=file_url(sandbox))
    sandbox.inject(Fault("cut", endpoint="files", fraction=0.4))
    sandbox.inject(Fault("cut", endpoint="files", fraction=0.5, content_length=False))

    run = pull(job, store.folder + NAME)

    assert store.visible() == {NAME: Content.of(LARGE)}
    assert run.xcoms["error_file"]["sha256"] == sha256(LARGE).hexdigest()
    assert hashed.hashed == 0


def test_a_file_that_comes_compressed_is_hashed_as_it_is_written(
    sandbox: Sandbox, store: LocalFolder, hashed: type[CountingHash]
) -> None:
    headers = {"Content-Encoding": "gzip"}
    sandbox.inject(Fault("body", endpoint="download", status=200, body=gzip.compress(SMALL), headers=headers))

    run = pull(sandbox.add_job(SERIES, errors=1), store.folder + NAME)

    assert run.xcoms["error_file"]["sha256"] == sha256(SMALL).hexdigest()
    assert hashed.hashed == len(SMALL)


def test_a_digest_is_not_shared_after_the_first_byte() -> None:
    writer = HashingWriter()
    writer.add(1)

    with pytest.raises(ValueError, match="before the first byte"):
        writer.share_digest(sha256())
