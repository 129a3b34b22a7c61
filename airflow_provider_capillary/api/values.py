# SPDX-License-Identifier: Apache-2.0
"""Reads values as users, templates, XComs and secrets backends give them.

Templates render to text, or natively to a Python value; XComs contain Decimals and numpy scalars; backends store
numbers as text. Arguments and connection fields are read here; an ambiguous value is refused by name.
"""

from __future__ import annotations

import math
import operator
import re
from datetime import timedelta
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

# With the zeros that a float or a Decimal gets when a template renders it to text.
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,40}(\.0{1,40})?\Z", re.ASCII)
_NUMBER_OF_AN_ANSWER = re.compile(r"-?[0-9]{1,40}\Z", re.ASCII)
#: A larger number is no id, count or time, and breaks calculations.
BEYOND_ANY_NUMBER = 10**19
#: Python's word, and JSON's.
_NOTHING = frozenset({"none", "null"})
#: Remedy for a value that may come from a template.
CHECK_TEMPLATE = "if it comes from a template, check what the template renders to"
_LONGEST_SHOWN = 80


def as_whole_number(value: Any) -> int | None:
    """Read a whole number: an int, one of another library (numpy), a float or Decimal without a fraction, or text.

    :param value: The value.
    :return: The number; None for true and false, and for everything that is no whole number.
    """
    if isinstance(value, str):
        text = value.strip()
        number = int(text.partition(".")[0]) if _WHOLE_NUMBER.match(text) else None
    elif isinstance(value, bool):
        number = None
    else:
        try:
            number = operator.index(value)
        except TypeError:
            number = _without_fraction(value)
    return number if number is not None and abs(number) < BEYOND_ANY_NUMBER else None


def as_int(value: Any) -> int | None:
    """Read a whole number of a response, which may be text; None if it is missing or anything else."""
    # Not by as_whole_number, which takes five times as long for None: a history of 20,000 jobs has 140,000 of these.
    if isinstance(value, bool):
        return None
    number: int | None = None
    if isinstance(value, int):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and _NUMBER_OF_AN_ANSWER.match(value.strip()):
        number = int(value.strip())
    return number if number is not None and abs(number) < BEYOND_ANY_NUMBER else None


def as_number(value: Any) -> int | float | None:
    """Read a finite number, which may be text, a Decimal, or of another library.

    :param value: The value.
    :return: The number, as an int where it is whole; None for true and false, infinity, and everything that is none.
    """
    whole = as_whole_number(value)
    if whole is not None:
        return whole
    if isinstance(value, bool) or not isinstance(value, str | Real | Decimal):
        return None
    try:
        number = float(value)
    except (ValueError, TypeError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None


def as_flag(value: Any) -> bool | None:
    """Read true or false, which may be text in any case.

    :param value: The value.
    :return: The flag; None for everything else, 0 and 1 too.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return None


def is_nothing(text: str) -> bool:
    """Whether a text is one that templates and backends write for a missing value: None, null.

    :param text: The text.
    """
    return text.strip().lower() in _NOTHING


def read_seconds(name: str, value: Any, *, may_be_zero: bool = False) -> float:
    """Read a span of time.

    :param name: Name of the argument or field in the message.
    :param value: Seconds, or a timedelta.
    :param may_be_zero: Whether 0 is one.
    :raises CapillaryConfigurationError: It is no finite number above 0.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else as_number(value)
    if seconds is None or seconds < 0 or (seconds == 0 and not may_be_zero):
        least = "from 0 on" if may_be_zero else "above 0"
        raise CapillaryConfigurationError(f"{name} must be a number of seconds {least}, but is {short_repr(value)}")
    return float(seconds)


def read_flag(name: str, value: Any) -> bool:
    """Read true or false. Without the check, any other text would count as true.

    :param name: Name of the argument or field in the message.
    :param value: The value.
    :raises CapillaryConfigurationError: It is neither.
    """
    flag = as_flag(value)
    if flag is None:
        raise CapillaryConfigurationError(f"{name} must be True or False, but is {short_repr(value)}")
    return flag


def read_text(name: str, value: Any) -> str:
    """Read text that names something, such as a file or a connection.

    :param name: Name of the argument or field in the message.
    :param value: The value.
    :return: The text as it is.
    :raises CapillaryConfigurationError: It is not text, blank, or the text of a missing value.
    """
    if not isinstance(value, str):
        # A number is not turned into text again: 2026_11_21 renders natively to 20261121.
        raise CapillaryConfigurationError(
            f"{name} must be text, but is {short_repr(value)}; if it comes from a template that renders natively, "
            "check what it renders to"
        )
    if not value.strip():
        raise CapillaryConfigurationError(f"{name} is empty; {CHECK_TEMPLATE}")
    if is_nothing(value):
        raise CapillaryConfigurationError(f"{name} is {value!r}, the text for nothing; {CHECK_TEMPLATE}")
    return value


def refuse_nothing(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that were given, but whose template rendered natively to None.

    If they counted as not given, another job would be chosen or a limit switched off.

    :param arguments: The given arguments, by name.
    :raises CapillaryConfigurationError: One of them is None.
    """
    for name, value in arguments.items():
        if value is None:
            raise CapillaryConfigurationError(
                f"{name} was given, but its template rendered to None; check what it is taken from"
            )


def parse_id(name: str, value: Any, *, least: int = 1) -> int:
    """Read an id that a user gave as a number or as text, often from a template.

    :param name: Name of the argument or field in the message.
    :param value: The value.
    :param least: The smallest that it may be.
    :raises CapillaryConfigurationError: It is no whole number, or smaller than that.
    """
    number = as_whole_number(value)
    if number is None or number < least:
        kind = "a positive whole number" if least == 1 else f"a whole number from {least} on"
        raise CapillaryConfigurationError(f"{name} must be {kind}, but is {short_repr(value)}; {CHECK_TEMPLATE}")
    return number


def validate_choice(name: str, value: Any, words: tuple[str, ...]) -> None:
    """Check a word that a user chose, often by a template.

    :param name: Name of the argument or field in the message.
    :param value: The value.
    :param words: The permitted words.
    :raises CapillaryConfigurationError: It is not one of them.
    """
    if value not in words:
        raise CapillaryConfigurationError(f"{name} must be one of {', '.join(words)}, but is {short_repr(value)}")


def short_repr(value: Any) -> str:
    """Return the repr of a value for a message, on one short line."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _without_fraction(value: Any) -> int | None:
    if not isinstance(value, Real | Decimal):
        return None
    real: Any = value  # for a type checker, numbers.Real has no arithmetic
    try:
        # Compared first, because a Decimal may have a million digits.
        number = int(real) if abs(real) < BEYOND_ANY_NUMBER else None
    except (ValueError, TypeError, ArithmeticError):  # nan, or a duration, which numpy takes for an integer
        return None
    return number if number == value else None
