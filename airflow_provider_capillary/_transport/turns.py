# SPDX-License-Identifier: Apache-2.0
"""Requests one after another, as long as they are answered quickly."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds that a request waits for the one before it.
_PATIENCE = 0.25


class Turns:
    """Gives requests that come together a turn each.

    At once they would need a socket each, which costs a handshake, and CPU with every later request: the pool checks
    all idle ones. Yet a slow answer must not hold up the others for long.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until the requests that came earlier have ended, for a quarter of a second at most."""
        has_turn = False
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE if self._lock.locked() else None):
                has_turn = await self._lock.acquire()
        try:
            yield
        finally:
            if has_turn:
                self._lock.release()
