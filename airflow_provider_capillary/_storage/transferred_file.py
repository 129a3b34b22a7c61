# SPDX-License-Identifier: Apache-2.0
"""The result of a transfer, as XCom, asset events and OpenLineage report it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_capillary._storage.stores.base import ObjectLocation
    from airflow_provider_capillary.api.jobs import JobFile


@dataclass(frozen=True)
class TransferredFile:
    """A file that is in the object store now.

    :param location: Where.
    :param coupon_series_id: Coupon series.
    :param job_id: Upload job.
    :param file_type: Which file of the job.
    :param error_count: Refused rows, as Capillary counts them.
    :param size_bytes: Its length.
    :param sha256: In hex.
    :param lines: Its lines, a header included.
    """

    location: ObjectLocation
    coupon_series_id: int
    job_id: int
    file_type: JobFile
    error_count: int | None
    size_bytes: int
    sha256: str
    lines: int

    def facts(self) -> dict[str, Any]:
        """Return what XCom and asset events carry."""
        names = ("coupon_series_id", "job_id", "error_count", "size_bytes", "sha256")
        return {"uri": self.location.uri} | {name: getattr(self, name) for name in names}
