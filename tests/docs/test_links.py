# SPDX-License-Identifier: Apache-2.0
"""Links lead somewhere, and the site builds strictly and from this repository alone."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import CONFIG, DOCUMENTS, PAGES, anchors_of, links_of, pages_in_navigation
from tests.project import ROOT, text_of

#: Beginnings of links to a file of this repository, and to a picture of it.
REPOSITORY = "https://github.com/airflow-provider-capillary/airflow-provider-capillary/blob/main/"
PICTURES = "https://raw.githubusercontent.com/airflow-provider-capillary/airflow-provider-capillary/main/"


@pytest.mark.parametrize("page", DOCUMENTS)
def test_every_link_into_the_repository_leads_somewhere(page: str) -> None:
    for target in links_of(page):
        folder = ROOT if target.startswith((REPOSITORY, PICTURES)) else (ROOT / page).parent
        inside = target.removeprefix(REPOSITORY).removeprefix(PICTURES)
        if "://" in inside:
            continue
        file, _, anchor = inside.partition("#")
        there = ROOT / page if not file else folder / file
        assert there.exists(), target
        # A class or function has its full path as anchor, which the build of the site checks.
        if anchor and "." not in anchor:
            assert anchor in anchors_of(there.resolve().relative_to(ROOT).as_posix()), target


def test_every_page_that_code_names_is_there() -> None:
    files = [*(ROOT / "airflow_provider_capillary").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    named = {page for file in files for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text(encoding="utf-8"))}
    assert named
    assert sorted(page for page in named if not (ROOT / page).is_file()) == []


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(f"docs/{page}" for page in pages_in_navigation()) == PAGES


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/guides/")])
def test_a_guide_begins_with_when_one_would_want_it(page: str) -> None:
    first = text_of(page).split("\n\n")[1]
    assert re.search(r"\b(?:Use|when|where|needs)\b", first), first


def test_the_build_of_the_site_fails_on_whatever_it_warns_of() -> None:
    assert CONFIG["strict"] is True
    levels = {level for kind in CONFIG["validation"].values() for level in kind.values()}
    assert levels == {"warn"}
    # With --quiet, mkdocs counts no warnings, and a strict build passes whatever is broken.
    assert re.search(r"mkdocs build --strict$", text_of("Makefile"), re.MULTILINE)


def test_no_page_of_the_site_loads_a_font_of_another_host() -> None:
    assert CONFIG["theme"]["font"] is False
    assert "extra_javascript" not in CONFIG
    assert [page for page in PAGES if re.search(r"!\[[^]]*\]\(https?:|<(?:img|script|link)\b", text_of(page))] == []
