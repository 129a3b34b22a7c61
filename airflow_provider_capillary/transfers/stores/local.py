# SPDX-License-Identifier: Apache-2.0
"""Files of this machine and of what it has mounted."""

from __future__ import annotations

import hashlib
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from airflow_provider_capillary.transfers.stores.base import ObjectLocation


class LocalSibling:
    """A hidden sibling that takes the file's place in one step: what goes through $TMPDIR may cross file systems."""

    workers = 1

    @classmethod
    def fits(cls, fs: AbstractFileSystem) -> bool:
        return bool(getattr(fs, "local_file", False))

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._path = location.path
        self._part = self._path.with_name(f".{uuid.uuid4().hex}.part")
        self._file: Any = None

    def exists(self) -> bool:
        return self._path.exists()

    def recorded(self) -> tuple[int, str | None] | None:
        if not self._path.is_file():
            return None
        with self._path.open("rb") as file:
            return self._path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()

    def begin(self) -> str:
        if self._path.is_dir():
            raise IsADirectoryError("it is a folder; let it end in / to have the file named for you")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(f"{self._path.parent} is not a folder") from None
        self._file = self._part.open("xb")
        return str(self._part)

    def send(self, number: int, data: bytes | bytearray) -> None:
        self._file.write(data)

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, record: bool) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if overwrite:
            self._part.replace(self._path)
            return
        # Unlike a rename, a link does not replace what came in meanwhile.
        self._path.hardlink_to(self._part)
        self._part.unlink()

    def put(self, data: bytes, *, sha256: str, overwrite: bool, record: bool) -> None:
        self.begin()
        self.send(1, data)
        self.finish([], sha256=sha256, overwrite=overwrite, record=record)

    def abort(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        with suppress(OSError):
            self._part.unlink()

    def remove(self, left: str) -> None:
        part = Path(left)
        # What was noted down comes from outside: nothing but a part beside the file is ever removed.
        if part.parent == self._path.parent and part.name.startswith(".") and part.suffix == ".part":
            part.unlink(missing_ok=True)
