# SPDX-License-Identifier: Apache-2.0
"""Values that a forked process must not share with its parent: Airflow forks a process for each task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_instances: WeakSet[PerProcess[Any]] = WeakSet()


class PerProcess(Generic[T]):
    """Holds a value of this process. A forked child starts with a new one.

    In the child, a lock that another thread of the parent held would never be released, a token request of such a
    thread would never end, and a socket would be shared with the parent.

    :param make: Returns the value to start with.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self.value = make()
        self._make = make
        self._inherited: list[T] = []
        _instances.add(self)

    def start_anew(self) -> None:
        """Replace the value of the parent process. Called in a forked child."""
        # Keep the old value: its finalizer might wait for a lock that a thread of the parent held.
        self._inherited.append(self.value)
        self.value = self._make()


def _start_anew() -> None:
    for instance in list(_instances):
        instance.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
