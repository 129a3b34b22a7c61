# SPDX-License-Identifier: Apache-2.0
"""Writing of objects that appear whole or not at all, whatever happens on the way."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from airflow_provider_capillary.api.errors import CapillaryErrorFileError, CapillarySettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Size of the parts that go to S3. s3fs's own default of 50 MiB costs 170 MB of memory, this one 47 MB.
_PART_BYTES = 8 << 20
_S3_SCHEMES = ("s3", "s3a")


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

    def exists(self) -> bool:
        """Whether there is an object already."""
        if self.scheme == "file":
            return self.path.exists()
        return bool(self._object_storage_path().exists())

    def _object_storage_path(self) -> Any:
        # Only now: building it resolves the connection, which must not happen while a DAG file is parsed.
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        return ObjectStoragePath(self.uri, conn_id=self.conn_id)


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
    uri = f"file://{destination}" if destination.startswith("/") else destination
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise CapillarySettingsError("destination is a malformed URI") from None
    scheme = parts.scheme.lower()
    userinfo, _, authority = parts.netloc.rpartition("@")
    if ":" in userinfo:
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
    else:
        raise CapillarySettingsError(
            f"destination must begin with one of file://, s3://, but begins with {scheme or destination[:20]!r}: "
            "only for these is an object known to appear whole or not at all"
        )
    if rest.endswith("/"):
        rest += file_name
    return ObjectLocation(f"{scheme}://{rest}", conn_id or userinfo or None)


@contextmanager
def open_whole(location: ObjectLocation) -> Iterator[Sink]:
    """Open an object for writing that appears when the block ends, and not at all when it raises.

    An object that is already there stays as it is until then.

    :param location: Where.
    :return: A context manager of the sink.
    :raises CapillaryErrorFileError: The destination cannot be written.
    """
    opened: _Local | _Staged = (
        _Local(location) if location.scheme == "file" else _Staged(location, location._object_storage_path())
    )
    try:
        yield opened
    except BaseException:
        opened.discard()
        raise
    try:
        opened.commit()
    except BaseException:
        opened.discard()
        raise


class _Local:
    """A hidden sibling that takes the file's place in one step: what goes through $TMPDIR may cross file systems."""

    def __init__(self, location: ObjectLocation) -> None:
        self._location = location
        self._path = location.path
        self._part = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}.part")
        self._file = self._guarded(self._create)

    def write(self, data: bytes) -> object:
        return self._guarded(lambda: self._file.write(data))

    def commit(self) -> None:
        self._guarded(self._replace)

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink()

    def _create(self) -> Any:
        if self._path.is_dir():
            raise IsADirectoryError("it is a folder; let it end in / to have the file named for you")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._part.open("xb")

    def _replace(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        return _naming_destination(self._location, action)


class _Staged:
    """A store that keeps what is written aside until it is told to show it, as S3 does with a multipart upload."""

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._location = location
        self._file = self._guarded(lambda: path.open("wb", autocommit=False, block_size=_PART_BYTES))

    def write(self, data: bytes) -> object:
        return self._guarded(lambda: self._file.write(data))

    def commit(self) -> None:
        self._guarded(self._file.close)
        self._guarded(self._file.commit)

    def discard(self) -> None:
        # Closing sends what is left to the staged upload, which then is thrown away; it must be closed all the same,
        # or the file would close itself when it is garbage collected.
        with suppress(Exception):
            self._file.close()
        with suppress(Exception):
            self._file.discard()

    def _guarded(self, action: Callable[[], Any]) -> Any:
        return _naming_destination(self._location, action)


def _naming_destination(location: ObjectLocation, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OSError as error:
        raise CapillaryErrorFileError(
            f"destination {location.uri} cannot be written: {error.strerror or str(error) or type(error).__name__}"
        ) from error
