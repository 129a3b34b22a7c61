# SPDX-License-Identifier: Apache-2.0
"""Writing of objects that appear whole or not at all, whatever happens on the way."""

from __future__ import annotations

import os
import re
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from airflow_provider_capillary.api.errors import CapillaryErrorFileError, CapillarySettingsError
from airflow_provider_capillary.api.messages import without_query
from airflow_provider_capillary.hooks.object_storage import BLOCK_BYTES, object_storage_path, telling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_S3_SCHEMES = ("s3", "s3a")
_CONN_ID = re.compile(r"[\w.-]+\Z")


@dataclass(frozen=True)
class ObjectLocation:
    """Where an object is to be.

    :param uri: Without connection id or credentials: fit for logs and XCom.
    :param conn_id: Airflow connection of the store; None for what the machine itself may do.
    """

    uri: str
    conn_id: str | None = None

    @property
    def scheme(self) -> str:
        """The kind of store."""
        return self.uri.partition("://")[0]

    @property
    def path(self) -> Path:
        """The path of a ``file://`` location. Not unquoted, as fsspec does not either."""
        return Path(self.uri.removeprefix("file://"))


class Sink(Protocol):
    """What the bytes are written to."""

    def write(self, data: bytes) -> object:
        """Write all of ``data``."""


def locate(destination: str, *, conn_id: str | None, file_name: str) -> ObjectLocation:
    """Read a destination as a user gives it.

    :param destination: ``s3://bucket/key``, ``file:///path`` or ``/path``; a folder if it ends in ``/``. A connection
        id in it (``s3://aws_default@bucket/key``, as Airflow allows) counts where ``conn_id`` is None.
    :param conn_id: Airflow connection of the store.
    :param file_name: Name of the object within a folder.
    :raises CapillarySettingsError: It names no place that can be written; the message says why.
    """
    if not isinstance(destination, str):
        raise CapillarySettingsError(
            f"destination must be text such as 's3://bucket/folder/', but is a {type(destination).__name__}; "
            "Airflow's templating takes an ObjectStoragePath apart"
        )
    if not destination.isprintable():
        raise CapillarySettingsError("destination has a control character in it, such as a line break")
    uri = f"file://{destination}" if destination.startswith("/") else destination
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise CapillarySettingsError("destination is a malformed URI") from None
    scheme = parts.scheme.lower()
    userinfo, _, authority = parts.netloc.rpartition("@")
    if ":" in authority or (userinfo and not _CONN_ID.match(userinfo)):
        raise CapillarySettingsError(
            "destination has credentials in it; store them in an Airflow connection and give its id as "
            "object_storage_conn_id"
        )
    rest = uri.partition("://")[2].removeprefix(f"{userinfo}@" if userinfo else "")
    if scheme == "file":
        if authority or not rest.startswith("/"):
            raise CapillarySettingsError(
                f"destination {uri!r} must have an absolute path, such as file:///data/errors/"
            )
    elif scheme in _S3_SCHEMES:
        if not authority or not rest.partition("/")[1]:
            raise CapillarySettingsError(f"destination '{scheme}://{rest}' must name a bucket and a key or folder")
        if "?" in rest or "::" in rest or rest.endswith("#"):
            # Not shown as it stands: what follows may be the signature of a URL that was copied.
            raise CapillarySettingsError(
                f"destination {without_query(uri)} has '?' or '::' in its key or ends in '#', "
                "which fsspec takes for something else"
            )
    else:
        raise CapillarySettingsError(
            f"destination must begin with one of file://, s3://, but begins with {scheme or destination[:20]!r}: "
            "only for these is an object known to appear whole or not at all"
        )
    if rest.endswith("/"):
        rest += file_name
    return ObjectLocation(f"{scheme}://{rest}", conn_id or userinfo or None)


@contextmanager
def open_whole(location: ObjectLocation, *, overwrite: bool = True) -> Iterator[Sink]:
    """Open an object for writing that appears when the block ends, and not at all when it raises.

    An object that is already there stays as it is until then.

    :param location: Where.
    :param overwrite: Whether an object that is there, or comes in meanwhile, may be replaced.
    :return: A context manager of the sink.
    :raises CapillaryErrorFileError: The destination cannot be written, or is there and must not be replaced.
    """
    sink = _Local(location) if location.scheme == "file" else _Staged(location)
    if not overwrite:
        sink.refuse_if_there()
    try:
        sink.open()  # in here, because a task can be interrupted at any line
        yield sink
        sink.commit(overwrite=overwrite)
    except BaseException:
        sink.discard()
        raise


class _Local:
    """A hidden sibling that takes the file's place in one step: what goes through $TMPDIR may cross file systems."""

    def __init__(self, location: ObjectLocation) -> None:
        self._location = location
        # Not unquoted, as fsspec does not either.
        self._path = Path(location.uri.removeprefix("file://"))
        self._part = self._path.with_name(f".{uuid.uuid4().hex}.part")
        self._file: Any = None

    def refuse_if_there(self) -> None:
        if self._path.exists():
            raise _already_there(self._location)

    def open(self) -> None:
        with _writing(self._location):
            if self._path.is_dir():
                raise IsADirectoryError("it is a folder; let it end in / to have the file named for you")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("xb")

    def write(self, data: bytes) -> object:
        with _writing(self._location):
            return self._file.write(data)

    def commit(self, *, overwrite: bool) -> None:
        with _writing(self._location):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if overwrite:
                self._part.replace(self._path)
                return
            try:
                # Unlike a rename, a link does not replace what came in meanwhile.
                self._path.hardlink_to(self._part)
            except FileExistsError:
                raise _already_there(self._location) from None
            self._part.unlink()

    def discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        with suppress(OSError):
            self._part.unlink()


class _Staged:
    """A store that keeps what is written aside until it is told to show it, as S3 does with a multipart upload.

    What fits into one part is kept here instead and sent in one request, which leaves nothing behind if it fails.
    """

    def __init__(self, location: ObjectLocation) -> None:
        self._location = location
        with _writing(location):
            self._path = object_storage_path(location.uri, location.conn_id)
        self._first = bytearray()
        self._file: Any = None

    def refuse_if_there(self) -> None:
        with _writing(self._location):
            self._path.fs.invalidate_cache()
            if self._path.exists():
                raise _already_there(self._location)

    def open(self) -> None:
        """Ask nothing of the store before there is more than one part."""

    def write(self, data: bytes) -> object:
        if self._file is None and len(self._first) + len(data) <= BLOCK_BYTES:
            self._first += data
            return len(data)
        with _writing(self._location):
            if self._file is None:
                self._file = self._path.open("wb", autocommit=False, block_size=BLOCK_BYTES)
                self._file.write(bytes(self._first))
            return self._file.write(data)

    def commit(self, *, overwrite: bool) -> None:
        if not overwrite:
            self.refuse_if_there()
        with _writing(self._location):
            if self._file is None:
                self._path.fs.pipe_file(self._path.path, bytes(self._first))
            else:
                self._file.close()
                self._file.commit()

    def discard(self) -> None:
        if self._file is None:
            return
        # Closing sends what is left to the staged upload, which then is thrown away; it must be closed all the same,
        # or the file would close itself when it is garbage collected.
        with suppress(Exception):
            self._file.close()
        with suppress(Exception):
            self._file.discard()


def _writing(location: ObjectLocation) -> AbstractContextManager[None]:
    return telling(f"destination {location.uri} cannot be written")


def _already_there(location: ObjectLocation) -> CapillaryErrorFileError:
    return CapillaryErrorFileError(
        f"destination {location.uri} is already there and overwrite is off; "
        "remove the object, choose another destination, or set overwrite=True"
    )
