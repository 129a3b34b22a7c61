# SPDX-License-Identifier: Apache-2.0
"""The count of failed polls in a row, kept where it outlives a reschedule."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KEY = "capillary_failures"


class _Log(Protocol):
    def warning(self, event: str, *args: Any) -> Any:
        """Log a warning."""


class StoredFailures:
    """Keeps the count of one try in Airflow's state store of the task.

    A store that fails must not fail a task whose job is complete: it is warned about once, and not used again by this
    process.

    :param context: Airflow's context.
    :param log: Where the warning goes.
    """

    def __init__(self, context: Mapping[str, Any], log: _Log) -> None:
        self._try_number = getattr(context.get("ti"), "try_number", None)
        self._store = None if self._try_number is None else context.get("task_state_store")
        self._log = log

    @property
    def is_usable(self) -> bool:
        """Whether there is a store, and none of its calls failed yet."""
        return self._store is not None

    def read(self) -> int:
        """Return the failed polls in a row of this try; 0 where the store has something else."""
        stored = None
        if self._store is not None:
            with self._giving_up():
                stored = self._store.get(_KEY)
        match stored:
            case [self._try_number, int(count)] if count >= 0 and not isinstance(count, bool):
                return count
        return 0

    def write(self, count: int) -> None:
        """Keep a count.

        :param count: Failed polls in a row.
        """
        if self._store is not None:
            with self._giving_up():
                self._store.set(_KEY, [self._try_number, count])

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
