# SPDX-License-Identifier: Apache-2.0
"""Reading multipart/form-data (RFC 7578) out of a seekable file, without copying its parts.

The standard library had this in ``cgi``, which Python 3.13 removed; ``email`` holds everything in memory.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from email.message import Message
from itertools import pairwise
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

_PIECE = 64 * 1024
_MOST_PARTS = 32
_HEADERS_AT_MOST = 8 * 1024
_TEXT_AT_MOST = 64 * 1024


class MultipartError(ValueError):
    """The body is not multipart/form-data; the message tells why, and holds nothing of the body."""


class _Stretch(io.RawIOBase):
    """The bytes of a file from ``start`` to ``end``, as a file of their own."""

    def __init__(self, source: IO[bytes], start: int, end: int) -> None:
        self._source, self._position, self._end = source, start, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        self._source.seek(self._position)
        data = self._source.read(min(len(target), self._end - self._position))
        target[: len(data)] = data
        self._position += len(data)
        return len(data)


@dataclass(frozen=True)
class Part:
    """One part of a form.

    :param name: name of the field
    :param file_name: file name, None where the part is not a file
    :param source: the file that holds the whole form
    :param start: where the content begins in it
    :param end: where it ends
    """

    name: str
    file_name: str | None
    source: IO[bytes]
    start: int
    end: int

    def open(self) -> io.BufferedReader:
        """Open the content; only one part can be read at a time."""
        return io.BufferedReader(_Stretch(self.source, self.start, self.end), _PIECE)

    def text(self) -> str:
        """Return the content as text.

        :raises MultipartError: if it is not UTF-8 or longer than 64 KiB
        """
        if self.end - self.start > _TEXT_AT_MOST:
            raise MultipartError(f"part {self.name} is longer than {_TEXT_AT_MOST} bytes")
        try:
            return self.open().read().decode()
        except UnicodeDecodeError:
            raise MultipartError(f"part {self.name} is not UTF-8") from None


def read_form(content_type: str, source: IO[bytes]) -> dict[str, Part]:
    """Find the parts of a form.

    :param content_type: value of the Content-Type header
    :param source: the body, at any position; it has to stay open for as long as the parts are in use
    :return: the parts by name
    :raises MultipartError: if the body is no well-formed form
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary() if header.get_content_type() == "multipart/form-data" else None
    if not boundary:
        raise MultipartError("the content type must be multipart/form-data with a boundary")
    delimiters = []
    for delimiter in _delimiters(source, boundary.encode("latin-1", "replace")):
        delimiters.append(delimiter)
        if delimiter.closes or len(delimiters) > _MOST_PARTS:
            break
    if not delimiters or not delimiters[-1].closes:
        raise MultipartError("the form does not end with its closing boundary, or has too many parts")
    parts: dict[str, Part] = {}
    for before, after in pairwise(delimiters):
        part = _read_part(source, before.end, after.start)
        if part.name in parts:
            raise MultipartError(f"part {part.name} is there twice")
        parts[part.name] = part
    return parts


@dataclass(frozen=True)
class _Delimiter:
    start: int
    end: int
    closes: bool


def _delimiters(source: IO[bytes], boundary: bytes) -> Iterator[_Delimiter]:
    mark = b"\r\n--" + boundary
    # The first delimiter has no line break in front of it: lend it one.
    window, offset = b"\r\n", -2
    source.seek(0)
    while piece := source.read(_PIECE):
        window += piece
        at = 0
        while (at := window.find(mark, at)) >= 0:
            after = at + len(mark)
            tail = window[after : after + 2]
            if tail in (b"\r\n", b"--"):
                yield _Delimiter(offset + at, offset + after + 2, closes=tail == b"--")
            at = after
        # Enough to hold all but the last byte of a delimiter, so that none is missed and none is seen twice.
        kept = window[-(len(mark) + 1) :]
        offset += len(window) - len(kept)
        window = kept


def _read_part(source: IO[bytes], start: int, end: int) -> Part:
    source.seek(start)
    block, separator, _ = source.read(min(_HEADERS_AT_MOST, max(0, end - start))).partition(b"\r\n\r\n")
    if not separator:
        raise MultipartError("a part has no headers, or too many")
    header = Message()
    for line in block.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        # Headers may be folded; nobody does that here, and only this one matters.
        if colon and name.strip().lower() == "content-disposition":
            header["content-disposition"] = value.strip()
            break
    field_name = header.get_param("name", header="content-disposition")
    if header.get_content_disposition() != "form-data" or not isinstance(field_name, str):
        raise MultipartError("a part has no name")
    return Part(field_name, header.get_filename(), source, start + len(block) + len(separator), end)
