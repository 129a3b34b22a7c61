# SPDX-License-Identifier: Apache-2.0
"""The position of one watch, kept in Airflow's state store of the asset."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.timing import FreezeDetector
from airflow_provider_capillary.api.watching import WatchCursor, begin_watch, merge_cursors, watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind
    from airflow_provider_capillary.api.wait_log import Log

#: Seconds that storing the cursor may take; after the next poll it is tried again.
_STORE_TIMEOUT = 5.0
#: Seconds between two attempts to read the cursor.
_READ_PAUSE = 30.0
#: Seconds between two checks whether the process was frozen.
_FREEZE_CHECK_SECONDS = 5.0


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
        #: Whether jobs were reported since it was last uncertain which jobs were reported already.
        self.has_reported = False
        self._has_warned = False
        self._times_read = 0
        self._freezes = FreezeDetector(monotonic=time.monotonic(), wall=time.time())
        self._next_check: asyncio.TimerHandle | None = None

    def unsaved(self) -> Callable[[], Awaitable[None]] | None:
        """Return what stores the cursor, to be called once Airflow has stored its events; None if it is stored.

        It does nothing once another cursor was read: the events may be lost, or a newer cursor may be stored.
        """
        if self._cursor is None or self._cursor == self._stored:
            return None
        return partial(self._save, self._cursor, self._times_read)

    async def resume(self, store: Any) -> None:
        """Read the cursor from the state store; without a usable one, go on from the cursor in memory.

        :param store: Airflow's state store of the asset, or None.
        """
        if self._next_check is None:
            self._freezes = FreezeDetector(monotonic=time.monotonic(), wall=time.time())
            self._check_regularly()
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
                self._times_read += 1
                self.has_reported = False
                return

    def close(self) -> None:
        """End the checks that :meth:`resume` began."""
        if self._next_check is not None:
            self._next_check.cancel()
            self._next_check = None

    async def newly_finished(self, jobs: JobHistory) -> list[UploadJob]:
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
        finished, cursor = watch(jobs, self._cursor)
        self._observe_clocks()
        # Before each report, because a triggerer of which only the supervisor was frozen does not notice it otherwise.
        if finished or self._freezes.frozen_for:
            self._cursor = await self._catch_up(self._cursor)
            finished, cursor = watch(jobs, self._cursor)
        self._cursor = cursor
        return finished

    async def _save(self, cursor: WatchCursor, times_read: int) -> None:
        """Store a cursor whose events Airflow has stored. Never raises: after the next poll it is tried again."""
        self._observe_clocks()
        # After a freeze, a newer cursor may be stored.
        is_outdated = times_read != self._times_read or self._freezes.frozen_for > 0
        if is_outdated or not cursor.is_settled or self._store is None:
            return
        try:
            # A triggerer that shuts down waits for this, when its supervisor may not answer any more.
            async with asyncio.timeout(_STORE_TIMEOUT):
                await self._store.aset(self._cursor_key, cursor.to_dict())
        except Exception as error:  # noqa: BLE001 - retried after the next poll
            self._log.warning("The cursor cannot be stored (%s), trying again", type(error).__name__)
            # It may be stored yet, in place of a newer one.
            self.has_reported = self.has_reported and not isinstance(error, TimeoutError)
        else:
            self._stored = cursor

    async def _catch_up(self, cursor: WatchCursor) -> WatchCursor:
        """Return the cursor behind what another triggerer has reported meanwhile, if it took over this watch.

        If that may be so, the next event has ``possible_duplicates`` set: the other one may not have stored its cursor
        yet.
        """
        stored: WatchCursor | None = None
        began = time.monotonic()
        while self._store is not None:
            try:
                value = await self._store.aget(self._cursor_key)
                stored = None if value is None else WatchCursor.from_dict(value)
            except Exception as error:  # noqa: BLE001 - the store may raise any class
                self.has_reported = False
                self._observe_clocks()
                if not self._freezes.frozen_for:
                    self._log.warning("The cursor cannot be read again (%s), going on", type(error).__name__)
                    break
                self._log.warning("The cursor cannot be read (%s), trying again", type(error).__name__)
                await asyncio.sleep(_READ_PAUSE)
            else:
                break
        self._freezes.note_pause(time.monotonic() - began)
        self._observe_clocks()
        if self._freezes.frozen_for:
            self._log.warning(
                "The triggerer was frozen for %.0f s: the next event about %ss of coupon series %s may repeat jobs "
                "that another triggerer has reported",
                self._freezes.frozen_for,
                self._title,
                self._series_id,
            )
            self._freezes.reset()
            self.has_reported = False
        if stored is None:
            return cursor
        self._stored = stored
        merged = merge_cursors(cursor, stored)
        if merged is not cursor:
            self._log.info("Another triggerer reported jobs meanwhile; going on after job %d", merged.after_job_id)
            self.has_reported = False
            self._times_read += 1
        return merged

    def _check_regularly(self) -> None:
        self._observe_clocks()
        self._next_check = asyncio.get_running_loop().call_later(_FREEZE_CHECK_SECONDS, self._check_regularly)

    def _observe_clocks(self) -> None:
        self._freezes.observe(monotonic=time.monotonic(), wall=time.time())

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
