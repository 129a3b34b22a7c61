# SPDX-License-Identifier: Apache-2.0
"""The wait for one job in a poll that others share: until the job ends, a budget is used up, or the time is over."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.api.timing import Deadline
    from airflow_provider_capillary.api.waiting import RedeemUploadWait, WaitOutcome
    from airflow_provider_capillary.triggers.shared_poll import Look, PollMembership


async def wait_for_job(
    wait: RedeemUploadWait,
    membership: PollMembership,
    deadline: Deadline,
    *,
    timeout: float,  # noqa: ASYNC109 - for the message only
    judge: Callable[[RedeemUploadWait, Exception | None], WaitOutcome | None],
) -> WaitOutcome:
    """Wait for the job and return how that ended.

    :param wait: What is waited for.
    :param membership: The poll.
    :param deadline: When the wait ends.
    :param timeout: The sensor's timeout in seconds, for the message.
    :param judge: What a failed poll means for the wait.
    """
    while True:
        look = await _next_look(membership, deadline)
        outcome: WaitOutcome | None = None
        if look is not None:
            outcome = judge(wait, look.error) if look.jobs is None else wait.see_jobs(look.jobs)
        if outcome is None and deadline.seconds_left(time.time()) <= 0:
            outcome = wait.time_out(timeout)
        if outcome is not None:
            return outcome


async def _next_look(membership: PollMembership, deadline: Deadline) -> Look | None:
    """Return the next look; at the deadline a last one, as the job may have ended meanwhile, or None."""
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline.seconds_left(time.time())):
            return await membership.next_look()
    asked = time.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline.seconds_left_for_last_poll(time.time())):
            while True:
                membership.look_now()
                look = await membership.next_look()
                # One that was under way before may have failed long before the deadline.
                if look.jobs is not None or look.began >= asked:
                    return look
    return None
