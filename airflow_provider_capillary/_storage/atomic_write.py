# SPDX-License-Identifier: Apache-2.0
"""Writing of objects that appear whole or not at all, whatever happens on the way."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from airflow_provider_capillary._storage.part_writer import PartWriter
from airflow_provider_capillary._storage.stores.base import ObjectLocation, store_of
from airflow_provider_capillary._storage.unfinished import note_for
from airflow_provider_capillary._transport.object_storage import translate_errors
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.api.object_uris import parse_object_uri

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary._storage.unfinished import StateStore

log = logging.getLogger(__name__)


class Writer(Protocol):
    """What the bytes are written to."""

    def write(self, data: bytes) -> int:
        """Write all of ``data``."""

    @property
    def size(self) -> int:
        """Bytes that were written so far."""

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""


def locate(destination: str, *, conn_id: str | None, file_name: str) -> ObjectLocation:
    """Read a destination as a user gives it.

    :param destination: ``s3://bucket/key``, ``abfss://container@account.dfs.core.windows.net/name``, ``file:///path``
        or ``/path``; a folder if it ends in ``/``. It may have a connection id in it, as Airflow allows
        (``s3://aws_default@bucket/key``).
    :param conn_id: Airflow connection of the store.
    :param file_name: Name of the object within a folder.
    :raises CapillaryConfigurationError: It names no place that can be written; the message says why.
    """
    if not isinstance(destination, str):
        raise CapillaryConfigurationError(
            f"destination must be text such as 's3://bucket/folder/', but is a {type(destination).__name__}; "
            "Airflow's templating takes an ObjectStoragePath apart"
        )
    uri = f"file://{destination}" if destination.startswith("/") else destination
    try:
        parsed = parse_object_uri(uri, conn_id=conn_id, conn_field="object_storage_conn_id")
    except ValueError as problem:
        raise CapillaryConfigurationError(f"destination {problem}") from None
    from airflow_provider_capillary._airflow_compat import has_fs

    if not has_fs(parsed.scheme):
        raise CapillaryConfigurationError(
            f"destination begins with {parsed.scheme!r}, but must be an absolute path or begin with the scheme of a "
            "store that Airflow can reach, such as s3://, gs://, abfs:// or file://; is the Airflow provider of the "
            "store installed?"
        )
    if parsed.key.endswith("/") or not parsed.key:
        parsed = replace(parsed, key=parsed.key + file_name)
    return ObjectLocation(parsed.uri, parsed.conn_id, parsed.account_host)


@contextmanager
def atomic_write(
    location: ObjectLocation, *, overwrite: bool = True, record: bool = False, notes: StateStore | None = None
) -> Iterator[Writer]:
    """Open an object for writing that appears when the block ends, and not at all when it raises.

    An object that is already there stays as it is until then.

    :param location: Where.
    :param overwrite: Whether an object that is there, or comes in meanwhile, may be replaced.
    :param record: Whether the store is to remember the sha256, for :func:`recorded_at`.
    :param notes: Where it is noted what a killed process would leave behind, for ``remove_unfinished``.
    :return: A context manager of the sink.
    :raises CapillaryErrorFileError: The destination cannot be written, or is there and must not be replaced.
    """
    with _writing(location, overwrite=overwrite):
        store = store_of(location)
        if not overwrite and store.exists():
            raise FileExistsError
    writer = PartWriter(store, note=note_for(notes, location))
    try:
        yield _StreamWriter(writer, location)
        with _writing(location, overwrite=overwrite):
            writer.commit(overwrite=overwrite, record=record)
    except BaseException:
        with suppress(Exception):
            writer.discard()
        raise


def recorded_at(location: ObjectLocation) -> tuple[int, str] | None:
    """Return size in bytes and sha256 of the object that is there.

    :param location: Where.
    :return: None where there is no object or no record of it, or the store does not let it be read.
    :raises CapillaryErrorFileError: The store cannot be reached with this connection.
    """
    with _writing(location):
        store = store_of(location)
    try:
        recorded = store.stored_checksum()
    except CapillaryError:
        raise
    except Exception as error:  # noqa: BLE001 - every store brings its own classes
        # The record only saves an upload. Who may write and not read sends the file each time.
        log.warning(
            "Whether %s has changed cannot be read (%s): the file is sent again", location.uri, type(error).__name__
        )
        return None
    if recorded is None or recorded[1] is None:
        return None
    return recorded[0], recorded[1]


class _StreamWriter:
    """What a block of :func:`atomic_write` writes to."""

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


@contextmanager
def _writing(location: ObjectLocation, *, overwrite: bool = True) -> Iterator[None]:
    with translate_errors(f"destination {location.uri} cannot be written"):
        try:
            yield
        except FileExistsError:
            # Where replacing is allowed, it is another thing that is there, and the remedy would be none.
            if overwrite:
                raise
            raise CapillaryErrorFileError(
                f"destination {location.uri} is already there and overwrite is off; "
                "remove the object, choose another destination, or set overwrite=True"
            ) from None
