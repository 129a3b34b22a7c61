# SPDX-License-Identifier: Apache-2.0
"""The examples of the pages run, or at least compile and import what there is."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.api.connection_parser import parse_connection
from airflow_provider_capillary.get_provider_info import get_provider_info
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.airflow_compat import load_dags
from tests.docs.pages import DOCS, DOCUMENTS, PAGES, Fence, fences_of, section_of
from tests.project import ROOT, text_of

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
PYTHON = [fence for page in DOCUMENTS for fence in fences_of(page, "python")]
INCLUDED = [fence for fence in PYTHON if fence.included()]
#: Examples that stand in a page: a few lines that are no whole, and the DAG of the README.
WRITTEN = [fence for fence in PYTHON if not fence.included()]
SHELL = ("bash", "console")


def name_of(fence: Fence) -> str:
    return f"{fence.page}:{fence.included() or fence.text.splitlines()[0]}"


@pytest.mark.parametrize("fence", INCLUDED, ids=name_of)
def test_an_included_example_is_part_of_a_file_that_tests_run(fence: Fence) -> None:
    reference = str(fence.included())
    assert (ROOT / reference.partition(":")[0]).parent in (DOCS / "examples", ROOT / "example_dags")
    assert section_of(reference).strip()


@pytest.mark.parametrize("fence", WRITTEN, ids=name_of)
def test_an_example_in_a_page_compiles_and_imports_what_there_is(fence: Fence) -> None:
    compile(fence.text, fence.page, "exec")
    imports = [node for node in ast.parse(fence.text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile("\n".join(ast.unparse(node) for node in imports), fence.page, "exec"), {})


def test_each_example_file_is_included_by_a_page() -> None:
    included = {str(fence.included()).partition(":")[0] for fence in INCLUDED}
    assert [path.name for path in EXAMPLES if path.relative_to(ROOT).as_posix() not in included] == []


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if "with DAG(" in path.read_text()], ids=lambda path: path.name
)
def test_a_dag_of_the_pages_loads_without_an_import_error(path: Path) -> None:
    assert list(load_dags(path)) == [path.stem]


def test_the_example_of_the_hook_reads_the_whole_error_file(sandbox: Sandbox, capillary_connection: str) -> None:
    job = sandbox.add_job(535512, errors=3)
    assert runpy.run_path(str(DOCS / "examples/newest_error_file.py"))["size"] == len(job.read_error_file())


def test_the_example_of_a_test_passes() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "docs/examples/test_redeem_upload.py"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_connections_of_the_pages_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    exports = [
        export
        for page in PAGES
        for fence in fences_of(page, *SHELL)
        for export in re.findall(r"^export (AIRFLOW_CONN_CAPILLARY_\w+='.*?')$", fence.text, re.MULTILINE | re.DOTALL)
    ]
    assert len(exports) == 4
    for export in exports:
        (assignment,) = shlex.split(export)
        name, _, value = assignment.partition("=")
        monkeypatch.setenv(name, value)
        conn_id = name.removeprefix("AIRFLOW_CONN_").lower()
        assert parse_connection(conn_id, CapillaryHook.get_connection(conn_id)).unknown_extras == ()


def test_the_connections_to_object_stores_are_ones_that_airflow_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of("docs/guides/object-stores.md")
    kinds = {}
    for export in re.findall(r"^export AIRFLOW_CONN_(\w+='.*?')$", text, re.MULTILINE | re.DOTALL):
        (assignment,) = shlex.split(export)
        name, _, value = assignment.partition("=")
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", value)
        connection = CapillaryHook.get_connection(name.lower())
        kinds[name] = connection.conn_type
        assert connection.extra_dejson
    assert kinds == {
        "AWS_DEFAULT": "aws",
        "WASB_DEFAULT": "wasb",
        "GOOGLE_CLOUD_DEFAULT": "google_cloud_platform",
    }


@pytest.mark.parametrize("page", ["docs/getting-started.md", "docs/guides/testing.md"])
def test_the_connection_to_the_sandbox_is_the_one_that_it_prints(page: str) -> None:
    assert f"export AIRFLOW_CONN_CAPILLARY_DEFAULT='{Sandbox(port=8010).connection_json()}'\n" in text_of(page)


def test_the_sandbox_takes_the_job_and_the_fault_of_the_guide() -> None:
    pattern = r"^curl -s http://127.0.0.1:8010/sandbox/(\w+) -d '(.*)'$"
    given = dict(re.findall(pattern, text_of("docs/guides/testing.md"), re.MULTILINE))
    assert Sandbox().add_job(**json.loads(given.pop("jobs"))).errors
    assert Fault.from_json(json.loads(given.pop("faults")))
    assert not given


def test_header_values_of_examples_are_long_enough_for_airflows_masker() -> None:
    texts = "".join(text_of(page) for page in DOCUMENTS)
    values = re.findall(r'"X-CAP-API-AUTH-ORG-ID": "([^"]*)"', texts + str(get_provider_info()))
    assert len(values) >= 3
    assert [value for value in values if len(value) < 5] == []


def test_the_blocks_of_the_first_steps_are_in_languages_that_say_whether_they_are_run() -> None:
    for page in ("README.md", "docs/getting-started.md"):
        languages = re.findall(r"^ *```(\w+)", text_of(page), re.MULTILINE)
        assert set(languages) <= {"bash", "console", "dockerfile", "python", "text"}, page
        assert text_of(page).count("```") == 2 * len(languages), page


def test_every_run_block_of_the_first_steps_is_a_script_that_bash_can_parse() -> None:
    for page in ("README.md", "docs/getting-started.md"):
        script = "".join(fence.text for fence in fences_of(page, "bash"))
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
