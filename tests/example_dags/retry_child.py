# SPDX-License-Identifier: Apache-2.0
"""Runs the DAG of retry_dags until each task has ended or waits for its retry, and prints what Airflow stored."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

from airflow_provider_capillary.api.retry import HttpRetry, default_http_retry
from tests.airflow_compat import load_dags

DAG_ID = "retries"
FOLDER = Path(__file__).parent / "retry_dags"
SETTLED = {"failed", "success", "up_for_retry"}


def _print_when_settled(count: int) -> None:
    """Print state, delay and reason of each task as JSON, and end the process, which would wait for the delays."""
    # By its file, because Airflow's models cannot be imported by two threads at once.
    database = sqlite3.connect(Path(os.environ["AIRFLOW_HOME"], "airflow.db"), timeout=60)
    while True:
        found = database.execute(
            "SELECT task_id, state, retry_delay_override, retry_reason, try_number FROM task_instance WHERE dag_id = ?",
            [DAG_ID],
        ).fetchall()
        if len(found) == count and all(state in SETTLED for _, state, *_ in found):
            sys.stdout.write(f"\n{json.dumps({task_id: stored for task_id, *stored in found})}\n")
            sys.stdout.flush()
            os._exit(0)
        time.sleep(0.2)


def main() -> None:
    """Run the DAG."""
    dag = load_dags(FOLDER, bundle=DAG_ID)[DAG_ID]
    threading.Thread(target=_print_when_settled, args=[len(dag.task_dict)], daemon=True).start()
    with default_http_retry(HttpRetry(max_attempts=2, base_seconds=0.01)):
        dag.test()


if __name__ == "__main__":
    main()
