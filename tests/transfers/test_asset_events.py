# SPDX-License-Identifier: Apache-2.0
"""What DAGs that are scheduled by the asset learn of the file that updated it."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow_compat import (
    AIRFLOW_VERSION,
    AirflowSkipException,
    AssetAlias,
    OutletEventAccessors,
    add_bundle,
    asset,
    load_dags,
)
from tests.transfers.running import SERIES, SMALL, Run

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.transfers.stores import LocalFolder

ERRORS = asset(name="redeem errors", uri="s3://lake/capillary/redeem-errors")
OTHER = asset(name="what else is made of them", uri="s3://lake/other")

DAG_FILE = """
from datetime import datetime

from tests.airflow_compat import DAG, asset

from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator

with DAG("asset_events", schedule=None, start_date=datetime(2026, 1, 1)):
    CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id={series},
        job_id={job_id},
        destination="{folder}",
        outlets=[asset("errors", "s3://lake/errors")],
    )
"""


STORED_EVENTS = "SELECT uri, asset_event.extra FROM asset_event JOIN asset ON asset.id = asset_id"


@pytest.fixture
def job(sandbox: Sandbox) -> SandboxJob:
    return sandbox.add_job(SERIES, errors=1, error_file=SMALL)


def execute(run: Run) -> OutletEventAccessors:
    """Run it with Airflow's own accessors; return these."""
    events = OutletEventAccessors()
    context: Any = {"ti": run.ti, "outlet_events": events}
    run.result = run.operator.execute(context)
    return events


def test_the_event_of_each_asset_carries_the_facts_of_the_file(job: SandboxJob, store: LocalFolder) -> None:
    run = Run(job, store.folder, outlets=[ERRORS, OTHER])

    events = execute(run)

    assert events[ERRORS].extra == events[OTHER].extra == run.xcoms["error_file"]
    assert sorted(events[ERRORS].extra) == ["coupon_series_id", "error_count", "job_id", "sha256", "size_bytes", "uri"]


def test_what_the_event_carries_is_json(job: SandboxJob, store: LocalFolder) -> None:
    events = execute(Run(job, store.folder, outlets=[ERRORS]))

    assert json.loads(json.dumps(events[ERRORS].extra)) == events[ERRORS].extra


def test_no_row_is_in_the_event(job: SandboxJob, store: LocalFolder) -> None:
    assert "WELCOME10" not in str(execute(Run(job, store.folder, outlets=[ERRORS]))[ERRORS].extra)


def test_an_outlet_that_is_no_asset_gets_nothing(job: SandboxJob, store: LocalFolder) -> None:
    assert len(execute(Run(job, store.folder, outlets=[AssetAlias("errors")]))) == 0


def test_a_task_without_outlets_needs_no_events(job: SandboxJob, store: LocalFolder) -> None:
    run = Run(job, store.folder)()  # its context has no outlet_events at all

    assert run.result


def test_a_run_without_a_file_has_no_facts_in_its_event(sandbox: Sandbox, store: LocalFolder) -> None:
    job = sandbox.add_job(SERIES, errors=0)
    with pytest.raises(AirflowSkipException):
        execute(Run(job, store.folder, outlets=[ERRORS]))

    events = execute(Run(job, store.folder, outlets=[ERRORS], if_no_errors="succeed"))

    assert events[ERRORS].extra == {}


@pytest.mark.slow
@pytest.mark.skipif(
    AIRFLOW_VERSION < (3, 1),
    reason="dag.test() of 3.0 does not activate the assets, and that of 2 stores no events; the real run has both",
)
@pytest.mark.usefixtures("airflow_database")
def test_airflow_itself_stores_the_events_with_the_facts(
    job: SandboxJob, store: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "asset_events.py").write_text(
        DAG_FILE.format(series=SERIES, job_id=job.job_id, folder=store.folder), encoding="utf-8"
    )
    add_bundle(monkeypatch, "asset-events", dags)
    dag = load_dags(dags, bundle="asset-events")["asset_events"]

    run = dag.test()

    (instance,) = run.get_task_instances()
    facts = instance.xcom_pull("errors", key="error_file")
    with closing(sqlite3.connect(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db")) as database:
        extras = {uri.rpartition("/")[2]: json.loads(extra) for uri, extra in database.execute(STORED_EVENTS)}
    assert extras["errors"] == facts
    assert facts["uri"] == f"{store.folder}redeem_errors_{SERIES}_{job.job_id}.csv"
