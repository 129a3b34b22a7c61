# SPDX-License-Identifier: Apache-2.0
"""The files that tools and contributors read agree with each other."""

from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PYPROJECT = tomllib.loads(text_of("pyproject.toml"))


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


def commands_of(target: str) -> list[str]:
    """The recipe of a target of the Makefile, its variables put in."""
    makefile = text_of("Makefile")
    variables = dict(re.findall(r"^(\w+) :?\??= (.*)$", makefile, re.MULTILINE))
    (recipe,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)

    def expand(text: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda match: expand(variables[match[1]]), text)

    return [expand(line.strip().removeprefix("@")) for line in recipe.splitlines()]
