# SPDX-License-Identifier: Apache-2.0
"""Local files, including mounted file systems."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import stat
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._storage.stores.base import PartStore
from airflow_provider_capillary.api.log_lines import write_lines

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from airflow_provider_capillary._storage.stores.base import ObjectLocation


log = logging.getLogger(__name__)

_PART = re.compile(r"\.[0-9a-f]{32}\.part")
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class LocalSibling(PartStore):
    """Writes a hidden file in the same folder and renames it: a rename from $TMPDIR may cross file systems."""

    @classmethod
    def supports(cls, fs: AbstractFileSystem) -> bool:
        return bool(getattr(fs, "local_file", False))

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._path = location.path
        self._target = self._path
        self._part: Path | None = None
        self._file: Any = None

    def exists(self) -> bool:
        return _status_of(self._path) is not None

    def stored_checksum(self) -> tuple[int, str | None] | None:
        if not self._path.is_file():
            return None
        with self._path.open("rb") as file:
            return self._path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()

    def begin(self) -> str:
        old = _status_of(self._path)
        # Follow a link, as other programs do: replacing it by a file would leave its target unchanged.
        self._target = Path(os.path.realpath(self._path)) if self._path.is_symlink() else self._path
        folder = self._target.parent
        if self._target != self._path and not folder.is_dir():
            raise NotADirectoryError(f"it is a symbolic link to {self._target}, whose folder does not exist")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(f"{folder} is not a folder") from None
        self._part = part = folder / f".{uuid.uuid4().hex}.part"
        self._file = part.open("xb")
        if old is not None:
            self._keep_access(old)
        return str(part)

    def send(self, number: int, data: bytes | bytearray) -> None:
        self._file.write(data)

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, store_checksum: bool) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        part = Path(self._file.name)
        if overwrite:
            part.replace(self._target)
            return
        # Unlike a rename, a link does not replace a file that was created in the meantime.
        self._target.hardlink_to(part)
        try:
            part.unlink()
        except OSError as error:
            write_lines(log.warning, f"The file was written, but {part} could not be removed ({error.strerror})")

    def abort(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        if self._part is not None:
            with suppress(OSError):
                self._part.unlink()

    def remove(self, left: str) -> None:
        part = Path(left)
        # The note comes from outside, so remove nothing but a part. The part is beside the target of a link, which may
        # have changed since, so the folder is not compared.
        if part.is_absolute() and _PART.fullmatch(part.name):
            part.unlink(missing_ok=True)

    def _keep_access(self, old: os.stat_result) -> None:
        """Give the part the mode and, if permitted, the owner of the old file, before anything is written to it."""
        if old.st_nlink > 1:
            write_lines(
                log.warning,
                f"{self._target} has {old.st_nlink} names (hard links): only this one will have the new contents",
            )
        descriptor = self._file.fileno()
        for owner, group in ((old.st_uid, -1), (-1, old.st_gid)):
            with suppress(OSError):
                os.fchown(descriptor, owner, group)
        # Not every mounted share supports modes.
        with suppress(OSError):
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _status_of(path: Path) -> os.stat_result | None:
    """Return the status of the file to be replaced; None if there is none.

    :raises OSError: It is not a file and must not be replaced, or its status cannot be read.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError("it is a symbolic link that leads back to itself; remove it") from None
        raise
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("it is a folder; end it with / to have the file named for you")
    kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), None)
    if kind is not None:
        raise OSError(f"it is {kind}, not a file; choose another destination")
    return status
