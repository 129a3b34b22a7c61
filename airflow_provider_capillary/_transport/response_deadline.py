# SPDX-License-Identifier: Apache-2.0
"""A deadline for a whole response of ``requests``, headers included.

The timeout of ``requests`` applies to each read. A host or proxy that sends a header one byte at a time restarts it
with each byte, and could block a worker forever.
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

_deadline: ContextVar[float | None] = ContextVar("capillary_response_deadline", default=None)


@contextmanager
def response_deadline(seconds: float) -> Iterator[None]:
    """Time out all reads in the block that end later than the deadline, on connections of :func:`apply_deadlines`.

    :param seconds: The deadline, from now on.
    """
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def apply_deadlines(manager: PoolManager) -> None:
    """Make new connections of a pool manager, including those to a proxy, obey :func:`response_deadline`.

    :param manager: The pool manager, or the one of a proxy.
    """
    manager.pool_classes_by_scheme = {
        scheme: _deadline_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _deadline_pool(pool: Any) -> Any:
    if issubclass(pool.ConnectionCls.response_class, _DeadlineResponse):
        return pool
    # This class also reads the response of a proxy to CONNECT.
    connection = type(
        f"Deadline{pool.ConnectionCls.__name__}", (pool.ConnectionCls,), {"response_class": _DeadlineResponse}
    )
    return type(f"Deadline{pool.__name__}", (pool,), {"ConnectionCls": connection})


class _DeadlineResponse(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock))


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket, TLS or not, within the deadline.

    :param reader: Raw reader of the socket.
    :param sock: The socket.
    """

    def __init__(self, reader: Any, sock: Any) -> None:
        self._reader = reader
        self._sock = sock

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        number: int = self._reader.fileno()
        return number

    def readinto(self, buffer: Any) -> int | None:
        deadline = _deadline.get()
        if deadline is None:
            count: int | None = self._reader.readinto(buffer)
            return count
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the response is not complete in time")
        usual = self._sock.gettimeout()
        self._sock.settimeout(remaining if usual is None else min(usual, remaining))
        try:
            count = self._reader.readinto(buffer)
        finally:
            self._sock.settimeout(usual)
        return count

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()
