# SPDX-License-Identifier: Apache-2.0
"""A task for each connection that an environment variable names, under the retry policy of the example DAG."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pendulum
from airflow.sdk import DAG

from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator

EXAMPLE = Path(__file__).parents[3] / "example_dags" / "capillary_retry_policy.py"

with DAG(
    "retries",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args=runpy.run_path(str(EXAMPLE))["RETRIES"],
) as dag:
    for conn_id in os.environ["RETRY_CONNECTIONS"].split(","):
        CapillaryErrorFileToObjectStorageOperator(
            task_id=conn_id, coupon_series_id=535512, job_id=1, destination="/tmp/", capillary_conn_id=conn_id
        )
