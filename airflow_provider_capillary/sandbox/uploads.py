# SPDX-License-Identifier: Apache-2.0
"""Uploads of redeemed coupons: reading the form, and refusing rows.

The form is documented by Capillary. The reasons why the real platform refuses a row are not; these rules are the
sandbox's own, so that a test can write a file that fails as wanted.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import threading
from contextlib import ExitStack
from email.message import Message
from typing import IO, TYPE_CHECKING

from airflow_provider_capillary.sandbox.http_messages import CHUNK_BYTES, MAX_MEMORY_BYTES, Request, RequestError
from airflow_provider_capillary.sandbox.jobs import error_header, error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from python_multipart.multipart import Field, File

#: Value of `customerIdentifier` -> the key that `uploadHeaders` then needs.
_CUSTOMER_COLUMNS = {"MOBILE": "mobile", "EXTERNAL_ID": "externalId", "EMAIL": "email", "USER_ID": "userId"}
#: Value of `couponIdentifier` -> the key that `uploadHeaders` then needs.
_COUPON_COLUMNS = {"COUPON_ID": "couponId", "COUPON_CODE": "couponCode"}
_REQUIRED_COLUMNS = ("redeemedDateInMillis", "redeemedAt")
_OPTIONAL_COLUMNS = ("billId", "billNumber", "details")
_ALL_COLUMNS = {*_CUSTOMER_COLUMNS.values(), *_COUPON_COLUMNS.values(), *_REQUIRED_COLUMNS, *_OPTIONAL_COLUMNS}

# Epoch milliseconds of the years 1973 to 5138: a time in seconds is too short, one in microseconds too long.
_MILLISECONDS = re.compile(r"\d{12,14}", re.ASCII)
_MAX_PARTS = 32
_MAX_TEXT_BYTES = 64 * 1024
# Its warnings about malformed forms must not reach stderr, unless the application configures logging.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())
# Larger files are buffered on disk instead of memory.
_PARSER_SETTINGS = {"MAX_MEMORY_FILE_SIZE": MAX_MEMORY_BYTES}


def redeem_upload(request: Request, redeem: Callable[[str], bool]) -> tuple[str, int, int, bytes | None]:
    """Read the form of an upload and redeem its rows, none of them if a part is missing or wrong.

    :param redeem: redeems a coupon; False if it was redeemed before
    :return: name of the file, number of rows, number of rows refused, error file
    """
    with ExitStack() as stack:
        parts = read_form(request.headers.get("Content-Type", ""), request.body, stack)
        for name in ("file", "customerIdentifier", "couponIdentifier", "uploadHeaders"):
            if name not in parts:
                raise RequestError(f"part {name} is missing")
        file = parts["file"]
        if isinstance(file, bytes):
            raise RequestError("part file has no file name")
        customer_column = _choose(parts, "customerIdentifier", _CUSTOMER_COLUMNS)
        coupon_column = _choose(parts, "couponIdentifier", _COUPON_COLUMNS)
        columns = _read_columns(_text(parts, "uploadHeaders"))
        for key in (customer_column, coupon_column, *_REQUIRED_COLUMNS):
            if key not in columns:
                raise RequestError(f"uploadHeaders has no {key}")
        # Without the wrapper of a temporary file, which takes a second for a million lines.
        content = getattr(file.file_object, "file", file.file_object)
        # An encoding error spoils only its own row.
        lines = io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace", newline="")
        for _ in _rows(lines):
            pass  # a file that cannot be read to its end must redeem nothing
        lines.seek(0)
        rows = 0
        refused: list[str] = []
        for row in _rows(lines):
            rows += 1
            coupon = _cell(row, columns[coupon_column])
            problem = _problem(coupon, _cell(row, columns["redeemedDateInMillis"]))
            if problem is None and not redeem(f"{coupon_column} {coupon}"):
                problem = "Coupon is already redeemed, in this series"
            if problem is not None:
                refused.append(error_line(problem, coupon))
    header = error_header("coupon id" if coupon_column == "couponId" else "coupon code")
    error_file = (header + "".join(refused)).encode() if refused else None
    return (file.file_name or b"").decode("utf-8", "replace"), rows, len(refused), error_file


def read_form(content_type: str, body: IO[bytes], stack: ExitStack) -> dict[str, bytes | File]:
    """Return the parts of multipart/form-data (RFC 7578) by name; ``stack`` closes their temporary files."""
    try:
        # Only uploads need it, and not every Airflow brings it.
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import FormParser
    except ImportError:
        remedy = "pip install 'airflow-provider-capillary[sandbox]'"
        raise RequestError(f"uploads to the sandbox need python-multipart: {remedy}", status=501) from None
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary() if header.get_content_type() == "multipart/form-data" else None
    if not boundary:
        raise RequestError("the content type must be multipart/form-data with a boundary")
    fields: list[Field] = []
    files: list[File] = []
    complete = threading.Event()
    malformed = "the form is malformed: each part needs a boundary, headers and a name"
    try:
        parser = FormParser(
            "multipart/form-data", fields.append, files.append, complete.set, boundary, config=_PARSER_SETTINGS
        )
        while not complete.is_set() and (data := body.read(CHUNK_BYTES)):
            parser.write(data)
    except FormParserError:
        raise RequestError(malformed) from None  # its message quotes the body
    if not complete.is_set():
        raise RequestError("the form does not end with its closing boundary")
    if len(fields) + len(files) > _MAX_PARTS:
        raise RequestError("the form has too many parts")
    parts: dict[str, bytes | File] = {}
    named: list[tuple[bytes | None, bytes | File]] = [(field.field_name, field.value or b"") for field in fields]
    for file in files:
        stack.callback(file.close)
        file.file_object.seek(0)
        named.append((file.field_name, file))
    for raw_name, part in named:
        if raw_name is None:
            raise RequestError(malformed)
        name = raw_name.decode("utf-8", "replace")
        if name in parts:
            raise RequestError(f"part {name} is there twice")
        parts[name] = part
    return parts


def _text(parts: dict[str, bytes | File], name: str) -> str:
    part = parts[name]
    content = part if isinstance(part, bytes) else part.file_object.read(_MAX_TEXT_BYTES + 1)
    if len(content) > _MAX_TEXT_BYTES:
        raise RequestError(f"part {name} is longer than {_MAX_TEXT_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RequestError(f"part {name} is not UTF-8") from None


def _choose(parts: dict[str, bytes | File], name: str, choices: dict[str, str]) -> str:
    value = _text(parts, name)
    if value not in choices:
        raise RequestError(f"{name} must be one of {', '.join(choices)}")
    return choices[value]


def _read_columns(value: str) -> dict[str, int]:
    try:
        columns = json.loads(value)
    except (ValueError, RecursionError):
        raise RequestError("uploadHeaders is not JSON") from None
    if not isinstance(columns, dict):
        raise RequestError("uploadHeaders must be a JSON object: column key -> index from 0")
    for key, index in columns.items():
        if key not in _ALL_COLUMNS:
            raise RequestError(f"uploadHeaders has a key beside {', '.join(sorted(_ALL_COLUMNS))}")
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise RequestError(f"uploadHeaders: {key} must be a column index from 0")
    return columns


def _rows(lines: io.TextIOWrapper) -> Iterator[list[str]]:
    """Yield the rows behind the header line, without blank lines."""
    reader = csv.reader(lines)
    try:
        if next(reader, None) is None:
            raise RequestError("the file is empty: its first line must be a header")
        yield from filter(None, reader)
    except csv.Error:
        # Its text may quote the file.
        raise RequestError(f"the file is not CSV: line {reader.line_num}") from None


def _cell(row: list[str], index: int) -> str:
    return row[index].strip() if index < len(row) else ""


def _problem(coupon: str, redeemed_at: str) -> str | None:
    if not coupon:
        return "Coupon is empty, the row was not redeemed"
    if coupon.startswith("INVALID"):
        return "Coupon is not valid, or belongs to another series"
    if not _MILLISECONDS.fullmatch(redeemed_at):
        return "Redeem time is not a date, epoch milliseconds are expected"
    return None
