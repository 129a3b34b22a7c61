# SPDX-License-Identifier: Apache-2.0
"""Runs the operator in a fresh interpreter, as each task does, and returns what that imported."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.transfers.running import SERIES

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import SandboxJob

#: Libraries that only the file systems of fsspec need.
FILE_SYSTEMS = ("s3fs", "aiobotocore", "gcsfs", "adlfs")
TASK = """
import json, sys
for module in json.loads(sys.argv[3]):
    sys.modules[module] = None  # as if it were not installed
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.transfers.running import TaskInstance
before = set(sys.modules)
outcomes = []
for destination in json.loads(sys.argv[2]):
    operator = CapillaryErrorFileToObjectStorageOperator(
        task_id="errors", destination=destination, **json.loads(sys.argv[1])
    )
    try:
        outcomes.append(operator.execute({"ti": TaskInstance()}))
    except Exception as error:
        outcomes.append(f"{type(error).__name__}: {error}")
print(json.dumps([outcomes, sorted(set(sys.modules) - before)]))
"""


def run_fresh(
    job: SandboxJob, *destinations: str, missing: tuple[str, ...] = (), **arguments: Any
) -> tuple[list[str], set[str]]:
    """Run the operator for each destination, all in one fresh interpreter.

    Return the URI or the error of each, and what they imported.
    """
    arguments |= {"coupon_series_id": SERIES, "job_id": job.job_id}
    command = [sys.executable, "-c", TASK, *map(json.dumps, (arguments, destinations, missing))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes, imported = json.loads(done.stdout.splitlines()[-1])
    return outcomes, set(imported)
