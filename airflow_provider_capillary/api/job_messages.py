# SPDX-License-Identifier: Apache-2.0
"""Wording of messages about a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_capillary.api.secrecy import shown

if TYPE_CHECKING:
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind

#: Longest status word and file name that a message shows, in characters.
_LONGEST_WORD, _LONGEST_NAME = 60, 200


def shown_status(job: UploadJob) -> str:
    """Return the status word of a job, short and printable.

    :param job: The job.
    """
    return shown(job.status, most=_LONGEST_WORD)


def shown_file_name(job: UploadJob) -> str:
    """Return the name of the uploaded file of a job, short and printable.

    :param job: The job.
    """
    return shown(job.uploaded_file_name or job.uploaded_file_url or "(no name)", most=_LONGEST_NAME)


def failure_hint(job: UploadJob, kind: UploadKind, coupon_series_id: int | str) -> str:
    """Return the consequence of a failed job for its rows, and the facts that Capillary's support needs.

    Capillary commits rows in batches, and no response has the reason (docs/capillary/api.md, 3.4).

    :param job: The job.
    :param kind: Its kind of upload.
    :param coupon_series_id: The requested series, in case the response does not name it.
    """
    org = "" if job.org_id is None else f"org {job.org_id}, "
    series = coupon_series_id if job.coupon_series_id is None else job.coupon_series_id
    return (
        f"part of its rows may have been {kind.done_to_rows} all the same; ask Capillary's support for the reason, "
        f"with {org}coupon series {series} and job {job.job_id}"
    )
