# SPDX-License-Identifier: Apache-2.0
"""Azure Blob Storage: blocks that are staged side by side, and committed as a list."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._storage.stores.base import SHA256

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from fsspec import AbstractFileSystem

    from airflow_provider_capillary._storage.stores.base import ObjectLocation

log = logging.getLogger(__name__)


class AzureBlocks:
    """Blocks of a blob, by the client of Airflow's path.

    adlfs would show what it has when it is closed, whether or not that is all. Blocks that were staged and not
    committed are never seen; the next commit to the blob drops them, or else Azure after a week.
    """

    workers = 3

    @classmethod
    def supports(cls, fs: AbstractFileSystem) -> bool:
        return hasattr(fs, "service_client")

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._fs = path.fs
        self._blob = self._fs.service_client.get_blob_client(location.container, location.key)
        # All blocks of a blob need ids of the same length, those that adlfs may have left there too: 32 characters.
        self._ours = uuid.uuid4().hex[:24]

    def exists(self) -> bool:
        return self._properties() is not None

    def stored_checksum(self) -> tuple[int, str | None] | None:
        properties = self._properties()
        if properties is None:
            return None
        return properties.size, (properties.metadata or {}).get(SHA256)

    def begin(self) -> str:
        return ""

    def send(self, number: int, data: bytes | bytearray) -> Any:
        from azure.storage.blob import BlobBlock

        block = f"{self._ours}{number:08d}"
        self._run(self._blob.stage_block(block, memoryview(data), length=len(data)))
        return BlobBlock(block)

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, record: bool) -> None:
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError

        condition = {} if overwrite else {"match_condition": MatchConditions.IfMissing}
        try:
            with _refused_if_there():
                self._run(self._blob.commit_block_list(sent, metadata={SHA256: sha256}, **condition))
        except HttpResponseError as error:
            if getattr(error, "error_code", None) == "InvalidBlockList":
                raise OSError(
                    "somebody else wrote the blob meanwhile, upon which Azure dropped the blocks of this run; the next "
                    "try sends them again"
                ) from error
            raise

    def put(self, data: bytes, *, sha256: str, overwrite: bool, record: bool, note: Callable[[str], None]) -> None:
        with _refused_if_there():
            self._run(self._blob.upload_blob(data, overwrite=overwrite, metadata={SHA256: sha256}))

    def abort(self) -> None:
        """Nothing: a block that was not committed is not there for anybody."""

    def remove(self, left: str) -> None:
        """Nothing, as for :meth:`abort`."""

    def _properties(self) -> Any:
        """Return what is known of the blob that is there; None where there is none, or it may not be asked for."""
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

        try:
            return self._run(self._blob.get_blob_properties())
        except ResourceNotFoundError:
            return None
        except HttpResponseError as error:
            # 403: a signature may allow to write and not to read; 409: a blob under a customer's key. The write itself
            # decides then.
            if error.status_code not in (403, 409):
                raise
            log.info("Azure does not say whether the blob is there (HTTP %s); the write decides", error.status_code)
            return None

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._fs.loop).result()


@contextmanager
def _refused_if_there() -> Iterator[None]:
    """Turn the refusal of our own condition into what it means; other conflicts are leases and immutable blobs."""
    from azure.core.exceptions import ResourceExistsError

    try:
        yield
    except ResourceExistsError as error:
        if getattr(error, "error_code", None) == "BlobAlreadyExists":
            raise FileExistsError from error
        raise
