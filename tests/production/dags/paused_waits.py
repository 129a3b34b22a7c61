# SPDX-License-Identifier: Apache-2.0
"""The waits that the test wrote down beside this file, and what follows them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor

with DAG(
    dag_id="paused_waits",
    schedule=None,
    # For tasks whose worker is killed.
    default_args={"retries": 9, "retry_delay": timedelta(seconds=1)},
):
    waits = json.loads(Path(__file__).with_suffix(".json").read_text())
    [CapillaryRedeemUploadSensor(timeout=1800, **wait) for wait in waits] >> EmptyOperator(task_id="following")
