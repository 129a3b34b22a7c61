# SPDX-License-Identifier: Apache-2.0
"""The README and the pages of the site, for tests that compare them with the code."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

from tests.project import ROOT, text_of

DOCS = ROOT / "docs"
CONFIG: dict[str, Any] = yaml.safe_load(text_of("mkdocs.yml"))
#: Pages of the site, as paths from the root of the repository.
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
#: Everything that users and contributors read.
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *PAGES]


class Fence(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    def included(self) -> str | None:
        """The file, and its section, that the block includes, or None if its text is in the page."""
        match = re.fullmatch(r'--8<-- "(.+)"\n', self.text)
        return match[1] if match else None


def fences_of(page: str, *languages: str) -> list[Fence]:
    """Return the blocks of a page in some languages, with their indentation removed."""
    found = re.findall(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [
        Fence(page, language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, text in found
        if language in languages
    ]


def section_of(reference: str) -> str:
    """Return the lines that ``--8<-- "file:section"`` includes, without the marks of sections within it."""
    file, _, name = reference.partition(":")
    text = text_of(file)
    if name:
        (text,) = re.findall(
            rf"^[^\n]*\[start:{name}\][^\n]*\n(.*?)^[^\n]*\[end:{name}\]", text, re.MULTILINE | re.DOTALL
        )
    return re.sub(r"^.*--8<-- \[(?:start|end):\w+\].*\n", "", text, flags=re.MULTILINE)


def table_under(page: str, heading: str, first_column: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this title, between a heading and the next."""
    (section,) = re.findall(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ [A-Z]|\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    lines = section.splitlines()
    (start,) = (number for number, line in enumerate(lines) if re.match(rf"\| *{re.escape(first_column)} *\|", line))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def code(cell: str) -> str:
    """Return the text of a cell that is in code type as a whole."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match, f"{cell!r} should be in code type"
    return match[1]


def links_of(page: str) -> list[str]:
    """Return the targets of all links and pictures of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", prose_of(page))


def anchors_of(page: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose_of(page: str) -> str:
    return re.sub(r"^( *)```\w.*?^\1```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def pages_in_navigation(entries: list[Any] | None = None) -> list[str]:
    """Return the pages that the navigation of the site lists, as paths in docs/."""
    found: list[str] = []
    for entry in CONFIG["nav"] if entries is None else entries:
        (target,) = entry.values()
        found += pages_in_navigation(target) if isinstance(target, list) else [target]
    return found
