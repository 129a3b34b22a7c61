# SPDX-License-Identifier: Apache-2.0
"""Run the nightly DAG from one end to the other against a local Capillary; no account is needed.

Plays the brand's part, an upload of redeemed coupons with some that Capillary refuses; then Airflow waits for the job
and pulls its error file. What the run leaves behind is in .demo/.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
DAG_ID = "capillary_nightly_redeem_errors"
SERIES = 535512
FILE_NAME = "redeemed_tonight"
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
        say(f"Uploading {ROWS} redeemed coupons, {REFUSED} of which are none")
        upload(env)
        say(f"Running the DAG {DAG_ID}")
        params = {"coupon_series_id": SERIES, "file_name": FILE_NAME, "destination": f"{lake}/"}
        run(env, "airflow", "dags", "test", DAG_ID, "--conf", json.dumps(params), log=HOME / "dags-test.log")
    return report(xcom("errors", "error_file"), xcom("load", "return_value"))


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


def upload(env: dict[str, str]) -> None:
    """Do what the brand's own system does every night: send the file to Capillary's upload endpoint."""
    os.environ.update(env)
    from airflow_provider_capillary.hooks.capillary import CapillaryHook

    hook = CapillaryHook()
    millis = int(time.time() * 1000)
    lines = ["redeemedDate,till,couponCode,mobile"]
    for number in range(ROWS):
        code = f"{'INVALID' if number < REFUSED else 'SAVE'}{secrets.token_hex(4)}"
        lines.append(f"{millis},till-1,{code},00000000{number:02d}")
    headers = {"redeemedDateInMillis": 0, "redeemedAt": 1, "couponCode": 2, "mobile": 3}
    with hook.get_conn() as session:
        answer = session.post(
            f"{hook.settings.base_url}/coupon/api/v1/upload/redeemFile/{SERIES}",
            files={"file": (f"{FILE_NAME}.csv", "\n".join(lines) + "\n", "text/csv")},
            data={
                "customerIdentifier": "MOBILE",
                "couponIdentifier": "COUPON_CODE",
                "uploadHeaders": json.dumps(headers),
            },
        )
    answer.raise_for_status()


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


def xcom(task_id: str, key: str) -> dict[str, object]:
    """Read an XCom of the run as it lies in Airflow's database."""
    with sqlite3.connect(HOME / "airflow.db") as database:
        row = database.execute(
            "SELECT value FROM xcom WHERE dag_id = ? AND task_id = ? AND key = ?", (DAG_ID, task_id, key)
        ).fetchone()
    if row is None:
        raise SystemExit(f"The run left no XCom {key!r} of task {task_id!r}, see {HOME / 'dags-test.log'}")
    value = json.loads(row[0])
    return dict(json.loads(value) if isinstance(value, str) else value)


def report(error_file: dict[str, object], loaded: dict[str, object]) -> int:
    """Say where the error file is and what it is, but none of its rows; check it against what XCom says of it."""
    path = Path(str(error_file["uri"]).removeprefix("file://"))
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    say("Done")
    print(f"  error file      {path}")
    print(f"  of              job {error_file['job_id']} of coupon series {error_file['coupon_series_id']}")
    print(f"  errors          {error_file['error_count']} of {ROWS} rows")
    print(f"  lines           {loaded['lines']} as the downstream task counted them, header included")
    print(f"  size            {len(content)} bytes")
    print(f"  sha256          {sha256}")
    print(f"  sha256 in XCom  {error_file['sha256']}")
    as_told = (sha256, len(content), REFUSED) == tuple(
        error_file[key] for key in ("sha256", "size_bytes", "error_count")
    )
    if not as_told or loaded["lines"] != REFUSED + 1:
        print("The file is not what XCom says it is.", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
