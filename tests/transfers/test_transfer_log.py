# SPDX-License-Identifier: Apache-2.0
"""What a transfer logs. That no row is in the log is in test_secrecy.py."""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary._storage.transfer_log import TransferLog
from airflow_provider_capillary.sandbox import Fault
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.transfers.running import LARGE, SERIES, SMALL, Run, clock_of_transfers, connect, file_url, pull
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import LocalFolder


class Clock:
    """A clock that advances by so many seconds each time it is read."""

    def __init__(self, step: float) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines that the operator logged, each without what Airflow puts around it."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(CapillaryErrorFileToObjectStorageOperator, "log", logging.getLogger("tests.transfer"))
    return lambda: [record.getMessage() for record in caplog.records if record.name == "tests.transfer"]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines that the task logged, which Airflow prints in a test."""
    return lambda: [line for line in capfd.readouterr().out.splitlines() if " file of upload job " in line]


def log_of(caplog: pytest.LogCaptureFixture, clock: Clock) -> TransferLog:
    caplog.set_level(logging.INFO)
    return TransferLog(logging.getLogger("test"), "Error file of upload job 7", clock=clock)


def test_the_first_line_shows_what_goes_where_and_the_last_one_the_result(
    sandbox: Sandbox, store: LocalFolder, messages: Callable[[], list[str]]
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
    run = Run(job, store.folder + "x")

    with clock_of_transfers(Clock(2.0)):
        run()

    size, digest = len(SMALL), sha256(SMALL).hexdigest()
    # The clock is read at the start, for the one block, and at the end.
    assert " ".join(messages()) == (
        f"Copying the error file of redeem upload job {job.job_id}, coupon series {SERIES} (org 100458), from "
        f"Capillary's download endpoint to {store.folder}x (overwrite=True) "
        f"Error file of upload job {job.job_id}: 2 lines, {size} bytes, sha256 {digest}, in 4.0 s (0.0 MB/s), "
        f"now at {store.folder}x"
    )


def test_the_first_line_shows_the_host_of_a_url_and_not_its_signature(
    sandbox: Sandbox, store: LocalFolder, messages: Callable[[], list[str]]
) -> None:
    url = file_url(sandbox, "signed-path.csv")
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL, error_file_url=f"{url}?X-Amz-Signature=0123456789abcdef")

    pull(job, store.folder)

    assert f", from {sandbox.base_url} to " in " ".join(messages())
    assert "signed-path" not in " ".join(messages())
    assert "0123456789abcdef" not in " ".join(messages())


def test_the_first_line_shows_the_objects_and_their_connections(
    sandbox: Sandbox,
    store: LocalFolder,
    messages: Callable[[], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect(monkeypatch, sandbox, error_file_url=f"file://{tmp_path}/{{handle}}", error_file_conn_id="archive")
    for conn_id in ("archive", "lake"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", '{"conn_type": "fs", "password": "hush"}')
    job = sandbox.add_job(SERIES, errors=1, kind="coupon")
    (tmp_path / job.handle).write_bytes(SMALL)

    pull(job, store.folder + "x", upload_kind="coupon", object_storage_conn_id="lake", overwrite="if_changed")

    text = " ".join(messages())
    assert text.startswith(f"Copying the error file of coupon upload job {job.job_id}, coupon series {SERIES}")
    assert f", from file://{tmp_path}/{job.handle} (connection archive) to {store.folder}x " in text
    assert " (connection lake, overwrite='if_changed') " in text


@pytest.mark.parametrize("file_type", ["success", "uploaded"])
def test_the_summary_names_the_file(
    sandbox: Sandbox, store: LocalFolder, said: Callable[[], list[str]], file_type: str
) -> None:
    job = sandbox.add_job(SERIES, **{f"{file_type}_file": SMALL})

    pull(job, store.folder, file_type=file_type)

    assert f"{file_type.capitalize()} file of upload job {job.job_id}: 2 lines" in said()[0]


@pytest.mark.parametrize(
    ("content", "lines"), [(b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"a\n\n", 2), (b"a\r\nb\r\n", 2)]
)
def test_the_last_line_shows_the_number_of_lines(
    sandbox: Sandbox, store: LocalFolder, said: Callable[[], list[str]], content: bytes, lines: int
) -> None:
    pull(sandbox.add_job(SERIES, errors=1, error_file=content), store.folder)
    (line,) = said()
    assert f": {lines} lines, {len(content)} bytes, sha256 {sha256(content).hexdigest()}, in " in line


def test_the_speed_is_in_millions_of_bytes_per_second(caplog: pytest.LogCaptureFixture) -> None:
    progress = log_of(caplog, Clock(1.0))
    progress.add(5_000_000, total=None)
    progress.finish(lines=7, sha256="abc", uri="s3://lake/x")

    assert "in 2.0 s (2.5 MB/s)" in caplog.text


def test_progress_is_logged_about_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    progress = log_of(caplog, Clock(4.0))
    for _ in range(8):
        progress.add(1_000_000, total=12_000_000)

    assert caplog.messages == [
        "Error file of upload job 7: 3000000 of 12000000 bytes after 12 s, 0.2 MB/s",
        "Error file of upload job 7: 6000000 of 12000000 bytes after 24 s, 0.2 MB/s",
    ]


def test_progress_is_logged_without_a_total_that_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    log_of(caplog, Clock(10.0)).add(1_000_000, total=None)

    assert caplog.messages == ["Error file of upload job 7: 1000000 bytes after 10 s, 0.1 MB/s"]


def test_a_transfer_of_less_than_ten_seconds_logs_its_result_only(
    sandbox: Sandbox, store: LocalFolder, said: Callable[[], list[str]]
) -> None:
    pull(sandbox.add_job(SERIES, errors=1, error_file=LARGE), store.folder)

    (line,) = said()
    assert "sha256" in line


class TestLongTransfer:
    """One whose clock says so."""

    def progress_of(self, run: Run, said: Callable[[], list[str]]) -> list[str]:
        with clock_of_transfers(Clock(5.0)):
            run()
        return [line.partition(" Error file of upload job ")[2] for line in said() if " bytes after " in line]

    @pytest.mark.parametrize("is_url", [False, True])
    def test_a_download_logs_progress_and_total(
        self, sandbox: Sandbox, store: LocalFolder, said: Callable[[], list[str]], is_url: bool
    ) -> None:
        url = file_url(sandbox) if is_url else "handle"
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE, error_file_url=url)

        lines = self.progress_of(Run(job, store.folder), said)

        # The clock is read twice for each line, once for each block.
        assert len(lines) == (len(LARGE) // (1 << 20) + 1) // 2
        assert all(line.startswith(f"{job.job_id}: ") for line in lines)
        assert all(f" of {len(LARGE)} bytes after " in line for line in lines)
        assert lines[0].split(": ")[1].startswith(f"{2 << 20} of ")

    def test_one_that_breaks_off_goes_on_counting(
        self, sandbox: Sandbox, store: LocalFolder, said: Callable[[], list[str]]
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE, error_file_url=file_url(sandbox))
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.5))

        lines = self.progress_of(Run(job, store.folder + "x"), said)

        counts = [int(line.split(": ")[1].split(" of ")[0]) for line in lines]
        assert counts == sorted(set(counts))
        assert counts[-1] <= len(LARGE)
        assert store.visible() == {"x": Content.of(LARGE)}

    def test_where_the_length_is_not_known_it_is_left_out(
        self, sandbox: Sandbox, store: LocalFolder, said: Callable[[], list[str]]
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
        sandbox.inject(Fault("gzip", endpoint="download"))

        lines = self.progress_of(Run(job, store.folder), said)

        assert lines
        assert [line for line in lines if " of " in line.split(": ")[1]] == []

    def test_a_file_in_object_storage_logs_its_total(
        self,
        sandbox: Sandbox,
        store: LocalFolder,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        said: Callable[[], list[str]],
    ) -> None:
        connect(monkeypatch, sandbox, error_file_url=f"file://{tmp_path}/{{handle}}")
        job = sandbox.add_job(SERIES, errors=1)
        (tmp_path / job.handle).write_bytes(LARGE)

        lines = self.progress_of(Run(job, store.folder), said)

        assert lines
        assert all(f" of {len(LARGE)} bytes after " in line for line in lines)
