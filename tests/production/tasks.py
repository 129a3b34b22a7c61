# SPDX-License-Identifier: Apache-2.0
"""The tasks of a DAG as they lie in the database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.production.xcoms import decoded

if TYPE_CHECKING:
    from tests.system.airflow_processes import AirflowProcesses


class Tasks:
    """The tasks of a DAG with one run and no mapped task.

    :param cluster: The cluster.
    :param dag_id: The DAG.
    """

    def __init__(self, cluster: AirflowProcesses, dag_id: str) -> None:
        self._cluster = cluster
        self._dag_id = dag_id

    def states(self) -> dict[str, str | None]:
        """The state of each task."""
        return dict(self._select("task_instance", "state"))

    def tries(self) -> dict[str, int]:
        """The number of the last try of each task."""
        return dict(self._select("task_instance", "try_number"))

    def jobs(self) -> dict[str, int]:
        """The id of the job in the XCom of each task."""
        found = self._select("xcom", "value", "key = 'return_value'")
        return {task_id: decoded(value)["job_id"] for task_id, value in found}

    def ends(self) -> Counter[str]:
        """How often each task succeeded, as Airflow's log of events has it."""
        return Counter(task_id for task_id, _ in self._select("log", "event", "event = 'success'"))

    def _select(self, table: str, column: str, condition: str = "true") -> list[Any]:
        query = f"SELECT task_id, {column} FROM {table} WHERE dag_id = ? AND {condition}"
        return self._cluster.select(query, self._dag_id)
