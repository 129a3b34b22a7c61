# SPDX-License-Identifier: Apache-2.0
"""What the tests of metrics run in a process of its own, as Airflow chooses its backend once for each."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.retry import HttpRetry, default_http_retry
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault, Sandbox
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.triggers.capillary import CapillaryCouponUploadEventTrigger
from tests.operators.running import upload, write_source
from tests.sensors.running import run_to_end
from tests.transfers.running import SMALL, pull

if TYPE_CHECKING:
    from collections.abc import Callable

SERIES = 535512


def _wait(sandbox: Sandbox, conn_id: str, mode: str, **arguments: Any) -> None:
    def sensor(**of_mode: Any) -> CapillaryRedeemUploadSensor:
        given = {"poke_interval": 0.05, **arguments, **of_mode}
        return CapillaryRedeemUploadSensor(
            task_id="wait", coupon_series_id=SERIES, capillary_conn_id=conn_id, retries=0, **given
        )

    print(conn_id, run_to_end(mode, sensor).state)


def poke(sandbox: Sandbox, conn_id: str) -> None:
    """Wait for a job that failed, by one poll that fails and one that does not."""
    sandbox.add_job(SERIES, status="ERRORED")
    sandbox.inject(Fault("status", endpoint="status", status=503, times=2))  # the attempts of one poll
    _wait(sandbox, conn_id, "poke")


def deferred(sandbox: Sandbox, conn_id: str) -> None:
    """Wait for a complete job in a trigger."""
    sandbox.add_job(SERIES)
    _wait(sandbox, conn_id, "deferrable")


def timed_out(sandbox: Sandbox, conn_id: str) -> None:
    """Wait in vain."""
    sandbox.add_job(SERIES, started_seconds=3600)
    _wait(sandbox, conn_id, "poke", timeout=0)


def timed_out_softly(sandbox: Sandbox, conn_id: str) -> None:
    """Wait in vain, and be skipped."""
    sandbox.add_job(SERIES, started_seconds=3600)
    _wait(sandbox, conn_id, "poke", timeout=0, soft_fail=True)


def rescheduled(sandbox: Sandbox, conn_id: str) -> None:
    """Wait in several processes."""
    job = sandbox.add_job(SERIES, started_seconds=3600)

    def sensor(**of_mode: Any) -> CapillaryRedeemUploadSensor:
        given = {"task_id": "wait", "coupon_series_id": SERIES, "capillary_conn_id": conn_id, **of_mode}
        return CapillaryRedeemUploadSensor(poke_interval=0.05, **given)

    run_to_end("reschedule", sensor, between=lambda count: sandbox.finish(job) if count == 1 else None)


def refused(sandbox: Sandbox, conn_id: str) -> None:
    """Ask once, and be refused as one request too many."""
    sandbox.inject(Fault("status", endpoint="status", status=429, retry_after="0", times=1))
    CapillaryHook(conn_id).get_redeem_upload_jobs(SERIES)


def limited(sandbox: Sandbox, conn_id: str) -> None:
    """Send a request more than the limit of the connection lets through at once."""
    hook = CapillaryHook(conn_id)
    for _ in range(10):  # with the token 11, a tenth of the limit and one
        hook.get_redeem_upload_jobs(SERIES)


def watch(sandbox: Sandbox, conn_id: str) -> None:
    """Watch a series until it reports two jobs by one event."""
    sandbox.add_job(SERIES, kind="coupon")
    sandbox.add_job(SERIES, kind="coupon")
    trigger = CapillaryCouponUploadEventTrigger(
        coupon_series_id=SERIES, capillary_conn_id=conn_id, poll_interval=0.05, include_existing=True
    )

    async def first_event() -> None:
        async with aclosing(trigger.run()) as events:
            await anext(events)

    asyncio.run(first_event())


def transfer(sandbox: Sandbox, conn_id: str) -> None:
    """Copy an error file."""
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
    with tempfile.TemporaryDirectory() as folder:
        pull(job, f"{folder}/", capillary_conn_id=conn_id)


def send(sandbox: Sandbox, conn_id: str) -> None:
    """Upload a file as two jobs, the answer to the first being lost."""
    sandbox.inject(Fault("status", endpoint="upload", status=503, processed=True, times=1))
    with tempfile.TemporaryDirectory() as folder:
        source = write_source(Path(folder, "redeemed.csv"))
        upload(source, capillary_conn_id=conn_id, max_rows_per_job=2)


CASES: dict[str, Callable[[Sandbox, str], None]] = {
    case.__name__: case
    for case in (poke, deferred, timed_out, timed_out_softly, rescheduled, refused, limited, watch, transfer, send)
}


def main() -> None:
    """Run cases, each with a sandbox and a connection of its own, and print what was imported as JSON."""
    for name in sys.argv[1:]:
        with Sandbox(queued_seconds=0, started_seconds=0) as sandbox, default_http_retry(HttpRetry(2, 0.01, 0.02)):
            most = 100 if name == "limited" else 1_000_000
            os.environ[f"AIRFLOW_CONN_{name.upper()}"] = sandbox.connection_json(requests_per_minute=most)
            CASES[name](sandbox, name)
    print(json.dumps(sorted(sys.modules)))


if __name__ == "__main__":
    main()
