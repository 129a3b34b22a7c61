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

from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.timing import PollPlan, PollSchedule, PollTimer
from airflow_provider_capillary.triggers.shared_hook import SharedHook

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from airflow_provider_capillary.api.jobs import JobHistory
    from airflow_provider_capillary.api.waiting import Log
    from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook

log = logging.getLogger(__name__)

#: Jobs of a series from which on it takes noticeable time to look for one.
_LONG_HISTORY = 1000
#: Seconds between two attempts to read a connection while nobody is polled: a look-up may be overdue for long.
_LEAST_IDLE = 1.0


@dataclass(frozen=True)
class Look:
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

    hooks: dict[str, SharedHook] = field(default_factory=dict)
    polls: dict[tuple[str, int], SeriesPoll] = field(default_factory=dict)


_states: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = WeakKeyDictionary()


def _state() -> _LoopState:
    loop = asyncio.get_running_loop()
    state = _states.get(loop)
    if state is None:
        state = _states[loop] = _LoopState()
    return state


@asynccontextmanager
async def shared_hook(conn_id: str) -> AsyncIterator[SharedHook]:
    """Borrow the hook that all polls over one connection share; the last one closes it.

    :param conn_id: Airflow connection of type ``capillary``.
    """
    hooks = _state().hooks
    shared = hooks.setdefault(conn_id, SharedHook(conn_id))
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if shared.users == 0:
            del hooks[conn_id]
            await shared.close()


class SeriesPoll:
    """Asks for the jobs of one series, again and again, for all who wait. Join it with :func:`join_poll`.

    :param conn_id: Airflow connection.
    :param coupon_series_id: The series.
    """

    def __init__(self, conn_id: str, coupon_series_id: int) -> None:
        self._conn_id = conn_id
        self._series_id = coupon_series_id
        self._waits: set[PollMembership] = set()
        self._plan = PollPlan()
        self._joined = float("-inf")
        self._due_changed = asyncio.Event()
        self._look: Look | None = None
        self._jobs: JobHistory | None = None
        self._hook: CapillaryAsyncHook | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, membership: PollMembership) -> None:
        """Let another wait take part.

        :param membership: The wait.
        """
        self._waits.add(membership)
        now = time.monotonic()
        if self._task is None:
            self._plan.join(membership.timer, now, spread=random.random())  # noqa: S311
            self._start()
        else:
            self._plan.join(membership.timer, now)
            self._due_changed.set()
        # What was mended before this wait began must not reach it as an error.
        self._joined = now
        hook = _state().hooks.get(self._conn_id)
        if hook is not None:
            hook.times.want(now)

    async def remove(self, membership: PollMembership) -> bool:
        """Let a wait go; the last one ends the poll.

        :param membership: The wait.
        :return: Whether it was the last one.
        """
        self._waits.discard(membership)
        if self._waits:
            return False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        return True

    def look_within(self, seconds: float) -> None:
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
        self._look = Look(time.monotonic(), error=CapillaryError(message, is_transient=True))
        self._plan.begin(self._look.began)
        for wait in self._waits:
            wait.offer(self._look, is_news=False)
        self._plan.end(wait.timer for wait in self._waits)
        # Not at once, should it die of the same again.
        self._start(after=min(wait.timer.interval for wait in self._waits))

    async def _run(self, after: float) -> None:
        await asyncio.sleep(after)
        async with shared_hook(self._conn_id) as shared:
            shared.listeners.add(self._connection_changed)
            try:
                while self._waits:
                    await self._until_due(shared)
                    await self._publish(await self._ask(shared))
                    self._plan.end(wait.timer for wait in self._waits)
            finally:
                shared.listeners.discard(self._connection_changed)

    async def _ask(self, shared: SharedHook) -> Look:
        began = time.monotonic()
        self._plan.begin(began)
        await shared.refresh(patiently=not shared.is_open)
        version = shared.version
        look = await self._request(shared, began)
        if look.error is None or not shared.is_open:
            return look
        # The connection may have been mended. If so, that counts, and not what came of the old one.
        is_lasting = not (isinstance(look.error, CapillaryError) and look.error.is_transient)
        if is_lasting:
            shared.reopen()
        shared.times.want(time.monotonic())
        await shared.refresh(patiently=is_lasting or not shared.times.is_since(self._joined))
        return look if shared.version == version else await self._request(shared, began)

    async def _request(self, shared: SharedHook, began: float) -> Look:
        try:
            async with shared.request() as hook:
                if hook is not self._hook:
                    self._hook, self._jobs = hook, None
                self._jobs = await hook.get_redeem_upload_history(self._series_id, self._jobs)
        except Exception as error:  # noqa: BLE001 - each wait decides for itself what it means
            return Look(began, error=error)
        return Look(began, jobs=self._jobs)

    def _connection_changed(self) -> None:
        # While a poll is under way, the plan is without a due time, and the poll sees the change by itself.
        if self._plan.is_waiting and self._look is not None and self._look.error is not None:
            self.look_within(0)

    async def _until_due(self, shared: SharedHook) -> None:
        while (pause := self._plan.due - time.monotonic()) > 0:
            self._due_changed.clear()
            to_lookup = max(_LEAST_IDLE, shared.times.due_while_idle() - time.monotonic())
            try:
                async with asyncio.timeout(None if pause == to_lookup == float("inf") else min(pause, to_lookup)):
                    await self._due_changed.wait()
            except TimeoutError:
                if to_lookup < pause:
                    await shared.refresh(patiently=True)

    async def _publish(self, look: Look) -> None:
        # Of a thousand waits, a look that brings nothing new need not wake a single one.
        is_news = look.jobs is not None and (self._look is None or look.jobs is not self._look.jobs)
        is_long = look.jobs is not None and len(look.jobs) > _LONG_HISTORY
        self._look = look
        for wait in list(self._waits):
            if wait.offer(look, is_news=is_news) and is_long:
                await asyncio.sleep(0)  # one after the other: each goes through all the jobs


@dataclass(eq=False)
class PollMembership:
    """A wait that takes part in a poll.

    :param poll: The poll.
    :param timer: Its intervals, and which polls count as its own.
    :param wants_all: Whether it gets every poll of its own, and not only those that bring something new or fail.
    """

    poll: SeriesPoll
    timer: PollTimer
    wants_all: bool = False
    _wants_next: bool = field(default=True, init=False)
    _offered: deque[Look] = field(default_factory=deque, init=False)
    _waiting: asyncio.Future[None] | None = field(default=None, init=False)

    def look_now(self) -> None:
        """Have a look right now, and hear of it whatever it brings."""
        self._wants_next = True
        self.poll.look_within(0)

    def offer(self, look: Look, *, is_news: bool) -> bool:
        """Hand over what a look brought.

        :param look: The look.
        :param is_news: Whether it brought anything that the one before did not.
        :return: Whether the wait has to hear of it.
        """
        is_own = self.timer.take(look.began, failed=look.jobs is None)
        if not (is_news or self._wants_next or (is_own and (self.wants_all or look.jobs is None))):
            return False
        self._wants_next = False
        if look.jobs is not None:
            self._offered.clear()  # it is all that counts; a failure, however, must not hide what came before it
        self._offered.append(look)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        return True

    async def next_look(self) -> Look:
        """Wait for the next look that this wait has to hear of, and return what it brought. The first is one."""
        while not self._offered:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._offered.popleft()


@asynccontextmanager
async def join_poll(
    conn_id: str, coupon_series_id: int, timer: PollTimer, *, wants_all: bool = False
) -> AsyncIterator[PollMembership]:
    """Take part in the poll of a series, which the first wait starts and the last one ends.

    :param conn_id: Airflow connection of type ``capillary``.
    :param coupon_series_id: The series.
    :param timer: The intervals, by the monotonic clock.
    :param wants_all: See :class:`PollMembership`.
    """
    polls = _state().polls
    key = (conn_id, coupon_series_id)
    poll = polls.get(key)
    if poll is None:
        poll = polls[key] = SeriesPoll(conn_id, coupon_series_id)
    membership = PollMembership(poll, timer, wants_all)
    poll.add(membership)
    try:
        yield membership
    finally:
        if len(poll._waits) == 1 and polls.get(key) is poll:
            # Before the first await: whoever comes meanwhile begins a new one instead of joining the end of this.
            del polls[key]
        await poll.remove(membership)


async def follow_series(
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
    async with join_poll(conn_id, coupon_series_id, timer, wants_all=True) as membership:
        while True:
            look = await membership.next_look()
            if look.jobs is None:
                failures += 1
                log.warning(
                    "Look at the upload jobs of coupon series %s failed (%d in a row), the next within %.10g s: %s",
                    coupon_series_id,
                    failures,
                    timer.interval,
                    # Only what was written here is known to hold no secret.
                    look.error if isinstance(look.error, CapillaryError) else type(look.error).__name__,
                )
                continue
            if failures:
                log.info("Looks at the upload jobs of coupon series %s succeed again", coupon_series_id)
                failures = 0
            yield look.jobs
