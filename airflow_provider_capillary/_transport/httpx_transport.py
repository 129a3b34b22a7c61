# SPDX-License-Identifier: Apache-2.0
"""Runs flows over ``httpx``, in the triggerer."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from airflow_provider_capillary import _metrics
from airflow_provider_capillary._airflow_compat import run_in_thread
from airflow_provider_capillary._transport import common
from airflow_provider_capillary._transport.environment import Environment, load_certificates
from airflow_provider_capillary._transport.forking import PerProcess
from airflow_provider_capillary._transport.turns import Turns
from airflow_provider_capillary.api.flow import AwaitToken, MaskSecret, Measure, SendRequest, Sleep
from airflow_provider_capillary.api.http_messages import Response, TransportFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from airflow_provider_capillary._transport.environment import Proxy
    from airflow_provider_capillary.api.flow import Flow, Step
    from airflow_provider_capillary.api.http_messages import ApiRequest
    from airflow_provider_capillary.api.settings import ConnectionSettings

T = TypeVar("T")

#: Polls send the same URLs again and again, and parsing one takes 5 % of the CPU that a poll takes.
_parse_url = lru_cache(maxsize=256)(httpx.URL)

#: Responses with more bytes than this are parsed in a thread.
_LARGE_BODY = 64 << 10
#: Those that a request has itself replace them. Any httpx decompresses these two.
_DEFAULT_HEADERS = httpx.Headers({"User-Agent": common.USER_AGENT, "Accept-Encoding": "gzip, deflate"})
#: Those of httpx, but an idle connection lasts until the polls of the next slot: a new one over TLS costs more than the
#: poll. Servers and load balancers close theirs after 60 seconds and more.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30.0)
#: Text of the httpx error for a proxy that refused to connect.
_REFUSED_TUNNEL = re.compile(r"([1-5]\d{2})\b", re.ASCII)


class HttpxTransport:
    """Runs flows over pooled connections. Create it with :meth:`open` and end it with :meth:`close`.

    Sends requests with the transports of httpx, without its client: redirects, cookies and the client's defaults have
    no use here, and take a quarter of the CPU that a poll takes.

    :param settings: The connection.
    :param environment: Proxies and certificates.
    :param context: The SSL context. Shared, because another one for each proxy would take 18 ms.
    :param mask: Masks a secret in logs.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        environment: Environment,
        context: ssl.SSLContext,
        *,
        mask: Callable[[str], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._context = context
        self._mask = mask
        self._transports: dict[Proxy | None, httpx.AsyncHTTPTransport] = {}
        self._turns = Turns()

    @classmethod
    async def open(cls, settings: ConnectionSettings, *, mask: Callable[[str], Awaitable[None]]) -> HttpxTransport:
        """Return a transport for a connection. The first request connects.

        :param settings: The connection.
        :param mask: Masks a secret in logs.
        :raises CapillaryConfigurationError: The certificates or the proxy of the connection cannot be used.
        """
        # Read certificates, which takes milliseconds, in a thread, and once for all clients.
        await _metrics.prepare()
        environment, context = await asyncio.to_thread(_read_environment, settings)
        return cls(settings, environment, context, mask=mask)

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow and return its result.

        :param flow: A flow that emits no chunks.
        :raises CapillaryError: The flow ended in this error.
        """
        got: Any = None
        reading: asyncio.Future[Step | _End] | None = None
        try:
            while True:
                if isinstance(got, Response) and len(got.body) > _LARGE_BODY:
                    # Parsing the jobs of years would block everything else on the event loop.
                    reading = asyncio.get_running_loop().run_in_executor(None, _advance, flow, got)
                    step = await asyncio.shield(reading)
                else:
                    step = _advance(flow, got)
                if isinstance(step, _End):
                    result: T = step.value
                    return result
                got = None
                if isinstance(step, SendRequest):
                    got = await self._send(step.request)
                elif isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, AwaitToken):
                    got = await asyncio.wrap_future(step.future)
                elif isinstance(step, MaskSecret):
                    await self._mask(step.secret)
                elif isinstance(step, Measure):
                    _metrics.measure(step, self._settings.conn_id)
                else:
                    raise TypeError(f"{type(step).__name__} is for files, which are read on a worker")
        finally:
            if reading is None or reading.done():
                flow.close()
            else:
                # Cancelled while a thread runs the generator: close it only after that thread has finished.
                reading.add_done_callback(lambda _: flow.close())

    async def close(self) -> None:
        """Close all sockets."""
        for transport in self._transports.values():
            await transport.aclose()

    async def _send(self, request: ApiRequest) -> Response | TransportFailure:
        proxy = self._environment.proxy_for(request.url)
        try:
            async with (
                self._turns.turn(),
                asyncio.timeout(common.overall_seconds(self._settings, request)),
                _body_of(request) as (body, more),
            ):
                connect, read = common.connect_and_read_seconds(self._settings, request)
                timeouts = {"connect": connect, "read": read, "write": connect, "pool": connect}
                headers = _DEFAULT_HEADERS.copy()
                headers.update({**request.headers, **more})
                response = await self._transport(proxy).handle_async_request(
                    httpx.Request(
                        request.method,
                        _parse_url(request.url),
                        headers=headers,
                        content=body,
                        extensions={"timeout": timeouts},
                    )
                )
                try:
                    await response.aread()
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            return _failure(error, self._settings, proxy)
        return Response(
            response.status_code,
            {name.lower(): value for name, value in response.headers.items()},
            response.content,
        )

    def _transport(self, proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
        """Return the transport, with its connections, for requests through a proxy; None for direct ones."""
        if proxy not in self._transports:
            # Another proxy may be named for the host of a token or a file.
            self._transports[proxy] = httpx.AsyncHTTPTransport(
                verify=self._context,
                trust_env=False,
                proxy=None if proxy is None else self._to_httpx(proxy),
                limits=_LIMITS,
            )
        return self._transports[proxy]

    def _to_httpx(self, proxy: Proxy) -> httpx.Proxy:
        return httpx.Proxy(proxy.url, ssl_context=self._context if proxy.scheme == "https" else None)


@asynccontextmanager
async def _body_of(request: ApiRequest) -> AsyncIterator[tuple[Any, dict[str, str]]]:
    """Open the body of a request. Yield it with the headers that describe it."""
    if request.form is None:
        yield request.body, {}
        return
    from airflow_provider_capillary._transport.multipart import encode_form

    form = encode_form(request.form)
    # Opening and reading a file may block, and may ask Airflow for the connection of its store.
    encoder = await run_in_thread(form.__enter__)

    async def blocks() -> AsyncIterator[bytes]:
        while block := await run_in_thread(encoder.read, common.SEND_BYTES):
            yield block

    try:
        yield blocks(), {"Content-Type": encoder.content_type, "Content-Length": str(encoder.len)}
    finally:
        await run_in_thread(form.__exit__, None, None, None)


@dataclass(frozen=True)
class _End:
    """The result of a flow. A StopIteration cannot leave a thread."""

    value: Any


def _advance(flow: Flow[Any], got: Any) -> Step | _End:
    try:
        return flow.send(got)
    except StopIteration as stop:
        return _End(stop.value)


_contexts: dict[tuple[bool | str, int], ssl.SSLContext] = {}
_contexts_lock = PerProcess(threading.Lock)


def _read_environment(settings: ConnectionSettings) -> tuple[Environment, ssl.SSLContext]:
    environment = Environment(settings, socks_module="socksio")
    return environment, _ssl_context(environment.trusted)


def _ssl_context(trusted: bool | str) -> ssl.SSLContext:
    """Return the SSL context that clients with the same trusted certificates share.

    :param trusted: See :func:`~airflow_provider_capillary._transport.environment.trusted_certificates`.
    """
    with _contexts_lock.value:
        # A bundle may be replaced while a triggerer runs.
        key = trusted, 0 if isinstance(trusted, bool) else Path(trusted).stat().st_mtime_ns
        context = _contexts.get(key)
        if context is None:
            if isinstance(trusted, bool):
                # Ignore the environment: httpx reads other variables than requests.
                context = httpx.create_ssl_context(verify=trusted, trust_env=False)
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                load_certificates(context, trusted)
            _contexts[key] = context
        return context


def _failure(error: Exception, settings: ConnectionSettings, proxy: Proxy | None) -> TransportFailure:
    """Translate an error of httpx. Its text is left out, because it may quote the URL."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return common.timed_out(settings, proxy)
    if isinstance(error, httpx.ConnectError):
        text = str(error)
        if _is_caused_by(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
            return common.untrusted(proxy)
        if _is_caused_by(error, ssl.SSLError):
            return common.no_handshake(proxy)
        # httpx keeps only the text of the resolver's error.
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
        return common.unresolved(proxy) if is_unresolved else common.unreachable(proxy)
    if isinstance(error, httpx.ProxyError):
        answer = _REFUSED_TUNNEL.match(str(error))
        return common.proxy_refused(proxy, None if answer is None else int(answer[1]))
    if isinstance(error, httpx.DecodingError):
        return common.UNDECODABLE
    if isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.UnsupportedProtocol | httpx.LocalProtocolError
    ):
        return common.broke_off(proxy)
    return common.not_sendable(error)


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
