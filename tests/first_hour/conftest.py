# SPDX-License-Identifier: Apache-2.0
"""The first hour of a user: Getting started from its first command to its last, in an environment that is not ours."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.docs.pages import fences_of
from tests.first_hour.shell import Shell
from tests.ports import LOOPBACK
from tests.project import PYPROJECT, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docs.pages import Fence

PAGE = "docs/getting-started.md"
#: What the example DAG writes, and the page removes.
WRITTEN = Path("/tmp/capillary")
#: Where the page's sandbox listens.
SANDBOX_PORT = 8010
BLOCK_SECONDS = 600.0

#: The commands are run as they are printed. Only pip gets other arguments: the wheel of this repository in place of the
#: package, and the constraint files that lie here in place of Airflow's. uv is tried first, because it takes seconds.
PIP = r"""
pip() {
  local given=() argument version
  for argument; do
    case "$argument" in
      airflow-provider-capillary*)
        argument="airflow-provider-capillary${argument#airflow-provider-capillary} @ file://$FIRST_HOUR_WHEEL" ;;
      https://raw.githubusercontent.com/apache/airflow/constraints-*/constraints-*.txt)
        version="${argument#*/constraints-}"
        argument="$FIRST_HOUR_CONSTRAINTS/airflow-${version%%/*}-python-${argument##*/constraints-}" ;;
    esac
    given+=("$argument")
  done
  "$FIRST_HOUR_UV" pip "${given[@]}" || command pip "${given[@]}"
}
"""


@pytest.fixture(scope="session")
def reader(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a reader's shell: nothing of ours but where the wheel is, and a Python on the PATH."""
    constraints = tmp_path_factory.mktemp("constraints")
    for file in (ROOT / "tests" / "constraints").iterdir():
        shutil.copy(file, constraints)
    # What Airflow's release and Python are that constraints.txt is resolved for, the Makefile and mypy have, too.
    python = PYPROJECT["tool"]["mypy"]["python_version"]
    (airflow,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "apache-airflow==" in line]
    shutil.copy(ROOT / "constraints.txt", constraints / f"airflow-{airflow.partition('==')[2]}-python-{python}.txt")
    ours = ("AIRFLOW", "_AIRFLOW", "PYTEST", "PYTHON", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    return env | {
        "PATH": f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "300",
        "FIRST_HOUR_WHEEL": str(wheel),
        "FIRST_HOUR_CONSTRAINTS": str(constraints),
        "FIRST_HOUR_UV": str(Path(sys.executable).with_name("uv")),
    }


@dataclass
class FirstHour:
    """What came of the commands of the page.

    :param folder: The folder that the reader began in.
    :param steps: Each block of commands with its output.
    :param env: What the commands have exported.
    """

    folder: Path
    steps: list[tuple[Fence, str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def output_of(self, command: str) -> str:
        """The output of the only block that has a command."""
        (output,) = [output for fence, output in self.steps if command in fence.text]
        return output


@pytest.fixture(scope="session")
def first_hour(reader: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstHour]:
    """Run the commands of the page, all but the last block, which cleans up afterwards."""
    aside = WRITTEN.with_name(f"{WRITTEN.name}-{uuid4().hex}")
    if WRITTEN.exists():  # somebody has followed the page, and not to its end
        WRITTEN.rename(aside)
    with socket.socket() as probe:
        assert probe.connect_ex((LOOPBACK, SANDBOX_PORT)), f"another process listens on port {SANDBOX_PORT}"
    *blocks, last = fences_of(PAGE, "bash")
    hour = FirstHour(tmp_path_factory.mktemp("first-hour"))
    shell = Shell(hour.folder, reader, PIP)
    try:
        for block in blocks:
            hour.steps.append((block, shell.run(block.text, seconds=BLOCK_SECONDS)))
        hour.env = shell.environment()
        yield hour
        shell.run(last.text, seconds=60)
        assert not WRITTEN.exists()
    finally:
        shell.close()
        shutil.rmtree(WRITTEN, ignore_errors=True)
        if aside.exists():
            aside.rename(WRITTEN)
