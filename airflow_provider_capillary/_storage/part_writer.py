# SPDX-License-Identifier: Apache-2.0
"""Lends its buffers to whoever reads a file, and sends them as parts while further ones are filled."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._transport.object_storage import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary._storage.stores.base import PartStore

#: Buffers besides those that are being sent: the one that is being filled.
_SPARE = 1
#: Most bytes that are read at a time. They are hashed and counted while the processor still has them in its cache.
_ROOM_BYTES = 1 << 20


class _Buffer(bytearray):
    """Bytes that are not shown: at debug level botocore logs the arguments of a request, such as a part of the file."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


class HashingWriter:
    """Counts and hashes bytes, and does not keep them.

    Read into :meth:`room`, then call :meth:`add`: so the bytes are not copied once more.

    :param buffer_bytes: Size of its buffer.
    """

    def __init__(self, buffer_bytes: int = _ROOM_BYTES) -> None:
        self.size = 0
        self._buffer = _Buffer(buffer_bytes)
        self._filled = 0
        self._digest = hashlib.sha256()
        self._is_shared = False
        self._line_ends = 0
        self._ends_line = True

    @property
    def lines(self) -> int:
        """Number of lines so far, counting a last line without a line end."""
        return self._line_ends + (not self._ends_line)

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far, in hex. With a shared digest, of the whole object at its end only."""
        return self._digest.hexdigest()

    def share_digest(self, digest: hashlib._Hash) -> None:
        """Take the SHA-256 from the reader of the bytes, which hashes all of them anyway.

        :param digest: Covers all bytes of the object by the time that the last one is written.
        :raises ValueError: Bytes were written before.
        """
        if self.size:
            raise ValueError("a digest can only be shared before the first byte is added")
        self._digest, self._is_shared = digest, True

    def room(self) -> memoryview:
        """Return where the next bytes are to be read into, 1 MiB at most."""
        return memoryview(self._buffer)[self._filled : self._filled + _ROOM_BYTES]

    def add(self, count: int) -> None:
        """Count and hash the bytes that were read.

        :param count: How many bytes at the beginning of :meth:`room` they are.
        """
        start, end = self._filled, self._filled + count
        if not self._is_shared:
            self._digest.update(memoryview(self._buffer)[start:end])
        self._line_ends += self._buffer.count(b"\n", start, end)
        self._ends_line = self._buffer.endswith(b"\n", start, end)
        self.size += count


class PartWriter(HashingWriter):
    """Sends an object in parts of 8 MiB, several at a time if the store accepts them out of order.

    Buffers are reused and their number is fixed: three parts being sent and one being filled take 32 MiB. An object
    that fits into one part is sent whole at the end, which leaves nothing behind if it fails.

    :param store: Store that takes the parts.
    :param note: Called with what would be left behind if this process were killed; with an empty text once nothing
        would be.
    """

    def __init__(self, store: PartStore, *, note: Callable[[str], None]) -> None:
        super().__init__(BLOCK_BYTES)
        self._store = store
        self._save_note = note
        self._is_noted = False
        self._buffers_to_make = store.workers + _SPARE - 1
        self._free: SimpleQueue[_Buffer] = SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None
        self._sent: list[Future[Any]] = []
        self._error: BaseException | None = None

    def room(self) -> memoryview:
        """Return where the next bytes are to be read into, 1 MiB at most. Waits while all buffers are being sent."""
        if self._filled == BLOCK_BYTES:
            self._send()
            self._buffer, self._filled = self._next_buffer(), 0
        return super().room()

    def add(self, count: int) -> None:
        """Count and hash the bytes that were read, and send them with the part.

        :param count: How many bytes at the beginning of :meth:`room` they are.
        """
        super().add(count)
        self._filled += count

    def commit(self, *, overwrite: bool, store_checksum: bool) -> None:
        """Make the object visible.

        :param overwrite: Whether an existing object may be replaced.
        :param store_checksum: Whether the store is to keep the sha256.
        :raises FileExistsError: An object exists and must not be replaced.
        """
        if self._pool is None:
            self._store.put(
                bytes(self._buffer[: self._filled]),
                sha256=self.sha256,
                overwrite=overwrite,
                store_checksum=store_checksum,
                note=self._note,
            )
            self._note("")
            return
        if self._filled:
            self._send()
        tokens = [part.result() for part in self._sent]
        self._pool.shutdown()
        self._store.finish(tokens, sha256=self.sha256, overwrite=overwrite, store_checksum=store_checksum)
        self._note("")

    def discard(self) -> None:
        """Discard the parts, at any stage of the write."""
        if self._pool is not None:
            # A part that arrives after the upload has ended would stay in the store.
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._store.abort()
        self._note("")

    def _note(self, left: str) -> None:
        if left or self._is_noted:
            self._is_noted = True
            self._save_note(left)

    def _send(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._store.workers, thread_name_prefix="part")
            self._note(self._store.begin())
        is_full = self._filled == BLOCK_BYTES
        # A slice of it would be a bytearray.
        buffer = self._buffer if is_full else _Buffer(memoryview(self._buffer)[: self._filled])
        self._sent.append(self._pool.submit(self._send_part, len(self._sent) + 1, buffer))

    def _send_part(self, number: int, buffer: _Buffer) -> Any:
        try:
            return self._store.send(number, buffer)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._free.put(buffer)

    def _next_buffer(self) -> _Buffer:
        if self._buffers_to_make:
            self._buffers_to_make -= 1
            return _Buffer(BLOCK_BYTES)
        buffer = self._free.get()
        if self._error is not None:
            raise self._error
        return buffer
