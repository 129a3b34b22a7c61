# SPDX-License-Identifier: Apache-2.0
"""The result of a transfer, as XCom, asset events and OpenLineage report it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_capillary._storage.stores.base import ObjectLocation
    from airflow_provider_capillary.api.jobs import JobFile
    from airflow_provider_capillary.api.upload_kinds import UploadKindName


@dataclass(frozen=True)
class TransferredFile:
    """A file that was copied to an object store.

    :param location: Location of the object.
    :param upload_kind: The kind of upload.
    :param coupon_series_id: The coupon series.
    :param job_id: The upload job.
    :param file_type: Which file of the job.
    :param error_count: Number of refused rows, as Capillary reports it.
    :param size_bytes: Length of the file.
    :param sha256: SHA-256 of the file, in hex.
    :param lines: Number of lines, including a header.
    """

    location: ObjectLocation
    upload_kind: UploadKindName
    coupon_series_id: int
    job_id: int
    file_type: JobFile
    error_count: int | None
    size_bytes: int
    sha256: str
    lines: int

    def facts(self) -> dict[str, Any]:
        """Return the dictionary for the XCom and asset events."""
        names = ("coupon_series_id", "job_id", "error_count", "size_bytes", "sha256")
        return {"uri": self.location.uri} | {name: getattr(self, name) for name in names}
