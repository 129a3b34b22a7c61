# SPDX-License-Identifier: Apache-2.0
"""Runs the operator in a process of its own, to be measured or killed.

Its argument is the operator's arguments as JSON. The last line it prints is JSON:
``{"uri", "error_file", "growth": bytes by which the peak of its memory grew}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.transfers.running import TaskInstance


def peak_of_memory() -> int:
    """Return the most bytes this process ever held; `ru_maxrss` would also count what the parent held at the fork."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    operator = CapillaryErrorFileToObjectStorageOperator(task_id="errors", **json.loads(sys.argv[1]))
    ti = TaskInstance()
    before = peak_of_memory()
    uri = operator.execute({"ti": ti})
    growth = peak_of_memory() - before
    print(json.dumps({"uri": uri, "error_file": ti.xcoms.get("error_file"), "growth": growth}))


if __name__ == "__main__":
    main()
