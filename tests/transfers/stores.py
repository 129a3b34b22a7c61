# SPDX-License-Identifier: Apache-2.0
"""The places that error files go to, as their readers see them, so that one test can be about all of them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.seaweedfs import SeaweedFS


@dataclass(frozen=True)
class Content:
    """Stands for the bytes of an object. Two of 20 MiB that differ would keep pytest busy for minutes."""

    size: int
    sha256: str
    start: bytes

    @classmethod
    def of(cls, content: bytes) -> Content:
        return cls(len(content), sha256(content).hexdigest(), content[:60])


class Store(Protocol):
    """A folder of a store, empty at first.

    :ivar folder: destination that stands for the folder, so it ends in a slash
    :ivar conn_id: Airflow connection to be used with it
    """

    folder: str
    conn_id: str | None

    def put(self, name: str, content: bytes) -> None:
        """Store an object."""

    def visible(self) -> dict[str, Content]:
        """Return what a reader finds in the folder: contents by name."""

    def written_at(self, name: str) -> object:
        """Return what differs from write to write of an object, even of the same bytes."""

    def under_way(self) -> list[str]:
        """Return what is being written, and not seen by readers yet."""

    def unfinished(self) -> list[str]:
        """Return what was left behind by what did not come to its end, and somebody would have to remove."""


class LocalFolder:
    """A folder of this machine. What begins with a dot is hidden from readers, as it is from globs and Spark."""

    conn_id = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = f"file://{path}/"

    def put(self, name: str, content: bytes) -> None:
        (self.path / name).write_bytes(content)

    def visible(self) -> dict[str, Content]:
        return {
            path.name: Content.of(path.read_bytes()) for path in self.path.iterdir() if not path.name.startswith(".")
        }

    def written_at(self, name: str) -> object:
        status = (self.path / name).stat()
        return status.st_ino, status.st_mtime_ns

    def under_way(self) -> list[str]:
        return [path.name for path in self.path.iterdir() if path.name.startswith(".")]

    def unfinished(self) -> list[str]:
        return self.under_way()


class Server(Protocol):
    """An object store that a test has started."""

    def uri(self, key: str = "") -> str:
        """Return the URI of an object."""

    def put(self, key: str, body: bytes) -> None:
        """Store an object."""

    def read(self, key: str) -> bytes:
        """Return the content of an object."""

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all objects that a reader sees."""

    def written_at(self, key: str) -> object:
        """Return what differs from write to write of an object."""

    def open_uploads(self, prefix: str = "") -> list[str]:
        """Return the keys of what is under way, or was left behind."""


class Prefix:
    """A prefix of a bucket or container."""

    def __init__(self, server: Server, prefix: str, conn_id: str | None) -> None:
        self.server = server
        self.prefix = prefix
        self.conn_id = conn_id
        self.folder = server.uri(prefix)

    def put(self, name: str, content: bytes) -> None:
        self.server.put(self.prefix + name, content)

    def visible(self) -> dict[str, Content]:
        keys = self.server.keys(self.prefix)
        return {key.removeprefix(self.prefix): Content.of(self.server.read(key)) for key in keys}

    def written_at(self, name: str) -> object:
        return self.server.written_at(self.prefix + name)

    def under_way(self) -> list[str]:
        return self.server.open_uploads(self.prefix)

    def unfinished(self) -> list[str]:
        return self.under_way()


class S3Folder(Prefix):
    """A prefix of an S3 bucket."""

    def __init__(self, s3: SeaweedFS, prefix: str, conn_id: str) -> None:
        super().__init__(s3, prefix, conn_id)
        self.s3 = s3
