# SPDX-License-Identifier: Apache-2.0
"""A machine whose proxy or certificates cannot be used ends a wait by the same error in every mode."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.triggers.capillary import CapillaryRedeemUploadTrigger
from tests.sensors.running import run_to_end

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox

SERIES = 535512


@pytest.fixture(autouse=True)
def connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to a host that the bypass list does not cover."""
    stored = sandbox.connection() | {"host": "https://api.example.test", "port": 443}
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", json.dumps(stored))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTPS_PROXY", "socks://127.0.0.1:1080"), ("ALL_PROXY", "http://"), ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")],
)
async def test_an_environment_that_cannot_be_used_ends_poke_mode_and_trigger_by_the_same_error(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    trigger = CapillaryRedeemUploadTrigger(
        coupon_series_id=SERIES, poke_interval=0.1, timeout=20.0, end_time=time.time() + 20
    )
    (event,) = [event.payload async for event in trigger.run()]

    assert event["status"] == "error"
    assert event["error"]["error"] == "CapillaryConfigurationError"
    assert f"environment variable {variable}" in event["message"]
    assert not event["error"]["is_transient"]
    end = run_to_end(
        "poke", lambda **mode: CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=SERIES, **mode)
    )
    assert (end.state, end.error, end.message) == ("up_for_retry", "CapillaryConfigurationError", event["message"])
