# SPDX-License-Identifier: Apache-2.0
"""The wait for an upload job, as it goes on in the triggerer."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.waiting import RedeemUploadWait, WaitOptions, WaitOutcome
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class CapillaryRedeemUploadTrigger(BaseTrigger):
    """Wait until an upload job of redeemed coupons is done, and fire one event that says how it ended.

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
    :param failures: Failed looks in a row before the wait came here.
    """

    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        job_id: int | str | None = None,
        uploaded_file_name: str | None = None,
        after_job_id: int | str | None = None,
        max_error_count: int | None = None,
        max_error_rate: float | None = None,
        max_consecutive_failures: int = 10,
        silent_fail: bool = False,
        capillary_conn_id: str = CapillaryAsyncHook.default_conn_name,
        poke_interval: float = 60.0,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        timeout: float,
        deadline: float,
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
        self.failures = failures

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
                "failures": self.failures,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event."""
        try:
            outcome = await self._wait()
        except CapillaryError as error:
            outcome = WaitOutcome(kind="error", message=str(error), error=error)
        except Exception as error:
            # Only the kind is told: text of unknown origin may hold anything, and events are logged whole.
            self.log.exception("The wait for the upload job ended unexpectedly")
            unexpected = CapillaryError(
                f"the wait ended with an unexpected {type(error).__name__}; the log of the trigger says where"
            )
            outcome = WaitOutcome(kind="error", message=str(unexpected), error=unexpected)
        yield TriggerEvent(outcome.to_event())

    async def _wait(self) -> WaitOutcome:
        options = self._options()
        wait = RedeemUploadWait(options, log=self.log, now=pendulum.now, failures=self.failures)
        looks = 0
        hook: CapillaryAsyncHook | None = None
        async with AsyncExitStack() as opened:
            while True:
                await asyncio.sleep(max(0.0, min(self._pause(looks), self.deadline - time.time())))
                looks += 1
                try:
                    # Within the look, so that a connection that cannot be used counts as in poke mode.
                    if hook is None:
                        hook = await opened.enter_async_context(CapillaryAsyncHook(self.capillary_conn_id))
                    jobs = await hook.get_redeem_upload_jobs(options.series_id)
                except CapillaryError as error:
                    outcome = wait.see_error(error)
                else:
                    outcome = wait.see_jobs(jobs)
                if outcome is not None:
                    return outcome
                if time.time() >= self.deadline:
                    return wait.time_out(self.timeout)

    def _pause(self, looks: int) -> float:
        """Return the seconds before the next look."""
        pause = self.poke_interval
        if self.exponential_backoff:
            pause *= 2.0 ** min(looks, 32)
        if self.max_wait is not None:
            pause = min(pause, self.max_wait)
        # Many waits begin together, when a night's uploads are done; from their first look on they are spread.
        return pause * (0.5 + random.random() / 2) if looks == 0 else pause  # noqa: S311

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
