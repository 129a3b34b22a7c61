# SPDX-License-Identifier: Apache-2.0
"""A bound on the time of a whole answer, its headers included, for ``requests``.

A timeout of ``requests`` is one of each read. A host or proxy that sends a header one byte at a time begins it anew
with each byte, and holds a worker for as long as it likes.
"""

from __future__ import annotations

import io
import time
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import PoolManager

_until: ContextVar[float | None] = ContextVar("capillary_answer_until", default=None)


@contextmanager
def whole_within(seconds: float) -> Iterator[None]:
    """Let reads of answers time out where the whole takes too long, on connections of :func:`bind_answers`.

    :param seconds: From now on, whatever is read within the block.
    """
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def bind_answers(manager: PoolManager) -> None:
    """Let the connections that a pool manager will make go by :func:`whole_within`, those to a proxy too.

    :param manager: The pool manager, or that of a proxy.
    """
    manager.pool_classes_by_scheme = {
        scheme: _bound_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _bound_pool(pool: Any) -> Any:
    if issubclass(pool.ConnectionCls.response_class, _BoundResponse):
        return pool
    # The answer of a proxy to CONNECT is read by this class as well.
    connection = type(f"Bound{pool.ConnectionCls.__name__}", (pool.ConnectionCls,), {"response_class": _BoundResponse})
    return type(f"Bound{pool.__name__}", (pool,), {"ConnectionCls": connection})


class _BoundResponse(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_BoundReads(self.fp.detach(), sock))


class _BoundReads(io.RawIOBase):
    """Reads from a socket, TLS or not, within the deadline.

    :param reads: What the socket itself is read by.
    :param sock: The socket.
    """

    def __init__(self, reads: Any, sock: Any) -> None:
        self._reads = reads
        self._sock = sock

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        number: int = self._reads.fileno()
        return number

    def readinto(self, buffer: Any) -> int | None:
        until = _until.get()
        if until is None:
            count: int | None = self._reads.readinto(buffer)
            return count
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the answer is not whole in time")
        usual = self._sock.gettimeout()
        self._sock.settimeout(remaining if usual is None else min(usual, remaining))
        try:
            count = self._reads.readinto(buffer)
        finally:
            self._sock.settimeout(usual)
        return count

    def close(self) -> None:
        if not self.closed:
            self._reads.close()
        super().close()
