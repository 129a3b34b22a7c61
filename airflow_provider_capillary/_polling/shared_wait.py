# SPDX-License-Identifier: Apache-2.0
"""The wait for one job in a poll that others share: until the job ends, a budget is used up, or the time is over."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary._polling.shared_poll import PollResult, Subscription
    from airflow_provider_capillary.api.timing import Deadline
    from airflow_provider_capillary.api.waiting import JobWaiter, WaitOutcome


async def wait_for_job(
    wait: JobWaiter,
    subscription: Subscription,
    deadline: Deadline,
    *,
    timeout: float,  # noqa: ASYNC109 - for the message only
    on_failure: Callable[[JobWaiter, Exception | None], WaitOutcome | None],
) -> WaitOutcome:
    """Wait for the job and return how that ended.

    :param wait: What is waited for.
    :param subscription: The poll.
    :param deadline: When the wait ends.
    :param timeout: The sensor's timeout in seconds, for the message.
    :param on_failure: Called with each failed poll; returns the outcome where that ends the wait.
    """
    while True:
        result = await _next_result(wait, subscription, deadline)
        outcome: WaitOutcome | None = None
        if result is not None:
            outcome = on_failure(wait, result.error) if result.jobs is None else wait.on_jobs(result.jobs)
        if outcome is None and deadline.seconds_left(time.time()) <= 0:
            outcome = wait.time_out(timeout)
        if outcome is not None:
            return outcome


async def _next_result(wait: JobWaiter, subscription: Subscription, deadline: Deadline) -> PollResult | None:
    """Return the next result; at the deadline that of a last poll, as the job may have finished, or None."""
    while True:
        seconds_left = deadline.seconds_left(time.time())
        # Polls without a change wake no wait, so a timer of its own does once an hour.
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds_left, wait.wait_log.seconds_to_reminder())):
                return await subscription.next_result()
        if deadline.seconds_left(time.time()) <= 0:
            break
        wait.remind()
    asked = time.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline.seconds_left_for_last_poll(time.time())):
            while True:
                subscription.poll_now()
                result = await subscription.next_result()
                # One that was under way before may have failed long before the deadline.
                if result.jobs is not None or result.began >= asked:
                    return result
    return None
