# SPDX-License-Identifier: Apache-2.0
"""Wait for an upload that another system sends, and copy its error file."""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import (
    CapillaryErrorFileToObjectStorageOperator,
)

with DAG(
    dag_id="upload_of_another_system",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
):
    # --8<-- [start:wait]
    wait = CapillaryRedeemUploadSensor(
        task_id="wait",
        coupon_series_id=535512,
        uploaded_file_name="redeemed_{{ ds_nodash }}_*_535512.csv",
        max_error_rate=0.5,
        deferrable=True,
        timeout=6 * 60 * 60,
    )
    # --8<-- [end:wait]

    # --8<-- [start:errors]
    errors = CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id=535512,
        job_id="{{ ti.xcom_pull('wait')['job_id'] }}",
        destination="s3://lake/capillary/redeem-errors/",
        object_storage_conn_id="aws_default",
    )
    # --8<-- [end:errors]

    wait >> errors
