# SPDX-License-Identifier: Apache-2.0
"""A scheduler, a triggerer and what else this Airflow consists of run the package: the one run that every version gets.

Some faults show nowhere else. In Airflow 3.0 to 3.2 a call from a wrong thread takes an answer of the supervisor that
belongs to somebody else, and the triggerer dies: that needs many waits which look up connections and mask tokens at
the same time.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.airflow_compat import HAS_ASSET_WATCHERS, TRIGGERER_RENDERS_TEMPLATES, needs_asset_watchers
from tests.system.airflow_processes import AirflowProcesses
from tests.system.leaks import search_database, search_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import SandboxJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DAGS = Path(__file__).parent / "dags" / "real_run"
SECONDS = 240.0
FOR_EVER = 86_400.0
SERIES, WATCHED_SERIES, UPLOADED_SERIES = 740_001, 740_002, 740_003
#: Each has a token of its own, and its deferred waits are on a series of their own.
CONNECTIONS = [f"capillary_{number}" for number in range(6)]
ERRORS = 5
CLIENT_SECRET = f"secret{secrets.token_hex(12)}"
COUPON = f"COUPON{secrets.token_hex(8).upper()}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A local Capillary whose tokens live for seconds."""
    with Sandbox(client_secret=CLIENT_SECRET, token_ttl_seconds=5, queued_seconds=0, started_seconds=3) as running:
        # The job is made, and only the answer is lost.
        running.inject(Fault("reset", endpoint="upload", processed=True))
        yield running


@pytest.fixture(scope="module")
def job(sandbox: Sandbox) -> SandboxJob:
    rows = "".join(f"Coupon is not issued,{COUPON}{number}\n" for number in range(ERRORS))
    return sandbox.add_job(
        SERIES, rows=40, errors=ERRORS, error_file=f"message,coupon code\n{rows}".encode(), started_seconds=FOR_EVER
    )


@pytest.fixture(scope="module")
def short_job(sandbox: Sandbox) -> SandboxJob:
    """What is waited for in poke mode: Airflow 2 runs one task at a time on SQLite, and this one must not keep it."""
    return sandbox.add_job(SERIES + 1, started_seconds=3)


@pytest.fixture(scope="module")
def deferred_jobs(sandbox: Sandbox) -> list[SandboxJob]:
    return [sandbox.add_job(SERIES + 10 + number, started_seconds=FOR_EVER) for number in range(len(CONNECTIONS))]


@pytest.fixture(scope="module")
def sensors(job: SandboxJob, short_job: SandboxJob, deferred_jobs: list[SandboxJob]) -> list[dict[str, Any]]:
    """The sensors of the DAG: the first is the one whose job's error file is copied."""
    one = {**_of(job), "capillary_conn_id": CONNECTIONS[0]}
    found = [
        {"task_id": "deferrable", "deferrable": True, **one},
        # Not sooner than the executor has reported the end of the process before: Airflow takes that for a failure.
        {"task_id": "reschedule", "mode": "reschedule", "deferrable": False, "poke_interval": 8, **one},
        {"task_id": "poke", "mode": "poke", "deferrable": False, **one, **_of(short_job)},
    ]
    if TRIGGERER_RENDERS_TEMPLATES:
        found.append({"task_id": "started_in_triggerer", "start_from_trigger": True, **one})
    for number, (conn_id, deferred) in enumerate(zip(CONNECTIONS, deferred_jobs, strict=True)):
        given = {"deferrable": True, "capillary_conn_id": conn_id, "coupon_series_id": deferred.coupon_series_id}
        found += [
            {"task_id": f"by_id_{number}", "job_id": deferred.job_id, **given},
            {"task_id": f"by_name_{number}", "uploaded_file_name": deferred.uploaded_file_name, **given},
        ]
    return found


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake")


class Changing:
    """A wait over a connection of its own, which a test changes while the wait runs.

    :param name: Name of the connection and of the task.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sandbox = self.open()
        self.job = self.sandbox.add_job(SERIES, status="STARTED")
        self.sensor = {"task_id": name, "capillary_conn_id": name, **_of(self.job)}

    def open(self) -> Sandbox:
        """Start another Capillary."""
        running = Sandbox(client_secret=CLIENT_SECRET, token_ttl_seconds=600)
        running.start()
        return running

    @property
    def connection(self) -> dict[str, Any]:
        """The connection to the Capillary that there is now."""
        return self.sandbox.connection(requests_per_minute=100_000)

    def is_polled(self, more_than: int = 0) -> bool:
        """Whether the jobs have been asked for more often than that."""
        return self.sandbox.count("status") > more_than


@pytest.fixture(scope="module")
def rotated() -> Iterator[Changing]:
    """A wait whose client secret is rotated."""
    wait = Changing("rotated")
    yield wait
    wait.sandbox.stop()


@pytest.fixture(scope="module")
def moved() -> Iterator[Changing]:
    """A wait whose Capillary moves to another host and port."""
    wait = Changing("moved")
    yield wait
    wait.sandbox.stop()


@pytest.fixture(scope="module")
def airflow(
    sandbox: Sandbox,
    sensors: list[dict[str, Any]],
    lake: Path,
    rotated: Changing,
    moved: Changing,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowProcesses]:
    source = tmp_path_factory.mktemp("source") / "redeemed.csv"
    rows = "".join(f"1732000000000,till-1,9199,{COUPON}{number}\n" for number in range(3))
    source.write_text(f"redeemedDateInMillis,redeemedAt,mobile,couponCode\n{rows}")
    names = ["real_run.py", "real_changes.py", *(["real_watch.py"] if HAS_ASSET_WATCHERS else [])]
    files = {name: (DAGS / name).read_text() for name in names}
    files["real_run.json"] = json.dumps(
        {
            "sensors": sensors,
            "changing": [rotated.sensor, moved.sensor],
            "coupon_series_id": SERIES,
            "watched_series": WATCHED_SERIES,
            "destination": f"file://{lake}/",
            "source": str(source),
            "uploaded_series": UPLOADED_SERIES,
        }
    )
    connections = {conn_id: sandbox.connection(requests_per_minute=100_000) for conn_id in CONNECTIONS}
    connections |= {wait.name: wait.connection for wait in (rotated, moved)}
    connections["capillary_default"] = sandbox.connection(requests_per_minute=100_000)
    with AirflowProcesses(
        dags=files, connections=connections, hidden=lambda: [CLIENT_SECRET, COUPON, *sandbox.tokens_issued]
    ) as running:
        yield running


class DagRun:
    """What lies of the runs of a DAG in the metadata database."""

    def __init__(self, airflow: AirflowProcesses, dag_id: str) -> None:
        self._airflow = airflow
        self._dag_id = dag_id

    def states(self) -> dict[str, str]:
        """Task id -> state."""
        query = "SELECT task_id, state FROM task_instance WHERE dag_id = ? ORDER BY run_id"
        return dict(self._airflow.select(query, self._dag_id))

    def tries(self) -> dict[str, int]:
        """Task id -> number of the last try."""
        query = "SELECT task_id, try_number FROM task_instance WHERE dag_id = ?"
        return dict(self._airflow.select(query, self._dag_id))

    def xcoms(self, task_id: str, key: str = "return_value") -> list[Any]:
        """The XComs of a task under a key, one of each run."""
        query = "SELECT value FROM xcom WHERE dag_id = ? AND task_id = ? AND key = ?"
        found = [value for (value,) in self._airflow.select(query, self._dag_id, task_id, key)]
        return [_decoded(value) for value in found]


def _decoded(value: Any) -> Any:
    """Read an XCom: JSON as bytes in Airflow 2, in a column of JSON in Airflow 3, where it may be text once more."""
    if isinstance(value, bytes):
        value = value.decode()
    while isinstance(value, str) and value[:1] in ("[", "{", '"'):
        value = json.loads(value)
    return int(value) if isinstance(value, str) and value.isdigit() else value


def test_every_mode_waits_the_error_file_is_copied_and_read_and_a_file_is_uploaded_once(
    sandbox: Sandbox,
    airflow: AirflowProcesses,
    job: SandboxJob,
    short_job: SandboxJob,
    deferred_jobs: list[SandboxJob],
    sensors: list[dict[str, Any]],
    lake: Path,
) -> None:
    run = DagRun(airflow, "real_run")
    in_triggerer = {each["task_id"] for each in sensors if each.get("deferrable") or each.get("start_from_trigger")}
    airflow.run("dags", "trigger", "real_run")

    def waiting() -> bool:
        states = run.states()
        return all(states.get(task_id) == "deferred" for task_id in in_triggerer) and states.get("reschedule") in (
            "up_for_reschedule",
            "running",
            "queued",
            "scheduled",
        )

    airflow.wait_until(waiting, "all deferrable sensors are deferred", seconds=SECONDS)
    # Long enough for each connection to need further tokens.
    tokens = len(sandbox.tokens_issued)
    airflow.wait_until(
        lambda: len(sandbox.tokens_issued) >= tokens + 2 * len(CONNECTIONS), "tokens are renewed", seconds=SECONDS
    )
    for each in (job, *deferred_jobs):
        sandbox.finish(each)
    wanted = dict.fromkeys([*(each["task_id"] for each in sensors), "errors", "load", "upload"], "success")

    def all_succeeded() -> bool:
        states = run.states()
        bad = {task_id: state for task_id, state in states.items() if state in ("failed", "up_for_retry", "skipped")}
        assert not bad, f"{bad}\n{airflow.tails()}"
        return states == wanted

    airflow.wait_until(all_succeeded, "all tasks succeed", seconds=SECONDS)

    assert run.tries() == dict.fromkeys(wanted, 1)
    jobs = {each.coupon_series_id: each.job_id for each in (job, short_job, *deferred_jobs)}
    for each in sensors:
        (found,) = run.xcoms(each["task_id"])
        assert (found["job_id"], found["status"]) == (jobs[each["coupon_series_id"]], "COMPLETED")
    copy = lake / f"redeem_errors_{SERIES}_{job.job_id}.csv"
    assert copy.read_bytes() == job.read_error_file()
    assert run.xcoms("errors") == [f"file://{copy}"]
    assert run.xcoms("load") == [1 + ERRORS]
    uploaded = sandbox.jobs(UPLOADED_SERIES)
    assert [(each.rows, each.errors) for each in uploaded] == [(2, 0), (1, 0)]
    assert run.xcoms("upload") == [[each.job_id for each in uploaded]]


def test_the_event_of_the_outlet_carries_the_facts_of_the_file(airflow: AirflowProcesses) -> None:
    after = DagRun(airflow, "after_the_lake")
    airflow.wait_until(lambda: after.states() == {"read_event": "success"}, "the next DAG ran", seconds=SECONDS)

    (facts,) = DagRun(airflow, "real_run").xcoms("errors", "error_file")
    assert after.xcoms("read_event") == [[facts]]
    assert facts["error_count"] == ERRORS


@needs_asset_watchers
def test_a_finished_upload_starts_a_dag(sandbox: Sandbox, airflow: AirflowProcesses) -> None:
    run = DagRun(airflow, "real_watch")

    def polls() -> int:
        return sum(request.path.endswith(f"/{WATCHED_SERIES}") for request in sandbox.requests)

    airflow.wait_until(lambda: polls() >= 2, "the series is watched", seconds=SECONDS)
    job = sandbox.add_job(WATCHED_SERIES)
    airflow.wait_until(lambda: run.states() == {"job_ids": "success"}, "the DAG ran", seconds=SECONDS)

    assert run.xcoms("job_ids") == [[job.job_id]]


def test_a_rotated_secret_and_a_moved_host_reach_waits_that_run(
    airflow: AirflowProcesses, rotated: Changing, moved: Changing
) -> None:
    run = DagRun(airflow, "real_changes")
    airflow.run("dags", "trigger", "real_changes")
    airflow.wait_until(lambda: rotated.is_polled() and moved.is_polled(), "both are polled", seconds=SECONDS)

    new_secret = f"{CLIENT_SECRET}renewed"
    old, moved.sandbox = moved.sandbox, moved.open()
    moved.sandbox.add_job(SERIES, job_id=moved.job.job_id, started_seconds=0, queued_seconds=0)
    changed = {"rotated": rotated.connection | {"password": new_secret}, "moved": moved.connection}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(changed, file)
        file.flush()
        airflow.run("connections", "import", "--overwrite", file.name)
    # The connection first; the old secret is good for some polls more, and so is the old host.
    before = rotated.sandbox.count("status")
    airflow.wait_until(lambda: rotated.is_polled(before + 3), "polls go on with the old secret", seconds=SECONDS)
    rotated.sandbox.client_secret = new_secret
    rotated.sandbox.expire_tokens()
    old.stop()
    before = rotated.sandbox.count("status")
    airflow.wait_until(lambda: rotated.is_polled(before + 3), "polls go on with the new secret", seconds=SECONDS)
    rotated.sandbox.finish(rotated.job)

    airflow.wait_until(
        lambda: run.states() == {"rotated": "success", "moved": "success"}, "both waits succeed", seconds=SECONDS
    )
    assert run.tries() == {"rotated": 1, "moved": 1}
    assert [run.xcoms(name)[0]["job_id"] for name in changed] == [rotated.job.job_id, moved.job.job_id]
    # Of the old host, polls may fail until the connection is read; of the old secret, none does.
    logged = search_files(
        airflow.home / "logs", {"job": "Found redeem upload job", "failure": "Poll of the upload job failed"}
    )
    assert {name for file, name in logged if "task_id=rotated" in file} == {"job"}


# The last one: it searches what all others left behind.
def test_no_token_no_secret_and_no_row_is_in_a_log_or_the_database(
    sandbox: Sandbox, airflow: AirflowProcesses, lake: Path
) -> None:
    airflow.stop()
    values = {"client secret": CLIENT_SECRET, "row": COUPON}
    for number, token in enumerate(sandbox.tokens_issued):
        values[f"signature of token {number}"] = token.rpartition(".")[2]
    assert len(values) > 10

    harmless = {"copy": f"redeem_errors_{SERIES}", "wait": "Found redeem upload job"}
    seen = search_files(airflow.home, harmless)
    assert {name for _, name in seen} == set(harmless)
    assert search_database(airflow.database, values) | search_files(airflow.home, values) == set()


def _of(job: SandboxJob) -> dict[str, Any]:
    return {"coupon_series_id": job.coupon_series_id, "job_id": job.job_id}
