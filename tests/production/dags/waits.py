# SPDX-License-Identifier: Apache-2.0
"""The waits that the test wrote down beside this file: mapped ones, and a task for each of the others.

It is stored under a name for each series, which is that of the DAG.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor

with DAG(
    dag_id=Path(__file__).stem,
    schedule=None,
    max_active_tasks=500,
    # For tasks whose worker is killed. A job that failed must not use them: a further try would soon be seen.
    default_args={"retries": 9, "retry_delay": timedelta(seconds=1)},
):
    for group in json.loads(Path(__file__).with_suffix(".json").read_text()):
        if mapped := group.pop("mapped", None):
            CapillaryRedeemUploadSensor.partial(timeout=1800, **group).expand_kwargs(mapped)
        else:
            CapillaryRedeemUploadSensor(timeout=1800, **group)
