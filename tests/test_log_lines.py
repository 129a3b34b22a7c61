# SPDX-License-Identifier: Apache-2.0
"""No line that the package logs is longer than 200 characters, however long the names are that it is given."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.assets.capillary import capillary_redeem_uploads
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.operators.capillary import CapillaryRedeemUploadOperator
from airflow_provider_capillary.sandbox import Fault
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from airflow_provider_capillary.triggers.capillary import (
    CapillaryRedeemUploadEventTrigger,
    CapillaryRedeemUploadTrigger,
)
from tests.airflow_compat import needs_asset_watchers
from tests.operators.running import HEADER, row, upload
from tests.sensors.running import run_to_end
from tests.transfers.running import Run, file_url
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox

LONGEST = 200
#: As long as the sandbox allows.
SERIES = 910_000_000_000_000_001
JOB = 9_200_000_000_000_000_001
#: As long as Airflow's database allows.
CONNECTION = "c" * 250
LONG_NAME = "n" * 251 + ".csv"
CLASSES = (
    CapillaryErrorFileToObjectStorageOperator,
    CapillaryHook,
    CapillaryRedeemUploadEventTrigger,
    CapillaryRedeemUploadOperator,
    CapillaryRedeemUploadSensor,
    CapillaryRedeemUploadTrigger,
)

pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines that this package has logged, each without what Airflow puts around it."""
    for each in CLASSES:
        monkeypatch.setattr(each, "log", logging.getLogger("tests.lines"))
    caplog.set_level(logging.DEBUG)
    return lambda: [
        line
        for record in caplog.records
        if "airflow_provider_capillary" in record.pathname
        for line in record.getMessage().splitlines()
    ]


@pytest.fixture
def long_connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """A connection with a long id, which is warned about: for http, and for fields that mean nothing."""
    extra = {"requests_per_minute": 1_000_000, "allow_http": True, **{f"unknown_{number}": "x" for number in range(40)}}
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", sandbox.connection_json(**extra))
    return CONNECTION


@pytest.fixture
def long_folder(tmp_path: Path) -> Path:
    """A folder whose path has more than 400 characters."""
    folder = tmp_path / ("a" * 200) / ("b" * 200)
    folder.mkdir(parents=True)
    return folder


def assert_short(lines: list[str], *expected: str) -> None:
    """Check that no line is too long, and that those that could be are there."""
    assert [line for line in lines if len(line) > LONGEST] == []
    text = "".join(lines)
    assert [each for each in expected if each not in text] == []


@pytest.mark.parametrize("is_url", [True, False])
def test_lines_of_a_transfer_are_short(
    sandbox: Sandbox, lines: Callable[[], list[str]], long_connection: str, long_folder: Path, is_url: bool
) -> None:
    job = sandbox.add_job(
        SERIES,
        job_id=JOB,
        errors=1,
        error_file_url=file_url(sandbox) + f"?sig={'s' * 300}" if is_url else "handle",
        uploaded_file_name=LONG_NAME,
    )
    # With a second name, the file that is replaced is warned about.
    target = long_folder / f"redeem_errors_{SERIES}_{JOB}.csv"
    target.write_text("old")
    (long_folder / "link").hardlink_to(target)

    for overwrite in (True, "if_changed"):
        Run(job, f"file://{long_folder}/", overwrite=overwrite, capillary_conn_id=long_connection)()

    assert_short(lines(), str(target), "has 2 names", "overwrite='if_changed'")
    assert "sss" not in "".join(lines())


def test_lines_of_an_upload_are_short(
    sandbox: Sandbox, lines: Callable[[], list[str]], long_connection: str, long_folder: Path
) -> None:
    source = long_folder / LONG_NAME
    source.write_text(HEADER + "".join(map(row, range(3))))
    arguments: dict[str, Any] = {"coupon_series_id": SERIES, "capillary_conn_id": long_connection}

    first = upload(str(source), **arguments)
    again = upload(str(source), ti={"try_number": 2}, **arguments)

    assert first == again
    assert_short(lines(), source.name, "was uploaded before", "mean nothing here")


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_lines_of_a_wait_are_short(
    sandbox: Sandbox, lines: Callable[[], list[str]], long_connection: str, mode: str
) -> None:
    sandbox.inject(Fault("status", endpoint="status", status=503, times=2))
    sandbox.add_job(SERIES, job_id=JOB, uploaded_file_name=LONG_NAME)
    arguments: dict[str, Any] = {"poke_interval": 0.05, "timeout": 20, "capillary_conn_id": long_connection}

    end = run_to_end(
        mode,
        lambda **of_mode: CapillaryRedeemUploadSensor(
            task_id="wait", coupon_series_id=SERIES, uploaded_file_name="n" * 200 + "*", **arguments, **of_mode
        ),
    )

    assert end.state == "success"
    assert_short(lines(), "failed (1 in a row", "is complete", "mean nothing here")


@needs_asset_watchers
async def test_lines_of_a_watch_are_short(
    sandbox: Sandbox, lines: Callable[[], list[str]], long_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = capillary_redeem_uploads(SERIES, capillary_conn_id=long_connection, poll_interval=0.05)
    events = asset.watchers[0].trigger.run()
    next_event = asyncio.ensure_future(anext(events))
    try:
        await until(lambda: any(line.startswith("Watching") for line in lines()))
        for number in range(2):
            sandbox.inject(Fault("status", endpoint="status", status=503, times=2, body={"message": "m" * 500}))
            await until(lambda: "".join(lines()).count("succeed again") == number + 1)  # noqa: B023 - awaited at once
        sandbox.add_job(SERIES, job_id=JOB, uploaded_file_name=LONG_NAME)
        assert [job["job_id"] for job in (await next_event).payload["jobs"]] == [JOB]
        # Now it cannot be read.
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", sandbox.connection_json(timeout_seconds="x" * 300))
        sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
        next_event = asyncio.ensure_future(anext(events))
        await until(lambda: any("Polls go on" in line for line in lines()))
    finally:
        next_event.cancel()
        await asyncio.gather(next_event, return_exceptions=True)
        await events.aclose()
    assert_short(lines(), "failed (1 in a row", "Polls go on with the Airflow connection", "mean nothing here")


def test_lines_of_a_hook_are_short(
    sandbox: Sandbox, lines: Callable[[], list[str]], long_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = CapillaryHook(long_connection)
    hook.get_redeem_upload_jobs(SERIES)
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", sandbox.connection_json(timeout_seconds=29))
    assert hook._refresh()

    assert_short(lines(), "mean nothing here", "changed; using the new settings")
