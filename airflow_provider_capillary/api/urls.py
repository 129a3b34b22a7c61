# SPDX-License-Identifier: Apache-2.0
"""Split URLs strictly, so that every parser takes them for the same host and port."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import SplitResult, urlsplit

from airflow_provider_capillary.api.ssrf import literal_address

DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_CHARACTERS = re.compile(r"[A-Za-z0-9_.-]+\Z", re.ASCII)
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?\Z", re.ASCII)


def split_url(url: str) -> SplitResult:
    """Split a URL, and refuse one that different parsers read differently.

    :raises ValueError: The reason, to follow the word "because"; never quotes the URL.
    """
    if any(character in " \\" or not character.isprintable() for character in url):
        raise ValueError("it has a space, a control character or a backslash in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("it is malformed") from None
    if "@" in parts.netloc:
        raise ValueError("it carries credentials")
    host = parts.hostname or ""
    if not host:
        raise ValueError("it has no host")
    if port == 0:
        raise ValueError("its port is 0")
    if not host.isascii():
        raise ValueError("its host is not ASCII; write it in punycode (xn--...)")
    try:
        is_address = literal_address(host) is not None
    except ValueError:
        raise ValueError("its host is a malformed address") from None
    if is_address and "%" in host:
        raise ValueError("its host has an IPv6 zone, which means something on one machine only")
    if not is_address and not _HOST_CHARACTERS.match(host):
        raise ValueError("its host has a character that no host has")
    if not is_address and (not _HOST_NAME.match(host) or "[" in parts.netloc):
        raise ValueError("its host is no host name")
    return parts


def host_of(parts: SplitResult) -> str:
    """Return the host of a URL, without the dot that may end it; empty for none."""
    return (parts.hostname or "").removesuffix(".")


def port_of(parts: SplitResult) -> int | None:
    """Return the port of a URL, or the default port of its scheme."""
    return parts.port or DEFAULT_PORTS.get(parts.scheme.lower())


def origin(scheme: str, host: str, port: int) -> str:
    """Return the URL of a host: scheme, host and, if it is not the scheme's default, port."""
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed if port == DEFAULT_PORTS[scheme] else f'{bracketed}:{port}'}"


def is_loopback_host(host: str) -> bool:
    """Return whether a host, name or address, is this machine, without a DNS query."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = literal_address(host)
    except ValueError:
        return False
    return address is not None and address.is_loopback


def is_bare_ipv6(host: str) -> bool:
    """Whether a host is an IPv6 address without its brackets, as Airflow takes it from a connection's URI."""
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
