# SPDX-License-Identifier: Apache-2.0
"""Azure Blob Storage: stages blocks in parallel and commits them as a list."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._storage.stores.base import SHA256, PartStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from fsspec import AbstractFileSystem

    from airflow_provider_capillary._storage.stores.base import ObjectLocation

log = logging.getLogger(__name__)


class AzureBlocks(PartStore):
    """Writes blocks of a blob with the client of Airflow's path.

    adlfs commits on close even if the file is incomplete. Blocks that were staged and not committed are never visible.
    The next commit to the blob drops them, otherwise Azure does after a week, so there is nothing to abort or remove.
    """

    workers = 3

    @classmethod
    def supports(cls, fs: AbstractFileSystem) -> bool:
        return hasattr(fs, "service_client")

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._fs = path.fs
        self._blob = self._fs.service_client.get_blob_client(location.container, location.key)
        # All block ids of a blob must have the same length, including those that adlfs may have left: 32 characters.
        self._ours = uuid.uuid4().hex[:24]

    def exists(self) -> bool:
        return self._properties() is not None

    def stored_checksum(self) -> tuple[int, str | None] | None:
        properties = self._properties()
        if properties is None:
            return None
        return properties.size, (properties.metadata or {}).get(SHA256)

    def send(self, number: int, data: bytes | bytearray) -> Any:
        from azure.storage.blob import BlobBlock

        block = f"{self._ours}{number:08d}"
        self._run(self._blob.stage_block(block, memoryview(data), length=len(data)))
        return BlobBlock(block)

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, store_checksum: bool) -> None:
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError

        condition = {} if overwrite else {"match_condition": MatchConditions.IfMissing}
        try:
            with _translate_conflict():
                self._run(self._blob.commit_block_list(sent, metadata={SHA256: sha256}, **condition))
        except HttpResponseError as error:
            if getattr(error, "error_code", None) == "InvalidBlockList":
                raise OSError(
                    "another process wrote the blob at the same time, so Azure dropped the blocks of this run; the "
                    "next try sends them again"
                ) from error
            raise

    def put(
        self, data: bytes, *, sha256: str, overwrite: bool, store_checksum: bool, note: Callable[[str], None]
    ) -> None:
        with _translate_conflict():
            self._run(self._blob.upload_blob(data, overwrite=overwrite, metadata={SHA256: sha256}))

    def _properties(self) -> Any:
        """Return the properties of the existing blob; None if there is none or they may not be read."""
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        try:
            return self._run(self._blob.get_blob_properties())
        except ResourceNotFoundError:
            return None
        except HttpResponseError as error:
            # 403: a signature may permit writing but not reading; 409: a blob under a customer's key. The write itself
            # then shows whether the blob exists.
            if error.status_code not in (403, 409):
                raise
            log.info(
                "Azure does not report whether the blob exists (HTTP %s); the write will show it", error.status_code
            )
            return None

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._fs.loop).result()


@contextmanager
def _translate_conflict() -> Iterator[None]:
    """Raise FileExistsError if our own condition failed; other conflicts are leases and immutable blobs."""
    from azure.core.exceptions import ResourceExistsError

    try:
        yield
    except ResourceExistsError as error:
        if getattr(error, "error_code", None) == "BlobAlreadyExists":
            raise FileExistsError from error
        raise
