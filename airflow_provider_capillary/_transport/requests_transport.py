# SPDX-License-Identifier: Apache-2.0
"""Runs flows over ``requests``, on a worker."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING, Any, TypeVar

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError, NewConnectionError

from airflow_provider_capillary import _metrics
from airflow_provider_capillary._transport import common
from airflow_provider_capillary._transport.environment import Environment
from airflow_provider_capillary._transport.response_deadline import apply_deadlines, response_deadline
from airflow_provider_capillary.api.error_files import check_peer
from airflow_provider_capillary.api.flow import AwaitToken, EmitChunk, MaskSecret, Measure, ReadBody, SendRequest, Sleep
from airflow_provider_capillary.api.http_messages import Response, TransportFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from socket import socket

    from airflow_provider_capillary._transport.environment import Proxy
    from airflow_provider_capillary.api.flow import Flow
    from airflow_provider_capillary.api.http_messages import ApiRequest
    from airflow_provider_capillary.api.settings import ConnectionSettings

T = TypeVar("T")

#: How much of a streamed body a flow gets to decide whether it is the file.
_HEAD = 64 << 10
_CHUNK = 1 << 20
#: Text of the standard library's error for a proxy that refused to connect.
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b", re.ASCII)


class RequestsTransport:
    """Runs flows over a pooled session.

    :param settings: The connection.
    :param mask: Masks a secret in logs.
    :raises CapillaryConfigurationError: The certificates or the proxy of the connection cannot be used.
    """

    def __init__(self, settings: ConnectionSettings, *, mask: Callable[[str], None]) -> None:
        self._settings = settings
        self._mask = mask
        self._environment = _environment(settings)
        self._session = make_session(settings, self._environment)
        self._file_session = make_session(settings, self._environment, is_guarded=True)
        self._session.resolves_redirects = self._file_session.resolves_redirects = False

    def run(self, flow: Flow[T]) -> T:
        """Run a flow and return its result.

        :param flow: A flow that emits no chunks.
        :raises CapillaryError: The flow ended in this error.
        """
        steps = self._steps(flow)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                result: T = stop.value
                return result

    def iterate(self, flow: Flow[None]) -> Generator[EmitChunk]:
        """Run a flow that reads a file, and yield the chunks of the file.

        :param flow: The flow.
        :raises CapillaryError: The flow ended in this error.
        """
        yield from self._steps(flow)

    def close(self) -> None:
        """Close all sockets."""
        self._session.close()
        self._file_session.close()

    def _steps(self, flow: Flow[T]) -> Any:
        got: Any = None
        streamed: requests.Response | None = None
        try:
            while True:
                try:
                    step = flow.send(got)
                except StopIteration as stop:
                    return stop.value
                got = None
                if isinstance(step, SendRequest):
                    if streamed is not None:
                        streamed.close()
                    got = self._send(step.request)
                    rest = got.rest if isinstance(got, Response) else None
                    streamed = rest if isinstance(rest, requests.Response) else None
                elif isinstance(step, ReadBody):
                    got = self._read(step.response.rest)
                elif isinstance(step, Sleep):
                    time.sleep(step.seconds)
                elif isinstance(step, AwaitToken):
                    got = step.future.result()
                elif isinstance(step, MaskSecret):
                    self._mask(step.secret)
                elif isinstance(step, Measure):
                    _metrics.measure(step, self._settings.conn_id)
                elif isinstance(step, EmitChunk):
                    yield step
        finally:
            flow.close()
            if streamed is not None:
                streamed.close()

    def _send(self, request: ApiRequest) -> Response | TransportFailure:
        is_from_outside = request.stream and not self._settings.is_api_host(request.url)
        session = self._file_session if is_from_outside else self._session
        proxy = self._environment.proxy_for(request.url)
        try:
            # A file is read as fast as it is written elsewhere, so only its headers have a deadline.
            with response_deadline(common.overall_seconds(self._settings, request)), _body_of(request) as (body, more):
                response = session.request(
                    request.method,
                    request.url,
                    headers={**request.headers, **more},
                    data=body,
                    stream=True,
                    allow_redirects=False,
                    timeout=common.connect_and_read_seconds(self._settings, request),
                )
                headers = {name.lower(): value for name, value in response.headers.items()}
                if not request.stream:
                    with response:
                        return Response(response.status_code, headers, _whole_body(response))
            return Response(response.status_code, headers, *self._head(response, proxy))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return _failure(error, self._settings, proxy)

    def _head(
        self, response: requests.Response, proxy: Proxy | None
    ) -> tuple[bytes, requests.Response | TransportFailure | None]:
        """Return the first bytes of a streamed body, and the response or failure that the rest is read from."""
        head = bytearray()
        try:
            while len(head) < _HEAD:
                chunk = response.raw.read1(_HEAD - len(head), decode_content=False)
                if not chunk:
                    response.close()
                    return bytes(head), None
                head += chunk
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            # The download can be resumed after these bytes.
            return bytes(head), _failure(error, self._settings, proxy)
        return bytes(head), response

    def _read(self, rest: requests.Response | TransportFailure) -> bytes | TransportFailure:
        if isinstance(rest, TransportFailure):
            return rest
        try:
            data: bytes = rest.raw.read1(_CHUNK, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return _failure(error, self._settings, self._environment.proxy_for(rest.url))
        return data


@contextmanager
def _body_of(request: ApiRequest) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open the body of a request. Yield it with the headers that describe it."""
    if request.form is None:
        yield request.body, {}
        return
    from airflow_provider_capillary._transport.multipart import encode_form

    with encode_form(request.form) as encoder:
        yield encoder, {"Content-Type": encoder.content_type}


def _whole_body(response: requests.Response) -> bytes:
    body = bytearray()
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        body += chunk
    return bytes(body)


class CapillarySession(requests.Session):
    """A session for requests of users: authenticated to the API host, and to no other host.

    :param settings: The connection.
    :param environment: Proxies and certificates.
    """

    #: False if the flow follows redirects itself. requests would parse them even then, and raise an error of the
    #: standard library for a malformed one.
    resolves_redirects = True
    #: Attributes of copies. The authentication for users is a closure, so that no secret gets into a pickle.
    __attrs__ = (*requests.Session.__attrs__, "_settings", "_environment", "resolves_redirects")

    def __init__(self, settings: ConnectionSettings, environment: Environment) -> None:
        super().__init__()
        self._settings = settings
        self._environment = environment
        # Do not read proxies and certificates again, nor credentials from ~/.netrc.
        self.trust_env = False
        self.verify = environment.trusted

    def adopt(self, settings: ConnectionSettings) -> None:
        """Go by other settings from the next request on: a redirect must lose the headers that it was sent with.

        :param settings: The connection as it is now. Proxies and certificates stay as they are.
        """
        self._settings = settings

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request, with the timeout of the connection if none is given."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._settings.timeout_seconds
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the target of a redirect; None if it is not to be resolved."""
        target: str | None = super().get_redirect_target(resp) if self.resolves_redirects else None
        return target

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Remove credentials from a redirect to another host.

        Replaces the method of requests, which does not handle Capillary headers and reads ~/.netrc for the new host.
        """
        requested, url = response.request.url or "", prepared_request.url or ""
        if self.should_strip_auth(requested, url):  # type: ignore[no-untyped-call] # untyped in the stubs of requests
            prepared_request.headers.pop("Authorization", None)
        if not self._settings.is_api_host(prepared_request.url or ""):
            for name in (self._settings.auth_header_name, *self._settings.headers):
                prepared_request.headers.pop(name, None)


def make_session(
    settings: ConnectionSettings, environment: Environment | None = None, *, is_guarded: bool = False
) -> CapillarySession:
    """Return a pooled session for a connection. The first request connects.

    :param settings: The connection.
    :param environment: Proxies and certificates; None to read them now.
    :param is_guarded: Whether it is for file URLs, which come from outside and must not reach internal addresses.
    :raises CapillaryConfigurationError: The certificates or the proxy of the connection cannot be used.
    """
    environment = environment or _environment(settings)
    session = CapillarySession(settings, environment)
    session.headers["User-Agent"] = common.USER_AGENT
    adapter = _GuardedAdapter(settings, environment) if is_guarded else _EnvironmentAdapter(environment)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _environment(settings: ConnectionSettings) -> Environment:
    return Environment(settings, socks_module="socks")


class _EnvironmentAdapter(HTTPAdapter):
    """Sends each request, including each hop of a redirect, through the proxy for its own URL.

    A session of requests chooses proxies for the first URL and keeps them for redirects.
    """

    __attrs__ = (*HTTPAdapter.__attrs__, "_environment")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        super().__init__()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request. Proxies that the user set on the session have precedence over the environment."""
        url = request.url or ""
        if select_proxy(url, proxies) is None:
            proxy = self._environment.proxy_for(url)
            proxies = {} if proxy is None else {"all": proxy.url}
        return super().send(request, stream, timeout, verify, cert, proxies)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # By default urllib3 sends a file in blocks of 16 KiB.
        super().init_poolmanager(*args, blocksize=common.SEND_BYTES, **kwargs)
        apply_deadlines(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool manager of a proxy, which is created only once."""
        manager = super().proxy_manager_for(*args, blocksize=common.SEND_BYTES, **kwargs)
        apply_deadlines(manager)
        return manager


class _GuardedAdapter(_EnvironmentAdapter):
    """Checks the address of a host as soon as it is connected, before anything is sent.

    Checking the name before would not suffice: it may resolve to another address the next time.
    """

    __attrs__ = (*_EnvironmentAdapter.__attrs__, "_settings")

    def __init__(self, settings: ConnectionSettings, environment: Environment) -> None:
        self._settings = settings
        super().__init__(environment)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        # Proxies have other pool managers and are not checked: there, the address is the one of the proxy.
        self.poolmanager.pool_classes_by_scheme = _guarded_pools(self._settings)
        apply_deadlines(self.poolmanager)


def _guarded_pools(settings: ConnectionSettings) -> dict[str, Any]:
    class Guard(HTTPConnection):
        def _new_conn(self) -> socket:
            connection = super()._new_conn()
            try:
                check_peer(self.host, connection.getpeername()[0], settings)
            except BaseException:
                connection.close()
                raise
            return connection

    class GuardedHTTPConnection(Guard):
        pass

    class GuardedHTTPSConnection(Guard, HTTPSConnection):
        pass

    class GuardedHTTPConnectionPool(HTTPConnectionPool):
        ConnectionCls = GuardedHTTPConnection

    class GuardedHTTPSConnectionPool(HTTPSConnectionPool):
        ConnectionCls = GuardedHTTPSConnection

    return {"http": GuardedHTTPConnectionPool, "https": GuardedHTTPSConnectionPool}


def _failure(error: Exception, settings: ConnectionSettings, proxy: Proxy | None) -> TransportFailure:
    """Translate an error of requests or urllib3. Its text is left out, because it quotes the URL."""
    causes = list(_causes(error))

    def wraps(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if wraps(SSLCertVerificationError):
        return common.untrusted(proxy)
    if wraps(NameResolutionError):
        return common.unresolved(proxy)
    if proxy is not None and proxy.scheme.startswith("socks") and wraps(NewConnectionError):
        # The class is the same if the proxy responded that it cannot connect.
        is_unreachable = any(type(cause).__name__ == "ProxyConnectionError" for cause in causes)
        return common.unreachable(proxy) if is_unreachable else common.proxy_refused(proxy)
    if wraps(NewConnectionError):  # a subclass of a timeout in urllib3, for any reason
        return common.unreachable(proxy)
    if wraps(requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
        return common.timed_out(settings, proxy)
    if wraps(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
        return common.no_handshake(proxy)
    if wraps(requests.exceptions.ProxyError):
        answer = next((match for cause in causes if (match := _REFUSED_TUNNEL.search(str(cause)))), None)
        return common.proxy_refused(proxy, None if answer is None else int(answer[1]))
    if wraps(urllib3.exceptions.DecodeError):
        return common.UNDECODABLE
    if wraps(urllib3.exceptions.ProtocolError):
        return common.broke_off(proxy)
    # For a malformed request, requests raises a class of its own that is a ValueError too.
    return common.not_sendable(error) if isinstance(error, ValueError) else common.unreachable(proxy)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it wraps, which requests and urllib3 keep in different attributes."""
    waiting: list[Any] = [error]
    seen: list[Any] = []
    while waiting:
        current = waiting.pop()
        if not isinstance(current, BaseException) or any(current is each for each in seen):
            continue
        seen.append(current)
        yield current
        waiting += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
