# SPDX-License-Identifier: Apache-2.0
"""Keeps notes of unfinished writes between tries of a task, so that a retry removes what a killed run left behind."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_capillary._storage.stores.base import ObjectLocation
from airflow_provider_capillary._storage.stores.choice import store_of
from airflow_provider_capillary.api.log_lines import write_lines

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_KEY = "capillary_unfinished"
#: Beyond this number, the oldest notes are dropped: a list in a state store must not grow forever.
_MOST_NOTES = 100


class StateStore(Protocol):
    """Keeps values between tries of a task, as Airflow's task state store does."""

    def get(self, key: str) -> Any:
        """Return the value of a key, or None."""

    def set(self, key: str, value: Any) -> None:
        """Store a JSON value."""

    def delete(self, key: str) -> None:
        """Delete a key."""


def remove_unfinished(state_store: StateStore | None, *, conn_id: str | None = None) -> None:
    """Remove what earlier tries of the task left behind, at any location. Best effort: a failure is only logged.

    :param state_store: State store of the task; None if Airflow has none.
    :param conn_id: Airflow connection for notes of version 0.1, which have none.
    """
    with suppress(Exception):
        found = _read(state_store)
        kept = [note for note in found if not _remove(note, conn_id)]
        if state_store is not None and len(kept) < len(found):
            _write(state_store, kept)


def note_for(state_store: StateStore | None, location: ObjectLocation) -> Callable[[str], None]:
    """Return a function that notes what a run would leave behind at a location. An empty text deletes the note.

    :param state_store: State store of the task; None if Airflow has none.
    :param location: Location of the object.
    """
    own: dict[str, Any] | None = None

    def note(left: str) -> None:
        nonlocal own
        # Best effort: failing to record the upload id must not fail the transfer. If reading fails, nothing is
        # written, because it would replace the notes of other objects.
        with suppress(Exception):
            if state_store is not None:
                # Not those of earlier tries at the same location, which are left because they could not be removed.
                others = [other for other in _read(state_store) if other != own]
                own = asdict(location) | {"left": left} if left else None
                _write(state_store, others if own is None else [*others, own])

    return note


def _read(state_store: StateStore | None) -> list[dict[str, Any]]:
    """Return the notes, oldest first. Version 0.1 kept a single one."""
    stored = state_store.get(_KEY) if state_store is not None else None
    listed = stored if isinstance(stored, list) else [stored]
    return [note for note in listed if isinstance(note, dict) and _is_text(note.get("uri"), note.get("left"))]


def _write(state_store: StateStore, kept: list[dict[str, Any]]) -> None:
    if kept:
        state_store.set(_KEY, kept[-_MOST_NOTES:])
    else:
        state_store.delete(_KEY)


def _remove(note: dict[str, Any], conn_id: str | None) -> bool:
    """Remove what a note names. Return whether the note can be deleted."""
    location = ObjectLocation(note["uri"], note.get("conn_id", conn_id), note.get("account_host"))
    try:
        store_of(location).remove(note["left"])
    except Exception as error:  # noqa: BLE001 - every store has its own classes
        write_lines(
            log.warning,
            f"Could not remove what an earlier try left behind at {location.uri} ({type(error).__name__}); "
            "the next try will try again",
        )
        return False
    return True


def _is_text(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
