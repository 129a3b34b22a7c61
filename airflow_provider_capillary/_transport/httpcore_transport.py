# SPDX-License-Identifier: Apache-2.0
"""Runs flows over ``httpcore``, the transport of httpx, in the triggerer."""

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

import httpcore
import httpx

from airflow_provider_capillary import _metrics
from airflow_provider_capillary._airflow_compat import run_in_thread
from airflow_provider_capillary._transport import common
from airflow_provider_capillary._transport.environment import Environment, load_certificates
from airflow_provider_capillary._transport.forking import PerProcess
from airflow_provider_capillary._transport.turns import Turns
from airflow_provider_capillary.api.flow import AwaitToken, MaskSecret, Measure, SendRequest, Sleep
from airflow_provider_capillary.api.http_messages import Response, TransportFailure, merge_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from airflow_provider_capillary._transport.environment import Proxy
    from airflow_provider_capillary.api.flow import Flow, Step
    from airflow_provider_capillary.api.http_messages import ApiRequest
    from airflow_provider_capillary.api.settings import ConnectionSettings

T = TypeVar("T")

#: Responses with more bytes than this are parsed in a thread.
_LARGE_BODY = 64 << 10
#: Those that a request has itself replace them. Any httpx decompresses these two.
_DEFAULT_HEADERS = {"User-Agent": common.USER_AGENT, "Accept-Encoding": "gzip, deflate"}
#: Limits of each pool. An idle connection lasts until the polls of the next slot: a new one over TLS costs more than
#: the poll. Servers and load balancers close theirs after 60 seconds and more.
_LIMITS: dict[str, Any] = {"max_connections": 100, "max_keepalive_connections": 20, "keepalive_expiry": 30.0}
#: All that sending a request raises. Those of httpcore have no class in common.
_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpx.DecodingError,
    httpx.InvalidURL,
    TimeoutError,
    OSError,
)
#: Text of the httpcore error for a proxy that refused to connect.
_REFUSED_TUNNEL = re.compile(r"([1-5]\d{2})\b", re.ASCII)


class HttpcoreTransport:
    """Runs flows over pooled connections. Create it with :meth:`open` and end it with :meth:`close`.

    Sends requests with the pools of httpcore, without httpx around them: its client would take a quarter of the CPU of
    a poll, for redirects and cookies that have no use here, and its requests and responses about a tenth.

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
        self._pools: dict[Proxy | None, httpcore.AsyncConnectionPool] = {}
        self._turns = Turns()

    @classmethod
    async def open(cls, settings: ConnectionSettings, *, mask: Callable[[str], Awaitable[None]]) -> HttpcoreTransport:
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
        for pool in self._pools.values():
            await pool.aclose()

    async def _send(self, request: ApiRequest) -> Response | TransportFailure:
        proxy = self._environment.proxy_for(request.url)
        try:
            async with (
                self._turns.turn(),
                asyncio.timeout(common.overall_seconds(self._settings, request)),
                _body_of(request) as (body, more),
            ):
                url, host = _parse_url(request.url)
                headers = merge_headers({"Host": host}, _DEFAULT_HEADERS, request.headers, more)
                connect, read = common.connect_and_read_seconds(self._settings, request)
                response = await self._pool(proxy).handle_async_request(
                    httpcore.Request(
                        request.method,
                        url,
                        headers=list(headers.items()),
                        content=body,
                        extensions={"timeout": {"connect": connect, "read": read, "write": connect, "pool": connect}},
                    )
                )
                try:
                    content = await response.aread()
                finally:
                    await response.aclose()
                return _response(response.status, response.headers, content)
        except _ERRORS as error:
            return _failure(error, self._settings, proxy)

    def _pool(self, proxy: Proxy | None) -> httpcore.AsyncConnectionPool:
        """Return the connections for requests through a proxy; None for direct ones."""
        if proxy not in self._pools:
            # Another proxy may be named for the host of a token or a file.
            self._pools[proxy] = self._new_pool(proxy)
        return self._pools[proxy]

    def _new_pool(self, proxy: Proxy | None) -> httpcore.AsyncConnectionPool:
        if proxy is None:
            return httpcore.AsyncConnectionPool(ssl_context=self._context, **_LIMITS)
        # httpx takes the user name and the password out of the URL, and decodes them.
        parsed = httpx.Proxy(proxy.url)
        address, _ = _parse_url(str(parsed.url))
        auth = parsed.raw_auth
        if proxy.scheme in ("http", "https"):
            return httpcore.AsyncHTTPProxy(
                address,
                proxy_auth=auth,
                ssl_context=self._context,
                proxy_ssl_context=self._context if proxy.scheme == "https" else None,
                **_LIMITS,
            )
        return httpcore.AsyncSOCKSProxy(address, proxy_auth=auth, ssl_context=self._context, **_LIMITS)


@lru_cache(maxsize=256)
def _parse_url(url: str) -> tuple[httpcore.URL, str]:
    """Return a URL in the form that is sent, and the Host header for it.

    Polls send the same URLs again and again, and parsing one takes 5 % of the CPU that a poll takes.

    :raises httpx.InvalidURL: It cannot be sent.
    """
    parsed = httpx.URL(url)
    sent = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
    return sent, parsed.netloc.decode("ascii")


def _response(status: int, raw_headers: list[tuple[bytes, bytes]], content: bytes) -> Response:
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw_headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "content-encoding" in headers:
        content = httpx.Response(status, headers=raw_headers, content=content).content
    return Response(status, headers, content)


@asynccontextmanager
async def _body_of(request: ApiRequest) -> AsyncIterator[tuple[Any, dict[str, str]]]:
    """Open the body of a request. Yield it with the headers that describe it."""
    if request.form is None:
        yield request.body, {} if request.body is None else {"Content-Length": str(len(request.body))}
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
    """Translate an error of httpcore or httpx. Its text is left out, because it may quote the URL."""
    if isinstance(error, httpcore.TimeoutException | TimeoutError):
        return common.timed_out(settings, proxy)
    if isinstance(error, httpcore.ConnectError):
        text = str(error)
        if _is_caused_by(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
            return common.untrusted(proxy)
        if _is_caused_by(error, ssl.SSLError):
            return common.no_handshake(proxy)
        # anyio keeps only the text of the resolver's error.
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
    if isinstance(error, httpcore.ProxyError):
        answer = _REFUSED_TUNNEL.match(str(error))
        return common.proxy_refused(proxy, None if answer is None else int(answer[1]))
    if isinstance(error, httpx.DecodingError):
        return common.UNDECODABLE
    if isinstance(error, httpcore.NetworkError | httpcore.RemoteProtocolError):
        return common.broke_off(proxy)
    return common.not_sendable(error)


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
