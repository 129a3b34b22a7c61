# SPDX-License-Identifier: Apache-2.0
"""Every night: wait for the upload of redeemed coupons, pull its error file into the lake, and read it.

Runs as it stands against a local Capillary (``python -m airflow_provider_capillary.sandbox``); for your own, set the
parameters below, or trigger the DAG with others.
"""

from __future__ import annotations

import pendulum

try:
    from airflow.sdk import DAG, ObjectStoragePath, Param, task
except ImportError:  # Airflow 2
    from airflow.decorators import task
    from airflow.io.path import ObjectStoragePath
    from airflow.models.dag import DAG
    from airflow.models.param import Param

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import (
    CapillaryErrorFileToObjectStorageOperator,
)

with DAG(
    dag_id="capillary_nightly_redeem_errors",
    description="Pull the error file of the nightly upload of redeemed coupons",
    # Around the time at which the upload is sent. The sensor waits for it, and then for its end.
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "coupon_series_id": Param(535512, type="integer", description="The coupon series that the upload is for"),
        "file_name": Param(
            None,
            type=["null", "string"],
            description="Name under which the file was uploaded; by default redeemed_ and the day of the run",
        ),
        "destination": Param(
            "/tmp/capillary/redeem-errors/",
            type="string",
            description="Folder of the error files: s3://bucket/folder/, file:///folder/ or an absolute path",
        ),
        "object_storage_conn_id": Param(None, type=["null", "string"], description="Airflow connection of the store"),
    },
    # Airflow's default renders templates to text. Natively, a number stays a number and none stays none.
    render_template_as_native_obj=True,
    tags=["capillary", "example"],
) as dag:
    # Tonight's file by its name, and not just the newest job, which is yesterday's until tonight's file is uploaded.
    # Capillary adds the moment and the series to the name. The wait holds no worker.
    wait = CapillaryRedeemUploadSensor(
        task_id="wait",
        coupon_series_id="{{ params.coupon_series_id }}",
        uploaded_file_name=(
            # Airflow 2 has no run_after, and in Airflow 3 a run by hand has no logical date.
            "{{ params.file_name or "
            "'redeemed_' ~ ((dag_run.run_after if dag_run.run_after is defined else logical_date) | ds_nodash) }}"
            "_*_{{ params.coupon_series_id }}.csv"
        ),
        deferrable=True,
        poke_interval=30,
        timeout=6 * 60 * 60,
    )

    # Skipped, with what follows, on a night without errors.
    errors = CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id="{{ params.coupon_series_id }}",
        job_id="{{ ti.xcom_pull('wait')['job_id'] }}",
        destination="{{ params.destination }}",
        object_storage_conn_id="{{ params.object_storage_conn_id }}",
    )

    @task
    def load(uri: str, params: dict | None = None) -> dict[str, int | str]:
        """Count the lines, where your own DAG would load them. Never log them: they are personal data."""
        path = ObjectStoragePath(uri, conn_id=(params or {}).get("object_storage_conn_id"))
        with path.open("rb") as file:
            return {"uri": uri, "lines": sum(1 for _ in iter(file.readline, b""))}

    wait >> errors >> load(errors.output)
