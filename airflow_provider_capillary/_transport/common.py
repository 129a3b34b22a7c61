# SPDX-License-Identifier: Apache-2.0
"""What the two drivers agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_capillary import __version__
from airflow_provider_capillary.api.http_messages import TransportFailure, proxy_wants_credentials

if TYPE_CHECKING:
    from airflow_provider_capillary._transport.environment import Proxy
    from airflow_provider_capillary.api.settings import ConnectionSettings

USER_AGENT = f"airflow-provider-capillary/{__version__}"
#: An answer that is not a file has to be whole within this many timeouts, however slowly it drips in.
OVERALL_TIMEOUTS = 5

UNDECODABLE = TransportFailure("the answer cannot be decompressed")
#: Statuses with which a proxy may refuse a request now and pass it on later.
_PASSING_REFUSALS = frozenset({408, 425, 429})


def timed_out(settings: ConnectionSettings, proxy: Proxy | None) -> TransportFailure:
    """Return what to report where an answer took too long.

    :param settings: The connection.
    :param proxy: The proxy that the request went through.
    """
    through = "" if proxy is None else f" through {proxy}"
    return TransportFailure(f"no answer within {settings.timeout_seconds:g} seconds{through}")


def broke_off(proxy: Proxy | None) -> TransportFailure:
    """Return what to report where a connection ended too early.

    :param proxy: The proxy that the request went through.
    """
    return TransportFailure(
        "the connection broke off" if proxy is None else f"the connection through {proxy} broke off"
    )


def unresolved(proxy: Proxy | None) -> TransportFailure:
    """Return what to report where a name has no address.

    :param proxy: The proxy that the request went through. Only its name is resolved here.
    """
    return TransportFailure(f"the {'host name' if proxy is None else f'name of {proxy}'} cannot be resolved")


def unreachable(proxy: Proxy | None) -> TransportFailure:
    """Return what to report where no connection could be made.

    :param proxy: The proxy that the request went through. Nothing else is connected to then.
    """
    return TransportFailure(f"{'the host' if proxy is None else proxy} cannot be reached")


def untrusted(proxy: Proxy | None) -> TransportFailure:
    """Return what to report where a certificate is not trusted.

    :param proxy: The proxy that the request went through.
    """
    return TransportFailure(
        f"the TLS certificate of {_tls_peer(proxy)} is not trusted; see field 'Verify TLS'", is_transient=False
    )


def no_handshake(proxy: Proxy | None) -> TransportFailure:
    """Return what to report where TLS could not be agreed on.

    :param proxy: The proxy that the request went through.
    """
    if proxy is None or proxy.scheme != "https":
        return TransportFailure("the TLS handshake failed")
    return TransportFailure(
        f"the TLS handshake with {_tls_peer(proxy)} failed; write http:// for a proxy that does not speak TLS"
    )


def proxy_refused(proxy: Proxy | None, status: int | None = None) -> TransportFailure:
    """Return what to report where a proxy answered, but not with a way to the host.

    :param proxy: The proxy.
    :param status: HTTP status of its answer.
    """
    source = "" if proxy is None else proxy.source
    if status == 407:
        return proxy_wants_credentials(source)
    facts = ", ".join(filter(None, (source, "" if status is None else f"HTTP {status}")))
    lasts = status is not None and 400 <= status < 500 and status not in _PASSING_REFUSALS
    return TransportFailure(
        "the proxy did not pass the request on" + (f" ({facts})" if facts else ""),
        is_transient=not lasts,
    )


def not_sendable(error: Exception) -> TransportFailure:
    """Return what to report where a request could not even be put together.

    :param error: What the library raised; only its kind is shown, its text quotes the URL.
    """
    return TransportFailure(f"the request cannot be sent ({type(error).__name__})", is_transient=False)


def _tls_peer(proxy: Proxy | None) -> str:
    """Name what TLS is spoken with. The libraries do not say which of two it was."""
    return f"the host or {proxy}" if proxy is not None and proxy.scheme == "https" else "the host"
