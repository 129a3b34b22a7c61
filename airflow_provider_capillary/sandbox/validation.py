# SPDX-License-Identifier: Apache-2.0
"""Check arguments that come from outside; each error names the field."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

#: Parts of an annotation that can be checked: their description, and whether a value is one.
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number", lambda value: isinstance(value, int)),
    "float": ("a finite number", lambda value: isinstance(value, int | float) and abs(value) < math.inf),
    "str": ("text", lambda value: isinstance(value, str)),
    "bytes": ("bytes", lambda value: isinstance(value, bytes)),
    "Path": ("the pathlib.Path of a file", lambda value: isinstance(value, Path) and value.is_file()),
    "None": ("null", lambda value: value is None),
}


class FieldError(ValueError):
    """A value that cannot be used; the message names the field and never holds the value, which may be a secret."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


def check_types(annotations: Mapping[str, str], values: Mapping[str, Any], **limits: tuple[float, float]) -> None:
    """Check arguments by name against the annotations of their parameters, as far as they are of the types above.

    :param limits: smallest and largest value of a number; by default it must be at least 0
    """
    for field, annotation in annotations.items():
        names, value = annotation.split(" | "), values.get(field)
        if not _TYPES.keys() >= set(names):
            continue
        is_bool = isinstance(value, bool) and "bool" not in names  # which would pass as a number
        if is_bool or not any(_TYPES[name][1](value) for name in names):
            raise FieldError(field, f"must be {' or '.join(_TYPES[name][0] for name in names)}")
        minimum, maximum = limits.get(field, (0, math.inf))
        if isinstance(value, int | float) and not minimum <= value <= maximum:
            allowed = f"at least {minimum}" if maximum == math.inf else f"from {minimum} to {maximum}"
            raise FieldError(field, f"must be {allowed}")


def check_choice(field: str, value: object, choices: Collection[str]) -> None:
    """Check that ``value`` is one of ``choices``."""
    if value not in tuple(choices):
        raise FieldError(field, f"must be one of {', '.join(choices)}")


def check_names(values: Mapping[str, object], function: Callable[..., object]) -> None:
    """Check that ``values`` has the first parameter of ``function``, and no name but those of its parameters."""
    known = list(inspect.signature(function).parameters)
    for name in values:
        if name not in known:
            raise FieldError(name, f"is not known here; known are {', '.join(known)}")
    if known[0] not in values:
        raise FieldError(known[0], "is missing")
