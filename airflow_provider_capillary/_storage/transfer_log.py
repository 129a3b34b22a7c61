# SPDX-License-Identifier: Apache-2.0
"""What the log tells of a transfer: how far it is, and in the end how much it was. Never anything of the contents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.api.waiting import Log

_BETWEEN_SECONDS = 10.0


class TransferLog:
    """Counts bytes and lines on their way, and logs about every ten seconds how far that got.

    :param log: Where to.
    :param what: What each line begins with, such as ``Error file of upload job 4455``.
    :param clock: Monotonic clock, in seconds.
    """

    def __init__(self, log: Log, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._what = what
        self._clock = clock
        self._started_at = self._told_at = clock()
        self._size = 0
        self._line_ends = 0
        self._last = b"\n"

    def add(self, block: bytes, *, total: int | None) -> None:
        """Count a block, at least one byte long.

        :param block: The bytes.
        :param total: Bytes of the whole file; None where that is not known.
        """
        self._size += len(block)
        self._line_ends += block.count(b"\n")
        self._last = block[-1:]
        now = self._clock()
        if now - self._told_at >= _BETWEEN_SECONDS:
            self._told_at = now
            share = "" if total is None else f" of {total}"
            self._log.info(
                "%s: %d%s bytes after %.0f s, %.1f MB/s",
                self._what,
                self._size,
                share,
                now - self._started_at,
                self._rate(now),
            )

    @property
    def lines(self) -> int:
        """Lines so far, the last one also where nothing ends it."""
        return self._line_ends + (self._last != b"\n")

    def finish(self, *, sha256: str, uri: str) -> None:
        """Log what it came to.

        :param sha256: Of the whole file, in hex.
        :param uri: Where it is now, without credentials.
        """
        now = self._clock()
        self._log.info(
            "%s: %d lines, %d bytes, sha256 %s, in %.1f s (%.1f MB/s), now at %s",
            self._what,
            self.lines,
            self._size,
            sha256,
            now - self._started_at,
            self._rate(now),
            uri,
        )

    def _rate(self, now: float) -> float:
        """Return megabytes (10**6 bytes) per second."""
        seconds = now - self._started_at
        return self._size / 1e6 / seconds if seconds > 0 else 0.0
