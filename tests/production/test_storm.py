# SPDX-License-Identifier: Apache-2.0
"""Waits, watchers, uploads and transfers end as they should while triggerers and workers are killed."""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.sandbox import Sandbox
from tests.integration.seaweedfs import SeaweedFS
from tests.integration.server_process import started
from tests.production.storm import Storm, busiest_minute
from tests.production.uploads import FILES, ROWS_PER_JOB, UPLOADED_SERIES, Uploads
from tests.production.waits import SERIES, Waits
from tests.production.watches import Watches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary.sandbox import SandboxJob
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
    with Sandbox() as deferred, Sandbox() as rescheduled, Sandbox() as watched, Sandbox() as uploaded:
        yield [deferred, rescheduled, watched, uploaded]


@pytest.fixture(scope="module")
def waits(sandboxes: list[Sandbox], randomly: random.Random) -> Waits:
    return Waits(sandboxes[0], sandboxes[1], randomly)


@pytest.fixture(scope="module")
def watches(sandboxes: list[Sandbox], randomly: random.Random) -> Watches:
    return Watches(sandboxes[2], randomly)


@pytest.fixture(scope="module")
def s3() -> Iterator[SeaweedFS]:
    yield from started(SeaweedFS())


@pytest.fixture(scope="module")
def uploads(
    sandboxes: list[Sandbox], s3: SeaweedFS, randomly: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> Uploads:
    return Uploads(sandboxes[3], tmp_path_factory.mktemp("files"), s3, randomly)


@pytest.fixture(scope="module")
def storm(
    cluster: AirflowProcesses,
    waits: Waits,
    watches: Watches,
    uploads: Uploads,
    randomly: random.Random,
    figures: dict[str, object],
) -> Storm:
    """A storm that is over, and so is all that was to end."""
    storm = Storm(cluster, randomly, STORM_SECONDS)
    storm.run([watches, uploads, waits], LIMIT_SECONDS)
    figures["seconds of the storm"] = round(storm.lasted)
    figures["kills"] = dict(Counter(storm.kills))
    figures["events of watchers, of jobs"] = (len(watches.events()), len(watches.jobs))
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


@pytest.mark.usefixtures("storm")
class TestWatches:
    def test_both_triggerers_were_killed_and_one_was_frozen(self, storm: Storm) -> None:
        assert {"triggerer-1", "triggerer-2"} <= set(storm.kills)
        assert len(storm.frozen) == 1

    def test_each_finished_job_is_reported_once_or_flagged_as_a_possible_duplicate(self, watches: Watches) -> None:
        reported: set[int] = set()
        for event in watches.events():
            assert event["possible_duplicates"] or not reported & set(event["jobs"])
            reported |= set(event["jobs"])

        assert reported == {job.job_id for job in watches.jobs}


@pytest.mark.usefixtures("storm")
class TestUploads:
    def test_there_is_exactly_one_job_for_each_part_with_each_row_once(self, uploads: Uploads) -> None:
        jobs = uploads.sandbox.jobs(UPLOADED_SERIES)

        assert sorted(job.rows for job in jobs) == sorted([ROWS_PER_JOB, ROWS_PER_JOB, 5] * FILES)
        # A coupon that was redeemed before is an error.
        assert sum(job.errors for job in jobs) == 0

    def test_each_task_returns_the_jobs_of_its_own_parts(self, uploads: Uploads) -> None:
        rows = {job.job_id: job.rows for job in uploads.sandbox.jobs(UPLOADED_SERIES)}
        returned = uploads.returned("upload")

        assert [[rows[job_id] for job_id in job_ids] for job_ids in returned] == [
            [ROWS_PER_JOB, ROWS_PER_JOB, 5]
        ] * FILES
        assert sorted(job_id for job_ids in returned for job_id in job_ids) == sorted(rows)

    def test_each_error_file_is_whole_in_the_folder_and_nothing_else_is_there(self, uploads: Uploads) -> None:
        assert uploads.in_folder() == checksums(uploads.to_folder)

    def test_each_error_file_is_whole_in_s3_and_no_other_object_and_no_open_upload_is_there(
        self, uploads: Uploads
    ) -> None:
        assert uploads.in_s3() == checksums(uploads.to_s3)
        assert uploads.s3.open_uploads() == []


def checksums(jobs: dict[str, SandboxJob]) -> dict[str, str]:
    """The sha256 of the error file of each job."""
    return {name: sha256(job.read_error_file()).hexdigest() for name, job in jobs.items()}
