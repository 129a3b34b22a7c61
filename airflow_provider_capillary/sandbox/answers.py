# SPDX-License-Identifier: Apache-2.0
"""Answers: their bodies, and the envelopes that Capillary puts around them."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

#: What requests are counted under, and what a fault can be tied to.
ENDPOINTS = ("token", "status", "upload", "download", "files", "other")
#: Forms in which a token can be refused: the real one is documented for the v1.1 API alone, where the code is
#: in the body; what `/coupon/...` does is unknown, so a client has to understand all of them.
REFUSALS = ("http_401", "http_498", "body_401", "body_498")

#: Bodies are sent in pieces of at most this many bytes.
PIECE = 64 * 1024
#: Beyond this many bytes, what has to be held goes to a temporary file.
SPOOL = 1024 * 1024


@dataclass(frozen=True)
class Body:
    """Bytes to send, read only while they are sent.

    :param size: how many bytes
    :param open: opens the source, which is closed after use
    :param start: where in the source the bytes begin
    """

    size: int
    open: Callable[[], IO[bytes]] = field(repr=False)
    start: int = 0

    @classmethod
    def of(cls, source: bytes | Path) -> Body:
        """Make a body of bytes or of a file.

        :raises OSError: if the file cannot be found
        """
        if isinstance(source, Path):
            return cls(source.stat().st_size, lambda: source.open("rb"))
        return cls(len(source), lambda: io.BytesIO(source))

    def part(self, start: int, size: int) -> Body:
        """Return ``size`` bytes from ``start`` on."""
        return replace(self, start=self.start + start, size=size)

    def pieces(self, piece: int = PIECE) -> Iterator[bytes]:
        """Yield the bytes; fewer than ``size`` if the file has become shorter meanwhile."""
        left = self.size
        with self.open() as source:
            source.seek(self.start)
            while left and (data := source.read(min(piece, left))):
                left -= len(data)
                yield data

    def gzipped(self) -> Body:
        """Return the body compressed, which is kept in a temporary file if it is large."""
        # Closed by whoever reads it to its end, or with the last reference.
        target = tempfile.SpooledTemporaryFile(max_size=SPOOL)  # noqa: SIM115
        with gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as packer:
            packer.writelines(self.pieces())
        return Body(target.tell(), lambda: target)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, before anything happens to it on its way.

    :param status: HTTP status
    :param headers: headers, without those that depend on how the body travels
    :param body: the body
    """

    status: int
    headers: dict[str, str]
    body: Body


def bytes_answer(status: int, content_type: str, content: bytes) -> Answer:
    """Make an answer of bytes."""
    return Answer(status, {"Content-Type": content_type}, Body.of(content))


def json_answer(status: int, value: Any) -> Answer:
    """Make an answer of something JSON can hold."""
    return bytes_answer(status, "application/json", json.dumps(value).encode())


def html_answer(status: int) -> Answer:
    """Make an answer as the edge in front of the API sends it: HTML, no envelope."""
    page = f"<!DOCTYPE html>\n<html><title>{status}</title><body><h1>Error {status}</h1></body></html>\n"
    return bytes_answer(status, "text/html; charset=UTF-8", page.encode())


def coupon_answer(result: dict[str, Any]) -> Answer:
    """Make a good answer of the coupon service (samples)."""
    return json_answer(200, {"success": True, "status": 200, "result": result})


def coupon_error(status: int, message: str) -> Answer:
    """Make an error of the coupon service.

    The envelope is that of its good answers; no sample of an error was ever published.
    """
    return json_answer(status, {"success": False, "status": status, "result": None, "message": message})


def refused_token(form: str, *, at: datetime) -> Answer:
    """Refuse a token with the v1.1 envelope, where ``success`` is "true" and the code is text (samples).

    :param form: one of :data:`REFUSALS`
    :param at: when the token expired, for the text of code 498
    """
    layer, _, code = form.partition("_")
    stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}{at:%z}"
    message = "Unauthorized" if code == "401" else f"Token expired at {stamp}"
    envelope = {"status": {"success": "true", "code": code, "message": message}, "customers": None}
    return json_answer(int(code) if layer == "http" else 200, {"response": envelope})
