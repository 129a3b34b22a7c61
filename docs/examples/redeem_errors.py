# SPDX-License-Identifier: Apache-2.0
"""Upload the coupons redeemed during the day, wait for the job, and load its error file. The DAG of the README."""

# --8<-- [start:dag]
import pendulum
from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_capillary.operators.capillary import CapillaryRedeemUploadOperator
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import (
    CapillaryErrorFileToObjectStorageOperator,
)

with DAG(
    dag_id="redeem_errors",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
):
    # --8<-- [start:upload]
    # One job, or several for a large file. A retried or cleared task uploads nothing a second time.
    upload = CapillaryRedeemUploadOperator(
        task_id="upload",
        coupon_series_id=535512,
        source="s3://lake/redeemed/{{ ds }}.csv",
        object_storage_conn_id="aws_default",
        customer_identifier="MOBILE",
        coupon_identifier="COUPON_CODE",
        retries=2,
    )
    # --8<-- [end:upload]

    # --8<-- [start:wait]
    wait = CapillaryRedeemUploadSensor.partial(
        task_id="wait", coupon_series_id=535512, deferrable=True, timeout=6 * 60 * 60
    ).expand(job_id=upload.output)
    # --8<-- [end:wait]

    # --8<-- [start:errors]
    # Skipped, with what follows, on a night without errors.
    errors = CapillaryErrorFileToObjectStorageOperator.partial(
        task_id="errors",
        coupon_series_id=535512,
        destination="s3://lake/capillary/redeem-errors/",
        object_storage_conn_id="aws_default",
    ).expand(job_id=upload.output)
    # --8<-- [end:errors]

    @task
    def load(uri: str) -> int:
        """Count the lines. Never log them: they are personal data."""
        with ObjectStoragePath(uri, conn_id="aws_default").open("rb") as file:
            return sum(1 for _ in iter(file.readline, b""))

    wait >> errors
    load.expand(uri=errors.output)
# --8<-- [end:dag]
