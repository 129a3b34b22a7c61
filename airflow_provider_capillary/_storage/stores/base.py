# SPDX-License-Identifier: Apache-2.0
"""What writing an object whole asks of a store, and which kind of store can do it which way."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_capillary._transport.object_storage import object_storage_path
from airflow_provider_capillary.api.object_uris import parse_object_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

#: What the hash of an object is called where a store keeps it.
SHA256 = "sha256"


@dataclass(frozen=True)
class ObjectLocation:
    """Where an object is to be.

    :param uri: Without connection id or credentials: fit for logs and XCom, and for ``ObjectStoragePath`` with the
        connection.
    :param conn_id: Airflow connection of the store; None for what the machine itself may do.
    :param account_host: Host of the Azure storage account that the destination names; the connection has to be one
        of that account.
    """

    uri: str
    conn_id: str | None = None
    account_host: str | None = None

    @property
    def scheme(self) -> str:
        """The kind of store."""
        return self.uri.partition("://")[0]

    @property
    def container(self) -> str:
        """The bucket, the container, or the ARN of an access point."""
        return parse_object_uri(self.uri).container

    @property
    def key(self) -> str:
        """The name of the object within the container. Not unquoted, as fsspec does not either."""
        return parse_object_uri(self.uri).key

    @property
    def path(self) -> Path:
        """The path of a ``file://`` location. Not unquoted, as fsspec does not either."""
        return Path(self.uri.removeprefix("file://"))


class PartStore(Protocol):
    """Takes an object in parts that stay out of sight until all are there.

    The methods raise whatever the store's library raises; ``FileExistsError`` where an object is there that must not
    be replaced. All are called from one thread, but for :meth:`send`.
    """

    #: How many parts may be on their way at once; with 1 they come in order.
    workers: int

    @classmethod
    def supports(cls, fs: AbstractFileSystem) -> bool:
        """Say whether a file system can do it this way, by what it has and not by its name."""

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        """Take where the object is to be, and Airflow's path of it. Asks nothing of the store."""

    def exists(self) -> bool:
        """Say whether an object is there."""

    def stored_checksum(self) -> tuple[int, str | None] | None:
        """Return size in bytes and sha256 of the object that is there; None for no object, or for no known sha256."""

    def begin(self) -> str:
        """Begin, and return what :meth:`remove` finds again what would be left behind; empty where there is nothing."""

    def send(self, number: int, data: bytes | bytearray) -> Any:
        """Send a part, from 1 on, and return what :meth:`finish` needs to know of it."""

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, record: bool) -> None:
        """Put the parts together, in one step for whoever reads.

        :param sent: What :meth:`send` returned, in the order of the parts.
        :param sha256: Of the whole, in hex.
        :param overwrite: Whether an object that is there may be replaced.
        :param record: Whether :meth:`recorded` has to know the sha256 later.
        """

    def put(self, data: bytes, *, sha256: str, overwrite: bool, record: bool, note: Callable[[str], None]) -> None:
        """Send an object that is no larger than one part, whole.

        :param note: Takes what :meth:`begin` returns, where it takes more than one step.
        """

    def abort(self) -> None:
        """Throw away what was sent. May be called at any moment, twice too, when no part is on its way any more."""

    def remove(self, left: str) -> None:
        """Throw away what a run left behind that was killed."""


@contextmanager
def warning_of_no_record() -> Iterator[None]:
    """Let a task succeed whose object is complete, although its sha256 could not be recorded, for any reason."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - every store brings its own classes
        log.warning(
            "The object is there, but its sha256 could not be recorded (%s): the next run will send it again",
            type(error).__name__,
        )


def store_of(location: ObjectLocation) -> PartStore:
    """Return the way in which an object is written whole to where it is to be.

    :param location: Where.
    """
    from airflow_provider_capillary._storage.stores.azure import AzureBlocks
    from airflow_provider_capillary._storage.stores.local import LocalSibling
    from airflow_provider_capillary._storage.stores.s3 import S3Parts
    from airflow_provider_capillary._storage.stores.staged import StagedFile

    path = object_storage_path(location.uri, location.conn_id, account_host=location.account_host, name="destination")
    kinds: tuple[type[PartStore], ...] = (LocalSibling, S3Parts, AzureBlocks, StagedFile)
    kind = next(kind for kind in kinds if kind.supports(path.fs))
    return kind(location, path)
