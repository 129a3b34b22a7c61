# SPDX-License-Identifier: Apache-2.0
"""An answer from outside names the place of a file: places that it must not lead to."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

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
CREDENTIALS = "it carries credentials"

#: One for each way that a reference may go. tests/api/test_error_files.py has all of each rule.
HOSTILE = [
    ("../x", r"the handle has a '\.\.' segment"),
    ("a\r\nX-Evil: 1", "the handle has a control character"),
    ("file:///etc/passwd", "its scheme is not one of"),
    ("s3://bucket/../key", r"the handle has a '\.\.' segment"),
    ("http://169.254.169.254/latest?sig=s3cr3t", NOT_HTTPS),
    ("https://0xa9.254.43518/latest?sig=s3cr3t", "its address is private, loopback or link-local"),
    ("https://user:pass-word@files.example.test/x?sig=s3cr3t", CREDENTIALS),
]


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
