# SPDX-License-Identifier: Apache-2.0
"""Opens error files, and the other files of jobs, as binary streams."""

from __future__ import annotations

import io
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_capillary._transport.object_storage import BLOCK_BYTES, object_storage_path, translate_errors
from airflow_provider_capillary.api.errors import CapillaryErrorFileError
from airflow_provider_capillary.api.file_content import FileContent

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterator

    from airflow_provider_capillary.api.error_files import ObjectSource
    from airflow_provider_capillary.api.flow import EmitChunk

#: Small, because a larger read copies all but its last such block straight into its result.
_READ_AHEAD = 64 << 10


@contextmanager
def open_object(source: ObjectSource, *, expects_rows: bool) -> Iterator[BinaryIO]:
    """Open an error file in object storage.

    Reading it raises CapillaryResponseError if the object is not a file of rows.

    :param source: Location of the object.
    :param expects_rows: Whether the job reports rows for the file.
    :raises CapillaryErrorFileError: There is no such object, or it cannot be read.
    """
    try:
        with translate_errors(_unreadable(source)):
            path = object_storage_path(source.uri, source.conn_id, account_host=source.account_host, name=source.name)
            stream = path.open("rb", block_size=BLOCK_BYTES)
    except CapillaryErrorFileError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise CapillaryErrorFileError(f"there is no {source.name} at {source.uri}") from None
        raise
    content = FileContent(source.name, expects_rows=expects_rows)
    with stream, io.BufferedReader(_ObjectReader(stream, source, content), BLOCK_BYTES) as reader:
        yield reader


def open_chunks(chunks: Iterator[EmitChunk]) -> BinaryIO:
    """Return a sequential binary stream over the chunks of a file.

    :param chunks: The chunks; closed with the stream.
    """
    return io.BufferedReader(_ChunkReader(chunks), _READ_AHEAD)


def size_of(stream: BinaryIO) -> int | None:
    """Return the total size of a stream in bytes; None while it is unknown.

    :param stream: A stream of a function above. The size of a download is known once its first bytes are read.
    """
    size = getattr(getattr(stream, "raw", None), "size", None)
    return size if isinstance(size, int) else None


def digest_of(stream: BinaryIO) -> hashlib._Hash | None:
    """Return the SHA-256 that the reading of a stream keeps up to date; None if it does not hash the bytes.

    At the end of the stream, it is that of all its bytes. Before that, it may be ahead of the reader.

    :param stream: A stream of a function above. The digest of a download is known once its first bytes are read.
    """
    digest: hashlib._Hash | None = getattr(getattr(stream, "raw", None), "digest", None)
    return digest


def _unreadable(source: ObjectSource) -> str:
    return f"the {source.name} at {source.uri} cannot be read"


class _Reader(io.RawIOBase):
    """A raw stream that refuses to continue after an interrupted read.

    Bytes of such a read are lost: in the generator that ended with it, or in the buffer that was being filled. The next
    read would skip them, or mistake the gap for the end of the file.
    """

    _error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            if self._error is not None:
                raise self._error
            return self._fill(buffer)
        except Exception as error:
            self._error = error
            raise
        except BaseException:  # the timeout of a task, which may be raised between any two lines
            self._error = CapillaryErrorFileError("an earlier read of this stream was interrupted; open the file again")
            raise

    @abstractmethod
    def _fill(self, buffer: Any) -> int:
        """Read at least one byte into the buffer, or none at the end of the file. Return the number."""


class _ObjectReader(_Reader):
    """A raw stream over an object that checks the content as it is read. Its errors name the object."""

    def __init__(self, stream: Any, source: ObjectSource, content: FileContent) -> None:
        super().__init__()
        self.size = getattr(stream, "size", None)
        self._stream = stream
        self._source = source
        self._content = content
        self._left = memoryview(b"")

    def _fill(self, buffer: Any) -> int:
        is_at_end = False
        while not self._left and not is_at_end:
            with translate_errors(_unreadable(self._source)):
                data = self._stream.read(len(buffer))
            is_at_end = not data
            self._left = memoryview(self._content.end() if is_at_end else self._content.feed(data))
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class _ChunkReader(_Reader):
    """A raw stream over the chunks that a flow emits."""

    def __init__(self, chunks: Iterator[EmitChunk]) -> None:
        super().__init__()
        self.size: int | None = None
        self.digest: hashlib._Hash | None = None
        self._chunks = chunks
        self._left = memoryview(b"")

    def _fill(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self.size, self.digest = chunk.total, chunk.digest
            self._left = memoryview(chunk.data)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            getattr(self._chunks, "close", lambda: None)()
        super().close()
