# SPDX-License-Identifier: Apache-2.0
"""Logs progress and result of a transfer, and never any of its contents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_capillary.api.log_lines import write_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.api.wait_log import Log

_INTERVAL_SECONDS = 10.0


class TransferLog:
    """Counts bytes during a transfer, and logs progress about every ten seconds.

    :param log: The log.
    :param what: Beginning of each log line, such as ``Error file of upload job 4455``.
    :param clock: Monotonic clock, in seconds.
    """

    def __init__(self, log: Log, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._what = what
        self._clock = clock
        self._started_at = self._logged_at = clock()
        self._size = 0
        #: How long the transfer took, once it has finished.
        self.seconds = 0.0

    def add(self, count: int, *, total: int | None) -> None:
        """Count bytes.

        :param count: How many more there are.
        :param total: Size of the whole file in bytes; None if unknown.
        """
        self._size += count
        now = self._clock()
        if now - self._logged_at >= _INTERVAL_SECONDS:
            self._logged_at = now
            share = "" if total is None else f" of {total}"
            self._log.info(
                "%s: %d%s bytes after %.0f s, %.1f MB/s",
                self._what,
                self._size,
                share,
                now - self._started_at,
                self._rate(now),
            )

    def finish(self, *, lines: int, sha256: str, uri: str) -> None:
        """Log the result.

        :param lines: Number of lines of the whole file.
        :param sha256: SHA-256 of the whole file, in hex.
        :param uri: URI of the object, without credentials.
        """
        now = self._clock()
        self.seconds = now - self._started_at
        write_lines(
            self._log.info,
            f"{self._what}: {lines} lines, {self._size} bytes, sha256 {sha256}, "
            f"in {self.seconds:.1f} s ({self._rate(now):.1f} MB/s), now at {uri}",
        )

    def _rate(self, now: float) -> float:
        """Return megabytes (10**6 bytes) per second."""
        seconds = now - self._started_at
        return self._size / 1e6 / seconds if seconds > 0 else 0.0
