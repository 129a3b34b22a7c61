# SPDX-License-Identifier: Apache-2.0
"""When a wait or a watch is polled, which polls count for it, and when it ends.

All times are seconds as floats from the clock of the caller. Those of :class:`Deadline` are epoch seconds, because a
deadline survives a restart; all others are monotonic.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The trigger ends on time by itself. Airflow's own deadline, which only says "Trigger timeout", is for the case that
#: no triggerer is there to do so, and its checks are up to 15 s apart.
BACKSTOP_SECONDS = 300.0
#: What is left of that for the event to reach the database before Airflow gives the task up.
_EVENT_SECONDS = 20.0
#: What the last poll gets in any case, should Airflow's own deadline be over as well.
_LAST_POLL_SECONDS = 60.0
#: Most seconds between two polls of a watch, while they fail.
_LONGEST_PAUSE = 900.0
#: Taken for an interval of 0, which would poll as fast as the request limit allows and use it up for everybody else.
_LEAST_INTERVAL = 1.0
_LONGEST_INTERVAL = 86_399_999_999_999.0  # what Airflow caps a backoff at, about timedelta.max
#: A new wait is polled within this time, however long its interval: its job may have finished already.
_FIRST_POLL_SECONDS = 10.0
#: A wait that has lasted longer than this and its interval has been polled before, in another process.
_NEW_SECONDS = 60.0
#: The part of an interval by which a poll may come early: sums of floats differ by their order.
_TOLERANCE = 0.01
#: Polls of several series begin together, in slots: so many seconds apart at most, and at least so many an interval.
_SLOT_SECONDS = 5.0
_LEAST_SLOTS = 5
#: Multiples of it, taken as parts of an interval, are evenly distributed however many there are.
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
#: A connection in use is read again after this many seconds.
_MOST_AGE = 300.0
#: So many lookups of a connection may follow one at once, and then one comes in each of these seconds.
_LOOKUP_BURST = 2
_LOOKUP_GAP = 1.0
#: Airflow gives the triggers of a triggerer to another one after 30 seconds without a heartbeat, unless configured
#: otherwise; the last heartbeat may be some seconds old when the process freezes.
_FREEZE_SECONDS = 15.0


@dataclass(frozen=True)
class PollSchedule:
    """The seconds between two polls of a wait, as Airflow's sensors have them in poke and reschedule mode.

    :param interval: ``poke_interval``.
    :param exponential_backoff: Whether the interval doubles from poll to poll, with the jitter of Airflow's sensors.
    :param max_wait: Upper bound in seconds. As in Airflow it bounds a backoff only, and 0 is none.
    :param seed: What the jitter is computed from. A restarted triggerer with the same seed keeps the schedule.
    """

    interval: float
    exponential_backoff: bool = False
    max_wait: float | None = None
    seed: str = ""

    def after(self, elapsed: float) -> float:
        """Return the seconds to the next poll.

        :param elapsed: Seconds since the wait began. What Airflow's reschedule mode goes by, too: a count of polls
            would begin again with the triggerer, and would grow by the polls of others.
        """
        if not self.exponential_backoff or self.interval <= 0:
            return self.interval if self.interval > 0 else _LEAST_INTERVAL
        number, passed, step = 1, 0.0, self._step(1)
        while passed + step <= elapsed:
            passed += step
            number += 1
            step = self._step(number)
        return min(step, self.max_wait) if self.max_wait else step

    def _step(self, number: int) -> float:
        # BaseSensorOperator._get_next_poke_interval: doubling, never below a second, and up to twice that by jitter.
        least = max(int(self.interval * 2.0 ** min(number - 2, 64)), 1)
        digest = hashlib.sha1(f"{self.seed}#{number}".encode(), usedforsecurity=False).hexdigest()
        return float(min(least + int(digest, 16) % least, _LONGEST_INTERVAL))


def end_of_wait(now: float, *, timeout: float, backstop: float | None, execution_seconds: float | None) -> float:
    """Return the end of a wait for which no worker has set one, in epoch seconds.

    :param now: Epoch seconds.
    :param timeout: The sensor's timeout in seconds.
    :param backstop: When Airflow itself ends the wait, in epoch seconds. It is kept across restarts.
    :param execution_seconds: Seconds from the start of the task to that moment.
    """
    began = now if backstop is None or execution_seconds is None else backstop - execution_seconds
    return began + timeout


@dataclass(frozen=True)
class Deadline:
    """When a wait ends, in epoch seconds. Absolute, so that it does not begin again with the triggerer.

    :param at: The end of the wait. A poll that ends later is the last one.
    :param last_poll_until: How long that last poll may take. The queue of the request limit is part of it.
    """

    at: float
    last_poll_until: float

    @classmethod
    def of(cls, at: float, *, now: float, backstop: float | None) -> Deadline:
        """Return the deadline of a wait.

        :param at: The end of the wait.
        :param now: Epoch seconds.
        :param backstop: When Airflow itself ends the wait, in epoch seconds, where that is known.
        """
        until = (at + BACKSTOP_SECONDS if backstop is None else backstop) - _EVENT_SECONDS
        return cls(at, max(until, max(now, at) + _LAST_POLL_SECONDS))

    def seconds_left(self, now: float) -> float:
        """Return the seconds until the wait ends, never below 0.

        :param now: Epoch seconds.
        """
        return max(0.0, self.at - now)

    def seconds_left_for_last_poll(self, now: float) -> float:
        """Return the seconds that the last poll may still take, never below 0.

        :param now: Epoch seconds.
        """
        return max(0.0, self.last_poll_until - now)


class PollTimer:
    """The polls of one wait or watch, however many others share them.

    A poll counts as its own when its own interval has passed. Only those use up a budget of failures, make a backoff
    go on, or slow a watch down.

    :param schedule: The intervals.
    :param now: The time.
    :param elapsed: Seconds that the wait has lasted already, in another process.
    :param slows_down: Whether failed polls of its own double the interval, up to a quarter of an hour, until one
        succeeds: for a watch, which no failure ends.
    :param begins_soon: Whether a new wait is polled before its first interval has passed.
    """

    def __init__(
        self,
        schedule: PollSchedule,
        *,
        now: float,
        elapsed: float = 0.0,
        slows_down: bool = False,
        begins_soon: bool = False,
    ) -> None:
        self._schedule = schedule
        self._began = now - elapsed
        self._slows_down = slows_down
        self._is_steady = not slows_down and not schedule.exponential_backoff
        self._own_due = float("-inf")
        self.failures = 0
        self.interval = schedule.after(elapsed)
        #: Whether the wait has just begun, as far as its age shows, and does not go on after a restart.
        self.is_new = elapsed < max(self.interval, _NEW_SECONDS)
        #: Seconds within which the first poll is due.
        self.first_within = self.interval
        if begins_soon and self.is_new:
            self.first_within = min(self.interval, _FIRST_POLL_SECONDS)

    def take(self, began: float, *, failed: bool) -> bool:
        """Take note of a poll.

        :param began: When it began.
        :param failed: Whether it failed.
        :return: Whether it was one of its own.
        """
        is_own = began >= self._own_due - _TOLERANCE * self.interval
        if failed:
            self.failures += is_own
        elif self.failures:
            if self._slows_down:
                # Back to the interval at once, whoever's poll it was: the pause was for an outage that is over.
                is_own, self._own_due = True, began
            self.failures = 0
        if is_own:
            if not self._is_steady:
                self.interval = self._next_interval(began)
            # On a grid, because polls come when the shortest interval wants them: counted from each poll on, an
            # interval of 0.7 s beside one of 0.5 s would become 1 s. What was missed is not made up for.
            base = began if self._own_due == float("-inf") else self._own_due
            self._own_due = base + self.interval * max(1, (began - base) // self.interval + 1)
        return is_own

    def _next_interval(self, began: float) -> float:
        interval = self._schedule.after(began - self._began)
        if self._slows_down:
            return max(interval, min(interval * 2.0 ** min(self.failures, 16), _LONGEST_PAUSE))
        return interval


class EvenSpread:
    """Where in their interval the first polls of several series are: evenly, however many series there are.

    By chance, some slot would get twice as many polls as the others, and its polls would wait for each other.

    :param first: Where the first one is, from 0.0 to 1.0; by chance, because triggerers do not know of each other.
    """

    def __init__(self, first: float) -> None:
        self._next = first

    def take(self) -> float:
        """Return the part of the interval for the next series, from 0.0 to 1.0."""
        taken, self._next = self._next, (self._next + _GOLDEN_RATIO) % 1.0
        return taken


def slot_seconds(interval: float) -> float:
    """Return the seconds between two slots, which polls with the same interval have in common.

    A poll right after another one takes half of the CPU that it takes a moment later, when other code has filled the
    caches of the processor. Whole slots fit into an interval, so that a poll stays in its slot.

    :param interval: Seconds between two polls.
    """
    return interval / max(_LEAST_SLOTS, math.ceil(interval / _SLOT_SECONDS))


def _last_slot(by: float, slot: float) -> float:
    # 2.0 / 0.2 is a little less than 10.
    return math.floor(by / slot + 1e-6) * slot


class PollPlan:
    """When the poll that many share is due: in the slots of the shortest interval among them."""

    def __init__(self) -> None:
        self.due = float("inf")
        #: Whether no poll is under way.
        self.is_waiting = True
        self._began = float("-inf")
        self._spread_due = float("-inf")

    def join(self, timer: PollTimer, now: float, *, spread: float | None = None) -> None:
        """Let another timer take part; it gets a poll within its interval, or sooner where it is new.

        :param timer: The timer.
        :param now: The time.
        :param spread: For the first one: where in its interval the first poll is, from 0.0 to 1.0. Polls that begin
            together, as after a restart, must not all go in one slot.
        """
        first_at = now + (1.0 if spread is None else spread) * timer.first_within
        self.want(_last_slot(first_at, slot_seconds(timer.first_within)))
        if spread is not None and timer.first_within < timer.interval:
            # Early first polls of many series are close together: the second ones are spread over the interval.
            self._spread_due = _last_slot(now + spread * timer.interval, slot_seconds(timer.interval))

    def want(self, at: float) -> None:
        """Have a poll no later than this.

        :param at: The time.
        """
        self.due = min(self.due, at)

    def begin(self, now: float) -> None:
        """Take note that the poll which is due begins.

        :param now: The time.
        """
        self._began, self.due, self.is_waiting = now, float("inf"), False

    def end(self, intervals: Iterable[float]) -> None:
        """Plan the next poll, once the timers have taken note of this one.

        :param intervals: Those of the timers of all who take part.
        """
        self.is_waiting = True
        interval = min(intervals, default=float("inf"))
        if interval < float("inf"):
            slot = slot_seconds(interval)
            # A poll that began a little late in its slot stays there. One that was wanted in between goes to the next.
            early = min(_TOLERANCE * interval, slot / 2)
            self.want(_last_slot(self._began + interval - early + slot, slot))
        if self._spread_due > self._began:
            self.want(self._spread_due)
        self._spread_due = float("-inf")


class LookupTimes:
    """When to read an Airflow connection in use again: when a wait joins, after a failed poll, and every five minutes.

    A lookup is a round trip to Airflow's supervisor. Many waits share one, and after the first few there is at most one
    a second.
    """

    def __init__(self) -> None:
        self._wanted = float("-inf")
        self._began: float | None = None
        self._budget_at = float("-inf")

    def want(self, now: float) -> None:
        """Ask for a lookup that begins later than this.

        :param now: The time.
        """
        self._wanted = max(self._wanted, now)

    def begin(self, now: float) -> None:
        """Take note that a lookup begins.

        :param now: The time.
        """
        self._began = now
        self._budget_at = max(self._budget_at, now) + _LOOKUP_GAP

    @property
    def is_wanted(self) -> bool:
        """Whether a lookup was requested and has not begun yet."""
        return self._began is None or self._wanted > self._began

    def is_since(self, moment: float) -> bool:
        """Whether the last lookup began no earlier than this.

        :param moment: The time.
        """
        return self._began is not None and self._began >= moment

    def due(self) -> float:
        """Return from when on a poll reads the connection first."""
        if self._began is None:
            return float("-inf")
        due = self._wanted if self.is_wanted else self._began + _MOST_AGE
        return max(due, self._budget_at - _LOOKUP_BURST * _LOOKUP_GAP)

    def due_while_idle(self) -> float:
        """Return when the connection is read although nobody is polled: no earlier than it is polled at all."""
        return float("inf") if self._began is None else self._began + _MOST_AGE


class FreezeDetector:
    """Detects that the process was frozen, by SIGSTOP or on a paused virtual machine, or its event loop was blocked.

    Another triggerer may have taken over its triggers meanwhile. Let it observe the clocks every few seconds, however
    long the polls are apart: a poll interval is longer than Airflow waits for a heartbeat.

    :param monotonic: The monotonic clock. It goes on while a process is stopped, but may stop on a suspended machine.
    :param wall: Epoch seconds. They jump ahead once the clock of a suspended machine is set.
    """

    def __init__(self, *, monotonic: float, wall: float) -> None:
        self._monotonic, self._wall = monotonic, wall
        #: The longest freeze since :meth:`reset`, in seconds; 0.0 for none.
        self.frozen_for = 0.0

    def observe(self, *, monotonic: float, wall: float) -> None:
        """Take note of the clocks.

        :param monotonic: The monotonic clock.
        :param wall: Epoch seconds. A clock that is set back does not count.
        """
        self.note_pause(max(monotonic - self._monotonic, wall - self._wall))
        self._monotonic, self._wall = monotonic, wall

    def note_pause(self, seconds: float) -> None:
        """Take note of the time in which something short has happened.

        :param seconds: How long it took.
        """
        if seconds > _FREEZE_SECONDS:
            self.frozen_for = max(self.frozen_for, seconds)

    def reset(self) -> None:
        """Forget the freeze, because it was dealt with."""
        self.frozen_for = 0.0
