# SPDX-License-Identifier: Apache-2.0
"""Byte ranges (RFC 9110, section 14), as far as object stores serve them: one range a request."""

from __future__ import annotations

import re

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)
# Beyond any file size, and short of the length where Python refuses to read digits.
_MOST_DIGITS = 19


class UnsatisfiableRangeError(Exception):
    """The range begins behind the end of the file: HTTP 416."""


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Read a Range header.

    :param header: value of the header, None if the request has none
    :param size: size of the file in bytes
    :return: first byte and number of bytes; None where the whole file is to be sent, which is also the answer
        to a header that is malformed or asks for several ranges, since a server may ignore those
    :raises UnsatisfiableRangeError: if no byte of the file is in the range
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or any(len(digits) > _MOST_DIGITS for digits in match.groups()):
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is None:
        if last is None:
            return None
        first, last = max(0, size - last), size - 1  # "-5": the last five bytes
    elif last is None:
        last = size - 1
    elif last < first:
        return None
    if first >= size:
        raise UnsatisfiableRangeError
    return first, min(last, size - 1) - first + 1
