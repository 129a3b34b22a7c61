# SPDX-License-Identifier: Apache-2.0
"""Every night: upload the redeemed coupons of the day, wait for the job, copy its error file into the lake, read it.

Runs as it stands against a local Capillary (``python -m airflow_provider_capillary.sandbox``). For your own, replace
``export`` and ``load``, and set the parameters below or trigger the DAG with others.
"""

from __future__ import annotations

# --8<-- [start:dag]
import time
from pathlib import Path
from uuid import uuid4

import pendulum

try:
    from airflow.sdk import DAG, ObjectStoragePath, Param, task
except ImportError:  # Airflow 2
    from airflow.decorators import task
    from airflow.io.path import ObjectStoragePath
    from airflow.models.dag import DAG
    from airflow.models.param import Param

from airflow_provider_capillary.operators.capillary import CapillaryRedeemUploadOperator
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import (
    CapillaryErrorFileToObjectStorageOperator,
)

#: The pool of uploads and transfers. To limit how many ask Capillary at a time, make one, and name it here:
#: airflow pools set capillary 2 "Requests to Capillary"
POOL = "default_pool"

with DAG(
    dag_id="capillary_nightly_redeem_errors",
    description="Upload the redeemed coupons of the day, and copy the error file into the lake",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "coupon_series_id": Param(535512, type="integer", description="The coupon series that the upload is for"),
        "invalid": Param(7, type="integer", description="How many of the 40 exported codes are invalid"),
        "folder": Param("/tmp/capillary/redeemed/", type="string", description="Folder that the day is exported to"),
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

    @task
    def export(params: dict | None = None, run_id: str | None = None) -> str:
        """Write 40 coupon redemptions, 7 with invalid codes, where your own DAG would export those of the day."""
        given = params or {}
        folder = Path(given["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"redeemed_{str(run_id).replace(':', '')}.csv"
        lines = ["redeemedDateInMillis,redeemedAt,couponCode,mobile"]
        for number in range(40):
            code = f"{'INVALID' if number < given['invalid'] else 'SAVE'}{uuid4().hex[:8]}"
            lines.append(f"{time.time_ns() // 1_000_000},till-1,{code},00000000{number:02d}")
        file.write_text("\n".join(lines) + "\n")
        return str(file)

    # One job, or several where the file has more rows than a job may have. A retry or clearing uploads nothing twice.
    upload = CapillaryRedeemUploadOperator(
        task_id="upload",
        coupon_series_id="{{ params.coupon_series_id }}",
        source=export(),
        customer_identifier="MOBILE",
        coupon_identifier="COUPON_CODE",
        pool=POOL,
        retries=2,
    )

    # The wait holds no worker.
    wait = CapillaryRedeemUploadSensor.partial(
        task_id="wait",
        coupon_series_id="{{ params.coupon_series_id }}",
        deferrable=True,
        poke_interval=30,
        timeout=6 * 60 * 60,
    ).expand(job_id=upload.output)

    # Skipped, with what follows, on a night without errors.
    errors = CapillaryErrorFileToObjectStorageOperator.partial(
        task_id="errors",
        coupon_series_id="{{ params.coupon_series_id }}",
        destination="{{ params.destination }}",
        object_storage_conn_id="{{ params.object_storage_conn_id }}",
        pool=POOL,
    ).expand(job_id=upload.output)

    @task
    def load(uri: str, params: dict | None = None) -> dict[str, int | str]:
        """Count the lines, where your own DAG would load them. Never log them: they are personal data."""
        path = ObjectStoragePath(uri, conn_id=(params or {}).get("object_storage_conn_id"))
        with path.open("rb") as file:
            return {"uri": uri, "lines": sum(1 for _ in iter(file.readline, b""))}

    wait >> errors
    load.expand(uri=errors.output)
# --8<-- [end:dag]
