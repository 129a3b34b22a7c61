# SPDX-License-Identifier: Apache-2.0
"""Sdist and wheel hold what they should and nothing else, say who they are, and are the same bytes each time."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from airflow_provider_capillary import __version__
from airflow_provider_capillary.get_provider_info import get_provider_info
from scripts.build import build, check, check_tag
from tests.project import PYPROJECT, ROOT, text_of, tracked_files

if TYPE_CHECKING:
    from email.message import Message

PACKAGE = "airflow_provider_capillary"
STEM = f"{PACKAGE}-{__version__}"
DIST_INFO = f"{STEM}.dist-info"


@pytest.fixture(scope="module")
def in_wheel(wheel: Path) -> dict[str, bytes]:
    """Name -> content of each file in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def in_sdist(distributions: tuple[Path, Path]) -> dict[str, bytes]:
    """Name -> content of each file in the sdist, below its only folder."""
    with tarfile.open(distributions[0]) as archive:
        members = {member.name: archive.extractfile(member) for member in archive if not member.isdir()}
        read = {name: file.read() for name, file in members.items() if file is not None}
    assert {name.partition("/")[0] for name in read} == {STEM}
    return {name.partition("/")[2]: content for name, content in read.items()}


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    return tracked_files() or pytest.skip("the files are compared with those that git tracks; this is no checkout")


@pytest.fixture(scope="module")
def metadata(in_wheel: dict[str, bytes]) -> Message:
    return HeaderParser().parsestr(in_wheel[f"{DIST_INFO}/METADATA"].decode())


class TestContent:
    def test_wheel_has_each_tracked_file_of_the_package_and_the_examples_and_nothing_else(
        self, in_wheel: dict[str, bytes], tracked: set[str]
    ) -> None:
        package = {name for name in tracked if name.startswith(f"{PACKAGE}/")}
        examples = {f"{PACKAGE}/{name}" for name in tracked if name.startswith("example_dags/")}
        about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
        assert f"{PACKAGE}/py.typed" in package
        assert len(examples) > 1
        assert set(in_wheel) == package | examples | {f"{DIST_INFO}/{name}" for name in about}

    def test_sdist_has_each_tracked_file_and_nothing_else(self, in_sdist: dict[str, bytes], tracked: set[str]) -> None:
        # A new file in the root is named in `include` of the sdist in pyproject.toml.
        assert set(in_sdist) == tracked | {"PKG-INFO"}

    def test_files_are_those_of_the_repository(self, in_wheel: dict[str, bytes], in_sdist: dict[str, bytes]) -> None:
        assert in_wheel[f"{DIST_INFO}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
        changed = {name for name, content in in_sdist.items() if name != "PKG-INFO" and content != _read(name)}
        changed |= {name for name, content in in_wheel.items() if ".dist-info/" not in name and content != _read(name)}
        assert changed == set()

    def test_no_file_names_a_folder_of_this_machine_or_an_index_but_the_public_one(
        self, in_wheel: dict[str, bytes], in_sdist: dict[str, bytes]
    ) -> None:
        assert found_in(in_sdist, [PACKAGE.encode()])  # there is something to be found
        private = [str(ROOT), sys.prefix, ".".join(("pythonhosted", "org")), *indexes_of_this_machine()]
        assert found_in(in_wheel | in_sdist, [text.encode() for text in private]) == set()


class TestMetadata:
    def test_versions_agree(self, metadata: Message, in_sdist: dict[str, bytes]) -> None:
        (newest, *_) = re.findall(r"^## (\d\S*) - ", text_of("CHANGELOG.md"), re.MULTILINE)
        of_sdist = HeaderParser().parsestr(in_sdist["PKG-INFO"].decode())
        assert metadata["Version"] == of_sdist["Version"] == __version__ == newest

    def test_provider_info_has_no_version_that_could_differ(self) -> None:
        assert [key for key in get_provider_info() if "version" in key] == []

    def test_wheel_says_what_it_is(self, metadata: Message, in_wheel: dict[str, bytes]) -> None:
        declared = in_wheel[f"{DIST_INFO}/entry_points.txt"].decode()
        assert metadata["Name"] == PYPROJECT["project"]["name"] == get_provider_info()["package-name"]
        assert metadata["License-Expression"] == "Apache-2.0"
        assert metadata["Requires-Python"] == ">=3.11"
        assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier", [])
        assert metadata.get_all("Provides-Extra") == ["azure", "gcs", "s3", "sandbox"]
        assert f"provider_info = {PACKAGE}.get_provider_info:get_provider_info" in declared

    def test_an_index_accepts_it_and_renders_the_description(self, distributions: tuple[Path, Path]) -> None:
        check(*distributions)

    def test_the_check_refuses_a_description_that_does_not_render(self, wheel: Path, tmp_path: Path) -> None:
        broken = tmp_path / wheel.name
        with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(broken, "w") as after:
            for name in before.namelist():
                content = before.read(name)
                if name.endswith("/METADATA"):
                    headers = content.partition(b"\n\n")[0].replace(b"text/markdown", b"text/x-rst")
                    content = headers + b"\n\n`broken <reference\n=====\n"
                after.writestr(name, content)
        with pytest.raises(SystemExit, match="`long_description` has syntax errors"):
            check(broken)


class TestBuild:
    def test_gives_the_same_bytes_from_a_copy_in_another_folder_at_another_time(
        self, distributions: tuple[Path, Path], tracked: set[str], tmp_path: Path
    ) -> None:
        copy = tmp_path / "elsewhere" / "copy"
        for number, name in enumerate(sorted(tracked, reverse=True)):
            (file := copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, file)
            file.chmod(0o700 if os.access(ROOT / name, os.X_OK) else 0o600)  # git knows this much of modes
            os.utime(file, (1_000_000_000 + number, 1_000_000_000 + number))

        again = build(tmp_path / "dist", copy)

        assert [file.name for file in again] == [file.name for file in distributions]
        assert [file.read_bytes() for file in again] == [file.read_bytes() for file in distributions]

    def test_by_its_command_leaves_one_sdist_and_one_wheel_and_checks_the_tag_of_a_release(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / f"{PACKAGE}-0.0.1.tar.gz").touch()
        command = [sys.executable, str(ROOT / "scripts" / "build.py"), "--folder", str(tmp_path)]
        done = subprocess.run([*command, "--tag", "v99.0.0"], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "The tag is v99.0.0" in done.stderr
        assert sorted(file.name for file in tmp_path.iterdir()) == [f"{STEM}-py3-none-any.whl", f"{STEM}.tar.gz"]

    @pytest.mark.parametrize("tag", [f"v{__version__}", ""])
    def test_accepts_the_tag_of_the_version_and_none(self, tag: str) -> None:
        check_tag(tag, Path(f"{STEM}.tar.gz"))

    @pytest.mark.parametrize("tag", ["v99.0.0", __version__, f"v{__version__}.1", f"v{__version__}rc1"])
    def test_refuses_another_tag(self, tag: str) -> None:
        with pytest.raises(SystemExit, match=f"The tag is {re.escape(tag)}, but what was built is version"):
            check_tag(tag, Path(f"{STEM}.tar.gz"))


def found_in(files: dict[str, bytes], texts: list[bytes]) -> set[tuple[str, bytes]]:
    """Return each name of a file with each text that it holds."""
    return {(name, text) for name, content in files.items() for text in texts if text in content}


def indexes_of_this_machine() -> set[str]:
    """Return hosts and folders from which pip and uv install here, without the public index."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pairs = [line.partition("=")[::2] for line in listed.splitlines()] + list(os.environ.items())
    patterns = ("*index*url*", "*find?links*", "*default?index*", "uv?index")
    values = [value.strip("'\"") for name, value in pairs if any(fnmatch.fnmatch(name.lower(), p) for p in patterns)]
    parts = [urlsplit(part) for value in values for part in value.split()]
    return {part.hostname or part.path for part in parts} - {"", "pypi.org"}


def _read(name: str) -> bytes:
    file = ROOT / name
    if not file.exists():
        file = ROOT / name.removeprefix(f"{PACKAGE}/")
    return file.read_bytes()
