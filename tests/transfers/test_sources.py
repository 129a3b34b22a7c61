# SPDX-License-Identifier: Apache-2.0
"""Where the error file comes from, and where it must not come from: `errorFileUrl` is somebody else's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.exceptions import CapillaryErrorFileError
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.transfers.running import SERIES, SMALL, Run, connect, file_url, pull
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.transfers.stores import LocalFolder

NAME = "errors.csv"
TOKEN_HEADER = "X-CAP-API-OAUTH-TOKEN"
ORG_HEADER = "X-CAP-API-AUTH-ORG-ID"


#: References that break a rule, with a word of the rule. tests/api/test_error_files.py has all of each rule.
HANDLES = {"a parent folder": ("../x", "'..' segment")}
URLS = {
    "a metadata service": ("https://169.254.169.254/latest/meta-data/", "private, loopback or link-local"),
    "a user and a password": ("https://user:hunter2@files.example/x", "carries credentials"),
    "an object with keys": ("s3://key:hunter2@bucket/x", "carries credentials"),
    "an object of another connection": ("s3://other_conn@bucket/x", "carries credentials"),
}


@pytest.fixture
def other() -> Iterator[Sandbox]:
    """Another server on this machine, which is not the API host."""
    with Sandbox() as running:
        yield running


class TestRefusedReferences:
    @pytest.mark.parametrize(("reference", "rule"), [*HANDLES.values(), *URLS.values()], ids=[*HANDLES, *URLS])
    def test_what_breaks_a_rule_is_not_fetched_and_the_message_says_the_rule(
        self, sandbox: Sandbox, store: LocalFolder, reference: str, rule: str
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file_url=reference)
        run = Run(job, store.folder)

        with pytest.raises(CapillaryErrorFileError) as caught:
            run()

        assert "is not fetched, because" in str(caught.value)
        assert rule in str(caught.value)
        assert str(caught.value).isprintable()
        assert "hunter2" not in str(caught.value)
        assert [request.endpoint for request in sandbox.requests] == ["token", "status"]
        assert store.visible() == {}
        assert store.unfinished() == []
        assert run.xcoms == {}

    @pytest.mark.parametrize(("reference", "rule"), HANDLES.values(), ids=HANDLES)
    @pytest.mark.parametrize("scheme", ["http", "file"])
    def test_a_handle_that_breaks_a_rule_does_not_get_into_a_template_either(
        self,
        sandbox: Sandbox,
        store: LocalFolder,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        scheme: str,
        reference: str,
        rule: str,
    ) -> None:
        places = {"http": f"{sandbox.base_url}/files", "file": f"file://{tmp_path}/files"}
        connect(monkeypatch, sandbox, error_file_url=places[scheme] + "/{handle}")
        job = sandbox.add_job(SERIES, errors=1, error_file_url=reference)

        with pytest.raises(CapillaryErrorFileError, match="is not fetched, because") as caught:
            pull(job, store.folder)

        assert rule in str(caught.value)
        assert [request.endpoint for request in sandbox.requests] == ["token", "status"]

    @pytest.mark.parametrize(("reference", "rule"), URLS.values(), ids=URLS)
    def test_a_redirect_is_checked_like_a_url_of_its_own(
        self, sandbox: Sandbox, store: LocalFolder, reference: str, rule: str
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file_url=file_url(sandbox))
        sandbox.inject(Fault("redirect", endpoint="files", location=reference))

        with pytest.raises(CapillaryErrorFileError, match="is not fetched, because") as caught:
            pull(job, store.folder)

        # Within the web, what is no URL of the web breaks another rule.
        assert any(words in str(caught.value) for words in (rule, "neither https", "has no host"))
        assert "hunter2" not in str(caught.value)
        assert sandbox.count("files") == 1
        assert store.visible() == {}
        assert store.unfinished() == []

    def test_a_redirect_to_another_server_on_this_machine_is_not_followed(
        self, sandbox: Sandbox, other: Sandbox, store: LocalFolder
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1)
        sandbox.inject(Fault("redirect", endpoint="download", location=f"{other.base_url}/files/x"))

        with pytest.raises(CapillaryErrorFileError, match="not https"):
            pull(job, store.folder)

        assert other.requests == []

    def test_redirects_that_never_end_are_given_up(self, sandbox: Sandbox, store: LocalFolder) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file_url=file_url(sandbox))
        sandbox.inject(Fault("redirect", endpoint="files", location=file_url(sandbox), times=None))

        with pytest.raises(CapillaryErrorFileError, match="redirects more than 5 times"):
            pull(job, store.folder)

    @pytest.mark.parametrize(
        "reference",
        [
            "https://10.0.0.1/x?X-Amz-Signature=hunter2",
            "ftp://files.example/x?sig=hunter2",
        ],
    )
    def test_the_query_of_a_signed_url_is_not_shown(self, sandbox: Sandbox, store: LocalFolder, reference: str) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file_url=reference)

        with pytest.raises(CapillaryErrorFileError) as caught:
            pull(job, store.folder)

        assert "hunter2" not in str(caught.value)

    def test_the_query_of_a_signed_url_is_not_shown_where_the_fetch_fails_either(
        self, sandbox: Sandbox, store: LocalFolder
    ) -> None:
        url = file_url(sandbox) + "?X-Amz-Signature=hunter2"
        job = sandbox.add_job(SERIES, errors=1, error_file_url=url)
        sandbox.inject(Fault("reset", endpoint="files", times=None))

        with pytest.raises(Exception, match="the connection broke off") as caught:
            pull(job, store.folder)

        assert "hunter2" not in str(caught.value)


class TestSources:
    def test_a_bare_handle_is_asked_for_with_the_token_at_the_api_host(
        self, sandbox: Sandbox, store: LocalFolder
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

        pull(job, store.folder + NAME)

        request = sandbox.requests[-1]
        assert (request.method, request.path) == ("POST", "/coupon/api/v1/download")
        assert request.headers[TOKEN_HEADER] == sandbox.tokens_issued[-1]
        assert store.visible() == {NAME: Content.of(SMALL)}

    def test_a_url_with_a_signature_is_fetched_as_it_stands(self, sandbox: Sandbox, store: LocalFolder) -> None:
        url = file_url(sandbox, "a%20b.csv") + "?sig=a%2Fb+c&x"
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL, error_file_url=url)

        pull(job, store.folder + NAME)

        assert (sandbox.requests[-1].path, sandbox.requests[-1].query) == ("/files/a%20b.csv", "sig=a%2Fb+c&x")
        assert store.visible() == {NAME: Content.of(SMALL)}

    def test_a_redirect_is_followed(self, sandbox: Sandbox, store: LocalFolder) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL, error_file_url=file_url(sandbox))
        sandbox.inject(Fault("redirect", endpoint="files", location="/files/errors.csv?moved"))

        pull(job, store.folder + NAME)

        assert sandbox.requests[-1].query == "moved"
        assert store.visible() == {NAME: Content.of(SMALL)}

    @pytest.mark.parametrize("handle", ["a b", "a/b", "a?b", "a#b", "ä", "a&b=c"])
    def test_a_handle_is_quoted_into_a_url(
        self, sandbox: Sandbox, store: LocalFolder, monkeypatch: pytest.MonkeyPatch, handle: str
    ) -> None:
        connect(monkeypatch, sandbox, error_file_url=sandbox.base_url + "/files/{handle}")
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL, error_file_url=handle)

        pull(job, store.folder + NAME)

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert sandbox.requests[-1].query == ""

    def test_capillary_headers_go_to_the_api_host_only(
        self, sandbox: Sandbox, other: Sandbox, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(
            monkeypatch,
            sandbox,
            error_file_url=other.base_url + "/files/{handle}",
            headers={ORG_HEADER: "100458"},
        )
        job = sandbox.add_job(SERIES, errors=1, error_file_url="theirs.csv")
        other.add_job(SERIES, errors=1, error_file=SMALL, error_file_url="theirs.csv")

        pull(job, store.folder + NAME)

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert ORG_HEADER in sandbox.requests[-1].headers
        (request,) = other.requests
        assert not {TOKEN_HEADER.lower(), ORG_HEADER.lower(), "authorization", "cookie"} & set(request.headers)

    def test_capillary_headers_do_not_follow_a_redirect_to_another_host(
        self, sandbox: Sandbox, other: Sandbox, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(
            monkeypatch,
            sandbox,
            error_file_url=other.base_url + "/files/{handle}",
            headers={ORG_HEADER: "100458"},
        )
        job = sandbox.add_job(SERIES, errors=1, error_file_url=file_url(sandbox))
        other.add_job(SERIES, errors=1, error_file=SMALL, error_file_url="theirs.csv")
        sandbox.inject(Fault("redirect", endpoint="files", location=f"{other.base_url}/files/theirs.csv"))

        pull(job, store.folder + NAME)

        assert store.visible() == {NAME: Content.of(SMALL)}
        (request,) = other.requests
        assert not {TOKEN_HEADER.lower(), ORG_HEADER.lower(), "authorization", "cookie"} & set(request.headers)


class TestFolderAsSource:
    @pytest.fixture
    def files(self, tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A mounted folder in which the connection says that error files are."""
        folder = tmp_path / "mounted"
        folder.mkdir()
        connect(monkeypatch, sandbox, error_file_url=f"file://{folder}/{{handle}}.csv")
        return folder

    @pytest.mark.parametrize("content", [b"", SMALL], ids=["empty", "small"])
    def test_a_template_leads_from_a_handle_to_a_file(
        self, sandbox: Sandbox, store: LocalFolder, files: Path, content: bytes
    ) -> None:
        job = sandbox.add_job(SERIES, errors=int(bool(content)), error_file=b"not here")
        (files / f"{job.handle}.csv").write_bytes(content)

        run = pull(job, store.folder + NAME)

        assert store.visible() == {NAME: Content.of(content)}
        assert run.xcoms["error_file"]["size_bytes"] == len(content)
        assert sandbox.count("download") == 0

    def test_a_file_that_is_not_there_is_an_error_that_names_it(
        self, sandbox: Sandbox, store: LocalFolder, files: Path
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1)

        with pytest.raises(CapillaryErrorFileError, match=f"no error file at file://{files}/{job.handle}.csv"):
            pull(job, store.folder)

        assert store.visible() == {}
        assert store.unfinished() == []

    def test_what_is_no_file_is_an_error_that_names_it(self, sandbox: Sandbox, store: LocalFolder, files: Path) -> None:
        job = sandbox.add_job(SERIES, errors=1)
        (files / f"{job.handle}.csv").mkdir()

        with pytest.raises(CapillaryErrorFileError, match=f"file://{files}/{job.handle}.csv"):
            pull(job, store.folder)

        assert store.visible() == {}
        assert store.unfinished() == []

    def test_the_destination_may_be_the_source(self, sandbox: Sandbox, files: Path) -> None:
        job = sandbox.add_job(SERIES, errors=1)
        source = files / f"{job.handle}.csv"
        source.write_bytes(SMALL)

        pull(job, str(source))

        assert source.read_bytes() == SMALL

    @pytest.mark.parametrize("handle", ["theirs?", "theirs?x=1", "theirs#"])
    def test_a_handle_that_would_be_cut_short_does_not_lead_to_another_file(
        self, sandbox: Sandbox, store: LocalFolder, files: Path, monkeypatch: pytest.MonkeyPatch, handle: str
    ) -> None:
        connect(monkeypatch, sandbox, error_file_url=f"file://{files}/{{handle}}")
        (files / "theirs").write_bytes(SMALL)
        job = sandbox.add_job(SERIES, errors=1, error_file_url=handle)

        with pytest.raises(CapillaryErrorFileError):
            pull(job, store.folder + NAME)

        assert store.visible() == {}
