# SPDX-License-Identifier: Apache-2.0
"""What goes on in the triggerer: the wait for an upload job, and the watch that DAGs are scheduled by."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_capillary._airflow_compat import BaseEventTrigger, BaseTrigger, TriggerEvent
from airflow_provider_capillary._copying import BeginsAnew
from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.timing import Deadline, PollSchedule, PollTimer, end_of_wait
from airflow_provider_capillary.api.values import parse_id, read_flag, read_seconds, read_text
from airflow_provider_capillary.api.waiting import JobWaiter, WaitOptions, WaitOutcome
from airflow_provider_capillary.api.watching import WatchCursor, begin_watch, watch
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Hashable
    from datetime import datetime, timedelta

    from airflow_provider_capillary._airflow_compat import SharedStreamProducer
    from airflow_provider_capillary._polling.watch_stream import PollBatch
    from airflow_provider_capillary.api.job_history import JobHistory


#: Where the cursor lies in the state store of the asset.
_CURSOR_KEY = "capillary_redeem_uploads"
#: Seconds after which the triggerer has surely passed an event on. It does so about once a second.
_PASSED_ON_AFTER = 5.0
#: Seconds that storing the cursor may take; the next look tries again.
_STORED_WITHIN = 5.0
#: Seconds between two attempts to read the cursor, or to go on after what should not have happened.
_PAUSE_AFTER_FAULT = 30.0


class CapillaryRedeemUploadTrigger(BeginsAnew, BaseTrigger):
    """Wait until an upload job of redeemed coupons is done, and fire one event that says how it ended.

    All waits on a series in one triggerer share one poll, and all on a connection one client, one token and one limit
    of requests.

    Never raises: an exception of a trigger would be logged unmasked and taken for a deferral that went wrong. The
    event's payload is that of :meth:`airflow_provider_capillary.api.waiting.WaitOutcome.to_event`.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param poke_interval: Seconds between two looks.
    :param exponential_backoff: Whether the interval doubles from poll to poll, by Airflow's own rule for sensors.
    :param max_wait: Upper bound of such an interval in seconds; None or 0 for none.
    :param timeout: Seconds that the sensor waits in all, for the message of the event.
    :param end_time: Epoch seconds at which the wait ends. Absolute, so that it does not begin again with the
        triggerer.
    :param execution_deadline: Where the task started in the triggerer and no worker set ``end_time``: seconds from the
        start of the task to Airflow's own timeout of the deferral. That timeout survives restarts, so the start can
        be calculated from it.
    :param failures: Failed polls in a row before the wait came here.
    :param options: The fields of :class:`~airflow_provider_capillary.api.waiting.WaitOptions`; ``coupon_series_id`` is
        required.
    """

    _made_by_use = ("_joined",)

    def __init__(
        self,
        *,
        capillary_conn_id: str = CapillaryAsyncHook.default_conn_name,
        poke_interval: float = 60.0,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        timeout: float,
        end_time: float | None = None,
        execution_deadline: float | None = None,
        failures: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in Airflow
        # Attributes, because Airflow's triggerer renders templates in those that are named as the operator's fields.
        vars(self).update(WaitOptions(**options).to_dict())
        self.capillary_conn_id = capillary_conn_id
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.timeout = timeout
        self.end_time = end_time
        self.execution_deadline = execution_deadline
        self.failures = failures

    @cached_property
    def _joined(self) -> AsyncExitStack:
        return AsyncExitStack()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and its arguments, plain JSON and without any secret: Airflow logs them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **WaitOptions.of(self).to_dict(),
                "capillary_conn_id": self.capillary_conn_id,
                "poke_interval": self.poke_interval,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "timeout": self.timeout,
                "end_time": self.end_time,
                "execution_deadline": self.execution_deadline,
                "failures": self.failures,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event."""
        try:
            outcome = await self._wait()
        except CapillaryError as error:
            outcome = WaitOutcome(status="error", message=str(error), error=error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sensor has to be told how its wait ended
            outcome = self._unexpected(error)
        yield TriggerEvent(outcome.to_event())

    async def cleanup(self) -> None:
        """Leave the poll, should the wait have been given up without leaving it."""
        await self._joined.aclose()

    async def _wait(self) -> WaitOutcome:
        from airflow_provider_capillary._polling.shared_poll import subscribe
        from airflow_provider_capillary._polling.shared_wait import wait_for_job

        wait = JobWaiter(WaitOptions.of(self), log=self.log, now=pendulum.now, failures=self.failures)
        options = wait.options
        # An argument that can never work ends the wait, with silent_fail too; a connection may be mended meanwhile.
        read_text("capillary_conn_id", self.capillary_conn_id)
        deadline = Deadline.of(self._end_of_wait(), now=time.time(), backstop=self._backstop)
        seed = f"{self.capillary_conn_id}#{options.to_dict()}#{deadline.at}"
        schedule = PollSchedule(self.poke_interval, self.exponential_backoff, self.max_wait, seed)
        elapsed = max(0.0, time.time() - (deadline.at - self.timeout))
        timer = PollTimer(schedule, now=time.monotonic(), elapsed=elapsed)
        async with self._joined as joined:
            subscription = await joined.enter_async_context(subscribe(self.capillary_conn_id, options.series_id, timer))
            return await wait_for_job(wait, subscription, deadline, timeout=self.timeout, judge=self._judge)

    def _end_of_wait(self) -> float:
        if self.end_time is not None:
            return self.end_time
        return end_of_wait(
            time.time(), timeout=self.timeout, backstop=self._backstop, execution_seconds=self.execution_deadline
        )

    @property
    def _backstop(self) -> float | None:
        # Set by the triggerer, from what the scheduler stored when the task was deferred.
        at: datetime | None = getattr(self, "timeout_after", None)
        if at is None:
            return None
        return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp()

    def _judge(self, wait: JobWaiter, error: Exception | None) -> WaitOutcome | None:
        if isinstance(error, CapillaryError):
            return wait.on_error(error)
        outcome = self._unexpected(error)
        return None if WaitOptions.of(self).silent_fail else outcome

    def _unexpected(self, error: Exception | None) -> WaitOutcome:
        # Only the kind is told: text of unknown origin may hold anything, and events are logged whole.
        self.log.error("The wait for the upload job ended unexpectedly", exc_info=error)
        told = CapillaryError(
            f"the wait ended with an unexpected {type(error).__name__}; the log of the trigger says where"
        )
        return WaitOutcome(status="error", message=str(told), error=told)


class CapillaryRedeemUploadEventTrigger(BeginsAnew, BaseEventTrigger):
    """Watch a coupon series, and fire when upload jobs of redeemed coupons are done. For an asset's ``AssetWatcher``.

    ``airflow_provider_capillary.assets.capillary.capillary_redeem_uploads`` makes an asset with it.

    A look at which one or more jobs turn out to be done, completed or failed, fires one event. Its payload::

        {
            "capillary_conn_id": "capillary_default",
            "coupon_series_id": 535512,
            "jobs": [...],  # UploadJob.to_dict() of each, the oldest first
            "possible_duplicates": False,
        }

    Each job is told once, by its edge, never by its state. How far that got is kept in the state store of the asset,
    so that neither a restart of the triggerer nor a pause of the DAG loses a job or tells one twice. The cursor moves
    only when Airflow has stored the event; a crash between these two makes jobs come again, in the first event after
    the start, the only one in which ``possible_duplicates`` is true. A job's id tells a repeat for certain.

    All watchers and all waits of a series in one triggerer share one poll. Faults are waited out, less and less often,
    and told in the log of the triggerer; none ends the watch.

    :param coupon_series_id: The coupon series, number or text.
    :param capillary_conn_id: Airflow connection of type ``capillary``; default ``capillary_default``.
    :param poll_interval: Time between two polls, seconds or a timedelta; default 60.
    :param include_existing: Whether the first poll reports the jobs that finished before, 1,000 at a time; default
        False. Jobs that still run then are reported in any case.
    :raises CapillaryConfigurationError: An argument cannot be used.
    """

    _cursor: WatchCursor | None = None
    _stored: WatchCursor | None = None
    _store: Any = None
    _has_told = False
    _has_warned = False
    _polls: AsyncGenerator[JobHistory, None] | None = None
    _made_by_use = ("_cursor", "_stored", "_store", "_has_told", "_has_warned", "_polls")

    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        capillary_conn_id: str = CapillaryAsyncHook.default_conn_name,
        poll_interval: float | timedelta = 60.0,
        include_existing: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow tells no types
        self.coupon_series_id = parse_id("coupon_series_id", coupon_series_id)
        self.capillary_conn_id = read_text("capillary_conn_id", capillary_conn_id)
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        self.include_existing = read_flag("include_existing", include_existing)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and its arguments, in one form for one meaning: Airflow compares them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "coupon_series_id": self.coupon_series_id,
                "capillary_conn_id": self.capillary_conn_id,
                "poll_interval": self.poll_interval,
                "include_existing": self.include_existing,
            },
        )

    def shared_stream_key(self) -> Hashable:
        """Return what watchers of the same looks have in common."""
        return "capillary_redeem_uploads", self.capillary_conn_id, self.coupon_series_id, self.poll_interval

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Make what looks at the series for all watchers that share it, and hears when their events are stored.

        :param kwargs: Arguments of one of them.
        """
        from airflow_provider_capillary._polling.watch_stream import RedeemUploadStream

        return RedeemUploadStream(kwargs["capillary_conn_id"], kwargs["coupon_series_id"], kwargs["poll_interval"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[PollBatch]) -> AsyncIterator[TriggerEvent]:
        """Yield the events that the looks of a shared stream mean to this watcher.

        :param shared_stream: The looks.
        """
        await self._read_cursor()
        try:
            async for delivery in shared_stream:
                if (event := self._see(delivery.jobs)) is not None:
                    yield event
                if self._cursor != self._stored:
                    delivery.when_stored.append(partial(self._store_cursor, self._cursor))
        except Exception as error:  # noqa: BLE001 - Airflow would start this anew every two seconds, without an end
            self.log.warning("The shared watch broke off (%s); going on alone", type(error).__name__)
        async for event in self.run():
            yield event

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch without anybody to share with, and yield the events."""
        from airflow_provider_capillary._polling.shared_poll import poll_series

        while True:
            await self._read_cursor()
            self._polls = poll_series(
                self.capillary_conn_id, self.coupon_series_id, interval=self.poll_interval, log=self.log
            )
            try:
                async for jobs in self._polls:
                    if (event := self._see(jobs)) is not None:
                        yield event
                        await asyncio.sleep(_PASSED_ON_AFTER)
                    if self._cursor != self._stored:
                        await self._store_cursor(self._cursor)
            except Exception as error:  # noqa: BLE001 - a watch goes on for good, whatever happens to a look
                self.log.error(
                    "The watch of coupon series %s broke off (%s)", self.coupon_series_id, type(error).__name__
                )
            finally:
                await self.cleanup()
            await asyncio.sleep(_PAUSE_AFTER_FAULT)

    async def cleanup(self) -> None:
        """Leave the poll, should the watch have been given up without leaving it."""
        results, self._polls = self._polls, None
        if results is not None:
            await results.aclose()

    def _see(self, jobs: JobHistory) -> TriggerEvent | None:
        if self._cursor is None:
            self._cursor = begin_watch(jobs, include_existing=self.include_existing, now=time.time())
            self.log.info(
                "Watching coupon series %s after upload job %d, %d of the jobs up to there still running",
                self.coupon_series_id,
                self._cursor.after_job_id,
                len(self._cursor.pending_job_ids),
            )
        done, self._cursor = watch(jobs, self._cursor)
        if not done:
            return None
        possible_duplicates, self._has_told = not self._has_told, True
        return TriggerEvent(
            {
                "capillary_conn_id": self.capillary_conn_id,
                "coupon_series_id": self.coupon_series_id,
                "jobs": [job.to_dict() for job in done],
                "possible_duplicates": possible_duplicates,
            }
        )

    async def _read_cursor(self) -> None:
        """Find out how far the jobs were told; where that cannot be kept, go by what is in memory."""
        # Its methods to await came with Airflow 3.3.2. The others would block the loop.
        store = getattr(self, "asset_state_store", None)
        self._store = store if hasattr(store, "aget") else None
        if self._store is None:
            self._warn("this Airflow keeps no state of assets (3.3.2 does)")
        while self._store is not None:
            try:
                value = await self._store.aget(_CURSOR_KEY)
            except ValueError:
                self._store = None
                self._warn(
                    "several assets share this trigger, and Airflow cannot tell whose state it is; use one asset, or "
                    "give their watchers different poll intervals"
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, to begin anew would lose jobs
                self.log.warning("The cursor cannot be read (%s), trying again", type(error).__name__)
                await asyncio.sleep(_PAUSE_AFTER_FAULT)
            else:
                self._cursor = self._stored = self._understood(value)
                self._has_told = False
                return

    def _understood(self, value: Any) -> WatchCursor | None:
        try:
            return None if value is None else WatchCursor.from_dict(value)
        except CapillaryError as error:
            self.log.error("%s: beginning as if there was none", error)
            return None

    async def _store_cursor(self, cursor: WatchCursor | None) -> None:
        if cursor is None or not cursor.is_settled or self._store is None:
            return
        try:
            # A triggerer that stops waits for this, when there is nobody left to answer.
            async with asyncio.timeout(_STORED_WITHIN):
                await self._store.aset(_CURSOR_KEY, cursor.to_dict())
        except Exception as error:  # noqa: BLE001 - the next look tries again
            self.log.warning("The cursor cannot be stored (%s), trying again", type(error).__name__)
        else:
            self._stored = cursor

    def _warn(self, why: str) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        self.log.warning(
            "Jobs of coupon series %s that are done while no triggerer runs will not be told: %s",
            self.coupon_series_id,
            why,
        )
