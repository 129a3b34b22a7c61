# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow works with the package, and goes on where a triggerer that was killed left off."""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections import Counter
from dataclasses import dataclass
from fnmatch import filter as matching
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.system.airflow_processes import AirflowProcesses
from tests.system.leaks import search_database, search_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import SandboxJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DAGS = Path(__file__).with_name("dags")
#: Deadline of each wait for Airflow. A tenth of it is enough for a machine with nothing else to do.
SECONDS = 240.0
#: As long as no test is to see the end of a job.
FOR_EVER = 86_400.0

WAITED_SERIES = range(710_001, 710_011)
ERROR_FILE_SERIES = 720_001
#: As in dags/finished_uploads.py.
WATCHED_SERIES = QUIET, INTERRUPTED = 730_001, 730_002
#: poke_interval of the sensors in dags/many_waits.py.
POKE_INTERVAL = 2.0

CLIENT_KEY = f"key{secrets.token_hex(12)}"
CLIENT_SECRET = f"secret{secrets.token_hex(12)}"
#: The second column of each row that Capillary refused.
REFUSED_COUPONS = [f"COUPON{secrets.token_hex(8).upper()}" for _ in range(50)]


@dataclass(frozen=True)
class Wait:
    """A sensor, the job that it is to find, and what is to become of the task.

    :param job: The job.
    :param moment: When the job ends, see `MOMENTS`.
    :param ends: The status word in which it ends.
    :param state: The state in which the task is to end.
    :param sensor: Arguments of the sensor.
    """

    job: SandboxJob
    moment: str
    ends: str
    state: str
    sensor: dict[str, Any]


#: When the five jobs of each series end. Two end after the restart.
MOMENTS = ("in good time", "right before the kill", "while no triggerer runs", "after the restart", "after the restart")
#: Jobs that do not complete, by series and number of the job: one of each moment.
FAILING = {
    (WAITED_SERIES[0], 0): "ERRORED",
    (WAITED_SERIES[1], 1): "FAILED",
    (WAITED_SERIES[2], 2): "ERRORED",
    (WAITED_SERIES[3], 3): "CANCELLED",
    (WAITED_SERIES[4], 2): "ERRORED",
}
#: This one of the five is handed to the triggerer without beginning on a worker.
STARTED_IN_TRIGGERER = 3
SKIPPED_INSTEAD = (WAITED_SERIES[4], 2)
#: The newest of the series, so that it is the one that a pattern means which fits all five.
FOUND_BY_FILE_NAME = 4


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A local Capillary whose tokens live for seconds."""
    with Sandbox(client_key=CLIENT_KEY, client_secret=CLIENT_SECRET, token_ttl_seconds=20) as running:
        yield running


@pytest.fixture(scope="module")
def waits(sandbox: Sandbox) -> list[Wait]:
    """Fifty waits for jobs that run until a test ends them."""
    found = []
    for series in WAITED_SERIES:
        for number, moment in enumerate(MOMENTS):
            job = sandbox.add_job(
                series,
                started_seconds=FOR_EVER,
                uploaded_file_name=f"redeemed_{1_795_400_755_483 + number}_{series}.csv",
            )
            sensor = {"task_id": f"wait_{series}_{number}", "coupon_series_id": series}
            if number == FOUND_BY_FILE_NAME:
                sensor["uploaded_file_name"] = f"redeemed_*_{series}.csv"
            else:
                sensor["job_id"] = job.job_id
            if number == STARTED_IN_TRIGGERER:
                sensor["start_from_trigger"] = True
            ends = FAILING.get((series, number), "COMPLETED")
            state = "success" if ends == "COMPLETED" else "failed"
            if (series, number) == SKIPPED_INSTEAD:
                sensor["soft_fail"], state = True, "skipped"
            found.append(Wait(job, moment, ends, state, sensor))
    return found


@pytest.fixture(scope="module")
def running_before(sandbox: Sandbox) -> dict[int, SandboxJob]:
    """For each watched series, a job that still runs when the watch begins; others have ended long before."""
    for series in WATCHED_SERIES:
        sandbox.add_job(series)
        sandbox.add_job(series, ends="FAILED")
    return {series: sandbox.add_job(series, started_seconds=FOR_EVER) for series in WATCHED_SERIES}


@pytest.fixture(scope="module")
def airflow(sandbox: Sandbox, waits: list[Wait], running_before: dict[int, SandboxJob]) -> Iterator[AirflowProcesses]:
    """An Airflow with the DAGs of this folder, and with the connection where users have it: in the database."""
    files = {file.name: file.read_text() for file in DAGS.glob("*.py")}
    files["many_waits.json"] = json.dumps([wait.sensor for wait in waits])
    connections = {"capillary_default": sandbox.connection(requests_per_minute=100_000)}
    # A time limit around the tests sends SIGTERM: then, too, nothing may be left running.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with AirflowProcesses(
            dags=files, connections=connections, hidden=lambda: confidential(sandbox).values()
        ) as running:
            yield running
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def copied(
    sandbox: Sandbox, airflow: AirflowProcesses, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SandboxJob, Path]:
    """A job and its error file as Airflow copied it, through tokens that expire and a download that breaks off."""
    rows = "".join(f"Coupon is not issued, or belongs to another series,{coupon}\n" for coupon in REFUSED_COUPONS)
    job = sandbox.add_job(
        ERROR_FILE_SERIES,
        rows=1000,
        errors=len(REFUSED_COUPONS),
        error_file=f"message,coupon code\n{rows}".encode(),
        started_seconds=FOR_EVER,
    )
    lake = tmp_path_factory.mktemp("lake")
    run_id = airflow.trigger(
        "errors_to_lake", coupon_series_id=ERROR_FILE_SERIES, job_id=job.job_id, destination=f"file://{lake}/"
    )

    def state(task_id: str) -> Any:
        return airflow.task_instances("errors_to_lake", run_id)[task_id]["state"]

    for task_id in ("wait", "wait_in_triggerer", "wait_too"):
        airflow.wait_until(
            lambda task_id=task_id: state(task_id) == "deferred", f"{task_id} is deferred", seconds=SECONDS
        )
    await_polls(airflow, sandbox, [ERROR_FILE_SERIES], 1)
    sandbox.expire_tokens()
    await_polls(airflow, sandbox, [ERROR_FILE_SERIES], 2)
    sandbox.inject(Fault("expired_token", endpoint="status", form="body_498"))
    await_polls(airflow, sandbox, [ERROR_FILE_SERIES], 2)
    sandbox.inject(Fault("expired_token", endpoint="download"))
    sandbox.inject(Fault("cut", endpoint="download", rst=True))
    sandbox.finish(job)
    airflow.wait_until(lambda: state("load") == "success", "the copy of the error file is read", seconds=SECONDS)

    copy = lake / f"redeem_errors_{ERROR_FILE_SERIES}_{job.job_id}.csv"
    assert airflow.xcom("errors_to_lake", run_id, "errors") == f"file://{copy}"
    assert airflow.xcom("errors_to_lake", run_id, "load") == 1 + len(REFUSED_COUPONS)
    for task_id in ("wait_in_triggerer", "wait_too"):
        assert airflow.xcom("errors_to_lake", run_id, task_id)["job_id"] == job.job_id
    return job, copy


def confidential(sandbox: Sandbox) -> dict[str, str]:
    """All that must be nowhere, by names that may be shown."""
    found = {"client key": CLIENT_KEY, "client secret": CLIENT_SECRET}
    for number, token in enumerate(sandbox.tokens_issued):
        # A part may be logged without the others. The first is the same in all tokens.
        for part, value in zip(("claims", "signature"), token.split(".")[1:], strict=True):
            found[f"{part} of token {number}"] = value
    return found | {f"row {number} of the error file": coupon for number, coupon in enumerate(REFUSED_COUPONS)}


def polls(sandbox: Sandbox) -> Counter[int]:
    """How often Capillary was asked about each series."""
    return Counter(int(r.path.rpartition("/")[2]) for r in sandbox.requests if r.endpoint == "status")


def await_polls(airflow: AirflowProcesses, sandbox: Sandbox, series: Any, count: int) -> None:
    """Wait until so many further polls at each of these series were taken."""
    before = polls(sandbox)

    def seen() -> bool:
        now = polls(sandbox)
        return all(now[one] >= before[one] + count for one in series)

    airflow.wait_until(seen, f"each series is looked at {count} times more", seconds=SECONDS)


def test_waits_end_correctly_across_a_killed_triggerer(
    sandbox: Sandbox, airflow: AirflowProcesses, waits: list[Wait]
) -> None:
    def states() -> Counter[str]:
        return Counter(one["state"] for one in airflow.task_instances("many_waits", run_id).values())

    def finish(moment: str) -> list[Wait]:
        ended = [wait for wait in waits if wait.moment == moment]
        for wait in ended:
            sandbox.finish(wait.job, wait.ends)
        return ended

    def ended_tasks() -> int:
        return sum(count for state, count in states().items() if state in ("success", "failed", "skipped"))

    run_id = airflow.trigger("many_waits")
    airflow.wait_until(lambda: states()["deferred"] == len(waits), "all sensors are deferred", seconds=SECONDS)

    began, before = time.monotonic(), polls(sandbox)
    await_polls(airflow, sandbox, WAITED_SERIES, 4)
    # The five waits on a series share one poll. Twice as much as that would be is still far less than five times.
    taken = sum((polls(sandbox) - before)[series] for series in WAITED_SERIES)
    assert taken <= 2 * len(WAITED_SERIES) * ((time.monotonic() - began) / POKE_INTERVAL + 1)

    in_good_time = finish("in good time")
    airflow.wait_until(
        lambda: ended_tasks() == len(in_good_time), "the first tasks end, and no others", seconds=SECONDS
    )
    # Some of these ends are seen, and on their way to the database; others are not.
    finish("right before the kill")
    await_polls(airflow, sandbox, WAITED_SERIES[:5], 1)
    airflow.kill("triggerer")
    finish("while no triggerer runs")
    airflow.start("triggerer")
    await_polls(airflow, sandbox, WAITED_SERIES, 1)
    finish("after the restart")
    airflow.wait_until(lambda: ended_tasks() == len(waits), "all tasks end", seconds=SECONDS)

    found = airflow.task_instances("many_waits", run_id)
    # The first try, although there are two retries: neither the restart nor a job that failed used one.
    assert {task_id: (one["state"], one["try_number"]) for task_id, one in found.items()} == {
        wait.sensor["task_id"]: (wait.state, 1) for wait in waits
    }
    jobs = {wait.sensor["task_id"]: airflow.xcom("many_waits", run_id, wait.sensor["task_id"]) for wait in waits}
    assert {task_id: job and job["job_id"] for task_id, job in jobs.items()} == {
        wait.sensor["task_id"]: wait.job.job_id if wait.state == "success" else None for wait in waits
    }


class WatchedSeries:
    """A coupon series, and the DAG that starts when its jobs are done."""

    def __init__(self, series: int, running_before: SandboxJob, *, sandbox: Sandbox, airflow: AirflowProcesses) -> None:
        self.series = series
        self.dag_id = f"finished_uploads_{series}"
        self.running_before = running_before
        self._sandbox = sandbox
        self._airflow = airflow

    @cached_property
    def _asset_id(self) -> int:
        assets = self._airflow.get("assets")["assets"]
        (found,) = (asset["id"] for asset in assets if asset["uri"].endswith(f"/{self.series}"))
        return int(found)

    def reported(self) -> list[dict[str, Any]]:
        """What the runs of the DAG saw of the events that started them, in the order of the runs."""
        found = []
        for run_id in self._airflow.runs(self.dag_id):
            found += self._airflow.xcom(self.dag_id, run_id, "finished_jobs") or []
        return found

    def jobs(self) -> list[list[Any]]:
        """Id and status of each job that the runs of the DAG saw, by id; more than once those seen more than once."""
        return sorted(job for event in self.reported() for job in event["jobs"])

    def events(self) -> int:
        """How many events of the asset are in the database."""
        return int(self._airflow.get("assets/events", asset_id=self._asset_id)["total_entries"])

    def remembered(self) -> Any:
        """What the watcher stored to know what it reported."""
        return self._airflow.get(f"assets/{self._asset_id}/state-store")["asset_state_store"]

    def upload(self, **progress: Any) -> SandboxJob:
        return self._sandbox.add_job(self.series, **progress)

    def finish(self, job: SandboxJob, status: str = "COMPLETED") -> None:
        """End a job, once the watcher has seen it running."""
        await_polls(self._airflow, self._sandbox, [self.series], 1)
        self._sandbox.finish(job, status)

    def await_runs(self, *jobs: SandboxJob) -> None:
        """Wait until runs of the DAG saw these jobs."""
        ids = {job.job_id for job in jobs}
        self._airflow.wait_until(
            lambda: ids <= {job_id for job_id, _ in self.jobs()}, f"runs of {self.dag_id} see {jobs}", seconds=SECONDS
        )


def test_each_finished_upload_starts_a_dag_once_across_a_killed_triggerer(
    sandbox: Sandbox, airflow: AirflowProcesses, running_before: dict[int, SandboxJob]
) -> None:
    quiet, interrupted = both = [
        WatchedSeries(series, running_before[series], sandbox=sandbox, airflow=airflow) for series in WATCHED_SERIES
    ]
    for one in both:
        airflow.wait_until(one.remembered, f"the watch of {one.dag_id} has begun", seconds=SECONDS)

    # One by one: several events between two ticks of the scheduler start a single run.
    first = quiet.upload(started_seconds=FOR_EVER)
    quiet.finish(quiet.running_before)
    quiet.await_runs(quiet.running_before)
    before = quiet.remembered()
    quiet.finish(first, "FAILED")
    quiet.await_runs(first)
    airflow.wait_until(lambda: quiet.remembered() != before, "it is stored what was reported", seconds=SECONDS)
    # The event of this one is in the database; that it was reported is most likely not stored yet.
    interrupted.finish(interrupted.running_before)
    airflow.wait_until(interrupted.events, "the event is in the database", seconds=SECONDS)
    airflow.kill("triggerer")
    interrupted.await_runs(interrupted.running_before)
    meanwhile = {one: [one.upload(), one.upload(ends="ERRORED")] for one in both}
    airflow.start("triggerer")
    last = {}
    for one in both:
        one.await_runs(*meanwhile[one])
        last[one] = one.upload(started_seconds=FOR_EVER)
        one.finish(last[one])
        one.await_runs(last[one])
    # Time enough for a job to be reported once too often.
    await_polls(airflow, sandbox, WATCHED_SERIES, 2)
    for one in both:
        airflow.wait_until(
            lambda one=one: len(one.reported()) == one.events(), "all events started runs", seconds=SECONDS
        )

    def expected(one: WatchedSeries, *jobs: SandboxJob) -> list[list[Any]]:
        # Those that were done before the watch began are not among them.
        return [[job.job_id, job.status()] for job in (one.running_before, *jobs, *meanwhile[one], last[one])]

    assert quiet.jobs() == expected(quiet, first)
    # The one that the crash met is reported once more at the most, by an event which says that this may be.
    seen: set[int] = set()
    repeated = []
    for event in interrupted.reported():
        again = [job for job in event["jobs"] if job[0] in seen]
        assert event["possible_duplicates"] or not again
        repeated += again
        seen |= {job_id for job_id, _ in event["jobs"]}
    assert repeated in ([], expected(interrupted)[:1])
    assert interrupted.jobs() == sorted(expected(interrupted) + repeated)


def test_an_error_file_is_copied_while_tokens_expire(sandbox: Sandbox, copied: tuple[SandboxJob, Path]) -> None:
    job, copy = copied
    assert copy.read_bytes() == job.read_error_file()
    assert sandbox.faults == []


# The last one: it searches what all others left behind, and what Airflow says when it is ended.
def test_no_token_no_secret_and_no_row_is_in_a_log_or_the_database(
    sandbox: Sandbox, airflow: AirflowProcesses, copied: tuple[SandboxJob, Path]
) -> None:
    airflow.stop()

    def found(values: dict[str, str]) -> set[tuple[str, str]]:
        # The database first: whoever opens it last cleans up the file of its changes.
        return search_database(airflow.database, values) | search_files(airflow.home, values)

    job, copy = copied
    # First that the search gets to see what tasks, triggers and watchers leave behind, and where.
    harmless = {
        "upload": job.uploaded_file_name,
        "copy": copy.name,
        "watch": f"Watching the redeem uploads of coupon series {QUIET}",
    }
    places = {f"{name} in {place}" for place, name in found(harmless)}
    for pattern in (
        "upload in logs/dag_id=errors_to_lake/*/task_id=wait/attempt=1.log.trigger.*.log",
        "upload in output/scheduler-*.log",
        "upload in xcom.value",
        "copy in logs/dag_id=errors_to_lake/*/task_id=errors/attempt=1.log",
        "copy in airflow.db",
        "watch in output/triggerer-*.log",
    ):
        assert matching(places, pattern), f"{pattern}: not among {sorted(places)}"

    values = confidential(sandbox)
    assert len(sandbox.tokens_issued) > 3
    # Airflow stores the client key in clear, as it does with every login. The secret beside it is encrypted.
    assert found(values) == {("connection.login", "client key"), ("airflow.db", "client key")}
