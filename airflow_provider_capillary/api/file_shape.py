# SPDX-License-Identifier: Apache-2.0
"""The shape of a text file, from its first bytes: encoding, line ends, delimiter, number of columns. Never its content.

Nothing of this is documented for error files (docs/capillary/api.md, 5), and no other module depends on it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.content_encoding import make_decoder
from airflow_provider_capillary.api.errors import CapillaryErrorFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Bytes of a file that are enough to describe it.
HEAD_BYTES = 64 << 10
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
#: UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_ENDS = {"\r\n": "CRLF", "\n": "LF", "\r": "CR"}
#: Not ``splitlines``, which also splits at characters that may be within a field, such as U+2028.
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, kw_only=True)
class FileShape:
    """The shape of the first 64 KiB of a file.

    :param compression: ``gzip``, ``zip``, ``bzip2``, ``xz`` or ``zstd``, by its first bytes; None for none. Within
        gzip, the other fields describe the decompressed file; within another one they are None.
    :param encoding: ``ascii``, ``utf-8``, ``utf-16-le``, ..., or ``not utf-8``, which is one of many.
    :param has_byte_order_mark: Whether the file begins with one.
    :param line_ends: ``LF``, ``CRLF``, ``CR``, joined by a plus sign if there are several, or ``none``.
    :param ends_with_line_end: Whether the last line has one; None if the file goes on.
    :param delimiter: ``comma``, ``semicolon``, ``tab``, ``pipe``, or ``none``: a guess.
    :param columns_first: Columns of the first line.
    :param columns_least: Fewest columns of the other lines; None without other lines.
    :param columns_most: Most columns of the other lines.
    :param has_quotes: Whether a field is quoted.
    :param lines: Lines, the first included; of the first 64 KiB if the file goes on.
    :param is_whole: Whether this is the whole file.
    """

    compression: str | None = None
    encoding: str | None = None
    has_byte_order_mark: bool = False
    line_ends: str | None = None
    ends_with_line_end: bool | None = None
    delimiter: str | None = None
    columns_first: int | None = None
    columns_least: int | None = None
    columns_most: int | None = None
    has_quotes: bool | None = None
    lines: int | None = None
    is_whole: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values."""
        return asdict(self)


def describe_file(head: bytes, *, is_whole: bool) -> FileShape:
    """Describe a file by its first bytes.

    :param head: The first bytes, at most 64 KiB of them count.
    :param is_whole: Whether the file ends with them.
    """
    head, is_whole = head[:HEAD_BYTES], is_whole and len(head) <= HEAD_BYTES
    compression = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if compression == "gzip":
        head, is_whole = _decompressed(head, is_whole)
    elif compression is not None:
        return FileShape(compression=compression, is_whole=is_whole)
    encoding, mark = _encoding_of(head, is_whole)
    text = head[mark:].decode("latin-1" if encoding == "not utf-8" else encoding, errors="replace")
    ends = _line_ends(text, is_whole)
    if not is_whole:
        # The last line is cut.
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    delimiter, rows = _best_delimiter(text)
    others = [len(row) for row in rows[1:]]
    return FileShape(
        compression=compression,
        encoding=encoding,
        has_byte_order_mark=mark > 0,
        line_ends="+".join(name for end, name in _ENDS.items() if ends[end]) or "none",
        ends_with_line_end=text.endswith(("\n", "\r")) if is_whole else None,
        delimiter=_DELIMITERS.get(delimiter, "none"),
        columns_first=len(rows[0]) if rows else 0,
        columns_least=min(others, default=None),
        columns_most=max(others, default=None),
        has_quotes=re.search(f'(^|{re.escape(delimiter)})"' if delimiter else '^"', text, re.MULTILINE) is not None,
        lines=len(_lines(text)),
        is_whole=is_whole,
    )


def _decompressed(head: bytes, is_whole: bool) -> tuple[bytes, bool]:
    """Return the first bytes within gzip, and whether they are all."""
    decoder = make_decoder("gzip")
    inner = bytearray()
    try:
        for piece in decoder.feed(head):
            inner += piece
            if len(inner) > HEAD_BYTES:
                break
    except CapillaryErrorFileError:
        is_whole = False
    return bytes(inner[:HEAD_BYTES]), is_whole and decoder.is_whole and len(inner) <= HEAD_BYTES


def _encoding_of(head: bytes, is_whole: bool) -> tuple[str, int]:
    """Return the encoding, and the length of the byte order mark."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    if b"\0" in head[:512]:
        # Text of few languages has a zero in every second byte, and most in the first kilobyte.
        return ("utf-16-be" if head[:1] == b"\0" else "utf-16-le"), 0
    if head.isascii():
        return "ascii", 0
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=is_whole)
    except UnicodeDecodeError:
        return "not utf-8", 0
    return "utf-8", 0


def _line_ends(text: str, is_whole: bool) -> Counter[str]:
    if not is_whole:
        text = text.removesuffix("\r")  # it may be half of a CRLF
    both = text.count("\r\n")
    return Counter({"\r\n": both, "\n": text.count("\n") - both, "\r": text.count("\r") - both})


def _best_delimiter(text: str) -> tuple[str, Sequence[Sequence[str]]]:
    """Return the delimiter of the first line that most other lines agree with, and the rows that it makes."""
    best: tuple[float, int] = (0.0, 0)
    found: tuple[str, Sequence[Sequence[str]]] = ("", [[line] for line in _lines(text) if line])
    for delimiter in _DELIMITERS:
        rows = _rows(text, delimiter)
        first = len(rows[0]) if rows else 0
        if first < 2:
            continue
        agreement = sum(len(row) == first for row in rows) / len(rows)
        if (agreement, first) > best:
            best, found = (agreement, first), (delimiter, rows)
    return found


def _rows(text: str, delimiter: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error:  # a quote that is not closed, or a null character
        return [line.split(delimiter) for line in _lines(text) if line]


def _lines(text: str) -> list[str]:
    lines = _LINE_END.split(text)
    return lines[:-1] if lines[-1] == "" else lines
