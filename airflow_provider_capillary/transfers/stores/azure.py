# SPDX-License-Identifier: Apache-2.0
"""Azure Blob Storage: blocks that are staged side by side, and committed as a list."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.transfers.stores.base import SHA256

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fsspec import AbstractFileSystem

    from airflow_provider_capillary.transfers.stores.base import ObjectLocation


class AzureBlocks:
    """Blocks of a blob, by the client of Airflow's path.

    adlfs would show what it has when it is closed, whether or not that is all. Blocks that were staged and not
    committed are never seen; the next commit to the blob drops them, or else Azure after a week.
    """

    workers = 3

    @classmethod
    def fits(cls, fs: AbstractFileSystem) -> bool:
        return hasattr(fs, "service_client")

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._fs = path.fs
        container, name, *_ = self._fs.split_path(path.path)
        self._blob = self._fs.service_client.get_blob_client(container, name)
        # All blocks of a blob need ids of the same length, those that adlfs may have left there too: 32 characters.
        self._ours = uuid.uuid4().hex[:24]

    def exists(self) -> bool:
        return bool(self._run(self._blob.exists()))

    def recorded(self) -> tuple[int, str | None] | None:
        if not self.exists():
            return None
        properties = self._run(self._blob.get_blob_properties())
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
        from azure.core.exceptions import HttpResponseError, ResourceExistsError

        condition = {} if overwrite else {"match_condition": MatchConditions.IfMissing}
        try:
            self._run(self._blob.commit_block_list(sent, metadata={SHA256: sha256}, **condition))
        except ResourceExistsError as error:
            raise FileExistsError from error
        except HttpResponseError as error:
            if getattr(error, "error_code", None) == "InvalidBlockList":
                raise OSError(
                    "somebody else wrote the blob meanwhile, upon which Azure dropped the blocks of this run; the next "
                    "try sends them again"
                ) from error
            raise

    def put(self, data: bytes, *, sha256: str, overwrite: bool, record: bool, note: Callable[[str], None]) -> None:
        from azure.core.exceptions import ResourceExistsError

        try:
            self._run(self._blob.upload_blob(data, overwrite=overwrite, metadata={SHA256: sha256}))
        except ResourceExistsError as error:
            raise FileExistsError from error

    def abort(self) -> None:
        """Nothing: a block that was not committed is not there for anybody."""

    def remove(self, left: str) -> None:
        """Nothing, as for :meth:`abort`."""

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._fs.loop).result()
