# SPDX-License-Identifier: Apache-2.0
"""What a fork must not hand on: Airflow forks a process for each task."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class ForkLock:
    """A lock of a module, which a forked child finds free.

    A thread of the parent that held it does not exist in the child, and would never let it go there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
