# SPDX-License-Identifier: Apache-2.0
"""Measure what importing this package adds to a DAG file, which Airflow parses over and over.

Each number is the median of fresh interpreters, so no import is warm but the byte code on disk is. The HTTP
provider, which a user would otherwise write the same DAG with, is measured beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

CANDIDATES = {
    "airflow_provider_capillary": (
        "import airflow_provider_capillary.exceptions\n"
        "from airflow_provider_capillary.hooks.capillary import CapillaryHook, CapillaryAsyncHook\n"
        "from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor\n"
        "from airflow_provider_capillary.triggers.capillary import CapillaryRedeemUploadTrigger\n"
        "from airflow_provider_capillary.transfers.capillary_to_object_storage import "
        "CapillaryErrorFileToObjectStorageOperator"
    ),
    "airflow.providers.http": (
        "from airflow.providers.http.hooks.http import HttpHook, HttpAsyncHook\n"
        "from airflow.providers.http.sensors.http import HttpSensor\n"
        "from airflow.providers.http.triggers.http import HttpSensorTrigger\n"
        "from airflow.providers.http.operators.http import HttpOperator"
    ),
}


def added_milliseconds(candidate: str, airflow_home: str) -> float:
    """Run one fresh interpreter and return how long the candidate takes after `import airflow.sdk`."""
    code = (
        f"import airflow.sdk, time\nstarted = time.perf_counter()\n{candidate}\n"
        "print((time.perf_counter() - started) * 1000)"
    )
    env = os.environ | {"AIRFLOW_HOME": airflow_home}
    # What Airflow parses with has byte code; a machine that writes none would measure the compiler.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{candidate}\n{done.stderr}")
    return float(done.stdout.split()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="fresh interpreters per number (default: 7)")
    parser.add_argument("--budget", type=float, help="fail when our package adds more milliseconds than this")
    arguments = parser.parse_args()

    started = time.perf_counter()
    least = {}
    print(f"{'added to airflow.sdk by':<30}{'median':>9}{'least':>9}")
    with tempfile.TemporaryDirectory() as home:
        for name, candidate in CANDIDATES.items():
            # The first run of each is thrown away: it may have to write the byte code.
            times = [added_milliseconds(candidate, home) for _ in range(arguments.runs + 1)][1:]
            least[name] = min(times)
            print(f"{name:<30}{statistics.median(times):>6.0f} ms{least[name]:>6.0f} ms")
    print(f"{arguments.runs} runs each, {time.perf_counter() - started:.0f} s in all")
    if arguments.budget is not None and least["airflow_provider_capillary"] > arguments.budget:
        print(f"over the budget of {arguments.budget:.0f} ms", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
