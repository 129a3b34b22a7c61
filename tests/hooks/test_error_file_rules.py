# SPDX-License-Identifier: Apache-2.0
"""An answer from outside names the place of a file: places that it must not lead to."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.error_files import check_peer
from airflow_provider_capillary.exceptions import CapillaryErrorFileError, CapillaryTransportError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import QUICK, SERIES
from tests.hooks.servers import Connection, Server, connect_proxy
from tests.hooks.test_error_files import job_at, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.conftest import Authority, Connect, Logged, Start, Watch

NOT_HTTPS = "it is not https"
NOT_PUBLIC = "its address is private, loopback or link-local"
THIS_MACHINE = "its host is this machine"
CREDENTIALS = "it carries credentials"
DOTS = r"the handle has a '\.\.' segment"
PERCENT = "the handle has a backslash or a percent sign"
CONTROL = "the handle has a control character"
SCHEME = "its scheme is not one of"
MALFORMED = "its host is a malformed address"

HOSTILE = [
    ("../x", DOTS),
    ("a/../../b", DOTS),
    ("a/..", DOTS),
    ("..", DOTS),
    ("/etc/passwd", "the handle begins with a slash"),
    ("//evil.example.test/x", "the handle begins with a slash"),
    ("%2e%2e%2f", PERCENT),
    ("a%00b", PERCENT),
    ("..\\x", PERCENT),
    ("a\nb", CONTROL),
    ("a\r\nX-Evil: 1", CONTROL),
    ("a\x00", CONTROL),
    ("a\x7f", CONTROL),
    ("   ", "it is empty"),
    ("x" * 5000, "longer than 4096 characters"),
    ("simplecache::file", "chains file systems"),
    ("simplecache::s3://bucket/key", SCHEME),
    ("file:///etc/passwd", SCHEME),
    ("FILE:///etc/passwd", SCHEME),
    ("ftp://files.example.test/x", SCHEME),
    ("github://org:repo@/x", SCHEME),
    ("jar:file:///x!/y://z", SCHEME),
    ("s3://conn_id@bucket/key", CREDENTIALS),
    ("s3://bucket", "it names no object"),
    ("s3:///key", "it names no object"),
    ("s3://bucket/../key", DOTS),
    ("http://files.example.test/x?sig=s3cr3t", NOT_HTTPS),
    ("http://169.254.169.254/latest?sig=s3cr3t", NOT_HTTPS),
    ("http://2852039166/latest?sig=s3cr3t", NOT_HTTPS),
    ("http://[::ffff:169.254.169.254]/latest?sig=s3cr3t", NOT_HTTPS),
    ("https://169.254.169.254/latest?sig=s3cr3t", NOT_PUBLIC),
    ("https://2852039166/latest?sig=s3cr3t", NOT_PUBLIC),
    ("https://0xa9.254.43518/latest?sig=s3cr3t", NOT_PUBLIC),
    ("https://0251.0376.0251.0376/latest?sig=s3cr3t", NOT_PUBLIC),
    ("https://[::ffff:169.254.169.254]/latest?sig=s3cr3t", NOT_PUBLIC),
    ("https://[64:ff9b::a9fe:a9fe]/latest?sig=s3cr3t", NOT_PUBLIC),
    ("https://[fe80::1]/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://[::1]/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://[::]/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://0/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://127.1/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://10.1.2.3/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://172.16.0.1/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://192.168.0.1:8443/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://100.64.0.1/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://224.0.0.1/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://255.255.255.255/x?sig=s3cr3t", NOT_PUBLIC),
    ("https://169.254.169.254./x?sig=s3cr3t", NOT_PUBLIC),
    ("https://localhost/x?sig=s3cr3t", THIS_MACHINE),
    ("https://LOCALHOST./x?sig=s3cr3t", THIS_MACHINE),
    ("https://files.localhost/x?sig=s3cr3t", THIS_MACHINE),
    ("https://256.256.256.256/x?sig=s3cr3t", MALFORMED),
    ("https://1.2.3.4.5/x?sig=s3cr3t", MALFORMED),
    ("https://user:pass-word@files.example.test/x?sig=s3cr3t", CREDENTIALS),
    ("https://user@files.example.test/x?sig=s3cr3t", CREDENTIALS),
    ("https://files.example.test\\@169.254.169.254/x?sig=s3cr3t", "a space, a control character or a backslash"),
    ("https://files.example.test/x y?sig=s3cr3t", "a space, a control character or a backslash"),
    ("https://files.example.test/x\r\nHost: y?sig=s3cr3t", "a space, a control character or a backslash"),
    ("https:///x?sig=s3cr3t", "it has no host"),
    ("https://files.example.test:0/x?sig=s3cr3t", "its port is 0"),
    ("https://files.example.test:99999/x?sig=s3cr3t", "it is malformed"),
    ("https://[::1/x?sig=s3cr3t", "it is malformed"),
    ("https://①②⑦.⓪.⓪.①/x?sig=s3cr3t", "(not ASCII|malformed)"),
    ("https://files。example.test/x?sig=s3cr3t", "(not ASCII|malformed)"),
    ("https://files.example.test%2f@evil/x?sig=s3cr3t", CREDENTIALS),
    ("https://a%2eb.example.test/x?sig=s3cr3t", "a character that no host has"),
]  # fmt: skip


def refused(hook: CapillaryHook, reference: str, rule: str) -> str:
    """Open an error file that is refused by this rule; return the message."""
    with pytest.raises(CapillaryErrorFileError) as caught, hook.open_error_file(job_at(reference)) as stream:
        stream.read()
    assert re.search(rule, str(caught.value)), str(caught.value)
    assert not caught.value.is_transient
    return str(caught.value)


@pytest.mark.parametrize(("reference", "rule"), HOSTILE, ids=[ascii(reference)[1:40] for reference, _ in HOSTILE])
def test_a_hostile_reference_is_refused_before_anything_is_sent(
    sandbox: Sandbox, conn_id: str, watch: Watch, logged: Logged, reference: str, rule: str
) -> None:
    message = refused(CapillaryHook(conn_id, http_retry=QUICK), reference, rule)
    assert sandbox.counts == {}
    assert watch.of("socket.connect", "socket.getaddrinfo") == []
    assert not [path for path, *_ in watch.of("open") if path == "/etc/passwd"]
    for text in (message, logged.text):
        assert "s3cr3t" not in text
        assert "pass-word" not in text
    assert message.isprintable()


@pytest.mark.parametrize(
    ("handle", "rule"), [each for each in HOSTILE if "://" not in each[0]], ids=lambda value: ascii(value)[1:30]
)
@pytest.mark.parametrize("template", ["http://127.0.0.1:{port}/files/{{handle}}", "file://{folder}/{{handle}}"])
def test_no_template_makes_a_hostile_handle_good(
    sandbox: Sandbox, connect: Connect, tmp_path: Path, handle: str, rule: str, template: str
) -> None:
    connect(sandbox, error_file_url=template.format(port=sandbox.port, folder=tmp_path / "inner"))
    (tmp_path / "inner").mkdir()
    (tmp_path / "x").write_bytes(b"not for you")
    refused(CapillaryHook(http_retry=QUICK), handle, rule)
    assert sandbox.counts == {}


@pytest.mark.parametrize("reference", ["a..b", "a/b..csv", ".hidden", "a@b", "a:b", "ü/ü", "a b", "{handle}"])
def test_a_strange_handle_that_harms_nobody_is_taken(sandbox: Sandbox, conn_id: str, reference: str) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file_url=reference)
    assert read(reference) == job.read_error_file()


def test_plain_http_is_for_the_api_host_alone(sandbox: Sandbox, start: Start, connect: Connect) -> None:
    # The same address, but another port: nobody said that plain http is fine there.
    other = start()
    connect(sandbox)
    refused(CapillaryHook(http_retry=QUICK), f"{other.base_url}/files/x?sig=s3cr3t", NOT_HTTPS)
    assert other.counts == {}


def test_a_redirect_to_plain_http_elsewhere_is_refused(sandbox: Sandbox, start: Start, conn_id: str) -> None:
    other = start()
    sandbox.inject(Fault("redirect", endpoint="files", location=f"{other.base_url}/files/x?sig=s3cr3t"))
    hook = CapillaryHook(conn_id, http_retry=QUICK)
    message = refused(hook, f"{sandbox.base_url}/files/x", NOT_HTTPS)
    assert "s3cr3t" not in message
    assert other.counts == {}


@pytest.mark.parametrize("location", ["https://[", "https://[::1/x", "http://a:b:c/", "//["])
def test_a_redirect_to_a_malformed_place_is_refused(sandbox: Sandbox, conn_id: str, location: str) -> None:
    sandbox.inject(Fault("redirect", endpoint="files", location=location))

    refused(CapillaryHook(conn_id, http_retry=QUICK), f"{sandbox.base_url}/files/x", "malformed")


@pytest.mark.parametrize("scheme", ["s3", "S3A", "gs", "gcs", "abfs", "abfss"])
def test_an_object_store_may_be_named_but_not_which_connection_it_is_read_with(
    sandbox: Sandbox, conn_id: str, scheme: str
) -> None:
    refused(CapillaryHook(conn_id), f"{scheme}://my_admin_connection@bucket/key", CREDENTIALS)


class TestNames:
    """A name from outside that resolves to this machine, or to its link."""

    HOST = "files.example.test"

    @pytest.fixture
    def inside(self) -> Iterator[Server]:
        """A service of this machine, which must not get to see anything."""
        with Server(lambda connection: _drain(connection)) as server:
            yield server

    @pytest.fixture
    def lookups(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names that were resolved."""
        return []

    def resolve(
        self, monkeypatch: pytest.MonkeyPatch, lookups: list[str], address: str, port: int, host: str = HOST
    ) -> None:
        """Let a name resolve to an address. A patch, because nobody here can put a name into the DNS."""
        genuine = socket.getaddrinfo

        def getaddrinfo(name: Any, *args: Any, **kwargs: Any) -> Any:
            if name != host:
                return genuine(name, *args, **kwargs)
            lookups.append(name)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    @pytest.mark.parametrize("spelling", [HOST, HOST.upper(), f"{HOST}."])
    def test_one_that_resolves_to_loopback_is_refused_before_any_byte_is_sent(
        self,
        sandbox: Sandbox,
        conn_id: str,
        inside: Server,
        monkeypatch: pytest.MonkeyPatch,
        lookups: list[str],
        spelling: str,
    ) -> None:
        found = spelling if spelling.endswith(".") else self.HOST
        self.resolve(monkeypatch, lookups, "127.0.0.1", inside.port, found)
        hook = CapillaryHook(conn_id, http_retry=QUICK)
        message = refused(hook, f"https://{spelling}/x?sig=s3cr3t", "resolves to a loopback or link-local address")
        assert "s3cr3t" not in message
        assert lookups == [found]
        assert (inside.accepted <= 1, inside.received) == (True, b"")
        assert sandbox.counts == {}

    def test_so_is_one_that_resolves_to_ipv6_loopback(
        self, conn_id: str, monkeypatch: pytest.MonkeyPatch, lookups: list[str]
    ) -> None:
        try:
            server = Server(_drain, host="::1")
        except OSError:
            pytest.skip("this machine has no IPv6")
        with server:
            self.resolve(monkeypatch, lookups, "::1", server.port)
            refused(CapillaryHook(conn_id), f"https://{self.HOST}/x", "resolves to a loopback")
            assert server.received == b""

    def test_so_is_one_that_a_redirect_leads_to(
        self,
        sandbox: Sandbox,
        conn_id: str,
        inside: Server,
        monkeypatch: pytest.MonkeyPatch,
        lookups: list[str],
    ) -> None:
        self.resolve(monkeypatch, lookups, "127.0.0.1", inside.port)
        sandbox.inject(Fault("redirect", endpoint="download", location=f"https://{self.HOST}/x?sig=s3cr3t"))
        message = refused(CapillaryHook(conn_id, http_retry=QUICK), "handle", "resolves to a loopback")
        assert "s3cr3t" not in message
        assert inside.received == b""

    def test_so_is_one_that_resolves_differently_the_second_time(
        self,
        start: Start,
        authority: Authority,
        connect: Connect,
        inside: Server,
        monkeypatch: pytest.MonkeyPatch,
        lookups: list[str],
    ) -> None:
        # The check is made of each connection, not of the name beforehand.
        api = start(ssl_context=authority.server_context())
        connect(api, verify=str(authority.bundle))
        hook = CapillaryHook(http_retry=QUICK)
        answers = iter(["203.0.113.9", "127.0.0.1"])
        genuine = socket.getaddrinfo

        def getaddrinfo(name: Any, *args: Any, **kwargs: Any) -> Any:
            if name != self.HOST:
                return genuine(name, *args, **kwargs)
            address = next(answers)
            lookups.append(address)
            if address != "127.0.0.1":
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, inside.port))]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        refused(hook, f"https://{self.HOST}/x", "resolves to a loopback")
        assert len(lookups) == 2
        assert inside.received == b""

    def test_the_api_host_itself_may_be_this_machine(
        self,
        start: Start,
        authority: Authority,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
        lookups: list[str],
    ) -> None:
        api = start(ssl_context=authority.server_context(self.HOST))
        job = api.add_job(SERIES, errors=1)
        self.resolve(monkeypatch, lookups, "127.0.0.1", api.port)
        connect(api, fields={"host": f"https://{self.HOST}"}, verify=str(authority.bundle))
        assert read(job.handle) == job.read_error_file()
        assert read(f"https://{self.HOST}:{api.port}/files/{job.handle}") == job.read_error_file()

    def test_so_may_the_host_of_the_template(
        self,
        sandbox: Sandbox,
        start: Start,
        authority: Authority,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
        lookups: list[str],
    ) -> None:
        files = start(ssl_context=authority.server_context(self.HOST))
        job = files.add_job(SERIES, errors=1)
        self.resolve(monkeypatch, lookups, "127.0.0.1", files.port)
        template = f"https://{self.HOST}:{files.port}/files/{{handle}}"
        connect(sandbox, error_file_url=template, verify=str(authority.bundle))
        assert read(job.handle) == job.read_error_file()

    @pytest.mark.parametrize(
        "address",
        ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "::ffff:127.0.0.1",
         "127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "64:ff9b::7f00:1"],
    )  # fmt: skip
    def test_the_link_and_this_machine_are_refused_in_every_form(
        self, sandbox: Sandbox, conn_id: str, address: str
    ) -> None:
        # Asked directly: nothing here can connect to a link-local address.
        with pytest.raises(CapillaryErrorFileError, match="resolves to a loopback or link-local"):
            check_peer(self.HOST, address, CapillaryHook(conn_id).settings)

    @pytest.mark.parametrize("address", ["10.0.0.8", "192.168.1.1", "fd00::8", "203.0.113.9", "2001:db8::1"])
    def test_private_networks_stay_within_reach_of_names(self, conn_id: str, address: str) -> None:
        # VPC endpoints of object stores are in there.
        check_peer(self.HOST, address, CapillaryHook(conn_id).settings)

    def test_a_name_behind_a_proxy_is_the_proxys_business(
        self, sandbox: Sandbox, conn_id: str, monkeypatch: pytest.MonkeyPatch, lookups: list[str], inside: Server
    ) -> None:
        # The proxy is on loopback, as a sidecar is, and resolves names itself.
        self.resolve(monkeypatch, lookups, "127.0.0.1", inside.port)
        refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        with connect_proxy({}, refusal=refusal) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            with pytest.raises(CapillaryTransportError, match="the proxy did not pass the request on"):
                read(f"https://{self.HOST}/x?sig=s3cr3t")
            assert proxy.received.startswith(b"CONNECT files.example.test:443 ")
            assert b"s3cr3t" not in proxy.received
        assert lookups == []


def _drain(connection: Connection) -> None:
    while connection.receive():
        pass
