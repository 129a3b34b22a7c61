# SPDX-License-Identifier: Apache-2.0
"""The wait for an upload job, as it goes on in the triggerer."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.waiting import RedeemUploadWait, WaitOptions, WaitOutcome
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from airflow_provider_capillary.triggers.shared_poll import Look, SeriesPoll


#: Two failed looks that are closer than this part of the interval count as one.
_SAME_LOOK = 0.9
#: How long a wait whose time is over still waits for its last look.
_LAST_LOOK_SECONDS = 60.0


class CapillaryRedeemUploadTrigger(BaseTrigger):
    """Wait until an upload job of redeemed coupons is done, and fire one event that says how it ended.

    All waits on a series in one triggerer share one poll, and all on a connection one client, one token and one limit
    of requests.

    Never raises: an exception of a trigger would be logged unmasked and taken for a deferral that went wrong. The
    event's payload is that of :meth:`airflow_provider_capillary.api.waiting.WaitOutcome.to_event`.

    :param coupon_series_id: See :class:`~airflow_provider_capillary.sensors.capillary.CapillaryRedeemUploadSensor`,
        as for all parameters down to ``silent_fail``.
    :param job_id: Exactly this job.
    :param uploaded_file_name: The newest job with this file name or glob.
    :param after_job_id: The newest job with a larger id.
    :param max_error_count: Most refused rows of a completed job.
    :param max_error_rate: The same as a fraction of uploaded rows.
    :param max_consecutive_failures: Failed looks in a row that end the wait.
    :param silent_fail: No fault ends the wait.
    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param poke_interval: Seconds between two looks.
    :param exponential_backoff: Whether the interval doubles with every look.
    :param max_wait: Upper bound of the interval in seconds; None for none.
    :param timeout: Seconds that the sensor waits in all, for the message of the event.
    :param deadline: Epoch seconds at which the wait ends. Absolute, so that it does not begin again with the
        triggerer.
    :param ends_after: Instead of ``deadline``, where no worker was there to set one: the seconds from the start of
        the task to the moment at which Airflow itself ends the wait. That moment is kept across restarts, and with
        this it tells when the start was.
    :param failures: Failed looks in a row before the wait came here.
    """

    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        job_id: int | str | None = None,
        uploaded_file_name: str | None = None,
        after_job_id: int | str | None = None,
        max_error_count: int | str | None = None,
        max_error_rate: float | str | None = None,
        max_consecutive_failures: int = 10,
        silent_fail: bool = False,
        capillary_conn_id: str = CapillaryAsyncHook.default_conn_name,
        poke_interval: float = 60.0,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        timeout: float,
        deadline: float | None = None,
        ends_after: float | None = None,
        failures: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coupon_series_id = coupon_series_id
        self.job_id = job_id
        self.uploaded_file_name = uploaded_file_name
        self.after_job_id = after_job_id
        self.max_error_count = max_error_count
        self.max_error_rate = max_error_rate
        self.max_consecutive_failures = max_consecutive_failures
        self.silent_fail = silent_fail
        self.capillary_conn_id = capillary_conn_id
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.timeout = timeout
        self.deadline = deadline
        self.ends_after = ends_after
        self._ends_at = float("inf")
        self.failures = failures
        self._joined = AsyncExitStack()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the path of the class and its arguments, plain JSON and without any secret: Airflow logs them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **self._options().to_dict(),
                "capillary_conn_id": self.capillary_conn_id,
                "poke_interval": self.poke_interval,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "timeout": self.timeout,
                "deadline": self.deadline,
                "ends_after": self.ends_after,
                "failures": self.failures,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event."""
        try:
            outcome = await self._wait()
        except CapillaryError as error:
            outcome = WaitOutcome(kind="error", message=str(error), error=error)
        except Exception as error:  # noqa: BLE001 - see the class
            outcome = self._unexpected(error)
        yield TriggerEvent(outcome.to_event())

    async def cleanup(self) -> None:
        """Leave the poll, should the wait have been given up without leaving it."""
        await self._joined.aclose()

    async def _wait(self) -> WaitOutcome:
        from airflow_provider_capillary.triggers.shared_poll import join_poll

        options = self._options()
        wait = RedeemUploadWait(options, log=self.log, now=pendulum.now, failures=self.failures)
        self._ends_at = self._end_of_wait()
        looks = 0
        failed_at = float("-inf")
        async with self._joined as joined:
            membership = await joined.enter_async_context(
                join_poll(self.capillary_conn_id, options.series_id, interval=self._pause(looks))
            )
            while True:
                look = await self._next_look(membership.poll)
                outcome: WaitOutcome | None = None
                if look is not None and look.jobs is not None:
                    outcome = wait.see_jobs(look.jobs)
                elif look is not None and look.at - failed_at >= _SAME_LOOK * membership.interval:
                    # The poll may be quicker than this wait needs. Its budget of failures is one of time as well.
                    failed_at = look.at
                    outcome = self._judge(wait, look.error)
                if outcome is not None:
                    return outcome
                if time.time() >= self._ends_at:
                    return wait.time_out(self.timeout)
                looks += 1
                membership.interval = self._pause(looks)

    async def _next_look(self, poll: SeriesPoll) -> Look | None:
        """Return the next look; at the deadline a last one, as the job may have ended meanwhile, or None."""
        try:
            async with asyncio.timeout(max(0.0, self._ends_at - time.time())):
                return await poll.next_look()
        except TimeoutError:
            poll.look_within(0)
        try:
            async with asyncio.timeout(_LAST_LOOK_SECONDS):
                return await poll.next_look()
        except TimeoutError:
            return None

    def _end_of_wait(self) -> float:
        if self.deadline is not None:
            return self.deadline
        # Set by the triggerer, from what the scheduler stored when it started the task.
        airflow_ends_at: datetime | None = getattr(self, "timeout_after", None)
        if airflow_ends_at is None or self.ends_after is None:
            return time.time() + self.timeout
        if airflow_ends_at.tzinfo is None:
            airflow_ends_at = airflow_ends_at.replace(tzinfo=UTC)
        return airflow_ends_at.timestamp() - self.ends_after + self.timeout

    def _judge(self, wait: RedeemUploadWait, error: Exception | None) -> WaitOutcome | None:
        return wait.see_error(error) if isinstance(error, CapillaryError) else self._unexpected(error)

    def _unexpected(self, error: Exception | None) -> WaitOutcome:
        # Only the kind is told: text of unknown origin may hold anything, and events are logged whole.
        self.log.error("The wait for the upload job ended unexpectedly", exc_info=error)
        told = CapillaryError(
            f"the wait ended with an unexpected {type(error).__name__}; the log of the trigger says where"
        )
        return WaitOutcome(kind="error", message=str(told), error=told)

    def _pause(self, looks: int) -> float:
        """Return the seconds that this wait wants between two looks."""
        pause = self.poke_interval
        if self.exponential_backoff:
            pause *= 2.0 ** min(looks, 32)
        return pause if self.max_wait is None else min(pause, self.max_wait)

    def _options(self) -> WaitOptions:
        return WaitOptions(
            coupon_series_id=self.coupon_series_id,
            job_id=self.job_id,
            uploaded_file_name=self.uploaded_file_name,
            after_job_id=self.after_job_id,
            max_error_count=self.max_error_count,
            max_error_rate=self.max_error_rate,
            max_consecutive_failures=self.max_consecutive_failures,
            silent_fail=self.silent_fail,
        )
