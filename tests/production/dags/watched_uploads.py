# SPDX-License-Identifier: Apache-2.0
"""Two watched coupon series, each with a DAG that needs no worker."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_capillary.assets.capillary import capillary_redeem_uploads

for series in (820_001, 820_002):
    asset = capillary_redeem_uploads(series, capillary_conn_id="watches", poll_interval=3)
    with DAG(dag_id=f"watched_uploads_{series}", schedule=[asset]):
        EmptyOperator(task_id="nothing")
