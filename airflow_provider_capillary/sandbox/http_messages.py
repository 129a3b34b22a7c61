# SPDX-License-Identifier: Apache-2.0
"""HTTP requests and responses: headers, bodies that are read while they are sent, Capillary's JSON envelopes."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

#: Names under which requests are counted, and which a fault can be tied to.
ENDPOINTS = ("token", "status", "upload", "download", "files", "other")
#: Longest JSON body that is read, in bytes.
MAX_JSON_BYTES = 1024 * 1024
#: Forms in which a token can be refused. The v1.1 API has the code in the body (documented); the form of
#: `/coupon/...` is unknown, so a client has to understand all of them.
REFUSALS = ("http_401", "http_498", "body_401", "body_498")

#: Bodies are read and sent in chunks of at most this many bytes.
CHUNK_BYTES = 64 * 1024
#: Larger bodies are buffered in a temporary file instead of memory.
MAX_MEMORY_BYTES = 1024 * 1024


class Headers(Mapping[str, str]):
    """Headers of a request: case-insensitive names; repeated headers are joined by a comma."""

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in items:
            earlier = self._values.get(name.lower())
            self._values[name.lower()] = value if earlier is None else f"{earlier}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Names only: a value may be a token, and pytest prints the values of a failed assertion.
        return f"Headers({', '.join(self._values)})"


class RequestError(ValueError):
    """A request that an endpoint refuses; the message holds nothing of the request."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """A request whose body has been read into a seekable file; ``argument`` is the variable part of its path."""

    method: str
    argument: str
    headers: Headers
    body: IO[bytes]
    peer: str

    def json_object(self, *, any_type: bool = False) -> dict[str, Any]:
        """Return the body as a JSON object, which need not be declared as JSON if ``any_type``."""
        media_type = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json" and not any_type:
            raise RequestError("Unsupported Media Type", status=415)
        self.body.seek(0)
        content = self.body.read(MAX_JSON_BYTES + 1)
        try:
            value = json.loads(content) if len(content) <= MAX_JSON_BYTES else None
        except (ValueError, RecursionError):
            value = None  # the parser's message would quote the body
        if not isinstance(value, dict):
            raise RequestError("the body must be a JSON object")
        return value


@dataclass(frozen=True)
class RecordedRequest:
    """One request, as it came in.

    :param path: path as the client wrote it, without the query
    :param query: text after the question mark, or ""
    :param headers: case-insensitive mapping
    :param endpoint: ``token``, ``status``, ``upload``, ``download``, ``files`` or ``other``
    :param body: the body if it is at most 64 KiB, else ``b""``
    :param body_size: length of the body in bytes
    :param at: when it began, in monotonic seconds
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: Headers
    endpoint: str
    body: bytes = field(repr=False)
    body_size: int
    at: float


@dataclass(frozen=True)
class Body:
    """``size`` bytes of a file from ``start`` on, read only while they are sent."""

    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]] = field(repr=False)
    start: int = 0

    @classmethod
    def of(cls, source: bytes | Path) -> Body:
        """Make a body of bytes or of a file."""
        if isinstance(source, Path):
            return cls(source.stat().st_size, lambda: source.open("rb"))
        return cls(len(source), lambda: io.BytesIO(source))

    def part(self, start: int, size: int) -> Body:
        """Return ``size`` bytes from ``start`` on."""
        return replace(self, start=self.start + start, size=size)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the bytes; fewer than ``size`` if the file has become shorter meanwhile."""
        left = self.size
        with self.open() as source:
            source.seek(self.start)
            while left and (data := source.read(min(chunk_bytes, left))):
                left -= len(data)
                yield data

    @contextmanager
    def gzipped(self) -> Iterator[Body]:
        """Compress the body into a temporary file."""
        with tempfile.SpooledTemporaryFile(max_size=MAX_MEMORY_BYTES) as target:
            with gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as compressor:
                compressor.writelines(self.chunks())
            yield Body(target.tell(), lambda: nullcontext(target))


@dataclass(frozen=True)
class Response:
    """A response without the headers that frame its body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=lambda: Body.of(b""))


def make_response(status: int, content: Any, content_type: str | None = None) -> Response:
    """Make a response of bytes, text or anything that JSON can hold."""
    if isinstance(content, bytes):
        content_type, body = content_type or "application/octet-stream", content
    elif isinstance(content, str):
        content_type, body = content_type or "text/plain; charset=utf-8", content.encode(errors="replace")
    else:
        content_type, body = content_type or "application/json", json.dumps(content).encode()
    return Response(status, {"Content-Type": content_type}, Body.of(body))


def html_response(status: int, content: Any = None) -> Response:
    """Make a response of the edge in front of the API: HTML, no envelope."""
    page = f"<!DOCTYPE html>\n<html><title>{status}</title><body><h1>Error {status}</h1></body></html>\n"
    return make_response(status, page if content is None else content, "text/html; charset=UTF-8")


def coupon_error(status: int, message: str) -> Response:
    """Make an error of the coupon service, in the envelope of its successes: no sample of an error is public."""
    return make_response(status, {"success": False, "status": status, "result": None, "message": message})


def refused_token(form: str, *, at: datetime) -> Response:
    """Refuse a token with the v1.1 envelope, where ``success`` is "true" and the code is text (samples)."""
    layer, _, code = form.partition("_")
    stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}{at:%z}"
    message = "Unauthorized" if code == "401" else f"Token expired at {stamp}"
    envelope = {"status": {"success": "true", "code": code, "message": message}, "customers": None}
    return make_response(int(code) if layer == "http" else 200, {"response": envelope})
