# SPDX-License-Identifier: Apache-2.0
"""The endpoints of Capillary and of the sandbox itself, without sockets and faults."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_provider_capillary.sandbox.faults import Fault
from airflow_provider_capillary.sandbox.http_messages import Request, RequestError, Response, size_of
from airflow_provider_capillary.sandbox.jobs import KINDS, SandboxJob, read_upload
from airflow_provider_capillary.sandbox.validation import FieldError, check_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox.state import SandboxState

# 19 digits hold any file size, and are fewer than Python refuses to convert.
_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII | re.IGNORECASE)
_UPLOADS = "/coupon/api/v1/upload"
_NEED_TOKEN = ("status", "upload", "download")
_TOKEN_HEADER = "X-CAP-API-OAUTH-TOKEN"  # documented; without `Bearer`


def _generate_token(state: SandboxState, request: Request) -> Response:
    # JSON is documented: a form body, as RFC 6749 has it, is not understood.
    given = request.json_object()
    if given.get("key") != state.client_key or given.get("secret") not in [state.client_secret, *state.further_secrets]:
        # The HTTP status of this response is unknown, hence a setting.
        return _error("token", state.bad_credentials_status, "Invalid client key and secret", code=320001)
    lifetime = {"ttlSeconds": state.token_ttl_seconds} if state.ttl_in_answer else {}
    data = {"accessToken": state.issue_token(), **lifetime}
    return Response.of(200, {"data": data, "errors": None, "warnings": None})


def _list(kind: str, series: int, state: SandboxState, _: Request) -> dict[str, Any]:
    jobs = [job.to_json() for job in state.jobs(series, kind=kind) if job.listed_at <= state.clock()]
    return {KINDS[kind].jobs_key: jobs}


def _upload(kind: str, series: int, state: SandboxState, request: Request) -> dict[str, Any]:
    with state.upload_lock:
        file_name, result = read_upload(request, KINDS[kind], state.coupons[kind, series])
        name = state.stored_name(Path(file_name).stem or "upload", series, state.clock())
        job = state.add_job(series, kind=kind, uploaded_file_name=name, **result)
    return {KINDS[kind].jobs_key: [job.to_upload_json()], "fileName": name}


def _of_series(handler: Callable[..., dict[str, Any]], kind: str, state: SandboxState, request: Request) -> Response:
    """Respond with the result of a handler for one coupon series."""
    if not re.fullmatch(r"\d{1,18}", request.argument, re.ASCII):
        raise RequestError("Incorrect or invalid input.")
    series = int(request.argument)
    result = {"orgId": state.org_id, "couponSeriesId": series} | handler(kind, series, state, request)
    return Response.of(200, {"success": True, "status": 200, "result": result})


def _download(state: SandboxState, request: Request) -> Response:
    name = request.json_object().get("fileName")
    if not isinstance(name, str):
        raise RequestError("fileName is missing")
    file = state.file(name)
    if file is None:
        raise RequestError("There is no such file.", status=404)
    return Response(200, {"Content-Type": "application/octet-stream"}, file[0])


def _file(state: SandboxState, request: Request) -> Response:
    file = state.file(request.argument)
    if file is None:
        return Response.of(404, "There is no such file.\n")
    content, made_at = file
    if isinstance(content, Path):
        stat = content.stat()
        tag, modified = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"', stat.st_mtime
    else:
        tag, modified = f'"{sha256(content).hexdigest()[:32]}"', made_at.timestamp()
    date = formatdate(modified, usegmt=True)
    headers = {"Content-Type": "application/octet-stream", "ETag": tag, "Last-Modified": date}
    if state.file_ranges:
        headers["Accept-Ranges"] = "bytes"
    # A range is defined for GET alone.
    ranged = state.file_ranges and request.method == "GET" and request.headers.get("If-Range", tag) in (tag, date)
    part = parse_range(request.headers.get("Range") if ranged else None, size_of(content))
    if part is None:
        return Response(200, headers, content)
    if not part:
        return Response(416, headers | {"Content-Range": f"bytes */{size_of(content)}"})
    headers["Content-Range"] = f"bytes {part[0]}-{part[-1]}/{size_of(content)}"
    return Response(206, headers, content, part)


def parse_range(header: str | None, size: int) -> range | None:
    """Return the positions in a file of ``size`` bytes that a Range header names (RFC 9110, section 14).

    None stands for the whole file. A malformed header and several ranges are ignored, as a server may do.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    first, last = match.groups() if match else ("", "")
    if first and last and int(last) < int(first):
        return None
    if first:
        return range(size)[int(first) : int(last) + 1 if last else None]
    return range(size)[max(0, size - int(last)) :] if last else None  # "-5": the last five bytes


def _control(state: SandboxState, request: Request) -> Response:
    """Respond to a request to ``/sandbox``, without a token, a secret or a row of a file."""
    if not is_loopback(request.peer):
        # There is no password here: clients on a network may use the API alone.
        raise RequestError("/sandbox is there for this machine only", status=403)
    match request.method, request.argument:
        case "GET" | "HEAD", "":
            series: dict[int, list[dict[str, Any]]] = {}
            for job in state.jobs():
                series.setdefault(job.coupon_series_id, []).append(_describe(job))
            overview = {"coupon_series": series, "faults": state.faults, "requests": state.counts}
            return Response.of(200, {"base_url": state.base_url} | overview)
        case "POST", "jobs":
            return Response.of(201, _describe(_add_job(state, request.json_object(any_type=True))))
        case "POST", "faults":
            state.inject(Fault.from_json(request.json_object(any_type=True)))
            return Response.of(201, {"faults": state.faults})
        case "DELETE", "faults":
            state.clear_faults()
            return Response.of(200, {"faults": []})
    known = "GET /sandbox, POST /sandbox/jobs, POST /sandbox/faults, DELETE /sandbox/faults"
    raise RequestError(f"unknown; there are {known}", status=404)


def is_loopback(address: str) -> bool:
    """Whether an IP address is one of this machine alone; False for any other text."""
    with suppress(ValueError):
        # A socket for both families shows IPv4 peers as ::ffff:127.0.0.1.
        return ip_address(address.partition("%")[0].removeprefix("::ffff:")).is_loopback
    return False


def _add_job(state: SandboxState, values: dict[str, Any]) -> SandboxJob:
    check_names(values, state.add_job)
    for name in ("error_file", "success_file", "uploaded_file"):
        if (content := values.get(name)) is not None:
            # The content itself. Were it a path, any page in a browser could read any file.
            if not isinstance(content, str):
                raise FieldError(name, "must be the text of the file")
            values[name] = content.encode()
    return state.add_job(**values)


def _describe(job: SandboxJob) -> dict[str, Any]:
    handle = job.handle if job.error_file is not None else None
    names = ("job_id", "kind", "coupon_series_id", "rows", "errors", "uploaded_file_name")
    file = {"error_file": handle, "error_file_bytes": size_of(job.error_file or b"")}
    return {name: getattr(job, name) for name in names} | {"status": job.status()} | file


def _error(endpoint: str, status: int, message: str, *, code: int | None = None) -> Response:
    """Make an error response in the envelope of its endpoint."""
    match endpoint:
        case "token":
            content: dict[str, Any] = {"data": None, "errors": [{"code": code or status, "message": message}]}
        case "control":
            content = {"error": message}
        case _:
            # The envelope of the coupon service's successes: no sample of an error is public.
            content = {"success": False, "status": status, "result": None, "message": message}
    return Response.of(status, content)


@dataclass(frozen=True)
class Route:
    """An endpoint: its name, a pattern of its path whose group is the argument, methods (none: any) and handler."""

    endpoint: str
    pattern: str
    methods: tuple[str, ...]
    handler: Callable[[SandboxState, Request], Response]

    def respond(self, state: SandboxState, request: Request) -> Response:
        """Check method and token, and let the handler respond."""
        if self.methods and request.method not in self.methods:
            refusal = _error(self.endpoint, 405, "Method not allowed.")
            return replace(refusal, headers=refusal.headers | {"Allow": ", ".join(self.methods)})
        if self.endpoint in _NEED_TOKEN:
            scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
            sent = {"oauth": request.headers.get(_TOKEN_HEADER), "bearer": bearer if scheme == "Bearer" else None}
            live = [way for way, token in sent.items() if state.accepts_token(token)]
            if not live:
                return Response.refused_token(state.refusal, at=state.cluster_time())
            if self.endpoint == "upload" and state.upload_auth not in ("any", *live):
                return Response.refused_token("http_401", at=state.cluster_time())
        try:
            return self.handler(state, request)
        except RequestError as error:
            return _error(self.endpoint, error.status, str(error))
        except FieldError as error:
            return Response.of(400, {"error": str(error), "field": error.field})


#: The first route whose pattern matches the path takes a request; the last one takes any.
ROUTES = (
    Route("token", "/v3/oauth/token/generate", ("POST",), _generate_token),
    Route("status", f"{_UPLOADS}/getUploadRedeemedCouponStatus/(.*)", ("GET",), partial(_of_series, _list, "redeem")),
    Route("upload", f"{_UPLOADS}/redeemFile/(.*)", ("POST",), partial(_of_series, _upload, "redeem")),
    Route("status", f"{_UPLOADS}/getUploadStatus/(.*)", ("GET",), partial(_of_series, _list, "coupon")),
    Route("upload", f"{_UPLOADS}/file/(.*)", ("POST",), partial(_of_series, _upload, "coupon")),
    Route("download", "/coupon/api/v1/download", ("POST",), _download),
    Route("files", "/files/(.*)", ("GET", "HEAD"), _file),
    Route("control", "/sandbox(?:/(.*))?", (), _control),
    Route("other", ".*", (), lambda state, request: Response.html(404)),
)


def find_route(path: str) -> tuple[Route, str]:
    """Return the route of a percent-encoded path, and the decoded argument in it."""
    path = re.sub("/{2,}", "/", path)  # the documents print a double slash in the path of the status list
    matches = ((route, re.fullmatch(route.pattern, path)) for route in ROUTES)
    return next((route, unquote("".join(match.groups("")))) for route, match in matches if match)
