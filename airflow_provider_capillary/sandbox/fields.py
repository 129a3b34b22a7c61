# SPDX-License-Identifier: Apache-2.0
"""Checks of values that come from outside: each error names the field at fault."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class FieldError(ValueError):
    """A value that cannot be used.

    :param field: name of the argument or JSON member at fault
    :param problem: what is wrong with it; never holds the value itself, which may be a secret
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


def whole_number(field: str, value: object, *, least: int = 0, most: int | None = None) -> int:
    """Return ``value`` if it is an int from ``least`` to ``most``, both included."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError(field, "must be a whole number")
    _in_limits(field, value, least, math.inf if most is None else most)
    return value


def number(field: str, value: object, *, least: float = 0.0, most: float = math.inf) -> float:
    """Return ``value`` if it is a finite number from ``least`` to ``most``, both included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FieldError(field, "must be a finite number")
    _in_limits(field, value, least, most)
    return value


def _in_limits(field: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise FieldError(field, f"must be {limits}")


def text(field: str, value: object) -> str:
    """Return ``value`` if it is a str."""
    if not isinstance(value, str):
        raise FieldError(field, "must be text")
    return value


def one_of(field: str, value: object, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise FieldError(field, f"must be one of {', '.join(choices)}")
    return value


def check_names(values: Mapping[str, object], *, known: Collection[str], needed: str) -> None:
    """Check that ``values`` has ``needed``, and no name but those of ``known``."""
    for name in values:
        if name not in known:
            raise FieldError(name, f"is not known here; known are {', '.join(known)}")
    if needed not in values:
        raise FieldError(needed, "is missing")


def header_value(field: str, value: object) -> str:
    """Return ``value`` if it is a str that fits into one header line (RFC 9110, 5.5): a tab and Latin-1 from 32 on."""
    line = text(field, value)
    if any(not (32 <= ord(character) <= 255 or character == "\t") or character == "\x7f" for character in line):
        raise FieldError(field, "must be Latin-1 text without control characters, as HTTP headers are")
    return line
