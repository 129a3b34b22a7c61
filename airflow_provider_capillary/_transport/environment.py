# SPDX-License-Identifier: Apache-2.0
"""Reads proxies and certificates from the environment of the machine, once for both HTTP libraries.

By default, HTTP libraries read the same variables by different rules: a wait could fail in the triggerer and
succeed in poke mode.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.urls import split_url

if TYPE_CHECKING:
    from airflow_provider_capillary.api.settings import ConnectionSettings

#: In the order of requests.
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_HTTP_SCHEMES = ("http", "https")
#: Supported by both libraries. Only urllib3 supports SOCKS 4 as well.
_SOCKS_SCHEMES = ("socks5", "socks5h")
#: Path of a valid CA bundle -> its modification time. Reading the bundle of a whole machine takes 35 ms.
_valid_bundles: dict[str, int] = {}


@dataclass(frozen=True)
class Proxy:
    """A proxy that both libraries can use.

    :param url: URL in a form that both parse alike. Not in the repr, because it may contain a password.
    :param source: Where the proxy is set, such as ``environment variable HTTPS_PROXY``.
    """

    url: str = field(repr=False)
    source: str

    @property
    def scheme(self) -> str:
        """Scheme of the URL."""
        return self.url.partition("://")[0]

    def __str__(self) -> str:
        return f"the proxy ({self.source})"


class Environment:
    """Proxies and certificates for one connection, read when this is created.

    Reads files, and on some systems resolves names, so do not create it on an event loop.

    :param settings: The connection.
    :param socks_module: Python module that the HTTP library needs for a SOCKS proxy.
    :raises CapillaryConfigurationError: The certificates, or the proxy of the API host or the authentication URL,
        cannot be used.
    """

    def __init__(self, settings: ConnectionSettings, *, socks_module: str) -> None:
        self.trusted = trusted_certificates(settings)
        self._conn_id = settings.conn_id
        self._socks_module = socks_module
        self._proxies: dict[str, Proxy | None] = {}
        for url in filter(None, (settings.base_url, settings.auth_url)):
            self.proxy_for(url)

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy for a URL, by the rules of requests; None for a direct connection.

        :param url: Absolute URL.
        :raises CapillaryConfigurationError: The environment names a proxy for the URL that cannot be used.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2].lower()}"
        if origin not in self._proxies:
            self._proxies[origin] = self._read_proxy(origin, parts.scheme.lower())
        return self._proxies[origin]

    def _read_proxy(self, origin: str, scheme: str) -> Proxy | None:
        proxies = get_environ_proxies(origin)
        written = (select_proxy(origin, proxies) or "").strip()
        if not written:
            return None
        source = _source_of(scheme if scheme in proxies else "all")
        try:
            url = _canonical(written)
        except ValueError as reason:
            raise self._refuse(source, f"it names no usable proxy, because {reason}") from None
        proxy = Proxy(url, source)
        if proxy.scheme in _SOCKS_SCHEMES and find_spec(self._socks_module) is None:
            raise self._refuse(
                source,
                f"a SOCKS proxy needs the Python package {self._socks_module!r}, which is not installed here; install "
                "'requests[socks]' for the workers and 'httpx[socks]' for the triggerer, name an http proxy, or add "
                "the host to NO_PROXY",
            )
        return proxy

    def _refuse(self, source: str, problem: str) -> CapillaryConfigurationError:
        return CapillaryConfigurationError(f"Connection {self._conn_id!r}, {source}: {problem}")


def _source_of(key: str) -> str:
    """Name the variable that sets a proxy. The one in lower case has precedence."""
    name = f"{key}_proxy"
    if not os.environ.get(name):
        name = next((each for each in os.environ if each.lower() == name and os.environ[each]), "")
    return f"environment variable {name}" if name else "proxy settings of this machine"


def _canonical(written: str) -> str:
    """Return the URL of a proxy in a form that both libraries parse alike.

    :param written: Value of the environment variable; http if it has no scheme.
    :raises ValueError: The reason, in words that follow "because". It never quotes the URL, which may have a password.
    """
    scheme, separator, rest = written.partition("://")
    if not separator:
        scheme, rest = "http", written
    scheme = scheme.lower()
    if scheme not in (*_HTTP_SCHEMES, *_SOCKS_SCHEMES):
        raise ValueError("its scheme is none of http, https, socks5 and socks5h")
    userinfo, _, address = rest.rpartition("@")
    if any(character in userinfo for character in "/?#"):
        raise ValueError("its user name or password has one of / ? # in it; write %2F, %3F or %23")
    parts = split_url(f"{scheme}://{address}")
    host = parts.hostname or ""
    port = "" if parts.port is None else f":{parts.port}"
    where = f"[{host}]{port}" if ":" in host else f"{host}{port}"
    if not userinfo:
        return f"{scheme}://{where}"
    user, _, password = (unquote(each) for each in userinfo.partition(":"))
    if not (user + password).isascii() or not (user + password).isprintable():
        raise ValueError("its user name or password has a character that is not printable ASCII")
    # Always with a colon: without one, requests sends no user name at all.
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{where}"


def trusted_certificates(settings: ConnectionSettings) -> bool | str:
    """Return the trusted certificates, for both libraries.

    :param settings: The connection. Its field has precedence over the environment, also if it is ``false``.
    :return: The path of a CA bundle, file or folder; True for the certificates of certifi, False for no check.
    :raises CapillaryConfigurationError: ``verify`` or the environment names a path that is no CA bundle. Without this
        check, each request would fail as if the host were unreachable.
    """
    source = ""
    trusted = settings.verify
    if trusted is True:
        source = next((name for name in _BUNDLE_VARIABLES if os.environ.get(name)), "")
        trusted = os.environ[source] if source else True
    if isinstance(trusted, str):
        try:
            _check_bundle(trusted)
        except (OSError, ValueError):  # ssl.SSLError is an OSError; a path with a null character is a ValueError
            where = f"there is no CA bundle at {trusted!r} on this machine"
            raise CapillaryConfigurationError(
                f"Connection {settings.conn_id!r}, field 'Verify TLS': "
                + (
                    f"it is true, so environment variable {source} counts, but {where}; correct the variable, or write "
                    if source
                    else f"{where}; write true, false or "
                )
                + "the path of a file that every worker and the triggerer have"
                + (" into the field" if source else "")
            ) from None
    return trusted


def _check_bundle(path: str) -> None:
    changed_at = Path(path).stat().st_mtime_ns
    if _valid_bundles.get(path) != changed_at:
        load_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path)
        _valid_bundles[path] = changed_at


def load_certificates(context: ssl.SSLContext, path: str) -> None:
    """Add the certificates of a CA bundle to a context.

    :param context: The context.
    :param path: File, or folder that ``openssl rehash`` has prepared.
    :raises OSError: The bundle has no certificates or cannot be read.
    :raises ValueError: It is not a valid path.
    """
    if Path(path).is_dir():
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)
