# SPDX-License-Identifier: Apache-2.0
"""Uploads: reading the form, and refusing rows.

The forms are documented by Capillary. The reasons why the real platform refuses a row are not; these rules are the
sandbox's own, so that a test can write a file that fails as wanted.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import threading
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_capillary.sandbox.http_messages import CHUNK_BYTES, Request, RequestError
from airflow_provider_capillary.sandbox.jobs import INVALID_COUPON, Kind, error_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

    from python_multipart.multipart import File

# Epoch milliseconds of the years 1973 to 5138: a time in seconds is too short, one in microseconds too long.
_MILLISECONDS = re.compile(r"\d{12,14}", re.ASCII)
# Its warnings about malformed forms must not reach stderr, unless the application configures logging.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())


def read_upload(request: Request, kind: Kind, known: set[str]) -> tuple[str, dict[str, Any]]:
    """Read the form of an upload and take its coupons, none of them if a part is missing or wrong.

    :param known: the coupons of the series so far; those of the file are added
    :return: name of the file; number of rows, number of rows refused and error file, as arguments of ``add_job``
    """
    with ExitStack() as stack:
        parts = read_form(request.headers, request.body, stack)
        for name in ("file", *kind.identifiers, "uploadHeaders"):
            if name not in parts:
                raise RequestError(f"part {name} is missing")
        file = parts["file"]
        if isinstance(file, bytes):
            raise RequestError("part file has no file name")
        chosen = {name: _choose(parts, name, choices) for name, choices in kind.identifiers.items()}
        columns = _read_columns(_text(parts, "uploadHeaders"), kind)
        for key in (*chosen.values(), *kind.required_columns):
            if key and key not in columns:
                raise RequestError(f"uploadHeaders has no {key}")
        coupon_column = chosen.get("couponIdentifier", "couponCode")
        time_index = columns.get("redeemedDateInMillis")
        rows = 0
        accepted: set[str] = set()
        refused: list[str] = []
        for row in _rows(file):
            rows += 1
            coupon = _cell(row, columns[coupon_column])
            key = f"{coupon_column} {coupon}"
            if problem := _problem(coupon, None if time_index is None else _cell(row, time_index)):
                refused.append(error_line(problem, coupon))
            elif key in known or key in accepted:
                refused.append(error_line(kind.repeated, coupon))
            else:
                accepted.add(key)
    # Only now: a file that cannot be read to its end must change nothing.
    known |= accepted
    header = f"message,coupon {'id' if coupon_column == 'couponId' else 'code'}\n"
    error_file = (header + "".join(refused)).encode() if refused else None
    return _name_of(file), {"rows": rows, "errors": len(refused), "error_file": error_file}


def uploaded_file_name(request: Request) -> str:
    """Return the name of the file in an upload, "" if the form cannot be read."""
    with suppress(RequestError), ExitStack() as stack:
        return _name_of(read_form(request.headers, request.body, stack).get("file"))
    return ""


def _name_of(part: bytes | File | None) -> str:
    return (getattr(part, "file_name", None) or b"").decode("utf-8", "replace")


def read_form(headers: Message, body: IO[bytes], stack: ExitStack) -> dict[str, bytes | File]:
    """Return the parts of multipart/form-data (RFC 7578) by name; ``stack`` closes their temporary files."""
    try:
        # Only uploads need it, and not every Airflow brings it.
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import FormParser
    except ImportError:
        remedy = "pip install 'airflow-provider-capillary[sandbox]'"
        raise RequestError(f"uploads to the sandbox need python-multipart: {remedy}", status=501) from None
    boundary = headers.get_boundary()
    if not boundary or headers.get_content_type() != "multipart/form-data":
        raise RequestError("the content type must be multipart/form-data with a boundary")
    malformed = RequestError("the form is malformed: each part needs a boundary, headers and a name")
    parts: dict[str, bytes | File] = {}
    complete = threading.Event()

    def add(raw_name: bytes | None, part: bytes | File) -> None:
        if raw_name is None:
            raise malformed
        name = raw_name.decode("utf-8", "replace")
        if name in parts:
            raise RequestError(f"part {name} is there twice")
        parts[name] = part

    def add_file(file: File) -> None:
        stack.callback(file.close)
        file.file_object.seek(0)
        add(file.field_name, file)

    try:
        parser = FormParser(
            "multipart/form-data",
            lambda field: add(field.field_name, field.value or b""),
            add_file,
            complete.set,
            boundary,
        )
        body.seek(0)
        while not complete.is_set() and (data := body.read(CHUNK_BYTES)):
            parser.write(data)
    except FormParserError:
        raise malformed from None  # its message quotes the body
    if not complete.is_set():
        raise RequestError("the form does not end with its closing boundary")
    return parts


def _text(parts: dict[str, bytes | File], name: str) -> str:
    part = parts[name]
    try:
        return (part if isinstance(part, bytes) else part.file_object.read()).decode()
    except UnicodeDecodeError:
        raise RequestError(f"part {name} is not UTF-8") from None


def _choose(parts: dict[str, bytes | File], name: str, choices: dict[str, str]) -> str:
    value = _text(parts, name)
    if value not in choices:
        raise RequestError(f"{name} must be one of {', '.join(choices)}")
    return choices[value]


def _read_columns(value: str, kind: Kind) -> dict[str, int]:
    try:
        columns = json.loads(value)
    except (ValueError, RecursionError):
        raise RequestError("uploadHeaders is not JSON") from None
    if not isinstance(columns, dict):
        raise RequestError("uploadHeaders must be a JSON object: column key -> index from 0")
    chosen = [key for choices in kind.identifiers.values() for key in choices.values() if key]
    known = {*chosen, *kind.required_columns, *kind.optional_columns}
    for key, index in columns.items():
        if key not in known:
            raise RequestError(f"uploadHeaders has a key beside {', '.join(sorted(known))}")
        if type(index) is not int or index < 0:
            raise RequestError(f"uploadHeaders: {key} must be a column index from 0")
    return columns


def _rows(file: File) -> Iterator[list[str]]:
    """Yield the rows behind the header line, without blank lines."""
    # Without the wrapper of a temporary file, which takes a second for a million lines.
    content = getattr(file.file_object, "file", file.file_object)
    # An encoding error spoils only its own row.
    reader = csv.reader(io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace", newline=""))
    try:
        if next(reader, None) is None:
            raise RequestError("the file is empty: its first line must be a header")
        yield from filter(None, reader)
    except csv.Error:
        # Its text may quote the file.
        raise RequestError(f"the file is not CSV: line {reader.line_num}") from None


def _cell(row: list[str], index: int) -> str:
    return row[index].strip() if index < len(row) else ""


def _problem(coupon: str, redeemed_at: str | None) -> str | None:
    if not coupon:
        return "Coupon is empty, the row was not taken"
    if coupon.startswith("INVALID"):
        return INVALID_COUPON
    if redeemed_at is not None and not _MILLISECONDS.fullmatch(redeemed_at):
        return "Redeem time is not a date, epoch milliseconds are expected"
    return None
