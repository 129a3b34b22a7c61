# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import pendulum
import pytest

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.values import (
    as_flag,
    as_int,
    as_number,
    as_whole_number,
    read_flag,
    read_seconds,
    read_text,
    refuse_nothing,
)


class Int64:
    """An integer of another library, with what numpy's have: an index, and no kinship with int."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Int64({self.value})"

    def __index__(self) -> int:
        return self.value


class Float32:
    """A float of another library, as numpy's that are not Python's."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Float32({self.value})"

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return self.value

    def __abs__(self) -> Float32:
        return Float32(abs(self.value))

    def __lt__(self, other: Any) -> bool:
        return self.value < other

    def __eq__(self, other: object) -> bool:
        return self.value == other

    __hash__ = None  # type: ignore[assignment]


class Bool:
    """A truth value of another library, as numpy's: no index, no number."""

    def __repr__(self) -> str:
        return "Bool()"

    def __bool__(self) -> bool:
        return True


Integral.register(Int64)
Real.register(Float32)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (9001, 9001),
        (0, 0),
        (-5, -5),
        ("9001", 9001),
        (" 9001\n", 9001),
        ("9001.0", 9001),
        ("9001.00", 9001),
        (9001.0, 9001),
        (Decimal(9001), 9001),
        (Decimal("9001.00"), 9001),
        (Decimal("9.001E+3"), 9001),
        (Fraction(18002, 2), 9001),
        (Int64(9001), 9001),
        (Float32(9001.0), 9001),
    ],
    ids=repr,
)
def test_a_whole_number_is_read_from_any_type(value: Any, number: int) -> None:
    read = as_whole_number(value)
    assert (read, type(read)) == (number, int)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        Bool(),
        None,
        "",
        "9001.5",
        "9e3",
        "0x10",
        "9_001",
        "٩",
        "True",
        b"9001",
        9001.5,
        float("nan"),
        float("inf"),
        Float32(float("nan")),
        Float32(9001.5),
        Decimal("9001.5"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("1E+1000000"),
        10**19,
        "1" * 41,
        Int64(10**30),
        1j,
        [9001],
        {},
        timedelta(1),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_whole_number_is_none(value: Any) -> None:
    assert as_whole_number(value) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.25, 0.25),
        ("0.25", 0.25),
        (" 2.5e-1 ", 0.25),
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (Float32(0.25), 0.25),
        ("60", 60),
        (60.0, 60),
        (10**30, 1e30),
    ],
    ids=repr,
)
def test_a_number_is_read_as_an_int_where_it_is_whole(value: Any, number: float) -> None:
    read = as_number(value)
    assert (read, type(read)) == (number, type(number))


@pytest.mark.parametrize(
    "value",
    [
        True,
        Bool(),
        None,
        "",
        "many",
        "nan",
        "inf",
        "1e999",
        float("nan"),
        float("-inf"),
        Decimal("NaN"),
        10**400,
        [],
        1j,
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_finite_number_is_none(value: Any) -> None:
    assert as_number(value) is None


@pytest.mark.parametrize(("value", "flag"), [(True, True), (False, False), (" True ", True), ("FALSE", False)])
def test_a_flag_may_be_text(value: Any, flag: bool) -> None:
    assert as_flag(value) is flag
    assert read_flag("include_existing", value) is flag


@pytest.mark.parametrize("value", [0, 1, "yes", "", None, [], Bool()])
def test_nothing_else_is_a_flag(value: Any) -> None:
    assert as_flag(value) is None
    with pytest.raises(CapillaryConfigurationError, match="include_existing must be True or False") as caught:
        read_flag("include_existing", value)
    assert str(caught.value).endswith(f"but is {value!r}")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (60, 60.0),
        ("60", 60.0),
        (0.5, 0.5),
        (Decimal("1.5"), 1.5),
        (timedelta(minutes=2), 120.0),
        (pendulum.duration(minutes=2), 120.0),
        (Int64(60), 60.0),
    ],
    ids=repr,
)
def test_seconds_are_a_number_or_a_duration(value: Any, seconds: float) -> None:
    read = read_seconds("poll_interval", value)
    assert (read, type(read)) == (seconds, float)


@pytest.mark.parametrize(
    "value", [0, -1, True, None, "soon", float("nan"), float("inf"), timedelta(0), timedelta(seconds=-1)], ids=repr
)
def test_other_seconds_are_refused_by_name(value: Any) -> None:
    with pytest.raises(CapillaryConfigurationError) as caught:
        read_seconds("poll_interval", value)
    assert str(caught.value) == f"poll_interval must be a number of seconds above 0, but is {value!r}"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (20261121, "must be text, but is 20261121; if it comes from a template that renders natively"),
        (1.5, "must be text, but is 1.5"),
        (Decimal(5), "must be text, but is Decimal"),
        (None, "must be text, but is None"),
        (["a.csv"], "must be text, but is"),
        (b"a.csv", "must be text, but is b'a.csv'"),
        ("", "is empty; if it comes from a template"),
        (" \n", "is empty"),
        ("None", "is 'None', the text for nothing; if it comes from a template"),
        (" none ", "is ' none ', the text for nothing"),
        ("null", "is 'null', the text for nothing"),
    ],
    ids=repr,
)
def test_what_names_nothing_is_refused_by_name(value: Any, problem: str) -> None:
    with pytest.raises(CapillaryConfigurationError, match=f"^uploaded_file_name {problem}"):
        read_text("uploaded_file_name", value)


@pytest.mark.parametrize("value", ["a.csv", " a.csv", "None.csv", "nullify", "nan"])
def test_text_stays_as_it_is(value: str) -> None:
    assert read_text("uploaded_file_name", value) is value


def test_a_message_shows_no_more_than_the_beginning_of_a_value() -> None:
    with pytest.raises(CapillaryConfigurationError) as caught:
        read_text("uploaded_file_name", ["x" * 10_000])
    assert len(str(caught.value)) < 300


def test_an_argument_that_became_nothing_is_refused_by_name() -> None:
    refuse_nothing({"job_id": 0, "max_error_count": ""})
    with pytest.raises(
        CapillaryConfigurationError, match="max_error_count was given, but its template rendered to None"
    ):
        refuse_nothing({"job_id": 0, "max_error_count": None})


class Timedelta64:
    """A duration of another library, as numpy's: an integer by kinship, and none by what it can do."""

    def __abs__(self) -> Timedelta64:
        return self

    def __float__(self) -> float:
        raise TypeError


Integral.register(Timedelta64)


def test_a_duration_of_another_library_is_no_number() -> None:
    assert as_whole_number(Timedelta64()) is None
    assert as_number(Timedelta64()) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (5, 5),
        (-5, -5),
        ("5", 5),
        (" 5 ", 5),
        ("-5", -5),
        ("007", 7),
        (5.0, 5),
        ("1603132200000", 1_603_132_200_000),
        (True, None),
        (False, None),
        (None, None),
        ("", None),
        ("-", None),
        ("--5", None),
        ("5-", None),
        ("5.0", None),
        ("1e3", None),
        ("\u0665", None),
        ("²", None),
        ("9" * 21, None),
        (5.5, None),
        (float("nan"), None),
        (float("inf"), None),
        ([5], None),
        ({}, None),
    ],
)
def test_numbers_come_as_numbers_or_text(value: Any, number: int | None) -> None:
    assert as_int(value) == number
    assert type(as_int(value)) is type(number)
