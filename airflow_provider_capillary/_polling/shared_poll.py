# SPDX-License-Identifier: Apache-2.0
"""One poll for all waits on a series: however many triggers wait in this process, Capillary is asked once.

Everything in here belongs to one event loop and is used from it alone, so nothing needs a lock between threads.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_capillary._polling.shared_connection import SharedConnection
from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.timing import PollPlan, PollSchedule, PollTimer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from airflow_provider_capillary._transport.async_connection import AsyncConnection
    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.waiting import Log

log = logging.getLogger(__name__)

#: Jobs of a series from which on it takes noticeable time to look for one.
_LONG_HISTORY = 1000
#: Seconds between two attempts to read a connection while nobody is polled: a look-up may be overdue for long.
_LEAST_IDLE = 1.0


@dataclass(frozen=True)
class PollResult:
    """What one request for the jobs of a series brought: these, or an error.

    :param began: Monotonic time at which it began, in seconds.
    :param jobs: All jobs of the series.
    :param error: What it ended in instead.
    """

    began: float
    jobs: JobHistory | None = None
    error: Exception | None = None


@dataclass
class _LoopState:
    """What the waits in one event loop share."""

    connections: dict[str, SharedConnection] = field(default_factory=dict)
    polls: dict[tuple[str, int], SeriesPoll] = field(default_factory=dict)


_states: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = WeakKeyDictionary()


def _state() -> _LoopState:
    loop = asyncio.get_running_loop()
    state = _states.get(loop)
    if state is None:
        state = _states[loop] = _LoopState()
    return state


@asynccontextmanager
async def shared_connection(conn_id: str) -> AsyncIterator[SharedConnection]:
    """Borrow the open connection that all polls over one connection share; the last one closes it.

    :param conn_id: Airflow connection of type ``capillary``.
    """
    connections = _state().connections
    shared = connections.setdefault(conn_id, SharedConnection(conn_id))
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if shared.users == 0:
            del connections[conn_id]
            await shared.close()


class SeriesPoll:
    """Asks for the jobs of one series, again and again, for all who wait. Join it with :func:`subscribe`.

    :param conn_id: Airflow connection.
    :param coupon_series_id: The series.
    """

    def __init__(self, conn_id: str, coupon_series_id: int) -> None:
        self._conn_id = conn_id
        self._series_id = coupon_series_id
        self._waits: set[Subscription] = set()
        self._plan = PollPlan()
        self._joined = float("-inf")
        self._due_changed = asyncio.Event()
        self._result: PollResult | None = None
        self._jobs: JobHistory | None = None
        self._connection: AsyncConnection | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, subscription: Subscription) -> None:
        """Let another wait take part.

        :param subscription: The wait.
        """
        self._waits.add(subscription)
        now = time.monotonic()
        if self._task is None:
            self._plan.join(subscription.timer, now, spread=random.random())  # noqa: S311
            self._start()
        else:
            self._plan.join(subscription.timer, now)
            self._due_changed.set()
        # What was mended before this wait began must not reach it as an error.
        self._joined = now
        shared = _state().connections.get(self._conn_id)
        if shared is not None:
            shared.times.want(now)

    async def remove(self, subscription: Subscription) -> bool:
        """Let a wait go; the last one ends the poll.

        :param subscription: The wait.
        :return: Whether it was the last one.
        """
        self._waits.discard(subscription)
        if self._waits:
            return False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        return True

    def poll_within(self, seconds: float) -> None:
        """Have the next look no later than this.

        :param seconds: From now on.
        """
        self._plan.want(time.monotonic() + max(0.0, seconds))
        self._due_changed.set()

    def _start(self, *, after: float = 0.0) -> None:
        self._task = asyncio.create_task(self._run(after))
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Begin anew where the poll died of something unforeseen, and let no wait idle to its deadline."""
        if task is not self._task or not self._waits:
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        message = f"the poll of coupon series {self._series_id} broke off ({type(error).__name__})"
        # Without the text of the error, which may hold anything.
        log.error(
            "Begin anew, because %s:\n%s", message, "".join(traceback.format_tb(error.__traceback__ if error else None))
        )
        self._result = PollResult(time.monotonic(), error=CapillaryError(message, is_transient=True))
        self._plan.begin(self._result.began)
        for wait in self._waits:
            wait.offer(self._result, brings_change=False)
        self._plan.end(wait.timer for wait in self._waits)
        # Not at once, should it die of the same again.
        self._start(after=min(wait.timer.interval for wait in self._waits))

    async def _run(self, after: float) -> None:
        await asyncio.sleep(after)
        async with shared_connection(self._conn_id) as shared:
            shared.listeners.add(self._connection_changed)
            try:
                while self._waits:
                    await self._until_due(shared)
                    await self._publish(await self._ask(shared))
                    self._plan.end(wait.timer for wait in self._waits)
            finally:
                shared.listeners.discard(self._connection_changed)

    async def _ask(self, shared: SharedConnection) -> PollResult:
        began = time.monotonic()
        self._plan.begin(began)
        await shared.refresh(patiently=not shared.is_open)
        version = shared.version
        result = await self._request(shared, began)
        if result.error is None or not shared.is_open:
            return result
        # The connection may have been mended. If so, that counts, and not what came of the old one.
        is_lasting = not (isinstance(result.error, CapillaryError) and result.error.is_transient)
        if is_lasting:
            shared.reopen()
        shared.times.want(time.monotonic())
        await shared.refresh(patiently=is_lasting or not shared.times.is_since(self._joined))
        return result if shared.version == version else await self._request(shared, began)

    async def _request(self, shared: SharedConnection, began: float) -> PollResult:
        try:
            async with shared.request() as connection:
                if connection is not self._connection:
                    self._connection, self._jobs = connection, None
                self._jobs = await connection.get_redeem_upload_history(self._series_id, self._jobs)
        except Exception as error:  # noqa: BLE001 - each wait decides for itself what it means
            return PollResult(began, error=error)
        return PollResult(began, jobs=self._jobs)

    def _connection_changed(self) -> None:
        # While a poll is under way, the plan is without a due time, and the poll sees the change by itself.
        if self._plan.is_waiting and self._result is not None and self._result.error is not None:
            self.poll_within(0)

    async def _until_due(self, shared: SharedConnection) -> None:
        while (pause := self._plan.due - time.monotonic()) > 0:
            self._due_changed.clear()
            to_lookup = max(_LEAST_IDLE, shared.times.due_while_idle() - time.monotonic())
            try:
                async with asyncio.timeout(None if pause == to_lookup == float("inf") else min(pause, to_lookup)):
                    await self._due_changed.wait()
            except TimeoutError:
                if to_lookup < pause:
                    await shared.refresh(patiently=True)

    async def _publish(self, result: PollResult) -> None:
        # Of a thousand waits, a look that brings nothing new need not wake a single one.
        brings_change = result.jobs is not None and (self._result is None or result.jobs is not self._result.jobs)
        is_long = result.jobs is not None and len(result.jobs) > _LONG_HISTORY
        self._result = result
        for wait in list(self._waits):
            if wait.offer(result, brings_change=brings_change) and is_long:
                await asyncio.sleep(0)  # one after the other: each goes through all the jobs


@dataclass(eq=False)
class Subscription:
    """A wait that takes part in a poll.

    :param poll: The poll.
    :param timer: Its intervals, and which polls count as its own.
    :param receives_every_result: Whether it gets the result of each poll of its own; otherwise only what is new, and
        failures.
    """

    poll: SeriesPoll
    timer: PollTimer
    receives_every_result: bool = False
    _wants_next: bool = field(default=True, init=False)
    _offered: deque[PollResult] = field(default_factory=deque, init=False)
    _waiting: asyncio.Future[None] | None = field(default=None, init=False)

    def poll_now(self) -> None:
        """Have a look right now, and hear of it whatever it brings."""
        self._wants_next = True
        self.poll.poll_within(0)

    def offer(self, result: PollResult, *, brings_change: bool) -> bool:
        """Hand over what a look brought.

        :param result: The look.
        :param brings_change: Whether it brought anything that the one before did not.
        :return: Whether the wait has to hear of it.
        """
        is_own = self.timer.take(result.began, failed=result.jobs is None)
        if not (brings_change or self._wants_next or (is_own and (self.receives_every_result or result.jobs is None))):
            return False
        self._wants_next = False
        if result.jobs is not None:
            self._offered.clear()  # it is all that counts; a failure, however, must not hide what came before it
        self._offered.append(result)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        return True

    async def next_result(self) -> PollResult:
        """Wait for the next look that this wait has to hear of, and return what it brought. The first is one."""
        while not self._offered:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._offered.popleft()


@asynccontextmanager
async def subscribe(
    conn_id: str, coupon_series_id: int, timer: PollTimer, *, receives_every_result: bool = False
) -> AsyncIterator[Subscription]:
    """Take part in the poll of a series, which the first wait starts and the last one ends.

    :param conn_id: Airflow connection of type ``capillary``.
    :param coupon_series_id: The series.
    :param timer: The intervals, by the monotonic clock.
    :param receives_every_result: See :class:`Subscription`.
    """
    polls = _state().polls
    key = (conn_id, coupon_series_id)
    poll = polls.get(key)
    if poll is None:
        poll = polls[key] = SeriesPoll(conn_id, coupon_series_id)
    subscription = Subscription(poll, timer, receives_every_result)
    poll.add(subscription)
    try:
        yield subscription
    finally:
        if len(poll._waits) == 1 and polls.get(key) is poll:
            # Before the first await: whoever comes meanwhile begins a new one instead of joining the end of this.
            del polls[key]
        await poll.remove(subscription)


async def poll_series(
    conn_id: str, coupon_series_id: int, *, interval: float, log: Log
) -> AsyncGenerator[JobHistory, None]:
    """Take part in the poll of a series for good, and yield what each look brings. Ends only when it is closed.

    :param conn_id: Airflow connection of type ``capillary``.
    :param coupon_series_id: The series.
    :param interval: Seconds between two looks. It doubles with every one that fails, up to a quarter of an hour.
    :param log: Where failed looks are told.
    """
    timer = PollTimer(PollSchedule(interval), now=time.monotonic(), slows_down=True)
    failures = 0
    async with subscribe(conn_id, coupon_series_id, timer, receives_every_result=True) as subscription:
        while True:
            result = await subscription.next_result()
            if result.jobs is None:
                failures += 1
                log.warning(
                    "Look at the upload jobs of coupon series %s failed (%d in a row), the next within %.10g s: %s",
                    coupon_series_id,
                    failures,
                    timer.interval,
                    # Only what was written here is known to hold no secret.
                    result.error if isinstance(result.error, CapillaryError) else type(result.error).__name__,
                )
                continue
            if failures:
                log.info("Looks at the upload jobs of coupon series %s succeed again", coupon_series_id)
                failures = 0
            yield result.jobs
