# SPDX-License-Identifier: Apache-2.0
"""Proxies and certificates of the machine: one rule for worker and triggerer, and errors that name what is at fault."""

from __future__ import annotations

import base64
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._transport import httpcore_transport
from airflow_provider_capillary.exceptions import CapillaryConfigurationError, CapillaryTransportError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import QUICK, SERIES
from tests.hooks.servers import Server, answering, closed_port, connect_proxy, silent, socks_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Authority, Connect, Logged, Start
    from tests.hooks.servers import Connection

HOST = "api.example.test"
REFUSED = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nProxy-Authenticate: Basic\r\n\r\n"


@pytest.fixture
def secure(start: Start, authority: Authority, connect: Connect) -> Sandbox:
    """A sandbox that speaks https, under a name that leads nowhere but through a proxy."""
    sandbox = start(ssl_context=authority.server_context(HOST))
    sandbox.add_job(SERIES)
    connect(sandbox, fields={"host": HOST, "port": 443}, verify=str(authority.bundle))
    return sandbox


@pytest.fixture
def plain(sandbox: Sandbox, connect: Connect) -> Sandbox:
    """A sandbox that speaks http, under such a name."""
    sandbox.add_job(SERIES)
    connect(sandbox, fields={"host": f"http://{HOST}", "port": 80}, allow_http=True)
    return sandbox


def proxied(sandbox: Sandbox, **options: Any) -> Server:
    """A proxy to a sandbox."""
    return connect_proxy({f"{HOST}:443": sandbox.port, HOST: sandbox.port}, **options)


class TestBypass:
    """Which hosts are reached without the proxy. What does not work here would end in a dead proxy."""

    @pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "socks://127.0.0.1:1", "http://"])
    @pytest.mark.parametrize(
        "hosts",
        ["127.0.0.1", "127.0.0.0/8", "fd00::/8,127.0.0.1", "fd00::/8, 127.0.0.1 ,", "*", "10.0.0.0/33,127.0.0.1"],
    )
    def test_covers_addresses_networks_and_everything(
        self,
        client: Client,
        sandbox: Sandbox,
        conn_id: str,
        monkeypatch: pytest.MonkeyPatch,
        proxy: str,
        hosts: str,
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", proxy)
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("NO_PROXY", hosts)
        assert client.jobs(conn_id) == []

    @pytest.mark.parametrize("hosts", ["localhost:{port}", ".localhost", "localhost"])
    @pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
    def test_covers_names_with_and_without_port(
        self,
        client: Client,
        sandbox: Sandbox,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
        hosts: str,
        variable: str,
    ) -> None:
        connect(sandbox, fields={"host": "http://localhost"})
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv(variable, hosts.format(port=sandbox.port))
        assert client.jobs() == []

    def test_the_variable_in_lower_case_counts_first(
        self, client: Client, sandbox: Sandbox, conn_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
        monkeypatch.setenv("no_proxy", "127.0.0.0/8")
        assert client.jobs(conn_id) == []

    @pytest.mark.parametrize("hosts", ["10.0.0.0/8", "127.0.0.1:1", "fd00::/8", "example.test"])
    def test_does_not_cover_others(
        self, client: Client, sandbox: Sandbox, conn_id: str, monkeypatch: pytest.MonkeyPatch, hosts: str
    ) -> None:
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("NO_PROXY", hosts)
        with connect_proxy({f"127.0.0.1:{sandbox.port}": sandbox.port}) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            assert client.jobs(conn_id) == []
            assert proxy.accepted > 0

    @pytest.mark.parametrize("variable", ["HTTPS_PROXY", "FTP_PROXY"])
    def test_a_proxy_of_another_scheme_does_not_matter(
        self, client: Client, sandbox: Sandbox, conn_id: str, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv(variable, "gopher://nothing to use")
        assert client.jobs(conn_id) == []


class TestThrough:
    """Requests that go through a proxy."""

    @pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
    @pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", " HTTP://127.0.0.1:{}/\n"])
    def test_https_goes_by_connect(
        self, client: Client, secure: Sandbox, monkeypatch: pytest.MonkeyPatch, variable: str, form: str
    ) -> None:
        with proxied(secure) as proxy:
            monkeypatch.setenv(variable, form.format(proxy.port))
            assert len(client.jobs()) == 1
            assert proxy.received.startswith(f"CONNECT {HOST}:443 ".encode())

    def test_http_goes_by_whole_urls(self, client: Client, plain: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        with proxied(plain) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            assert len(client.jobs()) == 1
            assert proxy.received.startswith(f"POST http://{HOST}/v3/oauth/token/generate ".encode())

    def test_a_proxy_may_be_spoken_to_by_tls(
        self, client: Client, secure: Sandbox, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with proxied(secure, tls=authority.server_context("localhost")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
            assert len(client.jobs()) == 1
            assert b"CONNECT" in proxy.received

    @pytest.mark.parametrize(
        ("written", "sent"),
        [
            ("agent:pass-word-77", "agent:pass-word-77"),
            ("agent:p%40ss%2Fw%25rd", "agent:p@ss/w%rd"),
            ("agent:p@ss:w%rd", "agent:p@ss:w%rd"),
            ("agent", "agent:"),
        ],
    )
    @pytest.mark.parametrize("scheme", ["https", "http"])
    def test_its_user_and_password_are_sent_the_same_way(
        self,
        client: Client,
        sandbox: Sandbox,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        written: str,
        sent: str,
        scheme: str,
    ) -> None:
        served = request.getfixturevalue("secure" if scheme == "https" else "plain")
        with proxied(served) as proxy:
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{written}@127.0.0.1:{proxy.port}")
            assert len(client.jobs()) == 1
            found = re.findall(rb"(?i)^proxy-authorization: Basic (\S+)", proxy.received, re.MULTILINE)
        assert found
        assert {base64.b64decode(each).decode() for each in found} == {sent}

    def test_its_password_is_not_logged(
        self, client: Client, secure: Sandbox, monkeypatch: pytest.MonkeyPatch, logged: Logged
    ) -> None:
        with proxied(secure) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://agent:pass-word-77@127.0.0.1:{proxy.port}")
            assert len(client.jobs()) == 1
        assert "pass-word-77" not in logged.text

    def test_a_socks_proxy_serves_a_worker(self, secure: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        with socks_proxy({f"{HOST}:443": secure.port}) as proxy:
            monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
            assert len(CapillaryHook(http_retry=QUICK).get_redeem_upload_jobs(SERIES)) == 1
            assert proxy.accepted == 1

    def test_each_hop_of_a_session_of_ones_own_goes_its_own_way(
        self, secure: Sandbox, start: Start, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside = start(ssl_context=authority.server_context("localhost"))
        secure.inject(Fault("redirect", endpoint="other", location=f"https://localhost:{inside.port}/y"))
        with proxied(secure) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            with CapillaryHook(http_retry=QUICK).get_conn() as session:
                assert session.get(f"https://{HOST}/coupon/x").status_code == 404
            assert b"localhost" not in proxy.received
        assert inside.count("other") == 1

    def test_each_hop_of_a_file_goes_its_own_way(
        self, start: Start, authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api, files = start(ssl_context=authority.server_context()), start(ssl_context=authority.server_context(HOST))
        held = files.add_job(SERIES, errors=2)
        job = api.add_job(SERIES, errors=2, error_file_url=f"{api.base_url}/files/first")
        api.inject(Fault("redirect", endpoint="files", location=f"https://{HOST}/files/{held.handle}"))
        connect(api, verify=str(authority.bundle))
        with proxied(files) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            hook = CapillaryHook(http_retry=QUICK)
            with hook.open_error_file(hook.get_redeem_upload_job(SERIES, job.job_id)) as stream:
                assert stream.read() == held.read_error_file()
            assert proxy.received.count(b"CONNECT ") == 1
            assert f"CONNECT {HOST}:443 ".encode() in proxy.received

    def test_a_proxy_that_the_user_of_a_session_chose_counts_more(
        self, secure: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with proxied(secure) as proxy, proxied(secure) as chosen:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            with CapillaryHook(http_retry=QUICK).get_conn() as session:
                session.proxies = {"https": f"http://127.0.0.1:{chosen.port}"}
                assert session.get(f"https://{HOST}/coupon/x").status_code == 404
            assert chosen.accepted == 1


class TestUnusableProxy:
    @pytest.mark.parametrize(
        ("written", "reason"),
        [
            ("socks://127.0.0.1:1080", "its scheme is none of http, https, socks5 and socks5h"),
            ("socks4://127.0.0.1:1080", "its scheme is none of"),
            ("ftp://proxy.example.test", "its scheme is none of"),
            ("http://", "it has no host"),
            ("http://:3128", "it has no host"),
            ("http://proxy.example.test:port", "it is malformed"),
            ("http://proxy.example.test:70000", "it is malformed"),
            ("http://[fd00::1", "it is malformed"),
            ("http://proxy example.test", "it has a space"),
            ("http://agent:pass-word-77@", "it has no host"),
            ("http://agent:pass-word-77/@proxy.example.test", "its user name or password has one of / ? # in it"),
            ("http://agent:pass-word-77ü@proxy.example.test", "a character that is not printable ASCII"),
            ("http://agent:pass-word-77%0A@proxy.example.test", "a character that is not printable ASCII"),
        ],
    )
    @pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
    def test_is_a_lasting_error_that_names_variable_and_connection(
        self, client: Client, secure: Sandbox, monkeypatch: pytest.MonkeyPatch, written: str, reason: str, variable: str
    ) -> None:
        monkeypatch.setenv(variable, written)
        with pytest.raises(CapillaryConfigurationError) as caught:
            client.jobs()
        message = str(caught.value)
        assert message.startswith(
            f"Connection 'capillary_default', environment variable {variable}: it names no usable proxy, because "
        )
        assert reason in message
        assert "pass-word-77" not in message
        assert not caught.value.is_transient

    @pytest.mark.parametrize("scheme", ["socks5", "socks5h", "SOCKS5"])
    def test_so_is_a_socks_proxy_without_the_package_for_it(
        self, client: Client, secure: Sandbox, monkeypatch: pytest.MonkeyPatch, scheme: str
    ) -> None:
        package = "socksio" if client.is_async else "socks"
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://agent:pass-word-77@127.0.0.1:1080")
        with pytest.raises(
            CapillaryConfigurationError, match=rf"environment variable ALL_PROXY: a SOCKS proxy needs .* '{package}'"
        ) as caught:
            client.jobs()
        assert "pass-word-77" not in str(caught.value)

    def test_is_found_by_the_test_button(self, secure: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "socks://127.0.0.1:1080")
        works, message = CapillaryHook().test_connection()
        assert not works
        assert "environment variable HTTPS_PROXY" in message

    def test_for_a_file_elsewhere_is_an_error_of_that_file_only(
        self, sandbox: Sandbox, conn_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file_url="https://files.example.test/x?sig=s3cr3t")
        monkeypatch.setenv("HTTPS_PROXY", "socks://127.0.0.1:1080")
        hook = CapillaryHook(conn_id, http_retry=QUICK)
        found = hook.get_redeem_upload_job(SERIES, job.job_id)
        with (
            pytest.raises(CapillaryConfigurationError, match="variable HTTPS_PROXY") as caught,
            hook.open_error_file(found) as stream,
        ):
            stream.read()
        assert "s3cr3t" not in str(caught.value)


class TestProxyAtFault:
    """What does not work because of the proxy is blamed on the proxy."""

    def failure(self, client: Client, monkeypatch: pytest.MonkeyPatch, url: str) -> CapillaryTransportError:
        for variable in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, url)
        with pytest.raises(CapillaryTransportError) as caught:
            client.jobs()
        assert "pass-word-77" not in str(caught.value)
        return caught.value

    @pytest.fixture(params=["https", "http"])
    def served(self, request: pytest.FixtureRequest) -> Sandbox:
        """A sandbox by either scheme."""
        return request.getfixturevalue("secure" if request.param == "https" else "plain")

    def test_one_that_nobody_listens_at(self, client: Client, served: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        error = self.failure(client, monkeypatch, f"http://agent:pass-word-77@127.0.0.1:{closed_port()}")
        assert re.search(r"the proxy \(environment variable HTTPS?_PROXY\) cannot be reached", str(error))
        assert error.is_transient

    def test_one_whose_name_cannot_be_resolved(
        self, client: Client, served: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        error = self.failure(client, monkeypatch, "http://proxy.invalid:3128")
        assert re.search(r"the name of the proxy \(environment variable HTTPS?_PROXY\) cannot be resolved", str(error))
        assert error.is_transient

    def test_one_that_wants_other_credentials(
        self, client: Client, served: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with connect_proxy({}, refusal=REFUSED % b"407 Proxy Authentication Required") as proxy:
            error = self.failure(client, monkeypatch, f"http://agent:pass-word-77@127.0.0.1:{proxy.port}")
            assert proxy.accepted == 1
        assert "the proxy does not accept its user name and password, or was sent none (HTTP 407)" in str(error)
        assert "HTTPS_PROXY" in str(error)
        assert not error.is_transient

    @pytest.mark.parametrize(
        ("answer", "status", "is_transient"),
        [(b"403 Forbidden", 403, False), (b"502 Bad Gateway", 502, True), (b"503 Busy", 503, True)],
    )
    def test_one_that_refuses_the_host(
        self,
        client: Client,
        secure: Sandbox,
        monkeypatch: pytest.MonkeyPatch,
        answer: bytes,
        status: int,
        is_transient: bool,
    ) -> None:
        with connect_proxy({}, refusal=REFUSED % answer) as proxy:
            error = self.failure(client, monkeypatch, f"http://127.0.0.1:{proxy.port}")
        assert "the proxy did not pass the request on" in str(error)
        assert f"environment variable HTTPS_PROXY, HTTP {status}" in str(error)
        assert error.is_transient is is_transient

    def test_one_that_never_answers(
        self, client: Client, secure: Sandbox, authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(secure, fields={"host": HOST, "port": 443}, verify=str(authority.bundle), timeout_seconds=0.2)
        with silent() as proxy:
            error = self.failure(client, monkeypatch, f"http://127.0.0.1:{proxy.port}")
        assert "no answer within 0.2 seconds through the proxy (environment variable HTTPS_PROXY)" in str(error)
        assert error.is_transient

    @pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n"])
    def test_one_that_is_none(
        self, client: Client, secure: Sandbox, monkeypatch: pytest.MonkeyPatch, answer: bytes
    ) -> None:
        with answering(answer) as proxy:
            error = self.failure(client, monkeypatch, f"http://127.0.0.1:{proxy.port}")
        assert "the proxy" in str(error)
        assert error.is_transient

    def test_one_that_does_not_speak_tls_although_its_url_says_so(
        self, client: Client, secure: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # It need not wait for the end of a request that it cannot read.
        with Server(_complain) as proxy:
            error = self.failure(client, monkeypatch, f"https://127.0.0.1:{proxy.port}")
        assert "the proxy (environment variable HTTPS_PROXY)" in str(error)
        assert "write http:// for a proxy that does not speak TLS" in str(error)

    def test_one_whose_certificate_is_not_trusted(
        self, client: Client, secure: Sandbox, other_authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with proxied(secure, tls=other_authority.server_context("localhost")) as proxy:
            error = self.failure(client, monkeypatch, f"https://localhost:{proxy.port}")
        assert "certificate of the host or the proxy (environment variable HTTPS_PROXY) is not trusted" in str(error)

    def test_but_not_an_untrusted_certificate_behind_it(
        self,
        client: Client,
        secure: Sandbox,
        other_authority: Authority,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        connect(secure, fields={"host": HOST, "port": 443}, verify=str(other_authority.bundle))
        with proxied(secure) as proxy:
            error = self.failure(client, monkeypatch, f"http://127.0.0.1:{proxy.port}")
        assert "the TLS certificate of the host is not trusted" in str(error)

    @pytest.mark.parametrize("is_dead", [True, False])
    def test_a_socks_proxy(self, secure: Sandbox, monkeypatch: pytest.MonkeyPatch, is_dead: bool) -> None:
        hook = CapillaryHook(http_retry=QUICK)
        with socks_proxy({}) as proxy:
            port = closed_port() if is_dead else proxy.port
            monkeypatch.setenv("HTTPS_PROXY", f"socks5h://127.0.0.1:{port}")
            with pytest.raises(CapillaryTransportError, match="cannot be reached" if is_dead else "did not pass") as e:
                hook.get_redeem_upload_jobs(SERIES)
        assert "the proxy" in str(e.value)

    def test_is_what_the_test_button_says(self, secure: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
        works, message = CapillaryHook().test_connection()
        assert not works
        assert "the proxy (environment variable HTTPS_PROXY) cannot be reached" in message


class TestCertificates:
    @pytest.fixture
    def here(self, start: Start, authority: Authority, connect: Connect) -> Sandbox:
        """A sandbox that speaks https on loopback, whose connection names no bundle."""
        # As a process that has just begun: certificates are read once.
        httpcore_transport._contexts.clear()
        sandbox = start(ssl_context=authority.server_context())
        connect(sandbox)
        return sandbox

    @pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    def test_a_bundle_of_the_machine_is_trusted_by_both(
        self, client: Client, here: Sandbox, authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, str(authority.bundle))
        assert client.jobs() == []

    @pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    @pytest.mark.parametrize("content", [None, "", "no certificate\n"])
    def test_a_bundle_that_is_none_is_named_with_field_and_variable(
        self,
        client: Client,
        here: Sandbox,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
        content: str | None,
    ) -> None:
        bundle = tmp_path / "bundle.pem"
        if content is not None:
            bundle.write_text(content)
        monkeypatch.setenv(variable, str(bundle))
        with pytest.raises(CapillaryConfigurationError) as caught:
            client.jobs()
        assert str(caught.value).startswith(
            f"Connection 'capillary_default', field 'Verify TLS': it is true, so environment variable {variable} counts"
        )
        assert str(bundle) in str(caught.value)
        assert here.counts == {}

    def test_a_bundle_that_becomes_none_is_noticed_by_the_next_hook(
        self, client: Client, here: Sandbox, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(authority.bundle.read_bytes())
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        assert client.jobs() == []
        bundle.write_text("no certificate\n")
        with pytest.raises(CapillaryConfigurationError, match="environment variable REQUESTS_CA_BUNDLE"):
            client.jobs()

    def test_the_variable_of_requests_counts_before_that_of_curl(
        self, client: Client, here: Sandbox, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
        monkeypatch.setenv("CURL_CA_BUNDLE", "/nowhere")
        assert client.jobs() == []

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_variables_that_requests_does_not_read_are_not_read_by_the_triggerer_either(
        self, client: Client, here: Sandbox, authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        bundle = authority.bundle
        monkeypatch.setenv(variable, str(bundle if variable == "SSL_CERT_FILE" else bundle.parent))
        with pytest.raises(CapillaryTransportError, match="is not trusted"):
            client.jobs()

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_nor_can_they_break_it(
        self, client: Client, sandbox: Sandbox, conn_id: str, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "/nowhere")
        assert client.jobs(conn_id) == []

    def test_a_path_that_no_file_can_have_is_refused(self, client: Client, here: Sandbox, connect: Connect) -> None:
        connect(here, verify="/etc/ssl\0/bundle.pem")
        with pytest.raises(CapillaryConfigurationError, match="field 'Verify TLS': there is no CA bundle"):
            client.jobs()


def _complain(connection: Connection) -> None:
    connection.receive()
    connection.send(REFUSED % b"400 Bad Request")
