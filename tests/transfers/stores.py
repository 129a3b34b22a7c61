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

    def unfinished(self) -> list[str]:
        """Return what is under way, or was left behind by what did not come to its end."""


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

    def unfinished(self) -> list[str]:
        return [path.name for path in self.path.iterdir() if path.name.startswith(".")]


class S3Folder:
    """A prefix of a bucket."""

    def __init__(self, s3: SeaweedFS, prefix: str, conn_id: str) -> None:
        self.s3 = s3
        self.prefix = prefix
        self.conn_id = conn_id
        self.folder = s3.uri(prefix)

    def put(self, name: str, content: bytes) -> None:
        self.s3.put(self.prefix + name, content)

    def visible(self) -> dict[str, Content]:
        return {key.removeprefix(self.prefix): Content.of(self.s3.read(key)) for key in self.s3.keys(self.prefix)}

    def unfinished(self) -> list[str]:
        return self.s3.open_uploads(self.prefix)
