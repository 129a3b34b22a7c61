# SPDX-License-Identifier: Apache-2.0
"""Measure an upload of redeemed coupons: ``CapillaryHook.upload_redeemed_coupons`` beside ``curl -F`` of the same file.

Both send the file to a local endpoint, each from a process of its own; rounds take turns, and the median of each
candidate counts. There are two endpoints: the sandbox, which parses the form and redeems each row before it answers, as
a server has to, and one that discards the form as fast as it can. The hook reads the file once before it sends
anything, to check and count its rows; curl does not, so the second endpoint shows the price of that check. Run it from
the root of the repository: ``python -m benchmarks.upload``. It fails above its limits: memory with both endpoints, time
with the sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.transfer import cpu_seconds, peak_of_memory

OURS, CURL, SCAN = "airflow_provider_capillary", "curl", "our check alone"
CANDIDATES = (CURL, OURS, SCAN)
SERIES = 535512
MIB = 1 << 20
COLUMNS = ("redeemedDateInMillis", "redeemedAt", "userId", "couponCode", "billId", "billNumber", "details")
SANDBOX, DISCARD = "sandbox", "discards"
RESULTS = Path(__file__).parent / "results" / "upload.txt"


# --- the endpoint --------------------------------------------------------------------------------------------------


class Endpoint:
    """Answers token and status requests and uploads as Capillary does, and discards what is uploaded.

    On bare sockets: a server that parses the form would take longer than the upload.
    """

    def __init__(self) -> None:
        self._jobs: list[dict[str, Any]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve_client, args=[client], daemon=True).start()

    def _serve_client(self, client: socket.socket) -> None:
        buffer = bytearray(MIB)
        received = b""
        with client:
            while True:
                while b"\r\n\r\n" not in received:
                    block = client.recv(65536)
                    if not block:
                        return
                    received += block
                head, _, body = received.partition(b"\r\n\r\n")
                request_line, *lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                if "chunked" in headers.get("transfer-encoding", ""):
                    client.sendall(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                if headers.get("expect", "").lower() == "100-continue":
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                size = int(headers.get("content-length", 0))
                # The other parts and the name of the file, whichever is first.
                begin = body[:size]
                left = size - len(begin)
                while left:
                    count = client.recv_into(buffer, min(left, MIB))
                    if not count:
                        return
                    if len(begin) < 4096:
                        begin += buffer[:count]
                    left -= count
                received = body[size:]
                answer = json.dumps(self._answer(request_line.split(" ")[1], begin)).encode()
                client.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(answer), answer)
                )

    def _answer(self, path: str, begin: bytes) -> dict[str, Any]:
        if path.endswith("/token/generate"):
            return {"data": {"accessToken": "header.claims.signature", "ttlSeconds": 3600}, "errors": None}
        result = {"orgId": 100737, "couponSeriesId": SERIES, "redeemUploadJobStatuses": self._jobs}
        if "/redeemFile/" in path:
            named = re.search(rb'filename="([^"]+)"', begin)
            assert named, "the form has a file"
            now = int(time.time() * 1000)
            stored = f"{named[1].decode().removesuffix('.csv')}_{now}_{SERIES}.csv"
            job = {
                "jobId": len(self._jobs) + 1,
                "uploadRedeemedCouponStatus": "QUEUED",
                "createdOn": str(now),
                "updatedOn": str(now),
                "errorFileUrl": None,
                "successFileUrl": None,
                "uploadedFileUrl": stored,
                "totalUploadedCount": 0,
                "actualRowCount": 0,
                "errorCount": 0,
                "uploadTableName": None,
                "uploadedFileName": stored,
            }
            self._jobs.append(job)
            result |= {"redeemUploadJobStatuses": [job], "fileName": stored}
        return {"success": True, "status": 200, "result": result}


def serve(endpoint: str) -> None:
    """Serve until standard input ends."""
    if endpoint == SANDBOX:
        from airflow_provider_capillary.sandbox import Sandbox

        with Sandbox() as sandbox:
            connection = sandbox.connection(requests_per_minute=100_000, timeout_seconds=600)
            print(json.dumps({"base_url": sandbox.base_url, "connection": connection}), flush=True)
            sys.stdin.read()
        return
    discarding = Endpoint()
    threading.Thread(target=discarding.serve, daemon=True).start()
    connection = {
        "conn_type": "capillary",
        "host": discarding.base_url,
        "login": "benchmark-key",
        "password": "benchmark-secret",
        "extra": {"requests_per_minute": 100_000},
    }
    print(json.dumps({"base_url": discarding.base_url, "connection": connection}), flush=True)
    sys.stdin.read()


# --- the candidates ------------------------------------------------------------------------------------------------


def fetch_token(base_url: str, connection: dict[str, Any]) -> str:
    body = json.dumps({"key": connection["login"], "secret": connection["password"]}).encode()
    url = f"{base_url}/v3/oauth/token/generate"
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return str(json.load(answer)["data"]["accessToken"])


def upload_with_curl(base_url: str, connection: dict[str, Any], file: str) -> int:
    form = {
        "customerIdentifier": "USER_ID",
        "couponIdentifier": "COUPON_CODE",
        "uploadHeaders": json.dumps({name: index for index, name in enumerate(COLUMNS)}),
    }
    command = ["curl", "-sSf", "--noproxy", "*", "-H", f"X-CAP-API-OAUTH-TOKEN: {fetch_token(base_url, connection)}"]
    for name, value in form.items():
        command += ["--form-string", f"{name}={value}"]
    command += ["-F", f"file=@{file};type=text/csv"]
    command.append(f"{base_url}/coupon/api/v1/upload/redeemFile/{SERIES}")
    done = subprocess.run(command, capture_output=True, check=True)
    (job,) = json.loads(done.stdout)["result"]["redeemUploadJobStatuses"]
    return int(job["jobId"])


def upload_with_hook(base_url: str, connection: dict[str, Any], file: str) -> int:
    from airflow_provider_capillary.hooks.capillary import CapillaryHook

    job = CapillaryHook().upload_redeemed_coupons(
        SERIES, file, customer_identifier="USER_ID", coupon_identifier="COUPON_CODE"
    )
    return job.job_id


def scan(base_url: str, connection: dict[str, Any], file: str) -> int:
    """Do what the hook does before it sends anything."""
    from airflow_provider_capillary.api.csv_files import CsvScanner

    scanner = CsvScanner(max_rows_per_part=10**9)
    with Path(file).open("rb") as reading:
        while block := reading.read(MIB):
            scanner.feed(block)
    return scanner.finish().row_count


WORK = {CURL: upload_with_curl, OURS: upload_with_hook, SCAN: scan}


def measure(candidate: str, given: dict[str, Any]) -> dict[str, float]:
    work, setup = WORK[candidate], (given["base_url"], given["connection"])
    # First a small file: imports and connections cost the same for a file of any size.
    work(*setup, given["small"])
    memory, cpu, began = peak_of_memory(), cpu_seconds(), time.perf_counter()
    job_id = work(*setup, given["large"])
    seconds = time.perf_counter() - began
    cpu = cpu_seconds() - cpu
    growth = peak_of_memory() - memory
    if candidate == CURL:
        # Its growth is that of a process of its own: all that it held.
        growth = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": seconds, "cpu": cpu, "growth_mib": growth / MIB, "job_id": job_id}


def write_file(file: Path, size: int, *, quoted: bool, first: int = 0) -> None:
    """Write a file of rows as a till exports them, each with a coupon of its own."""
    quote = '"' if quoted else ""
    between = f"{quote},{quote}"
    with file.open("w", encoding="ascii", newline="") as writing:
        written = writing.write(",".join(COLUMNS) + "\n")
        number = first
        while written < size:
            row = (
                f"{1700000000000 + 977 * number}",
                f"till-{number % 300:04}",
                f"{5512345678 + number}",
                f"SUMMER-{number:08X}",
                f"{100234 + number}",
                f"BN-{100234 + number}",
                ("store pickup", "", "gift")[number % 3],
            )
            written += writing.write(f"{quote}{between.join(row)}{quote}\n")
            number += 1


def measure_against(endpoint: str, candidate: str, folder: Path) -> dict[str, float]:
    """Let a candidate upload the file, to an endpoint of its own: a coupon is redeemed once."""
    command = [sys.executable, "-m", "benchmarks.upload"]
    with subprocess.Popen(
        [*command, "--serve", endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        given = json.loads(server.stdout.readline())
        given |= {"small": str(folder / "small.csv"), "large": str(folder / "large.csv")}
        env = os.environ | {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW_CONN_CAPILLARY_DEFAULT": json.dumps(given["connection"]),
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            [*command, "--measure", candidate, json.dumps(given)], env=env, capture_output=True, text=True, check=False
        )
        server.stdin.close()
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(endpoint: str, folder: Path, arguments: argparse.Namespace, *, quoted: bool) -> tuple[list[str], list[str]]:
    """Return the lines of the result, and each limit that was exceeded."""
    rounds = [
        {candidate: measure_against(endpoint, candidate, folder) for candidate in CANDIDATES}
        for _ in range(arguments.rounds)
    ]
    median = {
        candidate: {name: statistics.median(each[candidate][name] for each in rounds) for name in ("seconds", "cpu")}
        for candidate in CANDIDATES
    }
    growth = {candidate: max(each[candidate]["growth_mib"] for each in rounds) for candidate in CANDIDATES}
    case = f"{endpoint:>10}{'yes' if quoted else 'no':>8}"
    lines = []
    for candidate in CANDIDATES:
        seconds = median[candidate]["seconds"]
        figures = [f"{seconds:>9.2f}", f"{arguments.mib / seconds:>8.0f}", f"{median[candidate]['cpu']:>8.2f}"]
        figures += [f"{growth[candidate]:>6.0f} MiB"]
        all_rounds = " ".join(f"{each[candidate]['seconds']:.2f}" for each in rounds)
        figures += [f"{all_rounds:>28}"]
        lines.append(f"{candidate:<28}{case}" + "".join(figures))
    ratio = median[OURS]["seconds"] / median[CURL]["seconds"]
    lines.append(f"{'ours to curl, time':<28}{case}{ratio:>9.2f}")
    lines.append(f"{'ours to curl, CPU':<28}{case}{median[OURS]['cpu'] / median[CURL]['cpu']:>9.2f}")
    exceeded = []
    if endpoint == SANDBOX and ratio > arguments.ratio:
        exceeded.append(f"{case.strip()}: {ratio:.2f} times as long as curl, more than {arguments.ratio:g}")
    if growth[OURS] > arguments.growth:
        exceeded.append(f"{case.strip()}: memory grew by {growth[OURS]:.0f} MiB, more than {arguments.growth:g}")
    return lines, exceeded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="size of the file (default: 256)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--endpoint", nargs="+", choices=[SANDBOX, DISCARD], default=[SANDBOX, DISCARD])
    parser.add_argument("--ratio", type=float, default=1.2, help="most time, in times of curl's (default: 1.2)")
    parser.add_argument("--growth", type=float, default=32, help="most MiB that memory may grow by (default: 32)")
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
    if shutil.which("curl") is None:
        sys.exit("This benchmark needs curl, which is not on the PATH.")
    lines = [
        f"{arguments.mib} MiB, median of {arguments.rounds} rounds that took turns; growth is that of the process's",
        "peak memory, for curl all that its process held",
        f"{'':<28}{'endpoint':>10}{'quoted':>8}{'seconds':>9}{'MiB/s':>8}{'CPU s':>8}{'growth':>10}{'all rounds':>28}",
    ]
    exceeded = []
    for quoted in (False, True):
        folder = Path(tempfile.mkdtemp())
        try:
            write_file(folder / "small.csv", MIB // 16, quoted=quoted, first=10**8)
            write_file(folder / "large.csv", arguments.mib * MIB, quoted=quoted)
            for endpoint in arguments.endpoint:
                more, over = compare(endpoint, folder, arguments, quoted=quoted)
                lines += more
                exceeded += over
        finally:
            shutil.rmtree(folder)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if exceeded:
        sys.exit("\n".join(exceeded))


if __name__ == "__main__":
    main()
