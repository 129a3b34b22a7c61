# SPDX-License-Identifier: Apache-2.0
"""An Airflow connection that changes or cannot be read while a sensor waits, in every mode."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api import timing
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault, Sandbox
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from tests.airflow_compat import api_server_error, before_awaited_lookups
from tests.connections import assert_not_sent_after_its_end, bearer_connection
from tests.sensors.running import MODES, run_to_end
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SERIES = 535512
ENV = "AIRFLOW_CONN_CAPILLARY_DEFAULT"

pytestmark = pytest.mark.usefixtures("capillary_connection", "quick_retries")


@pytest.fixture
def other() -> Iterator[Sandbox]:
    """Where the cluster has moved to."""
    with Sandbox(queued_seconds=0, started_seconds=0) as running:
        yield running


def make(**given: Any) -> CapillaryRedeemUploadSensor:
    arguments = {"task_id": "wait", "coupon_series_id": SERIES, "poke_interval": 0.05, "timeout": 20, **given}
    return CapillaryRedeemUploadSensor(**arguments)


def connection(sandbox: Sandbox, **fields: Any) -> str:
    return json.dumps(sandbox.connection(requests_per_minute=1_000_000) | fields)


class Away:
    """An Airflow whose API server does not answer some lookups of a connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        ask = CapillaryHook.get_connection

        def get(conn_id: str) -> Any:
            self._fail()
            return ask(conn_id)

        async def fail(conn_id: str) -> None:
            self._fail()

        monkeypatch.setattr(CapillaryHook, "get_connection", staticmethod(get))
        before_awaited_lookups(monkeypatch, fail)

    def _fail(self) -> None:
        if self.times:
            self.times -= 1
            raise api_server_error("the vault says hunter2")


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(monkeypatch)


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_that_cannot_be_read_for_a_moment_is_a_transient_error(
    mode: str, sandbox: Sandbox, away: Away
) -> None:
    job = sandbox.add_job(SERIES)
    away.times = 3

    end = run_to_end(mode, lambda **given: make(**given, max_consecutive_failures=5))

    assert end.state == "success"
    assert end.value["job_id"] == job.job_id


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_that_cannot_be_read_uses_the_budget_up(
    mode: str, sandbox: Sandbox, away: Away, capfd: pytest.CaptureFixture[str]
) -> None:
    away.times = 1000

    end = run_to_end(mode, lambda **given: make(**given, max_consecutive_failures=3))

    assert (end.state, end.error) == ("up_for_retry", "CapillaryTransportError")
    assert end.message.startswith("Airflow connection 'capillary_default' cannot be read for the moment")
    assert "hunter2" not in end.message + "".join(capfd.readouterr())
    assert sandbox.requests == []


@pytest.mark.parametrize("mode", MODES)
def test_wrong_credentials_that_were_corrected_meanwhile_fail_no_task(
    mode: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_job(SERIES)
    sandbox.inject(Fault("slow", endpoint="token", seconds=1.0))
    good = connection(sandbox)
    monkeypatch.setenv(ENV, good.replace("sandbox-secret", "expired-secret"))

    def mend() -> None:
        while not sandbox.count("token"):
            time.sleep(0.01)
        monkeypatch.setenv(ENV, good)

    mending = threading.Thread(target=mend)
    mending.start()
    end = run_to_end(mode, make)
    mending.join()

    assert end.state == "success"
    assert sandbox.count("token") == 2


@pytest.mark.parametrize("ending", ["expired", "refused"])
@pytest.mark.parametrize("mode", MODES)
def test_a_ready_token_that_is_rotated_reaches_a_running_wait_without_a_failed_poll(
    mode: str, ending: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    # Long enough for the first poll on a busy machine.
    sandbox.token_ttl_seconds = 4.0 if ending == "expired" else 300.0
    old = bearer_connection(sandbox, monkeypatch)
    tokens: list[str] = []

    def rotate() -> None:
        wait_until(lambda: sandbox.count("status") >= 1)
        sandbox.token_ttl_seconds = 300.0
        if ending == "refused":
            sandbox.expire_tokens()
        tokens.append(bearer_connection(sandbox, monkeypatch))
        wait_until(lambda: sandbox.requests[-1].headers["Authorization"] == f"Bearer {tokens[0]}")
        sandbox.finish(job)

    rotating = threading.Thread(target=rotate)
    rotating.start()
    end = run_to_end(mode, lambda **given: make(**given, max_consecutive_failures=1))
    rotating.join()

    assert end.state == "success", end
    assert end.value["job_id"] == job.job_id
    logged = "".join(capfd.readouterr())
    assert "failed" not in logged
    assert [token for token in (old, *tokens) if token in logged] == []
    if ending == "expired":
        assert_not_sent_after_its_end(old, sandbox)


@pytest.mark.parametrize("mode", MODES)
def test_an_expired_ready_token_that_nobody_rotates_fails_the_task_before_anything_is_sent(
    mode: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.token_ttl_seconds = -60.0
    token = bearer_connection(sandbox, monkeypatch)

    end = run_to_end(mode, make)

    assert (end.state, end.error) == ("up_for_retry", "CapillaryAuthError")
    assert "the ready token of connection 'capillary_default' (Authentication type bearer) expired at " in end.message
    assert sandbox.requests == []
    assert token not in end.message + "".join(capfd.readouterr())


def test_a_sensor_that_pokes_for_long_reads_its_connection_again(
    sandbox: Sandbox, other: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_MOST_AGE", 0.3)
    sandbox.add_job(SERIES, status="STARTED")
    job = other.add_job(SERIES)

    def move() -> None:
        while sandbox.count("status") < 3:
            time.sleep(0.01)
        monkeypatch.setenv(ENV, connection(other))

    moving = threading.Thread(target=move)
    moving.start()
    end = run_to_end("poke", make)
    moving.join()

    assert end.value["job_id"] == job.job_id


def test_a_connection_that_is_deleted_leaves_the_one_that_was_read(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_job(SERIES)
    hook = CapillaryHook()
    assert len(hook.get_redeem_upload_jobs(SERIES)) == 1
    monkeypatch.delenv(ENV)

    assert hook._refresh() is False
    assert len(hook.get_redeem_upload_jobs(SERIES)) == 1
    assert CapillaryHook()._refresh() is False  # nothing was read yet
