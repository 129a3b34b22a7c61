# SPDX-License-Identifier: Apache-2.0
"""Test a sensor against the sandbox. The example of the page about testing."""

from __future__ import annotations

# --8<-- [start:example]
import pytest

from airflow_provider_capillary.api.retry import HttpRetry, default_http_retry
from airflow_provider_capillary.sandbox import Fault, Sandbox
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor


@pytest.fixture
def capillary(monkeypatch):
    with Sandbox() as sandbox, default_http_retry(HttpRetry(base_seconds=0)):
        monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", sandbox.connection_json())
        yield sandbox


def test_a_short_outage_does_not_matter(capillary):
    job = capillary.add_job(535512, rows=10, errors=2)
    capillary.inject(Fault("status", endpoint="status", status=503, times=2))
    sensor = CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=535512, job_id=job.job_id)
    assert sensor.poke({}).xcom_value["error_count"] == 2
    assert capillary.count("status") == 3


# --8<-- [end:example]
