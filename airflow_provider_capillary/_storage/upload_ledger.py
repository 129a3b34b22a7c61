# SPDX-License-Identifier: Apache-2.0
"""Remembers what a task uploaded, where Airflow has a task state store (3.3 and later).

Without one, the status list of Capillary alone shows what an earlier try uploaded.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryUploadError
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from airflow_provider_capillary._storage.unfinished import StateStore

log = logging.getLogger(__name__)

_KEY = "capillary_upload"


class UploadLedger:
    """What all tries of a task uploaded, by the tokens of the parts.

    The store is an additional safeguard: a failure of it is logged, and the upload goes on with the status list.

    :param state_store: State store of the task; None if Airflow has none.
    """

    def __init__(self, state_store: StateStore | None) -> None:
        self._state_store = state_store
        self._owner = uuid.uuid4().hex
        #: Token of a part -> the job that was made of it.
        self.job_ids: dict[str, int] = {}
        #: Whether an earlier try may have sent something.
        self.may_have_sent = False

    def begin(self) -> None:
        """Read what earlier tries did, and take the upload over from a try that may still run."""
        noted = self._read()
        # What cannot be read may say that something was sent.
        self.may_have_sent = noted is not None
        self.job_ids |= _job_ids_of(noted)
        if noted is not False:  # what is there would be lost
            self._write(self._owner)

    def check(self) -> None:
        """Make sure that no later try has taken the upload over.

        :raises CapillaryUploadError: One has.
        """
        if _owner_of(self._read()) not in (None, self._owner):
            raise CapillaryUploadError(
                "a later try of this task has taken over the upload; this one sends nothing more"
            )

    def record(self, token: str, job_id: int) -> None:
        """Note the job of a part.

        :param token: Token of the part.
        :param job_id: The job.
        """
        self.job_ids[token] = job_id
        noted = self._read()
        # A later try may have taken over while this one was sending: it keeps the upload, and gets the job.
        self.job_ids = _job_ids_of(noted) | self.job_ids
        self._write(_owner_of(noted) or self._owner)

    def _read(self) -> Any:
        """Return what is noted: None for nothing, False where the store cannot be read."""
        try:
            return None if self._state_store is None else self._state_store.get(_KEY)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, with a secret in its text
            log.warning("The task state store cannot be read (%s)", type(error).__name__)
            return False

    def _write(self, owner: str) -> None:
        try:
            if self._state_store is not None:
                self._state_store.set(_KEY, {"owner": owner, "job_ids": self.job_ids})
        except Exception as error:  # noqa: BLE001 - a backend may raise anything, with a secret in its text
            log.warning("The task state store cannot be written (%s)", type(error).__name__)


def _owner_of(noted: Any) -> str | None:
    owner = noted.get("owner") if isinstance(noted, dict) else None
    return owner if isinstance(owner, str) else None


def _job_ids_of(noted: Any) -> dict[str, int]:
    jobs = noted.get("job_ids") if isinstance(noted, dict) else None
    found = {token: as_int(value) for token, value in jobs.items()} if isinstance(jobs, dict) else {}
    return {token: job_id for token, job_id in found.items() if job_id is not None}
