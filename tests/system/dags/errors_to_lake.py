# SPDX-License-Identifier: Apache-2.0
"""Wait for a job, copy its error file, read the copy."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator

with DAG(
    dag_id="errors_to_lake",
    schedule=None,
    params={"coupon_series_id": 0, "job_id": 0, "destination": ""},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    wait = CapillaryRedeemUploadSensor(
        task_id="wait",
        coupon_series_id="{{ params.coupon_series_id }}",
        job_id="{{ params.job_id }}",
        deferrable=True,
        poke_interval=1,
        timeout=1800,
    )

    @task
    def choose(params=None) -> int:
        return params["job_id"]

    # Rendered in the triggerer: a parameter, and the output of a task.
    wait_in_triggerer = CapillaryRedeemUploadSensor(
        task_id="wait_in_triggerer",
        coupon_series_id="{{ params.coupon_series_id }}",
        job_id=choose(),
        max_error_count="{{ 1000 * 1000 }}",
        start_from_trigger=True,
        poke_interval=1,
        timeout=1800,
    )
    errors = CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id="{{ params.coupon_series_id }}",
        job_id="{{ ti.xcom_pull('wait')['job_id'] }}",
        destination="{{ params.destination }}",
    )

    @task
    def load(uri: str) -> int:
        with ObjectStoragePath(uri).open("rb") as file:
            return len(file.read().splitlines())

    # The same by a template of one's own.
    wait_too = CapillaryRedeemUploadSensor(
        task_id="wait_too",
        coupon_series_id="{{ params.coupon_series_id }}",
        job_id="{{ ti.xcom_pull('choose', map_indexes=-1) }}",
        start_from_trigger=True,
        poke_interval=1,
        timeout=1800,
    )
    wait_in_triggerer.upstream_list[0] >> wait_too
    [wait, wait_in_triggerer, wait_too] >> errors >> load(errors.output)
