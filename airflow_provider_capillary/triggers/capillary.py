# SPDX-License-Identifier: Apache-2.0
"""Triggers: wait for an upload job, and watch a coupon series."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import pendulum

from airflow_provider_capillary._airflow_compat import BaseEventTrigger, BaseTrigger, TriggerEvent
from airflow_provider_capillary._copying import ResetOnCopy
from airflow_provider_capillary._polling.series_watch import SeriesWatch
from airflow_provider_capillary.api.earlier_versions import takes_stored_arguments
from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.timing import Deadline, PollSchedule, PollTimer, end_of_wait
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM
from airflow_provider_capillary.api.values import parse_id, read_flag, read_seconds, read_text
from airflow_provider_capillary.api.wait_log import WaitTimes
from airflow_provider_capillary.api.waiting import JobWaiter, WaitOptions, WaitOutcome
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Hashable
    from datetime import datetime, timedelta

    from airflow_provider_capillary._airflow_compat import SharedStreamProducer
    from airflow_provider_capillary._polling.watch_stream import PollBatch
    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.upload_kinds import UploadKind


#: Seconds after which the triggerer has certainly passed an event on. It does so about once a second.
_EVENT_PASSED_ON_SECONDS = 5.0
#: Seconds until a watch that broke off begins again.
_RESTART_PAUSE = 30.0


class _UploadTrigger(ResetOnCopy, BaseTrigger):
    """Base of the triggers that wait for an upload job of one kind."""

    _kind: ClassVar[UploadKind]
    _made_by_use = ("_exit_stack",)

    @takes_stored_arguments
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
    def _exit_stack(self) -> AsyncExitStack:
        return AsyncExitStack()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and its arguments: plain JSON and no secret, because Airflow logs them."""
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
        from airflow_provider_capillary._metrics import count_wait

        try:
            outcome = await self._wait()
        except CapillaryError as error:
            outcome = WaitOutcome(status="error", message=str(error), error=error)
        except Exception as error:  # noqa: BLE001 - the sensor needs an event after any error
            outcome = self._unexpected(error)
        count_wait("waits_ended", str(self.capillary_conn_id), self._kind, status=outcome.status)
        yield TriggerEvent(outcome.to_event())

    async def cleanup(self) -> None:
        """Leave the shared poll, in case Airflow dropped :meth:`run` before it could."""
        await self._exit_stack.aclose()

    async def _wait(self) -> WaitOutcome:
        from airflow_provider_capillary._metrics import count_wait
        from airflow_provider_capillary._polling.shared_poll import subscribe
        from airflow_provider_capillary._polling.shared_wait import wait_for_job

        wait = JobWaiter(WaitOptions.of(self), kind=self._kind, log=self.log, now=pendulum.now, failures=self.failures)
        options = wait.options
        # An invalid argument ends the wait even with silent_fail. A connection may still be corrected.
        read_text("capillary_conn_id", self.capillary_conn_id)
        deadline = Deadline.of(self._end_of_wait(), now=time.time(), backstop=self._backstop)
        seed = f"{self.capillary_conn_id}#{options.to_dict()}#{deadline.at}"
        schedule = PollSchedule(self.poke_interval, self.exponential_backoff, self.max_wait, seed)
        elapsed = max(0.0, time.time() - (deadline.at - self.timeout))
        timer = PollTimer(schedule, now=time.monotonic(), elapsed=elapsed, begins_soon=True)
        wait.wait_log.times = WaitTimes(
            interval=self.poke_interval,
            backs_off=self.exponential_backoff,
            end=deadline.at,
            is_resumed=not timer.is_new,
        )
        async with self._exit_stack as stack:
            subscription = await stack.enter_async_context(
                subscribe(self.capillary_conn_id, self._kind, options.series_id, timer)
            )
            if timer.is_new:
                count_wait("waits_started", self.capillary_conn_id, self._kind)
            return await wait_for_job(wait, subscription, deadline, timeout=self.timeout, on_failure=self._on_failure)

    def _end_of_wait(self) -> float:
        if self.end_time is not None:
            return self.end_time
        return end_of_wait(
            time.time(), timeout=self.timeout, backstop=self._backstop, execution_seconds=self.execution_deadline
        )

    @property
    def _backstop(self) -> float | None:
        # The triggerer sets it from the timeout that was stored when the task was deferred.
        at: datetime | None = getattr(self, "timeout_after", None)
        if at is None:
            return None
        return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp()

    def _on_failure(self, wait: JobWaiter, error: Exception | None) -> WaitOutcome | None:
        if isinstance(error, CapillaryError):
            return wait.on_error(error)
        outcome = self._unexpected(error)
        return None if wait.options.silent_fail else outcome

    def _unexpected(self, error: Exception | None) -> WaitOutcome:
        # Only the type of the error: its text may contain secrets, and Airflow logs the whole event.
        self.log.error("The wait for the upload job ended unexpectedly", exc_info=error)
        shown = CapillaryError(f"the wait ended with an unexpected {type(error).__name__}; see the log of the trigger")
        return WaitOutcome(status="error", message=str(shown), error=shown)


class _UploadEventTrigger(ResetOnCopy, BaseEventTrigger):
    """Base of the triggers that watch the uploads of one kind."""

    _kind: ClassVar[UploadKind]
    _polls: AsyncGenerator[JobHistory, None] | None = None
    _made_by_use = ("_watch", "_polls")

    @takes_stored_arguments
    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        capillary_conn_id: str = CapillaryAsyncHook.default_conn_name,
        poll_interval: float | timedelta = 60.0,
        include_existing: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in Airflow
        self.coupon_series_id = parse_id("coupon_series_id", coupon_series_id)
        self.capillary_conn_id = read_text("capillary_conn_id", capillary_conn_id)
        self.poll_interval = read_seconds("poll_interval", poll_interval)
        self.include_existing = read_flag("include_existing", include_existing)

    @cached_property
    def _watch(self) -> SeriesWatch:
        return SeriesWatch(self._kind, self.coupon_series_id, include_existing=self.include_existing, log=self.log)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and its arguments, normalised because Airflow compares them."""
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
        """Return the key that is equal for watchers that can share their polls."""
        return f"capillary_{self._kind.name}_uploads", self.capillary_conn_id, self.coupon_series_id, self.poll_interval

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the producer that polls the series for all watchers with the same key.

        :param kwargs: Arguments of one of these triggers.
        """
        from airflow_provider_capillary._polling.watch_stream import UploadStream

        return UploadStream(kwargs["capillary_conn_id"], cls._kind, kwargs["coupon_series_id"], kwargs["poll_interval"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[PollBatch]) -> AsyncIterator[TriggerEvent]:
        """Yield the events of this watcher for the polls of a shared stream.

        :param shared_stream: The polls.
        """
        await self._resume()
        try:
            async for batch in shared_stream:
                if (event := await self._event_for(batch.jobs)) is not None:
                    yield event
                if (save := self._watch.unsaved()) is not None:
                    batch.when_stored.append(save)
        except Exception as error:  # noqa: BLE001 - Airflow would restart this every two seconds, without an end
            self.log.warning("The shared watch broke off (%s); polling without it", type(error).__name__)
        async for event in self.run():
            yield event

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch without a shared stream, and yield the events."""
        from airflow_provider_capillary._polling.shared_poll import poll_series

        while True:
            await self._resume()
            self._polls = poll_series(
                self.capillary_conn_id, self._kind, self.coupon_series_id, interval=self.poll_interval, log=self.log
            )
            try:
                async for jobs in self._polls:
                    if (event := await self._event_for(jobs)) is not None:
                        yield event
                        await asyncio.sleep(_EVENT_PASSED_ON_SECONDS)
                    if (save := self._watch.unsaved()) is not None:
                        await save()
            except Exception as error:  # noqa: BLE001 - no error ends a watch
                self.log.error(
                    "The watch of the %ss of coupon series %s broke off (%s)",
                    self._kind.title,
                    self.coupon_series_id,
                    type(error).__name__,
                )
            finally:
                await self.cleanup()
            await asyncio.sleep(_RESTART_PAUSE)

    async def cleanup(self) -> None:
        """Leave the shared poll, in case Airflow dropped :meth:`run` before it could."""
        self._watch.close()
        polls, self._polls = self._polls, None
        if polls is not None:
            await polls.aclose()

    async def _resume(self) -> None:
        await self._watch.resume(getattr(self, "asset_state_store", None))

    async def _event_for(self, jobs: JobHistory) -> TriggerEvent | None:
        from airflow_provider_capillary._metrics import count

        finished = await self._watch.newly_finished(jobs)
        if not finished:
            return None
        count("watcher_events", conn_id=self.capillary_conn_id, upload_kind=self._kind.name)
        possible_duplicates, self._watch.has_reported = not self._watch.has_reported, True
        return TriggerEvent(
            {
                "capillary_conn_id": self.capillary_conn_id,
                "upload_kind": self._kind.name,
                "coupon_series_id": self.coupon_series_id,
                "jobs": [job.to_dict() for job in finished],
                "possible_duplicates": possible_duplicates,
            }
        )


class CapillaryRedeemUploadTrigger(_UploadTrigger):
    """Wait until an upload job of redeemed coupons finishes, and fire one event with the outcome.

    All waits on a series in one triggerer share one poll. All waits on a connection share one client, one token and one
    request limit.

    Never raises: Airflow would log the exception of a trigger unmasked, and report a failed deferral. The payload of
    the event is that of :meth:`airflow_provider_capillary.api.waiting.WaitOutcome.to_event`.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param poke_interval: Seconds between two polls.
    :param exponential_backoff: Whether the interval doubles from poll to poll, by Airflow's own rule for sensors.
    :param max_wait: Upper bound of such an interval in seconds; None or 0 for none.
    :param timeout: The sensor's timeout in seconds, for the message of the event.
    :param end_time: Epoch seconds at which the wait ends. Absolute, so that a restart of the triggerer does not extend
        the wait.
    :param execution_deadline: Seconds from the start of the task to Airflow's own timeout of the deferral, for a task
        that started in the triggerer, where no worker set ``end_time``. That timeout survives restarts, so the start
        is calculated from it.
    :param failures: Failed polls in a row before the task was deferred.
    :param options: The fields of :class:`~airflow_provider_capillary.api.waiting.WaitOptions`; ``coupon_series_id`` is
        required.
    """

    _kind = REDEEM


class CapillaryCouponUploadTrigger(_UploadTrigger):
    """Wait until an upload job of coupons finishes; like :class:`CapillaryRedeemUploadTrigger` in all else."""

    _kind = COUPON


class CapillaryRedeemUploadEventTrigger(_UploadEventTrigger):
    """Watch a coupon series, and fire when upload jobs of redeemed coupons finish. For an asset's ``AssetWatcher``.

    ``airflow_provider_capillary.assets.capillary.capillary_redeem_uploads`` makes an asset with it.

    A poll that finds newly finished jobs, completed or failed, fires one event for all of them. Its payload::

        {
            "capillary_conn_id": "capillary_default",
            "upload_kind": "redeem",
            "coupon_series_id": 535512,
            "jobs": [...],  # UploadJob.to_dict() of each, the oldest first
            "possible_duplicates": False,
        }

    Each job is reported once, when it finishes. The position is kept in the state store of the asset and advances only
    after Airflow has stored the event, so neither a restart of the triggerer nor a pause of the DAG loses or repeats a
    job. After a crash between these two steps, the first event repeats jobs. The first event after a start has
    ``possible_duplicates`` set, and so has the next one after the triggerer was frozen, as on a paused machine, or
    another one has reported jobs meanwhile. Compare job ids to find the repeated ones.

    All watchers and all waits of a series in one triggerer share one poll. No error ends the watch: failed polls are
    logged in the triggerer, and the interval doubles with each of them, up to 15 minutes.

    :param coupon_series_id: The coupon series, number or text.
    :param capillary_conn_id: Airflow connection of type ``capillary``; default ``capillary_default``.
    :param poll_interval: Time between two polls, seconds or a timedelta; default 60.
    :param include_existing: Whether the first poll reports the jobs that finished before, 1,000 at a time; default
        False. Jobs that still run then are reported in any case.
    :raises CapillaryConfigurationError: An argument cannot be used.
    """

    _kind = REDEEM


class CapillaryCouponUploadEventTrigger(_UploadEventTrigger):
    """Watch a coupon series, and fire when upload jobs of coupons finish.

    Like :class:`CapillaryRedeemUploadEventTrigger` in all else; ``upload_kind`` of the payload is ``coupon``.
    ``airflow_provider_capillary.assets.capillary.capillary_coupon_uploads`` makes an asset with it.
    """

    _kind = COUPON
