# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.ssrf import is_local, is_public, literal_address
from tests.api.flows import any_text, examples

METADATA = ipaddress.ip_address("169.254.169.254")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.169.254.",
        "2852039166",
        "0xa9fea9fe",
        "0XA9FEA9FE",
        "025177524776",
        "0251.0376.0251.0376",
        "0xa9.0xfe.0xa9.0xfe",
        "0xa9.254.0251.254",
        "169.254.43518",
        "169.16689662",
        "00000251.254.169.254",
    ],
)
def test_every_spelling_of_an_address_is_that_address(host: str) -> None:
    assert literal_address(host) == METADATA


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("::1", "::1"),
        ("::ffff:169.254.169.254", "::ffff:a9fe:a9fe"),
        ("8.8.8.8", "8.8.8.8"),
    ],
)
def test_other_addresses(host: str, address: str) -> None:
    assert literal_address(host) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "host",
    [
        "eu.api.capillarytech.com",
        "localhost",
        "1.2.3.4.example.com",
        "a1",
        "1a",
        "0xa9.example",
        "xn--bcher-kva.de",
        "",
    ],
)
def test_a_name_is_no_address(host: str) -> None:
    assert literal_address(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "256.1.1.1",
        "1.2.3.4.5",
        "1.2.3.256",
        "4294967296",
        "a.1",
        "08",
        "1..1",
        "1_27.0.0.1",
        "+127.0.0.1",
        "1.2.3.0xzz",
        "::g",
        ":::",
        "1:2",
        "9" * 40,
    ],
)
def test_a_host_that_ends_in_a_number_and_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        literal_address(host)


@examples(100)
@given(st.ip_addresses(v=4))
def test_every_dotted_address_is_read_as_the_standard_library_does(address: ipaddress.IPv4Address) -> None:
    assert literal_address(str(address)) == address
    assert literal_address(str(int(address))) == address
    assert literal_address(hex(int(address))) == address


numbers = st.integers(0, 2**33).flatmap(lambda n: st.sampled_from([str(n), hex(n), f"0{n:o}"])) | st.sampled_from(
    ["0", "255", "256", "08", "0x", "1_0", "+1", ""]
)


@examples(80)
@given(st.lists(numbers, min_size=1, max_size=5).map(".".join))
def test_what_the_c_library_takes_for_an_address_is_never_taken_for_a_name(host: str) -> None:
    try:
        expected = ipaddress.ip_address(socket.inet_aton(host))
    except OSError:
        return
    assert literal_address(host) == expected


@examples(100)
@given(any_text)
def test_any_text_is_an_address_a_name_or_refused(host: str) -> None:
    try:
        address = literal_address(host)
    except ValueError:
        return
    assert address is None or isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00::1",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "::169.254.169.254",
        "2002:a9fe:a9fe::",
        "2002:7f00:1::",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a9fe:a9fe",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_not_out_on_the_internet(address: str) -> None:
    assert is_public(ipaddress.ip_address(address)) is False


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_out_on_the_internet(address: str) -> None:
    assert is_public(ipaddress.ip_address(address)) is True


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.0.9",
        "169.254.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_on_this_machine_or_its_link(address: str) -> None:
    assert is_local(address) is True


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.1.1", "fd00::1", "8.8.8.8", "2606:4700::1111"])
def test_private_networks_are_not_local_for_vpc_endpoints_are_in_them(address: str) -> None:
    assert is_local(address) is False
