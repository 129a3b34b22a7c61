# SPDX-License-Identifier: Apache-2.0
"""The files that tools and contributors read agree with each other."""

from __future__ import annotations

import re
from configparser import ConfigParser
from typing import Any

import pytest
import yaml

from tests.project import PYPROJECT, ROOT, text_of


def editorconfig(section: str) -> dict[str, str]:
    parser = ConfigParser()
    # Keys before the first section, such as root, have no section of their own in this format.
    parser.read_string("[before the sections]\n" + text_of(".editorconfig"))
    return dict(parser[section])


class TestLineLength:
    length = PYPROJECT["tool"]["ruff"]["line-length"]

    def test_of_editors_is_that_of_ruff(self) -> None:
        assert int(editorconfig("*")["max_line_length"]) == self.length

    def test_of_the_contribution_guide_is_that_of_ruff(self) -> None:
        assert f"Lines have up to {self.length} characters" in text_of("CONTRIBUTING.md")


class TestOldestPython:
    oldest = PYPROJECT["project"]["requires-python"].removeprefix(">=")

    def test_is_the_one_that_ruff_and_mypy_check_for(self) -> None:
        assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + self.oldest.replace(".", "")
        assert PYPROJECT["tool"]["mypy"]["python_version"] == self.oldest

    def test_is_the_first_of_the_classifiers(self) -> None:
        classifiers = "\n".join(PYPROJECT["project"]["classifiers"])
        versions = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.MULTILINE)
        assert versions[0] == self.oldest


class TestPreCommit:
    (repository,) = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    hooks: tuple[dict[str, Any], ...] = tuple(repository["hooks"])

    def test_runs_the_commands_of_make_lint_in_their_order(self) -> None:
        assert [hook["entry"] for hook in self.hooks] == commands_of("lint")

    def test_runs_each_on_the_whole_tree_as_make_lint_does(self) -> None:
        assert {(hook["pass_filenames"], hook["always_run"]) for hook in self.hooks} == {(False, True)}

    def test_takes_the_tools_that_are_installed_and_downloads_none(self) -> None:
        assert self.repository["repo"] == "local"
        assert {hook["language"] for hook in self.hooks} == {"system"}


#: Title -> text of each version of the changelog, the newest first.
VERSIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", text_of("CHANGELOG.md"), re.MULTILINE))


class TestChangelog:
    #: In the order in which they stand.
    heads = ("Breaking", "Added", "Changed", "Fixed")

    def test_has_the_unreleased_first_and_then_versions_with_their_dates(self) -> None:
        unreleased, *released = re.findall(r"^## (.+)$", text_of("CHANGELOG.md"), re.MULTILINE)
        assert unreleased == "Unreleased"
        assert [title for title in released if not re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", title)] == []

    def test_has_the_newest_version_first(self) -> None:
        _, *released = re.findall(r"^## (.+)$", text_of("CHANGELOG.md"), re.MULTILINE)
        numbers = [[int(part) for part in title.partition(" ")[0].split(".")] for title in released]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) == len({tuple(number) for number in numbers})

    @pytest.mark.parametrize("title", VERSIONS)
    def test_has_each_of_the_four_heads_once_at_most_in_their_order_and_no_other(self, title: str) -> None:
        found = re.findall(r"^#+ (.+)$", VERSIONS[title], re.MULTILINE)
        assert found == [head for head in self.heads if head in found]

    @pytest.mark.parametrize("title", VERSIONS)
    def test_has_every_entry_under_a_head_and_no_head_without_one(self, title: str) -> None:
        above, *parts = re.split(r"^### .+$", VERSIONS[title], flags=re.MULTILINE)
        assert entries_of(above) == []
        assert all(entries_of(part) for part in parts)

    @pytest.mark.parametrize("title", VERSIONS)
    def test_says_nothing_twice(self, title: str) -> None:
        entries = entries_of(VERSIONS[title])
        assert sorted({entry for entry in entries if entries.count(entry) > 1}) == []


class TestTypingFile:
    text = text_of("tests/typing/public_api.py")

    def test_is_read_by_mypy_which_reports_an_ignore_that_nothing_needs(self) -> None:
        assert "tests/typing" in PYPROJECT["tool"]["mypy"]["files"]
        assert PYPROJECT["tool"]["mypy"]["strict"] is True
        assert "warn_unused_ignores" not in PYPROJECT["tool"]["mypy"]

    def test_has_wrong_uses_each_with_the_reason_why_it_is_wrong(self) -> None:
        ignores = re.findall(r"# type: ignore(.*)", self.text)
        assert len(ignores) >= 10
        assert [ignore for ignore in ignores if not re.fullmatch(r"\[[a-z-]+\] # \w.+", ignore)] == []


class TestSecurityPage:
    promises = re.findall(r"^\| (.+) \| (`tests/.+) \|$", text_of("SECURITY.md"), re.MULTILINE)

    def test_names_tests_that_there_are_for_each_promise(self) -> None:
        table = text_of("SECURITY.md").partition("| Promise | Tests |\n|---|---|\n")[2].partition("\n\n")[0]
        assert len(self.promises) == len(table.splitlines()) > 0
        named = {path for _, tests in self.promises for path in re.findall(r"`(.+?)`", tests)}
        assert sorted(path for path in named if not (ROOT / path).is_file()) == []

    def test_has_a_private_way_to_report(self) -> None:
        assert f"({PYPROJECT['project']['urls']['Source']}/security/advisories/new)" in text_of("SECURITY.md")


def entries_of(text: str) -> list[str]:
    return re.findall(r"^- (.+\n(?:  .+\n)*)", text, re.MULTILINE)


def commands_of(target: str) -> list[str]:
    """The recipe of a target of the Makefile, its variables put in."""
    makefile = text_of("Makefile")
    variables = dict(re.findall(r"^(\w+) :?\??= (.*)$", makefile, re.MULTILINE))
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)

    def expand(text: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda match: expand(variables[match[1]]), text)

    return [expand(line.strip().removeprefix("@")) for line in recipe.splitlines()]
