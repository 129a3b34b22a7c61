# SPDX-License-Identifier: Apache-2.0
"""Carries the steps of an exchange out with ``httpx``: the side that runs in the triggerer."""

from __future__ import annotations

import asyncio
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from airflow_provider_capillary.api.exchange import Join, Mask, Send, Wait
from airflow_provider_capillary.api.messages import Answer, Fault
from airflow_provider_capillary.hooks import driving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_capillary.api.exchange import Exchange, Step
    from airflow_provider_capillary.api.messages import ApiRequest
    from airflow_provider_capillary.api.settings import ConnectionSettings

T = TypeVar("T")

#: Answers of more bytes than this are read in a thread.
_LARGE_BODY = 64 << 10


class HttpxDriver:
    """Runs exchanges over a pooled client. Make it with :meth:`open`, end it with :meth:`close`.

    :param settings: The connection.
    :param client: The client.
    :param mask: Keeps a secret out of the logs.
    """

    def __init__(
        self, settings: ConnectionSettings, client: httpx.AsyncClient, *, mask: Callable[[str], Awaitable[None]]
    ) -> None:
        self._settings = settings
        self._client = client
        self._mask = mask

    @classmethod
    async def open(cls, settings: ConnectionSettings, *, mask: Callable[[str], Awaitable[None]]) -> HttpxDriver:
        """Return a driver for a connection; opens no connection yet.

        :param settings: The connection.
        :param mask: Keeps a secret out of the logs.
        :raises CapillarySettingsError: The CA bundle of the connection is not there.
        """
        # Reading certificates takes milliseconds from the disk: not on the loop, and once for all clients.
        verify = await asyncio.to_thread(_ssl_context, settings)
        client = httpx.AsyncClient(
            verify=verify,
            timeout=settings.timeout_seconds,
            headers={"User-Agent": driving.USER_AGENT},
            follow_redirects=False,
        )
        return cls(settings, client, mask=mask)

    async def run(self, exchange: Exchange[T]) -> T:
        """Carry an exchange out and return what it ends in.

        :param exchange: A conversation that streams nothing.
        :raises CapillaryError: The conversation ended in this.
        """
        got: Any = None
        reading: asyncio.Future[Step | _End] | None = None
        try:
            while True:
                if isinstance(got, Answer) and len(got.body) > _LARGE_BODY:
                    # Reading the history of years takes long enough to hold up everything else on the loop.
                    reading = asyncio.get_running_loop().run_in_executor(None, _advance, exchange, got)
                    step = await asyncio.shield(reading)
                else:
                    step = _advance(exchange, got)
                if isinstance(step, _End):
                    result: T = step.value
                    return result
                got = None
                if isinstance(step, Send):
                    got = await self._send(step.request)
                elif isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, Join):
                    got = await asyncio.wrap_future(step.future)
                elif isinstance(step, Mask):
                    await self._mask(step.secret)
                else:
                    raise TypeError(f"{type(step).__name__} is for files, which are read on a worker")
        finally:
            if reading is None or reading.done():
                exchange.close()
            else:
                # Cancelled meanwhile. A thread cannot be stopped, and until it is through nobody else may end this.
                reading.add_done_callback(lambda _: exchange.close())

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _send(self, request: ApiRequest) -> Answer | Fault:
        try:
            async with asyncio.timeout(driving.OVERALL_TIMEOUTS * self._settings.timeout_seconds):
                response = await self._client.request(
                    request.method, request.url, headers=dict(request.headers), content=request.body
                )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            return _fault(error, self._settings)
        return Answer(
            response.status_code,
            {name.lower(): value for name, value in response.headers.items()},
            response.content,
        )


@dataclass(frozen=True)
class _End:
    """What an exchange ended in. A StopIteration cannot leave a thread."""

    value: Any


def _advance(exchange: Exchange[Any], got: Any) -> Step | _End:
    try:
        return exchange.send(got)
    except StopIteration as stop:
        return _End(stop.value)


_contexts: dict[tuple[bool | str, int], ssl.SSLContext] = {}
_contexts_lock = threading.Lock()


def _ssl_context(settings: ConnectionSettings) -> ssl.SSLContext:
    """Return the SSL context that all clients which trust the same certificates share."""
    with _contexts_lock:
        trusted = driving.trusted_certificates(settings)
        # A triggerer lives long enough to see a bundle replaced.
        key = trusted, 0 if isinstance(trusted, bool) else Path(trusted).stat().st_mtime_ns
        context = _contexts.get(key)
        if context is None:
            if isinstance(trusted, bool):
                context = httpx.create_ssl_context(verify=trusted)
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                driving.load_certificates(context, trusted)
            _contexts[key] = context
        return context


def _fault(error: Exception, settings: ConnectionSettings) -> Fault:
    """Say in plain words what happened. The text of the exception is left out: it may quote the URL."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return driving.timed_out(settings)
    if isinstance(error, httpx.ConnectError):
        text = str(error)
        if _is_caused_by(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
            return driving.UNTRUSTED
        if _is_caused_by(error, ssl.SSLError):
            return driving.NO_HANDSHAKE
        # httpx keeps only the text of what the resolver said.
        is_unresolved = any(
            words in text
            for words in (
                "Name or service not known",
                "Temporary failure in name",
                "getaddrinfo",
                "nodename nor servname",
                "No address associated",
            )
        )
        return driving.UNRESOLVED if is_unresolved else driving.UNREACHABLE
    if isinstance(error, httpx.ProxyError):
        return driving.PROXY_REFUSED
    if isinstance(error, httpx.DecodingError):
        return driving.UNDECODABLE
    if isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol | httpx.LocalProtocolError
    ):
        return driving.BROKE_OFF
    return driving.not_sendable(error)


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
