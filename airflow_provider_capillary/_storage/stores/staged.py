# SPDX-License-Identifier: Apache-2.0
"""Any other store that fsspec can write to and commit later, such as Google Cloud Storage, SMB and SFTP."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._storage.stores.base import SHA256, PartStore, warn_if_checksum_not_stored
from airflow_provider_capillary._transport.object_storage import BLOCK_BYTES
from airflow_provider_capillary.api.errors import CapillaryConfigurationError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from airflow_provider_capillary._storage.stores.base import ObjectLocation


class StagedFile(PartStore):
    """Writes a file that appears when it is committed. The store itself drops a file that never is."""

    @classmethod
    def supports(cls, fs: AbstractFileSystem) -> bool:
        # Only the open file shows whether it can be staged, see begin().
        return True

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._uri = location.uri
        self._path = path
        self._file: Any = None

    def exists(self) -> bool:
        self._path.fs.invalidate_cache()
        return bool(self._path.exists())

    def stored_checksum(self) -> tuple[int, str | None] | None:
        if not self.exists():
            return None
        info = self._path.fs.info(self._path.path)
        return info["size"], (info.get("metadata") or {}).get(SHA256)

    def begin(self) -> str:
        self._file = self._path.fs.open(self._path.path, "wb", autocommit=False, block_size=BLOCK_BYTES)
        if not _is_staged(self._file):
            raise CapillaryConfigurationError(
                f"destination {self._uri} cannot be used: {type(self._path.fs).__name__} cannot hide an object "
                "until it is complete; choose another store"
            )
        return ""

    def send(self, number: int, data: bytes | bytearray) -> None:
        self._file.write(data)

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, store_checksum: bool) -> None:
        if not overwrite and self.exists():
            raise FileExistsError
        self._file.close()
        self._file.commit()
        self._file = None  # a committed file must not be discarded
        if store_checksum and hasattr(self._path.fs, "setxattrs"):
            with warn_if_checksum_not_stored():
                self._path.fs.setxattrs(self._path.path, **{SHA256: sha256})

    def abort(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        # Closing sends the rest to the staged file, which is then discarded. An open file would close itself when it is
        # garbage collected.
        with suppress(Exception):
            file.close()
        with suppress(Exception):
            file.discard()


def _is_staged(file: Any) -> bool:
    """Return whether a file overrides ``commit``; the one of fsspec's base class does nothing."""
    from fsspec.spec import AbstractBufferedFile

    of_its_class = isinstance(file, AbstractBufferedFile) and type(file).commit is not AbstractBufferedFile.commit
    return of_its_class or "commit" in getattr(file, "__dict__", {})
