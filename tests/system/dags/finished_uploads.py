# SPDX-License-Identifier: Apache-2.0
"""A DAG for each of two coupon series, which starts when upload jobs finish and returns their ids."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_capillary.assets.capillary import capillary_redeem_uploads

for series in (730_001, 730_002):
    with DAG(dag_id=f"finished_uploads_{series}", schedule=[capillary_redeem_uploads(series, poll_interval=2)]):

        @task
        def finished_jobs(triggering_asset_events=None):
            payloads = [event.extra["payload"] for events in triggering_asset_events.values() for event in events]
            return [
                {
                    "jobs": [[job["job_id"], job["status"]] for job in payload["jobs"]],
                    "possible_duplicates": payload["possible_duplicates"],
                }
                for payload in payloads
            ]

        finished_jobs()
