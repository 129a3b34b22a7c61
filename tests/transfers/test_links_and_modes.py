# SPDX-License-Identifier: Apache-2.0
"""Destinations of a file system that are more than a plain file: links, modes, owners, and what is no file."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.exceptions import CapillaryErrorFileError
from airflow_provider_capillary.sandbox import Fault
from tests.transfers.contract import NAME, OLD
from tests.transfers.running import LARGE, SERIES, SMALL, Run, pull
from tests.transfers.stores import Content, LocalFolder
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob

CONTENTS = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "of several parts"])
#: With and without the right to replace what is there.
OVERWRITE = pytest.mark.parametrize("overwrite", [True, False, "if_changed"])


@pytest.fixture
def job(sandbox: Sandbox) -> SandboxJob:
    return sandbox.add_job(SERIES, errors=1, error_file=SMALL)


@pytest.fixture
def elsewhere(tmp_path: Path) -> LocalFolder:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return LocalFolder(folder)


def linked(store: LocalFolder, target: Path | str) -> Path:
    link = store.path / NAME
    link.symlink_to(target)
    return link


@CONTENTS
def test_the_target_of_a_symbolic_link_is_written(
    sandbox: Sandbox, store: LocalFolder, elsewhere: LocalFolder, content: bytes
) -> None:
    elsewhere.put("target.csv", OLD)
    link = linked(store, elsewhere.path / "target.csv")

    run = pull(sandbox.add_job(SERIES, errors=1, error_file=content), store.folder + NAME)

    assert link.is_symlink()
    assert elsewhere.visible() == {"target.csv": Content.of(content)}
    assert store.unfinished() == elsewhere.unfinished() == []
    assert run.result == store.folder + NAME


def test_a_chain_of_relative_links_is_followed(job: SandboxJob, store: LocalFolder, elsewhere: LocalFolder) -> None:
    elsewhere.put("target.csv", OLD)
    (elsewhere.path / "second").symlink_to("target.csv")
    first = linked(store, "../elsewhere/second")

    pull(job, store.folder + NAME)

    assert first.is_symlink()
    assert (elsewhere.path / "second").is_symlink()
    assert (elsewhere.path / "target.csv").read_bytes() == SMALL


def test_the_target_of_a_link_stays_whole_until_the_new_file_is(
    sandbox: Sandbox, store: LocalFolder, elsewhere: LocalFolder
) -> None:
    elsewhere.put("target.csv", OLD)
    linked(store, elsewhere.path / "target.csv")
    job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
    sandbox.inject(Fault("cut", endpoint="download", fraction=0.9, times=None))

    with pytest.raises(Exception, match="error file"):
        pull(job, store.folder + NAME)

    assert elsewhere.visible() == {"target.csv": Content.of(OLD)}
    assert store.unfinished() == elsewhere.unfinished() == []


@OVERWRITE
def test_through_a_dangling_link_the_target_is_made(
    job: SandboxJob, store: LocalFolder, elsewhere: LocalFolder, overwrite: bool | str
) -> None:
    link = linked(store, elsewhere.path / "target.csv")

    pull(job, store.folder + NAME, overwrite=overwrite)

    assert link.is_symlink()
    assert elsewhere.visible() == {"target.csv": Content.of(SMALL)}


def test_without_overwrite_the_target_of_a_link_stays(
    job: SandboxJob, store: LocalFolder, elsewhere: LocalFolder
) -> None:
    elsewhere.put("target.csv", OLD)
    linked(store, elsewhere.path / "target.csv")

    with pytest.raises(CapillaryErrorFileError, match="already there and overwrite is off"):
        pull(job, store.folder + NAME, overwrite=False)

    assert elsewhere.visible() == {"target.csv": Content.of(OLD)}


@OVERWRITE
def test_a_link_into_a_folder_that_is_not_there_is_named(
    job: SandboxJob, store: LocalFolder, tmp_path: Path, overwrite: bool | str
) -> None:
    # The share that it leads to may not be mounted: a folder made in its place would hide the file.
    linked(store, tmp_path / "share" / "target.csv")

    with pytest.raises(CapillaryErrorFileError, match=r"is a symbolic link to .*/share/target.csv, whose folder does"):
        pull(job, store.folder + NAME, overwrite=overwrite)

    assert not (tmp_path / "share").exists()


@OVERWRITE
def test_a_loop_of_links_is_named(job: SandboxJob, store: LocalFolder, overwrite: bool | str) -> None:
    (store.path / "other").symlink_to(NAME)
    linked(store, "other")

    with pytest.raises(CapillaryErrorFileError, match="it is a symbolic link that leads back to itself"):
        pull(job, store.folder + NAME, overwrite=overwrite)

    assert store.unfinished() == []


def test_a_link_to_a_folder_above_the_file_is_followed_as_ever(
    job: SandboxJob, store: LocalFolder, elsewhere: LocalFolder
) -> None:
    (store.path / "today").symlink_to(elsewhere.path)

    pull(job, f"{store.folder}today/{NAME}")

    assert elsewhere.visible() == {NAME: Content.of(SMALL)}


# --- modes and owners --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
@CONTENTS
def test_the_mode_of_the_old_file_is_kept(sandbox: Sandbox, store: LocalFolder, mode: int, content: bytes) -> None:
    store.put(NAME, OLD)
    (store.path / NAME).chmod(mode)

    pull(sandbox.add_job(SERIES, errors=1, error_file=content), store.folder + NAME)

    assert stat.S_IMODE((store.path / NAME).stat().st_mode) == mode
    assert store.visible() == {NAME: Content.of(content)}


def test_the_part_is_never_more_open_than_the_old_file(sandbox: Sandbox, store: LocalFolder) -> None:
    store.put(NAME, OLD)
    (store.path / NAME).chmod(0o600)
    job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
    sandbox.inject(Fault("drip", endpoint="download", seconds=2.0))
    modes = set()

    writer = threading.Thread(target=Run(job, store.folder + NAME))
    writer.start()
    wait_until(lambda: store.under_way() != [])
    while (parts := store.under_way()) and writer.is_alive():
        with contextlib.suppress(FileNotFoundError):  # it has taken the place of the old file meanwhile
            if (status := (store.path / parts[0]).stat()).st_size:
                modes.add(stat.S_IMODE(status.st_mode))
    writer.join()

    assert modes == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_the_owner_of_the_old_file_is_kept_where_that_is_permitted(job: SandboxJob, store: LocalFolder) -> None:
    store.put(NAME, OLD)
    os.chown(store.path / NAME, 1234, 5678)

    pull(job, store.folder + NAME)

    status = (store.path / NAME).stat()
    assert (status.st_uid, status.st_gid) == (1234, 5678)


def test_the_mode_of_the_target_of_a_link_is_kept(job: SandboxJob, store: LocalFolder, elsewhere: LocalFolder) -> None:
    elsewhere.put("target.csv", OLD)
    (elsewhere.path / "target.csv").chmod(0o640)
    linked(store, elsewhere.path / "target.csv")

    pull(job, store.folder + NAME)

    assert stat.S_IMODE((elsewhere.path / "target.csv").stat().st_mode) == 0o640


# --- hard links, and what is no file -----------------------------------------------------------------------------


def test_of_a_file_with_several_names_one_is_replaced_and_the_log_says_so(
    job: SandboxJob, store: LocalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("other.csv", OLD)
    (store.path / NAME).hardlink_to(store.path / "other.csv")

    pull(job, store.folder + NAME)

    assert store.visible() == {"other.csv": Content.of(OLD), NAME: Content.of(SMALL)}
    assert f"{store.path / NAME} has 2 names (hard links): only this one will have the new contents" in caplog.text


@OVERWRITE
def test_a_fifo_is_refused_by_name(job: SandboxJob, store: LocalFolder, overwrite: bool | str) -> None:
    os.mkfifo(store.path / NAME)

    with pytest.raises(CapillaryErrorFileError, match="it is a FIFO, not a file; choose another destination"):
        pull(job, store.folder + NAME, overwrite=overwrite)

    assert stat.S_ISFIFO((store.path / NAME).stat().st_mode)


@OVERWRITE
def test_a_socket_is_refused_by_name(job: SandboxJob, store: LocalFolder, overwrite: bool | str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        with contextlib.chdir(store.path):  # the path of a socket must be short
            server.bind(NAME)

        with pytest.raises(CapillaryErrorFileError, match="it is a socket, not a file"):
            pull(job, store.folder + NAME, overwrite=overwrite)


@OVERWRITE
def test_a_device_is_refused_by_name_a_linked_one_too(
    job: SandboxJob, store: LocalFolder, overwrite: bool | str
) -> None:
    # Only by a link, lest a fault replaces the machine's own.
    linked(store, "/dev/null")

    with pytest.raises(CapillaryErrorFileError, match="it is a device, not a file"):
        pull(job, store.folder + NAME, overwrite=overwrite)


@OVERWRITE
def test_a_folder_is_refused_by_name(job: SandboxJob, store: LocalFolder, overwrite: bool | str) -> None:
    (store.path / NAME).mkdir()

    with pytest.raises(CapillaryErrorFileError, match="it is a folder; end it with / to have the file named"):
        pull(job, store.folder + NAME, overwrite=overwrite)


def test_something_else_that_is_there_does_not_say_that_overwrite_is_off(job: SandboxJob, store: LocalFolder) -> None:
    linked(store, "nowhere/at/all")  # a link where a folder is to be made

    with pytest.raises(CapillaryErrorFileError, match="cannot be written") as caught:
        pull(job, f"{store.folder}{NAME}/x.csv")

    assert "overwrite" not in str(caught.value)
