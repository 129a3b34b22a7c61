# SPDX-License-Identifier: Apache-2.0
"""Which certificates are trusted, and which error a user gets otherwise."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_capillary.exceptions import CapillaryConfigurationError, CapillaryTransportError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from tests.hooks.clients import QUICK, SERIES
from tests.hooks.conftest import BUNDLE_VARIABLES, make_authority
from tests.hooks.servers import relay

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Authority, Connect, Logged, Start


@pytest.fixture
def secure(start: Start, authority: Authority) -> Sandbox:
    """A sandbox that speaks https."""
    return start(ssl_context=authority.server_context())


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
class TestTrust:
    def test_a_certificate_of_nobody_known_is_refused_at_once(
        self, client: Client, secure: Sandbox, connect: Connect
    ) -> None:
        with relay(secure.port) as counting:
            connect(secure, fields={"port": counting.port})
            with pytest.raises(
                CapillaryTransportError, match=r"certificate .* is not trusted; .*'Verify TLS'"
            ) as caught:
                client.jobs()
            assert counting.accepted == 1
        assert not caught.value.is_transient
        assert secure.counts == {}

    def test_a_certificate_of_another_host_is_refused_as_well(
        self, client: Client, start: Start, authority: Authority, connect: Connect
    ) -> None:
        sandbox = start(ssl_context=authority.server_context("someone-else.example.test"))
        connect(sandbox, verify=str(authority.bundle))
        with pytest.raises(CapillaryTransportError, match="is not trusted"):
            client.jobs()
        assert sandbox.counts == {}

    def test_a_bundle_makes_it_trusted(
        self, client: Client, secure: Sandbox, authority: Authority, connect: Connect
    ) -> None:
        secure.add_job(SERIES)
        connect(secure, verify=str(authority.bundle))
        assert len(client.jobs()) == 1

    def test_another_bundle_does_not(
        self, client: Client, secure: Sandbox, other_authority: Authority, connect: Connect
    ) -> None:
        connect(secure, verify=str(other_authority.bundle))
        with pytest.raises(CapillaryTransportError, match="is not trusted"):
            client.jobs()

    @pytest.mark.parametrize("off", [False, "false", "False"])
    def test_checking_can_be_switched_off_which_is_warned_about(
        self, client: Client, secure: Sandbox, connect: Connect, logged: Logged, off: bool | str
    ) -> None:
        connect(secure, "unchecked", verify=off)
        assert client.jobs("unchecked") == []
        assert "'unchecked' does not check TLS certificates" in logged.text

    @pytest.mark.parametrize("variable", BUNDLE_VARIABLES)
    def test_a_bundle_of_the_machine_does_not_replace_that_of_the_connection(
        self,
        client: Client,
        secure: Sandbox,
        authority: Authority,
        other_authority: Authority,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
    ) -> None:
        monkeypatch.setenv(variable, str(other_authority.bundle))
        connect(secure, verify=str(authority.bundle))
        assert client.jobs() == []

    @pytest.mark.parametrize("variable", BUNDLE_VARIABLES)
    def test_a_bundle_of_the_machine_does_not_add_to_that_of_the_connection(
        self,
        client: Client,
        secure: Sandbox,
        authority: Authority,
        tmp_path: Path,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
    ) -> None:
        # Whoever names a bundle wants these certificates, and no others, to be good.
        monkeypatch.setenv(variable, str(authority.bundle))
        connect(secure, verify=str(make_authority(tmp_path, "pinned").bundle))
        with pytest.raises(CapillaryTransportError, match="is not trusted"):
            client.jobs()
        assert secure.counts == {}

    def test_a_bundle_of_the_machine_does_not_switch_checking_on_again(
        self,
        client: Client,
        secure: Sandbox,
        other_authority: Authority,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other_authority.bundle))
        connect(secure, verify=False)
        assert client.jobs() == []

    def test_a_bundle_that_was_replaced_is_read_again(
        self, client: Client, start: Start, tmp_path: Path, connect: Connect
    ) -> None:
        # Certificates are renewed in place, while a triggerer goes on for months.
        old, new = make_authority(tmp_path, "old"), make_authority(tmp_path, "new")
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(old.bundle.read_bytes())
        assert client.jobs(connect(start(ssl_context=old.server_context()), verify=str(bundle))) == []
        bundle.write_bytes(new.bundle.read_bytes() + old.bundle.read_bytes())
        assert client.jobs(connect(start(ssl_context=new.server_context()), verify=str(bundle))) == []


class TestUnusableBundle:
    def test_one_that_is_not_there_is_named_with_its_field(
        self, client: Client, secure: Sandbox, connect: Connect, tmp_path: Path
    ) -> None:
        missing = tmp_path / "missing.pem"
        connect(secure, "no_bundle", verify=str(missing))
        with pytest.raises(CapillaryConfigurationError, match=r"'no_bundle', field 'Verify TLS'") as caught:
            client.jobs("no_bundle")
        assert str(missing) in str(caught.value)
        assert secure.counts == {}

    def test_one_that_is_no_certificate_is_named_as_well(
        self, client: Client, secure: Sandbox, connect: Connect, tmp_path: Path
    ) -> None:
        bundle = tmp_path / "bundle.pem"
        bundle.write_text("this is no certificate\n")
        connect(secure, "bad_bundle", verify=str(bundle))
        with pytest.raises(CapillaryConfigurationError, match=r"'bad_bundle', field 'Verify TLS'"):
            client.jobs("bad_bundle")
        assert secure.counts == {}

    def test_a_folder_is_taken_or_refused_in_plain_words_by_both(
        self, client: Client, secure: Sandbox, connect: Connect, tmp_path: Path
    ) -> None:
        # An empty folder: whoever takes it trusts nobody.
        connect(secure, verify=str(tmp_path))
        with pytest.raises((CapillaryConfigurationError, CapillaryTransportError), match="Verify TLS"):
            client.jobs()
        assert secure.counts == {}


class TestEverywhere:
    def test_a_session_of_ones_own_trusts_the_same(
        self, secure: Sandbox, start: Start, authority: Authority, other_authority: Authority, connect: Connect
    ) -> None:
        other = start(ssl_context=other_authority.server_context())
        with CapillaryHook(connect(secure, verify=str(authority.bundle))).get_conn() as session:
            assert session.get(f"{secure.base_url}/coupon/x").status_code == 404
            with pytest.raises(requests.exceptions.SSLError):
                session.get(f"{other.base_url}/coupon/x")
        assert (secure.count("other"), other.counts) == (1, {})

    def test_an_error_file_comes_over_it(self, secure: Sandbox, authority: Authority, connect: Connect) -> None:
        job = secure.add_job(SERIES, errors=3)
        connect(secure, verify=str(authority.bundle))
        hook = CapillaryHook(http_retry=QUICK)
        with hook.open_error_file(hook.get_redeem_upload_job(SERIES, job.job_id)) as stream:
            assert stream.read() == job.read_error_file()

    def test_a_file_of_a_host_that_is_not_trusted_is_not_read(
        self, secure: Sandbox, start: Start, other_authority: Authority, authority: Authority, connect: Connect
    ) -> None:
        files = start(ssl_context=other_authority.server_context())
        job = secure.add_job(SERIES, errors=3, error_file_url=f"{files.base_url}/files/x")
        connect(secure, verify=str(authority.bundle))
        hook = CapillaryHook(http_retry=QUICK)
        found = hook.get_redeem_upload_job(SERIES, job.job_id)
        with pytest.raises(CapillaryTransportError, match="is not trusted"), hook.open_error_file(found) as stream:
            stream.read()
        assert files.counts == {}

    def test_old_tls_is_not_spoken(self, client: Client, start: Start, authority: Authority, connect: Connect) -> None:
        context = authority.server_context()
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        sandbox = start(ssl_context=context)
        connect(sandbox, verify=str(authority.bundle))
        with pytest.raises(CapillaryTransportError):
            client.jobs()
        assert sandbox.counts == {}
