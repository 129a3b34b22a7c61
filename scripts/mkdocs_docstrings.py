# SPDX-License-Identifier: Apache-2.0
"""Prepare the docstrings of the package for the reference pages of the site, which are Markdown.

mkdocstrings reads the code without importing it, and gives what it read to this extension.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe
from markdown.extensions.toc import slugify

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parents[1]
#: The modules whose classes and functions the reference describes.
_ENTRY_MODULES = (
    "assets.capillary",
    "exceptions",
    "hooks.capillary",
    "operators.capillary",
    "sensors.capillary",
    "transfers.capillary_to_object_storage",
    "triggers.capillary",
)
#: A role of Sphinx, such as ``:class:`CapillaryHook```.
_ROLE = re.compile(r":(?:attr|class|data|func|meth):`~?(?:[\w.]+\.)?(\w+)`")
#: The name of a class or function, and nothing else, in code type.
_CODE = re.compile(r"``((?:Capillary|capillary_|finished_)\w+)``")
#: A page of the documentation, with the number of a section or without.
_PAGE = re.compile(r"(docs/[\w/-]+\.md)(?:, (\d)(\.\d)?)?")
#: The text of a docstring before its fields, and the field about the result of a task, which stands in a class.
_RESULT = re.compile(r"\A(.*?)(^:param .*)^:return: (.+(?:\n +.+)*)\n?", re.MULTILINE | re.DOTALL)
#: A simple table of reStructuredText with two columns.
_TABLE = re.compile(r"^(=+) =+\n(.+)\n=+ =+\n((?:.+\n)+?)=+ =+$", re.MULTILINE)


class SphinxInMarkdown(griffe.Extension):
    """Turn Sphinx markup into Markdown, and complete the signatures of classes that pass arguments on."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite all docstrings and signatures of the package.

        :param pkg: The package.
        """
        shown = _shown_names(pkg)
        for each in _objects_in(pkg):
            if each.docstring is not None:
                each.docstring.value = _to_markdown(each.docstring.value, shown)
                if each.is_class:
                    each.docstring.value = _RESULT.sub(r"\1**Result:** \3\n\n\2", each.docstring.value)
            if each.is_class:
                _complete_signature(each)
            if each.is_function:
                for parameter in each.parameters:
                    parameter.default = _value_of(parameter.default, pkg)


def _objects_in(container: Any) -> Iterator[Any]:
    for member in container.members.values():
        if not member.is_alias:
            yield member
            if member.is_class or member.is_module:
                yield from _objects_in(member)


def _shown_names(pkg: griffe.Module) -> dict[str, str]:
    """Return the public classes and functions of the entry modules: name -> path."""
    found = {}
    for module in _ENTRY_MODULES:
        for name, member in pkg[module].members.items():
            if (not member.is_alias or module == "exceptions") and name.startswith(
                ("Capillary", "capillary_", "finished_")
            ):
                found[name] = f"{pkg.name}.{module}.{name}"
    return found


def _to_markdown(text: str, shown: dict[str, str]) -> str:
    text = _TABLE.sub(_table, text)
    text = _ROLE.sub(r"``\1``", text)
    text = _CODE.sub(lambda match: f"[`{match[1]}`][{shown[match[1]]}]" if match[1] in shown else match[0], text)
    text = _PAGE.sub(_link, text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


def _link(match: re.Match[str]) -> str:
    """Return a link to a page, or to a section of it by its number."""
    page, number, rest = match.groups()
    title, *sections = re.findall(r"^##? (.+)$", (_ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    if number is None:
        return f"[{title}][{slugify(title, '-')}]"
    (section,) = (each for each in sections if each.startswith(f"{number} "))
    return f"[{title}, {number}{rest or ''}][{slugify(section, '-')}]"


def _table(match: re.Match[str]) -> str:
    width = len(match[1])
    rows: list[list[str]] = []
    for line in (match[2], *match[3].splitlines()):
        first, second = line[:width].strip(), line[width:].strip()
        if first:
            rows.append([first, second])
        else:
            rows[-1][1] += f" {second}"
    head, *body = [f"| {first} | {second} |" for first, second in rows]
    return "\n".join([head, "|---|---|", *body])


def _value_of(default: Any, pkg: griffe.Module) -> Any:
    """Return the value of a default that is a constant of the package, such as ``CapillaryHook.default_conn_name``."""
    path = getattr(default, "canonical_path", "")
    if not path.startswith(f"{pkg.name}."):
        return default
    try:
        constant = pkg[path.removeprefix(f"{pkg.name}.")]
    except KeyError:  # set at run time
        return default
    return _value_of(constant.value, pkg) if constant.is_attribute else default


def _complete_signature(cls: Any) -> None:
    """Add to a constructor with ``**kwargs`` the parameters of its base that the docstring of the class describes."""
    own = cls.members.get("__init__")
    if own is None or "kwargs" not in own.parameters or cls.docstring is None:
        return
    added = []
    for base in cls.bases:
        inherited = cls.module.members.get(str(base))
        if inherited is None or inherited.is_alias:
            continue
        added += [
            parameter
            for parameter in inherited.members["__init__"].parameters
            if parameter.name not in own.parameters and f":param {parameter.name}:" in cls.docstring.value
        ]
    if added:
        *described, kwargs = own.parameters  # the first is self
        described = sorted(described + added, key=lambda each: cls.docstring.value.find(f":param {each.name}:"))
        own.parameters = griffe.Parameters(*described, kwargs)
