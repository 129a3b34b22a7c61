# SPDX-License-Identifier: Apache-2.0
"""Uploads of redeemed coupons: what the form must hold, and which rows are refused.

The form is as documented by Capillary. Why the real platform refuses a row is not; these rules are the
sandbox's own, so that a file can be written that fails as wanted.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from airflow_provider_capillary.sandbox.jobs import error_header, error_line
from airflow_provider_capillary.sandbox.multipart import MultipartError, Part, read_form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Value of `customerIdentifier` -> the key that `uploadHeaders` then needs.
CUSTOMER_COLUMNS = {"MOBILE": "mobile", "EXTERNAL_ID": "externalId", "EMAIL": "email", "USER_ID": "userId"}
#: Value of `couponIdentifier` -> the key that `uploadHeaders` then needs.
COUPON_COLUMNS = {"COUPON_ID": "couponId", "COUPON_CODE": "couponCode"}
ALWAYS_NEEDED = ("redeemedDateInMillis", "redeemedAt")
OPTIONAL_COLUMNS = ("billId", "billNumber", "details")
_ALL_COLUMNS = {*CUSTOMER_COLUMNS.values(), *COUPON_COLUMNS.values(), *ALWAYS_NEEDED, *OPTIONAL_COLUMNS}

# Epoch milliseconds of the years 1973 to 5138: a time in seconds is too short, one in microseconds too long.
_MILLISECONDS = re.compile(r"\d{12,14}", re.ASCII)


class UploadRefusedError(ValueError):
    """The upload cannot be taken; the message says why, and holds nothing of the file."""


@dataclass(frozen=True)
class UploadForm:
    """A form that holds all it must.

    :param file: the CSV
    :param coupon_column: key of the coupon column, ``couponId`` or ``couponCode``
    :param columns: column key -> index from 0
    """

    file: Part
    coupon_column: str
    columns: dict[str, int]


@dataclass(frozen=True)
class RowCounts:
    """What came of the rows.

    :param rows: number of rows
    :param errors: how many were refused
    :param error_file: the error file, None without errors
    """

    rows: int
    errors: int
    error_file: bytes | None


def read_upload(content_type: str, body: IO[bytes]) -> UploadForm:
    """Check the form of an upload.

    :param content_type: value of the Content-Type header
    :param body: the body, seekable
    :raises UploadRefusedError: if anything is missing or wrong
    """
    try:
        parts = read_form(content_type, body)
        file = _needed(parts, "file")
        if file.file_name is None:
            raise UploadRefusedError("part file has no file name")
        customer_column = _chosen(parts, "customerIdentifier", CUSTOMER_COLUMNS)
        coupon_column = _chosen(parts, "couponIdentifier", COUPON_COLUMNS)
        columns = _read_columns(_needed(parts, "uploadHeaders").text())
    except MultipartError as error:
        raise UploadRefusedError(str(error)) from None
    for key in (customer_column, coupon_column, *ALWAYS_NEEDED):
        if key not in columns:
            raise UploadRefusedError(f"uploadHeaders has no {key}")
    return UploadForm(file, coupon_column, columns)


def work_through(form: UploadForm, redeem: Callable[[str], bool]) -> RowCounts:
    """Redeem the rows of an upload.

    :param form: the upload
    :param redeem: redeems a coupon, False if that was done before
    :raises UploadRefusedError: if the file has no header line or is not CSV
    """
    for _ in _rows(form):
        pass  # a file that cannot be read to its end must redeem nothing
    rows = 0
    refused: list[str] = []
    for coupon, redeemed_at in _rows(form):
        rows += 1
        problem = _problem(coupon, redeemed_at)
        if problem is None and not redeem(f"{form.coupon_column} {coupon}"):
            problem = "Coupon is already redeemed, in this series"
        if problem is not None:
            refused.append(error_line(problem, coupon))
    header = error_header("coupon id" if form.coupon_column == "couponId" else "coupon code")
    error_file = (header + "".join(refused)).encode() if refused else None
    return RowCounts(rows, len(refused), error_file)


def _needed(parts: dict[str, Part], name: str) -> Part:
    if name not in parts:
        raise UploadRefusedError(f"part {name} is missing")
    return parts[name]


def _chosen(parts: dict[str, Part], name: str, choices: dict[str, str]) -> str:
    value = _needed(parts, name).text()
    if value not in choices:
        raise UploadRefusedError(f"{name} must be one of {', '.join(choices)}")
    return choices[value]


def _read_columns(value: str) -> dict[str, int]:
    try:
        columns = json.loads(value)
    except (ValueError, RecursionError):
        raise UploadRefusedError("uploadHeaders is not JSON") from None
    if not isinstance(columns, dict):
        raise UploadRefusedError("uploadHeaders must be a JSON object: column key -> index from 0")
    for key, index in columns.items():
        if key not in _ALL_COLUMNS:
            raise UploadRefusedError(f"uploadHeaders has a key beside {', '.join(sorted(_ALL_COLUMNS))}")
        if isinstance(index, bool) or not isinstance(index, int) or index < 0:
            raise UploadRefusedError(f"uploadHeaders: {key} must be a column index from 0")
    return columns


def _rows(form: UploadForm) -> Iterator[tuple[str, str]]:
    """Yield coupon and redeem time of every row."""
    # An error in the encoding only spoils the row it is in.
    with io.TextIOWrapper(form.file.open(), encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.reader(lines)
        try:
            if next(reader, None) is None:
                raise UploadRefusedError("the file is empty: its first line must be a header")
            for row in reader:
                if row:  # not a blank line
                    coupon = _cell(row, form.columns[form.coupon_column])
                    yield coupon, _cell(row, form.columns["redeemedDateInMillis"])
        except csv.Error:
            # Its text may quote the file.
            raise UploadRefusedError(f"the file is not CSV: line {reader.line_num}") from None


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
