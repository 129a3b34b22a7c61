# SPDX-License-Identifier: Apache-2.0
"""What Airflow gives to a running task, for tests that run operators and sensors without a scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class TaskInstance:
    """What operators and sensors use of a task instance.

    :ivar xcoms: What was pushed to XCom.
    """

    def __init__(
        self,
        try_number: int = 1,
        *,
        max_tries: int = 0,
        dag_id: str = "night",
        task_id: str = "wait",
        run_id: str = "manual",
        map_index: int = -1,
    ) -> None:
        self.try_number = try_number
        self.max_tries = max_tries
        self.dag_id, self.task_id, self.run_id, self.map_index = dag_id, task_id, run_id, map_index
        self.first_reschedule_date: Any = None
        self.xcoms: dict[str, Any] = {}

    def get_first_reschedule_date(self, context: Any) -> Any:
        return self.first_reschedule_date

    def xcom_push(self, key: str, value: Any) -> None:
        # As in Airflow, an XCom has to survive JSON.
        self.xcoms[key] = json.loads(json.dumps(value))


class StateStore:
    """What Airflow keeps of a task from try to try and from process to process, as JSON.

    :param file: Where, so that other tries find it, at the same time too; None for this object alone.
    """

    def __init__(self, file: str | None = None) -> None:
        self._file = None if file is None else Path(file)
        self._values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self._read().get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._write({**self._read(), key: json.loads(json.dumps(value))})

    def delete(self, key: str) -> None:
        self._write({name: value for name, value in self._read().items() if name != key})

    def _read(self) -> dict[str, Any]:
        if self._file is None:
            return self._values
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def _write(self, values: dict[str, Any]) -> None:
        self._values = values
        if self._file is not None:
            # At once, because another process may read it meanwhile.
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps(values))
            part.replace(self._file)
