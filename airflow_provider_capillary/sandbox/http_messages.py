# SPDX-License-Identifier: Apache-2.0
"""HTTP requests and responses: bodies that are read while they are sent, Capillary's JSON envelopes."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from email.message import Message

#: Names under which requests are counted, and which a fault can be tied to.
ENDPOINTS = ("token", "status", "upload", "download", "files", "other")
#: Longest JSON body that is read, in bytes.
MAX_JSON_BYTES = 1024 * 1024
#: Forms in which a token can be refused. The v1.1 API has the code in the body (documented); the form of
#: `/coupon/...` is unknown, so a client has to understand all of them.
REFUSALS = ("http_401", "http_498", "body_401", "body_498")
#: Ways in which uploads can be authorized: which of them Capillary takes is unclear.
UPLOAD_AUTHS = ("any", "oauth", "bearer")

#: Bodies are sent, and forms read, in chunks of at most this many bytes.
CHUNK_BYTES = 256 * 1024
#: Larger bodies are buffered in a temporary file instead of memory.
MAX_MEMORY_BYTES = 1024 * 1024


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
    headers: Message
    body: IO[bytes]
    peer: str

    def json_object(self, *, any_type: bool = False) -> dict[str, Any]:
        """Return the body as a JSON object, which need not be declared as JSON if ``any_type``."""
        if self.headers.get_content_type() != "application/json" and not any_type:
            raise RequestError("Unsupported Media Type", status=415)
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
    :param headers: mapping whose keys are case-insensitive; ``get_all`` returns every value of a repeated header
    :param endpoint: ``token``, ``status``, ``upload``, ``download``, ``files`` or ``other``
    :param body: the body if it is at most 64 KiB, else ``b""``
    :param body_size: length of the body in bytes
    :param at: when it began, in monotonic seconds
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: Message = field(repr=False)
    endpoint: str
    body: bytes = field(repr=False)
    body_size: int
    at: float


@dataclass(frozen=True)
class Body:
    """``size`` bytes of a source from ``start`` on, read only while they are sent."""

    source: bytes | Path = field(default=b"", repr=False)
    start: int = 0
    size: int = 0

    @classmethod
    def of(cls, source: bytes | Path) -> Body:
        """Make a body of bytes or of a file."""
        return cls(source, size=source.stat().st_size if isinstance(source, Path) else len(source))

    def part(self, start: int, size: int) -> Body:
        """Return ``size`` bytes from ``start`` on."""
        return replace(self, start=self.start + start, size=size)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the bytes; fewer than ``size`` if the file has become shorter meanwhile."""
        left = self.size
        with self.source.open("rb") if isinstance(self.source, Path) else io.BytesIO(self.source) as file:
            file.seek(self.start)
            while left and (data := file.read(min(chunk_bytes, left))):
                left -= len(data)
                yield data

    def gzipped(self) -> Body:
        """Return the compressed bytes."""
        compressor = zlib.compressobj(wbits=31)
        return Body.of(b"".join(map(compressor.compress, self.chunks())) + compressor.flush())


@dataclass(frozen=True)
class Response:
    """A response without the headers that frame its body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=Body)

    @classmethod
    def of(cls, status: int, content: Any, content_type: str | None = None) -> Response:
        """Make a response of bytes, text or anything that JSON can hold."""
        if isinstance(content, bytes):
            default, body = "application/octet-stream", content
        elif isinstance(content, str):
            default, body = "text/plain; charset=utf-8", content.encode(errors="replace")
        else:
            default, body = "application/json", json.dumps(content).encode()
        return cls(status, {"Content-Type": content_type or default}, Body.of(body))

    @classmethod
    def html(cls, status: int, content: Any = None) -> Response:
        """Make a response of the edge in front of the API: HTML, no envelope."""
        page = f"<!DOCTYPE html>\n<html><title>{status}</title><body><h1>Error {status}</h1></body></html>\n"
        return cls.of(status, page if content is None else content, "text/html; charset=UTF-8")

    @classmethod
    def refused_token(cls, form: str, *, at: datetime) -> Response:
        """Refuse a token with the v1.1 envelope, where ``success`` is "true" and the code is text (samples)."""
        layer, _, code = form.partition("_")
        stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}{at:%z}"
        message = "Unauthorized" if code == "401" else f"Token expired at {stamp}"
        envelope = {"status": {"success": "true", "code": code, "message": message}, "customers": None}
        return cls.of(int(code) if layer == "http" else 200, {"response": envelope})
