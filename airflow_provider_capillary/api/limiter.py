# SPDX-License-Identifier: Apache-2.0
"""The client-side limit of requests per minute.

Capillary limits requests per minute and API key: 100 on demo and testing clusters, 1,000 on newer pages, other
values per brand (docs/capillary/api.md, 6).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW_SECONDS = 60.0


class RequestLimiter:
    """Assigns times to requests, first come, first served.

    No 60 seconds contain more than ``requests_per_minute`` of these times; after a pause, a tenth of them may come at
    once. Safe to use from several threads and event loops: nothing in it waits.

    :param requests_per_minute: The limit, at least 1.
    :param monotonic: The clock, in seconds.
    """

    def __init__(self, requests_per_minute: int, *, monotonic: Callable[[], float]) -> None:
        burst = max(1, requests_per_minute // 10)
        # A full burst and the steady stream behind it together stay within the limit.
        self._interval = _WINDOW_SECONDS / (requests_per_minute - burst + 1)
        self._tolerance = (burst - 1) * self._interval
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._due = float("-inf")  # when the next request would be due in a perfectly steady stream
        self._not_before = float("-inf")

    def reserve(self) -> float:
        """Take the next time.

        :return: Seconds to wait before sending.
        """
        with self._lock:
            now = self._monotonic()
            moment = max(now, self._due - self._tolerance, self._not_before)
            self._due = max(self._due, moment) + self._interval
            return moment - now

    def pause(self, seconds: float) -> None:
        """Pause all requests, because Capillary refused one as too many.

        :param seconds: Length of the pause.
        """
        with self._lock:
            self._not_before = max(self._not_before, self._monotonic() + seconds)
