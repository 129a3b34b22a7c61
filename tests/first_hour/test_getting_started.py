# SPDX-License-Identifier: Apache-2.0
"""The commands of Getting started and of the README do what the pages say."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from scripts.test_matrix import Interpreters
from tests.docs.pages import fences_of
from tests.first_hour.conftest import BLOCK_SECONDS, PAGE, PIP, FirstHour
from tests.first_hour.shell import Shell
from tests.project import text_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def test_every_command_ends_well_and_prints_what_the_page_shows(first_hour: FirstHour) -> None:
    fences = fences_of(PAGE, "bash", "text")
    shown = [(block.text, after.text) for block, after in pairwise(fences) if after.language == "text"]
    assert shown
    assert len(first_hour.steps) == sum(fence.language == "bash" for fence in fences) - 1
    for commands, text in shown:
        printed = first_hour.output_of(commands)
        assert [line for line in text.splitlines() if line not in printed] == []


def test_the_package_is_the_wheel_and_not_these_sources(first_hour: FirstHour, wheel: Path) -> None:
    (where,) = (first_hour.folder / "capillary-venv").glob("lib/python*/site-packages/airflow_provider_capillary")
    assert (where / "py.typed").is_file()
    (record,) = where.parent.glob("airflow_provider_capillary-*.dist-info/direct_url.json")
    assert wheel.as_uri() in record.read_text()


def test_the_run_is_green(first_hour: FirstHour) -> None:
    output = first_hour.output_of("airflow dags test")
    states = re.findall(r"DagRun Finished.*?state=(\w+)", output) or re.findall(r"dag_run_state=(\w+)", output)
    assert states == ["success"], output[-3000:]


def test_the_error_file_has_as_many_lines_as_the_page_says(first_hour: FirstHour) -> None:
    assert "It has eight lines" in text_of(PAGE)
    assert first_hour.output_of("wc -l").split()[0] == "8"


def test_the_readme_installs_the_package_beside_the_airflow_of_its_constraint_file(
    reader: dict[str, str], tmp_path: Path
) -> None:
    (block,) = [fence.text for fence in fences_of("README.md", "bash") if "pip install" in fence.text]
    ((airflow, python),) = re.findall(r"constraints-([\d.]+)/constraints-([\d.]+)\.txt", block)
    interpreter = Interpreters().find(python)
    if interpreter is None:
        pytest.skip(f"there is no Python {python} on this machine")
    env = reader | {"AIRFLOW_HOME": str(tmp_path / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    shell = Shell(tmp_path, env, f"{PIP}\n{interpreter} -m venv venv\nsource venv/bin/activate")
    try:
        shell.run(block, seconds=BLOCK_SECONDS)
        assert shell.run("airflow version", seconds=BLOCK_SECONDS).split()[-1] == airflow
        listed = shell.run("airflow providers list --output plain", seconds=BLOCK_SECONDS)
    finally:
        shell.close()
    assert re.search(r"^airflow-provider-capillary\b", listed, re.MULTILINE)
    assert re.search(r"^apache-airflow-providers-amazon\b", listed, re.MULTILINE)
