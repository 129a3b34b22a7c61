# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_capillary.sandbox``."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import airflow_provider_capillary
from airflow_provider_capillary.sandbox import Sandbox
from tests.sandbox.client import SERIES, Client, csv_file, good_row, multipart, upload_parts

ROOT = Path(airflow_provider_capillary.__file__).parents[1]
COMMAND = [sys.executable, "-m", "airflow_provider_capillary.sandbox"]


class Running:
    """A sandbox in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], connection: dict) -> None:
        self.process = process
        # Only an address to the client, never started.
        self.client = Client(Sandbox(port=connection["port"]))

    def stop(self, by: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(by)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def run(tmp_path):
    """Run the command with further options; return once it serves."""
    with contextlib.ExitStack() as stack:

        def run_it(*options: str) -> Running:
            file = tmp_path / f"connection-{time.monotonic_ns()}.json"
            process = subprocess.Popen(
                [*COMMAND, "--port", "0", "--connection-file", str(file), *options],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(lambda: (process.kill(), process.communicate()))
            deadline = time.monotonic() + 20
            while not file.exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return Running(process, json.loads(file.read_text()))

        yield run_it


def wait_for_exit(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_stops_cleanly(run, by):
    running = run("--quiet")
    assert running.client.ask_token().status == 200

    code, _, err = running.stop(by)

    assert (code, err) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        running.client.ask_token()


def test_the_printed_connection_works(run):
    running = run("--quiet")
    url = running.client.sandbox.base_url
    _, out, _ = running.stop()

    lines = out.splitlines()
    assert lines[0].endswith(url)
    (export,) = (line for line in lines if line.startswith("export "))
    name, _, value = shlex.split(export)[1].partition("=")
    assert name == "AIRFLOW_CONN_CAPILLARY_DEFAULT"
    assert export == f"export {name}='{value}'"
    assert json.loads(value) == {
        "conn_type": "capillary",
        "host": "http://127.0.0.1",
        "port": running.client.sandbox.port,
        "login": "sandbox-key",
        "password": "sandbox-secret",
        "extra": {},
    }
    assert f"Coupon series {SERIES}" in out


def test_the_curl_lines_it_prints_work(run):
    running = run("--quiet")
    url = running.client.sandbox.base_url
    before = json.loads(urllib.request.urlopen(f"{url}/sandbox", timeout=20).read())
    out = []
    while not (out and out[-1].startswith("Stop it")):
        out.append(running.process.stdout.readline())

    for line in out:
        if " -d " in line:
            words = shlex.split(line.partition("curl")[2])
            with urllib.request.urlopen(words[1], words[3].encode(), timeout=20) as response:
                assert response.status == 201

    after = json.loads(urllib.request.urlopen(f"{url}/sandbox", timeout=20).read())
    assert len(after["coupon_series"][str(SERIES)]) == len(before["coupon_series"][str(SERIES)]) + 1
    assert after["faults"] == [{"kind": "status", "endpoint": "status", "skip": 0, "times": 2}]


def test_it_begins_with_some_history_and_a_job_in_progress(run):
    running = run("--quiet", "--queued-seconds", "600")

    jobs = running.client.jobs()

    assert [job["uploadRedeemedCouponStatus"] for job in jobs] == ["COMPLETED"] * 3 + ["QUEUED"]
    assert len({job["createdOn"] for job in jobs}) == 4
    assert jobs[1]["errorFileUrl"] is not None


def test_the_job_in_progress_ends_with_errors(run):
    running = run("--quiet", "--queued-seconds", "0.01", "--started-seconds", "0.01")

    deadline = time.monotonic() + 20
    while (last := running.client.jobs()[-1])["uploadRedeemedCouponStatus"] != "COMPLETED":
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert last["errorCount"] == 3
    assert running.client.download(last["errorFileUrl"]).body.count(b"\n") == 4


def test_other_series_or_none_can_be_seeded(run):
    several, none = run("--quiet", "--seed-series", "7", "8"), run("--quiet", "--seed-series")

    assert [len(several.client.jobs(series)) for series in (7, 8, SERIES)] == [4, 4, 0]
    assert none.client.jobs() == []


def test_its_options_reach_the_sandbox(run):
    client = run(
        "--quiet", "--client-key", "k", "--client-secret", "it's", "--token-ttl", "60", "--refusal", "body_498"
    ).client

    assert client.ask_token("k", "it's").json()["data"]["ttlSeconds"] == 60
    refused = client.ask_status(headers={})
    assert (refused.status, refused.json()["response"]["status"]["code"]) == (200, "498")


def test_jobs_of_both_kinds_can_be_seeded(run):
    both, coupons = run("--quiet", "--seed-kind", "redeem", "coupon"), run("--quiet", "--seed-kind", "coupon")

    assert [len(jobs) for jobs in (both.client.jobs(), both.client.coupon_jobs())] == [4, 4]
    assert [len(jobs) for jobs in (coupons.client.jobs(), coupons.client.coupon_jobs())] == [0, 4]


def test_lag_and_authorization_of_uploads_are_options(run):
    client = run("--quiet", "--list-lag-seconds", "3600", "--upload-auth", "bearer").client

    assert [len(client.jobs()), client.upload(b"").status] == [3, 401]
    token = client.ask_token().json()["data"]["accessToken"]
    assert client.upload(b"", headers={"Authorization": f"Bearer {token}"}).status == 400


def test_a_secret_with_quotes_survives_the_shell(run):
    _, out, _ = run("--quiet", "--client-secret", "it's").stop()

    (export,) = (line for line in out.splitlines() if line.startswith("export "))
    assert json.loads(shlex.split(export)[1].partition("=")[2])["password"] == "it's"


def test_it_logs_each_request_and_never_a_header_a_query_a_token_or_a_row(run):
    running = run("--queued-seconds", "0", "--started-seconds", "0")
    client = running.client
    tokens = [client.authorized()["X-CAP-API-OAUTH-TOKEN"] for _ in range(2)]
    client.ask_status(headers={"X-CAP-API-OAUTH-TOKEN": tokens[0]})
    client.upload(multipart(upload_parts(csv_file(good_row("INVALID-PRIVATE")))))
    client.download(client.jobs()[-1]["errorFileUrl"])
    client.send("GET", "/files/x?signature=PRIVATE", headers={"X-Header": "PRIVATE"})

    # A line is written once its answer is sent, so that they may overtake one another.
    lines = [running.process.stderr.readline() for _ in range(10)]
    code, out, err = running.stop()

    assert (code, err) == (0, "")
    assert sum(line.startswith("POST /v3/oauth/token/generate 200 ") for line in lines) == 5
    assert sum(line.startswith("GET /files/x 404 ") for line in lines) == 1
    assert not any(word in out + "".join(lines) for word in ("PRIVATE", "SANDBOX0", "eyJ", *tokens))


def test_the_connection_file_is_for_its_owner_alone_and_goes_with_the_sandbox(run, tmp_path):
    running = run("--quiet")
    (file,) = tmp_path.iterdir()

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["conn_type"] == "capillary"
    running.stop()
    assert list(tmp_path.iterdir()) == []


def test_it_warns_when_others_can_reach_it(run):
    warned, local = run("--host", "0.0.0.0", "--quiet"), run("--host", "localhost", "--quiet")

    assert warned.client.ask_token().status == 200
    _, _, err = warned.stop()
    assert err.startswith("Warning: 0.0.0.0 is no loopback address")
    assert "allow_http" in err
    assert local.stop()[2] == ""


def test_a_port_that_is_taken_is_reported_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = wait_for_exit("--port", str(port))

    assert done.returncode == 1
    assert done.stderr == f"sandbox: 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "99999"], "port: must be from 0 to 65535"),
        (["--port", "0", "--seed-series", "-5"], "coupon_series_id: must be at least 0"),
        (["--refusal", "never"], "invalid choice"),
        (["--upload-auth", "basic"], "invalid choice"),
        (["--seed-kind", "points"], "invalid choice"),
        (["--port", "0", "--list-lag-seconds", "-1"], "list_lag_seconds: must be at least 0"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_a_wrong_option_is_reported_without_a_traceback(options, message):
    done = wait_for_exit(*options)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_connection_file_that_cannot_be_written_is_reported_in_one_line(tmp_path):
    done = wait_for_exit("--port", "0", "--connection-file", str(tmp_path / "missing" / "file"))

    assert done.returncode == 1
    assert "missing" in done.stderr
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
