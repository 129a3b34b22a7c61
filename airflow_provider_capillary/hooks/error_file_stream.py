# SPDX-License-Identifier: Apache-2.0
"""Error files as binary streams."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_capillary.api.errors import CapillaryErrorFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.api.error_files import ObjectSource

_READ_AHEAD = 1 << 20


@contextmanager
def open_object(source: ObjectSource) -> Iterator[BinaryIO]:
    """Open an error file that lies in object storage.

    :param source: Where.
    :raises CapillaryErrorFileError: There is no such object.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        path: Any = ObjectStoragePath(source.uri, conn_id=source.conn_id)
        stream = path.open("rb", block_size=8 << 20)
    except FileNotFoundError:
        raise CapillaryErrorFileError(f"there is no error file at {source.uri}") from None
    with stream:
        yield stream


def open_pieces(pieces: Iterator[bytes]) -> BinaryIO:
    """Return a binary stream, read from front to end, over the pieces of a file.

    :param pieces: The pieces; closed with the stream.
    """
    return io.BufferedReader(_PieceReader(pieces), _READ_AHEAD)


class _PieceReader(io.RawIOBase):
    """A raw stream over the pieces that an exchange hands on."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            getattr(self._pieces, "close", lambda: None)()
        super().close()
