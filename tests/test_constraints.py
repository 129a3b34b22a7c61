# SPDX-License-Identifier: Apache-2.0
"""The constraint files of the test matrix, beside the requirements of the package."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from tests.project import PYPROJECT, ROOT, text_of

REQUIREMENTS = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
FILES = sorted((ROOT / "tests" / "constraints").glob("*.txt"))


def pins(name: str) -> dict[str, str]:
    return dict(line.split("==") for line in text_of(f"tests/constraints/{name}").splitlines())


@pytest.mark.parametrize("name", [file.name for file in FILES])
def test_every_file_pins_every_requirement_to_a_version_that_it_allows(name: str) -> None:
    pinned = pins(name)

    for requirement in REQUIREMENTS:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_the_lowest_environment_has_every_requirement_at_its_floor() -> None:
    (name,) = [file.name for file in FILES if file.stem.endswith("-lowest")]
    pinned = pins(name)

    assert {str(requirement) for requirement in REQUIREMENTS} == {
        f"{requirement.name}>={pinned[requirement.name]}" for requirement in REQUIREMENTS
    }
