# SPDX-License-Identifier: Apache-2.0
"""Constants and failure messages that both transports share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_capillary import __version__
from airflow_provider_capillary.api.http_messages import TransportFailure, proxy_wants_credentials

if TYPE_CHECKING:
    from airflow_provider_capillary._transport.environment import Proxy
    from airflow_provider_capillary.api.http_messages import ApiRequest
    from airflow_provider_capillary.api.settings import ConnectionSettings

USER_AGENT = f"airflow-provider-capillary/{__version__}"
#: A response that is not a file must be complete within this many timeouts, even if bytes keep arriving slowly.
OVERALL_TIMEOUTS = 5
#: Bytes of a file that are sent at a time.
SEND_BYTES = 256 << 10
#: The lowest rate, in bytes a second, at which sending a file may go on.
_SLOWEST_RATE = 16 << 10

UNDECODABLE = TransportFailure("the answer cannot be decompressed")
#: Statuses of transient refusals by a proxy.
_TRANSIENT_REFUSALS = frozenset({408, 425, 429})


def overall_seconds(settings: ConnectionSettings, request: ApiRequest) -> float:
    """Return within how many seconds a response must be complete.

    :param settings: The connection.
    :param request: The request.
    """
    sending = 0.0 if request.form is None else request.form.size_bytes / _SLOWEST_RATE
    return OVERALL_TIMEOUTS * settings.timeout_seconds + sending


def connect_and_read_seconds(settings: ConnectionSettings, request: ApiRequest) -> tuple[float, float]:
    """Return the timeouts to connect, and between two pieces of a response.

    The answer to a file may be waited for five times as long. Giving up while Capillary still works on it would lead to
    the question whether to send it again.

    :param settings: The connection.
    :param request: The request.
    """
    seconds = settings.timeout_seconds
    return seconds, seconds if request.form is None else OVERALL_TIMEOUTS * seconds


def timed_out(settings: ConnectionSettings, proxy: Proxy | None) -> TransportFailure:
    """Return the failure of a response that took too long.

    :param settings: The connection.
    :param proxy: The proxy of the request; None for a direct connection.
    """
    through = "" if proxy is None else f" through {proxy}"
    return TransportFailure(f"no answer within {settings.timeout_seconds:g} seconds{through}")


def broke_off(proxy: Proxy | None) -> TransportFailure:
    """Return the failure of a connection that ended too early.

    :param proxy: The proxy of the request; None for a direct connection.
    """
    return TransportFailure(
        "the connection broke off" if proxy is None else f"the connection through {proxy} broke off"
    )


def unresolved(proxy: Proxy | None) -> TransportFailure:
    """Return the failure of a host name without an address.

    :param proxy: The proxy of the request. Only the name of the proxy is resolved on this side then.
    """
    return TransportFailure(f"the {'host name' if proxy is None else f'name of {proxy}'} cannot be resolved")


def unreachable(proxy: Proxy | None) -> TransportFailure:
    """Return the failure of a host or proxy that refuses connections.

    :param proxy: The proxy of the request. Only the proxy is connected to then.
    """
    return TransportFailure(f"{'the host' if proxy is None else proxy} cannot be reached")


def untrusted(proxy: Proxy | None) -> TransportFailure:
    """Return the failure of a certificate that is not trusted.

    :param proxy: The proxy of the request; None for a direct connection.
    """
    return TransportFailure(
        f"the TLS certificate of {_tls_peer(proxy)} is not trusted; see field 'Verify TLS'", is_transient=False
    )


def no_handshake(proxy: Proxy | None) -> TransportFailure:
    """Return the failure of a TLS handshake.

    :param proxy: The proxy of the request; None for a direct connection.
    """
    if proxy is None or proxy.scheme != "https":
        return TransportFailure("the TLS handshake failed")
    return TransportFailure(
        f"the TLS handshake with {_tls_peer(proxy)} failed; write http:// for a proxy that does not speak TLS"
    )


def proxy_refused(proxy: Proxy | None, status: int | None = None) -> TransportFailure:
    """Return the failure of a request that a proxy refused to forward.

    :param proxy: The proxy.
    :param status: HTTP status of its response; None if unknown.
    """
    source = "" if proxy is None else proxy.source
    if status == 407:
        return proxy_wants_credentials(source)
    facts = ", ".join(filter(None, (source, "" if status is None else f"HTTP {status}")))
    is_permanent = status is not None and 400 <= status < 500 and status not in _TRANSIENT_REFUSALS
    return TransportFailure(
        "the proxy did not pass the request on" + (f" ({facts})" if facts else ""),
        is_transient=not is_permanent,
    )


def not_sendable(error: Exception) -> TransportFailure:
    """Return the failure of a request that the library rejected.

    :param error: The error of the library. The message names only its class, because its text quotes the URL.
    """
    return TransportFailure(f"the request cannot be sent ({type(error).__name__})", is_transient=False)


def _tls_peer(proxy: Proxy | None) -> str:
    """Name the TLS peer. With an https proxy there are two, and the libraries do not report which one failed."""
    return f"the host or {proxy}" if proxy is not None and proxy.scheme == "https" else "the host"
