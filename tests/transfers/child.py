# SPDX-License-Identifier: Apache-2.0
"""Runs the operator in a process of its own, to be measured or killed.

Its argument is the operator's arguments as JSON, and `state_file`: where Airflow would keep the state of the task from
try to try. The last line it prints is JSON:
``{"uri", "error_file", "growth": bytes by which the peak of its memory grew}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.transfers.running import StateStore, TaskInstance


def peak_of_memory() -> int:
    """Return the most bytes this process ever held; `ru_maxrss` would also count what the parent held at the fork."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    arguments = json.loads(sys.argv[1])
    state = StateStore(arguments.pop("state_file", None))
    operator = CapillaryErrorFileToObjectStorageOperator(task_id="errors", **arguments)
    ti = TaskInstance()
    context: Any = {"ti": ti, "task_state_store": state}
    before = peak_of_memory()
    uri = operator.execute(context)
    growth = peak_of_memory() - before
    print(json.dumps({"uri": uri, "error_file": ti.xcoms.get("error_file"), "growth": growth}))


if __name__ == "__main__":
    main()
