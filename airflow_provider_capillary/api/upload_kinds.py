# SPDX-License-Identifier: Apache-2.0
"""The two kinds of upload: redeemed coupons, and coupons. They differ in paths and names only.

Source: docs/capillary/api.md, 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

UploadKindName = Literal["redeem", "coupon"]

_CUSTOMER_COLUMNS = {"MOBILE": "mobile", "EXTERNAL_ID": "externalId", "EMAIL": "email", "USER_ID": "userId"}


@dataclass(frozen=True, kw_only=True)
class UploadKind:
    """The paths and names of one kind of upload.

    :param name: ``redeem`` or ``coupon``; the value of ``upload_kind`` arguments.
    :param title: The kind in messages, as in ``redeem upload job 5``.
    :param status_path: Path of the status endpoint.
    :param upload_path: Path that a file is uploaded to.
    :param jobs_field: Field of a response's ``result`` that lists the jobs.
    :param status_field: Field of a job with its status word.
    :param done_to_rows: What Capillary does with the rows of the file, as a past participle.
    :param customer_columns: Value of the form part ``customerIdentifier`` -> the column that it requires; None if it
        requires none.
    :param coupon_columns: Value of the form part ``couponIdentifier`` -> the column that it requires. Empty if the form
        has no such part.
    :param required_columns: Columns that are always required, as keys of the form part ``uploadHeaders``.
    :param optional_columns: Further columns that Capillary reads.
    """

    name: UploadKindName
    title: str
    status_path: str
    upload_path: str
    jobs_field: str
    status_field: str
    done_to_rows: str
    customer_columns: Mapping[str, str | None] = field(hash=False)
    coupon_columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    required_columns: tuple[str, ...] = ()
    optional_columns: tuple[str, ...] = ()


REDEEM = UploadKind(
    name="redeem",
    title="redeem upload",
    status_path="/coupon/api/v1/upload/getUploadRedeemedCouponStatus/{coupon_series_id}",
    upload_path="/coupon/api/v1/upload/redeemFile/{coupon_series_id}",
    jobs_field="redeemUploadJobStatuses",
    status_field="uploadRedeemedCouponStatus",
    done_to_rows="redeemed",
    customer_columns=_CUSTOMER_COLUMNS,
    coupon_columns={"COUPON_ID": "couponId", "COUPON_CODE": "couponCode"},
    required_columns=("redeemedDateInMillis", "redeemedAt"),
    optional_columns=("billId", "billNumber", "details"),
)
COUPON = UploadKind(
    name="coupon",
    title="coupon upload",
    status_path="/coupon/api/v1/upload/getUploadStatus/{coupon_series_id}",
    upload_path="/coupon/api/v1/upload/file/{coupon_series_id}",
    jobs_field="uploadJobStatuses",
    status_field="uploadStatus",
    done_to_rows="added to the series",
    customer_columns={**_CUSTOMER_COLUMNS, "NOT_TAGGED": None},
    required_columns=("couponCode",),
)
UPLOAD_KINDS: Mapping[str, UploadKind] = {kind.name: kind for kind in (REDEEM, COUPON)}
