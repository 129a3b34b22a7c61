# SPDX-License-Identifier: Apache-2.0
"""As soon as uploads of redeemed coupons are done: pull the error files of all of them into the lake.

No schedule and no sensor: the triggerer watches the coupon series, and a run starts when upload jobs end. Runs as it
stands against a local Capillary (``python -m airflow_provider_capillary.sandbox``); for your own, set the constants.
"""

from __future__ import annotations

# --8<-- [start:dag]
import pendulum

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2, which has no asset watchers: the asset below says so
    from airflow.decorators import task
    from airflow.models.dag import DAG

from airflow_provider_capillary.assets.capillary import capillary_redeem_uploads, finished_redeem_uploads
from airflow_provider_capillary.transfers.capillary_to_object_storage import (
    CapillaryErrorFileToObjectStorageOperator,
)

COUPON_SERIES_ID = 535512
#: s3://bucket/folder/, file:///folder/ or an absolute path.
DESTINATION = "/tmp/capillary/redeem-errors/"

with DAG(
    dag_id="capillary_redeem_errors_by_event",
    description="Pull the error files of uploads of redeemed coupons when these are done",
    schedule=[capillary_redeem_uploads(COUPON_SERIES_ID, poll_interval=60)],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["capillary", "example"],
) as dag:

    @task
    def jobs_with_errors(triggering_asset_events: dict | None = None) -> list[dict[str, int | None]]:
        """Return what the operator is mapped over; it may be several jobs, of one event or more."""
        # The same job can come twice, should Airflow have crashed. It then goes to the same file with the same bytes.
        return [
            {"coupon_series_id": job.coupon_series_id, "job_id": job.job_id}
            for job in finished_redeem_uploads(triggering_asset_events or {})
            if job.is_completed and job.error_count
        ]

    CapillaryErrorFileToObjectStorageOperator.partial(task_id="errors", destination=DESTINATION).expand_kwargs(
        jobs_with_errors()
    )
# --8<-- [end:dag]
