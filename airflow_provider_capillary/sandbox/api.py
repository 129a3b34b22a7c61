# SPDX-License-Identifier: Apache-2.0
"""The endpoints of Capillary: a request goes in, an answer comes out. No socket here, no fault."""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_provider_capillary.sandbox.answers import (
    Answer,
    Body,
    bytes_answer,
    coupon_answer,
    coupon_error,
    html_answer,
    json_answer,
    refused_token,
)
from airflow_provider_capillary.sandbox.ranges import UnsatisfiableRangeError, wanted_range
from airflow_provider_capillary.sandbox.redeem import UploadRefusedError, read_upload, work_through

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox.jobs import Clocks, JobStore, StoredFile
    from airflow_provider_capillary.sandbox.records import Headers
    from airflow_provider_capillary.sandbox.tokens import TokenBook

#: Longest JSON body that is read, in bytes.
JSON_AT_MOST = 1024 * 1024
#: Name of the header with the token (documented); without `Bearer`.
TOKEN_HEADER = "X-CAP-API-OAUTH-TOKEN"

_EXACT = {"/v3/oauth/token/generate": "token", "/coupon/api/v1/download": "download", "/sandbox": "control"}
_BEGINNINGS = {
    "/coupon/api/v1/upload/getUploadRedeemedCouponStatus/": "status",
    "/coupon/api/v1/upload/redeemFile/": "upload",
    "/files/": "files",
    "/sandbox/": "control",
}
_METHODS = {
    "token": ("POST",),
    "status": ("GET",),
    "upload": ("POST",),
    "download": ("POST",),
    "files": ("GET", "HEAD"),
}
_SERIES_ID = re.compile(r"\d{1,18}", re.ASCII)


def route(path: str) -> tuple[str, str]:
    """Tell where a path leads.

    :param path: path of the request, still percent-encoded
    :return: the endpoint (``control`` for the sandbox's own, ``other`` for anything unknown), and the rest of
        the path
    """
    # The documents print a double slash in this very path.
    path = re.sub("/{2,}", "/", path)
    if path in _EXACT:
        return _EXACT[path], ""
    for beginning, endpoint in _BEGINNINGS.items():
        if path.startswith(beginning):
            return endpoint, unquote(path.removeprefix(beginning))
    return "other", ""


@dataclass(frozen=True)
class Request:
    """A request, read to its end.

    :param method: HTTP method
    :param endpoint: what :func:`route` says
    :param argument: rest of the path
    :param headers: headers
    :param body: the body, seekable
    """

    method: str
    endpoint: str
    argument: str
    headers: Headers
    body: IO[bytes]

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        :raises ValueError: if it is none, or too long
        """
        self.body.seek(0)
        content = self.body.read(JSON_AT_MOST + 1)
        try:
            value = json.loads(content) if len(content) <= JSON_AT_MOST else None
        except (ValueError, RecursionError):
            value = None  # the parser's message would quote the body
        if not isinstance(value, dict):
            raise ValueError("the body must be a JSON object")
        return value


@dataclass(frozen=True)
class Settings:
    """What a sandbox is set to; for the meaning see ``Sandbox``."""

    client_key: str
    client_secret: str = field(repr=False)
    org_id: int
    token_ttl_seconds: float
    ttl_in_answer: bool
    refusal: str
    bad_credentials_status: int
    file_ranges: bool


class Api:
    """The endpoints.

    :param settings: settings of the sandbox
    :param clocks: its clocks
    :param tokens: its tokens
    :param jobs: its jobs
    """

    def __init__(self, settings: Settings, clocks: Clocks, tokens: TokenBook, jobs: JobStore) -> None:
        self._settings = settings
        self._clocks = clocks
        self._tokens = tokens
        self._jobs = jobs

    def answer(self, request: Request) -> Answer:
        """Answer a request."""
        if request.endpoint not in _METHODS:
            return html_answer(404)
        methods = _METHODS[request.endpoint]
        if request.method not in methods:
            refusal = coupon_error(405, "Method not allowed.")
            return replace(refusal, headers=refusal.headers | {"Allow": ", ".join(methods)})
        match request.endpoint:
            case "token":
                return self._token(request)
            case "files":
                return self._file(request)
        if not self._tokens.accepts(request.headers.get(TOKEN_HEADER)):
            return self.refuse_token()
        if request.endpoint == "download":
            return self._download(request)
        if not _SERIES_ID.fullmatch(request.argument):
            return coupon_error(400, "Incorrect or invalid input.")
        if request.endpoint == "upload":
            return self._upload(int(request.argument), request)
        return self._status(int(request.argument))

    def refuse_token(self, form: str | None = None) -> Answer:
        """Refuse a token, as ``form`` says or as the sandbox is set to."""
        return refused_token(form or self._settings.refusal, at=self._clocks.local())

    def _token(self, request: Request) -> Answer:
        # The media type is documented: a form body, as RFC 6749 has it, is not understood.
        if not _is_json(request):
            return _token_error(415, 415, "Unsupported Media Type")
        try:
            credentials = request.json_object()
        except ValueError as error:
            return _token_error(400, 400, str(error))
        expected = {"key": self._settings.client_key, "secret": self._settings.client_secret}
        if not all(_same(credentials.get(name), value) for name, value in expected.items()):
            # The HTTP status of this answer is unknown, hence a setting.
            status = self._settings.bad_credentials_status
            return _token_error(status, 320001, "Invalid client key and secret")
        data = {"accessToken": self._tokens.issue(), "ttlSeconds": self._settings.token_ttl_seconds}
        if not self._settings.ttl_in_answer:
            del data["ttlSeconds"]
        return json_answer(200, {"data": data, "errors": None, "warnings": None})

    def _status(self, coupon_series_id: int) -> Answer:
        jobs = [job.to_json() for job in self._jobs.jobs(coupon_series_id)]
        return coupon_answer(self._result(coupon_series_id, jobs))

    def _upload(self, coupon_series_id: int, request: Request) -> Answer:
        try:
            form = read_upload(request.headers.get("Content-Type", ""), request.body)
            counts = work_through(form, lambda coupon: self._jobs.redeem(coupon_series_id, coupon))
        except UploadRefusedError as error:
            return coupon_error(400, str(error))
        job = self._jobs.add_upload(
            coupon_series_id,
            file_name=form.file.file_name or "",
            rows=counts.rows,
            errors=counts.errors,
            error_file=counts.error_file,
        )
        result = self._result(coupon_series_id, [job.to_upload_json()])
        return coupon_answer(result | {"fileName": job.uploaded_file_name})

    def _result(self, coupon_series_id: int, jobs: list[dict[str, Any]]) -> dict[str, Any]:
        org_id = self._settings.org_id
        return {"orgId": org_id, "couponSeriesId": coupon_series_id, "redeemUploadJobStatuses": jobs}

    def _download(self, request: Request) -> Answer:
        if not _is_json(request):
            return coupon_error(415, "Unsupported Media Type")
        try:
            name = request.json_object().get("fileName")
        except ValueError as error:
            return coupon_error(400, str(error))
        if not isinstance(name, str):
            return coupon_error(400, "fileName is missing")
        body = _body_of(self._jobs.file(name))
        if body is None:
            return coupon_error(404, "There is no such file.")
        return Answer(200, {"Content-Type": "application/octet-stream"}, body)

    def _file(self, request: Request) -> Answer:
        file = self._jobs.file(request.argument)
        body = _body_of(file)
        if file is None or body is None:
            return bytes_answer(404, "text/plain; charset=utf-8", b"There is no such file.\n")
        tag, modified = _version(file)
        headers = {"Content-Type": "application/octet-stream", "ETag": tag, "Last-Modified": modified}
        if not self._settings.file_ranges:
            return Answer(200, headers, body)
        headers["Accept-Ranges"] = "bytes"
        same_file = request.headers.get("If-Range", tag) in (tag, modified)
        # A range is defined for GET alone.
        range_header = request.headers.get("Range") if same_file and request.method == "GET" else None
        try:
            part = wanted_range(range_header, body.size)
        except UnsatisfiableRangeError:
            return Answer(416, headers | {"Content-Range": f"bytes */{body.size}"}, Body.of(b""))
        if part is None:
            return Answer(200, headers, body)
        first, length = part
        headers["Content-Range"] = f"bytes {first}-{first + length - 1}/{body.size}"
        return Answer(206, headers, body.part(first, length))


def _token_error(status: int, code: int, message: str) -> Answer:
    return json_answer(status, {"data": None, "errors": [{"code": code, "message": message}]})


def _is_json(request: Request) -> bool:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/json"


def _same(given: object, expected: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _body_of(file: StoredFile | None) -> Body | None:
    if file is None:
        return None
    try:
        return Body.of(file.content)
    except OSError:
        return None  # a test has taken its file away


def _version(file: StoredFile) -> tuple[str, str]:
    """Return ETag and Last-Modified of a file."""
    if isinstance(file.content, Path):
        state = file.content.stat()
        return f'"{state.st_mtime_ns:x}-{state.st_size:x}"', formatdate(state.st_mtime, usegmt=True)
    return f'"{sha256(file.content).hexdigest()[:32]}"', formatdate(file.made_at.timestamp(), usegmt=True)
