# SPDX-License-Identifier: Apache-2.0
"""What goes on in a cluster while its processes are killed at random: scenarios that are run at the same time."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from airflow_provider_capillary.sandbox import Fault, RecordedRequest, Sandbox
    from tests.system.airflow_processes import AirflowProcesses

#: Seconds from the moment when a killed process serves again to the next kill.
KILL_AFTER = (3.0, 12.0)
#: Seconds until a killed process is started again.
RESTART_AFTER = (0.0, 4.0)
#: Seconds for which a triggerer is frozen: longer than it may be without a heartbeat.
FROZEN_FOR = (15.0, 20.0)


class Scenario(Protocol):
    """Something that goes on in a cluster."""

    def begin(self, cluster: AirflowProcesses) -> None:
        """Add DAGs and connections, and start the runs."""

    def is_under_way(self) -> bool:
        """Return whether most of it has started."""

    def step(self, progress: float) -> None:
        """Go on.

        :param progress: How much of the storm is over, from 0.0, when all scenarios are under way, to 1.0 or above.
        """

    def is_over(self) -> bool:
        """Return whether everything has ended that is to end."""


class Calm:
    """A break of a storm, for what only processes that live all the time can show."""

    def __init__(self) -> None:
        self._is_wanted = False
        #: Since when all processes have been running, and none is killed or frozen; None outside a break.
        self.since: datetime | None = None

    def ask(self) -> None:
        """Ask for a break. It begins when all processes run."""
        self._is_wanted = True

    def end(self) -> None:
        """End the break."""
        self._is_wanted, self.since = False, None

    def begin_if_wanted(self) -> bool:
        """Return whether there is a break. Called where all processes run."""
        if self._is_wanted and self.since is None:
            self.since = datetime.now(UTC)
        return self._is_wanted


class Storm:
    """Kills triggerers and workers, one after the other, while scenarios are run to their end.

    All are killed once, in any order, before any of them is killed again. Once, a triggerer is frozen instead.

    :param cluster: The cluster.
    :param randomly: Decides what is killed, and when.
    :param seconds: For how long there are kills once all scenarios are under way.
    :param calm: Its breaks.
    """

    def __init__(self, cluster: AirflowProcesses, randomly: random.Random, seconds: float, calm: Calm) -> None:
        self._cluster = cluster
        self._random = randomly
        self._seconds = seconds
        self._calm = calm
        self._down = ""
        self._frozen = ""
        self._plan: list[str] = []
        self._next = 0.0
        self._under_way_at: float | None = None
        self.kills: list[str] = []
        self.killed_at: list[datetime] = []
        self.frozen: list[str] = []
        #: How long it took from the begin to the end of the last scenario, in seconds.
        self.lasted = 0.0

    def run(self, scenarios: Sequence[Scenario], limit: float) -> None:
        """Run scenarios to their end.

        :param scenarios: The scenarios.
        :param limit: How long they may take, in seconds.
        """
        began = time.monotonic()
        for scenario in scenarios:
            scenario.begin(self._cluster)
        self._next = self._after(KILL_AFTER)

        def over() -> bool:
            if self._under_way_at is None and all(scenario.is_under_way() for scenario in scenarios):
                self._under_way_at = time.monotonic()
            progress = 0.0
            if self._under_way_at is not None:
                progress = (time.monotonic() - self._under_way_at) / self._seconds
                for scenario in scenarios:
                    scenario.step(progress)
            self._rage(is_over=progress >= 1)
            return progress >= 1 and all(scenario.is_over() for scenario in scenarios)

        self._cluster.wait_until(over, "all scenarios have ended", seconds=limit)
        self.lasted = time.monotonic() - began

    def _after(self, interval: tuple[float, float]) -> float:
        return time.monotonic() + self._random.uniform(*interval)

    def _rage(self, *, is_over: bool) -> None:
        if self._frozen:
            if time.monotonic() >= self._next:
                self._cluster.thaw(self._frozen)
                self._frozen, self._next = "", self._after(KILL_AFTER)
        elif self._down:
            if self._cluster.is_running(self._down):
                if self._cluster.is_ready(self._down):
                    self._down, self._next = "", self._after(KILL_AFTER)
            elif time.monotonic() >= self._next:
                self._cluster.start(self._down)
        elif self._calm.begin_if_wanted():
            return
        elif time.monotonic() >= self._next and not is_over:
            if len(self.kills) == 3 and not self.frozen:
                self._frozen = self._random.choice(self._cluster.names("triggerer"))
                self._cluster.freeze(self._frozen)
                self.frozen.append(self._frozen)
                self._next = self._after(FROZEN_FOR)
                return
            if not self._plan:
                self._plan = [*self._cluster.names("triggerer"), *self._cluster.names("worker")]
                self._random.shuffle(self._plan)
            self._down = self._plan.pop()
            self._cluster.kill(self._down)
            self.kills.append(self._down)
            self.killed_at.append(datetime.now(UTC))
            self._next = self._after(RESTART_AFTER)


class Faults:
    """Faults that a share of the requests to a sandbox meets.

    :param sandbox: The sandbox.
    :param randomly: Decides which requests.
    :param kinds: One of these meets a request.
    :param share: The share, such as 0.05.
    :param requests: For so many requests.
    """

    def __init__(
        self, sandbox: Sandbox, randomly: random.Random, kinds: Sequence[Fault], *, share: float, requests: int = 4000
    ) -> None:
        self._sandbox = sandbox
        skip = 0
        self._injected: Counter[str] = Counter()
        for _ in range(int(requests * share)):
            # Each lets those pass that the one before it lets pass.
            skip += randomly.randrange(int(2 / share) - 1)
            fault = replace(randomly.choice(kinds), skip=skip)
            sandbox.inject(fault)
            self._injected[fault.kind] += 1

    def taken(self) -> Counter[str]:
        """How many requests met a fault of each kind."""
        return self._injected - Counter(fault["kind"] for fault in self._sandbox.faults)


def busiest_minute(requests: Sequence[RecordedRequest]) -> int:
    """Return how many requests came within 60 seconds at most."""
    times = sorted(request.at for request in requests)
    busiest = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 60:
            first += 1
        busiest = max(busiest, last + 1 - first)
    return busiest
