# SPDX-License-Identifier: Apache-2.0
"""Which part of the package may import which, imports for types included."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import airflow_provider_capillary
from tests.project import imports_in

NAME = airflow_provider_capillary.__name__
ROOT = Path(airflow_provider_capillary.__file__).parent
#: From the top down: a part may import itself and what stands below it.
LAYERS = (
    {"assets", "doctor", "operators"},
    {"sensors", "transfers"},
    {"triggers"},
    {"hooks", "links"},
    {"_polling", "_storage"},
    {"_transport"},
    {"_connection_form", "_metrics", "exceptions"},
    {"_copying", "_airflow_compat"},
    {"api", "get_provider_info"},
)
#: Parts that nothing else of the package imports, and that import nothing else of it.
ALONE = {"sandbox"}
#: Folders where Airflow users expect one module each.
ENTRIES = {
    "assets": {"capillary"},
    "hooks": {"capillary"},
    "links": {"capillary"},
    "operators": {"capillary"},
    "sensors": {"capillary"},
    "transfers": {"capillary_to_object_storage"},
    "triggers": {"capillary"},
}
MODULES = {
    ".".join((NAME, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imports_of(module: str) -> set[str]:
    """The modules of the package that a module imports anywhere, in functions and for types too."""
    paths = imports_in(MODULES[module].read_text())
    # What is imported from a package may be a module of it.
    return {f"{path}.{name}" if f"{path}.{name}" in MODULES else path for path, name in paths} & MODULES.keys()


def part_of(module: str) -> str:
    return module.removeprefix(NAME).lstrip(".").partition(".")[0]


def level_of(part: str) -> int:
    (level,) = [level for level, parts in enumerate(LAYERS) if part in parts]
    return level


def test_each_part_of_the_package_has_its_place() -> None:
    assert {part_of(module) for module in MODULES} - {""} == set().union(*LAYERS, ALONE)


@pytest.mark.parametrize("module", sorted(set(MODULES) - {NAME}))
def test_a_module_imports_only_from_its_own_part_and_from_below(module: str) -> None:
    part = part_of(module)
    others = {part_of(name) for name in imports_of(module)} - {part, ""}
    if part in ALONE:
        assert others == set()
        return
    assert others & ALONE == set()
    assert {other for other in others if level_of(other) <= level_of(part)} == set()


def test_no_two_modules_import_each_other_on_any_way() -> None:
    imports = {module: imports_of(module) - {NAME} for module in MODULES}

    tuple(TopologicalSorter(imports).static_order())  # raises CycleError, which names the modules


@pytest.mark.parametrize("folder", sorted(ENTRIES))
def test_entry_modules_are_alone_in_the_folders_that_airflow_users_know(folder: str) -> None:
    assert {path.stem for path in (ROOT / folder).rglob("*.py")} - {"__init__"} == ENTRIES[folder]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_has_more_than_400_lines(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= 400
