# SPDX-License-Identifier: Apache-2.0
"""The scan of a CSV file, beside Python's csv module on the whole file at once."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api import csv_files
from airflow_provider_capillary.api.csv_files import CsvFile, CsvScanner
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryUploadError
from tests.api.flows import examples

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER = b"redeemedDateInMillis,redeemedAt,couponCode\n"
MARK = b"\xef\xbb\xbf"


def scan(content: bytes, *, rows: int = 1000, block: int = 0) -> CsvFile:
    scanner = CsvScanner(max_rows_per_part=rows, name="s3://lake/redeemed.csv")
    for start in range(0, len(content), block or len(content) or 1):
        scanner.feed(content[start : start + (block or len(content))])
    return scanner.finish()


def parsed(content: bytes) -> list[list[str]]:
    """The rows by Python's csv module, which returns a blank line as a row without fields."""
    text = io.StringIO(content.decode("latin-1"), newline="")
    return [row for row in csv.reader(text, strict=True) if row]


def refusal(content: bytes, *, block: int = 0) -> str:
    with pytest.raises(CapillaryUploadError) as caught:
        scan(content, block=block)
    message = str(caught.value)
    assert message.startswith("s3://lake/redeemed.csv")
    return message


def set_sizes(monkeypatch: pytest.MonkeyPatch, *, chunk: int, longest_row: int) -> None:
    monkeypatch.setattr(csv_files, "_CHUNK", chunk)
    monkeypatch.setattr(csv_files, "_LONGEST_ROW", longest_row)


# --- rows and parts, by the model ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    content: bytes
    header_size: int


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


_LINE_ENDS = st.sampled_from(["\n", "\r\n"])
_BARE = st.text(st.sampled_from("ab0 ;\té€"), max_size=6)
_ANYTHING = st.text(st.sampled_from('ab",\n\r;é'), max_size=8)
_FIELD = _BARE | _ANYTHING.map(_quoted)
_BLANK = st.just("")


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Well-formed files: quotes, commas and line breaks in quotes, both line ends, blank lines, a byte order mark."""
    names = draw(st.lists(st.sampled_from(["userId", "couponCode", '"a ""b"""', '"c\nd"']), min_size=1, max_size=3))
    header = ",".join(names) + draw(_LINE_ENDS)
    row = st.lists(_FIELD, min_size=1, max_size=4).map(",".join)
    lines = [*draw(st.lists(row | _BLANK, max_size=12)), draw(row.filter(bool))]
    body = "".join(line + draw(_LINE_ENDS) for line in lines)
    if draw(st.booleans()):
        body = body.removesuffix("\n").removesuffix("\r")
    head = draw(st.sampled_from([b"", MARK])) + header.encode()
    return Sample(head + body.encode(), len(head))


@given(sample=samples(), rows=st.integers(1, 5), block=st.integers(1, 40), chunk=st.integers(4, 60))
@examples(400)
def test_rows_and_parts_are_those_of_the_csv_module_for_any_blocks_and_chunks(
    sample: Sample, rows: int, block: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_sizes(monkeypatch, chunk=chunk, longest_row=4096)
        file = scan(sample.content, rows=rows, block=block)

    body = sample.content[sample.header_size :]
    expected = parsed(body)
    assert file == scan(sample.content, rows=rows)
    assert file.size_bytes == len(sample.content)
    assert file.row_count == len(expected) == sum(part.row_count for part in file.parts)
    assert file.header == sample.content[: sample.header_size].removeprefix(MARK)
    assert b"".join(sample.content[part.start : part.end] for part in file.parts) == body
    for number, part in enumerate(file.parts):
        content = sample.content[part.start : part.end]
        assert parsed(content) == expected[number * rows : (number + 1) * rows]
        assert 1 <= part.row_count == len(parsed(content)) <= rows
        assert part.sha256 == hashlib.sha256(file.header + content).hexdigest()


def rows_outside_quotes(content: bytes) -> int:
    """The rows if each quote opens or closes a quoted section, byte by byte."""
    rows, line, is_quoted = 0, b"", False
    for byte in content.decode("latin-1"):
        is_quoted ^= byte == '"'
        if byte == "\n" and not is_quoted:
            rows += line not in (b"", b"\r")
            line = b""
        else:
            line += byte.encode("latin-1")
    return rows + (line not in (b"", b"\r"))


@given(content=st.text(st.sampled_from('ab",\n\r')).map(str.encode), block=st.integers(1, 9), chunk=st.integers(4, 30))
@examples(600)
def test_a_file_of_any_characters_is_refused_or_read_alike_for_any_blocks_and_chunks(
    content: bytes, block: int, chunk: int
) -> None:
    def outcome(chunk: int, block: int) -> CsvFile | None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            set_sizes(monkeypatch, chunk=chunk, longest_row=4096)
            try:
                return scan(HEADER + content, rows=2, block=block)
            except CapillaryUploadError:
                # A file may have several faults. The one that is reported depends on the chunk.
                return None

    file = outcome(chunk, block)
    assert file == outcome(chunk, 0) == outcome(4096, 0)
    assert file is None or file.row_count == rows_outside_quotes(content)


# --- a large file ----------------------------------------------------------------------------------------------------


def _typical(count: int, *, quoted: bool) -> Iterable[bytes]:
    for number in range(count):
        row = [str(1700000000000 + number), f"till-{number % 300:04}", f"SUMMER-{number:08X}"]
        yield (",".join(map(_quoted, row) if quoted else row) + "\n").encode()


@pytest.mark.parametrize("quoted", [False, True], ids=["unquoted", "quoted"])
def test_parts_of_a_file_of_many_chunks_end_at_row_ends(quoted: bool) -> None:
    rows = list(_typical(20_000, quoted=quoted))
    file = scan(HEADER + b"".join(rows), rows=6000)

    assert [part.row_count for part in file.parts] == [6000, 6000, 6000, 2000]
    ends = [len(HEADER) + sum(map(len, rows[:count])) for count in (6000, 12000, 18000, 20000)]
    assert [part.end for part in file.parts] == ends
    assert [part.start for part in file.parts] == [len(HEADER), *ends[:-1]]


def test_memory_does_not_grow_with_the_file() -> None:
    block = b"".join(_typical(20_000, quoted=True))
    scanner = CsvScanner(max_rows_per_part=100_000)
    scanner.feed(HEADER + block)
    tracemalloc.start()
    try:
        for _ in range(20):
            scanner.feed(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert scanner.finish().row_count == 21 * 20_000
    assert peak < 4 << 20


# --- what is handled -------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_not_in_the_header_that_is_sent() -> None:
    file = scan(MARK + HEADER + b"1,2,3\n")

    assert file.header == HEADER
    assert file.columns == ("redeemedDateInMillis", "redeemedAt", "couponCode")
    assert file.parts[0].start == len(MARK + HEADER)
    assert file.parts[0].sha256 == hashlib.sha256(HEADER + b"1,2,3\n").hexdigest()


def test_names_are_unquoted_and_stripped() -> None:
    assert scan(b'"user Id" , b ,"c ""d"""\r\n1,2,3\r\n'.replace(b'" ,', b'",')).columns == ("user Id", "b", 'c "d"')


def test_crlf_stays_as_it_is() -> None:
    file = scan(HEADER.replace(b"\n", b"\r\n") + b"1,2,3\r\n\r\n4,5,6\r\n", rows=1)

    assert file.header.endswith(b"couponCode\r\n")
    # The blank line belongs to the part of the row before it.
    assert [part.end - part.start for part in file.parts] == [9, 7]


def test_a_last_line_without_an_end_counts_and_nothing_is_added() -> None:
    file = scan(HEADER + b"1,2,3\n4,5,6", rows=1)

    assert [part.end - part.start for part in file.parts] == [6, 5]
    assert file.parts[1].sha256 == hashlib.sha256(HEADER + b"4,5,6").hexdigest()


def test_blank_lines_are_no_rows_but_those_within_quotes_belong_to_one() -> None:
    file = scan(HEADER + b'\n\n1,2,"a\n\n\r\nb"\n\r\n\n4,5,6\n\n\n', rows=1)

    assert file.row_count == 2
    assert file.parts[0].start == len(HEADER)
    assert file.parts[1].end == file.size_bytes


def test_bytes_of_rows_that_are_not_utf_8_stay_as_they_are() -> None:
    content = "1,2,Münster\n".encode("latin-1")

    assert scan(HEADER + content).parts[0].sha256 == hashlib.sha256(HEADER + content).hexdigest()


def test_a_carriage_return_alone_within_quotes_is_content() -> None:
    assert scan(HEADER + b'1,2,"a\rb"\n3,4,"c\r\nd\re"\r\n').row_count == 2


def test_quotes_on_one_line_within_a_field_that_is_not_quoted_leave_no_doubt_about_the_row_end() -> None:
    assert scan(HEADER + b'1,2,5" x 6"\n3,4,5\n').row_count == 2


def test_a_header_of_one_column_is_one() -> None:
    assert scan(b"couponCode\nA\n\nB\n").row_count == 2


# --- what is refused -------------------------------------------------------------------------------------------------

CELL = b"SUMMER-4711"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(MARK, "line 1 is blank, but must be the header line", id="mark-only"),
        pytest.param(HEADER, "has a header line only, no row", id="header-only"),
        pytest.param(HEADER.strip(), "has a header line only, no row", id="header-only-without-an-end"),
        pytest.param(HEADER + b"\n\r\n", "has a header line only, no row", id="header-and-blank-lines"),
        pytest.param(b"\n" + HEADER + CELL, "line 1 is blank, but must be the header line", id="blank-header"),
        pytest.param(b" \r\n" + HEADER + CELL, "line 1 is blank, but must be the header line", id="header-of-spaces"),
        pytest.param("a,b\n1,2\n".encode("utf-16"), "is UTF-16, not CSV in UTF-8", id="utf-16"),
        pytest.param("a,b\n1,2\n".encode("utf-32"), "is UTF-32, not CSV in UTF-8", id="utf-32"),
        pytest.param(b"\xfe\xff\0a", "is UTF-16, not CSV in UTF-8", id="utf-16-big-endian"),
        pytest.param(b"\0\0\xfe\xff\0", "is UTF-32, not CSV in UTF-8", id="utf-32-big-endian"),
        pytest.param("a,b\n1,2\n".encode("utf-16-le"), "line 1 has a NUL byte, as in UTF-16", id="utf-16-unmarked"),
        pytest.param(b"\x1f\x8b\x08\0", "is a gzip file", id="gzip"),
        pytest.param(b"PK\x03\x04", "is a zip file or an Excel workbook", id="workbook"),
        pytest.param(HEADER + b"1,2,3\n" + CELL + b"\0\n", "line 3 has a NUL byte", id="nul"),
        pytest.param("künde,b\n1,2\n".encode("latin-1"), "line 1 (the header line) is not UTF-8", id="latin-1-header"),
        pytest.param(b"a;b\n1;2\n", "line 1 (the header line) is delimited by semicolons", id="semicolons"),
        pytest.param(b"a\tb\n1\t2\n", "line 1 (the header line) is delimited by tabs", id="tabs"),
        pytest.param(b"a|b\n1|2\n", "line 1 (the header line) is delimited by vertical bars", id="bars"),
        pytest.param(b"a,b\r1,2\r", "line 1, column 2 ends in a carriage return alone", id="cr-only"),
        pytest.param(HEADER + b"1,2\n1,2," + CELL + b"\r4,5\n", "line 3, column 3 ends in a carriage", id="cr"),
        pytest.param(HEADER + b"1,2," + CELL + b"\r", "line 2, column 3 ends in a carriage return alone", id="cr-last"),
        pytest.param(HEADER + b'1,"x,\ny"\r2,"\n",\n', "line 3, column 2 ends in a carriage", id="cr-behind-a-quote"),
        pytest.param(
            HEADER + b'1,"x\n\ny",5\n1,2,"' + CELL + b"\n1,2\n", "line 5, column 3 has a quote that is never", id="open"
        ),
        pytest.param(b'a,"b\n1,2\n', "line 1, column 2 has a quote that is never closed", id="open-header"),
        pytest.param(
            HEADER + b'1,2\n1,5" ' + CELL + b",2\n3\n", "line 3, column 2 has a quote in a field that", id="stray"
        ),
        pytest.param(HEADER + b'1,5" x\n1,"a\nb"\n', "line 2, column 2 has a quote in a field that", id="stray-before"),
        pytest.param(
            HEADER + b'1,"a\nb" ' + CELL + b"\n", "line 3, column 2 has text behind a closing quote", id="text"
        ),
        pytest.param(b'a,b"c\n1,2\n', "line 1, column 2 has a quote in a field that", id="stray-header"),
    ],
)
@pytest.mark.parametrize("block", [0, 1], ids=["whole", "bytewise"])
def test_a_malformed_file_is_refused_with_its_place_and_without_a_value(content: bytes, words: str, block: int) -> None:
    message = refusal(content, block=block)

    assert words in message
    assert message.rpartition("; ")[2], "the remedy"
    assert CELL.decode() not in message
    assert not re.search("[\n\r\0\"']", message)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(HEADER + b"1,2,3\n" + b"x" * 70 + b"\n", "line 3 begins a row of more than 64 bytes", id="row"),
        pytest.param(HEADER + b"1,2,3\n" + b"x" * 70, "line 3 begins a row of more than 64 bytes", id="last-row"),
        pytest.param(
            HEADER + b'1\n1,"' + b"x\n" * 40 + b'",2\n', "line 3, column 2 has a quote that is never", id="quoted"
        ),
        pytest.param(b"a" * 70 + b"\n1\n", "line 1 begins a row of more than 64 bytes", id="header"),
        pytest.param(b"a" * 700, "line 1 begins a row of more than 64 bytes", id="no-line-end"),
        pytest.param(HEADER + b'1\n1,"' + b"x\n" * 400, "line 3, column 2 has a quote that is never closed", id="open"),
        pytest.param(b"a,b\r" * 400, "line 1, column 2 ends in a carriage return alone", id="cr"),
    ],
)
@pytest.mark.parametrize("chunk", [16, 64])
def test_a_row_over_the_limit_is_refused_by_its_line(
    content: bytes, words: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_sizes(monkeypatch, chunk=chunk, longest_row=64)

    assert words in refusal(content)


def test_a_row_of_the_limit_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    set_sizes(monkeypatch, chunk=32, longest_row=64)

    assert scan(HEADER + b"x" * 63 + b"\n" + b'"' + b"\n" * 61 + b'"\n' + b"y" * 64).row_count == 3


def test_a_repr_shows_neither_header_nor_names() -> None:
    # They are values if the file has no header line.
    shown = repr(scan(CELL + b",till-1\n1,2\n"))

    assert CELL.decode() not in shown
    assert "till-1" not in shown


@pytest.mark.parametrize("rows", [0, -1, True, None, "many"])
def test_a_part_of_less_than_one_row_is_refused(rows: int) -> None:
    with pytest.raises(CapillaryConfigurationError, match="max_rows_per_part"):
        CsvScanner(max_rows_per_part=rows)
