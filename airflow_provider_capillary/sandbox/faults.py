# SPDX-License-Identifier: Apache-2.0
"""Faults: what can go wrong between a client and the API, to order."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from airflow_provider_capillary.sandbox.answers import ENDPOINTS, REFUSALS
from airflow_provider_capillary.sandbox.fields import (
    FieldError,
    check_names,
    header_value,
    number,
    one_of,
    text,
    whole_number,
)

#: Kinds that let the endpoint do its work, and spoil the way its answer travels.
TRANSPORT_KINDS = frozenset({"cut", "unmarked", "slow", "drip", "gzip", "wrong_length"})
#: Kinds that put another answer, or none, in the place of the endpoint's.
ANSWER_KINDS = frozenset({"status", "reset", "html", "expired_token", "redirect", "empty", "text", "body"})

_HEADER_NAME = re.compile(r"[\w-]+", re.ASCII)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with the next requests.

    ============= ==========================================================================================
    kind          what the client sees
    ============= ==========================================================================================
    status        HTTP ``status`` with ``body``, by default ``{}``
    body          HTTP ``status`` with ``body``: an object as JSON, text as text/plain
    text          HTTP 200 text/plain with ``body``, by default ``OK``
    html          HTTP ``status`` with an HTML page, as the edge in front of the API sends it
    empty         HTTP 200 without a body
    redirect      HTTP 302 (or ``status``, if that is a 3xx) to ``location``
    expired_token the token refused as expired, in the form ``form``
    reset         the connection reset before any answer
    cut           the real answer, broken off after ``fraction`` of its body: shorter than its Content-Length,
                  or, with ``content_length`` false, chunked and without the last chunk; with ``rst`` by a
                  reset, which may overtake the last bytes
    unmarked      ``fraction`` of the real answer, its end marked by nothing but the end of the connection
    wrong_length  the whole real answer, announced as longer than it is
    slow          the real answer, begun ``seconds`` after the endpoint has done its work
    drip          the real answer in small pieces, spread over ``seconds``
    gzip          the real answer, compressed
    ============= ==========================================================================================

    ``headers`` and ``retry_after`` are added to whatever is answered.

    :param kind: one of the table
    :param endpoint: ``token``, ``status``, ``upload``, ``download``, ``files``, ``other``, or ``any`` of them
    :param times: how many requests it meets; None: all, until the faults are cleared
    :param skip: how many matching requests it lets pass first; those that an earlier fault takes do not count
    :param status: HTTP status
    :param seconds: how long ``slow`` and ``drip`` take, in seconds, at most a day
    :param fraction: part of the body that ``cut`` and ``unmarked`` send, from 0.0 (only headers) to 1.0
    :param content_length: whether ``cut`` announces the length of the whole body
    :param rst: whether ``cut`` ends by a reset
    :param retry_after: value of a Retry-After header: seconds, or any text
    :param body: JSON-ready object, text or bytes
    :param headers: further headers; they replace those of the same name
    :param location: where ``redirect`` leads
    :param form: how ``expired_token`` refuses, one of the sandbox's ``refusal`` forms; None: the
        sandbox's own
    :param processed: for the kinds that replace the answer: whether the endpoint does its work first, so that
        an upload makes its job and only the answer is lost
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
    body: Any = dataclasses.field(default=None, repr=False)
    headers: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)
    location: str | None = dataclasses.field(default=None, repr=False)
    form: str | None = None
    processed: bool = False

    def __post_init__(self) -> None:
        one_of("kind", self.kind, sorted(TRANSPORT_KINDS | ANSWER_KINDS))
        one_of("endpoint", self.endpoint, ("any", *ENDPOINTS))
        if self.times is not None:
            whole_number("times", self.times, least=1)
        whole_number("skip", self.skip)
        # 1xx would not end the exchange.
        whole_number("status", self.status, least=200, most=599)
        number("seconds", self.seconds, most=86_400.0)
        number("fraction", self.fraction, most=1.0)
        for name in ("content_length", "rst", "processed"):
            if not isinstance(getattr(self, name), bool):
                raise FieldError(name, "must be true or false")
        if isinstance(self.retry_after, str):
            header_value("retry_after", self.retry_after)
        elif self.retry_after is not None:
            number("retry_after", self.retry_after, least=float("-inf"))
        if not isinstance(self.body, bytes):
            try:
                json.dumps(self.body)
            except (TypeError, ValueError):
                raise FieldError("body", "must be bytes, text or something that JSON can hold") from None
        if self.headers is not None:
            if not isinstance(self.headers, Mapping):
                raise FieldError("headers", "must map names to values")
            for name, value in self.headers.items():
                if not _HEADER_NAME.fullmatch(text("headers", name)):
                    raise FieldError("headers", "names must be letters, digits, hyphens or underscores")
                header_value("headers", value)
        if self.kind == "redirect" and self.location is None:
            raise FieldError("location", "is needed for a redirect")
        if self.location is not None:
            header_value("location", self.location)
        if self.form is not None:
            one_of("form", self.form, REFUSALS)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fault:
        """Make a fault of a JSON object.

        :param values: the parameters by name
        :raises ValueError: if a name is unknown, ``kind`` is missing or a value cannot be used
        """
        check_names(values, known=[item.name for item in dataclasses.fields(cls)], needed="kind")
        return cls(**values)

    def extra_headers(self) -> dict[str, str]:
        """Return the headers that the fault adds to an answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | dict(self.headers or {})


@dataclass(eq=False)
class _Pending:
    fault: Fault
    skip: int
    times: int | None


class FaultBook:
    """The faults to come; the first that fits takes the request. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_Pending] = []

    def add(self, fault: Fault) -> None:
        """Put a fault behind those already there."""
        with self._lock:
            self._pending.append(_Pending(fault, fault.skip, fault.times))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._pending.clear()

    def take(self, endpoint: str) -> Fault | None:
        """Return the fault that a request to ``endpoint`` meets, and count it."""
        with self._lock:
            for pending in self._pending:
                if pending.fault.endpoint not in ("any", endpoint):
                    continue
                if pending.skip:
                    pending.skip -= 1
                    continue
                if pending.times is not None:
                    pending.times -= 1
                    if not pending.times:
                        self._pending.remove(pending)
                return pending.fault
            return None

    def pending(self) -> list[dict[str, Any]]:
        """Describe the faults to come, with what is left of their ``skip`` and ``times``."""
        with self._lock:
            return [
                {"kind": p.fault.kind, "endpoint": p.fault.endpoint, "skip": p.skip, "times": p.times}
                for p in self._pending
            ]
