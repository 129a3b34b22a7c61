# SPDX-License-Identifier: Apache-2.0
"""Two hundred waits on ten series."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.production.storm import Faults
from tests.production.xcoms import decoded

if TYPE_CHECKING:
    import random

    from airflow_provider_capillary.sandbox import SandboxJob
    from tests.system.airflow_processes import AirflowProcesses

DAGS = Path(__file__).with_name("dags")
SERIES = range(810_001, 810_011)
#: How the waits on each series wait.
KINDS = ["mapped"] * 6 + ["deferrable"] * 2 + ["start_from_trigger"] * 10 + ["reschedule"] * 2
#: Jobs of each series that do not complete, by number.
FAILING = {0: "ERRORED", 7: "FAILED", 12: "CANCELLED", 18: "ERRORED"}
#: As long as no test is to see the end of a job.
FOR_EVER = 86_400.0
#: What one triggerer of two may send, where 100 a minute is the limit of all.
REQUESTS_PER_MINUTE = 50
#: So short that two triggerers without a limit would send 240 requests a minute for ten series, in seconds.
POKE_INTERVAL = 5

FAULTS = [
    Fault("status", status=429, retry_after=1),
    Fault("status", status=503),
    Fault("reset"),
    Fault("expired_token", endpoint="status"),
]


@dataclass(frozen=True)
class Wait:
    """A wait, and what is to become of it.

    :param task: Task id and map index.
    :param job: The job that it is to find.
    :param ends: The status in which the job ends.
    :param moment: When it ends, as progress of the storm.
    :param sandbox: Where the job is.
    """

    task: tuple[str, int]
    job: SandboxJob
    ends: str
    moment: float
    sandbox: Sandbox

    @property
    def state(self) -> str:
        """The state in which the task is to end."""
        return "success" if self.ends == "COMPLETED" else "failed"


class Waits:
    """Waits in the triggerer and some in reschedule mode, whose requests come from workers: these have a sandbox each.

    :param deferred: For the waits in the triggerer.
    :param rescheduled: For the others.
    :param randomly: Decides what fails, and when jobs end.
    """

    def __init__(self, deferred: Sandbox, rescheduled: Sandbox, randomly: random.Random) -> None:
        self.deferred, self.rescheduled = deferred, rescheduled
        self.waits: list[Wait] = []
        self._tasks: list[dict[str, Any]] = []
        self._random = randomly
        mapped = {"task_id": "mapped", "capillary_conn_id": "waits", "deferrable": True, "poke_interval": POKE_INTERVAL}
        mapped["mapped"] = []
        rescheduling = {"task_id": "reschedule", "capillary_conn_id": "rescheduled_waits", "mode": "reschedule"}
        rescheduling |= {"deferrable": False, "poke_interval": 45, "mapped": []}
        self._tasks += [mapped, rescheduling]
        for series in SERIES:
            for number, kind in enumerate(KINDS):
                sandbox = rescheduled if kind == "reschedule" else deferred
                job = sandbox.add_job(series, started_seconds=FOR_EVER)
                given: dict[str, Any] = {"coupon_series_id": series, "job_id": job.job_id}
                if kind in ("mapped", "reschedule"):
                    maps = (mapped if kind == "mapped" else rescheduling)["mapped"]
                    task = (kind, len(maps))
                    maps.append(given)
                else:
                    task = (f"{kind}_{series}_{number}", -1)
                    given |= {"task_id": task[0], "capillary_conn_id": "waits", "poke_interval": POKE_INTERVAL}
                    given |= {kind: True}
                    if number % 2:
                        given["uploaded_file_name"] = job.uploaded_file_name
                        del given["job_id"]
                    self._tasks.append(given)
                ends = FAILING.get(number, "COMPLETED")
                self.waits.append(Wait(task, job, ends, randomly.random(), sandbox))
        self._unfinished = sorted(self.waits, key=lambda wait: wait.moment)

    def begin(self, cluster: AirflowProcesses) -> None:
        self._cluster = cluster
        cluster.add_connections(
            {
                "waits": self.deferred.connection(requests_per_minute=REQUESTS_PER_MINUTE),
                "rescheduled_waits": self.rescheduled.connection(),
            }
        )
        cluster.add_dags({"waits.json": json.dumps(self._tasks), "waits.py": (DAGS / "waits.py").read_text()})
        self.faults = [
            Faults(sandbox, self._random, FAULTS, share=0.05) for sandbox in (self.deferred, self.rescheduled)
        ]
        cluster.trigger("waits")

    def is_under_way(self) -> bool:
        waiting = [state for state in self.states().values() if state not in (None, "scheduled", "queued")]
        return len(waiting) >= 0.9 * len(self.waits)

    def step(self, progress: float) -> None:
        while self._unfinished and self._unfinished[0].moment <= progress:
            wait = self._unfinished.pop(0)
            wait.sandbox.finish(wait.job, wait.ends)

    def is_over(self) -> bool:
        states = list(self.states().values())
        return len(states) == len(self.waits) and all(state in ("success", "failed") for state in states)

    def states(self) -> dict[tuple[str, int], str]:
        """The state of each task, by task id and map index."""
        found = self._cluster.select("SELECT task_id, map_index, state FROM task_instance WHERE dag_id = 'waits'")
        return {(task_id, map_index): state for task_id, map_index, state in found}

    def jobs(self) -> dict[tuple[str, int], int]:
        """The id of the job in the XCom of each task, by task id and map index."""
        found = self._cluster.select(
            "SELECT task_id, map_index, value FROM xcom WHERE dag_id = 'waits' AND key = 'return_value'"
        )
        return {(task_id, map_index): decoded(value)["job_id"] for task_id, map_index, value in found}

    def ends(self) -> Counter[tuple[str, int]]:
        """How often each task succeeded, by task id and map index, as Airflow's log of events has it."""
        found = self._cluster.select("SELECT task_id, map_index FROM log WHERE dag_id = 'waits' AND event = 'success'")
        return Counter((task_id, -1 if map_index is None else map_index) for task_id, map_index in found)
