# SPDX-License-Identifier: Apache-2.0
"""Upload jobs: their kinds, their status, their JSON and their files, and the uploads that make them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_provider_capillary.sandbox.http_messages import Request, RequestError, read_form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from python_multipart.multipart import File

#: Final status words. COMPLETED was seen in samples of redeem uploads, FINISHED in those of coupon uploads, ERRORED and
#: its misspelling in client code, ERRED in a table definition; there is no published list.
FINAL_STATUSES = frozenset(
    {"COMPLETED", "FINISHED", "ERRORED", "ERRORRED", "ERRED", "ERROR", "FAILED", "CANCELLED", "CANCELED"}
)

# Epoch milliseconds of the years 1973 to 5138: a time in seconds is too short, one in microseconds too long.
_MILLISECONDS = re.compile(r"\d{12,14}", re.ASCII)
_INVALID_COUPON = "Coupon is not valid, or belongs to another series"  # why a row is refused whose coupon is wrong
_CUSTOMER_COLUMNS = {"MOBILE": "mobile", "EXTERNAL_ID": "externalId", "EMAIL": "email", "USER_ID": "userId"}
_REDEEM_IDENTIFIERS = {
    "customerIdentifier": _CUSTOMER_COLUMNS,
    "couponIdentifier": {"COUPON_ID": "couponId", "COUPON_CODE": "couponCode"},
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What differs between the kinds of upload jobs; the defaults are those of redeemed coupons."""

    jobs_key: str = "redeemUploadJobStatuses"
    status_key: str = "uploadRedeemedCouponStatus"
    ends: str = "COMPLETED"  # final status word, as in samples
    file_name: str = "redeemed"  # of an upload that the sandbox makes up, without the extension
    prefix: str = "redemption_upload_"  # of the names of error files and tables
    # Parts of the form that choose a column: name -> value -> key that `uploadHeaders` then needs.
    identifiers: dict[str, dict[str, str]] = field(default_factory=_REDEEM_IDENTIFIERS.copy)
    required_columns: tuple[str, ...] = ("redeemedDateInMillis", "redeemedAt")
    optional_columns: tuple[str, ...] = ("billId", "billNumber", "details")
    repeated: str = "Coupon is already redeemed, in this series"  # why a row is refused whose coupon was there before
    # Timestamps are midnight of the day on the cluster (inferred from samples), `uploadedFileName` is the stored name.
    is_dated: bool = True
    more: dict[str, int] = field(default_factory=dict)  # further keys of a job


KINDS = {
    "redeem": Kind(),
    "coupon": Kind(
        jobs_key="uploadJobStatuses",
        status_key="uploadStatus",
        ends="FINISHED",
        file_name="couponbatchupload",
        prefix="",
        identifiers={"customerIdentifier": {**_CUSTOMER_COLUMNS, "NOT_TAGGED": ""}},
        required_columns=("couponCode",),
        optional_columns=(),
        repeated="Coupon is there already, in this series",
        is_dated=False,
        more={"audienceGroupId": 0, "audienceGroupVersionId": 0},
    ),
}


def write_error_file(rows: Iterable[tuple[str, str]], column: str = "code") -> bytes:
    """Write reasons and coupons: without quotes, although the reasons have commas (seen in client code)."""
    # A line break in a coupon would make two rows of one.
    lines = (f"{reason},{' '.join(coupon.split())}\n" for reason, coupon in rows)
    return "".join((f"message,coupon {column}\n", *lines)).encode()


def generate_error_file(kind: Kind, errors: int) -> bytes:
    """Make up an error file with ``errors`` rows."""
    reasons = (_INVALID_COUPON, kind.repeated)
    return write_error_file((reasons[row % 2], f"SANDBOX{row + 1:06d}") for row in range(errors))


@dataclass(kw_only=True, eq=False, repr=False)
class SandboxJob:
    """One upload job; ``Sandbox.add_job`` and uploads make it.

    :ivar handle: name of the error file in the sandbox
    :ivar url: value of ``errorFileUrl`` once the job is done
    :ivar made_at: when the job was made, on the cluster, to the millisecond
    :ivar listed_at: when the status endpoint begins to list it, by ``clock``
    :ivar schedule: each status and when it begins, by ``clock``
    """

    kind: str
    job_id: int
    coupon_series_id: int
    org_id: int
    uploaded_file_name: str
    rows: int
    errors: int
    handle: str
    error_file: bytes | Path | None
    url: str | None
    success_file: bytes | Path | None
    uploaded_file: bytes | Path | None
    made_at: datetime
    listed_at: float
    clock: Callable[[], float]
    schedule: list[tuple[float, str]]

    def __repr__(self) -> str:
        return f"<SandboxJob {self.job_id} of series {self.coupon_series_id}: {self.status()}>"

    def status(self) -> str:
        """Return the current status."""
        now = self.clock()
        return next(status for begins, status in reversed(self.schedule) if begins <= now)

    def finish(self, status: str | None = None) -> None:
        """End the job at once, with this status; None: COMPLETED for redeemed coupons, FINISHED for coupons."""
        self.schedule = [(-math.inf, KINDS[self.kind].ends if status is None else status)]

    @property
    def is_done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.status().strip().upper() in FINAL_STATUSES

    @property
    def error_file_url(self) -> str | None:
        """Current value of ``errorFileUrl``: null before the job is done, and without an error file (samples)."""
        return self.url if self.is_done and self.error_file is not None else None

    @property
    def success_handle(self) -> str:
        """Name of the success file, made after that of the error file: no sample has one."""
        return f"success_{self.handle.removeprefix('error_')}"

    def read_error_file(self) -> bytes:
        """Return the whole error file; ``b""`` without one."""
        return self.error_file.read_bytes() if isinstance(self.error_file, Path) else self.error_file or b""

    def file(self, name: str) -> bytes | Path | None:
        """Return the file that a client may request by this name now."""
        # Any URL that was given is a name of the error file, and so is the last part of an address under /files/.
        part = unquote(re.split("[?#]", (self.url or "").partition("/files/")[2])[0])
        content = self.uploaded_file if name == self.uploaded_file_name else None
        if self.is_done and name == self.success_handle:
            content = self.success_file
        elif self.is_done and name in {self.handle, self.url, part} - {""}:
            content = self.error_file
        # A test may have removed it.
        return None if isinstance(content, Path) and not content.is_file() else content

    def to_json(self) -> dict[str, Any]:
        """Describe the job as the status endpoint does."""
        kind, status = KINDS[self.kind], self.status()
        word = status.strip().upper()
        rows = 0 if word == "QUEUED" else self.rows
        stamp = f"{self.made_at:%Y%m%d_%H%M%S%f}"[:-3]  # to the millisecond
        shown_at, file_name = self.made_at.replace(microsecond=0), self.uploaded_file_name
        if kind.is_dated:
            shown_at = shown_at.replace(hour=0, minute=0, second=0)
        else:
            file_name = re.sub(r"_\d{13}_\d+(\.csv)$", r"\1", file_name)
        return {
            "jobId": self.job_id,
            kind.status_key: status,
            "createdOn": str(int(shown_at.timestamp()) * 1000),
            "updatedOn": str(int(shown_at.timestamp()) * 1000),
            "errorFileUrl": self.error_file_url,
            "successFileUrl": self.success_handle if self.is_done and self.success_file is not None else None,
            "uploadedFileUrl": self.uploaded_file_name,
            "totalUploadedCount": rows,
            "actualRowCount": rows,
            "errorCount": self.errors if word in FINAL_STATUSES else 0,
            "uploadTableName": None if word == "QUEUED" else f"temp_{kind.prefix}{self.org_id}_{stamp}",
            "uploadedFileName": file_name,
        } | kind.more

    def to_upload_json(self) -> dict[str, Any]:
        """Describe the job as the response to its upload does: queued, with timestamps to the millisecond."""
        stamp = str(round(self.made_at.timestamp() * 1000))
        queued = {KINDS[self.kind].status_key: "QUEUED", "createdOn": stamp, "updatedOn": stamp}
        counts = {"totalUploadedCount": 0, "actualRowCount": 0, "errorCount": 0}
        names = dict.fromkeys(("errorFileUrl", "successFileUrl", "uploadTableName"))
        return self.to_json() | queued | counts | names


def read_upload(request: Request, kind: Kind, known: set[str]) -> tuple[str, dict[str, Any]]:
    """Read the form of an upload and take its coupons, none of them if a part is missing or wrong.

    Capillary documents the form, but not why it refuses a row: these rules are the sandbox's own, so that a test can
    write a file that fails as wanted.

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
        coupon_column, columns = _read_columns(parts, kind)
        time_index = columns.get("redeemedDateInMillis")
        rows = 0
        accepted: set[str] = set()
        refused: list[tuple[str, str]] = []
        for row in _rows(file):
            rows += 1
            coupon = _cell(row, columns[coupon_column])
            key = f"{coupon_column} {coupon}"
            if not coupon:
                reason = "Coupon is empty, the row was not taken"
            elif coupon.startswith("INVALID"):
                reason = _INVALID_COUPON
            elif time_index is not None and not _MILLISECONDS.fullmatch(_cell(row, time_index)):
                reason = "Redeem time is not a date, epoch milliseconds are expected"
            elif key in known or key in accepted:
                reason = kind.repeated
            else:
                accepted.add(key)
                continue
            refused.append((reason, coupon))
    known |= accepted  # only now: a file that cannot be read to its end must change nothing
    column = "id" if coupon_column == "couponId" else "code"
    error_file = write_error_file(refused, column) if refused else None
    name = (file.file_name or b"").decode("utf-8", "replace")
    return name, {"rows": rows, "errors": len(refused), "error_file": error_file}


def _read_columns(parts: dict[str, bytes | File], kind: Kind) -> tuple[str, dict[str, int]]:
    """Return the key of the column that has the coupon, and the index of each column by its key."""
    chosen = {}
    for name, choices in kind.identifiers.items():
        value = _text(parts, name)
        if value not in choices:
            raise RequestError(f"{name} must be one of {', '.join(choices)}")
        chosen[name] = choices[value]
    text = _text(parts, "uploadHeaders")
    try:
        columns = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError("uploadHeaders is not JSON") from None
    if not isinstance(columns, dict):
        raise RequestError("uploadHeaders must be a JSON object: column key -> index from 0")
    identifiers = {key for choices in kind.identifiers.values() for key in choices.values() if key}
    known = {*identifiers, *kind.required_columns, *kind.optional_columns}
    for key, index in columns.items():
        if key not in known:
            raise RequestError(f"uploadHeaders has a key beside {', '.join(sorted(known))}")
        if type(index) is not int or index < 0:
            raise RequestError(f"uploadHeaders: {key} must be a column index from 0")
    for key in (*chosen.values(), *kind.required_columns):
        if key and key not in columns:
            raise RequestError(f"uploadHeaders has no {key}")
    return chosen.get("couponIdentifier", "couponCode"), columns


def _text(parts: dict[str, bytes | File], name: str) -> str:
    part = parts[name]
    try:
        return (part if isinstance(part, bytes) else part.file_object.read()).decode()
    except UnicodeDecodeError:
        raise RequestError(f"part {name} is not UTF-8") from None


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
