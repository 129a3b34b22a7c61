# SPDX-License-Identifier: Apache-2.0
"""The README says what the code does: its tables are compared with signatures, its examples are run."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary import __version__, exceptions
from airflow_provider_capillary.api.connection_parser import parse_connection
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.assets.capillary import capillary_coupon_uploads, capillary_redeem_uploads
from airflow_provider_capillary.get_provider_info import get_provider_info
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.operators.capillary import CapillaryRedeemUploadOperator
from airflow_provider_capillary.sandbox import Fault, Sandbox
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from airflow_provider_capillary.triggers.capillary import (
    CapillaryCouponUploadEventTrigger,
    CapillaryRedeemUploadEventTrigger,
)
from tests.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/airflow-versions.md",
    "docs/object-stores.md",
    "docs/open-questions.md",
    "docs/stability.md",
    "docs/uploads.md",
)
#: What a link of the README begins with that leads to a page, or a picture, of this repository.
REPOSITORY = "https://github.com/airflow-provider-capillary/airflow-provider-capillary/blob/main/"
PICTURES = "https://raw.githubusercontent.com/airflow-provider-capillary/airflow-provider-capillary/main/"
REQUIRED = inspect.Parameter.empty
OPERATORS = [
    CapillaryRedeemUploadOperator,
    CapillaryRedeemUploadSensor,
    CapillaryErrorFileToObjectStorageOperator,
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def table_under(heading: str, first_column: str) -> list[list[str]]:
    """The rows of the table whose first column is called so, between a heading and the next."""
    (section,) = re.findall(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ [A-Z]|\Z)", README, re.MULTILINE | re.DOTALL)
    lines = section.splitlines()
    (start,) = (number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(cell: str) -> str:
    """What a cell shows in code type, and nothing but that."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match, f"{cell!r} should be in code type"
    return match[1]


def default(cell: str) -> Any:
    return REQUIRED if cell == "required" else ast.literal_eval(code(cell))


def parameters_of(function: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def namespace_of(example: str) -> dict[str, Any]:
    """Run an example of the README."""
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "README.md", "exec"), namespace)
    return namespace


def example_with(word: str) -> str:
    (example,) = (block for block in blocks("python") if word in block)
    return example


@pytest.mark.parametrize("cls", OPERATORS)
def test_every_parameter_is_in_the_table_with_its_default_and_no_other_is(cls: type) -> None:
    documented = {code(name): default(value) for name, value, *_ in table_under(cls.__name__, "Parameter")}
    # A class of ours may take some parameters, and leave the others to its base.
    ours = [each for each in reversed(cls.__mro__) if each.__module__ == cls.__module__ and "__init__" in vars(each)]
    parameters = {name: value for each in ours for name, value in parameters_of(each).items()}
    assert documented == parameters


@pytest.mark.parametrize("cls", OPERATORS)
def test_the_table_says_what_is_templated(cls: Any) -> None:
    documented = {code(name): templated for name, _, templated, _ in table_under(cls.__name__, "Parameter")}
    assert documented == {name: "yes" if name in cls.template_fields else "no" for name in documented}


def test_every_parameter_of_the_asset_is_in_its_table_and_its_trigger_has_the_same() -> None:
    documented = {code(name): default(value) for name, value, _ in table_under("capillary_redeem_uploads", "Parameter")}
    assert documented == parameters_of(capillary_redeem_uploads) == parameters_of(capillary_coupon_uploads)
    del documented["name"]
    assert documented == parameters_of(CapillaryRedeemUploadEventTrigger)
    assert documented == parameters_of(CapillaryCouponUploadEventTrigger)


def test_every_parameter_of_the_retry_policy_is_in_its_table() -> None:
    documented = {code(name): default(value) for name, value, _ in table_under("Hooks", "Parameter")}
    assert documented == parameters_of(HttpRetry)


def test_every_field_of_the_connection_form_is_in_the_table() -> None:
    info: Any = get_provider_info()
    (connection,) = info["connection-types"]
    fields = {label: name for name, label in connection["ui-field-behaviour"]["relabeling"].items()}
    fields |= {"Port": "port"} | {field["label"]: name for name, field in connection["conn-fields"].items()}

    documented = {label: code(stored) for label, stored, *_ in table_under("The connection", "Field")}

    assert documented == fields


def test_every_public_method_of_the_hook_is_in_the_table() -> None:
    ours = [each for each in CapillaryHook.__mro__ if each.__module__.startswith("airflow_provider_capillary.")]
    methods = {name for each in ours for name, _ in inspect.getmembers(each, inspect.isfunction) if name in vars(each)}
    documented = {code(cell).partition("(")[0] for cell, _ in table_under("Hooks", "Method")}
    assert documented == {name for name in methods if not name.startswith("_")}


def test_every_field_of_a_job_is_in_the_table_and_in_the_example_of_an_xcom() -> None:
    fields = [field.name for field in dataclasses.fields(UploadJob)]
    assert sorted(code(name) for name, *_ in table_under("UploadJob", "Field")) == sorted(fields)
    (example,) = blocks("json")
    job = json.loads(example)
    assert UploadJob.from_dict(job).to_dict() == job
    assert sorted(job) == sorted(fields)


def test_every_exception_is_in_the_table() -> None:
    assert sorted(code(name) for name, *_ in table_under("Exceptions", "Exception")) == sorted(exceptions.__all__)


def test_the_table_of_status_words_is_right() -> None:
    rows = {meaning: cell for cell, meaning in table_under('What "done" means', "Status word")}
    for meaning, done in (("completed", (True, False)), ("failed", (False, True)), ("running", (False, False))):
        for word in re.findall(r"`(\w+)`", rows[meaning]):
            job = UploadJob(job_id=1, status=word)
            assert (job.is_completed, job.is_failed) == done, word
            assert job.has_known_status, word


def test_every_make_target_is_in_the_table() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    documented = [code(cell) for cell, _ in table_under("Development", "Target")]
    assert sorted(documented) == sorted(f"make {target}" for target in targets)


@pytest.mark.parametrize("example", blocks("python"), ids=lambda example: example.split()[-1])
def test_every_python_example_compiles_and_imports_what_there_is(example: str) -> None:
    compile(example, "README.md", "exec")
    imports = [node for node in ast.parse(example).body if isinstance(node, ast.Import | ast.ImportFrom)]
    namespace_of("\n".join(ast.unparse(node) for node in imports))


def test_the_dag_is_one() -> None:
    namespace = namespace_of(example_with("upload = CapillaryRedeemUploadOperator("))
    dag = namespace["upload"].dag
    assert dag.task_dict["upload"].downstream_task_ids == {"errors", "wait"}
    assert dag.task_dict["wait"].downstream_task_ids == {"errors"}
    assert dag.task_dict["errors"].downstream_task_ids == {"load"}
    assert sorted(dag.task_ids) == ["errors", "load", "upload", "wait"]


def test_the_dag_of_the_asset_is_scheduled_by_it_and_mapped_over_its_jobs() -> None:
    example = example_with("schedule=[capillary_redeem_uploads(")
    dag = namespace_of(example.replace("]):", "]) as dag:"))["dag"]
    (asset,) = dag.timetable.asset_condition.objects
    assert asset.uri == "capillary://capillary_default/redeem-uploads/535512"
    assert dag.task_dict["errors"].upstream_task_ids == {"jobs_with_errors"}


def test_the_example_of_the_hook_reads_the_whole_error_file(sandbox: Sandbox, capillary_connection: str) -> None:
    job = sandbox.add_job(535512, errors=3)
    assert namespace_of(example_with("open_error_file("))["size"] == len(job.read_error_file())


def test_the_example_of_a_test_passes(sandbox: Sandbox, capillary_connection: str) -> None:
    namespace = namespace_of(example_with("@pytest.fixture"))
    namespace["test_a_short_outage_does_not_matter"](sandbox)


def test_the_connections_of_the_examples_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    exports = re.findall(r"^export (AIRFLOW_CONN_CAPILLARY_DEFAULT='.*?')$", README, re.MULTILINE | re.DOTALL)
    assert len(exports) == 2
    for export in exports:
        (assignment,) = shlex.split(export)
        monkeypatch.setenv(*assignment.split("=", 1))
        connection = CapillaryHook.get_connection("capillary_default")
        assert parse_connection("capillary_default", connection).unknown_extras == ()


def test_the_connections_to_object_stores_are_ones_that_airflow_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "object-stores.md").read_text(encoding="utf-8")
    exports = re.findall(r"^export AIRFLOW_CONN_(\w+='.*?')$", text, re.MULTILINE | re.DOTALL)
    kinds = {}
    for export in exports:
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


def test_the_sandbox_takes_what_the_examples_give_it() -> None:
    sandbox = Sandbox(port=8010)
    assert f"export AIRFLOW_CONN_CAPILLARY_DEFAULT='{sandbox.connection_json()}'" in README
    given = dict(re.findall(r"^curl -s http://127.0.0.1:8010/sandbox/(\w+) -d '(.*)'$", README, re.MULTILINE))
    assert sandbox.add_job(**json.loads(given.pop("jobs"))).errors
    assert Fault.from_json(json.loads(given.pop("faults")))
    assert not given


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_into_the_repository_leads_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(text)):
        folder = ROOT if target.startswith((REPOSITORY, PICTURES)) else (ROOT / name).parent
        inside = target.removeprefix(REPOSITORY).removeprefix(PICTURES)
        if "://" in inside:
            continue
        file, _, anchor = inside.partition("#")
        there = ROOT / name if not file else folder / file
        assert there.exists(), target
        if anchor:
            assert anchor in anchors_of(there.read_text(encoding="utf-8")), target


def test_every_link_and_picture_of_the_readme_works_on_a_package_index() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose_of(README))
    assert any(target.startswith(PICTURES) for target in targets)
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def prose_of(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_header_values_of_examples_are_long_enough_for_airflows_masker() -> None:
    values = re.findall(r'"X-CAP-API-AUTH-ORG-ID": "([^"]*)"', README + str(get_provider_info()))
    assert len(values) >= 3
    assert [value for value in values if len(value) < 5] == []
