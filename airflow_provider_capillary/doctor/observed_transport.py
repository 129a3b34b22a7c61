# SPDX-License-Identifier: Apache-2.0
"""The transport of a worker, which also notes the TLS connections that it makes."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_capillary._transport.requests_transport import RequestsTransport
from airflow_provider_capillary.api.diagnosis import TlsFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from airflow_provider_capillary._transport.environment import Proxy
    from airflow_provider_capillary.api.settings import ConnectionSettings


class ObservedTransport(RequestsTransport):
    """Sends requests as any other, and keeps the facts of the TLS connection to each host.

    :param settings: The connection.
    :param mask: Masks a secret in logs.
    """

    def __init__(self, settings: ConnectionSettings, *, mask: Callable[[str], None]) -> None:
        super().__init__(settings, mask=mask)
        #: Host -> its TLS connection.
        self.tls: dict[str, TlsFacts] = {}
        for session in (self._session, self._file_session):
            session.hooks["response"].append(self._note_tls)

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy for a URL; None for a direct connection.

        :param url: Absolute URL.
        """
        return self._environment.proxy_for(url)

    def _note_tls(self, response: requests.Response, **_: Any) -> None:
        # Called before the body is read: the connection goes back to its pool after that.
        sock = getattr(response.raw.connection, "sock", None)
        host = urlsplit(response.url).hostname
        if host is None or sock is None or not hasattr(sock, "getpeercert"):
            return
        certificate = sock.getpeercert() or {}  # empty if certificates are not checked
        ends_at = certificate.get("notAfter")
        self.tls[host] = TlsFacts(
            version=sock.version(),
            issuer=_name_of(certificate.get("issuer", ())),
            expires_at=None if ends_at is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(ends_at), UTC),
            is_public=self._environment.trusted is True,
        )


def _name_of(issuer: Any) -> str | None:
    """Return the organization of an issuer, or else its common name."""
    names = {name: value for part in issuer for name, value in part}
    return names.get("organizationName") or names.get("commonName")
