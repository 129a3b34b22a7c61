# SPDX-License-Identifier: Apache-2.0
"""Upload a file so that Capillary makes exactly one job of it.

The endpoints for redeemed coupons and for coupons (docs/capillary/api.md, 4) have no idempotency key: a request that is
sent twice makes two jobs, and redeems twice. So the file gets a name of its own, and whenever the answer is lost, the
status list is searched for that name before anything is sent again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryError, CapillaryResponseError, CapillaryUploadError
from airflow_provider_capillary.api.flow import Flow, Measure, Sleep
from airflow_provider_capillary.api.http_messages import ApiRequest
from airflow_provider_capillary.api.job_history import read_history
from airflow_provider_capillary.api.responses import read_payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_capillary.api.client import CapillaryClient, SentRequest
    from airflow_provider_capillary.api.http_messages import FileForm, Response
    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind

#: How often a file is sent at most. Each time, the status list was searched for longer than a minute before.
_MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class UploadLookup:
    """How long the status list is searched for a job that an earlier request may have made.

    :param seconds: A job may show late in the list; after so many seconds it counts as not made. Default 60.
    """

    seconds: float = 60.0

    @property
    def interval(self) -> float:
        """Seconds between two requests of the list."""
        return self.seconds / 4


@dataclass(frozen=True)
class Upload:
    """One file to upload.

    :param kind: The kind of upload.
    :param coupon_series_id: The coupon series.
    :param form: The file, and the parts of :func:`form_fields`. Its job is found by the name of the file, so no other
        upload may have that name.
    """

    kind: UploadKind
    coupon_series_id: int
    form: FileForm


def form_fields(
    headers: Mapping[str, int], *, customer_identifier: str, coupon_identifier: str | None, details: str | None = None
) -> dict[str, str]:
    """Return the parts of the form beside the file (docs/capillary/api.md, 4).

    Both identifiers are always sent: a missing one is taken for MOBILE or COUPON_ID.

    :param headers: Key of a column -> its index from 0.
    :param customer_identifier: Kind of the customers' ids.
    :param coupon_identifier: Kind of the coupons' ids; None for an upload of coupons, whose form has no such part.
    :param details: Free text; None for none.
    """
    fields = {
        "customerIdentifier": customer_identifier,
        "couponIdentifier": coupon_identifier,
        "uploadHeaders": json.dumps(dict(headers)),
        "Details": details,
    }
    return {name: value for name, value in fields.items() if value is not None}


def find_uploads(
    client: CapillaryClient,
    kind: UploadKind,
    coupon_series_id: int,
    file_names: Sequence[str],
    *,
    lookup: UploadLookup,
    may_exist: bool,
) -> Flow[dict[str, list[UploadJob]]]:
    """Search the status list for the jobs of uploaded files.

    :param client: The client of the connection.
    :param kind: The kind of upload.
    :param coupon_series_id: The coupon series.
    :param file_names: Names that the files were uploaded with.
    :param lookup: How long a job that is not there yet is searched for.
    :param may_exist: Whether one of them may have been sent already. If not, the list is requested once.
    :return: Name of each file that has jobs -> its jobs, the oldest first.
    :raises CapillaryError: The list cannot be read.
    """
    waited = 0.0
    while True:
        history = yield from client.get_upload_history(kind, coupon_series_id)
        jobs = {name: jobs_of_file(history, name) for name in file_names}
        found = {name: matches for name, matches in jobs.items() if matches}
        if not may_exist or len(found) == len(file_names) or waited >= lookup.seconds:
            return found
        pause = min(lookup.interval, lookup.seconds - waited)
        yield Sleep(pause)
        waited += pause


def send_upload(client: CapillaryClient, upload: Upload, *, lookup: UploadLookup) -> Flow[UploadJob]:
    """Send a file that no earlier request made a job of.

    Where the answer is lost, the status list decides: a job with the file's name is the result, and the file is sent
    again only if there is none.

    :param client: The client of the connection.
    :param upload: The file.
    :param lookup: How long a job is searched for after a lost answer.
    :return: The job that Capillary made.
    :raises CapillaryUploadError: Capillary's answer was lost, and whether it made a job is not known for certain.
    :raises CapillaryError: Capillary refused the file.
    """
    job = yield from _send_until_answered(client, upload, lookup=lookup)
    yield Measure("upload_jobs", upload_kind=upload.kind.name)
    return job


def _send_until_answered(client: CapillaryClient, upload: Upload, *, lookup: UploadLookup) -> Flow[UploadJob]:
    url = client.settings.base_url + upload.kind.upload_path.format(coupon_series_id=upload.coupon_series_id)
    request = ApiRequest(
        "POST",
        url,
        headers={"Accept": "application/json"},
        form=upload.form,
        is_safe=False,
        needs_token=True,
        auth_sensitive="upload",
    )
    attempt = 0
    while True:
        attempt += 1
        try:
            return (yield from client.send(request, partial(_read_answer, client, upload)))
        except CapillaryError as error:
            # Only a transient error leaves open whether there is a job: a refusal is an answer.
            if not error.is_transient:
                raise
            lost = error
        try:
            found = yield from find_uploads(
                client,
                upload.kind,
                upload.coupon_series_id,
                [upload.form.file_name],
                lookup=lookup,
                may_exist=True,
            )
        except CapillaryError as error:
            raise CapillaryUploadError(
                f"the answer to an upload was lost ({lost}), and the status list cannot be read to find out whether it "
                f"made a job: {error}. Nothing was sent again; a retry of the task searches the list first",
                is_transient=True,
            ) from error
        if upload.form.file_name in found:
            return found[upload.form.file_name][0]
        if attempt >= _MAX_ATTEMPTS:
            raise CapillaryUploadError(
                f"the file was sent {attempt} times and each answer was lost, the last one with: {lost}. No "
                f"{upload.kind.title} job with its name appeared within {lookup.seconds:g} seconds; a retry of the "
                "task searches for one first",
                is_transient=True,
            ) from lost


def upload_once(client: CapillaryClient, upload: Upload, *, lookup: UploadLookup) -> Flow[UploadJob]:
    """Send a file, unless a job with its name is there.

    :param client: The client of the connection.
    :param upload: The file.
    :param lookup: How long a job is searched for after a lost answer.
    :raises CapillaryError: As :func:`send_upload`.
    """
    found = yield from find_uploads(
        client, upload.kind, upload.coupon_series_id, [upload.form.file_name], lookup=lookup, may_exist=False
    )
    if upload.form.file_name in found:
        return found[upload.form.file_name][0]
    return (yield from send_upload(client, upload, lookup=lookup))


def jobs_of_file(history: JobHistory, file_name: str) -> list[UploadJob]:
    """Return the jobs of a file, the oldest first.

    Capillary stores a file as ``{name}_{milliseconds}_{series}.csv`` (docs/capillary/api.md, 4).

    :param history: All jobs of the series.
    :param file_name: Name that the file was uploaded with.
    """
    stem = re.escape(_stem(file_name))
    stored = re.compile(rf"{stem}(_\d+_\d+)?(\.\w+)?", re.ASCII | re.IGNORECASE)
    return history.with_file(stored)


def _stem(file_name: str) -> str:
    stem, dot, _ = file_name.rpartition(".")
    return stem if dot else file_name


def _read_answer(client: CapillaryClient, upload: Upload, response: Response, sent: SentRequest) -> UploadJob:
    """Return the job of an upload. Whether its answer may list earlier jobs is unknown (docs/capillary/api.md, 4)."""
    payload = read_payload(response, secrets=sent.secrets)
    history = read_history(payload, upload.kind, timezone=client.settings.cluster_timezone)
    stored_as = _stored_name(payload)
    own = jobs_of_file(history, upload.form.file_name) or (jobs_of_file(history, stored_as) if stored_as else [])
    job = own[0] if own else history.newest()
    if job is None:
        # It may have made one all the same: the status list decides.
        raise CapillaryResponseError("Capillary answered an upload without a job", is_transient=True)
    return job


def _stored_name(payload: Mapping[str, Any]) -> str | None:
    result = payload.get("result")
    name = result.get("fileName") if isinstance(result, dict) else None
    return name if isinstance(name, str) and name else None


def part_names(stem: str, tokens: Iterable[str]) -> list[str]:
    """Return the file names of the parts of an upload.

    :param stem: Beginning of the names: what people recognise the file by.
    :param tokens: Token of each part, see ``api/upload_identity.py``.
    """
    tokens = list(tokens)
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60] or "upload"
    if len(tokens) == 1:
        return [f"{readable}-{tokens[0]}.csv"]
    return [f"{readable}-{number}of{len(tokens)}-{token}.csv" for number, token in enumerate(tokens, 1)]
