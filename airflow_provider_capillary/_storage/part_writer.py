# SPDX-License-Identifier: Apache-2.0
"""Cuts what is written into parts and sends them while more is written, from a bounded set of buffers."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._transport.object_storage import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary._storage.stores.base import PartStore

#: Buffers besides those that are on their way: the one that is being filled.
_SPARE = 1


class HashingWriter:
    """Takes bytes and keeps nothing of them but their number and their hash."""

    def __init__(self) -> None:
        self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Take bytes.

        :param data: Of any length.
        :return: Their number.
        """
        self._digest.update(data)
        self.size += len(data)
        return len(data)


class PartWriter(HashingWriter):
    """Sends an object in parts of 8 MiB, several at a time where the store can take them out of order.

    Not more buffers than these are ever made, and each is used again: three parts on their way and one being filled are
    32 MiB. What fits into one part is sent whole at the end instead, which leaves nothing behind if it fails.

    :param store: Takes the parts.
    :param note: Told what would be left behind if this process died; empty once there is nothing any more.
    """

    def __init__(self, store: PartStore, *, note: Callable[[str], None]) -> None:
        super().__init__()
        self._store = store
        self._keep = note
        self._is_noted = False
        self._buffer = bytearray(BLOCK_BYTES)
        self._filled = 0
        self._unmade = store.workers + _SPARE - 1
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None
        self._sent: list[Future[Any]] = []
        self._error: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Take bytes; returns when they are copied, and waits while all buffers are on their way.

        :param data: Of any length.
        :return: Their number.
        """
        super().write(data)
        view = memoryview(data)
        while view:
            if self._filled == BLOCK_BYTES:
                self._send()
                self._buffer, self._filled = self._next_buffer(), 0
            count = min(BLOCK_BYTES - self._filled, len(view))
            self._buffer[self._filled : self._filled + count] = view[:count]
            self._filled += count
            view = view[count:]
        return len(data)

    def commit(self, *, overwrite: bool, record: bool) -> None:
        """Show the object.

        :param overwrite: Whether one that is there may be replaced.
        :param record: Whether the store is to remember the sha256.
        :raises FileExistsError: One is there.
        """
        if self._pool is None:
            self._store.put(
                bytes(self._buffer[: self._filled]),
                sha256=self.sha256,
                overwrite=overwrite,
                record=record,
                note=self._note,
            )
            self._note("")
            return
        if self._filled:
            self._send()
        tokens = [part.result() for part in self._sent]
        self._pool.shutdown()
        self._store.finish(tokens, sha256=self.sha256, overwrite=overwrite, record=record)
        self._note("")

    def discard(self) -> None:
        """Throw away what was sent, at whatever moment."""
        if self._pool is not None:
            # A part that arrives behind the end of its upload would stay.
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._store.abort()
        self._note("")

    def _note(self, left: str) -> None:
        if left or self._is_noted:
            self._is_noted = True
            self._keep(left)

    def _send(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._store.workers, thread_name_prefix="part")
            self._note(self._store.begin())
        buffer = self._buffer if self._filled == BLOCK_BYTES else self._buffer[: self._filled]
        self._sent.append(self._pool.submit(self._send_part, len(self._sent) + 1, buffer))

    def _send_part(self, number: int, buffer: bytearray) -> Any:
        try:
            return self._store.send(number, buffer)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._free.put(buffer)

    def _next_buffer(self) -> bytearray:
        if self._unmade:
            self._unmade -= 1
            return bytearray(BLOCK_BYTES)
        buffer = self._free.get()
        if self._error is not None:
            raise self._error
        return buffer
