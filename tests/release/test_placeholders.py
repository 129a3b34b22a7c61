# SPDX-License-Identifier: Apache-2.0
"""What a maintainer has to fill in is listed in one place."""

from __future__ import annotations

import re

import pytest

from tests.project import ROOT, text_of, tracked_files

PAGE = "docs/policy/release.md"
#: What stands for a placeholder in the table of the page -> how it is found in files.
PATTERNS = {
    "airflow-provider-capillary/airflow-provider-capillary": re.compile(
        r"github(?:usercontent)?\.com/airflow-provider-capillary/|airflow-provider-capillary/airflow-provider-capillary"
    ),
    "airflow-provider-capillary.github.io": re.compile(r"airflow-provider-capillary\.github\.io"),
    "@airflow-provider-capillary/": re.compile("@airflow-provider-capillary/"),
    "The airflow-provider-capillary authors": re.compile("The airflow-provider-capillary authors", re.IGNORECASE),
}
#: Placeholder -> files and folders, as the page lists them.
LISTED = {
    placeholder: re.findall(r"`([^`]+)`", places)
    for placeholder, places in re.findall(r"^\| `([^`]+)` \| [^|]+ \| (`[^|]+) \|$", text_of(PAGE), re.MULTILINE)
}


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    """Placeholder -> files that have it, but the page itself and this test."""
    names = tracked_files() or {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()}
    names -= {PAGE, "tests/release/test_placeholders.py"}
    texts = {name: (ROOT / name).read_bytes().decode(errors="replace") for name in names}
    return {
        placeholder: {name for name, text in texts.items() if pattern.search(text)}
        for placeholder, pattern in PATTERNS.items()
    }


def is_in(name: str, places: list[str]) -> bool:
    return any(name == place or (place.endswith("/") and name.startswith(place)) for place in places)


def test_the_page_lists_each_kind() -> None:
    assert set(LISTED) == set(PATTERNS)


@pytest.mark.parametrize("placeholder", PATTERNS)
def test_the_page_lists_each_file_that_has_a_placeholder(placeholder: str, found: dict[str, set[str]]) -> None:
    assert sorted(name for name in found[placeholder] if not is_in(name, LISTED[placeholder])) == []


@pytest.mark.parametrize("placeholder", PATTERNS)
def test_the_page_lists_no_other_file(placeholder: str, found: dict[str, set[str]]) -> None:
    listed = LISTED[placeholder]
    assert [place for place in listed if not any(is_in(name, [place]) for name in found[placeholder])] == []


@pytest.mark.parametrize(
    ("text", "placeholder"),
    [
        ("https://github.com/airflow-provider-capillary/x", "airflow-provider-capillary/airflow-provider-capillary"),
        ("https://airflow-provider-capillary.github.io/", "airflow-provider-capillary.github.io"),
        (
            "--repo airflow-provider-capillary/airflow-provider-capillary",
            "airflow-provider-capillary/airflow-provider-capillary",
        ),
        ("* @airflow-provider-capillary/maintainers", "@airflow-provider-capillary/"),
        ("https://pypi.org/project/airflow-provider-capillary/", None),
        ("pip install airflow-provider-capillary", None),
        ("User-Agent: airflow-provider-capillary/0.1.0", None),
    ],
)
def test_the_organisation_is_found_and_the_package_is_not_taken_for_it(text: str, placeholder: str | None) -> None:
    assert [name for name, pattern in PATTERNS.items() if pattern.search(text)] == (
        [placeholder] if placeholder else []
    )
