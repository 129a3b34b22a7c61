# SPDX-License-Identifier: Apache-2.0
"""HTTP requests and responses: JSON and forms that are received, bodies that are read while they are sent."""

from __future__ import annotations

import gzip
import io
import json
import logging
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from email.message import Message

    from python_multipart.multipart import Field, File

#: Names under which requests are counted, and which a fault can be tied to.
ENDPOINTS = ("token", "status", "upload", "download", "files", "other")
#: Forms in which a token can be refused: by the code in the body (documented of the v1.1 API), or by HTTP status.
REFUSALS = ("http_401", "http_498", "body_401", "body_498")
#: Ways in which uploads can be authorized: which of them Capillary takes is unclear.
UPLOAD_AUTHS = ("any", "oauth", "bearer")

CHUNK_BYTES = 256 * 1024  # bodies are sent, and forms read, in chunks of at most this size

# Its warnings about malformed forms must not reach stderr, unless the application configures logging.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())


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
    """A response without the headers that frame its body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    source: bytes | Path = field(default=b"", repr=False)  # a file is read only while it is sent
    part: range | None = None  # the positions in the source that make the body; None: all

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
        body = gzip.compress(b"".join(self.chunks(self.size)))
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


def uploaded_file_name(request: Request) -> str:
    """Return the name of the file in an upload, "" if the form cannot be read."""
    with suppress(RequestError), ExitStack() as stack:
        file = read_form(request.headers, request.body, stack).get("file")
        return (getattr(file, "file_name", None) or b"").decode("utf-8", "replace")
    return ""


def read_form(headers: Message, body: IO[bytes], stack: ExitStack) -> dict[str, bytes | File]:
    """Return the parts of multipart/form-data (RFC 7578) by name; ``stack`` closes their temporary files."""
    try:
        # Only uploads need it, and not every Airflow brings it.
        from python_multipart.exceptions import FormParserError
        from python_multipart.multipart import File, FormParser
    except ImportError:
        remedy = "pip install 'airflow-provider-capillary[sandbox]'"
        raise RequestError(f"uploads to the sandbox need python-multipart: {remedy}", status=501) from None
    boundary = headers.get_boundary()
    if not boundary or headers.get_content_type() != "multipart/form-data":
        raise RequestError("the content type must be multipart/form-data with a boundary")
    malformed = RequestError("the form is malformed: each part needs a boundary, headers and a name")
    parts: dict[str, bytes | File] = {}
    complete = threading.Event()

    def add(part: Field | File) -> None:
        stack.callback(part.close)
        if part.field_name is None:
            raise malformed
        name = part.field_name.decode("utf-8", "replace")
        if name in parts:
            raise RequestError(f"part {name} is there twice")
        if isinstance(part, File):
            part.file_object.seek(0)
        parts[name] = part if isinstance(part, File) else part.value or b""

    try:
        parser = FormParser("multipart/form-data", add, add, complete.set, boundary)
        body.seek(0)
        while not complete.is_set() and (data := body.read(CHUNK_BYTES)):
            parser.write(data)
    except FormParserError:
        raise malformed from None  # its message quotes the body
    if not complete.is_set():
        raise RequestError("the form does not end with its closing boundary")
    return parts
