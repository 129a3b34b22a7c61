# SPDX-License-Identifier: Apache-2.0
"""Upload jobs: their kinds, their status, their JSON and their files."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

#: Final status words. COMPLETED was seen in samples of redeem uploads, FINISHED in those of coupon uploads, ERRORED and
#: its misspelling in client code, ERRED in a table definition; there is no published list.
FINAL_STATUSES = frozenset(
    {"COMPLETED", "FINISHED", "ERRORED", "ERRORRED", "ERRED", "ERROR", "FAILED", "CANCELLED", "CANCELED"}
)

#: Why a row is refused whose coupon is wrong.
INVALID_COUPON = "Coupon is not valid, or belongs to another series"
_CUSTOMER_COLUMNS = {"MOBILE": "mobile", "EXTERNAL_ID": "externalId", "EMAIL": "email", "USER_ID": "userId"}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What differs between the kinds of upload jobs.

    :param ends: final status word of a job, as in samples
    :param file_name: name of an uploaded file that the sandbox makes up, without its extension
    :param prefix: beginning of the names of error files and tables
    :param identifiers: parts of the form that choose a column: name -> value -> key that ``uploadHeaders`` then needs
    :param repeated: why a row is refused whose coupon was there before
    :param is_dated: whether the timestamps of a job are midnight of its day, on the cluster (inferred from samples),
        and ``uploadedFileName`` is the name under which the file is stored
    :param more: further keys of a job
    """

    upload_path: str
    status_path: str
    jobs_key: str
    status_key: str
    ends: str
    file_name: str
    prefix: str
    identifiers: dict[str, dict[str, str]]
    required_columns: tuple[str, ...]
    optional_columns: tuple[str, ...] = ()
    repeated: str
    is_dated: bool
    more: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "redeem": Kind(
        upload_path="redeemFile",
        status_path="getUploadRedeemedCouponStatus",
        jobs_key="redeemUploadJobStatuses",
        status_key="uploadRedeemedCouponStatus",
        ends="COMPLETED",
        file_name="redeemed",
        prefix="redemption_upload_",
        identifiers={
            "customerIdentifier": _CUSTOMER_COLUMNS,
            "couponIdentifier": {"COUPON_ID": "couponId", "COUPON_CODE": "couponCode"},
        },
        required_columns=("redeemedDateInMillis", "redeemedAt"),
        optional_columns=("billId", "billNumber", "details"),
        repeated="Coupon is already redeemed, in this series",
        is_dated=True,
    ),
    "coupon": Kind(
        upload_path="file",
        status_path="getUploadStatus",
        jobs_key="uploadJobStatuses",
        status_key="uploadStatus",
        ends="FINISHED",
        file_name="couponbatchupload",
        prefix="",
        identifiers={"customerIdentifier": {**_CUSTOMER_COLUMNS, "NOT_TAGGED": ""}},
        required_columns=("couponCode",),
        repeated="Coupon is there already, in this series",
        is_dated=False,
        more={"audienceGroupId": 0, "audienceGroupVersionId": 0},
    ),
}


def error_line(message: str, coupon: str) -> str:
    """Return a row of an error file: not quoted, although the message has commas (seen in client code)."""
    # A line break in the coupon would make two rows of one.
    return f"{message},{' '.join(coupon.split())}\n"


def generate_error_file(kind: Kind, errors: int) -> bytes:
    """Make up an error file with ``errors`` rows."""
    reasons = (INVALID_COUPON, kind.repeated)
    lines = (error_line(reasons[row % 2], f"SANDBOX{row + 1:06d}") for row in range(errors))
    return ("message,coupon code\n" + "".join(lines)).encode()


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
