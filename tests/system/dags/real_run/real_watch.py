# SPDX-License-Identifier: Apache-2.0
"""A DAG that starts when upload jobs of a series are done. For Airflow 3.0 and newer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, task

from airflow_provider_capillary.assets.capillary import capillary_redeem_uploads, finished_redeem_uploads

SERIES = json.loads(Path(__file__).with_name("real_run.json").read_text())["watched_series"]

with DAG(
    dag_id="real_watch",
    schedule=[capillary_redeem_uploads(SERIES, poll_interval=2)],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
):

    @task
    def job_ids(triggering_asset_events=None) -> list[int]:
        return [job.job_id for job in finished_redeem_uploads(triggering_asset_events)]

    job_ids()
