# SPDX-License-Identifier: Apache-2.0
"""The steps of a flow: a generator that yields each step and receives its result.

A transport carries the steps out: ``requests`` on a worker, ``httpcore`` in the triggerer. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import hashlib
    from concurrent.futures import Future

    from airflow_provider_capillary.api.errors import CapillaryError
    from airflow_provider_capillary.api.http_messages import ApiRequest, Response
    from airflow_provider_capillary.api.tokens import Token


@dataclass(frozen=True)
class SendRequest:
    """Send a request. Result: a :class:`Response`, or a :class:`TransportFailure` where none arrived whole."""

    request: ApiRequest


@dataclass(frozen=True)
class Sleep:
    """Sleep for ``seconds``. Result: None."""

    seconds: float


@dataclass(frozen=True)
class AwaitToken:
    """Wait for the token that another flow fetches. Result: that of the future."""

    future: Future[Token | CapillaryError | None]


@dataclass(frozen=True)
class MaskSecret:
    """Mask a new secret in the logs from now on. Result: None."""

    secret: str

    def __repr__(self) -> str:
        return "MaskSecret(***)"


@dataclass(frozen=True)
class ReadBody:
    """Read more of a streamed body. Result: bytes, empty at the end, or a :class:`TransportFailure`."""

    response: Response


@dataclass(frozen=True)
class EmitChunk:
    """Pass a piece of the file to the caller. Result: None.

    :param total: Size of the whole file in bytes, if the server states it.
    :param digest: SHA-256 of what was emitted so far, kept up to date, so that nobody hashes the file again. None if
        the flow does not hash what it emits, because the file came compressed.
    """

    data: bytes = field(repr=False)
    total: int | None = None
    digest: hashlib._Hash | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Measure:
    """Count or time something, for metrics. Result: None.

    :param metric: Name of the metric.
    :param seconds: How long it took; None to count it.
    :param upload_kind: Name of the kind of upload, where it belongs to one.
    """

    metric: Literal["rate_limited", "request_delay", "token_fetches", "upload_jobs"]
    seconds: float | None = None
    upload_kind: str | None = None


Step = SendRequest | Sleep | AwaitToken | MaskSecret | ReadBody | EmitChunk | Measure
T = TypeVar("T")
#: A generator of steps that returns a ``T`` or raises :class:`CapillaryError`.
Flow = Generator[Step, Any, T]
