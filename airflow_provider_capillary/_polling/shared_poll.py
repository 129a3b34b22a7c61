# SPDX-License-Identifier: Apache-2.0
"""One poll of a series and kind of upload for all triggers in this process that wait for its jobs.

Each object belongs to one event loop and is used only from it, so nothing needs a lock between threads.
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

from airflow_provider_capillary import _metrics
from airflow_provider_capillary._polling.shared_connection import SharedConnection
from airflow_provider_capillary.api.auth_messages import possibly_outdated
from airflow_provider_capillary.api.errors import CapillaryAccessError, CapillaryAuthError, CapillaryError
from airflow_provider_capillary.api.log_lines import write_lines
from airflow_provider_capillary.api.timing import EvenSpread, PollPlan, PollSchedule, PollTimer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from airflow_provider_capillary._transport.async_connection import AsyncConnection
    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.upload_kinds import UploadKind
    from airflow_provider_capillary.api.wait_log import Log

log = logging.getLogger(__name__)

#: More jobs than this in a series, and searching them takes a noticeable time.
_LONG_HISTORY = 1000
#: So often one poll is repeated because the Airflow connection changed meanwhile. A backend that returns other
#: credentials at each read must not make it endless.
_MOST_REPEATS = 2
#: Seconds between two attempts to read a connection while no poll is due: a lookup may be overdue for long.
_LEAST_IDLE = 1.0


@dataclass(frozen=True)
class PollResult:
    """The result of one request for the jobs of a series: the jobs, or an error.

    :param began: Monotonic time at which the poll began, in seconds.
    :param jobs: All jobs of the series.
    :param error: The error of a failed poll, which has no jobs.
    """

    began: float
    jobs: JobHistory | None = None
    error: Exception | None = None


@dataclass
class _LoopState:
    """The connections and polls of one event loop, shared by its waits."""

    connections: dict[str, SharedConnection] = field(default_factory=dict)
    polls: dict[tuple[str, UploadKind, int], SeriesPoll] = field(default_factory=dict)
    spread: EvenSpread = field(default_factory=lambda: EvenSpread(random.random()))  # noqa: S311 - protects nothing


_loop_states: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = WeakKeyDictionary()


def _loop_state() -> _LoopState:
    loop = asyncio.get_running_loop()
    state = _loop_states.get(loop)
    if state is None:
        state = _loop_states[loop] = _LoopState()
    return state


@asynccontextmanager
async def shared_connection(conn_id: str) -> AsyncIterator[SharedConnection]:
    """Lend the open connection that all polls over one Airflow connection share; the last user closes it.

    :param conn_id: Airflow connection of type ``capillary``.
    """
    connections = _loop_state().connections
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
    """Polls the uploads of one series for all its subscriptions. Use :func:`subscribe` to take part.

    :param conn_id: Airflow connection.
    :param kind: The kind of upload.
    :param coupon_series_id: The series.
    """

    def __init__(self, conn_id: str, kind: UploadKind, coupon_series_id: int) -> None:
        self._conn_id = conn_id
        self._kind = kind
        self._series_id = coupon_series_id
        self._subscriptions: set[Subscription] = set()
        self._plan = PollPlan()
        self._last_added_at = float("-inf")
        self._due_changed = asyncio.Event()
        self._result: PollResult | None = None
        self._jobs: JobHistory | None = None
        self._connection: AsyncConnection | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, subscription: Subscription) -> None:
        """Add a subscription; the first one starts the poll.

        :param subscription: The subscription of a wait or watch.
        """
        self._subscriptions.add(subscription)
        now = time.monotonic()
        if self._task is None:
            self._plan.join(subscription.timer, now, spread=_loop_state().spread.take())
            self._start()
        else:
            self._plan.join(subscription.timer, now)
            self._due_changed.set()
        # A connection corrected before this wait began must not cause an error in it: have it read again.
        self._last_added_at = now
        shared = _loop_state().connections.get(self._conn_id)
        if shared is not None:
            shared.times.want(now)

    async def remove(self, subscription: Subscription) -> bool:
        """Remove a subscription; the last one ends the poll.

        :param subscription: The subscription of a wait or watch.
        :return: Whether it was the last one.
        """
        self._subscriptions.discard(subscription)
        if self._subscriptions:
            return False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        return True

    def poll_within(self, seconds: float) -> None:
        """Make the next poll due.

        :param seconds: Begin it within this time.
        """
        self._plan.want(time.monotonic() + max(0.0, seconds))
        self._due_changed.set()

    def _start(self, *, after: float = 0.0) -> None:
        self._task = asyncio.create_task(self._run(after))
        self._task.add_done_callback(self._restart_after_crash)

    def _restart_after_crash(self, task: asyncio.Task[None]) -> None:
        """Restart the poll where an unexpected error ended it: otherwise its waits would idle until their deadline."""
        if task is not self._task or not self._subscriptions:
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        message = (
            f"the poll of the {self._kind.title}s of coupon series {self._series_id} broke off ({type(error).__name__})"
        )
        # Without the text of the error, which may contain secrets.
        log.error(
            "Restarting, because %s:\n%s", message, "".join(traceback.format_tb(error.__traceback__ if error else None))
        )
        self._result = PollResult(time.monotonic(), error=CapillaryError(message, is_transient=True))
        self._plan.begin(self._result.began)
        for subscription in self._subscriptions:
            subscription.deliver(self._result, jobs_changed=False)
        self._plan.end(self._intervals())
        # With a pause, because the same error may end it again.
        self._start(after=min(self._intervals()))

    def _intervals(self) -> list[float]:
        return [subscription.timer.interval for subscription in self._subscriptions]

    async def _run(self, after: float) -> None:
        await asyncio.sleep(after)
        async with shared_connection(self._conn_id) as shared:
            shared.listeners.add(self._connection_changed)
            try:
                while self._subscriptions:
                    await self._until_due(shared)
                    result = await self._ask(shared)
                    _metrics.count_poll(self._conn_id, self._kind, result.error)
                    await self._publish(result)
                    self._plan.end(self._intervals())
            finally:
                shared.listeners.discard(self._connection_changed)

    async def _ask(self, shared: SharedConnection) -> PollResult:
        began = time.monotonic()
        self._plan.begin(began)
        await shared.refresh(patiently=not shared.is_open)
        for _ in range(_MOST_REPEATS):
            version = shared.version
            result = await self._request(shared, began)
            if result.error is None or not shared.is_open:
                return result
            # The Airflow connection may have been corrected. If so, discard the error of the old one and ask again.
            error = await self._read_again_after(result.error, shared)
            if shared.version == version:
                return PollResult(began, error=error)
        return await self._request(shared, began)

    async def _read_again_after(self, error: Exception, shared: SharedConnection) -> Exception:
        """Read the Airflow connection again after a failed poll. Return the error to deliver if it did not change."""
        if isinstance(error, CapillaryError) and error.is_transient:
            shared.times.want(time.monotonic())
            await shared.refresh(patiently=not shared.times.is_since(self._last_added_at))
            return error
        shared.reopen()
        unreadable = await shared.reread()
        if unreadable is not None and isinstance(error, CapillaryAuthError | CapillaryAccessError):
            return possibly_outdated(error, unreadable)
        return error

    async def _request(self, shared: SharedConnection, began: float) -> PollResult:
        try:
            async with shared.request() as connection:
                if connection is not self._connection:
                    self._connection, self._jobs = connection, None
                flow = connection.client.get_upload_history(self._kind, self._series_id, self._jobs)
                self._jobs = await connection.run(flow)
        except Exception as error:  # noqa: BLE001 - each wait decides what the error means for it
            return PollResult(began, error=error)
        return PollResult(began, jobs=self._jobs)

    def _connection_changed(self) -> None:
        # Only between polls: one that is under way finds the new connection itself.
        if self._plan.is_waiting and self._result is not None and self._result.error is not None:
            self.poll_within(0)

    async def _until_due(self, shared: SharedConnection) -> None:
        while (pause := self._plan.due - time.monotonic()) > 0:
            self._due_changed.clear()
            seconds_to_lookup = max(_LEAST_IDLE, shared.times.due_while_idle() - time.monotonic())
            try:
                async with asyncio.timeout(
                    None if pause == seconds_to_lookup == float("inf") else min(pause, seconds_to_lookup)
                ):
                    await self._due_changed.wait()
            except TimeoutError:
                if seconds_to_lookup < pause:
                    await shared.refresh(patiently=True)

    async def _publish(self, result: PollResult) -> None:
        # Unchanged jobs need not wake any of a thousand waits.
        jobs_changed = result.jobs is not None and (self._result is None or result.jobs is not self._result.jobs)
        is_long = result.jobs is not None and len(result.jobs) > _LONG_HISTORY
        self._result = result
        for subscription in list(self._subscriptions):
            if subscription.deliver(result, jobs_changed=jobs_changed) and is_long:
                await asyncio.sleep(0)  # each wait searches all the jobs: let other tasks run in between


@dataclass(eq=False)
class Subscription:
    """The part of one wait or watch in a shared poll.

    :param poll: The poll.
    :param timer: The intervals of the wait, which also decide which polls count as its own.
    :param receives_every_result: Whether the wait receives the result of each of its own polls; otherwise only changed
        jobs, and failures of its own polls.
    """

    poll: SeriesPoll
    timer: PollTimer
    receives_every_result: bool = False
    _is_next_requested: bool = field(default=True, init=False)
    _undelivered: deque[PollResult] = field(default_factory=deque, init=False)
    _waiting: asyncio.Future[None] | None = field(default=None, init=False)

    def poll_now(self) -> None:
        """Poll at once, and receive the next result in any case."""
        self._is_next_requested = True
        self.poll.poll_within(0)

    def deliver(self, result: PollResult, *, jobs_changed: bool) -> bool:
        """Deliver the result of a poll where this wait needs it.

        :param result: The result.
        :param jobs_changed: Whether its jobs differ from those of the previous poll.
        :return: Whether the wait receives it.
        """
        is_own = self.timer.take(result.began, failed=result.jobs is None)
        if not (
            jobs_changed or self._is_next_requested or (is_own and (self.receives_every_result or result.jobs is None))
        ):
            return False
        self._is_next_requested = False
        if result.jobs is not None:
            self._undelivered.clear()  # the newest jobs replace all before; a failure must not
        self._undelivered.append(result)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        return True

    async def next_result(self) -> PollResult:
        """Return the next result that this wait receives. The first one after it subscribed is always received."""
        while not self._undelivered:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._undelivered.popleft()


@asynccontextmanager
async def subscribe(
    conn_id: str, kind: UploadKind, coupon_series_id: int, timer: PollTimer, *, receives_every_result: bool = False
) -> AsyncIterator[Subscription]:
    """Take part in the poll of a series. The first subscription starts it, the last one ends it.

    :param conn_id: Airflow connection of type ``capillary``.
    :param kind: The kind of upload. Both kinds of the same series are two polls.
    :param coupon_series_id: The series.
    :param timer: The intervals, by the monotonic clock.
    :param receives_every_result: See :class:`Subscription`.
    """
    await _metrics.prepare()
    polls = _loop_state().polls
    key = (conn_id, kind, coupon_series_id)
    poll = polls.get(key)
    if poll is None:
        poll = polls[key] = SeriesPoll(conn_id, kind, coupon_series_id)
    subscription = Subscription(poll, timer, receives_every_result)
    poll.add(subscription)
    try:
        yield subscription
    finally:
        if len(poll._subscriptions) == 1 and polls.get(key) is poll:
            # Before the first await: a wait that comes meanwhile starts a new poll instead of joining one that ends.
            del polls[key]
        await poll.remove(subscription)


async def poll_series(
    conn_id: str, kind: UploadKind, coupon_series_id: int, *, interval: float, log: Log
) -> AsyncGenerator[JobHistory, None]:
    """Take part in the poll of a series, and yield the jobs of each successful poll. Ends only when it is closed.

    :param conn_id: Airflow connection of type ``capillary``.
    :param kind: The kind of upload.
    :param coupon_series_id: The series.
    :param interval: Seconds between two polls. It doubles with every failed poll, up to 15 minutes.
    :param log: Where failed polls are logged.
    """
    timer = PollTimer(PollSchedule(interval), now=time.monotonic(), slows_down=True)
    failures = 0
    async with subscribe(conn_id, kind, coupon_series_id, timer, receives_every_result=True) as subscription:
        while True:
            result = await subscription.next_result()
            if result.jobs is None:
                failures += 1
                # The text of other errors may contain secrets.
                error = result.error if isinstance(result.error, CapillaryError) else type(result.error).__name__
                write_lines(
                    log.warning,
                    f"Poll of the {kind.title}s of coupon series {coupon_series_id} failed ({failures} in a row), "
                    f"the next within {timer.interval:.10g} s: {error}",
                )
                continue
            if failures:
                log.info("Polls of the %ss of coupon series %s succeed again", kind.title, coupon_series_id)
                failures = 0
            yield result.jobs
