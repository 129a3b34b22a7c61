# SPDX-License-Identifier: Apache-2.0
"""The files that GitHub reads are valid, and agree with the Makefile, the test matrix and the metadata."""

from __future__ import annotations

import re
import shlex
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import yaml

from airflow_provider_capillary.doctor import __main__ as doctor
from scripts.test_matrix import ENVIRONMENTS
from tests.project import PYPROJECT, ROOT, text_of

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

GITHUB = ROOT / ".github"
FILES = sorted(chain(GITHUB.rglob("*.yml"), GITHUB.rglob("*.yaml"), ROOT.glob(".*.yaml")))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (GITHUB / "workflows").iterdir()}
FORMS = {path.stem: yaml.safe_load(path.read_text()) for path in (GITHUB / "ISSUE_TEMPLATE").iterdir()}
CONFIG = FORMS.pop("config")
JOBS = [(workflow, name, job) for workflow, content in WORKFLOWS.items() for name, job in content["jobs"].items()]
STEPS = [step for _, _, job in JOBS for step in job.get("steps", [])]
#: PyYAML reads YAML 1.1, in which the key `on` is true.
ON: Any = True


def make_targets(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z][a-z-]*)", text))


#: What any job makes.
MADE = {target for step in STEPS for target in make_targets(step.get("run", ""))}


def job_that_runs(target: str) -> dict[str, Any]:
    """The only job of CI that makes a target."""
    jobs = WORKFLOWS["ci"]["jobs"].values()
    (job,) = (job for job in jobs if any(target in make_targets(step.get("run", "")) for step in job["steps"]))
    return job


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_a_mapping_in_valid_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


class TestWorkflows:
    def test_are_those_of_ci_and_of_a_release(self) -> None:
        assert set(WORKFLOWS) == {"ci", "release"}
        assert set(WORKFLOWS["ci"][ON]) == {"pull_request", "push", "workflow_call"}
        assert WORKFLOWS["release"][ON] == {"push": {"tags": ["v*"]}}

    def test_make_targets_that_there_are(self) -> None:
        there = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
        assert MADE - there == set()
        assert {"lint", "test", "build"} <= MADE

    def test_of_ci_make_all_that_the_local_run_makes(self) -> None:
        local = make_targets(re.sub(r"group '.+'", "", text_of(".ci/run"))) - {"venv"}  # which the others make
        assert {"test", "test-matrix"} <= local
        assert local - MADE == set()

    def test_test_each_python_of_the_classifiers(self) -> None:
        classifiers = "\n".join(PYPROJECT["project"]["classifiers"])
        versions = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.MULTILINE)
        assert job_that_runs("test")["strategy"]["matrix"]["python"] == versions

    def test_run_each_environment_of_the_test_matrix_with_its_python(self) -> None:
        job = job_that_runs("test-matrix")
        names = job["strategy"]["matrix"]["environment"]
        assert names == [environment.name for environment in ENVIRONMENTS]
        # `make test-matrix` takes beginnings of names: each has to be the beginning of one alone.
        assert [name for name in names if sum(each.startswith(name) for each in names) != 1] == []
        (pythons,) = (
            step["with"]["python-version"].split()
            for step in job["steps"]
            if "with" in step and "python-version" in step["with"]
        )
        oldest = PYPROJECT["project"]["requires-python"].removeprefix(">=")
        assert set(pythons) == {environment.python for environment in ENVIRONMENTS} | {oldest}
        assert pythons[-1] == oldest  # the last one is python3, and constraints.txt is resolved for it

    def test_of_a_release_run_ci_then_build_once_then_publish_in_an_environment(self) -> None:
        jobs = WORKFLOWS["release"]["jobs"]
        assert jobs["ci"] == {"uses": "./.github/workflows/ci.yml"}
        assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("ci", "build")
        assert jobs["publish"]["environment"]["name"] == "pypi"
        runs = [step["run"] for job in jobs.values() for step in job.get("steps", []) if "run" in step]
        assert runs == ['make build TAG="$GITHUB_REF_NAME"']
        uses = [step.get("uses", "").partition("@")[0] for name in ("build", "publish") for step in jobs[name]["steps"]]
        in_order = [
            "actions/attest",
            "actions/upload-artifact",
            "actions/download-artifact",
            "pypa/gh-action-pypi-publish",
        ]
        assert [name for name in uses if name in in_order] == in_order

    @pytest.mark.parametrize("workflow", WORKFLOWS)
    def test_may_read_the_repository_and_nothing_else_by_default(self, workflow: str) -> None:
        assert WORKFLOWS[workflow]["permissions"] == {"contents": "read"}

    def test_may_do_more_only_to_attest_and_to_publish(self) -> None:
        more = {(workflow, name): job["permissions"] for workflow, name, job in JOBS if "permissions" in job}
        assert more == {
            ("release", "build"): {"contents": "read", "id-token": "write", "attestations": "write"},
            ("release", "publish"): {"id-token": "write"},
        }

    def test_use_no_secret_and_leave_no_token_in_the_checkout(self) -> None:
        assert "secrets." not in "".join(path.read_text() for path in (GITHUB / "workflows").iterdir())
        checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
        assert checkouts
        assert [step for step in checkouts if step.get("with", {}).get("persist-credentials") is not False] == []

    def test_pin_actions_by_major_version(self) -> None:
        used = {step["uses"] for step in STEPS if "uses" in step}
        assert used
        assert [
            each for each in used if not re.fullmatch(r"[\w.-]+/[\w./-]+@(?:v\d+(?:\.\d+){0,2}|release/v1)", each)
        ] == []

    def test_end_by_themselves(self) -> None:
        assert [
            name for _, name, job in JOBS if "uses" not in job and not 0 < job.get("timeout-minutes", 0) <= 60
        ] == []


class TestDependabot:
    def test_looks_after_python_packages_and_actions(self) -> None:
        content = yaml.safe_load((GITHUB / "dependabot.yml").read_text())
        assert content["version"] == 2
        assert [each["package-ecosystem"] for each in content["updates"]] == ["pip", "github-actions"]
        assert {(each["directory"], each["schedule"]["interval"]) for each in content["updates"]} == {("/", "weekly")}


class TestIssueForms:
    #: Type of an element of a form -> attributes that GitHub requires.
    elements: ClassVar = {
        "markdown": {"value"},
        "textarea": {"label"},
        "input": {"label"},
        "dropdown": {"label", "options"},
        "checkboxes": {"label", "options"},
    }

    def test_are_a_bug_report_and_an_idea(self) -> None:
        assert set(FORMS) == {"bug_report", "feature_request"}
        assert CONFIG["blank_issues_enabled"] is False
        assert all(set(link) == {"name", "url", "about"} for link in CONFIG["contact_links"])

    @pytest.mark.parametrize("form", FORMS)
    def test_have_what_github_requires(self, form: str) -> None:
        content = FORMS[form]
        assert {"name", "description", "body"} <= set(content) <= {"name", "description", "title", "labels", "body"}
        for element in content["body"]:
            assert self.elements[element["type"]] <= set(element["attributes"])
            assert all(element["attributes"][name] for name in self.elements[element["type"]])
        asking = [element for element in content["body"] if element["type"] != "markdown"]
        assert asking
        ids = [element["id"] for element in asking]
        labels = [element["attributes"]["label"] for element in asking]
        assert len(ids) == len(set(ids)) == len(set(labels))
        assert all(re.fullmatch(r"[\w-]+", each) for each in ids)

    def test_of_a_bug_requires_versions_and_the_report_of_the_doctor_by_a_command_that_works(self) -> None:
        asked = {element["id"]: element for element in FORMS["bug_report"]["body"] if "id" in element}
        assert asked["versions"]["validations"]["required"] is True
        assert asked["doctor"]["validations"]["required"] is True
        (command,) = re.findall(r"`(python -m [^`]+)`", asked["doctor"]["attributes"]["description"])
        _, _, module, *arguments = shlex.split(command)
        assert f"{module}.__main__" == doctor.__name__
        given: argparse.Namespace = doctor._parser().parse_args(arguments)
        assert (given.conn_id, given.series, given.json) == ("CONN", "SERIES", True)


class TestCodeOwners:
    lines: ClassVar = [
        line.split() for line in text_of(".github/CODEOWNERS").splitlines() if line and not line.startswith("#")
    ]

    def test_own_paths_that_there_are(self) -> None:
        paths = [path for path, *_ in self.lines]
        assert paths[0] == "*"
        assert [path for path in paths[1:] if not (ROOT / path.strip("/")).exists()] == []
        assert [path for path in paths[1:] if (ROOT / path.strip("/")).is_dir() != path.endswith("/")] == []

    def test_are_three_roles_and_nobody_by_name(self) -> None:
        owners = {owner for _, *owners in self.lines for owner in owners}
        assert {owner.partition("/")[2] for owner in owners} == {"maintainers", "release-managers", "security"}
