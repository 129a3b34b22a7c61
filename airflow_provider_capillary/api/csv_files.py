# SPDX-License-Identifier: Apache-2.0
"""Scan the CSV file of an upload in one pass, in constant memory, and find where it may be split into parts.

The file is CSV as in RFC 4180, with line ends of LF or CRLF. Its bytes are sent as they are, without a byte order mark.
Capillary does not document the encoding of the rows, so only the header line must be UTF-8.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_capillary.api.errors import CapillaryUploadError
from airflow_provider_capillary.api.values import parse_id

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes that are examined at once. The result does not depend on the blocks that are fed.
_CHUNK = 1 << 17
#: Longest row, in bytes. A quote that is never closed would otherwise take the rest of the file into memory.
#: Not smaller than a chunk: only a row that begins in an earlier chunk is measured.
_LONGEST_ROW = 1 << 20

_UTF8_MARK = b"\xef\xbb\xbf"
#: Beginnings of files that are not CSV, the longer ones first.
_SIGNATURES = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip file or an Excel workbook",
}
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SAVE_AS_CSV = "save it as CSV in UTF-8"
_RETURN_ALONE = (
    "ends in a carriage return alone, which is no line end of CSV; write the file with LF or CRLF, and quote fields "
    "that have a line break"
)

_ALL_BUT_QUOTES_AND_LF = bytes(byte for byte in range(256) if byte not in b'"\n')
_QUOTED = rb'"[^"]*+(?:""[^"]*+)*+"'
_FIELD = rb'(?:%b|[^",\r\n]*+)' % _QUOTED
_FIELDS = re.compile(rb"(?:%b,)*+" % _FIELD)
_ROW = re.compile(rb"(?:%b,)*+%b\r?" % (_FIELD, _FIELD))
_QUOTED_SECTION = re.compile(_QUOTED)
_UNQUOTED_SECTION = re.compile(rb'[^",\r\n]*+')


@dataclass(frozen=True)
class FilePart:
    """A part of the file that becomes one upload job.

    Parts follow each other without a gap; blank lines belong to the part of the row before them.

    :param start: Offset in the source of its first row.
    :param end: Offset in the source behind its last row.
    :param row_count: Rows in it.
    :param sha256: SHA-256 of the header and its rows, as they are sent.
    """

    start: int
    end: int
    row_count: int
    sha256: str


@dataclass(frozen=True)
class CsvFile:
    """The result of a scan.

    :param header: The header line with its line end, without a byte order mark: what each part begins with.
    :param columns: Names in the header line, unquoted and stripped. Neither is in the repr: where the file has no
        header line, they are values.
    :param size_bytes: Size of the source.
    :param row_count: Rows in the file, without header and blank lines.
    :param parts: The parts in their order, at least one.
    """

    header: bytes = field(repr=False)
    columns: tuple[str, ...] = field(repr=False)
    size_bytes: int
    row_count: int
    parts: tuple[FilePart, ...]

    def size_of(self, part: FilePart) -> int:
        """Return the size of a part as it is sent, in bytes: that of the header and its rows."""
        return len(self.header) + part.end - part.start


class CsvScanner:
    """Validate a CSV file, count its rows and split it, fed with its bytes in any blocks.

    A row ends at a line break outside quotes. A file is refused where readers of CSV disagree on that: at a row over
    several lines that is not as in RFC 4180, and at a carriage return alone.

    :param max_rows_per_part: Most rows of one part.
    :param name: Name of the file in messages. Nothing of its content is in them.
    """

    def __init__(self, *, max_rows_per_part: int, name: str = "source") -> None:
        self._max_rows = parse_id("max_rows_per_part", max_rows_per_part)
        self._name = name
        self._waiting = bytearray()
        self._carry = b""  # from the first row that is not complete on
        self._start = 0  # offset of the carry in the source
        self._line = 1  # in which the carry begins
        self._size = 0
        self._header = b""
        self._columns: tuple[str, ...] = ()
        self._parts: list[FilePart] = []
        self._part_start = 0
        self._part_rows = 0
        self._hash = hashlib.sha256()

    def feed(self, block: bytes) -> None:
        """Scan the next bytes of the file.

        :param block: The bytes.
        :raises CapillaryUploadError: The file is refused.
        """
        rest = memoryview(block)
        while rest:
            taken = rest[: _CHUNK - len(self._waiting)]
            self._waiting += taken
            rest = rest[len(taken) :]
            if len(self._waiting) == _CHUNK:
                self._take_chunk(is_last=False)

    def finish(self) -> CsvFile:
        """Return the result, after the last bytes.

        :raises CapillaryUploadError: The file is refused.
        """
        self._take_chunk(is_last=True)
        row_count = sum(part.row_count for part in self._parts) + self._part_rows
        if not row_count:
            raise CapillaryUploadError(
                f"{self._name} has a header line only, no row; check the query or the task that writes it"
            )
        self._end_part(self._size)
        return CsvFile(self._header, self._columns, self._size, row_count, tuple(self._parts))

    # --- chunks ------------------------------------------------------------------------------------------------

    def _take_chunk(self, *, is_last: bool) -> None:
        chunk = bytes(self._waiting)
        self._waiting.clear()
        if not self._size:
            chunk = self._without_mark(chunk)
        self._size += len(chunk)
        data = self._carry + chunk
        if b"\0" in chunk:
            line = self._line + data.count(b"\n", 0, data.index(b"\0", len(self._carry)))
            raise self._error(f"has a NUL byte, as in UTF-16 or a file that is not text; {_SAVE_AS_CSV}", line)
        if not self._header:
            data = self._take_header(data, is_last=is_last)
        if self._header:
            data = self._take_rows(data, is_last=is_last)
        if len(data) > _LONGEST_ROW:
            self._refuse_row(data, self._line, is_too_long=True)
        self._carry = data

    def _without_mark(self, chunk: bytes) -> bytes:
        if not chunk:
            raise CapillaryUploadError(f"{self._name} is empty; check the query or the task that writes it")
        for signature, kind in _SIGNATURES.items():
            if chunk.startswith(signature):
                raise CapillaryUploadError(f"{self._name} is {kind}, not CSV in UTF-8; {_SAVE_AS_CSV}")
        if chunk.startswith(_UTF8_MARK):
            self._size = self._start = len(_UTF8_MARK)
            return chunk[len(_UTF8_MARK) :]
        return chunk

    def _take_header(self, data: bytes, *, is_last: bool) -> bytes:
        """Return the data behind the header line, or all of it if the line is not complete."""
        end, quotes, from_ = 0, 0, 0
        while newline := data.find(b"\n", from_) + 1:
            quotes += data.count(b'"', from_, newline)
            from_ = newline
            if not quotes & 1:
                end = newline
                break
        if not end and not is_last:
            return data
        # At its end, a file with neither rows nor a line end: read all the same, for what may be wrong in it.
        line = data[:end] or data
        if not line.strip():
            raise self._error("is blank, but must be the header line with the names of the columns", self._line)
        if len(line) > _LONGEST_ROW:
            self._refuse_row(line, self._line, is_too_long=True)
        if not _ROW.fullmatch(line.removesuffix(b"\n")) or line.endswith(b"\r"):
            self._refuse_row(line, self._line)
        self._columns = self._names_in(line)
        self._header = line
        self._hash.update(line)
        self._start += len(line)
        self._part_start = self._start
        self._line += line.count(b"\n")
        return data[len(line) :]

    def _names_in(self, line: bytes) -> tuple[str, ...]:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise self._error(f"(the header line) is not UTF-8; {_SAVE_AS_CSV}", self._line) from None
        try:
            names = _columns_of(text, ",")
            if len(names) == 1:
                for delimiter, word in _OTHER_DELIMITERS.items():
                    if len(_columns_of(text, delimiter)) > 1:
                        raise self._error(
                            f"(the header line) is delimited by {word}, but Capillary reads commas; write the file "
                            "with commas",
                            self._line,
                        )
        except csv.Error:
            raise self._error(
                "(the header line) cannot be read as CSV; check that it holds the names of the columns", self._line
            ) from None
        return names

    # --- rows --------------------------------------------------------------------------------------------------

    def _take_rows(self, data: bytes, *, is_last: bool) -> bytes:
        """Take the complete rows, and return the data behind them."""
        lines = _Lines(data if is_last else data[: data.rfind(b"\n") + 1])
        self._check_rows(lines)
        if is_last and lines.unclosed is not None:
            self._refuse_row(data[len(lines.text) :], self._line + lines.unclosed)
        if lines.text:
            row_count = lines.row_count()
            if self._part_rows + row_count > self._max_rows:
                self._split(lines)
            else:
                self._hash.update(lines.text)
                self._part_rows += row_count
        self._start += len(lines.text)
        self._line += lines.newlines
        return data[len(lines.text) :]

    def _check_rows(self, lines: _Lines) -> None:
        text = lines.text
        if len(text) > _LONGEST_ROW and 0 not in lines.spans:
            length = text.find(b"\n") + 1 or len(text)
            if length > _LONGEST_ROW:
                self._refuse_row(text[:length], self._line, is_too_long=True)
        for first, last in lines.spans.items():
            row = b"\n".join(lines.split[first : last + 1])
            if len(row) >= _LONGEST_ROW:
                self._refuse_row(row, self._line + first, is_too_long=True)
            if not _ROW.fullmatch(row):
                self._refuse_row(row, self._line + first)
        if b"\r" in text and text.count(b"\r") != text.count(b"\r\n"):
            checked = {number for first, last in lines.spans.items() for number in range(first, last + 1)}
            for number, line in enumerate(lines.split):
                if b"\r" in line and number not in checked:
                    # Within quotes, a carriage return alone is content.
                    bare = _QUOTED_SECTION.sub(b"", line)
                    if number < lines.newlines:
                        bare = bare.removesuffix(b"\r")
                    if b"\r" in bare:
                        column = bare.count(b",", 0, bare.index(b"\r")) + 1
                        raise self._error(_RETURN_ALONE, self._line + number, column)

    def _split(self, lines: _Lines) -> None:
        """Take rows of which some begin a new part."""
        hashed = 0
        for start in lines.row_starts():
            if self._part_rows == self._max_rows:
                self._hash.update(lines.text[hashed:start])
                hashed = start
                self._end_part(self._start + start)
            self._part_rows += 1
        self._hash.update(lines.text[hashed:])

    def _end_part(self, end: int) -> None:
        self._parts.append(FilePart(self._part_start, end, self._part_rows, self._hash.hexdigest()))
        self._part_start, self._part_rows = end, 0
        self._hash = hashlib.sha256(self._header)

    # --- refusals ----------------------------------------------------------------------------------------------

    def _error(self, problem: str, line: int, column: int | None = None) -> CapillaryUploadError:
        place = f"line {line}" if column is None else f"line {line}, column {column}"
        return CapillaryUploadError(f"{self._name}: {place} {problem}")

    def _refuse_row(self, row: bytes, line: int, *, is_too_long: bool = False) -> None:
        """Refuse a row at the first place where it is not as in RFC 4180, or for its length."""
        matched = _FIELDS.match(row)
        at = matched.end() if matched else 0
        # The commas outside quotes.
        column = _QUOTED_SECTION.sub(b"", row[:at]).count(b",") + 1
        quoted = _QUOTED_SECTION.match(row, at)
        if row.startswith(b'"', at) and not quoted:
            raise self._error(
                "has a quote that is never closed"
                + (f", or not within {_LONGEST_ROW:,} bytes" if is_too_long else "")
                + "; close it, and double each quote that belongs to a value",
                line + row.count(b"\n", 0, at),
                column,
            )
        section = quoted or _UNQUOTED_SECTION.match(row, at)
        at = section.end() if section else at
        line += row.count(b"\n", 0, at)
        if row.startswith(b"\r", at) and not row.startswith(b"\r\n", at):
            raise self._error(_RETURN_ALONE, line, column)
        if at < len(row) and not row.startswith((b"\n", b"\r\n"), at):
            problem = "has text behind a closing quote" if quoted else "has a quote in a field that is not quoted"
            raise self._error(
                f"{problem}; quote the whole field, and double each quote that belongs to its value", line, column
            )
        raise self._error(f"begins a row of more than {_LONGEST_ROW:,} bytes; check its line ends and quotes", line)


def _columns_of(text: str, delimiter: str) -> tuple[str, ...]:
    names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    return tuple(name.strip() for name in names)


class _Lines:
    """Complete lines from the beginning of a row on.

    :param text: The lines, of which the last may lack its line end.

    ``spans`` has the rows over several lines, as numbers of the first and the last line from 0 on. Where a row begins
    that is not complete, ``text`` ends before it, and ``unclosed`` is the number of its line.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.spans: dict[int, int] = {}
        self.unclosed: int | None = None
        self._may_have_blanks = True
        self._newlines: int | None = None
        if b'"' in text:
            self._find_spans()

    def _find_spans(self) -> None:
        # The quotes of each line and nothing else: few different ones, without work in Python for each line.
        quotes = self.text.translate(None, _ALL_BUT_QUOTES_AND_LF).split(b"\n")
        if not any(len(each) & 1 for each in set(quotes)):
            self._newlines = len(quotes) - 1
            # The last one is that behind the last line end.
            self._may_have_blanks = quotes.count(b"") > (not quotes[-1])
            return
        # After an odd number of quotes the line end is within quotes, up to the next odd number.
        odd = [number for number, each in enumerate(quotes) if len(each) & 1]
        if len(odd) & 1:
            self.unclosed = odd.pop()
            end = sum(map(len, self.split[: self.unclosed])) + self.unclosed
            self.text = self.text[:end]
            del self.split
        self.spans = dict(zip(odd[::2], odd[1::2], strict=True))

    @cached_property
    def split(self) -> list[bytes]:
        """The lines without LF; empty behind the last LF."""
        return self.text.split(b"\n")

    @property
    def newlines(self) -> int:
        """Number of line ends, those within quotes too."""
        return len(self.split) - 1 if self._newlines is None else self._newlines

    def row_count(self) -> int:
        """Return the number of rows."""
        count = self.newlines + (not self.text.endswith(b"\n"))
        count -= sum(last - first for first, last in self.spans.items())
        if self._may_have_blanks:
            lines = self.split
            # Behind the last line end there is no line.
            count += not lines[-1]
            for blank in (b"", b"\r") if b"\r" in self.text else (b"",):
                count -= lines.count(blank)
                count += sum(lines[first + 1 : last].count(blank) for first, last in self.spans.items())
        return count

    def row_starts(self) -> Iterator[int]:
        """Yield the offset of each row."""
        lines, offset, number = self.split, 0, 0
        while number < len(lines):
            last = self.spans.get(number, number)
            if last != number or lines[number] not in (b"", b"\r"):
                yield offset
            offset += sum(map(len, lines[number : last + 1])) + last + 1 - number
            number = last + 1
