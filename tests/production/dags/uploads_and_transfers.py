# SPDX-License-Identifier: Apache-2.0
"""The uploads and transfers that the test wrote down beside this file, a few at a time."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_capillary.operators.capillary import CapillaryRedeemUploadOperator
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator

given = json.loads(Path(__file__).with_name("uploads_and_transfers.json").read_text())

with DAG(
    dag_id="uploads_and_transfers",
    schedule=None,
    max_active_tasks=100,
    # For tasks whose worker is killed.
    default_args={"retries": 9, "retry_delay": timedelta(seconds=1)},
):
    CapillaryRedeemUploadOperator.partial(
        task_id="upload",
        capillary_conn_id="uploads",
        customer_identifier="MOBILE",
        coupon_identifier="COUPON_CODE",
        max_rows_per_job=given["rows_per_job"],
        lookup_seconds=5,
        max_active_tis_per_dag=given["at_once"],
    ).expand_kwargs(given["uploads"])

    CapillaryErrorFileToObjectStorageOperator.partial(
        task_id="transfer",
        capillary_conn_id="uploads",
        max_active_tis_per_dag=2,
    ).expand_kwargs(given["transfers"])
