# SPDX-License-Identifier: Apache-2.0
"""Writes objects that appear whole or not at all."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from airflow_provider_capillary._storage.part_writer import PartWriter
from airflow_provider_capillary._storage.stores.choice import store_of
from airflow_provider_capillary._storage.unfinished import note_for
from airflow_provider_capillary._transport.object_storage import translate_errors
from airflow_provider_capillary.api.errors import CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.api.log_lines import write_lines

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterator

    from airflow_provider_capillary._storage.stores.base import ObjectLocation
    from airflow_provider_capillary._storage.unfinished import StateStore

log = logging.getLogger(__name__)


class Writer(Protocol):
    """Takes the bytes of an object."""

    def share_digest(self, digest: hashlib._Hash) -> None:
        """Take the SHA-256 from the reader of the bytes, before the first one is added."""

    def room(self) -> memoryview:
        """Return where the next bytes are to be read into."""

    def add(self, count: int) -> None:
        """Take the first ``count`` bytes of that room as the next ones of the object."""

    @property
    def size(self) -> int:
        """Number of bytes so far."""

    @property
    def lines(self) -> int:
        """Number of lines so far."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes so far, in hex."""


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
        write_lines(
            log.warning,
            f"The stored sha256 of {location.uri} cannot be read ({type(error).__name__}): the file is sent again",
        )
        return None
    if stored is None or stored[1] is None:
        return None
    return stored[0], stored[1]


class _StreamWriter:
    """Passes the calls of an :func:`atomic_write` block on and translates their errors."""

    def __init__(self, writer: PartWriter, location: ObjectLocation) -> None:
        self._writer = writer
        self._location = location

    def share_digest(self, digest: hashlib._Hash) -> None:
        self._writer.share_digest(digest)

    def room(self) -> memoryview:
        with _writing(self._location):  # a part that is full is sent first
            return self._writer.room()

    def add(self, count: int) -> None:
        self._writer.add(count)

    @property
    def size(self) -> int:
        return self._writer.size

    @property
    def lines(self) -> int:
        return self._writer.lines

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
