# SPDX-License-Identifier: Apache-2.0
"""One job for each part of a file, after lost answers, killed workers, retries and clearings."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._storage.upload_source import PartReader
from airflow_provider_capillary.api.errors import CapillaryError, CapillaryUploadError
from airflow_provider_capillary.sandbox import Fault
from tests.child import ChildProcess
from tests.operators.running import SERIES, job_ids, upload, write_source
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox import Sandbox

RETRY: dict[str, Any] = {"try_number": 2, "max_tries": 2}


@pytest.fixture(params=[False, True], ids=["no_state_store", "state_store"])
def state_file(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Where Airflow keeps the state of the task; None before Airflow 3.3."""
    return str(tmp_path / "state.json") if request.param else None


# --- lost answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["redeem", "coupon"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", endpoint="upload", processed=True),
        Fault("cut", endpoint="upload"),
        Fault("empty", endpoint="upload", processed=True),
        Fault("html", endpoint="upload", status=502, processed=True),
        Fault("status", endpoint="upload", status=500, processed=True),
        Fault("status", endpoint="upload", status=503, processed=True),
        Fault("text", endpoint="upload", processed=True),
    ],
    ids=["reset", "cut_body", "empty_body", "edge_502", "http_500", "http_503", "no_json"],
)
def test_an_answer_lost_after_the_job_was_made(sandbox: Sandbox, source: str, fault: Fault, kind: str) -> None:
    sandbox.inject(fault)
    assert upload(source, kind=kind) == job_ids(sandbox)
    assert sandbox.count("upload") == len(job_ids(sandbox)) == 1


def test_a_timeout_after_the_job_was_made(sandbox: Sandbox, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = sandbox.connection_json(requests_per_minute=1_000_000, timeout_seconds=0.2)
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", connection)
    sandbox.inject(Fault("slow", endpoint="upload", seconds=3.0))
    assert upload(source) == job_ids(sandbox)
    assert sandbox.count("upload") == len(job_ids(sandbox)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", endpoint="upload"),
        Fault("reset", endpoint="upload", read_body=False),
        Fault("status", endpoint="upload", status=500),
        Fault("status", endpoint="upload", status=429, retry_after=0),
        Fault("html", endpoint="upload", status=502),
    ],
    ids=["reset", "reset_before_anything_was_read", "http_500", "http_429", "edge_502"],
)
def test_a_request_that_made_no_job_is_sent_again(sandbox: Sandbox, source: str, fault: Fault) -> None:
    sandbox.inject(fault)
    assert upload(source) == job_ids(sandbox)
    assert (sandbox.count("upload"), len(job_ids(sandbox))) == (2, 1)


def test_a_status_list_that_lags_behind(sandbox: Sandbox, source: str) -> None:
    sandbox.list_lag_seconds = 2.0
    sandbox.inject(Fault("reset", endpoint="upload", processed=True))
    assert upload(source, lookup_seconds=10.0) == job_ids(sandbox)
    assert sandbox.count("upload") == len(job_ids(sandbox)) == 1


def test_an_expired_token_does_not_lead_to_a_second_job(sandbox: Sandbox, source: str) -> None:
    sandbox.inject(Fault("expired_token", endpoint="upload"))
    assert upload(source) == job_ids(sandbox)
    assert len(job_ids(sandbox)) == 1


# --- tries -------------------------------------------------------------------------------------------------------


class TestNextTry:
    def test_a_retry_uploads_nothing_again(self, sandbox: Sandbox, source: str, state_file: str | None) -> None:
        first = upload(source, state_file=state_file)
        assert upload(source, state_file=state_file, ti=RETRY) == first == job_ids(sandbox)
        assert sandbox.count("upload") == 1

    def test_a_cleared_task_of_a_finished_run_uploads_nothing_again(
        self, sandbox: Sandbox, source: str, state_file: str | None
    ) -> None:
        first = upload(source, state_file=state_file)
        for job in sandbox.jobs():
            sandbox.finish(job)
        cleared = {"try_number": 2, "max_tries": 1}
        assert upload(source, state_file=state_file, ti=cleared) == first == job_ids(sandbox)

    def test_force_uploads_again_after_a_clearing_and_once_for_its_retries(
        self, sandbox: Sandbox, source: str, state_file: str | None
    ) -> None:
        def run(**ti: Any) -> list[int]:
            return upload(source, state_file=state_file, force=True, retries=2, ti=ti)

        (first,) = run(try_number=1, max_tries=2)
        (second,) = run(try_number=2, max_tries=3)  # cleared after the first try
        assert run(try_number=3, max_tries=3) == [second]  # its retry
        assert job_ids(sandbox) == [first, second]

    def test_force_uploads_again_in_a_dag_run_that_was_started_again(
        self, sandbox: Sandbox, source: str, state_file: str | None
    ) -> None:
        first = upload(source, state_file=state_file, force=True)
        second = upload(source, state_file=state_file, force=True, started_at=datetime(2026, 11, 26, tzinfo=UTC))
        assert first + second == job_ids(sandbox)

    def test_a_corrected_file_is_another_upload(
        self, sandbox: Sandbox, source: str, tmp_path: Path, state_file: str | None
    ) -> None:
        upload(source, state_file=state_file)
        corrected = write_source(tmp_path / "redeemed.csv", rows=4)
        upload(corrected, state_file=state_file, ti=RETRY)
        assert len(job_ids(sandbox)) == 2

    def test_two_tries_at_once(self, sandbox: Sandbox, source: str, state_file: str | None) -> None:
        sandbox.inject(Fault("slow", endpoint="upload", seconds=0.5))
        results: list[list[int]] = []

        def run(number: int) -> None:
            results.append(upload(source, state_file=state_file, lookup_seconds=2, ti={"try_number": number}))

        threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [job_ids(sandbox)] * 2
        assert len(job_ids(sandbox)) == 1


def test_a_try_that_was_taken_over_sends_nothing_more(sandbox: Sandbox, source: str, tmp_path: Path) -> None:
    # Two machines: no lock between them, but the same state store.
    state_file = str(tmp_path / "state.json")
    sandbox.inject(Fault("slow", endpoint="status", seconds=2.0))
    errors: list[CapillaryError] = []

    def first(folder: str) -> None:
        try:
            upload(source, state_file=state_file)
        except CapillaryError as error:
            errors.append(error)

    thread = threading.Thread(target=first, args=(str(tmp_path),))
    thread.start()
    wait_until(lambda: sandbox.count("status") == 1)
    for lock in tmp_path.rglob("*.lock"):
        lock.unlink()
    assert upload(source, state_file=state_file, ti=RETRY) == job_ids(sandbox)
    thread.join()
    (error,) = errors
    assert "a later try of this task has taken over" in str(error)
    assert len(job_ids(sandbox)) == 1


def test_a_job_of_the_same_file_name_from_yesterday_is_not_taken_for_todays(sandbox: Sandbox, source: str) -> None:
    (yesterday,) = upload(source, ti={"run_id": "scheduled__2026-11-23T00:00:00+00:00"})
    (today,) = upload(source)
    assert job_ids(sandbox) == [yesterday, today]


def test_other_mapped_tasks_have_uploads_of_their_own(sandbox: Sandbox, source: str) -> None:
    assert [upload(source, ti={"map_index": index}) for index in range(2)] == [[each] for each in job_ids(sandbox)]


# --- parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 500])
def test_part_three_of_five_that_fails_for_good_and_is_then_retried(
    sandbox: Sandbox, tmp_path: Path, status: int
) -> None:
    source = write_source(tmp_path / "redeemed.csv", rows=10)
    sandbox.inject(Fault("status", endpoint="upload", status=status, file_name="3of5", times=None))
    with pytest.raises(CapillaryError):
        upload(source, max_rows_per_job=2, lookup_seconds=0.2)
    assert len(job_ids(sandbox)) == 2
    sandbox.clear_faults()
    assert upload(source, max_rows_per_job=2, ti=RETRY) == job_ids(sandbox)
    assert len(job_ids(sandbox)) == 5


def test_answers_of_several_parts_that_are_lost_in_a_row(sandbox: Sandbox, tmp_path: Path) -> None:
    source = write_source(tmp_path / "redeemed.csv", rows=6)
    sandbox.inject(Fault("reset", endpoint="upload", processed=True, times=3))
    assert upload(source, max_rows_per_job=2) == job_ids(sandbox)
    assert len(job_ids(sandbox)) == sandbox.count("upload") == 3


def upload_and_stop(source: str, state_file: str | None, marker: str) -> None:
    """Upload a file, and stop in the middle of sending it."""
    read = PartReader.read

    def stop(reader: PartReader, size: int) -> bytes:
        if reader.len < Path(source).stat().st_size / 2:
            Path(marker).touch()
            time.sleep(3600)
        return read(reader, size)

    PartReader.read = stop  # type: ignore[method-assign] # in this process alone, which is killed
    upload(source, state_file=state_file)


# --- killed ------------------------------------------------------------------------------------------------------


class TestKill:
    def test_killed_between_send_and_answer(self, sandbox: Sandbox, source: str, state_file: str | None) -> None:
        sandbox.inject(Fault("slow", endpoint="upload", seconds=30.0))
        with ChildProcess(upload, source=source, state_file=state_file) as child:
            wait_until(lambda: job_ids(sandbox) != [])
            child.kill()
        assert upload(source, state_file=state_file, ti=RETRY) == job_ids(sandbox)
        assert len(job_ids(sandbox)) == 1

    def test_killed_in_the_middle_of_sending(self, sandbox: Sandbox, tmp_path: Path, state_file: str | None) -> None:
        source = write_source(tmp_path / "redeemed.csv", rows=40_000)
        marker = tmp_path / "sending"
        with ChildProcess(upload_and_stop, source=source, state_file=state_file, marker=str(marker)) as child:
            wait_until(marker.exists)
            child.kill()
        assert job_ids(sandbox) == []
        assert upload(source, state_file=state_file, ti=RETRY) == job_ids(sandbox)
        assert len(job_ids(sandbox)) == 1

    def test_killed_between_two_parts(self, sandbox: Sandbox, tmp_path: Path, state_file: str | None) -> None:
        source = write_source(tmp_path / "redeemed.csv", rows=6)
        sandbox.inject(Fault("slow", endpoint="upload", seconds=30.0, skip=1))
        with ChildProcess(upload, source=source, state_file=state_file, max_rows_per_job=2) as child:
            wait_until(lambda: len(job_ids(sandbox)) == 2)
            child.kill()
        assert upload(source, state_file=state_file, ti=RETRY, max_rows_per_job=2) == job_ids(sandbox)
        assert len(job_ids(sandbox)) == 3


# --- what is said ------------------------------------------------------------------------------------------------


def test_a_file_that_was_uploaded_twice_is_reported(sandbox: Sandbox, source: str, said: Callable[[], str]) -> None:
    (first,) = upload(source)
    (job,) = sandbox.jobs()
    twin = sandbox.add_job(SERIES, uploaded_file_name=job.uploaded_file_name.replace("_535512", "0_535512"))
    assert upload(source, ti=RETRY) == [first]
    assert f"uploaded more than once, as jobs {first}, {twin.job_id}" in said()


def test_if_the_status_list_cannot_be_read_nothing_is_sent(sandbox: Sandbox, source: str) -> None:
    sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
    with pytest.raises(CapillaryError):
        upload(source)
    assert sandbox.count("upload") == 0


def test_an_upload_whose_outcome_is_unknown_says_what_a_retry_does(sandbox: Sandbox, source: str) -> None:
    sandbox.inject(Fault("reset", endpoint="upload", processed=True, times=None))
    sandbox.inject(Fault("status", endpoint="status", status=503, times=None, skip=1))
    with pytest.raises(CapillaryUploadError, match="a retry of the task searches the list first"):
        upload(source)
    sandbox.clear_faults()
    assert upload(source, ti=RETRY) == job_ids(sandbox)
    assert len(job_ids(sandbox)) == 1
