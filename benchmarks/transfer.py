# SPDX-License-Identifier: Apache-2.0
"""Measure the way of an error file into S3: our operator beside what a user would pick instead.

The peers are HttpToS3Operator of the Amazon provider, and curl followed by boto3's ``upload_file``. All fetch the same
file from the same server and put it into the same SeaweedFS, each in a process of its own; rounds take turns, and the
median of each candidate counts. Run it from the root of the repository: ``python -m benchmarks.transfer``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS, PEER, CURL, UPLOAD = "airflow_provider_capillary", "HttpToS3Operator", "curl", "boto3 upload_file"
SERIES = 535512
MIB = 1 << 20
RESULTS = Path(__file__).parent / "results" / "transfer.txt"


class TaskInstance:
    """What the operator uses of a task instance."""

    def xcom_push(self, **given: Any) -> None:
        """Take an XCom."""


def peak_of_memory() -> int:
    """Return the most bytes this process ever held."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def cpu_seconds() -> float:
    """Return the CPU that this process and the processes that it waited for have used, threads included."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def work_of(candidate: str, given: dict[str, Any]) -> Any:
    """Return what is measured, as a function."""
    if candidate == CURL:
        return lambda: subprocess.run(["curl", "-sf", "-o", given["copy"], given["url"]], check=True)
    if candidate == UPLOAD:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        client = S3Hook(aws_conn_id="aws_default").get_conn()
        return lambda: client.upload_file(given["copy"], given["bucket"], "boto3.csv")
    if candidate == PEER:
        from airflow.providers.amazon.aws.transfers.http_to_s3 import HttpToS3Operator

        peer = HttpToS3Operator(
            task_id="peer",
            http_conn_id="peer",
            endpoint=given["path"],
            s3_bucket=given["bucket"],
            s3_key="peer.csv",
            replace=True,
        )
        return lambda: peer.execute({})
    from airflow_provider_capillary.transfers.capillary_to_object_storage import (
        CapillaryErrorFileToObjectStorageOperator,
    )

    ours = CapillaryErrorFileToObjectStorageOperator(
        task_id="ours",
        coupon_series_id=SERIES,
        job_id=given["job_id"],
        destination=f"s3://{given['bucket']}/ours.csv",
        object_storage_conn_id="aws_default",
    )
    return lambda: ours.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]


def measure(candidate: str, given: dict[str, Any]) -> dict[str, float]:
    # First a file of a few bytes: imports and connections cost the same for any file after them.
    work_of(candidate, given["small"])()
    work = work_of(candidate, given["large"])
    before = peak_of_memory()
    began, began_cpu = time.perf_counter(), cpu_seconds()
    work()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - began_cpu
    return {"seconds": seconds, "cpu": cpu, "growth_mib": (peak_of_memory() - before) / MIB}


def serve(file: str) -> None:
    """Serve the file as Capillary until standard input ends."""
    from airflow_provider_capillary.sandbox import Sandbox

    with Sandbox(queued_seconds=0, started_seconds=0) as sandbox:
        setup = {"base_url": sandbox.base_url, "connection": sandbox.connection_json(requests_per_minute=100_000)}
        for name, content in (("small", b"a few bytes"), ("large", Path(file))):
            url = f"{sandbox.base_url}/files/{name}.csv"
            job = sandbox.add_job(SERIES, errors=1, error_file=content, error_file_url=url)
            setup[name] = {"url": url, "path": f"files/{name}.csv", "job_id": job.job_id}
        print(json.dumps(setup), flush=True)
        sys.stdin.read()


@contextmanager
def serving(
    file: Path, folder: Path, *, is_https: bool = False
) -> Iterator[tuple[dict[str, dict[str, Any]], dict[str, str]]]:
    """Serve a file as Capillary, beside an S3 store.

    :param file: The large file.
    :param folder: Airflow's home.
    :param is_https: Whether S3 is served over https.
    :return: A context manager of what each candidate needs for the small and the large file, and of its environment.
    """
    from tests.integration.seaweedfs import SeaweedFS

    command = [sys.executable, "-m", "benchmarks.transfer", "--serve", str(file)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server,
        SeaweedFS(is_https=is_https) as s3,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        setup = json.loads(server.stdout.readline())
        given = {
            name: setup[name] | {"bucket": s3.bucket, "copy": str(folder / f"{name}-copy.csv")}
            for name in ("small", "large")
        }
        env = os.environ | {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW_CONN_CAPILLARY_DEFAULT": setup["connection"],
            "AIRFLOW_CONN_AWS_DEFAULT": s3.aws_connection_json(),
            "AIRFLOW_CONN_PEER": json.dumps({"conn_type": "http", "host": setup["base_url"]}),
            "NO_PROXY": "127.0.0.1",
        }
        # A machine that writes no byte code would measure the compiler.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        yield given, env
        server.stdin.close()


def round_of(size: int, folder: Path, *, is_https: bool) -> dict[str, dict[str, float]]:
    """Let each candidate bring the file over once, against servers of this round alone."""
    file = folder / "errors.csv"
    if not file.exists():
        block = os.urandom(MIB)
        with file.open("wb") as writing:
            for _ in range(size // MIB):
                writing.write(block)
    command = [sys.executable, "-m", "benchmarks.transfer"]
    figures = {}
    with serving(file, folder, is_https=is_https) as (given, env):
        for candidate in (PEER, OURS, CURL, UPLOAD):
            # What upload_file needs, for the files that curl brings in a process of its own.
            (folder / "small-copy.csv").write_bytes(b"a few bytes")
            done = subprocess.run(
                [*command, "--measure", candidate, json.dumps(given)],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
            figures[candidate] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, nargs="+", default=[1, 64, 1024], help="sizes (default: 1 64 1024)")
    parser.add_argument("--schemes", nargs="+", default=["http", "https"], help="of S3 (default: http https)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each size (default: 3)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    if arguments.measure:
        candidate, given = arguments.measure
        print(json.dumps(measure(candidate, json.loads(given))))
        return
    lines = [
        f"median of {arguments.rounds} rounds that took turns; CPU of the process, growth of its peak memory",
        f"{'':<28}{'MiB':>8}{'seconds':>10}{'MiB/s':>10}{'CPU':>10}{'CPU/GiB':>10}{'growth':>12}{'all CPU':>28}",
    ]
    for scheme, mib in itertools.product(arguments.schemes, arguments.mib):
        lines.append(f"S3 over {scheme}")
        folder = Path(tempfile.mkdtemp())
        try:
            rounds = [round_of(mib * MIB, folder, is_https=scheme == "https") for _ in range(arguments.rounds)]
        finally:
            shutil.rmtree(folder)
        medians: dict[str, dict[str, float]] = {}
        for candidate in (PEER, OURS, CURL, UPLOAD):
            mine = [each[candidate] for each in rounds]
            median = {name: statistics.median(each[name] for each in mine) for name in ("seconds", "cpu")}
            medians[candidate] = median
            shown = [f"{each['cpu']:.2f}" for each in mine]
            growth = max(each["growth_mib"] for each in mine)
            figures = [f"{mib:>8}", f"{median['seconds']:>10.2f}", f"{mib / median['seconds']:>10.0f}"]
            figures += [f"{median['cpu']:>10.2f}", f"{median['cpu'] * 1024 / mib:>10.2f}", f"{growth:>8.0f} MiB"]
            lines.append(f"{candidate:<28}" + "".join(figures) + f"{' '.join(shown):>28}")
        for name, others in ((PEER, (PEER,)), (UPLOAD, (UPLOAD,)), (f"{CURL}, then {UPLOAD}", (CURL, UPLOAD))):
            ratios = [medians[OURS][of] / sum(medians[other][of] for other in others) for of in ("cpu", "seconds")]
            lines.append(f"{'ours to ' + name:<38}" + f"CPU {ratios[0]:.2f}, seconds {ratios[1]:.2f}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
