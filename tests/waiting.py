# SPDX-License-Identifier: Apache-2.0
"""Waits until something is the case that happens in another thread or process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(condition: Callable[[], Any], *, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to this in time"
        time.sleep(0.01)


async def until(condition: Callable[[], Any], *, seconds: float = 30.0) -> None:
    """Do the same without blocking the event loop."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what the sandbox counts is no event
            await asyncio.sleep(0.005)
