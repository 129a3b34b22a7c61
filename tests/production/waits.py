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
#: So short that two triggerers without a limit would send 600 requests a minute for ten series, in seconds.
POKE_INTERVAL = 2

FAULTS = [
    Fault("status", status=429, retry_after=1),
    Fault("status", status=503),
    Fault("reset"),
    Fault("expired_token", endpoint="status"),
]


#: DAG id, task id and map index.
Task = tuple[str, str, int]


@dataclass(frozen=True)
class Wait:
    """A wait, and what is to become of it.

    :param task: The task.
    :param job: The job that it is to find.
    :param ends: The status in which the job ends.
    :param moment: When it ends, as progress of the storm.
    :param sandbox: Where the job is.
    """

    task: Task
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
        #: The tasks of each DAG. There is one for each series: Airflow sends the whole DAG with each trigger of a task
        #: that starts in the triggerer, so that a hundred of them in one DAG keep it busy for minutes.
        self._dags: dict[str, list[dict[str, Any]]] = {}
        self._random = randomly
        for series in SERIES:
            dag_id = f"waits_{series}"
            mapped: list[dict[str, Any]] = []
            rescheduling: list[dict[str, Any]] = []
            tasks: list[dict[str, Any]] = [
                {"task_id": "mapped", "deferrable": True, "mapped": mapped},
                {"task_id": "reschedule", "mode": "reschedule", "deferrable": False, "mapped": rescheduling}
                | {"capillary_conn_id": "rescheduled_waits", "poke_interval": 45},
            ]
            for number, kind in enumerate(KINDS):
                sandbox = rescheduled if kind == "reschedule" else deferred
                job = sandbox.add_job(series, started_seconds=FOR_EVER)
                given: dict[str, Any] = {"coupon_series_id": series, "job_id": job.job_id}
                if kind in ("mapped", "reschedule"):
                    maps = mapped if kind == "mapped" else rescheduling
                    task = (dag_id, kind, len(maps))
                    maps.append(given)
                else:
                    task = (dag_id, f"{kind}_{number}", -1)
                    given |= {"task_id": task[1], kind: True}
                    if number % 2:
                        given["uploaded_file_name"] = job.uploaded_file_name
                        del given["job_id"]
                    tasks.append(given)
                ends = FAILING.get(number, "COMPLETED")
                self.waits.append(Wait(task, job, ends, randomly.random(), sandbox))
            self._dags[dag_id] = [
                {"capillary_conn_id": "waits", "poke_interval": POKE_INTERVAL} | each for each in tasks
            ]
        self._unfinished = sorted(self.waits, key=lambda wait: wait.moment)

    def begin(self, cluster: AirflowProcesses) -> None:
        self._cluster = cluster
        cluster.add_connections(
            {
                "waits": self.deferred.connection(requests_per_minute=REQUESTS_PER_MINUTE),
                "rescheduled_waits": self.rescheduled.connection(),
            }
        )
        dag = (DAGS / "waits.py").read_text()
        files = [{f"{dag_id}.json": json.dumps(tasks), f"{dag_id}.py": dag} for dag_id, tasks in self._dags.items()]
        cluster.add_dags({name: content for pair in files for name, content in pair.items()})
        self.faults = [
            Faults(sandbox, self._random, FAULTS, share=0.05) for sandbox in (self.deferred, self.rescheduled)
        ]
        for dag_id in self._dags:
            cluster.trigger(dag_id)

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

    def states(self) -> dict[Task, str]:
        """The state of each task."""
        return {tuple(task): state for *task, state in self._select("task_instance", "state")}

    def jobs(self) -> dict[Task, int]:
        """The id of the job in the XCom of each task."""
        found = self._select("xcom", "value", "key = 'return_value'")
        return {tuple(task): decoded(value)["job_id"] for *task, value in found}

    def ends(self) -> Counter[Task]:
        """How often each task succeeded, as Airflow's log of events has it."""
        found = self._select("log", "event", "event = 'success'")
        return Counter((dag_id, task_id, -1 if index is None else index) for dag_id, task_id, index, _ in found)

    def _select(self, table: str, column: str, condition: str = "true") -> list[Any]:
        query = f"SELECT dag_id, task_id, map_index, {column} FROM {table} WHERE dag_id LIKE ? AND {condition}"
        return self._cluster.select(query, "waits\\_%")
