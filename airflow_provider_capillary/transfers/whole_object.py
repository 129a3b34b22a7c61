# SPDX-License-Identifier: Apache-2.0
"""Writing of objects that appear whole or not at all, whatever happens on the way."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from airflow_provider_capillary.api.errors import CapillaryErrorFileError, CapillarySettingsError
from airflow_provider_capillary.api.messages import without_query
from airflow_provider_capillary.hooks.object_storage import telling
from airflow_provider_capillary.transfers.part_writer import PartWriter
from airflow_provider_capillary.transfers.stores.base import ObjectLocation, store_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capillary.transfers.stores.base import PartStore

_NOTE = "capillary_unfinished"
_CONN_ID = re.compile(r"[\w.-]+\Z")


class Sink(Protocol):
    """What the bytes are written to."""

    def write(self, data: bytes) -> int:
        """Write all of ``data``."""

    @property
    def size(self) -> int:
        """Bytes that were written so far."""

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""


class Notes(Protocol):
    """What outlives a try of a task: Airflow's state store of the task."""

    def get(self, key: str) -> Any:
        """Return what was set, or None."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value that is JSON."""

    def delete(self, key: str) -> None:
        """Forget it."""


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
    from airflow_provider_capillary._airflow_compat import has_fs

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
    elif has_fs(scheme):
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
            f"destination must be an absolute path or begin with the scheme of a store that Airflow can reach, such as "
            f"s3://, gs://, abfs:// or file://, but begins with {scheme or destination[:20]!r}; "
            "is the Airflow provider of the store installed?"
        )
    if rest.endswith("/"):
        rest += file_name
    return ObjectLocation(f"{scheme}://{rest}", conn_id or userinfo or None)


@contextmanager
def open_whole(
    location: ObjectLocation, *, overwrite: bool = True, record: bool = False, notes: Notes | None = None
) -> Iterator[Sink]:
    """Open an object for writing that appears when the block ends, and not at all when it raises.

    An object that is already there stays as it is until then.

    :param location: Where.
    :param overwrite: Whether an object that is there, or comes in meanwhile, may be replaced.
    :param record: Whether the store is to remember the sha256, for :func:`recorded_at`.
    :param notes: Where it is kept what a process that is killed would leave behind. The next try removes that.
    :return: A context manager of the sink.
    :raises CapillaryErrorFileError: The destination cannot be written, or is there and must not be replaced.
    """
    with _writing(location):
        store = store_of(location)
        if not overwrite and store.exists():
            raise FileExistsError
    note = _noting(location, store, notes)
    writer = PartWriter(store, note=note)
    try:
        yield _Sink(writer, location)
        with _writing(location):
            writer.commit(overwrite=overwrite, record=record)
    except BaseException:
        with suppress(Exception):
            writer.discard()
        raise


def recorded_at(location: ObjectLocation) -> tuple[int, str] | None:
    """Return size in bytes and sha256 of the object that is there; None where there is none, or nobody recorded it.

    :param location: Where.
    :raises CapillaryErrorFileError: The store cannot be asked.
    """
    with _writing(location):
        recorded = store_of(location).recorded()
    if recorded is None or recorded[1] is None:
        return None
    return recorded[0], recorded[1]


class _Sink:
    """What a block of :func:`open_whole` writes to."""

    def __init__(self, writer: PartWriter, location: ObjectLocation) -> None:
        self._writer = writer
        self._location = location

    def write(self, data: bytes) -> int:
        with _writing(self._location):
            return self._writer.write(data)

    @property
    def size(self) -> int:
        return self._writer.size

    @property
    def sha256(self) -> str:
        return self._writer.sha256


def _noting(location: ObjectLocation, store: PartStore, notes: Notes | None) -> Callable[[str], None]:
    """Remove what an earlier try left behind, and return what notes down what this one would leave."""
    if notes is None:
        return lambda left: None
    # None of this is worth the file: a note that cannot be kept only means that less is tidied up.
    with suppress(Exception):
        left = notes.get(_NOTE)
        if isinstance(left, dict) and left.get("uri") == location.uri and isinstance(left.get("left"), str):
            with suppress(Exception):  # it may be gone already
                store.remove(left["left"])
            notes.delete(_NOTE)

    def note(left: str) -> None:
        with suppress(Exception):
            if left:
                notes.set(_NOTE, {"uri": location.uri, "left": left})
            else:
                notes.delete(_NOTE)

    return note


@contextmanager
def _writing(location: ObjectLocation) -> Iterator[None]:
    with telling(f"destination {location.uri} cannot be written"):
        try:
            yield
        except FileExistsError:
            raise CapillaryErrorFileError(
                f"destination {location.uri} is already there and overwrite is off; "
                "remove the object, choose another destination, or set overwrite=True"
            ) from None
