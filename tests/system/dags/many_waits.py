# SPDX-License-Identifier: Apache-2.0
"""One deferred sensor for each wait that the test wrote down beside this file."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor

with DAG(
    dag_id="many_waits",
    schedule=None,
    max_active_tasks=64,
    # A job that failed must not use them: a second try would soon be seen.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):
    for wait in json.loads(Path(__file__).with_name("many_waits.json").read_text()):
        CapillaryRedeemUploadSensor(**wait, deferrable=True, poke_interval=2, timeout=1800)
