# SPDX-License-Identifier: Apache-2.0
"""Connections that change while deferred waits use them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.production.confidential import new_sandbox, new_secret
from tests.production.tasks import Tasks

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.production.storm import Calm
    from tests.system.airflow_processes import AirflowProcesses

DAGS = Path(__file__).with_name("dags")
SERIES = 840_001
#: How the jobs of each connection end, by the task that waits for them.
ENDS = {"by_id": "COMPLETED", "by_name": "COMPLETED", "started_in_triggerer": "COMPLETED", "errored": "ERRORED"}
STATES = {task_id: "success" if ends == "COMPLETED" else "failed" for task_id, ends in ENDS.items()}
FOR_EVER = 86_400.0
#: On two cores a triggerer that starts keeps another one from its heartbeat for so long.
SETTLED_AFTER = timedelta(seconds=15)
#: So often is polled before and after a connection and a server change, to see that polls go on.
POLLS = 3


class Change:
    """Deferred waits over a connection, and what becomes of that connection.

    :param kind: `rotated`, `moved` or `deleted`.
    :param moment: When it changes, as progress of the storm.
    :param calm: Breaks of the storm.
    """

    def __init__(self, kind: str, moment: float, calm: Calm) -> None:
        self._calm = calm
        self.conn_id = f"changed_{kind}"
        self.moment = moment
        self.sandbox = new_sandbox()
        #: All that there have been.
        self.sandboxes = [self.sandbox]
        #: State and number of the try of each task right before the change and after it.
        self.before: dict[str, tuple[str | None, int]] = {}
        self.after: dict[str, tuple[str | None, int]] = {}
        self._steps: dict[str, Callable[[], Iterator[bool]]] = {
            "rotated": self._rotate,
            "moved": self._move,
            "deleted": self._delete_and_add,
        }
        self._going_on = self._go_on(self._steps[kind])

    def begin(self, cluster: AirflowProcesses) -> None:
        self._cluster = cluster
        self.sandbox.start()
        self.jobs = {task_id: self.sandbox.add_job(SERIES, started_seconds=FOR_EVER) for task_id in ENDS}
        self._store_connection()
        tasks: list[dict[str, Any]] = []
        for task_id, job in self.jobs.items():
            mode = "start_from_trigger" if task_id == "started_in_triggerer" else "deferrable"
            given = {"task_id": task_id, "capillary_conn_id": self.conn_id, "poke_interval": 2, mode: True}
            chosen = {"uploaded_file_name": job.uploaded_file_name} if task_id == "by_name" else {"job_id": job.job_id}
            tasks.append(given | {"coupon_series_id": SERIES} | chosen)
        dag = (DAGS / "waits.py").read_text()
        cluster.add_dags({f"{self.conn_id}.json": json.dumps(tasks), f"{self.conn_id}.py": dag})
        cluster.trigger(self.conn_id)
        self.tasks = Tasks(cluster, self.conn_id)

    def are_deferred(self) -> bool:
        """Return whether all wait in a triggerer."""
        return self.tasks.states() == dict.fromkeys(ENDS, "deferred")

    def go_on(self) -> None:
        """Go on with the change as far as that is possible now."""
        next(self._going_on, None)

    def _store_connection(self) -> None:
        self._cluster.add_connections({self.conn_id: self.sandbox.connection(requests_per_minute=100_000)})

    def _go_on(self, change: Callable[[], Iterator[bool]]) -> Iterator[None]:
        """Change the connection, with a wait wherever a condition does not hold yet, and then end all jobs."""
        self.before = self._waiting()
        for holds in change():
            if not holds:
                yield
        self.after = self._waiting()
        for task_id, job in self.jobs.items():
            self.sandbox.finish(job, ENDS[task_id])

    def _waiting(self) -> dict[str, tuple[str | None, int]]:
        states, tries = self.tasks.states(), self.tasks.tries()
        return {task_id: (states[task_id], tries[task_id]) for task_id in states}

    def _rotate(self) -> Iterator[bool]:
        """Rotate the secret: the connection first, and the old one is good for some polls more."""
        new = new_secret()
        old, self.sandbox.client_secret = self.sandbox.client_secret, new
        self.sandbox.further_secrets = {old}
        self._store_connection()
        yield from self._polls()
        self._revoke()
        yield from self._polls()

    def _move(self) -> Iterator[bool]:
        """Move to another host and port: the connection first, and the old host serves some polls more."""
        old, self.sandbox = self.sandbox, new_sandbox()
        self.sandboxes.append(self.sandbox)
        self.sandbox.start()
        self.jobs = {
            task_id: self.sandbox.add_job(
                SERIES, job_id=job.job_id, uploaded_file_name=job.uploaded_file_name, started_seconds=FOR_EVER
            )
            for task_id, job in self.jobs.items()
        }
        self._store_connection()
        yield from self._polls()
        old.stop()
        yield from self._polls()

    def _delete_and_add(self) -> Iterator[bool]:
        """Delete the connection, revoke its secret, and add it again with another one.

        Meanwhile no wait may go to another triggerer: it finds no connection there, and fails.
        """
        self._calm.ask()
        while not self._are_in_living_triggerers():
            yield False
        self._cluster.delete(f"connections/{self.conn_id}")
        self.sandbox.client_secret = new_secret()
        self._revoke()
        yield from self._polls("token")
        self._store_connection()
        yield from self._polls()
        self._calm.end()

    def _revoke(self) -> None:
        self.sandbox.further_secrets = set()
        self.sandbox.expire_tokens()

    def _polls(self, endpoint: str = "status") -> Iterator[bool]:
        """Wait until so much is asked for that polls are seen to go on.

        :param endpoint: What: jobs, or the tokens without which no poll gets to them.
        """

        def requests() -> int:
            return sum(sandbox.count(endpoint) for sandbox in self.sandboxes)

        before = requests()
        while requests() < before + POLLS:
            yield False

    def _are_in_living_triggerers(self) -> bool:
        """Return whether the triggerer of each wait has lived for some time in the break of the storm."""
        query = (
            "SELECT task_id FROM task_instance JOIN trigger ON trigger.id = trigger_id"
            " JOIN job ON job.id = triggerer_id WHERE task_instance.dag_id = ? AND latest_heartbeat > ?"
        )
        since = self._calm.since
        if since is None:
            return False
        return len(self._cluster.select(query, self.conn_id, since + SETTLED_AFTER)) == len(ENDS)


class Changes:
    """A rotated secret, a host that moves, and a connection that is deleted and added again.

    :param randomly: Decides when.
    :param calm: Breaks of the storm.
    """

    def __init__(self, randomly: random.Random, calm: Calm) -> None:
        self.changes = {kind: Change(kind, randomly.uniform(0, 0.7), calm) for kind in ("rotated", "moved", "deleted")}

    @property
    def sandboxes(self) -> list[Sandbox]:
        """All that there have been."""
        return [sandbox for change in self.changes.values() for sandbox in change.sandboxes]

    def stop(self) -> None:
        """End all sandboxes."""
        for sandbox in self.sandboxes:
            sandbox.stop()

    def begin(self, cluster: AirflowProcesses) -> None:
        for change in self.changes.values():
            change.begin(cluster)

    def is_under_way(self) -> bool:
        return all(change.are_deferred() for change in self.changes.values())

    def step(self, progress: float) -> None:
        for change in self.changes.values():
            if change.moment <= progress:
                change.go_on()

    def is_over(self) -> bool:
        return all(set(change.tasks.states().values()) <= {"success", "failed"} for change in self.changes.values())
