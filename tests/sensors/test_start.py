# SPDX-License-Identifier: Apache-2.0
"""What a poll imports on a worker, where each one may be a process of its own: nothing of other tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox

SERIES = 535512
PACKAGE = "airflow_provider_capillary"
TASK = """
import json, sys
from airflow_provider_capillary._airflow_compat import BaseHook, BaseSensorOperator
# What Airflow imports for a sensor and its connection: before 3.2, providers and an HTTP client among it.
BaseSensorOperator(task_id="plain")
BaseHook.get_connection("capillary_default")
before = set(sys.modules)
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
sensor = CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=int(sys.argv[1]), job_id=int(sys.argv[2]))
is_done = bool(sensor.poke({}))
print(json.dumps([is_done, sorted(set(sys.modules) - before)]))
"""
#: For uploads, transfers and tests.
LIBRARIES = {"requests_toolbelt", "aiohttp", "boto3", "h11", "python_multipart"}
#: For the triggerer, uploads and transfers.
MODULES = {
    f"{PACKAGE}.{name}"
    for name in (
        "triggers.capillary",
        "_polling.shared_poll",
        "_transport.httpcore_transport",
        "_transport.async_connection",
        "_transport.multipart",
        "_transport.error_file_stream",
        "_transport.object_storage",
        "_storage.atomic_write",
        "_storage.upload_ledger",
        "api.csv_files",
        "api.download",
        "api.uploads",
    )
}


@pytest.mark.usefixtures("capillary_connection")
def test_a_poll_on_a_worker_imports_nothing_of_the_triggerer_and_of_files(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES)
    command = [sys.executable, "-c", TASK, str(SERIES), str(job.job_id)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    is_done, imported = json.loads(done.stdout.splitlines()[-1])
    assert is_done
    assert f"{PACKAGE}._transport.requests_transport" in imported
    assert all(map(find_spec, MODULES))
    assert MODULES & set(imported) == set()
    assert LIBRARIES & {name.partition(".")[0] for name in imported} == set()
    assert [name for name in imported if name.startswith("airflow.providers.")] == []
