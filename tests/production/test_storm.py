# SPDX-License-Identifier: Apache-2.0
"""Waits end as they should while triggerers and workers are killed."""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.sandbox import Sandbox
from tests.production.storm import Storm, busiest_minute
from tests.production.waits import SERIES, Waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.airflow_processes import AirflowProcesses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

#: How long processes are killed and jobs end, in seconds, and until when all must have ended.
STORM_SECONDS = float(os.environ.get("PRODUCTION_SECONDS", "120"))
LIMIT_SECONDS = STORM_SECONDS + 1000


@pytest.fixture(scope="module")
def randomly() -> random.Random:
    """Chance, which a test that failed can repeat."""
    seed = int(os.environ.get("PRODUCTION_SEED") or random.SystemRandom().randrange(10**6))
    print(f"PRODUCTION_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[list[Sandbox]]:
    """A local Capillary for each client whose requests are counted."""
    with Sandbox() as deferred, Sandbox() as rescheduled:
        yield [deferred, rescheduled]


@pytest.fixture(scope="module")
def waits(sandboxes: list[Sandbox], randomly: random.Random) -> Waits:
    return Waits(sandboxes[0], sandboxes[1], randomly)


@pytest.fixture(scope="module")
def storm(
    cluster: AirflowProcesses,
    waits: Waits,
    randomly: random.Random,
    figures: dict[str, object],
) -> Storm:
    """A storm that is over, and so is all that was to end."""
    storm = Storm(cluster, randomly, STORM_SECONDS)
    storm.run([waits], LIMIT_SECONDS)
    figures["seconds of the storm"] = round(storm.lasted)
    figures["kills"] = dict(Counter(storm.kills))
    for name, sandbox in (("triggerers", waits.deferred), ("reschedule mode", waits.rescheduled)):
        figures[f"{name}: requests, tokens, busiest minute"] = (
            len(sandbox.requests),
            len(sandbox.tokens_issued),
            busiest_minute(sandbox.requests),
        )
    return storm


@pytest.mark.usefixtures("storm")
class TestWaits:
    def test_two_hundred_waits_on_ten_series_end_as_their_jobs_do(self, waits: Waits) -> None:
        assert (len(waits.waits), len(SERIES)) == (200, 10)
        assert waits.states() == {wait.task: wait.state for wait in waits.waits}

    def test_each_that_succeeds_returns_its_own_job(self, waits: Waits) -> None:
        assert waits.jobs() == {wait.task: wait.job.job_id for wait in waits.waits if wait.state == "success"}

    def test_none_succeeds_twice(self, waits: Waits) -> None:
        assert waits.ends() == {wait.task: 1 for wait in waits.waits if wait.state == "success"}

    def test_two_triggerers_with_half_of_the_limit_each_stay_below_it_in_every_minute(self, waits: Waits) -> None:
        assert busiest_minute(waits.deferred.requests) <= 105

    def test_no_worker_fetches_a_token_for_a_wait_in_the_triggerer(self, waits: Waits, storm: Storm) -> None:
        # A triggerer fetches one when it starts and each time that one has expired, and again where an answer was lost.
        starts = 2 + sum(name.startswith("triggerer") for name in storm.kills)
        in_time = math.ceil(storm.lasted / (0.8 * waits.deferred.token_ttl_seconds))
        assert len(waits.deferred.tokens_issued) <= starts * in_time + waits.faults[0].taken().total()
