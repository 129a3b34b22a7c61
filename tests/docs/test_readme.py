# SPDX-License-Identifier: Apache-2.0
"""The README is short, works on a package index, and agrees with the code and the site."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_capillary import __version__
from tests.docs.pages import CONFIG, fences_of, links_of, pages_in_navigation, section_of, table_under
from tests.project import PYPROJECT, text_of

README = text_of("README.md")
PICTURES = "https://raw.githubusercontent.com/airflow-provider-capillary/airflow-provider-capillary/main/"


def dag_of(example: str) -> Any:
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "README.md", "exec"), namespace)
    return namespace["upload"].dag


def test_it_has_at_most_130_lines() -> None:
    assert len(README.splitlines()) <= 130


def test_its_first_commands_are_the_demo_and_the_tests_which_the_makefile_has() -> None:
    first, *_ = fences_of("README.md", "bash")
    commands = [line.partition("#")[0].strip() for line in first.text.splitlines()]
    assert commands == ["make demo", "make test"]
    assert [command for command in commands if f"\n{command.removeprefix('make ')}: " not in text_of("Makefile")] == []


def test_its_dag_is_the_file_that_the_site_includes() -> None:
    (fence,) = fences_of("README.md", "python")
    assert fence.text == section_of("docs/examples/redeem_errors.py:dag")


def test_its_dag_uploads_before_it_waits_and_copies_before_it_loads() -> None:
    (fence,) = fences_of("README.md", "python")
    dag = dag_of(fence.text)
    assert dag.task_dict["upload"].downstream_task_ids == {"errors", "wait"}
    assert dag.task_dict["wait"].downstream_task_ids == {"errors"}
    assert dag.task_dict["errors"].downstream_task_ids == {"load"}
    assert sorted(dag.task_ids) == ["errors", "load", "upload", "wait"]


def test_its_versions_are_those_of_the_policy() -> None:
    ((airflow, python, _),) = table_under("README.md", "airflow-provider-capillary", "Airflow")
    policy = {
        name: supported for name, supported, _ in table_under("docs/policy/stability.md", "Airflow and Python", "")
    }
    assert {"Airflow": airflow, "Python": python} == policy


def test_every_link_and_picture_works_on_a_package_index() -> None:
    targets = links_of("README.md")
    assert any(target.startswith(PICTURES) for target in targets)
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_every_link_into_the_site_leads_to_a_page_of_it() -> None:
    site = CONFIG["site_url"]
    inside = [target.removeprefix(site) for target in links_of("README.md") if target.startswith(site)]
    assert inside
    assert [target for target in inside if f"{target.rstrip('/')}.md" not in pages_in_navigation()] == []


def test_the_documentation_link_of_the_package_is_the_site() -> None:
    assert PYPROJECT["project"]["urls"]["Documentation"] == CONFIG["site_url"]


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## {re.escape(__version__)} ", text_of("CHANGELOG.md"), re.MULTILINE)
