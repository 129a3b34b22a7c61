# SPDX-License-Identifier: Apache-2.0
"""Retry a task by the error that it failed with: late, soon or never.

Needs Airflow 3.3, which has retry policies. On an older Airflow the tasks are retried after ``retry_delay`` each time.
Copy ``RETRIES`` into your own DAG, and change its delays.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2
    from airflow.models.dag import DAG
    from airflow.models.param import Param

from airflow_provider_capillary.exceptions import (
    CapillaryAccessError,
    CapillaryAuthError,
    CapillaryConfigurationError,
    CapillaryRateLimitError,
    CapillaryTransportError,
)
from airflow_provider_capillary.transfers.capillary_to_object_storage import (
    CapillaryErrorFileToObjectStorageOperator,
)

RETRIES: dict[str, Any] = {"retries": 5, "retry_delay": timedelta(minutes=5)}
try:
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
except ImportError:  # Airflow before 3.3
    pass
else:
    RETRIES["retry_policy"] = ExceptionRetryPolicy(
        # The first rule that fits an error decides. After any other error, the task is retried after retry_delay.
        rules=[
            RetryRule(
                CapillaryRateLimitError,
                RetryAction.RETRY,
                retry_delay=timedelta(minutes=15),
                reason="Capillary refuses more requests for now",
            ),
            RetryRule(
                CapillaryTransportError,
                RetryAction.RETRY,
                retry_delay=timedelta(seconds=30),
                reason="Capillary could not be reached",
            ),
            RetryRule(
                [CapillaryAuthError, CapillaryAccessError, CapillaryConfigurationError],
                RetryAction.FAIL,
                reason="Somebody has to correct the connection or an argument first",
            ),
        ]
    )

with DAG(
    dag_id="capillary_retry_policy",
    description="Copy an error file into the lake, and retry by the error",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args=RETRIES,
    params={
        "coupon_series_id": Param(535512, type="integer", description="The coupon series"),
        "job_id": Param(1, type="integer", description="The upload job, which has finished"),
        "destination": Param("/tmp/capillary/redeem-errors/", type="string", description="Folder of the error files"),
    },
    tags=["capillary", "example"],
) as dag:
    CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id="{{ params.coupon_series_id }}",
        job_id="{{ params.job_id }}",
        destination="{{ params.destination }}",
        if_no_errors="succeed",
    )
