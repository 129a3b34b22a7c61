# SPDX-License-Identifier: Apache-2.0
"""The position of one watch, kept in Airflow's state store of the asset."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.watching import WatchCursor, begin_watch, watch

if TYPE_CHECKING:
    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind
    from airflow_provider_capillary.api.wait_log import Log

#: Seconds that storing the cursor may take; after the next poll it is tried again.
_STORE_TIMEOUT = 5.0
#: Seconds between two attempts to read the cursor.
_READ_PAUSE = 30.0


class SeriesWatch:
    """Finds the jobs that finished since the previous poll, and keeps the position of the watch.

    :param kind: The kind of upload.
    :param coupon_series_id: The coupon series, for the log.
    :param include_existing: Whether to report the jobs that finished before the watch began.
    :param log: Log of the trigger.
    """

    def __init__(self, kind: UploadKind, coupon_series_id: int, *, include_existing: bool, log: Log) -> None:
        #: Key of the cursor in the state store of the asset.
        self._cursor_key = f"capillary_{kind.name}_uploads"
        self._title = kind.title
        self._series_id = coupon_series_id
        self._include_existing = include_existing
        self._log = log
        self._store: Any = None
        self._cursor: WatchCursor | None = None
        self._stored: WatchCursor | None = None
        #: Whether jobs were reported since the cursor was last read.
        self.has_reported = False
        self._has_warned = False

    @property
    def unsaved_cursor(self) -> WatchCursor | None:
        """The cursor, where it differs from the stored one."""
        return self._cursor if self._cursor != self._stored else None

    async def resume(self, store: Any) -> None:
        """Read the cursor from the state store; without a usable one, go on from the cursor in memory.

        :param store: Airflow's state store of the asset, or None.
        """
        # Airflow 3.3.2 added the methods to await. The older ones would block the event loop.
        self._store = store if hasattr(store, "aget") else None
        if self._store is None:
            self._warn("this Airflow keeps no state of assets (3.3.2 does)")
        while self._store is not None:
            try:
                value = await self._store.aget(self._cursor_key)
            except ValueError:
                self._store = None
                self._warn(
                    "several assets share this trigger, and Airflow cannot assign its state to one of them; use one "
                    "asset, or give their watchers different poll intervals"
                )
            except Exception as error:  # noqa: BLE001 - a watch without its cursor would lose jobs, so retry any error
                self._log.warning("The cursor cannot be read (%s), trying again", type(error).__name__)
                await asyncio.sleep(_READ_PAUSE)
            else:
                self._cursor = self._stored = self._parse(value)
                self.has_reported = False
                return

    def newly_finished(self, jobs: JobHistory) -> list[UploadJob]:
        """Return the jobs that finished since the previous poll, the oldest first, and move the cursor behind them.

        :param jobs: All jobs of the series.
        """
        if self._cursor is None:
            self._cursor = begin_watch(jobs, include_existing=self._include_existing, now=time.time())
            self._log.info(
                "Watching the %ss of coupon series %s after job %d, %d of the jobs up to there still running",
                self._title,
                self._series_id,
                self._cursor.after_job_id,
                len(self._cursor.pending_job_ids),
            )
        finished, self._cursor = watch(jobs, self._cursor)
        return finished

    async def save(self, cursor: WatchCursor) -> None:
        """Store a cursor. Never raises: after the next poll it is tried again.

        :param cursor: The cursor whose events Airflow has stored.
        """
        if not cursor.is_settled or self._store is None:
            return
        try:
            # A triggerer that shuts down waits for this, when its supervisor may not answer any more.
            async with asyncio.timeout(_STORE_TIMEOUT):
                await self._store.aset(self._cursor_key, cursor.to_dict())
        except Exception as error:  # noqa: BLE001 - retried after the next poll
            self._log.warning("The cursor cannot be stored (%s), trying again", type(error).__name__)
        else:
            self._stored = cursor

    def _parse(self, value: Any) -> WatchCursor | None:
        try:
            return None if value is None else WatchCursor.from_dict(value)
        except CapillaryError as error:
            self._log.error("%s: beginning without it", error)
            return None

    def _warn(self, reason: str) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        self._log.warning(
            "%s jobs of coupon series %s that finish while no triggerer runs will not be reported: %s",
            self._title.capitalize(),
            self._series_id,
            reason,
        )
