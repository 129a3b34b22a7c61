# SPDX-License-Identifier: Apache-2.0
"""Any other store: files that fsspec can write first and show later, as with Google's, SMB shares and SFTP servers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._storage.stores.base import SHA256, warning_of_no_record
from airflow_provider_capillary._transport.object_storage import BLOCK_BYTES
from airflow_provider_capillary.api.errors import CapillaryConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsspec import AbstractFileSystem

    from airflow_provider_capillary._storage.stores.base import ObjectLocation


class StagedFile:
    """A file that its store shows at ``commit()`` and not before."""

    workers = 1

    @classmethod
    def supports(cls, fs: AbstractFileSystem) -> bool:
        # Only the open file tells, see begin().
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
                f"destination {self._uri} cannot be used: {type(self._path.fs).__name__} has no way to keep an object "
                "out of sight until it is whole; choose another store"
            )
        return ""

    def send(self, number: int, data: bytes | bytearray) -> None:
        self._file.write(data)

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, record: bool) -> None:
        if not overwrite and self.exists():
            raise FileExistsError
        self._file.close()
        self._file.commit()
        self._file = None  # what is shown must not be discarded
        if record and hasattr(self._path.fs, "setxattrs"):
            with warning_of_no_record():
                self._path.fs.setxattrs(self._path.path, **{SHA256: sha256})

    def put(self, data: bytes, *, sha256: str, overwrite: bool, record: bool, note: Callable[[str], None]) -> None:
        note(self.begin())
        self.send(1, data)
        self.finish([], sha256=sha256, overwrite=overwrite, record=record)

    def abort(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        # Closing sends what is left to what is staged, which then is thrown away; it must be closed all the same, or
        # the file would close itself when it is garbage collected.
        with suppress(Exception):
            file.close()
        with suppress(Exception):
            file.discard()

    def remove(self, left: str) -> None:
        """Nothing: the store forgets what was never shown."""


def _is_staged(file: Any) -> bool:
    """Say whether a file has a ``commit`` of its own; the one that all of fsspec's files have does nothing."""
    from fsspec.spec import AbstractBufferedFile

    of_its_class = isinstance(file, AbstractBufferedFile) and type(file).commit is not AbstractBufferedFile.commit
    return of_its_class or "commit" in getattr(file, "__dict__", {})
