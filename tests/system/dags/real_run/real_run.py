# SPDX-License-Identifier: Apache-2.0
"""A wait in each mode, many deferred ones beside them, a copied error file that the next task reads, and an upload.

For every version of Airflow.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

try:
    from airflow.sdk import DAG, Asset, ObjectStoragePath, task
except ImportError:  # Airflow 2
    from airflow.datasets import Dataset as Asset
    from airflow.decorators import task
    from airflow.io.path import ObjectStoragePath
    from airflow.models.dag import DAG

from airflow_provider_capillary.operators.capillary import CapillaryRedeemUploadOperator
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator

GIVEN = json.loads(Path(__file__).with_name("real_run.json").read_text())
LAKE = Asset("file:///capillary/redeem-errors")

with DAG(
    dag_id="real_run",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    max_active_tasks=64,
    # A second try would soon be seen.
    default_args={"retries": 1, "retry_delay": timedelta(seconds=1)},
):
    waits = [
        CapillaryRedeemUploadSensor(**{"poke_interval": 1, "timeout": 900, **arguments})
        for arguments in GIVEN["sensors"]
    ]
    errors = CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id=GIVEN["coupon_series_id"],
        job_id="{{ ti.xcom_pull('" + waits[0].task_id + "')['job_id'] }}",
        destination=GIVEN["destination"],
        outlets=[LAKE],
    )

    @task
    def load(uri: str) -> int:
        with ObjectStoragePath(uri).open("rb") as file:
            return len(file.read().splitlines())

    waits[0] >> errors >> load(errors.output)

    CapillaryRedeemUploadOperator(
        task_id="upload",
        source=GIVEN["source"],
        coupon_series_id=GIVEN["uploaded_series"],
        customer_identifier="MOBILE",
        coupon_identifier="COUPON_CODE",
        max_rows_per_job=2,
        wait_for_completion=True,
        deferrable=True,
        poke_interval=1,
        lookup_seconds=5,
    )

with DAG(dag_id="after_the_lake", schedule=[LAKE], start_date=datetime(2026, 1, 1, tzinfo=UTC)):

    @task
    def read_event(triggering_asset_events=None, triggering_dataset_events=None):
        events = triggering_dataset_events if triggering_asset_events is None else triggering_asset_events
        return [event.extra for found in events.values() for event in found]

    read_event()
