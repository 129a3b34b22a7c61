# SPDX-License-Identifier: Apache-2.0
"""The example DAGs, run whole by Airflow itself against a local Capillary."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import CapillaryConfigurationError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.transfers.capillary_to_object_storage import (
    CapillaryErrorFileToObjectStorageOperator,
)
from tests.airflow_compat import AIRFLOW_VERSION, HAS_ASSET_WATCHERS, load_dags, needs_asset_watchers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import Sandbox

EXAMPLES = Path(__file__).parents[2] / "example_dags"
SERIES = 535512


@contextmanager
def finishing_after_a_poll(sandbox: Sandbox, status: str = "COMPLETED") -> Iterator[None]:
    """Let the job of an upload run until its wait was polled, and then end it: so there is something to wait for."""

    def finish() -> None:
        while not sandbox.jobs(SERIES) and not over.wait(0.01):
            pass
        for job in sandbox.jobs(SERIES):
            sandbox.finish(job, "STARTED")
        polls = sandbox.count("status")
        while sandbox.count("status") == polls and not over.wait(0.05):
            pass
        over.wait(0.3)  # the answer to the poll that was counted is still on its way
        for job in sandbox.jobs(SERIES):
            sandbox.finish(job, status)

    over = threading.Event()
    thread = threading.Thread(target=finish)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run_dag(name: str, conf: dict[str, Any], *, poke_interval: float = 1.0) -> dict[str, Any]:
    """Run an example DAG to its end; return the states of its tasks and their XComs."""
    dag = load_dags(EXAMPLES / f"{name}.py")[name]
    # As shipped it is fit for a night, not for a test.
    wait: Any = dag.task_dict["wait"]
    is_mapped = hasattr(wait, "partial_kwargs")
    if is_mapped:
        wait.partial_kwargs["poke_interval"] = poke_interval
    else:
        wait.poke_interval = poke_interval
    run = dag.test(run_conf=conf)
    instances = {ti.task_id: ti for ti in run.get_task_instances()}
    pull = partial(instances["wait"].xcom_pull, map_indexes=0 if is_mapped else -1)
    return {
        "states": {task_id: str(ti.state) for task_id, ti in instances.items()},
        "uploaded": instances["wait"].xcom_pull("upload") if "upload" in instances else None,
        "job": pull("wait"),
        "uri": pull("errors"),
        "error_file": pull("errors", key="error_file"),
        "loaded": pull("load") if "load" in instances else None,
    }


@pytest.mark.usefixtures("airflow_database", "capillary_connection")
class TestNightlyDag:
    def run(self, folder: Path, **conf: Any) -> dict[str, Any]:
        """Run the DAG with its folders within a folder."""
        given = {"folder": f"{folder}/redeemed/", "destination": f"{folder}/errors/", **conf}
        return run_dag("capillary_nightly_redeem_errors", given)

    def test_it_uploads_waits_and_pulls_the_error_file_which_the_next_task_reads(
        self, sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with finishing_after_a_poll(sandbox):
            run = self.run(tmp_path)

        (job,) = sandbox.jobs(SERIES)
        file = tmp_path / "errors" / f"redeem_errors_{SERIES}_{job.job_id}.csv"
        content = file.read_bytes()
        assert set(run["states"].values()) == {"success"}
        assert run["uploaded"] == [job.job_id] == [run["job"]["job_id"]]
        assert (run["job"]["total_uploaded_count"], run["job"]["error_count"]) == (40, 7)
        assert run["uri"] == f"file://{file}"
        assert run["error_file"] == {
            "uri": f"file://{file}",
            "coupon_series_id": SERIES,
            "job_id": job.job_id,
            "error_count": 7,
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        assert run["loaded"] == {"uri": f"file://{file}", "lines": 8}
        output = "".join(capfd.readouterr())
        # What dag.test() of Airflow 3, and of 2, says of a deferral.
        assert "Pausing task as DEFERRED" in output or "running trigger in line" in output
        rows = content.decode().splitlines()[1:]
        (uploaded,) = (tmp_path / "redeemed").iterdir()
        rows += uploaded.read_text().splitlines()[1:]
        assert len(rows) == 7 + 40
        if AIRFLOW_VERSION[:2] == (3, 0):
            # dag.test() of this Airflow prints each request to mask a value, value and all; its scheduler does not.
            output = re.sub(r"MaskSecret\(value='[^']*'", "", output)
        for secret in ("sandbox-secret", *sandbox.tokens_issued, *rows):
            assert secret not in output

    def test_a_night_without_errors_skips_the_file_and_what_follows(self, sandbox: Sandbox, tmp_path: Path) -> None:
        run = self.run(tmp_path, invalid=0)

        assert run["states"] == {
            "export": "success",
            "upload": "success",
            "wait": "success",
            "errors": "skipped",
            "load": "skipped",
        }
        assert not (tmp_path / "errors").exists()

    def test_a_failed_job_fails_the_run_without_a_second_try(self, sandbox: Sandbox, tmp_path: Path) -> None:
        with finishing_after_a_poll(sandbox, "ERRORED"):
            run = self.run(tmp_path)

        states = run["states"]
        assert (states["upload"], states["wait"]) == ("success", "failed")
        assert (states["errors"], states["load"]) == ("upstream_failed", "upstream_failed")
        assert len(sandbox.jobs(SERIES)) == 1


@pytest.mark.usefixtures("airflow_database", "capillary_connection")
class TestByFileNameDag:
    def test_it_pokes_for_the_job_with_the_file_name(self, sandbox: Sandbox, tmp_path: Path) -> None:
        wanted = sandbox.add_job(SERIES, rows=9, errors=2, uploaded_file_name=f"night_1795400755483_{SERIES}.csv")
        sandbox.add_job(SERIES, uploaded_file_name=f"other_1795400755999_{SERIES}.csv")

        run = run_dag(
            "capillary_redeem_upload_by_file_name",
            {"file_name": "night", "destination": f"{tmp_path}/"},
            poke_interval=0.2,
        )

        assert run["states"] == {"wait": "success", "errors": "success"}
        assert run["job"]["job_id"] == wanted.job_id
        assert (tmp_path / f"redeem_errors_{SERIES}_{wanted.job_id}.csv").read_bytes().count(b"\n") == 3

    def test_too_many_refused_rows_fail_it(self, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.add_job(SERIES, rows=9, errors=5, uploaded_file_name=f"night_1795400755483_{SERIES}.csv")

        run = run_dag(
            "capillary_redeem_upload_by_file_name",
            {"file_name": "night", "destination": f"{tmp_path}/"},
            poke_interval=0.2,
        )

        assert run["states"] == {"wait": "failed", "errors": "upstream_failed"}
        assert list(tmp_path.iterdir()) == []


@needs_asset_watchers
@pytest.mark.usefixtures("airflow_database", "capillary_connection")
class TestByEventDag:
    """What starts it is tried in tests/system, with a triggerer and a scheduler."""

    @pytest.fixture
    def dag(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        name = "capillary_redeem_errors_by_event"
        return load_dags(EXAMPLES / f"{name}.py")[name]

    def test_it_is_scheduled_by_the_redeem_uploads_of_the_series(self, dag: Any) -> None:
        from airflow_provider_capillary.triggers.capillary import CapillaryRedeemUploadEventTrigger

        (asset,) = dag.timetable.asset_condition.objects
        assert asset.uri == f"capillary://capillary_default/redeem-uploads/{SERIES}"
        (watcher,) = asset.watchers
        assert isinstance(watcher.trigger, CapillaryRedeemUploadEventTrigger)

    def test_it_pulls_the_error_files_of_all_jobs_of_the_event(
        self, dag: Any, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        jobs = [sandbox.add_job(SERIES, rows=9, errors=errors) for errors in (2, 0, 3)]
        jobs.append(sandbox.add_job(SERIES, ends="ERRORED"))
        done = CapillaryHook().get_redeem_upload_jobs(SERIES)
        event = SimpleNamespace(extra={"payload": {"jobs": [job.to_dict() for job in done]}})

        mapped = dag.task_dict["jobs_with_errors"].python_callable({"the asset": [event]})
        operator = dag.task_dict["errors"]
        for number, arguments in enumerate(mapped):
            pull = CapillaryErrorFileToObjectStorageOperator(
                **{**operator.partial_kwargs, "task_id": f"errors_{number}", "destination": f"{tmp_path}/", **arguments}
            )
            context: Any = {"ti": SimpleNamespace(xcom_push=lambda **given: None)}
            pull.execute(context)

        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
            f"redeem_errors_{SERIES}_{job.job_id}.csv": job.read_error_file() for job in (jobs[0], jobs[2])
        }

    def test_a_run_that_was_started_by_hand_has_nothing_to_pull(self, dag: Any) -> None:
        run = dag.test()

        assert {ti.task_id: str(ti.state) for ti in run.get_task_instances()} == {
            "jobs_with_errors": "success",
            "errors": "skipped",
        }


@pytest.mark.skipif(HAS_ASSET_WATCHERS, reason="this Airflow has asset watchers")
def test_without_asset_watchers_the_example_by_event_says_what_it_needs() -> None:
    with pytest.raises(CapillaryConfigurationError, match=r"capillary_redeem_uploads needs Airflow 3\.0 or newer"):
        runpy.run_path(str(EXAMPLES / "capillary_redeem_errors_by_event.py"))


def test_no_example_asks_anything_while_it_is_parsed(sandbox: Sandbox) -> None:
    usable = [file for file in EXAMPLES.glob("*.py") if HAS_ASSET_WATCHERS or not file.stem.endswith("by_event")]
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('the network was used')\n"
        "socket.socket.connect = refuse\n"
        "import importlib.util, pathlib\n"
        f"for file in map(pathlib.Path, {[str(file) for file in usable]!r}):\n"
        "    spec = importlib.util.spec_from_file_location(file.stem, file)\n"
        "    module = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(module)\n"
        "    print(module.dag.dag_id)\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}

    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) >= {file.stem for file in usable}
    assert sandbox.requests == []
