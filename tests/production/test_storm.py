# SPDX-License-Identifier: Apache-2.0
"""Waits, watchers, uploads and transfers end as they should while triggerers and workers are killed.

Meanwhile connections change, and people touch tasks. At the end, all that is left behind is searched for secrets.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from contextlib import ExitStack
from fnmatch import filter as matching
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from tests.integration.seaweedfs import SeaweedFS
from tests.integration.server_process import started
from tests.production.broker import Broker
from tests.production.changes import STATES, Changes
from tests.production.confidential import confidential, new_sandbox
from tests.production.settings import SECONDS, SEED
from tests.production.storm import Calm, Storm, busiest_minute
from tests.production.touched import FOLLOWING, PAUSED, TASKS, TOUCHED, Touched
from tests.production.uploads import FILES, ROWS_PER_JOB, UPLOADED_SERIES, Uploads
from tests.production.waits import SERIES, Waits
from tests.production.watches import SERIES as WATCHED
from tests.production.watches import Watches
from tests.system.leaks import found_in, search_database, search_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.production.changes import Change
    from tests.production.servers import PostgreSQL, Redis
    from tests.system.airflow_processes import AirflowProcesses

#: How long what is over may take to be deleted or to go quiet, in seconds.
SECONDS_TO_SETTLE = 120.0
#: How long it may take to note the id of an upload that has begun, in seconds: a request to the API server.
NOTED_WITHIN = 3.0
#: Until when all must have ended, in seconds.
LIMIT_SECONDS = SECONDS + 1000 + 5 * FILES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_SECONDS + 400)]


@pytest.fixture(scope="module")
def randomly() -> random.Random:
    """Chance, which a test that failed can repeat."""
    print(f"PRODUCTION_SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[list[Sandbox]]:
    """A local Capillary for each client whose requests are counted."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(new_sandbox()) for _ in ("deferred", "rescheduled", "watched", "uploaded", "touched")
        ]


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
def calm() -> Calm:
    return Calm()


@pytest.fixture(scope="module")
def changes(randomly: random.Random, calm: Calm) -> Iterator[Changes]:
    changes = Changes(randomly, calm)
    yield changes
    changes.stop()


@pytest.fixture(scope="module")
def touched(sandboxes: list[Sandbox]) -> Touched:
    return Touched(sandboxes[4])


@pytest.fixture(scope="module")
def broker(redis: Redis) -> Broker:
    return Broker(redis.endpoint_url)


@pytest.fixture(scope="module")
def storm(
    cluster: AirflowProcesses,
    broker: Broker,
    waits: Waits,
    watches: Watches,
    uploads: Uploads,
    changes: Changes,
    touched: Touched,
    sandboxes: list[Sandbox],
    randomly: random.Random,
    calm: Calm,
    figures: dict[str, object],
    hidden: list[Callable[[], Iterable[str]]],
) -> Storm:
    """A storm that is over, and so is all that was to end."""
    hidden.append(lambda: confidential([*sandboxes, *changes.sandboxes]).values())
    storm = Storm(cluster, randomly, SECONDS, calm)
    storm.run([broker, watches, uploads, changes, touched, waits], LIMIT_SECONDS)
    figures["seconds of the storm"] = round(storm.lasted)
    figures["kills"] = dict(Counter(storm.kills))
    figures["events of watchers, of jobs"] = (len(watches.events()), len(watches.jobs))
    for name, sandbox in (("triggerers", waits.deferred), ("reschedule mode", waits.rescheduled)):
        figures[f"{name}: requests, tokens, busiest minute"] = (
            len(sandbox.requests),
            len(sandbox.tokens_issued),
            busiest_minute(sandbox.requests),
        )
    everywhere = [*sandboxes, *changes.sandboxes]
    figures["all: requests, tokens"] = (
        sum(sum(sandbox.counts.values()) for sandbox in everywhere),
        sum(len(sandbox.tokens_issued) for sandbox in everywhere),
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

    def test_each_error_file_is_whole_in_s3_and_no_other_object_is_there(self, uploads: Uploads) -> None:
        assert uploads.in_s3() == checksums(uploads.to_s3)

    def test_no_upload_to_s3_stays_open_but_one_that_was_killed_as_it_began(
        self, uploads: Uploads, storm: Storm, figures: dict[str, object]
    ) -> None:
        # S3 gives the upload an id, which is noted for the next try: a kill in between leaves the upload.
        kills = zip(storm.kills, storm.killed_at, strict=True)
        killed_at = [at for name, at in kills if name.startswith("worker")]
        left = {
            key: min(((at - begun).total_seconds() for at in killed_at if at >= begun), default=math.inf)
            for key, begun in uploads.s3.open_uploads_and_begins()
        }
        figures["open uploads in S3: seconds between begin and kill"] = left
        assert all(seconds <= NOTED_WITHIN for seconds in left.values())


@pytest.fixture(params=["rotated", "moved", "deleted"])
def change(request: pytest.FixtureRequest, changes: Changes) -> Change:
    return changes.changes[request.param]


@pytest.mark.usefixtures("storm")
class TestChanges:
    def test_waits_end_as_their_jobs_do_and_none_succeeds_twice(self, change: Change) -> None:
        succeeding = [task_id for task_id, state in STATES.items() if state == "success"]

        assert change.tasks.states() == STATES
        assert change.tasks.ends() == dict.fromkeys(succeeding, 1)
        assert change.tasks.jobs() == {task_id: change.jobs[task_id].job_id for task_id in succeeding}

    def test_waits_are_deferred_after_the_change_as_before_it_and_in_the_same_try(
        self, change: Change, cluster: AirflowProcesses
    ) -> None:
        assert {task_id: state for task_id, (state, _) in change.before.items()} == dict.fromkeys(STATES, "deferred")
        assert change.after == change.before, cluster.errors_of(change.conn_id)


@pytest.mark.usefixtures("storm")
class TestTouched:
    def test_a_cleared_wait_is_deferred_once_more_and_succeeds_once(self, touched: Touched) -> None:
        cleared = [task_id for task_id in TASKS[TOUCHED] if task_id.startswith("cleared")]
        before, after = touched.tries

        assert all(after[task_id] > before[task_id] for task_id in cleared)
        assert touched.tasks[TOUCHED].jobs() == {task_id: touched.jobs[TOUCHED][task_id].job_id for task_id in cleared}
        assert touched.tasks[TOUCHED].ends() == dict.fromkeys(cleared, 1)

    def test_a_wait_that_is_marked_stays_as_it_is_marked(self, touched: Touched) -> None:
        states = touched.tasks[TOUCHED].states()

        assert (states["marked_success"], states["marked_failed"]) == ("success", "failed")
        assert not any(job.is_done for name, job in touched.jobs[TOUCHED].items() if name.startswith("marked"))

    def test_in_a_paused_dag_a_wait_leaves_the_triggerer_and_what_follows_starts_after_unpausing(
        self, touched: Touched
    ) -> None:
        assert touched.paused == {FOLLOWING: None} | dict.fromkeys(TASKS[PAUSED], "scheduled")
        assert touched.tasks[PAUSED].states() == dict.fromkeys([*TASKS[PAUSED], FOLLOWING], "success")
        # What follows needs no worker, which is what Airflow's log of events is about.
        assert touched.tasks[PAUSED].ends() == dict.fromkeys(TASKS[PAUSED], 1)
        assert touched.tasks[PAUSED].jobs() == {
            task_id: touched.jobs[PAUSED][task_id].job_id for task_id in TASKS[PAUSED]
        }


@pytest.mark.usefixtures("storm")
class TestWhatIsLeft:
    def test_no_trigger_but_those_of_watchers_is_left(self, cluster: AirflowProcesses) -> None:
        def triggers() -> list[tuple[object, ...]]:
            query = "SELECT classpath FROM trigger WHERE id NOT IN (SELECT trigger_id FROM asset_watcher)"
            return cluster.select(query)

        cluster.wait_until(lambda: not triggers(), "the triggers are deleted", seconds=SECONDS_TO_SETTLE)

        assert triggers() == []

    def test_nothing_is_polled_any_more_but_by_watchers(
        self, cluster: AirflowProcesses, waits: Waits, changes: Changes, touched: Touched, watches: Watches
    ) -> None:
        ended = [waits.deferred, waits.rescheduled, touched.sandbox, *changes.sandboxes]
        # So long that each of the waits, were it still there, would be polled more than once.
        polls = 6

        def requests() -> int:
            return sum(sum(sandbox.counts.values()) for sandbox in ended)

        def are_quiet() -> bool:
            before, last = requests(), watches.sandbox.count("status") + polls * len(WATCHED)
            cluster.wait_until(
                lambda: watches.sandbox.count("status") >= last, "watchers poll", seconds=SECONDS_TO_SETTLE
            )
            return requests() == before

        cluster.wait_until(are_quiet, "polls end", seconds=SECONDS_TO_SETTLE)

        assert are_quiet()


# The last one: it searches what all others left behind, and what Airflow says when it is ended.
@pytest.mark.usefixtures("storm")
def test_no_token_no_secret_and_no_row_is_in_a_log_the_database_or_the_broker(
    cluster: AirflowProcesses,
    postgresql: PostgreSQL,
    redis: Redis,
    broker: Broker,
    sandboxes: list[Sandbox],
    changes: Changes,
    waits: Waits,
    uploads: Uploads,
    figures: dict[str, object],
) -> None:
    broker.step(1)
    cluster.stop()
    began = time.monotonic()
    counts: Counter[str] = Counter()
    harmless = {
        # Of a wait that has its name, and succeeds.
        "upload": next(wait.job.uploaded_file_name for wait in waits.waits if wait.task[1] == "start_from_trigger_9"),
        "copy": next(iter(uploads.to_s3)),
        "watch": f"Watching the redeem uploads of coupon series {WATCHED[0]}",
        "task": "uploads_and_transfers",
        "statement": "database system is ready",
    }
    values = confidential([*sandboxes, *changes.sandboxes])
    searched = values | {f"harmless: {name}": value for name, value in harmless.items()}

    found = search_database(cluster.database, searched, counts)
    found |= search_files(cluster.home, searched, counts)
    found |= {(key, name) for key, cell in broker.cells for name in found_in(cell, searched)}
    for server in (postgresql, redis):
        found |= {(f"log of {server.name}", name) for name in found_in(server.log(), searched)}
        counts["files"] += 1
    figures["searched: values, files, cells, keys and messages of Redis, seconds"] = (
        len(values),
        counts["files"],
        counts["cells"],
        len(broker.cells),
        round(time.monotonic() - began),
    )

    # First that the search gets to see what tasks, triggers, watchers and servers leave behind, and where.
    places = {f"{name} in {place}" for place, name in found}
    for pattern in (
        "harmless: upload in logs/dag_id=waits_*/*/task_id=start_from_trigger_9/attempt=*.log.trigger.*.log",
        "harmless: upload in xcom.value",
        "harmless: copy in logs/dag_id=uploads_and_transfers/*/task_id=transfer/*attempt=*.log",
        "harmless: copy in serialized_dag.data",
        "harmless: watch in output/triggerer-*.log",
        "harmless: task in unacked",
        "harmless: statement in log of postgres",
    ):
        assert matching(places, pattern), f"{pattern}: not among {sorted(places)}"
    # Airflow stores the client key in clear, as it does with every login, and once more in its log of what users did.
    # The secret beside it is encrypted in the former, and masked in the latter.
    leaks = {(place, name) for place, name in found if name in values}
    assert leaks == {("connection.login", "client key"), ("log.extra", "client key")}


def checksums(jobs: dict[str, SandboxJob]) -> dict[str, str]:
    """The sha256 of the error file of each job."""
    return {name: sha256(job.read_error_file()).hexdigest() for name, job in jobs.items()}
