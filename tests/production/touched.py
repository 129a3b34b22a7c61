# SPDX-License-Identifier: Apache-2.0
"""Deferred waits that people clear or mark, and a DAG that they pause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.production.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.system.airflow_processes import AirflowProcesses

DAGS = Path(__file__).with_name("dags")
FOR_EVER = 86_400.0
#: Each task of a DAG is on a series of its own.
FIRST_SERIES = 850_001
TOUCHED, PAUSED = "touched_waits", "paused_waits"
TASKS = {
    TOUCHED: ["cleared", "cleared_in_triggerer", "marked_success", "marked_failed"],
    PAUSED: ["paused", "paused_in_triggerer"],
}
#: What starts when all waits of the paused DAG have ended.
FOLLOWING = "following"
#: How all end.
STATES = {
    TOUCHED: {
        "cleared": "success",
        "cleared_in_triggerer": "success",
        "marked_success": "success",
        "marked_failed": "failed",
    },
    PAUSED: {"paused": "success", "paused_in_triggerer": "success", FOLLOWING: "success"},
}


class Touched:
    """Deferred waits that are touched by people while triggerers and workers are killed.

    :param sandbox: Where their jobs are.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        series = iter(range(FIRST_SERIES, FIRST_SERIES + 100))
        self.jobs = {
            dag_id: {task_id: sandbox.add_job(next(series), started_seconds=FOR_EVER) for task_id in task_ids}
            for dag_id, task_ids in TASKS.items()
        }
        #: The tries of the cleared tasks before they were cleared, and when they were deferred again.
        self.tries: list[dict[str, int]] = []
        #: The states in the paused DAG when its jobs had ended.
        self.paused: dict[str, str | None] = {}
        self._going_on = [self._touch(), self._pause()]

    def begin(self, cluster: AirflowProcesses) -> None:
        self._cluster = cluster
        cluster.add_connections({"touched": self.sandbox.connection(requests_per_minute=100_000)})
        files, self.runs = {}, {}
        for dag_id, jobs in self.jobs.items():
            tasks: list[dict[str, Any]] = [
                {
                    "task_id": task_id,
                    "capillary_conn_id": "touched",
                    "poke_interval": 2,
                    "start_from_trigger" if task_id.endswith("triggerer") else "deferrable": True,
                    "coupon_series_id": job.coupon_series_id,
                    "job_id": job.job_id,
                }
                for task_id, job in jobs.items()
            ]
            files[f"{dag_id}.json"] = json.dumps(tasks)
            files[f"{dag_id}.py"] = (DAGS / ("waits.py" if dag_id == TOUCHED else "paused_waits.py")).read_text()
        cluster.add_dags(files)
        self.runs = {dag_id: cluster.trigger(dag_id) for dag_id in TASKS}
        self.tasks = {dag_id: Tasks(cluster, dag_id) for dag_id in TASKS}

    def is_under_way(self) -> bool:
        return all(
            states[task_id] == "deferred"
            for dag_id, task_ids in TASKS.items()
            if (states := self.tasks[dag_id].states())
            for task_id in task_ids
        ) and all(tasks.states() for tasks in self.tasks.values())

    def step(self, progress: float) -> None:
        if progress >= 0:
            for going_on in self._going_on:
                next(going_on, None)

    def is_over(self) -> bool:
        return {dag_id: tasks.states() for dag_id, tasks in self.tasks.items()} == STATES

    def _touch(self) -> Iterator[None]:
        cleared = [task_id for task_id in TASKS[TOUCHED] if task_id.startswith("cleared")]

        def tries() -> dict[str, int]:
            return {task_id: number for task_id, number in self.tasks[TOUCHED].tries().items() if task_id in cleared}

        self.tries.append(tries())
        self._cluster.post(
            f"dags/{TOUCHED}/clearTaskInstances",
            {"dry_run": False, "only_failed": False, "task_ids": cleared, "dag_run_id": self.runs[TOUCHED]},
        )
        for task_id, state in (("marked_success", "success"), ("marked_failed", "failed")):
            path = f"dags/{TOUCHED}/dagRuns/{self.runs[TOUCHED]}/taskInstances/{task_id}"
            self._cluster.patch(path, {"new_state": state})

        def are_deferred() -> bool:
            states, now = self.tasks[TOUCHED].states(), tries()
            return all(states[task_id] == "deferred" and now[task_id] > self.tries[0][task_id] for task_id in cleared)

        while not are_deferred():
            yield
        self.tries.append(tries())
        for task_id in cleared:
            self.sandbox.finish(self.jobs[TOUCHED][task_id], "COMPLETED")

    def _pause(self) -> Iterator[None]:
        self._cluster.patch(f"dags/{PAUSED}", {"is_paused": True})
        for job in self.jobs[PAUSED].values():
            self.sandbox.finish(job, "COMPLETED")
        waits = TASKS[PAUSED]
        while any(self.tasks[PAUSED].states()[task_id] == "deferred" for task_id in waits):
            yield
        self.paused = self.tasks[PAUSED].states()
        self._cluster.patch(f"dags/{PAUSED}", {"is_paused": False})
