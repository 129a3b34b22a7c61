# SPDX-License-Identifier: Apache-2.0
"""Network addresses that the URL of a file may lead to.

An address can be spelt in ways that a text comparison misses (``2852039166``,
``0xa9.254.43518``, ``[::ffff:169.254.169.254]``); all of them are parsed to the address that a connection would use.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

_NAT64 = ip_network("64:ff9b::/96")
# For use within a network, and on its way out of the standard library's idea of "global" (RFC 8215).
_LOCAL_NAT64 = ip_network("64:ff9b:1::/48")


def literal_address(host: str) -> Address | None:
    """Return the address that a URL's host spells, or None where the host is a name.

    :param host: Host of a URL, without brackets.
    :raises ValueError: The host ends in a number but is no address; resolvers disagree on what that means.
    """
    if ":" in host:
        return IPv6Address(host)
    parts = host.removesuffix(".").split(".")
    if not _is_numeric(parts[-1]):
        return None
    return IPv4Address(_inet_aton(parts))


def embedded_addresses(address: Address) -> list[Address]:
    """Return the address and every IPv4 address that it contains (mapped, 6to4, Teredo, NAT64, compatible)."""
    found: list[Address] = [address]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            found.append(address.ipv4_mapped)
        if address.sixtofour is not None:
            found.append(address.sixtofour)
        if address.teredo is not None:
            found.extend(address.teredo)
        if address in _NAT64 or int(address) >> 32 == 0:
            found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return found


def is_public(address: Address) -> bool:
    """Whether an address is out on the internet: not private, loopback, link-local, multicast or reserved."""
    if isinstance(address, IPv6Address) and (address.is_site_local or address in _LOCAL_NAT64):
        return False
    return all(each.is_global and not each.is_multicast for each in _judged(address))


def is_local(address: str) -> bool:
    """Whether a connection to this address stays on the machine or its link: loopback, link-local, unspecified.

    :param address: An address as a socket reports it, possibly with an IPv6 zone.
    """
    parsed = ip_address(address.partition("%")[0])
    return any(each.is_loopback or each.is_link_local or each.is_unspecified for each in embedded_addresses(parsed))


def _judged(address: Address) -> list[Address]:
    # An IPv4-mapped address is not "global" itself, no matter what it maps to; nor is, since Python 3.13, a 6to4 one.
    if isinstance(address, IPv6Address):
        within = address.ipv4_mapped or address.sixtofour
        if within is not None:
            return [within]
    return embedded_addresses(address)


def _is_numeric(part: str) -> bool:
    return part.isascii() and (part.isdigit() or part[:2].lower() == "0x")


def _inet_aton(parts: list[str]) -> int:
    """Read the one to four numbers that C's ``inet_aton`` takes: decimal, 0x hexadecimal or 0 octal."""
    if len(parts) > 4:
        raise ValueError("more than four numbers")
    numbers = [_number(part) for part in parts]
    *leading, last = numbers
    if any(number > 255 for number in leading) or last >= 256 ** (4 - len(leading)):
        raise ValueError("a number is too large")
    value = last
    for position, number in enumerate(leading):
        value |= number << (8 * (3 - position))
    return value


def _number(part: str) -> int:
    if not part.isascii() or not part or not part.isalnum() or len(part) > 16:
        raise ValueError("not a number")
    if part[:2].lower() == "0x":
        return int(part[2:] or "0", 16)
    return int(part, 8) if len(part) > 1 and part.startswith("0") else int(part, 10)
