# SPDX-License-Identifier: Apache-2.0
"""The interface of a store that writes objects whole, and the location of an object."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.object_uris import parse_object_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

#: Name under which a store keeps the hash of an object.
SHA256 = "sha256"


@dataclass(frozen=True)
class ObjectLocation:
    """The place of an object in a store.

    :param uri: Without connection id or credentials, so it may appear in logs and XComs. ``ObjectStoragePath`` takes it
        with the connection.
    :param conn_id: Airflow connection of the store; None for the credentials of the machine.
    :param account_host: Host of the Azure storage account that the destination names. The connection must be for that
        account.
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


class PartStore(ABC):
    """Writes an object in parts that readers do not see until all are there.

    Methods raise the errors of the store's library, and ``FileExistsError`` for an object that must not be replaced.
    All of them but :meth:`send` are called from one thread. A store overrides the defaults that do not fit it.
    """

    #: How many parts may be sent at once; with 1 they arrive in order.
    workers = 1

    @classmethod
    @abstractmethod
    def supports(cls, fs: AbstractFileSystem) -> bool:
        """Return whether this store can write to a file system, judged by its features and not by its name."""

    @abstractmethod
    def __init__(self, location: ObjectLocation, path: Any) -> None:
        """Keep the location and Airflow's path of the object. Send nothing.

        :param path: None if the store was chosen by the scheme of the location.
        """

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is an object at the location."""

    @abstractmethod
    def stored_checksum(self) -> tuple[int, str | None] | None:
        """Return size in bytes and sha256 of the stored object; None for no object, or for an unknown sha256."""

    def begin(self) -> str:
        """Start a write. Return what :meth:`remove` needs to clean up after a killed run; empty for nothing."""
        return ""

    @abstractmethod
    def send(self, number: int, data: bytes | bytearray) -> Any:
        """Send a part, numbered from 1. Return what :meth:`finish` needs to refer to it."""

    @abstractmethod
    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, store_checksum: bool) -> None:
        """Assemble the parts, in one step as readers see it.

        :param sent: What :meth:`send` returned, in the order of the parts.
        :param sha256: Of the whole object, in hex.
        :param overwrite: Whether an existing object may be replaced.
        :param store_checksum: Whether to keep the sha256 for :meth:`stored_checksum`.
        """

    def put(
        self, data: bytes, *, sha256: str, overwrite: bool, store_checksum: bool, note: Callable[[str], None]
    ) -> None:
        """Write an object that fits into one part.

        :param note: Takes what :meth:`begin` returns, where the write needs more than one step.
        """
        note(self.begin())
        self.finish([self.send(1, data)], sha256=sha256, overwrite=overwrite, store_checksum=store_checksum)

    def abort(self) -> None:
        """Discard the parts. Called when no part is being sent, at any stage of a write, perhaps twice."""
        return

    def remove(self, left: str) -> None:
        """Remove what a killed run left behind.

        :param left: What :meth:`begin` returned in that run.
        """
        return


@contextmanager
def warn_if_checksum_not_stored() -> Iterator[None]:
    """Let a task succeed if the object is complete but its sha256 could not be stored, for any reason."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - every store has its own classes
        log.warning(
            "The object was written, but its sha256 could not be stored (%s): the next run will send it again",
            type(error).__name__,
        )
