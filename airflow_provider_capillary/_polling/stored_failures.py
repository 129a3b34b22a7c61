# SPDX-License-Identifier: Apache-2.0
"""What a wait in reschedule mode keeps from poll to poll: the count of failed polls in a row, and what it logged."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_capillary.api.wait_log import WaitTimes
    from airflow_provider_capillary.api.waiting import JobWaiter

_KEY = "capillary_failures"


class _Log(Protocol):
    def warning(self, event: str, *args: Any) -> Any:
        """Log a warning."""


class StoredFailures:
    """Keeps the failures of one try, and the memory of its log, in Airflow's state store of the task.

    A store that fails must not fail a task whose job is complete: it is warned about once, and not used again by this
    process.

    :param context: Airflow's context.
    :param log: Where the warning goes.
    """

    def __init__(self, context: Mapping[str, Any], log: _Log) -> None:
        self._context = context
        self._try_number = getattr(context.get("ti"), "try_number", None)
        self._store = None if self._try_number is None else context.get("task_state_store")
        self._log = log
        self._stored: tuple[int, Any] = (0, None)

    @property
    def is_usable(self) -> bool:
        """Whether there is a store, and none of its calls failed yet."""
        return self._store is not None

    def restore(self, wait: JobWaiter, times: WaitTimes, timeout: float) -> None:
        """Let a wait go on where the process of the last poll left off.

        :param wait: The wait. It starts at 0 where the store has nothing of this try.
        :param times: Interval and end of a wait that begins now.
        :param timeout: The sensor's timeout in seconds.
        """
        wait.wait_log.times = times
        stored = None
        if self._store is not None:
            with self._giving_up():
                stored = self._store.get(_KEY)
        match stored:
            case [self._try_number, int(count), *memory] if (
                count >= 0 and not isinstance(count, bool) and all(isinstance(part, dict) for part in memory)
            ):
                wait.failures = count
                wait.wait_log.recall(memory[0] if memory else None)
        self._stored = (wait.failures, wait.wait_log.to_memory())
        if not self.is_usable:
            # Without a memory, each poll but the first logs one line.
            first_poll = getattr(self._context.get("ti"), "get_first_reschedule_date", None)
            began = None if first_poll is None else first_poll(self._context)
            end = None if began is None else began.timestamp() + timeout
            if began is not None or first_poll is None:
                wait.wait_log.times = replace(times, end=end, is_resumed=True)

    def store(self, wait: JobWaiter) -> None:
        """Keep how far a wait has come, if that has changed.

        :param wait: The wait.
        """
        reached = (wait.failures, wait.wait_log.to_memory())
        if self._store is not None and reached != self._stored:
            with self._giving_up():
                self._store.set(_KEY, [self._try_number, *(part for part in reached if part is not None)])
        self._stored = reached

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Use the store no more once it failed, and warn of that."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the store may be anybody's
            self._store = None
            self._log.warning(
                "The count of failed polls cannot be kept in the state store of the task (%s); it starts at 0 in "
                "each process",
                type(error).__name__,
            )
