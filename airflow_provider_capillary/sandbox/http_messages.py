# SPDX-License-Identifier: Apache-2.0
"""HTTP requests and responses: bodies that are read while they are sent, Capillary's JSON envelopes."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from email.message import Message

#: Names under which requests are counted, and which a fault can be tied to.
ENDPOINTS = ("token", "status", "upload", "download", "files", "other")
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
        try:
            value = json.load(self.body)
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


def size_of(source: bytes | Path) -> int:
    """Return the number of bytes of bytes or of a file."""
    return source.stat().st_size if isinstance(source, Path) else len(source)


@dataclass(frozen=True)
class Response:
    """A response without the headers that frame its body.

    :param source: bytes, or a file that is read only while it is sent
    :param part: the positions in it that make the body; None: all
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    source: bytes | Path = field(default=b"", repr=False)
    part: range | None = None

    @property
    def size(self) -> int:
        """Length of the body in bytes."""
        return size_of(self.source) if self.part is None else len(self.part)

    def chunks(self, left: int, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield the first ``left`` bytes of the body; fewer if the file has become shorter meanwhile."""
        with self.source.open("rb") if isinstance(self.source, Path) else io.BytesIO(self.source) as file:
            file.seek(self.part.start if self.part else 0)
            while left and (data := file.read(min(chunk_bytes, CHUNK_BYTES, left))):
                left -= len(data)
                yield data

    def gzipped(self) -> Response:
        """Return the response with a compressed body."""
        compressor = zlib.compressobj(wbits=31)
        body = b"".join(map(compressor.compress, self.chunks(self.size))) + compressor.flush()
        return Response(self.status, self.headers | {"Content-Encoding": "gzip"}, body)

    @classmethod
    def of(cls, status: int, content: Any, content_type: str | None = None) -> Response:
        """Make a response of bytes, text or anything that JSON can hold."""
        if isinstance(content, bytes):
            default, body = "application/octet-stream", content
        elif isinstance(content, str):
            default, body = "text/plain; charset=utf-8", content.encode(errors="replace")
        else:
            default, body = "application/json", json.dumps(content).encode()
        return cls(status, {"Content-Type": content_type or default}, body)

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
