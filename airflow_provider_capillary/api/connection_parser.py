# SPDX-License-Identifier: Apache-2.0
"""Parses and validates a ``capillary`` connection; no other module does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

import pendulum

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.object_uris import parse_object_uri
from airflow_provider_capillary.api.settings import (
    AUTH_TYPES,
    BEARER_HEADER,
    CONN_FIELD,
    DEFAULT_REQUESTS_PER_MINUTE,
    DEFAULT_TIMEOUT_SECONDS,
    DEFAULT_TOKEN_HEADER,
    HANDLE_FIELD,
    AuthType,
    ConnectionSettings,
)
from airflow_provider_capillary.api.tokens import parse_ready_token
from airflow_provider_capillary.api.urls import (
    DEFAULT_PORTS,
    host_of,
    is_bare_ipv6,
    is_loopback_host,
    origin,
    split_url,
)
from airflow_provider_capillary.api.values import as_flag, as_number, as_whole_number, is_nothing

DEFAULT_TOKEN_PATH = "/v3/oauth/token/generate"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", re.ASCII)
#: The HTTP library sets these headers, which frame a message; a value of the user's would break every request.
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})
#: Extras without use for a ready token, and their labels.
_OAUTH_EXTRAS = {"auth_url": "Authentication URL", "auth_header_name": "auth_header_name"}
_KNOWN_EXTRAS = frozenset(
    (
        *("auth_type", "auth_url", "auth_header_name", "headers", "verify", "allow_http"),
        *("error_file_url", "error_file_conn_id"),
        *("cluster_timezone", "requests_per_minute", "timeout_seconds"),
    )
)


class ConnectionLike(Protocol):
    """The fields of an Airflow connection that are read."""

    host: str | None
    schema: str | None
    port: Any
    login: str | None
    password: str | None
    extra: Any


def parse_connection(conn_id: str, connection: ConnectionLike) -> ConnectionSettings:
    """Parse a connection.

    A field that is null, missing or blank counts as unset: Airflow's form stores every unset extra as null.

    :param conn_id: Airflow's id of the connection.
    :param connection: The connection.
    :raises CapillaryConfigurationError: A field has a value that cannot be used. The message names the connection,
        the field as the form labels it, and the remedy; it never shows a key, secret or header value.
    """
    return _Parser(conn_id, connection).parse()


class _Parser:
    """Parses one connection, field by field."""

    def __init__(self, conn_id: str, connection: ConnectionLike) -> None:
        self.conn_id = conn_id
        self.connection = connection
        self.extra = self._extra()
        self.auth_type = self._auth_type()

    def parse(self) -> ConnectionSettings:
        allow_http = self._flag("Allow plain http", "allow_http", default=False)
        scheme, host, port = self._api_host(allow_http)
        key, secret, auth_url = self._bearer() if self.auth_type == "bearer" else self._oauth(allow_http)
        return ConnectionSettings(
            conn_id=self.conn_id,
            scheme=scheme,
            host=host,
            port=port,
            client_key=key,
            client_secret=secret,
            auth_url=origin(scheme, host, port) + DEFAULT_TOKEN_PATH if auth_url is None else auth_url,
            auth_type=self.auth_type,
            error_file_url=self._error_file_url(),
            error_file_conn_id=self._text(CONN_FIELD, "error_file_conn_id"),
            cluster_timezone=self._timezone(),
            requests_per_minute=self._requests_per_minute(),
            timeout_seconds=self._timeout(),
            verify=self._verify(),
            allow_http=allow_http,
            headers=self._headers(),
            auth_header_name=self._header_name(),
            unknown_extras=self._unknown(),
            unused_fields=self._unused(),
        )

    def _auth_type(self) -> AuthType:
        label = "Authentication type"
        written = (self._text(label, "auth_type") or AUTH_TYPES[0]).lower()
        # The value is not shown: it may be a token in the wrong field.
        for known in AUTH_TYPES:
            if written == known:
                return known
        raise self._refuse(label, f"it must be {' or '.join(AUTH_TYPES)}")

    def _oauth(self, allow_http: bool) -> tuple[str, str, str | None]:
        return (
            self._required("Client key", self.connection.login),
            self._required("Client secret", self.connection.password),
            self._url("Authentication URL", "auth_url", allow_http),
        )

    def _bearer(self) -> tuple[str, str, str]:
        if (self._standard("Client key", self.connection.login) or "").strip():
            # The password is most likely a client secret then, which must not be sent as a token.
            raise self._refuse(
                "Client key",
                "it has no use with Authentication type bearer, which sends the Client secret as a ready token; "
                "clear it, or set Authentication type to oauth",
            )
        label = "Client secret"
        stored = self._standard(label, self.connection.password) or ""
        try:
            return "", parse_ready_token(stored), ""
        except ValueError as problem:
            raise self._refuse(label, str(problem)) from None

    def _unused(self) -> tuple[str, ...]:
        if self.auth_type == "oauth":
            return ()
        return tuple(label for key, label in _OAUTH_EXTRAS.items() if key in self.extra)

    def _refuse(self, label: str, problem: str) -> CapillaryConfigurationError:
        return CapillaryConfigurationError(f"Connection {self.conn_id!r}, field {label!r}: {problem}")

    def _extra(self) -> dict[str, Any]:
        value = self.connection.extra
        if isinstance(value, str):
            try:
                value = json.loads(value) if value.strip() else None
            except (ValueError, RecursionError):
                # The error is neither chained nor shown: its text may contain secrets.
                raise self._refuse("Extra", "it is not valid JSON; write a JSON object") from None
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._refuse("Extra", "it must be a JSON object, such as {}")
        return {key: item for key, item in value.items() if item is not None and not _is_blank(item)}

    def _unknown(self) -> tuple[str, ...]:
        keys = {str(key) for key in self.extra} - _KNOWN_EXTRAS
        if self._schema() not in ("", *DEFAULT_PORTS):
            keys.add("schema")
        return tuple(sorted(keys))

    def _standard(self, label: str, value: Any) -> str | None:
        """Read a standard field, which a backend may have stored as a number."""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            raise self._refuse(label, f"it must be text, but is {_kind(value)}")
        return self._meant(label, value)

    def _meant(self, label: str, value: str | None) -> str | None:
        """Refuse the text of a missing value, as backends make of an unset field: it would become a host or header."""
        if value is not None and is_nothing(value):
            raise self._refuse(label, "it is None or null as text; clear the field, or correct what fills it in")
        return value

    def _required(self, label: str, stored: Any) -> str:
        value = self._standard(label, stored)
        if value is None or not value.strip():
            raise self._refuse(label, "it is not set; Capillary gives it out with the API client")
        if any(ord(character) < 32 for character in value):
            raise self._refuse(label, "it has a control character in it, such as a line break; copy it once more")
        return value

    def _text(self, label: str, key: str) -> str | None:
        value = self.extra.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._refuse(label, f"it must be text, but is {_kind(value)}")
        return self._meant(label, value.strip() or None)

    def _flag(self, label: str, key: str, *, default: bool) -> bool:
        value = self.extra.get(key)
        if value is None:
            return default
        flag = as_flag(value)
        if flag is None:
            raise self._refuse(label, "it must be true or false")
        return flag

    def _api_host(self, allow_http: bool) -> tuple[str, str, int]:
        label = "API host"
        written = (self._standard(label, self.connection.host) or "").strip()
        if not written:
            raise self._refuse(label, "it is not set; write the host of your cluster, such as eu.api.capillarytech.com")
        scheme, separator, rest = written.partition("://")
        schema = self._schema() if self._schema() in DEFAULT_PORTS else ""
        if not separator:
            scheme, rest = schema or "https", written
        elif scheme.lower() not in DEFAULT_PORTS:
            raise self._refuse(label, "its scheme must be https or http")
        elif schema not in ("", scheme.lower()):
            raise self._refuse("Schema", f"it is {schema}, but the API host says {scheme}; leave one of them out")
        try:
            parts = split_url(f"{scheme}://{f'[{rest}]' if is_bare_ipv6(rest) else rest}")
        except ValueError as reason:
            raise self._refuse(label, f"{reason}; write a host such as eu.api.capillarytech.com") from None
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise self._refuse(label, "it must be a host without path or query, such as eu.api.capillarytech.com")
        scheme, host = parts.scheme.lower(), host_of(parts)
        self._check_http(label if separator else "Schema", scheme, host, allow_http)
        port = self._port()
        if port is not None and parts.port is not None and port != parts.port:
            raise self._refuse("Port", f"it is {port}, but the API host says {parts.port}; leave one of them out")
        return scheme, host, port or parts.port or DEFAULT_PORTS[scheme]

    def _schema(self) -> str:
        return (self._standard("Schema", self.connection.schema) or "").strip().lower()

    def _check_http(self, label: str, scheme: str, host: str, allow_http: bool) -> None:
        if scheme == "http" and not allow_http and not is_loopback_host(host):
            raise self._refuse(
                label,
                "plain http would send the client secret unencrypted; use https, or switch on 'Allow plain http' "
                "inside a private network",
            )

    def _port(self) -> int | None:
        stored = self.connection.port
        if stored is None or _is_blank(stored):
            return None
        port = as_whole_number(stored)
        if port is None or not 1 <= port <= 65535:
            raise self._refuse("Port", "it must be between 1 and 65535")
        return port

    def _url(self, label: str, key: str, allow_http: bool) -> str | None:
        url = self._text(label, key)
        if url is None:
            return None
        try:
            parts = split_url(url)
        except ValueError as reason:
            raise self._refuse(label, f"{reason}; write a URL such as https://host{DEFAULT_TOKEN_PATH}") from None
        scheme = parts.scheme.lower()
        if scheme not in DEFAULT_PORTS:
            raise self._refuse(label, "it must be an https URL")
        self._check_http(label, scheme, host_of(parts), allow_http)
        return url

    def _error_file_url(self) -> str | None:
        label = "Error file URL"
        template = self._text(label, "error_file_url")
        if template is None:
            return None
        scheme, separator, rest = template.partition("://")
        if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
            raise self._refuse(label, "it must begin with a scheme, such as https://... or s3://bucket/{handle}")
        if template.count(HANDLE_FIELD) != 1 or set("{}") & set(template.replace(HANDLE_FIELD, "")):
            raise self._refuse(label, "it must have {handle} in it once, and no other braces")
        if HANDLE_FIELD in rest.partition("/")[0]:
            raise self._refuse(label, "{handle} must stand behind the host or bucket")
        if scheme.lower() in DEFAULT_PORTS:
            try:
                split_url(template.replace(HANDLE_FIELD, "handle"))
            except ValueError as reason:
                raise self._refuse(label, f"{reason}; write a URL such as https://host/path/{{handle}}") from None
            return template
        conn_id = self._text(CONN_FIELD, "error_file_conn_id")
        try:
            parsed = parse_object_uri(template, conn_id=conn_id, conn_field=CONN_FIELD)
        except ValueError as reason:
            raise self._refuse(label, f"it {reason}") from None
        if HANDLE_FIELD not in parsed.key:
            raise self._refuse(label, "{handle} must stand behind the host or bucket")
        return template

    def _timezone(self) -> str:
        name = self._text("Cluster time zone", "cluster_timezone")
        if name is None:
            return "UTC"
        try:
            pendulum.timezone(name)
        except (ValueError, KeyError, OSError):  # pendulum, zoneinfo and the file system each have their own
            raise self._refuse(
                "Cluster time zone", f"{name!r} is not a time zone; write an IANA name such as Asia/Kolkata"
            ) from None
        return name

    def _number(self, label: str, key: str) -> float | None:
        value = self.extra.get(key)
        if value is None:
            return None
        number = as_number(value)
        if number is None:
            what = "that is not finite" if isinstance(value, int | float) and not isinstance(value, bool) else ""
            raise self._refuse(label, f"it must be a number, but is {f'{_kind(value)} {what}'.strip()}")
        return float(number)

    def _requests_per_minute(self) -> int:
        label = "Requests per minute"
        value = self._number(label, "requests_per_minute")
        if value is None:
            return DEFAULT_REQUESTS_PER_MINUTE
        if not (1 <= value <= 1_000_000 and value.is_integer()):
            raise self._refuse(label, "it must be a whole number from 1 to 1000000")
        return int(value)

    def _timeout(self) -> float:
        label = "Timeout"
        value = self._number(label, "timeout_seconds")
        if value is None:
            return DEFAULT_TIMEOUT_SECONDS
        if not 0 < value <= 3600:
            raise self._refuse(label, "it must be above 0 and at most 3600 seconds")
        return value

    def _verify(self) -> bool | str:
        value = self.extra.get("verify")
        if value is None:
            return True
        flag = as_flag(value)
        if flag is not None:
            return flag
        if not isinstance(value, str) or is_nothing(value):
            raise self._refuse("Verify TLS", "it must be true, false or the path of a CA bundle")
        return value.strip()

    def _headers(self) -> dict[str, str]:
        label = "Extra headers"
        value = self.extra.get("headers")
        if isinstance(value, str):  # the form stores an object, other tools may store its text
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise self._refuse(label, "it is not valid JSON; write a JSON object") from None
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._refuse(label, 'it must be a JSON object, such as {"X-CAP-API-AUTH-ORG-ID": "100458"}')
        headers: dict[str, str] = {}
        spelt: dict[str, str] = {}
        for name, text in value.items():
            if not isinstance(name, str) or not _HEADER_NAME.match(name):
                raise self._refuse(label, f"{name!r} is not a header name")
            if (other := spelt.setdefault(name.lower(), name)) != name:
                raise self._refuse(label, f"{other!r} and {name!r} are one header; leave one of them out")
            if name.lower() == self._header_name().lower():
                token = "that key and secret are exchanged for" if self.auth_type == "oauth" else "in the Client secret"
                raise self._refuse(label, f"{name!r} is for the token {token}; remove it")
            if name.lower() in _FRAMING_HEADERS:
                raise self._refuse(label, f"{name!r} is up to the HTTP library; remove it")
            if isinstance(text, bool) or not isinstance(text, str | int):
                raise self._refuse(label, f"the value of {name!r} must be text")
            shown = str(text).strip()
            if not shown.isascii() or not shown.isprintable():
                raise self._refuse(label, f"the value of {name!r} must be printable ASCII")
            headers[name] = shown
        return headers

    def _header_name(self) -> str:
        if self.auth_type == "bearer":
            return BEARER_HEADER
        name = self._text("auth_header_name", "auth_header_name")
        if name is None:
            return DEFAULT_TOKEN_HEADER
        if not _HEADER_NAME.match(name):
            raise self._refuse("auth_header_name", f"{name!r} is not a header name")
        return name


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _kind(value: Any) -> str:
    names = {bool: "true or false", dict: "an object", list: "a list", int: "a number", float: "a number", str: "text"}
    return names.get(type(value), "something else")
