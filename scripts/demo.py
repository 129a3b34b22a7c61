# SPDX-License-Identifier: Apache-2.0
"""Run the nightly DAG from one end to the other against a local Capillary; no account is needed.

The DAG uploads redeemed coupons, some of which Capillary refuses, waits for the job, and copies its error file. The
files of the run are in .demo/.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DAG_ID = "capillary_nightly_redeem_errors"
SERIES = 535512
#: What the DAG uploads, and how much of it is wrong.
ROWS, REFUSED = 40, 7


def main() -> int:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    lake = HOME / "lake"
    env = airflow_environment()
    with sandbox(env) as connection:
        env["AIRFLOW_CONN_CAPILLARY_DEFAULT"] = connection
        say("Preparing an Airflow of its own")
        run(env, "airflow", "db", "migrate")
        say(f"Running the DAG {DAG_ID}: {ROWS} coupon redemptions, {REFUSED} with invalid codes")
        params = {"coupon_series_id": SERIES, "folder": f"{HOME}/redeemed/", "destination": f"{lake}/"}
        run(env, "airflow", "dags", "test", DAG_ID, "--conf", json.dumps(params), log=HOME / "dags-test.log")
    return report(
        xcom("upload", "return_value"),
        xcom("wait", "return_value"),
        xcom("errors", "error_file"),
        xcom("load", "return_value"),
    )


def airflow_environment() -> dict[str, str]:
    """Return the environment of an Airflow that knows this run alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # The sandbox is on this machine, and not behind its proxy.
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"])),
    }


@contextmanager
def sandbox(env: dict[str, str]) -> Iterator[str]:
    """Start a local Capillary and give the Airflow connection to it; it is gone afterwards in any case."""
    file = HOME / "connection.json"
    command = [
        sys.executable,
        "-m",
        "airflow_provider_capillary.sandbox",
        "--port",
        "0",
        "--connection-file",
        str(file),
    ]
    command += ["--queued-seconds", "8", "--started-seconds", "8", "--seed-series", "--quiet"]
    with (HOME / "sandbox.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while not file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"The sandbox did not start, see {HOME / 'sandbox.log'}")
                time.sleep(0.05)
            yield file.read_text()
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def run(env: dict[str, str], *command: str, log: Path | None = None) -> None:
    """Run a command quietly; show what it said only when it fails."""
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if log is not None:
        log.write_bytes(done.stdout)
    if done.returncode:
        sys.stdout.write(done.stdout.decode(errors="replace"))
        raise SystemExit(f"{' '.join(command[:3])} ended with exit code {done.returncode}")


def xcom(task_id: str, key: str) -> Any:
    """Read an XCom of the run as it lies in Airflow's database."""
    with sqlite3.connect(HOME / "airflow.db") as database:
        row = database.execute(
            "SELECT value FROM xcom WHERE dag_id = ? AND task_id = ? AND key = ?", (DAG_ID, task_id, key)
        ).fetchone()
    if row is None:
        raise SystemExit(f"The run left no XCom {key!r} of task {task_id!r}, see {HOME / 'dags-test.log'}")
    value = json.loads(row[0])
    return json.loads(value) if isinstance(value, str) else value


def report(job_ids: list[int], job: dict[str, Any], error_file: dict[str, Any], loaded: dict[str, Any]) -> int:
    """Show what the run did, but none of the rows, and check that its tasks agree with each other."""
    path = Path(str(error_file["uri"]).removeprefix("file://"))
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    say("Finished")
    print(f"  uploaded        {job['total_uploaded_count']} rows, as job {job['job_id']} of coupon series {SERIES}")
    print(f"  status          {job['status']}, {job['error_count']} rows refused")
    print(f"  error file      {path}")
    print(f"  lines           {loaded['lines']} as the downstream task counted them, header included")
    print(f"  size            {len(content)} bytes")
    print(f"  sha256          {sha256}")
    print(f"  sha256 in XCom  {error_file['sha256']}")
    agreed = {
        "one job was made and waited for": job_ids == [job["job_id"]] == [error_file["job_id"]],
        "all rows were uploaded": job["total_uploaded_count"] == ROWS,
        "the bad rows were refused": job["error_count"] == error_file["error_count"] == REFUSED,
        "the error file has a line for each": loaded["lines"] == REFUSED + 1,
        "XCom describes the error file": (sha256, len(content)) == (error_file["sha256"], error_file["size_bytes"]),
    }
    for statement, is_true in agreed.items():
        if not is_true:
            print(f"This does not hold: {statement}.", file=sys.stderr)
    return 0 if all(agreed.values()) else 1


def say(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
