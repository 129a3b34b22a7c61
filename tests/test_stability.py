# SPDX-License-Identifier: Apache-2.0
"""docs/policy/stability.md lists what there is, and whoever follows the documents uses nothing else."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.get_provider_info import get_provider_info
from tests.docs.pages import PAGES
from tests.project import PYPROJECT, ROOT, imports_in, text_of

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = "airflow_provider_capillary"

PAGE = text_of("docs/policy/stability.md")
#: Module -> names.
STABLE = {
    module: re.findall(r"`(\w+)`", names)
    for module, names in re.findall(rf"^\| `({PACKAGE}[\w.]*)` \| (.+) \|$", PAGE, re.MULTILINE)
}
NAMES = [(module, name) for module, names in STABLE.items() for name in names]


def entry_modules() -> list[str]:
    """The modules that the provider info names, and those of the exceptions and the sandbox."""
    info: Any = get_provider_info()
    modules = [
        name for kind in ("hooks", "sensors", "triggers") for entry in info[kind] for name in entry["python-modules"]
    ]
    modules += [entry["python-module"] for entry in info["transfers"]]
    modules += [entry["handler"].rpartition(".")[0] for entry in info["asset-uris"]]
    return [*modules, f"{PACKAGE}.exceptions", f"{PACKAGE}.sandbox"]


def public_classes_of(module: str) -> set[str]:
    namespace = import_module(module)
    if exported := getattr(namespace, "__all__", None):
        return set(exported)
    return {
        name
        for name, value in inspect.getmembers(namespace, inspect.isclass)
        if value.__module__ == module and not name.startswith("_")
    }


def imports_of(code: str) -> set[tuple[str, str]]:
    """What code imports of the package, as module and name."""
    return {(module, name) for module, name in imports_in(code) if name and module.partition(".")[0] == PACKAGE}


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_stable_name_can_be_imported(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)


def test_no_stable_name_is_listed_twice_or_has_a_leading_underscore() -> None:
    assert len(NAMES) == len(set(NAMES))
    paths = [f"{module}.{name}" for module, name in NAMES if name != "__version__"]
    assert [path for path in paths if "._" in path] == []


@pytest.mark.parametrize("module", entry_modules())
def test_every_public_class_of_an_entry_module_is_listed(module: str) -> None:
    assert public_classes_of(module) - set(STABLE[module]) == set()


def test_the_class_of_the_connection_type_is_listed() -> None:
    info: Any = get_provider_info()
    paths = {entry["hook-class-name"] for entry in info["connection-types"]}
    assert paths <= {f"{module}.{name}" for module, name in NAMES}


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_an_example_of_a_page_imports_stable_names_only(page: str) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    assert {found for example in examples for found in imports_of(example)} - set(NAMES) == set()


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "example_dags").glob("*.py")), *sorted((ROOT / "docs/examples").glob("*.py"))],
    ids=lambda path: path.stem,
)
def test_an_example_dag_imports_stable_names_only(path: Path) -> None:
    found = imports_of(path.read_text(encoding="utf-8"))
    assert found
    assert found - set(NAMES) == set()


def test_the_file_that_mypy_reads_for_users_imports_each_stable_class_and_function_and_nothing_else() -> None:
    found = imports_of(text_of("tests/typing/public_api.py")) - {(PACKAGE, "exceptions")}
    assert found <= set(NAMES)
    # An exception is an attribute of the module there; the sensors make their triggers.
    left_out = {name for module, name in set(NAMES) - found if module != f"{PACKAGE}.exceptions"}
    assert left_out == {"__version__", "CapillaryCouponUploadTrigger", "CapillaryRedeemUploadTrigger"}


class TestSupportedVersions:
    project = PYPROJECT["project"]

    def test_of_airflow_are_those_of_the_requirement_and_of_the_test_matrix(self) -> None:
        (lowest, highest) = re.findall(r"^\| Airflow \| ([\d.]+) to ([\d.]+) \|", PAGE, re.MULTILINE)[0]
        tested = re.findall(r'^    Environment\("(\d+\.\d+)\.\d+"', text_of("scripts/test_matrix.py"), re.MULTILINE)
        versions = sorted(tuple(map(int, version.split("."))) for version in tested)
        assert [tuple(map(int, version.split("."))) for version in (lowest, highest)] == [versions[0], versions[-1]]
        assert f"apache-airflow>={lowest}.0" in self.project["dependencies"]

    def test_of_python_begin_with_the_one_that_the_package_requires(self) -> None:
        (lowest,) = re.findall(r"^\| Python \| ([\d.]+) or newer \|", PAGE, re.MULTILINE)
        assert self.project["requires-python"] == f">={lowest}"
