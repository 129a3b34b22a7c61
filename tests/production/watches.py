# SPDX-License-Identifier: Apache-2.0
"""Two watched series whose jobs finish one after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.system.airflow_processes import AirflowProcesses

DAGS = Path(__file__).with_name("dags")
#: As in dags/watched_uploads.py.
SERIES = (820_001, 820_002)
JOBS_PER_SERIES = 40
FOR_EVER = 86_400.0


class Watches:
    """Watched series, and the events that their watchers sent.

    :param sandbox: Where their jobs are.
    :param randomly: Decides when jobs end.
    """

    def __init__(self, sandbox: Sandbox, randomly: random.Random) -> None:
        self.sandbox = sandbox
        self._random = randomly
        self.jobs: list[SandboxJob] = []
        self._moments: list[float] = []

    def begin(self, cluster: AirflowProcesses) -> None:
        self._cluster = cluster
        cluster.add_connections({"watches": self.sandbox.connection(requests_per_minute=100_000)})
        name = "watched_uploads.py"
        cluster.add_dags({name: (DAGS / name).read_text()})

    def is_under_way(self) -> bool:
        polled = {int(request.path.rpartition("/")[2]) for request in self.sandbox.requests if request.method == "GET"}
        return polled >= set(SERIES)

    def step(self, progress: float) -> None:
        if not self.jobs:
            for _ in range(JOBS_PER_SERIES):
                self.jobs += [self.sandbox.add_job(series, started_seconds=FOR_EVER) for series in SERIES]
            self._moments = [self._random.random() for _ in self.jobs]
        for job, moment in zip(self.jobs, self._moments, strict=True):
            if moment <= progress and not job.is_done:
                self.sandbox.finish(job, self._random.choice(["COMPLETED", "ERRORED"]))

    def is_over(self) -> bool:
        reported = {job_id for event in self.events() for job_id in event["jobs"]}
        return reported >= {job.job_id for job in self.jobs}

    def events(self) -> list[dict[str, Any]]:
        """Jobs and `possible_duplicates` of each event of the two assets, oldest first."""
        found = self._cluster.select(
            "SELECT event.extra FROM asset_event event JOIN asset ON asset.id = asset_id WHERE uri LIKE ?"
            " ORDER BY event.id",
            "%watches%",
        )
        payloads = [(json.loads(extra) if isinstance(extra, str) else extra)["payload"] for (extra,) in found]
        return [
            {
                "jobs": [job["job_id"] for job in payload["jobs"]],
                "possible_duplicates": payload["possible_duplicates"],
            }
            for payload in payloads
        ]
