# SPDX-License-Identifier: Apache-2.0
"""Faults that a test injects between a client and the API."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.sandbox.http_messages import ENDPOINTS, REFUSALS, Response
from airflow_provider_capillary.sandbox.validation import FieldError, check_choice, check_names, check_types

if TYPE_CHECKING:
    from datetime import datetime

#: Kinds that send the endpoint's own response, and change the way it travels.
TRANSPORT_KINDS = frozenset({"cut", "unmarked", "slow", "drip", "gzip", "wrong_length"})
#: Kinds that replace the endpoint's response, or send none.
REPLACING_KINDS = frozenset({"status", "reset", "html", "expired_token", "redirect", "empty", "text", "body"})

_HEADER_NAME = re.compile(r"[\w-]+", re.ASCII)
# A tab, and Latin-1 without control characters (RFC 9110, 5.5).
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True)
class Fault:
    """A fault that the next requests meet.

    ============= ==========================================================================================
    kind          effect
    ============= ==========================================================================================
    status, body  HTTP ``status`` with ``body``, by default ``{}``
    text          HTTP 200 text/plain with ``body``, by default ``OK``
    html          HTTP ``status`` with an HTML page, as the edge in front of the API sends it
    empty         HTTP 200 without a body
    redirect      HTTP 302, or ``status`` if that is a 3xx, to ``location``
    expired_token the token refused as expired, in the form ``form``
    reset         the connection reset without a response
    cut           ``fraction`` of the real body, then the connection closes: shorter than its Content-Length or,
                  with ``content_length`` false, chunked and without the last chunk. With ``rst``, a reset, which
                  may overtake the last bytes
    unmarked      ``fraction`` of the real body; only the end of the connection marks its end
    wrong_length  the whole real body, with a Content-Length that is too large
    slow          the real response, sent ``seconds`` after the endpoint has done its work
    drip          the real body in small chunks, spread over ``seconds``
    gzip          the real body, compressed
    ============= ==========================================================================================

    :param kind: one of the table
    :param endpoint: ``token``, ``status``, ``upload`` (both for redeemed coupons and for coupons), ``download``,
        ``files``, ``other``, or ``any`` of them
    :param times: number of requests it affects; None: all, until the faults are cleared
    :param skip: number of matching requests that pass first; those that an earlier fault takes do not count
    :param status: HTTP status
    :param seconds: duration of ``slow`` and ``drip`` in seconds, at most a day
    :param fraction: part of the body that ``cut`` and ``unmarked`` send, from 0.0 (headers only) to 1.0
    :param content_length: whether ``cut`` announces the length of the whole body
    :param rst: whether ``cut`` ends by a reset
    :param retry_after: value of a Retry-After header that is added to the response: seconds, or any text
    :param body: JSON-ready object, text (sent as text/plain) or bytes
    :param headers: further headers that are added; they replace those of the same name
    :param location: target of ``redirect``
    :param form: form of ``expired_token``, as ``refusal`` of the sandbox; None: the sandbox's own
    :param processed: whether the endpoint does its work before its response is replaced, so that an upload makes a
        job and only the response is lost
    :param read_body: whether the request is read before it is reset; a reset without that comes right after the
        headers, and before faults that read the request
    :param file_name: it affects uploads whose file name contains this text; ``endpoint`` must be ``upload``
    :raises ValueError: if a value cannot be used; the message names the field
    """

    kind: str
    _: KW_ONLY
    endpoint: str = "any"
    times: int | None = 1
    skip: int = 0
    status: int = 503
    seconds: float = 1.0
    fraction: float = 0.5
    content_length: bool = True
    rst: bool = False
    retry_after: float | str | None = None
    body: Any = field(default=None, repr=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    location: str | None = field(default=None, repr=False)
    form: str | None = None
    processed: bool = False
    read_body: bool = True
    file_name: str | None = None

    def __post_init__(self) -> None:
        check_types(
            Fault.__annotations__,
            vars(self),
            times=(1, math.inf),
            status=(200, 599),  # 1xx would not end the exchange
            seconds=(0, 86_400),
            fraction=(0, 1),
            retry_after=(-math.inf, math.inf),
        )
        check_choice("kind", self.kind, sorted(TRANSPORT_KINDS | REPLACING_KINDS))
        check_choice("endpoint", self.endpoint, ("any", *ENDPOINTS))
        if self.form is not None:
            check_choice("form", self.form, REFUSALS)
        if not self.read_body and (self.kind != "reset" or self.processed or self.file_name is not None):
            raise FieldError("read_body", "may be false for a reset alone, without processed and file_name")
        if self.file_name is not None and self.endpoint != "upload":
            raise FieldError("file_name", "needs upload as the endpoint")
        if self.kind == "redirect" and self.location is None:
            raise FieldError("location", "is needed for a redirect")
        if not isinstance(self.headers, Mapping | None):
            raise FieldError("headers", "must map names to values")
        headers = self.headers or {}
        if not all(type(name) is str and _HEADER_NAME.fullmatch(name) for name in headers):
            raise FieldError("headers", "names must be letters, digits, hyphens or underscores")
        texts: list[tuple[str, object]] = [("headers", value) for value in headers.values()]
        for name, text in (("location", self.location or ""), ("retry_after", str(self.retry_after)), *texts):
            if not isinstance(text, str) or not _HEADER_VALUE.fullmatch(text):
                raise FieldError(name, "must be Latin-1 text without control characters, as HTTP headers are")
        try:
            Response.of(200, self.body)
        except (TypeError, ValueError):
            raise FieldError("body", "must be bytes, text or something that JSON can hold") from None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fault:
        """Make a fault of a JSON object with its parameters by name."""
        check_names(values, cls)
        return cls(**values)

    def extra_headers(self) -> dict[str, str]:
        """Return the headers that the fault adds to a response."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | dict(self.headers or {})

    def replacement(self, *, refusal: str, now: datetime) -> Response:
        """Make the response that replaces the endpoint's; ``refusal`` is the sandbox's own form."""
        match self.kind:
            case "expired_token":
                return Response.refused_token(self.form or refusal, at=now)
            case "redirect":
                status = self.status if 300 <= self.status <= 399 else 302
                return Response(status, {"Location": self.location or ""})
            case "text":
                return Response.of(200, "OK" if self.body is None else self.body)
            case "html":
                return Response.html(self.status, self.body)
            case "status" | "body":
                return Response.of(self.status, {} if self.body is None else self.body)
            case _:  # "empty"; a "reset" sends nothing
                return Response(200)
