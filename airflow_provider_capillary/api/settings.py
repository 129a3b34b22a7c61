# SPDX-License-Identifier: Apache-2.0
"""The settings of a ``capillary`` connection."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import urlsplit

from airflow_provider_capillary.api.secrecy import query_secrets, tail
from airflow_provider_capillary.api.urls import host_of, is_loopback_host, origin, port_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ``oauth``: key and secret are exchanged for tokens. ``bearer``: the secret is a ready token, which is never fetched.
AuthType = Literal["oauth", "bearer"]
AUTH_TYPES: tuple[AuthType, ...] = get_args(AuthType)
DEFAULT_TOKEN_HEADER = "X-CAP-API-OAUTH-TOKEN"
#: Header of a ready token.
BEARER_HEADER = "Authorization"
DEFAULT_REQUESTS_PER_MINUTE = 100
DEFAULT_TIMEOUT_SECONDS = 30.0
HANDLE_FIELD = "{handle}"
#: Label in the form of the connection for error files in object storage.
CONN_FIELD = "Error file connection"


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """A ``capillary`` connection, parsed and checked by ``parse_connection``.

    :param conn_id: Airflow's id of the connection, for messages.
    :param scheme: ``https``, or ``http`` where that is allowed.
    :param host: Host of the API, lower case.
    :param port: Port of the API.
    :param client_key: Key of the API client; empty with a ready token. Never in a repr.
    :param client_secret: Secret of the API client, or the ready token. Never in a repr.
    :param auth_url: URL of the token endpoint; empty with a ready token. Never in a repr: its query may be a key.
    :param auth_type: ``oauth`` (default), or ``bearer`` for a ready token.
    :param error_file_url: Template with ``{handle}`` by which a bare file handle becomes a download; None if unset.
        Never in a repr: its query may be a signature.
    :param error_file_conn_id: Airflow connection for error files in object storage; None if unset.
    :param cluster_timezone: IANA zone of the cluster's day; default UTC.
    :param requests_per_minute: Client-side limit; default 100.
    :param timeout_seconds: Per request: to connect, and between two pieces of a response; default 30.
    :param verify: Whether TLS certificates are checked, or the path of a CA bundle; default True.
    :param allow_http: Whether plain http is accepted for a host that is not loopback; default False.
    :param headers: Sent to the API host only. Never in a repr.
    :param auth_header_name: Header that carries the token; default ``X-CAP-API-OAUTH-TOKEN``, and ``Authorization``
        with a ready token.
    :param unknown_extras: Unknown keys of extra, for a warning; ``schema`` for the standard field.
    :param unused_fields: Labels of fields that are set but have no use with this authentication type, for a warning.
    """

    conn_id: str
    scheme: str
    host: str
    port: int
    client_key: str = field(repr=False)
    client_secret: str = field(repr=False)
    auth_url: str = field(repr=False)
    auth_type: AuthType = "oauth"
    error_file_url: str | None = field(default=None, repr=False)
    error_file_conn_id: str | None = None
    cluster_timezone: str = "UTC"
    requests_per_minute: int = DEFAULT_REQUESTS_PER_MINUTE
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    verify: bool | str = True
    allow_http: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    auth_header_name: str = DEFAULT_TOKEN_HEADER
    unknown_extras: tuple[str, ...] = ()
    unused_fields: tuple[str, ...] = ()

    @property
    def ready_token(self) -> str | None:
        """The token that is sent as it is; None if tokens are fetched."""
        return self.client_secret if self.auth_type == "bearer" else None

    def auth_headers(self, token: str) -> dict[str, str]:
        """Return the header that authenticates a request to the API host.

        :param token: The access token.
        """
        return {self.auth_header_name: token if self.ready_token is None else f"Bearer {token}"}

    @property
    def base_url(self) -> str:
        """Scheme, host and, if it is not the scheme's default, port."""
        return origin(self.scheme, self.host, self.port)

    @property
    def is_plain_http(self) -> bool:
        """Whether requests to the API host go unencrypted to another machine."""
        return self.scheme == "http" and not is_loopback_host(self.host)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must not appear in a message: the secret or token, those of extra headers, and in queries."""
        return (self.client_secret, *self.headers.values(), *self._query_secrets)

    @property
    def masks(self) -> tuple[str, ...]:
        """The same values as they are masked in logs."""
        # Ready tokens follow one another in a triggerer for weeks, and Airflow never forgets a masked value.
        secret = self.client_secret if self.ready_token is None else tail(self.client_secret)
        return (secret, *self.headers.values(), *dict.fromkeys(map(tail, self._query_secrets)))

    @cached_property
    def _query_secrets(self) -> tuple[str, ...]:
        template = (self.error_file_url or "").replace(HANDLE_FIELD, "")
        return tuple(dict.fromkeys((*query_secrets(self.auth_url), *query_secrets(template))))

    @property
    def identity(self) -> str:
        """Key of connections that may share a token and a request limit.

        :return: A digest, so that no secret is kept as a key somewhere.
        """
        parts = (
            self.conn_id,
            self.base_url,
            self.auth_type,
            self.auth_url,
            self.client_key,
            self.client_secret,
            str(self.requests_per_minute),
        )
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def is_api_host(self, url: str) -> bool:
        """Whether a URL leads to the API's own scheme, host and port, where Capillary headers may go."""
        parts = urlsplit(url)
        return parts.scheme.lower() == self.scheme and (host_of(parts), port_of(parts)) == (self.host, self.port)
