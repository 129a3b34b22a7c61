# SPDX-License-Identifier: Apache-2.0
"""Measure a small transfer and a poke in a fresh process, which every task is: ours beside their peers.

The peer for S3 is HttpToS3Operator of the Amazon provider. The peer for a folder is what a user would write in a task:
HttpHook, and the bytes written to a file. The peer of the sensor is HttpSensor. Fresh processes take turns. Each is
measured twice: as a whole, and from the moment at which Airflow's own modules are imported, which no operator can
avoid. How much of the peer that import is alone, and so the least that any ratio of whole processes can be, is printed
beside the ratios. Run it from the root of the repository: ``python -m benchmarks.start``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.transfer import SERIES, TaskInstance, serving

RESULTS = Path(__file__).parent / "results" / "start.txt"
FLOOR = "Airflow alone"
OURS_S3, PEER_S3 = "ours to S3", "HttpToS3Operator"
OURS_FOLDER, PEER_FOLDER = "ours to a folder", "HttpHook and write_bytes"
OURS_POKE, PEER_POKE = "our sensor, one poke", "HttpSensor, one poke"
CANDIDATES = (FLOOR, PEER_S3, OURS_S3, PEER_FOLDER, OURS_FOLDER, PEER_POKE, OURS_POKE)
PAIRS = (
    (OURS_S3, PEER_S3),
    (FLOOR, PEER_S3),
    (OURS_FOLDER, PEER_S3),
    (OURS_FOLDER, PEER_FOLDER),
    (FLOOR, PEER_FOLDER),
    (OURS_POKE, PEER_POKE),
    (FLOOR, PEER_POKE),
)
WHOLE, WHOLE_CPU, AFTER, AFTER_CPU = "whole process", "its CPU", "after Airflow", "CPU after Airflow"
FIGURES = (WHOLE, WHOLE_CPU, AFTER, AFTER_CPU)
CONTENT = b"message,coupon code\nCoupon is expired, the redemption was not recorded,WELCOME10\n"


def run_ours(given: dict[str, Any], destination: str, conn_id: str | None) -> None:
    from airflow_provider_capillary.transfers.capillary_to_object_storage import (
        CapillaryErrorFileToObjectStorageOperator,
    )

    operator = CapillaryErrorFileToObjectStorageOperator(
        task_id="ours",
        coupon_series_id=SERIES,
        job_id=given["job_id"],
        destination=destination,
        object_storage_conn_id=conn_id,
    )
    operator.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]


def run_peer_to_s3(given: dict[str, Any]) -> None:
    from airflow.providers.amazon.aws.transfers.http_to_s3 import HttpToS3Operator

    peer = HttpToS3Operator(
        task_id="peer",
        http_conn_id="peer",
        endpoint=given["path"],
        s3_bucket=given["bucket"],
        s3_key="peer.csv",
        replace=True,
    )
    peer.execute({})


def run_peer_to_folder(given: dict[str, Any]) -> None:
    from airflow.providers.http.hooks.http import HttpHook

    response = HttpHook(method="GET", http_conn_id="peer").run(given["path"])
    Path(given["folder"], "peer.csv").write_bytes(response.content)


def poke_ours(given: dict[str, Any]) -> None:
    from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor

    sensor = CapillaryRedeemUploadSensor(task_id="ours", coupon_series_id=SERIES, job_id=given["job_id"])
    assert sensor.poke({})


def poke_peer(given: dict[str, Any]) -> None:
    from airflow.providers.http.sensors.http import HttpSensor

    assert HttpSensor(task_id="peer", http_conn_id="peer", endpoint=given["path"]).poke({})


def measure(candidate: str, given: dict[str, Any]) -> dict[str, float]:
    """Run a candidate and return the seconds since Airflow is imported, by the clock and of the CPU."""
    from airflow.sdk import BaseOperator  # noqa: F401 - imported to be measured apart

    began, began_cpu = time.perf_counter(), time.process_time()
    if candidate == OURS_S3:
        run_ours(given, f"s3://{given['bucket']}/ours.csv", "aws_default")
    elif candidate == OURS_FOLDER:
        run_ours(given, f"{given['folder']}/ours.csv", None)
    elif candidate == PEER_S3:
        run_peer_to_s3(given)
    elif candidate == PEER_FOLDER:
        run_peer_to_folder(given)
    elif candidate == OURS_POKE:
        poke_ours(given)
    elif candidate == PEER_POKE:
        poke_peer(given)
    after, after_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return {AFTER: after, AFTER_CPU: after_cpu, WHOLE_CPU: time.process_time()}


def timed(candidate: str, given: dict[str, Any], env: dict[str, str]) -> dict[str, float]:
    """Run a candidate in a fresh process and return its figures, by their names."""
    command = [sys.executable, "-m", "benchmarks.start", "--measure", candidate, json.dumps(given)]
    began = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return {WHOLE: whole, **json.loads(done.stdout.splitlines()[-1])}


def least_and_median(figures: list[dict[str, float]]) -> list[float]:
    columns = [[each[name] for each in figures] for name in FIGURES]
    return [of(column) for column in columns for of in (min, statistics.median)]


def row(name: str, figures: list[float]) -> str:
    return f"{name:<46}" + "".join(f"{figure:>10.2f}" for figure in figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10, help="fresh processes of each candidate (default: 10)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        candidate, given = arguments.measure
        print(json.dumps(measure(candidate, json.loads(given))))
        return
    figures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "errors.csv"
        file.write_bytes(CONTENT)
        with serving(file, Path(folder)) as (setup, env):
            given = setup["large"] | {"folder": folder}
            for number in range(arguments.pairs + 1):
                for candidate in CANDIDATES:
                    measured = timed(candidate, given, env)
                    if number:  # the first may have to write byte code
                        figures.setdefault(candidate, []).append(measured)
    summed_up = {name: least_and_median(each) for name, each in figures.items()}
    lines = [
        f"seconds of {arguments.pairs} fresh processes each, which took turns",
        f"{'':<46}" + "".join(f"{name:>20}" for name in FIGURES),
        f"{'':<46}" + "".join(f"{name:>10}" for name in ("least", "median") * len(FIGURES)),
        *(row(name, each) for name, each in summed_up.items()),
        "ratios",
    ]
    for ours, peer in PAIRS:
        pairs = zip(summed_up[ours], summed_up[peer], strict=True)
        lines.append(row(f"{ours} / {peer}", [mine / theirs for mine, theirs in pairs]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
