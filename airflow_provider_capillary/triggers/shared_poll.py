# SPDX-License-Identifier: Apache-2.0
"""One poll for all waits on a series: however many triggers wait in this process, Capillary is asked once.

Everything in here belongs to one event loop and is used from it alone, so nothing needs a lock between threads.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from airflow_provider_capillary.api.jobs import JobHistory
    from airflow_provider_capillary.api.waiting import Log

#: Seconds between two looks at most, while they fail.
_LONGEST_PAUSE = 900.0
#: Jobs of a series from which on it takes noticeable time to look for one.
_LONG_HISTORY = 1000


@dataclass(frozen=True)
class Look:
    """What one request for the jobs of a series brought: these, or an error.

    :param at: Monotonic time at which it ended, in seconds.
    :param jobs: All jobs of the series.
    :param error: What it ended in instead.
    """

    at: float
    jobs: JobHistory | None = None
    error: Exception | None = None


@dataclass
class _LoopState:
    """What the waits in one event loop share."""

    hooks: dict[str, _SharedHook] = field(default_factory=dict)
    polls: dict[tuple[str, int], SeriesPoll] = field(default_factory=dict)


_states: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = WeakKeyDictionary()


def _state() -> _LoopState:
    loop = asyncio.get_running_loop()
    state = _states.get(loop)
    if state is None:
        state = _states[loop] = _LoopState()
    return state


@dataclass
class _SharedHook:
    users: int = 0
    hook: CapillaryAsyncHook | None = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


@asynccontextmanager
async def shared_hook(conn_id: str) -> AsyncIterator[CapillaryAsyncHook]:
    """Borrow the hook that all polls over one connection share: opened by the first, closed by the last.

    :param conn_id: Airflow connection of type ``capillary``.
    :raises CapillarySettingsError: A field of the connection cannot be used.
    """
    hooks = _state().hooks
    shared = hooks.setdefault(conn_id, _SharedHook())
    shared.users += 1
    try:
        async with shared.opening:
            if shared.hook is None:
                shared.hook = await CapillaryAsyncHook(conn_id).__aenter__()
        yield shared.hook
    finally:
        shared.users -= 1
        if shared.users == 0:
            del hooks[conn_id]
            if shared.hook is not None:
                await shared.hook.__aexit__(None, None, None)


class SeriesPoll:
    """Asks for the jobs of one series, again and again, for all who wait. Join it with :func:`join_poll`.

    :param conn_id: Airflow connection.
    :param coupon_series_id: The series.
    """

    def __init__(self, conn_id: str, coupon_series_id: int) -> None:
        self._conn_id = conn_id
        self._series_id = coupon_series_id
        self._waits: set[PollMembership] = set()
        self._due = float("inf")
        self._due_changed = asyncio.Event()
        self._look: Look | None = None
        self._jobs: JobHistory | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, membership: PollMembership) -> None:
        """Let another wait take part.

        :param membership: The wait.
        """
        self._waits.add(membership)
        if self._task is None:
            # Anywhere within the interval: polls that begin together, as after a restart, must not go in step.
            self.look_within(random.random() * membership.interval)  # noqa: S311
            self._task = asyncio.create_task(self._run())
        else:
            self.look_within(membership.interval)

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
        due = time.monotonic() + max(0.0, seconds)
        if due < self._due:
            self._due = due
            self._due_changed.set()

    async def _run(self) -> None:
        hook: CapillaryAsyncHook | None = None
        async with AsyncExitStack() as borrowed:
            while True:
                await self._until_due()
                began = time.monotonic()
                self._due = float("inf")
                try:
                    # Within the look, so that a connection that cannot be used is something the waits get to know.
                    if hook is None:
                        hook = await borrowed.enter_async_context(shared_hook(self._conn_id))
                        self._jobs = None
                    self._jobs = await hook.get_redeem_upload_history(self._series_id, self._jobs)
                    look = Look(time.monotonic(), jobs=self._jobs)
                except Exception as error:  # noqa: BLE001 - each wait decides for itself what it means
                    look = Look(time.monotonic(), error=error)
                    if not (isinstance(error, CapillaryError) and error.is_transient):
                        # The connection may be mended until the next look: read it anew then.
                        hook = None
                        await borrowed.aclose()
                await self._publish(look)
                if not self._waits:
                    return
                interval = min(wait.interval for wait in self._waits)
                self.look_within(began + interval - time.monotonic())

    async def _until_due(self) -> None:
        while (pause := self._due - time.monotonic()) > 0:
            self._due_changed.clear()
            try:
                async with asyncio.timeout(None if pause == float("inf") else pause):
                    await self._due_changed.wait()
            except TimeoutError:
                return

    async def _publish(self, look: Look) -> None:
        # Of a thousand waits, a look that brings nothing new need not wake a single one.
        is_news = self._look is None or look.jobs is None or look.jobs is not self._look.jobs
        is_long = look.jobs is not None and len(look.jobs) > _LONG_HISTORY
        self._look = look
        for wait in list(self._waits):
            if wait.offer(look, is_news=is_news) and is_long:
                await asyncio.sleep(0)  # one after the other: each goes through all the jobs


@dataclass(eq=False)
class PollMembership:
    """A wait that takes part in a poll.

    :param poll: The poll.
    :param interval: Seconds between two looks that this wait needs; it may change. The shortest of all counts.
    :param wants_all: Whether it wants to hear of every look, and not only of those that bring something new or fail.
    """

    poll: SeriesPoll
    interval: float
    wants_all: bool = False
    _wants_next: bool = field(default=True, init=False)
    _offered: Look | None = field(default=None, init=False)
    _waiting: asyncio.Future[None] | None = field(default=None, init=False)

    def look_now(self) -> None:
        """Have a look right now, and hear of it whatever it brings."""
        self._wants_next = True
        self.poll.look_within(0)

    def offer(self, look: Look, *, is_news: bool) -> bool:
        """Hand over what a look brought.

        :param look: The look.
        :param is_news: Whether it brought anything that the one before did not, or failed.
        :return: Whether the wait has to hear of it.
        """
        if not (is_news or self.wants_all or self._wants_next):
            return False
        self._wants_next = False
        self._offered = look
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        return True

    async def next_look(self) -> Look:
        """Wait for the next look that this wait has to hear of, and return what it brought. The first is one."""
        if self._offered is None:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        look, self._offered = self._offered, None
        assert look is not None
        return look


@asynccontextmanager
async def join_poll(
    conn_id: str, coupon_series_id: int, *, interval: float, wants_all: bool = False
) -> AsyncIterator[PollMembership]:
    """Take part in the poll of a series, which the first wait starts and the last one ends.

    :param conn_id: Airflow connection of type ``capillary``.
    :param coupon_series_id: The series.
    :param interval: Seconds between two looks.
    :param wants_all: See :class:`PollMembership`.
    """
    polls = _state().polls
    key = (conn_id, coupon_series_id)
    poll = polls.get(key)
    if poll is None:
        poll = polls[key] = SeriesPoll(conn_id, coupon_series_id)
    membership = PollMembership(poll, interval, wants_all)
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
    failures = 0
    async with join_poll(conn_id, coupon_series_id, interval=interval, wants_all=True) as membership:
        while True:
            look = await membership.next_look()
            if look.jobs is None:
                failures += 1
                membership.interval = max(interval, min(interval * 2.0 ** min(failures, 16), _LONGEST_PAUSE))
                log.warning(
                    "Look at the upload jobs of coupon series %s failed (%d in a row), the next within %.10g s: %s",
                    coupon_series_id,
                    failures,
                    membership.interval,
                    # Only what was written here is known to hold no secret.
                    look.error if isinstance(look.error, CapillaryError) else type(look.error).__name__,
                )
                continue
            if failures:
                log.info("Looks at the upload jobs of coupon series %s succeed again", coupon_series_id)
                failures, membership.interval = 0, interval
                membership.poll.look_within(interval)
            yield look.jobs
