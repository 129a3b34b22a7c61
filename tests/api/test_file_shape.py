# SPDX-License-Identifier: Apache-2.0
"""The shape of a file, from its first bytes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from typing import Any

import pytest

from airflow_provider_capillary.api.file_shape import HEAD_BYTES, describe_file

TEXT = "message,code\nnot issued, or another series,AB12\nexpired,CD34\n"


def shape_of(content: bytes, *names: str, is_whole: bool = True) -> dict[str, Any]:
    described = describe_file(content, is_whole=is_whole).to_dict()
    return {name: described[name] for name in names}


@pytest.mark.parametrize(
    ("content", "encoding", "has_mark"),
    [
        (b"abc", "ascii", False),
        ("ü".encode(), "utf-8", False),
        (codecs.BOM_UTF8 + b"abc", "utf-8", True),
        ("abc".encode("utf-16"), "utf-16-le", True),
        (codecs.BOM_UTF16_BE + "abc".encode("utf-16-be"), "utf-16-be", True),
        ("abc".encode("utf-32"), "utf-32-le", True),
        ("abc".encode("utf-16-le"), "utf-16-le", False),
        ("abc".encode("utf-16-be"), "utf-16-be", False),
        ("ü;".encode("latin-1"), "not utf-8", False),
        (b"", "ascii", False),
    ],
    ids=["ascii", "utf-8", "mark", "utf-16", "utf-16-be", "utf-32", "le", "be", "latin-1", "empty"],
)
def test_encoding(content: bytes, encoding: str, has_mark: bool) -> None:
    assert shape_of(content, "encoding", "has_byte_order_mark") == {
        "encoding": encoding,
        "has_byte_order_mark": has_mark,
    }


def test_a_character_that_is_cut_at_the_end_of_the_head_does_not_change_the_encoding() -> None:
    head = b"x" * (HEAD_BYTES - 1) + "ü".encode()
    assert shape_of(head, "encoding", "is_whole") == {"encoding": "utf-8", "is_whole": False}
    assert shape_of(head[:HEAD_BYTES], "encoding", is_whole=True) == {"encoding": "not utf-8"}


@pytest.mark.parametrize(
    ("text", "ends", "lines", "has_end"),
    [
        ("a\nb\n", "LF", 2, True),
        ("a\r\nb", "CRLF", 2, False),
        ("a\rb\r", "CR", 2, True),
        ("a\r\nb\nc\n", "CRLF+LF", 3, True),
        ("a", "none", 1, False),
        ("", "none", 0, False),
        ("a\u2028b\x0bc\n", "LF", 1, True),
    ],
    ids=["lf", "crlf", "cr", "mixed", "one", "empty", "other-separators"],
)
def test_line_ends(text: str, ends: str, lines: int, has_end: bool) -> None:
    assert shape_of(text.encode(), "line_ends", "lines", "ends_with_line_end") == {
        "line_ends": ends,
        "lines": lines,
        "ends_with_line_end": has_end,
    }


def test_the_last_line_of_a_file_that_goes_on_does_not_count() -> None:
    assert shape_of(b"a,b\n1,2\n3", "lines", "columns_least", "ends_with_line_end", is_whole=False) == {
        "lines": 2,
        "columns_least": 2,
        "ends_with_line_end": None,
    }


@pytest.mark.parametrize(
    ("text", "delimiter", "first", "least", "most"),
    [
        (TEXT, "comma", 2, 2, 3),
        (TEXT.replace(",code", ";code").replace(",AB12", ";AB12").replace(",CD34", ";CD34"), "semicolon", 2, 2, 2),
        ("a\tb\n1, 2\t3\n", "tab", 2, 2, 2),
        ("a|b|c\n1|2|3\n", "pipe", 3, 3, 3),
        ("message\nnot issued, really\n", "none", 1, 1, 1),
        ('a,b\n"x, y",2\n', "comma", 2, 2, 2),
        ('a,b\n"x\ny",2\n', "comma", 2, 2, 2),
        ("", "none", 0, None, None),
        ("a,b\n", "comma", 2, None, None),
    ],
    ids=["commas-in-messages", "semicolon", "tab", "pipe", "one-column", "quoted", "quoted-break", "empty", "header"],
)
def test_delimiter_and_columns(text: str, delimiter: str, first: int, least: int | None, most: int | None) -> None:
    assert shape_of(text.encode(), "delimiter", "columns_first", "columns_least", "columns_most") == {
        "delimiter": delimiter,
        "columns_first": first,
        "columns_least": least,
        "columns_most": most,
    }


@pytest.mark.parametrize(
    ("text", "has_quotes"),
    [('a,b\n"x",2\n', True), ('a,b\n1,"x"\n', True), ('a,b\n5" screen,2\n', False), ("a,b\n", False)],
)
def test_quotes_count_at_the_start_of_a_field_only(text: str, has_quotes: bool) -> None:
    assert shape_of(text.encode(), "has_quotes") == {"has_quotes": has_quotes}


@pytest.mark.parametrize(
    ("content", "compression"),
    [(bz2.compress(b"abc"), "bzip2"), (lzma.compress(b"abc"), "xz"), (b"PK\x03\x04rest", "zip")],
    ids=["bzip2", "xz", "zip"],
)
def test_a_compressed_file_is_named_and_nothing_else_is_known(content: bytes, compression: str) -> None:
    assert shape_of(content, "compression", "encoding", "lines", "columns_first") == {
        "compression": compression,
        "encoding": None,
        "lines": None,
        "columns_first": None,
    }


def test_within_gzip_the_shape_is_that_of_the_text() -> None:
    packed = gzip.compress(TEXT.encode())
    assert shape_of(packed, "compression", "delimiter", "lines", "is_whole") == {
        "compression": "gzip",
        "delimiter": "comma",
        "lines": 3,
        "is_whole": True,
    }
    large = gzip.compress(TEXT.encode() * 10_000)
    assert shape_of(large, "lines", "is_whole")["is_whole"] is False
    assert shape_of(packed[:-12], "compression", "is_whole") == {"compression": "gzip", "is_whole": False}


def test_no_value_of_the_file_is_in_its_shape() -> None:
    described = describe_file(TEXT.encode(), is_whole=True)
    assert [word for word in ("issued", "AB12", "code") if word in f"{described!r}{described.to_dict()}"] == []
