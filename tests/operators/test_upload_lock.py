# SPDX-License-Identifier: Apache-2.0
"""One process of a machine at a time uploads a file."""

from __future__ import annotations

import multiprocessing
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary._storage.upload_lock import only_here
from airflow_provider_capillary.api.errors import CapillaryUploadError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

_context = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def hold(token: str, folder: str, ready: Connection) -> None:
    import tempfile
    import time

    tempfile.tempdir = folder
    with only_here(token, wait_seconds=5):
        ready.send(True)
        time.sleep(60)


def test_who_comes_alone_does_not_wait_and_leaves_no_file(tmp_path: Path) -> None:
    with only_here("abc", wait_seconds=0) as waited:
        assert waited is False
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_another_process_that_holds_it_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    token = uuid.uuid4().hex
    ours, theirs = _context.Pipe()
    process = _context.Process(target=hold, args=(token, str(tmp_path), theirs))
    process.start()
    try:
        assert ours.poll(60)
        with (
            pytest.raises(CapillaryUploadError, match="another process on this machine") as caught,
            only_here(token, wait_seconds=0.3),
        ):
            pass
        assert caught.value.is_transient
        with only_here(uuid.uuid4().hex, wait_seconds=0) as waited:
            assert waited is False  # of another upload
    finally:
        process.kill()
        process.join()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    token = uuid.uuid4().hex
    ours, theirs = _context.Pipe()
    process = _context.Process(target=hold, args=(token, str(tmp_path), theirs))
    process.start()
    assert ours.poll(60)
    process.kill()
    process.join()
    with only_here(token, wait_seconds=5):
        pass


def test_of_many_at_once_only_one_is_inside(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> None:
        with only_here("abc", wait_seconds=30):
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_who_waited_is_informed() -> None:
    results: list[bool] = []

    def enter() -> None:
        with only_here("abc", wait_seconds=30) as waited:
            results.append(waited)

    with only_here("abc", wait_seconds=0):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(0.5)
        assert results == []
    thread.join()
    assert results == [True]
