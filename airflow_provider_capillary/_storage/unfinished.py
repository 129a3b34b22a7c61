# SPDX-License-Identifier: Apache-2.0
"""Notes of unfinished writes, kept from try to try, so that a retry removes what a killed run left behind."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_capillary._storage.stores.base import ObjectLocation, store_of

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_KEY = "capillary_unfinished"
#: Of more, the oldest are dropped: a state store is no place for a list that grows for ever.
_MOST_NOTES = 100


class StateStore(Protocol):
    """What outlives a try of a task: Airflow's state store of the task."""

    def get(self, key: str) -> Any:
        """Return what was set, or None."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value that is JSON."""

    def delete(self, key: str) -> None:
        """Forget it."""


def remove_unfinished(notes: StateStore | None, *, conn_id: str | None = None) -> None:
    """Remove what earlier tries of the task left behind, wherever that is. Best effort: a failure is only logged.

    :param notes: The state store of the task; None where Airflow has none.
    :param conn_id: Airflow connection for notes of version 0.1, which name none.
    """
    with suppress(Exception):
        found = _read(notes)
        kept = [note for note in found if not _remove(note, conn_id)]
        if notes is not None and len(kept) < len(found):
            _write(notes, kept)


def note_for(notes: StateStore | None, location: ObjectLocation) -> Callable[[str], None]:
    """Return a function that notes what a run would leave behind at a location, and with an empty text forgets it.

    :param notes: The state store of the task; None where Airflow has none.
    :param location: Where the object is written to.
    """

    def note(left: str) -> None:
        # Best effort, and where reading fails nothing is written: it would replace the notes of other objects.
        with suppress(Exception):
            if notes is not None:
                others = [other for other in _read(notes) if other["uri"] != location.uri]
                _write(notes, [*others, asdict(location) | {"left": left}] if left else others)

    return note


def _read(notes: StateStore | None) -> list[dict[str, Any]]:
    """Return the notes, oldest first. Version 0.1 kept a single one."""
    stored = notes.get(_KEY) if notes is not None else None
    listed = stored if isinstance(stored, list) else [stored]
    return [note for note in listed if isinstance(note, dict) and _is_text(note.get("uri"), note.get("left"))]


def _write(notes: StateStore, kept: list[dict[str, Any]]) -> None:
    if kept:
        notes.set(_KEY, kept[-_MOST_NOTES:])
    else:
        notes.delete(_KEY)


def _remove(note: dict[str, Any], conn_id: str | None) -> bool:
    """Remove what a note names; return whether the note is settled."""
    location = ObjectLocation(note["uri"], note.get("conn_id", conn_id), note.get("account_host"))
    try:
        store_of(location).remove(note["left"])
    except Exception as error:  # noqa: BLE001 - every store brings its own classes
        log.warning(
            "What an earlier try left behind at %s could not be removed (%s); the next try does it again",
            location.uri,
            type(error).__name__,
        )
        return False
    return True


def _is_text(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
