# SPDX-License-Identifier: Apache-2.0
"""Measure many deferred waits in one event loop: ours beside the HTTP provider's sensor trigger.

Both wait against a local server at the same interval, each in a process of its own. The HTTP provider's trigger asks
for a file that is not there yet (404), which is what it waits through; ours asks the sandbox for jobs that still run.
There are two runs: an idle one, in which no wait ends, and one in which half of the waits of both end, those of the
peer because the file of the job is there. Of that, the time from the end of a job to the event is measured as well.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

OURS, PEER = "airflow_provider_capillary", "airflow.providers.http"
SERIES = range(1, 51)
# Seldom enough to cost little itself, and often enough to meet everything that holds the loop for long.
_TICK = 0.05
_WINDOW = 60.0
#: What the line with the figures of a process begins with: others of it are what was logged.
FIGURES = "figures: "
RESULTS = Path(__file__).parent / "results"


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def control(base_url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"{base_url}{path}", data=data, timeout=30) as answer:
        return dict(json.load(answer))


def serve_peer(file: Path) -> None:
    """Serve the files that the peer waits for, which are there when their jobs end, and count the requests.

    The sandbox has a thread for each connection. Those of ten thousand waits would keep it from answering.

    :param file: Where to write the connection to.
    """
    from aiohttp import web

    end_at: dict[str, float] = {}
    requests = 0

    async def add(request: web.Request) -> web.Response:
        job = await request.json()
        name = job["uploaded_file_name"].partition("_")[0]
        end_at[f"{name}-{job['coupon_series_id']}.csv"] = time.time() + job["started_seconds"]
        return web.json_response({})

    async def count(_: web.Request) -> web.Response:
        return web.json_response({"requests": {"files": requests}})

    async def answer(request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.Response(status=200 if time.time() >= end_at[request.match_info["name"]] else 404, text="message")

    async def publish(runner: web.AppRunner) -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=16_384).start()
        connection = {"host": "http://127.0.0.1", "port": runner.addresses[0][1]}
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(connection))
        unfinished.replace(file)
        await asyncio.Event().wait()

    app = web.Application()
    app.add_routes([web.post("/sandbox/jobs", add), web.get("/sandbox", count), web.get("/files/{name}", answer)])
    asyncio.run(publish(web.AppRunner(app, access_log=None)))


def word_of(number: int) -> str:
    """Return the beginning of the file names that a wait is for: in each series, every other one is for the same."""
    return "ends" if number // len(SERIES) % 2 else "runs"


def trigger_of(candidate: str, number: int, interval: float, seconds: float) -> Any:
    series = SERIES[number % len(SERIES)]
    if candidate == PEER:
        from airflow.providers.http.triggers.http import HttpSensorTrigger

        name = f"{word_of(number)}-{series}.csv"
        return HttpSensorTrigger(endpoint=f"files/{name}", http_conn_id="peer", poke_interval=interval)
    from airflow_provider_capillary.triggers.capillary import CapillaryRedeemUploadTrigger

    return CapillaryRedeemUploadTrigger(
        coupon_series_id=series,
        uploaded_file_name=f"{word_of(number)}_*",
        poke_interval=interval,
        timeout=2 * seconds,
        end_time=time.time() + 2 * seconds,
    )


async def measure(
    candidate: str, waits: int, interval: float, seconds: float, base_url: str, *, from_start: bool
) -> dict[str, float]:
    """Let the waits run for some time and say what it took.

    :param from_start: Whether the lag counts from the first poll on, and not only once everybody is in the rhythm.
    """
    lags: list[float] = []
    ended: list[float] = []

    async def wait(number: int) -> None:
        # To its end, as Airflow does. One that is dropped at its event would be closed by a task of its own.
        ended.extend([time.time() async for _ in trigger_of(candidate, number, interval, seconds).run()])

    async def tick() -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(_TICK)
            lags.append(time.perf_counter() - asked - _TICK)

    gc.collect()  # what Airflow left behind while it was imported would otherwise be counted as lag, once
    # What measuring takes itself is neither's.
    ticking = asyncio.create_task(tick())
    cpu = time.process_time()
    await asyncio.sleep(interval)
    measuring = (time.process_time() - cpu) / interval
    ticking.cancel()
    lags.clear()
    ticking = asyncio.create_task(tick())
    tasks = [asyncio.create_task(wait(number)) for number in range(waits)]
    await asyncio.sleep(interval)  # from here on the first connections are made and everybody is in the rhythm
    if not from_start:
        lags.clear()
    began, cpu = time.time(), time.process_time()
    await asyncio.sleep(seconds)
    cpu, took = time.process_time() - cpu, time.time() - began
    for task in (*tasks, ticking):
        task.cancel()
    await asyncio.wait([*tasks, ticking])
    ends_at = float(os.environ["JOBS_END_AT"])
    late = [at - ends_at for at in ended]
    return {
        "from": began,
        "to": began + took,
        "cpu_percent": (cpu / took - measuring) * 100,
        "lag_p99_ms": percentile(lags, 0.99) * 1000,
        "lag_max_ms": max(lags) * 1000,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "events": len(ended),
        "late_p50_s": percentile(late, 0.5),
        "late_p99_s": percentile(late, 0.99),
    }


def run(
    candidate: str, arguments: argparse.Namespace, waits: int, *, ends: bool = True, history: int = 0
) -> dict[str, float]:
    """Start a server and a process for the waits, and return what that process measured.

    :param ends: Whether half of the waits end in the middle of the time.
    :param history: Jobs of the past in the first series, in which one more ends at every poll then.
    """
    lasting = arguments.interval + arguments.seconds / 2
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "connection.json"
        if candidate == PEER:
            serve = [__file__, "--serve", str(file)]
        else:
            serve = ["-m", "airflow_provider_capillary.sandbox", "--port", "0", "--quiet"]
            serve += ["--connection-file", str(file), "--seed-series"]
        server = subprocess.Popen([sys.executable, *serve], stdout=subprocess.DEVNULL)
        try:
            while not file.exists():
                time.sleep(0.05)
            connection = json.loads(file.read_text())
            connection["extra"] = {"requests_per_minute": arguments.requests_per_minute}
            base_url = f"{connection['host']}:{connection['port']}"
            past = {"coupon_series_id": SERIES[0], "rows": 100, "errors": 3}
            for _ in range(history):
                control(base_url, "/sandbox/jobs", past)
            for series in SERIES:
                for name, running in (("ends", lasting if ends else 3600.0), ("runs", 3600.0)):
                    job = {"coupon_series_id": series, "queued_seconds": 0, "started_seconds": running + 10}
                    job |= {"uploaded_file_name": f"{name}_1795400755483_1.csv", "rows": 1, "errors": 1}
                    control(base_url, "/sandbox/jobs", job)
            env = os.environ | {
                "AIRFLOW_HOME": home,
                "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
                "AIRFLOW_CONN_CAPILLARY_DEFAULT": json.dumps(connection),
                "AIRFLOW_CONN_PEER": json.dumps({"conn_type": "http", "host": base_url}),
                "JOBS_END_AT": str(time.time() + lasting + 10),
                "NO_PROXY": "127.0.0.1",
            }
            command = [sys.executable, __file__, "--measure", candidate, base_url, "--waits", str(waits)]
            command += ["--interval", str(arguments.interval), "--seconds", str(arguments.seconds)]
            command += ["--from-start"] if history else []
            counts, next_job = [], time.time()
            # Into files: whoever fills a pipe that nobody reads stops.
            with (
                (Path(home) / "output").open("w+") as output,
                (Path(home) / "errors").open("w+") as errors,
                subprocess.Popen(command, env=env, stdout=output, stderr=errors) as measuring,
            ):
                while measuring.poll() is None:
                    counts.append((time.time(), sum(control(base_url, "/sandbox")["requests"].values())))
                    if history and time.time() >= next_job:
                        control(base_url, "/sandbox/jobs", past)
                        next_job += arguments.interval
                    time.sleep(0.5)
                if measuring.returncode:
                    errors.seek(0)
                    raise SystemExit(errors.read())
                output.seek(0)
                (found,) = (line for line in output if line.startswith(FIGURES))
            figures = dict(json.loads(found.removeprefix(FIGURES)))
            counts = [(at, number) for at, number in counts if figures["from"] <= at <= figures["to"]]
            figures["requests_per_minute"] = figures["busiest_minute"] = float("nan")
            if len(counts) > 1:
                figures["requests_per_minute"] = 60 * (counts[-1][1] - counts[0][1]) / (counts[-1][0] - counts[0][0])
                figures["busiest_minute"] = max(
                    behind - before for at, before in counts for later, behind in counts if 0 <= later - at <= _WINDOW
                )
            return figures
        finally:
            server.terminate()
            server.wait(10)


def line_of(candidate: str, waits: int, figures: dict[str, float]) -> str:
    columns = [f"{waits}", f"{figures['requests_per_minute']:.0f}", f"{figures['busiest_minute']:.0f}"]
    columns += [f"{figures['cpu_percent']:.2f}", f"{figures['lag_p99_ms']:.1f} ms", f"{figures['lag_max_ms']:.0f} ms"]
    columns += [f"{figures['peak_memory_mb']:.0f}"]
    if figures["events"]:
        columns += [f"{figures['late_p50_s']:.1f} s", f"{figures['late_p99_s']:.1f} s"]
    return f"{candidate:<28}" + "".join(f"{figure:>10}" for figure in columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waits", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two polls (default: 10)")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long to measure (default: 90)")
    parser.add_argument("--requests-per-minute", type=int, default=400, help="limit of our connection (default: 400)")
    parser.add_argument("--history", type=int, default=20_000, help="jobs in a long history (default: 20000)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--from-start", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        candidate, base_url = arguments.measure
        # Both import Airflow while the loop runs for the first time; that is not what is measured.
        trigger_of(candidate, 0, 1.0, 1.0)
        given = (candidate, arguments.waits[0], arguments.interval, arguments.seconds, base_url)
        print(FIGURES + json.dumps(asyncio.run(measure(*given, from_start=arguments.from_start))), flush=True)
        return
    if arguments.serve:
        serve_peer(arguments.serve)
        return
    columns = ("waits", "req/min", "busiest", "CPU %", "lag p99", "lag max", "peak MB", "late p50", "late p99")
    lines = []

    def add(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    add(f"{len(SERIES)} series, a poll every {arguments.interval:g} s, measured for {arguments.seconds:g} s")
    add(f"{'':<28}" + "".join(f"{column:>10}" for column in columns))
    for waits, ends in itertools.product(arguments.waits, (False, True)):
        add("half of the waits end" if ends else "no wait ends")
        cpu = {}
        for candidate in (PEER, OURS):
            figures = run(candidate, arguments, waits, ends=ends)
            cpu[candidate] = figures["cpu_percent"]
            add(line_of(candidate, waits, figures))
        add(f"{'CPU, ours to theirs':<28}{waits:>10}{'':>20}{cpu[OURS] / cpu[PEER]:>10.3f}")
    figures = run(OURS, arguments, len(SERIES), history=arguments.history)
    add(f"and with a history of {arguments.history} jobs in one of the series, lag from the first poll on")
    add(line_of(OURS, len(SERIES), figures))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "waits.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
