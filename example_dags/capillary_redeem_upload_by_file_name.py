# SPDX-License-Identifier: Apache-2.0
"""Wait for the upload of one file by its name, and fail when too many of its rows were refused.

Pokes from a worker: right for jobs that take seconds, and for trying things out. The upload itself is left to whoever
sends it today; the name it was sent under is the only thing both sides have to agree on.
"""

from __future__ import annotations

import pendulum

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2
    from airflow.models.dag import DAG
    from airflow.models.param import Param

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import (
    CapillaryErrorFileToObjectStorageOperator,
)

with DAG(
    dag_id="capillary_redeem_upload_by_file_name",
    description="Wait for the upload of one file of redeemed coupons",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    params={
        "coupon_series_id": Param(535512, type="integer", description="The coupon series that the upload is for"),
        "file_name": Param(
            "redeemed",
            type="string",
            description="Name that the file was uploaded under; Capillary adds _{milliseconds}_{series}.csv to it",
        ),
        "destination": Param("/tmp/capillary/redeem-errors/", type="string", description="Folder of the error files"),
    },
    tags=["capillary", "example"],
) as dag:
    wait = CapillaryRedeemUploadSensor(
        task_id="wait",
        coupon_series_id="{{ params.coupon_series_id }}",
        uploaded_file_name="{{ params.file_name }}_*_{{ params.coupon_series_id }}.csv",
        max_error_rate=0.5,
        deferrable=False,
        mode="poke",
        poke_interval=5,
        timeout=10 * 60,
    )

    errors = CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id="{{ params.coupon_series_id }}",
        job_id="{{ ti.xcom_pull('wait')['job_id'] }}",
        destination="{{ params.destination }}",
        if_no_errors="succeed",
    )

    wait >> errors
