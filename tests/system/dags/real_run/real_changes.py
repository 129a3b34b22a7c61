# SPDX-License-Identifier: Apache-2.0
"""Two waits over connections that change while they run. For every version of Airflow."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models.dag import DAG

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor

with DAG(dag_id="real_changes", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    for arguments in json.loads(Path(__file__).with_name("real_run.json").read_text())["changing"]:
        CapillaryRedeemUploadSensor(poke_interval=1, timeout=900, deferrable=True, **arguments)
