# SPDX-License-Identifier: Apache-2.0
"""The intervals of a deferred wait are those that Airflow's own sensors have in poke and reschedule mode."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_capillary.api.timing import PollSchedule
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor

STARTED = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
@pytest.mark.parametrize("max_wait", [None, 0, 5, 30, 3600])
@pytest.mark.parametrize("exponential_backoff", [False, True])
@pytest.mark.parametrize("poke_interval", [0.3, 5, 60])
def test_a_deferred_wait_has_the_intervals_of_airflows_base_class(
    poke_interval: float, exponential_backoff: bool, max_wait: float | None, mode: str
) -> None:
    arguments: dict[str, Any] = {
        "poke_interval": poke_interval,
        "exponential_backoff": exponential_backoff,
        "max_wait": max_wait,
        "mode": mode,
    }
    sensor = CapillaryRedeemUploadSensor(
        task_id="wait", coupon_series_id=1, timeout=30 * 86400, deferrable=False, **arguments
    )
    seed = f"{sensor.dag_id}#{sensor.task_id}#{STARTED}"
    times = sensor._trigger_times()
    schedule = PollSchedule(times["poke_interval"], times["exponential_backoff"], times["max_wait"], seed=seed)
    uncapped = PollSchedule(times["poke_interval"], times["exponential_backoff"], seed=seed)

    elapsed = 0.0
    for poke_count in range(1, 12):
        theirs = sensor._get_next_poke_interval(STARTED, lambda: elapsed, poke_count)  # noqa: B023
        assert schedule.after(elapsed) == theirs
        elapsed += uncapped.after(elapsed)
