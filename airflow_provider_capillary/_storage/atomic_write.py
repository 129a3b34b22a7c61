# SPDX-License-Identifier: Apache-2.0
"""Writes objects that appear whole or not at all."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from airflow_provider_capillary._storage.part_writer import PartWriter
from airflow_provider_capillary._storage.stores.base import ObjectLocation
from airflow_provider_capillary._storage.stores.choice import store_of
from airflow_provider_capillary._storage.unfinished import note_for
from airflow_provider_capillary._transport.object_storage import translate_errors
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.api.object_uris import parse_object_uri

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary._storage.unfinished import StateStore

log = logging.getLogger(__name__)


class Writer(Protocol):
    """Takes the bytes of an object."""

    def write(self, data: bytes) -> int:
        """Write all of ``data``."""

    @property
    def size(self) -> int:
        """Number of bytes written so far."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far, in hex."""


def locate(destination: str, *, conn_id: str | None, file_name: str) -> ObjectLocation:
    """Parse a destination.

    :param destination: ``s3://bucket/key``, ``abfss://container@account.dfs.core.windows.net/name``, ``file:///path``
        or ``/path``; a folder if it ends in ``/``. It may contain a connection id, as Airflow allows
        (``s3://aws_default@bucket/key``).
    :param conn_id: Airflow connection of the store.
    :param file_name: Name of the object within a folder.
    :raises CapillaryConfigurationError: It names no object that can be written; the message gives the reason.
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
    location: ObjectLocation,
    *,
    overwrite: bool = True,
    store_checksum: bool = False,
    state_store: StateStore | None = None,
) -> Iterator[Writer]:
    """Open an object for writing. It appears when the block ends, and does not appear if the block raises.

    An existing object stays as it is until then.

    :param location: Where to write.
    :param overwrite: Whether an existing object may be replaced, also one that appears during the write.
    :param store_checksum: Whether the store is to keep the sha256, for :func:`stored_checksum_at`.
    :param state_store: Keeps a note of what a killed process would leave behind, for ``remove_unfinished``.
    :return: A context manager of the writer.
    :raises CapillaryErrorFileError: The destination cannot be written, or exists and must not be replaced.
    """
    with _writing(location, overwrite=overwrite):
        store = store_of(location)
        if not overwrite and store.exists():
            raise FileExistsError
    writer = PartWriter(store, note=note_for(state_store, location))
    try:
        yield _StreamWriter(writer, location)
        with _writing(location, overwrite=overwrite):
            writer.commit(overwrite=overwrite, store_checksum=store_checksum)
    except BaseException:
        with suppress(Exception):
            writer.discard()
        raise


def stored_checksum_at(location: ObjectLocation) -> tuple[int, str] | None:
    """Return size in bytes and sha256 of an object as its store keeps them.

    :param location: The object.
    :return: None for no object, no stored sha256, or no permission to read it.
    :raises CapillaryErrorFileError: The store cannot be reached with this connection.
    """
    with _writing(location):
        store = store_of(location)
    try:
        stored = store.stored_checksum()
    except CapillaryError:
        raise
    except Exception as error:  # noqa: BLE001 - every store has its own classes
        # The checksum only saves an upload. Credentials that may write but not read send the file each time.
        log.warning(
            "The stored sha256 of %s cannot be read (%s): the file is sent again", location.uri, type(error).__name__
        )
        return None
    if stored is None or stored[1] is None:
        return None
    return stored[0], stored[1]


class _StreamWriter:
    """Passes writes of an :func:`atomic_write` block on and translates their errors."""

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
            # With overwrite on, something other than the object exists, and the remedy below would not help.
            if overwrite:
                raise
            raise CapillaryErrorFileError(
                f"destination {location.uri} is already there and overwrite is off; "
                "remove the object, choose another destination, or set overwrite=True"
            ) from None
