# SPDX-License-Identifier: Apache-2.0
"""Folders of the machine itself: the contract of all stores, and what only a file system can get wrong."""

from __future__ import annotations

import resource
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.exceptions import CapillaryConfigurationError, CapillaryErrorFileError
from tests.airflow_compat import ObjectStoragePath
from tests.transfers import contract
from tests.transfers.child import run_child
from tests.transfers.contract import NAME, OLD
from tests.transfers.running import LARGE, MIB, SERIES, SMALL, pull
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.transfers.stores import LocalFolder


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse what is written beyond, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestArrival(contract.Arrival):
    pass


class TestOverwriting(contract.Overwriting):
    pass


class TestChanging(contract.Changing):
    pass


class TestWholeness(contract.Wholeness):
    pass


class TestKilling(contract.Killing):
    pass


class TestFolder:
    @pytest.fixture
    def job(self, sandbox: Sandbox) -> SandboxJob:
        return sandbox.add_job(SERIES, errors=1, error_file=SMALL)

    def test_an_absolute_path_needs_no_scheme(self, job: SandboxJob, store: LocalFolder) -> None:
        run = pull(job, f"{store.path}/")

        name = f"redeem_errors_{SERIES}_{job.job_id}.csv"
        assert store.visible() == {name: Content.of(SMALL)}
        assert run.result == f"file://{store.path}/{name}"

    def test_the_scheme_may_be_in_capitals(self, job: SandboxJob, store: LocalFolder) -> None:
        run = pull(job, f"FILE://{store.path}/{NAME}")

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert run.result == f"file://{store.path}/{NAME}"

    def test_missing_folders_are_made(self, job: SandboxJob, store: LocalFolder) -> None:
        pull(job, f"{store.folder}2026/11/{NAME}")

        assert (store.path / "2026" / "11" / NAME).read_bytes() == SMALL

    @pytest.mark.parametrize("name", ["a b", "50%25", "a?b", "part#1", "a:b", "a\\b", "ä", "~x", "x ", "a#?"])
    def test_a_name_is_taken_literally_and_the_returned_uri_opens_it(
        self, job: SandboxJob, store: LocalFolder, name: str
    ) -> None:
        run = pull(job, f"{store.folder}{name}")

        assert store.visible() == {name: Content.of(SMALL)}
        assert ObjectStoragePath(run.result).read_bytes() == SMALL

    @pytest.mark.parametrize("name", ["name#", "what?", "a::b", "::b", "b::", "#", "a?#", "a?#b"])
    def test_a_name_whose_uri_could_not_be_opened_is_refused(
        self, job: SandboxJob, store: LocalFolder, name: str
    ) -> None:
        # Airflow's path would cut it short.
        with pytest.raises(CapillaryConfigurationError, match=r"destination (has '::'|ends in '#' or '\?')"):
            pull(job, store.folder + name)

        assert store.visible() == {}

    @pytest.mark.parametrize("folder", ["a#b/", "a?b/", "50%25/", "#/", "?/"])
    def test_a_folder_s_name_is_taken_literally_and_the_returned_uri_opens_the_file(
        self, job: SandboxJob, store: LocalFolder, folder: str
    ) -> None:
        run = pull(job, store.folder + folder)

        assert ObjectStoragePath(run.result).read_bytes() == SMALL
        assert [path.name for path in (store.path / folder).iterdir()] == [f"redeem_errors_{SERIES}_{job.job_id}.csv"]

    def test_the_scheme_local_is_that_of_files(self, job: SandboxJob, store: LocalFolder) -> None:
        run = pull(job, f"local://{store.path}/{NAME}")

        assert run.result == store.folder + NAME
        assert store.visible() == {NAME: Content.of(SMALL)}

    @pytest.mark.parametrize("destination", ["local://lake/errors.csv", "local://errors.csv"])
    def test_a_relative_path_behind_the_scheme_local_is_refused(self, job: SandboxJob, destination: str) -> None:
        with pytest.raises(CapillaryConfigurationError, match="destination must have an absolute path"):
            pull(job, destination)

    def test_a_name_may_be_as_long_as_the_file_system_allows(self, job: SandboxJob, store: LocalFolder) -> None:
        name = "e" * 251 + ".csv"

        pull(job, store.folder + name)

        assert store.visible() == {name: Content.of(SMALL)}

    def test_a_new_file_has_the_permissions_of_the_umask(self, job: SandboxJob, store: LocalFolder) -> None:
        ordinary = store.path / "ordinary"
        ordinary.write_bytes(b"")

        pull(job, store.folder + NAME)

        assert (store.path / NAME).stat().st_mode == ordinary.stat().st_mode

    def test_the_temporary_folder_of_the_machine_is_not_used(
        self, job: SandboxJob, store: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("TMPDIR", "TEMP", "TMP"):
            monkeypatch.setenv(name, str(tmp_path / "not-there"))
        # Python remembers the first answer.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not-there"))

        pull(job, store.folder)

        assert list(store.visible().values()) == [Content.of(SMALL)]

    def test_a_parent_that_is_a_file_is_named(self, job: SandboxJob, store: LocalFolder) -> None:
        store.put("file", OLD)
        destination = f"{store.folder}file/{NAME}"

        with pytest.raises(CapillaryErrorFileError, match=f"destination {destination} cannot be written"):
            pull(job, destination)

        assert store.visible() == {"file": Content.of(OLD)}
        assert store.unfinished() == []

    def test_a_folder_without_a_slash_at_the_end_is_named_with_the_remedy(
        self, job: SandboxJob, store: LocalFolder, tmp_path: Path
    ) -> None:
        destination = store.folder.removesuffix("/")

        with pytest.raises(CapillaryErrorFileError, match=f"destination {destination} cannot .* end it with /"):
            pull(job, destination)

        assert store.visible() == {}
        assert [path.name for path in tmp_path.iterdir()] == ["lake"]

    @pytest.mark.parametrize("old", [None, OLD], ids=["nothing there before", "an old file there"])
    def test_a_write_that_fails_in_the_middle_is_named_and_leaves_all_as_it_was(
        self, sandbox: Sandbox, store: LocalFolder, old: bytes | None
    ) -> None:
        if old is not None:
            store.put(NAME, old)
        before = store.visible()
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)

        with files_of_at_most(5 * MIB), pytest.raises(CapillaryErrorFileError) as caught:
            pull(job, store.folder + NAME)

        assert str(caught.value) == f"destination {store.folder}{NAME} cannot be written: File too large"
        assert store.visible() == before
        assert store.unfinished() == []

    def test_memory_stays_small_however_large_the_file(
        self, sandbox: Sandbox, store: LocalFolder, tmp_path: Path
    ) -> None:
        size = 300 * MIB
        source = tmp_path / "source.csv"
        with source.open("wb") as file:
            file.truncate(size)
            file.seek(size - 8)
            file.write(b"the end\n")
        job = sandbox.add_job(SERIES, errors=1, error_file=source)

        output = run_child(job, store.folder + NAME)

        assert output["error_file"]["size_bytes"] == size
        assert output["growth"] < 100 * MIB
