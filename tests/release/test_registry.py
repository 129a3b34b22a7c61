# SPDX-License-Identifier: Apache-2.0
"""What Airflow's registry is to show is what there is."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import yaml

from airflow_provider_capillary.get_provider_info import get_provider_info
from tests.project import PYPROJECT, text_of

FILE: dict[str, Any] = yaml.safe_load(text_of(".airflow-registry.yaml"))
INFO: dict[str, Any] = get_provider_info()
#: Kind of module, as the provider info has it, too -> ends of the names of its classes.
KINDS = {"operators": "Operator", "sensors": "Sensor", "transfers": "Operator", "triggers": "Trigger", "hooks": "Hook"}


def modules_of(kind: str) -> set[str]:
    entries = INFO[kind]
    return {name for entry in entries for name in entry.get("python-modules", [entry.get("python-module")])}


def test_it_names_the_package_as_the_metadata_and_the_provider_info_do() -> None:
    urls = PYPROJECT["project"]["urls"]
    assert FILE["package-name"] == PYPROJECT["project"]["name"] == INFO["package-name"]
    assert FILE["display-name"] == INFO["name"]
    assert (FILE["docs-url"], FILE["source-url"]) == (urls["Documentation"], urls["Source"])


def test_it_has_no_key_but_those_that_are_known() -> None:
    known = {"package-name", "display-name", "description", "docs-url", "source-url", "other", *KINDS}
    assert set(FILE) == known


@pytest.mark.parametrize("kind", KINDS)
def test_it_lists_each_public_class_of_a_kind_and_no_other(kind: str) -> None:
    classes = {
        f"{module}.{name}"
        for module in modules_of(kind)
        for name, value in vars(import_module(module)).items()
        if not name.startswith("_") and name.endswith(KINDS[kind]) and getattr(value, "__module__", "") == module
    }
    assert {entry["module"] for entry in FILE[kind]} == classes
    assert len(FILE[kind]) == len(classes) > 0


def test_it_describes_each_and_what_is_else_there_exists() -> None:
    entries = [entry for kind in ("other", *KINDS) for entry in FILE[kind]]
    assert [entry for entry in entries if set(entry) != {"module", "description"} or not entry["description"]] == []
    for entry in FILE["other"]:
        module, _, name = entry["module"].rpartition(".")
        assert callable(getattr(import_module(module), name))
