# SPDX-License-Identifier: Apache-2.0
"""The files of the project, for tests that compare them."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def imports_in(code: str) -> list[tuple[str, str]]:
    """Return each import in code, wherever it stands, as module and name; the name is empty for a whole module."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    return found


def tracked_files() -> set[str]:
    """Return the files that git tracks, as paths from the root; nothing where this is no checkout of git."""
    if not (ROOT / ".git").exists():
        return set()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


PYPROJECT = tomllib.loads(text_of("pyproject.toml"))
