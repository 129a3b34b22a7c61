# SPDX-License-Identifier: Apache-2.0
"""Where error files come from, and that they arrive as they are."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary import exceptions
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.exceptions import (
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryError,
    CapillaryErrorFileError,
    CapillaryResponseError,
)
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.hooks.clients import CONN_ID, QUICK, SERIES, TOKEN_HEADER, file_bytes
from tests.hooks.servers import answering, connect_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import SandboxJob
    from tests.hooks.conftest import Authority, Connect, Start, Watch

HEADERS = {"X-Brand": "header-value-77kx"}
OURS = (TOKEN_HEADER, *HEADERS)


def job_at(reference: str | None) -> UploadJob:
    """A job as the status endpoint reports it, with an error file at this place."""
    return UploadJob(job_id=1, status="COMPLETED", error_count=3, error_file_url=reference)


def read(reference: str | None, conn_id: str = CONN_ID) -> bytes:
    """Read an error file with a hook of its own."""
    with CapillaryHook(conn_id, http_retry=QUICK).open_error_file(job_at(reference)) as stream:
        return stream.read()


def read_job(sandbox: Sandbox, job: SandboxJob) -> bytes:
    """Read the error file of a job that the sandbox reports."""
    hook = CapillaryHook(http_retry=QUICK)
    with hook.open_error_file(hook.get_redeem_upload_job(job.coupon_series_id, job.job_id)) as stream:
        return stream.read()


class TestPlaces:
    def test_a_bare_handle_goes_to_the_download_endpoint(self, sandbox: Sandbox, connect: Connect) -> None:
        connect(sandbox, headers=HEADERS)
        job = sandbox.add_job(SERIES, errors=3)
        assert read_job(sandbox, job) == job.read_error_file()
        assert sandbox.counts == {"token": 1, "status": 1, "download": 1}
        request = sandbox.requests[-1]
        assert (request.method, request.path, request.query) == ("POST", "/coupon/api/v1/download", "")
        assert json.loads(request.body) == {"fileName": job.handle}
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers[TOKEN_HEADER] == sandbox.tokens_issued[0]
        assert request.headers["X-Brand"] == HEADERS["X-Brand"]

    def test_a_template_turns_it_into_a_url_of_the_api_host(self, sandbox: Sandbox, connect: Connect) -> None:
        connect(sandbox, headers=HEADERS, error_file_url=f"{sandbox.base_url}/files/{{handle}}")
        job = sandbox.add_job(SERIES, errors=3)
        assert read_job(sandbox, job) == job.read_error_file()
        assert sandbox.counts == {"token": 1, "status": 1, "files": 1}
        assert [name in sandbox.requests[-1].headers for name in OURS] == [True, True]

    def test_a_template_may_lead_to_another_host_which_gets_no_capillary_header(
        self, sandbox: Sandbox, start: Start, connect: Connect
    ) -> None:
        files = start()
        job = files.add_job(SERIES, errors=3)
        connect(sandbox, headers=HEADERS, error_file_url=f"{files.base_url}/files/{{handle}}?signature=abc")
        assert read(job.handle) == job.read_error_file()
        assert sandbox.counts == {}
        (request,) = files.requests
        assert request.query == "signature=abc"
        assert [name for name in (*OURS, "Authorization", "Cookie") if name in request.headers] == []

    def test_a_handle_is_quoted_into_a_url(self, sandbox: Sandbox, connect: Connect) -> None:
        handle = "2026/error file?x=1&y#z+ü"
        sandbox.add_job(SERIES, errors=3, error_file=b"found", error_file_url=handle)
        connect(sandbox, error_file_url=f"{sandbox.base_url}/files/{{handle}}?a=b")
        assert read(handle) == b"found"
        assert sandbox.requests[-1].path == "/files/2026/error%20file%3Fx%3D1%26y%23z%2B%C3%BC"
        assert sandbox.requests[-1].query == "a=b"

    def test_a_template_may_name_a_folder(self, sandbox: Sandbox, connect: Connect, tmp_path: Path) -> None:
        connect(sandbox, error_file_url=f"file://{tmp_path}/{{handle}}")
        (tmp_path / "handle").write_bytes(b"\x00\xff of the folder\r\n")
        assert read("handle") == b"\x00\xff of the folder\r\n"
        assert sandbox.counts == {}

    def test_a_file_that_is_not_in_that_folder_is_named(
        self, sandbox: Sandbox, connect: Connect, tmp_path: Path
    ) -> None:
        connect(sandbox, error_file_url=f"file://{tmp_path}/{{handle}}")
        with pytest.raises(CapillaryErrorFileError, match=f"no error file at file://{tmp_path}/handle"):
            read("handle")

    def test_what_is_no_file_there_is_an_error_of_this_package_too(
        self, sandbox: Sandbox, connect: Connect, tmp_path: Path
    ) -> None:
        (tmp_path / "handle").mkdir()
        connect(sandbox, error_file_url=f"file://{tmp_path}/{{handle}}")
        with pytest.raises(CapillaryErrorFileError):
            read("handle")

    def test_an_absolute_url_of_the_api_host_is_fetched_with_the_token(
        self, sandbox: Sandbox, connect: Connect
    ) -> None:
        connect(sandbox, headers=HEADERS)
        job = sandbox.add_job(SERIES, errors=3, error_file_url=f"{sandbox.base_url}/files/abc.csv?signature=abc")
        assert read_job(sandbox, job) == job.read_error_file()
        assert sandbox.counts == {"token": 1, "status": 1, "files": 1}
        assert sandbox.requests[-1].query == "signature=abc"
        assert [name in sandbox.requests[-1].headers for name in OURS] == [True, True]

    def test_the_template_is_not_for_absolute_urls(self, sandbox: Sandbox, start: Start, connect: Connect) -> None:
        other = start()
        connect(sandbox, error_file_url=f"{other.base_url}/files/{{handle}}")
        job = sandbox.add_job(SERIES, errors=3, error_file_url=f"{sandbox.base_url}/files/abc.csv")
        assert read_job(sandbox, job) == job.read_error_file()
        assert other.counts == {}

    def test_a_foreign_host_over_https_gets_no_capillary_header(
        self,
        sandbox: Sandbox,
        start: Start,
        authority: Authority,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        files = start(ssl_context=authority.server_context("files.example.test"))
        job = files.add_job(SERIES, errors=3)
        url = f"https://files.example.test/files/{job.handle}?X-Amz-Signature=abc"
        connect(sandbox, headers=HEADERS, verify=str(authority.bundle))
        with connect_proxy({"files.example.test:443": files.port}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            assert read(url) == job.read_error_file()
            assert proxy.accepted == 1
            assert not [name for name in OURS if name.lower().encode() in proxy.received.lower()]
        assert sandbox.counts == {}  # not even a token was fetched
        (request,) = files.requests
        assert request.query == "X-Amz-Signature=abc"
        assert [name for name in (*OURS, "Authorization", "Cookie") if name in request.headers] == []

    def test_a_redirect_to_a_foreign_host_over_https_takes_no_capillary_header_along(
        self, start: Start, authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api = start(ssl_context=authority.server_context("api.example.test"))
        files = start(ssl_context=authority.server_context("files.example.test"))
        job = files.add_job(SERIES, errors=3)
        api.inject(
            Fault("redirect", endpoint="download", location=f"https://files.example.test/files/{job.handle}?sig=abc")
        )
        connect(
            api,
            fields={"host": "https://api.example.test", "port": 443},
            headers=HEADERS,
            verify=str(authority.bundle),
        )
        with connect_proxy({"api.example.test:443": api.port, "files.example.test:443": files.port}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            assert read("some-handle") == job.read_error_file()
        assert api.counts == {"token": 1, "download": 1}
        assert [name in api.requests[-1].headers for name in OURS] == [True, True]
        (request,) = files.requests
        assert (request.method, request.body, request.query) == ("GET", b"", "sig=abc")
        assert [name for name in (*OURS, "Authorization", "Cookie", "Content-Type") if name in request.headers] == []

    @pytest.mark.parametrize("reference", [None, ""])
    def test_a_job_without_one_says_so(self, sandbox: Sandbox, conn_id: str, reference: str | None) -> None:
        with pytest.raises(CapillaryErrorFileError, match="upload job 1 has no error file"):
            read(reference)
        assert sandbox.counts == {}


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_one_to_the_api_host_is_followed(self, sandbox: Sandbox, connect: Connect, status: int) -> None:
        connect(sandbox, headers=HEADERS)
        job = sandbox.add_job(SERIES, errors=3)
        sandbox.inject(
            Fault("redirect", endpoint="files", status=status, location=f"{sandbox.base_url}/files/{job.handle}")
        )
        assert read(f"{sandbox.base_url}/files/elsewhere") == job.read_error_file()
        assert [request.path for request in sandbox.requests[1:]] == ["/files/elsewhere", f"/files/{job.handle}"]
        for request in sandbox.requests[1:]:
            assert [name in request.headers for name in OURS] == [True, True]

    def test_a_relative_one_is_too(self, sandbox: Sandbox, conn_id: str) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        sandbox.inject(Fault("redirect", endpoint="files", location=job.handle))
        assert read(f"{sandbox.base_url}/files/elsewhere") == job.read_error_file()

    def test_one_of_the_download_endpoint_is_followed_by_get_without_the_handle(
        self, sandbox: Sandbox, conn_id: str
    ) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        sandbox.inject(Fault("redirect", endpoint="download", location=f"/files/{job.handle}?signed=1"))
        assert read(job.handle) == job.read_error_file()
        request = sandbox.requests[-1]
        assert (request.method, request.body, request.query) == ("GET", b"", "signed=1")
        assert "Content-Type" not in request.headers

    @pytest.mark.parametrize("status", [307, 308])
    def test_one_that_would_hand_the_post_on_is_refused(
        self, sandbox: Sandbox, start: Start, conn_id: str, status: int
    ) -> None:
        sandbox.inject(Fault("redirect", endpoint="download", status=status, location="/files/x"))
        with pytest.raises(CapillaryErrorFileError, match="redirects a POST"):
            read("handle")
        assert sandbox.count("files") == 0

    def test_one_to_another_port_takes_no_capillary_header_along(
        self, start: Start, authority: Authority, connect: Connect
    ) -> None:
        api, files = (start(ssl_context=authority.server_context()) for _ in range(2))
        connect(api, headers=HEADERS, verify=str(authority.bundle))
        job = files.add_job(SERIES, errors=3)
        api.inject(Fault("redirect", endpoint="files", location=f"{files.base_url}/files/{job.handle}"))
        assert read(f"{api.base_url}/files/x") == job.read_error_file()
        assert [name for name in OURS if name in files.requests[0].headers] == []

    def test_they_do_not_go_on_for_ever(self, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.inject(Fault("redirect", endpoint="files", location="/files/again", times=None))
        with pytest.raises(CapillaryErrorFileError, match="redirects more than 5 times"):
            read(f"{sandbox.base_url}/files/x")
        assert sandbox.count("files") == 6

    @pytest.mark.parametrize(
        ("location", "rule"),
        [
            ("https://10.0.0.1/secret?sig=s3cr3t", "its address is private, loopback or link-local"),
            ("https://192.168.1.1/x?sig=s3cr3t", "its address is private, loopback or link-local"),
            ("https://169.254.169.254/latest?sig=s3cr3t", "its address is private, loopback or link-local"),
            ("https://[fd00:ec2::254]/latest?sig=s3cr3t", "its address is private, loopback or link-local"),
            ("https://2852039166/latest?sig=s3cr3t", "its address is private, loopback or link-local"),
            ("https://localhost/x?sig=s3cr3t", "its host is this machine"),
            ("https://user:pass-word@files.example.test/x?sig=s3cr3t", "it carries credentials"),
            ("http://files.example.test/x?sig=s3cr3t", "it is not https"),
            ("//files.example.test/x?sig=s3cr3t", "it is not https"),
            ("ftp://files.example.test/x?sig=s3cr3t", "it is neither https nor"),
            ("file:///etc/passwd?sig=s3cr3t", "it has no host"),
            ("s3://bucket/key?sig=s3cr3t", "it is neither https nor"),
            ("", "it redirects to nowhere"),
        ],
    )
    def test_one_to_where_no_file_may_come_from_is_refused(
        self, sandbox: Sandbox, conn_id: str, location: str, rule: str, watch: Watch
    ) -> None:
        hook = CapillaryHook(conn_id, http_retry=QUICK)
        sandbox.inject(Fault("redirect", endpoint="files", location=location))
        job = job_at(f"{sandbox.base_url}/files/x?sig=s3cr3t")
        with pytest.raises(CapillaryErrorFileError, match=rule) as caught, hook.open_error_file(job) as stream:
            stream.read()
        assert sandbox.count("files") == 1
        assert set(watch.addresses) == {("127.0.0.1", sandbox.port)}
        assert {host for host, *_ in watch.of("socket.getaddrinfo")} == {"127.0.0.1"}
        assert "s3cr3t" not in str(caught.value)
        assert "pass-word" not in str(caught.value)


class TestBytes:
    @pytest.mark.parametrize(
        "content",
        [
            b"message,coupon code\r\nnot issued, or of another series,ABC\r\n",
            bytes(range(256)) * 3,
            "Mütze,\u2028\n".encode("utf-16"),
            gzip.compress(b"a file that is gzip itself"),
            b'{"success": "of course, this is a file"}\n{"success": "with two rows"}\n',
            b"[1, 2],\n",
            b"<html>also just a file</html>",
        ],
        ids=range(7),
    )
    @pytest.mark.parametrize("place", ["download", "files"])
    def test_are_not_touched(self, sandbox: Sandbox, connect: Connect, content: bytes, place: str) -> None:
        template = {"error_file_url": f"{sandbox.base_url}/files/{{handle}}"} if place == "files" else {}
        connect(sandbox, **template)
        job = sandbox.add_job(SERIES, errors=3, error_file=content)
        assert read_job(sandbox, job) == content
        assert sandbox.count(place) == 1

    @pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 1_048_576, 5_000_001])
    def test_are_all_there_at_any_size(self, sandbox: Sandbox, conn_id: str, size: int) -> None:
        content = file_bytes(size)
        job = sandbox.add_job(SERIES, errors=3, error_file=content)
        assert hashlib.sha256(read_job(sandbox, job)).digest() == hashlib.sha256(content).digest()
        assert sandbox.count("download") == 1

    @pytest.mark.parametrize("size", [20, 100, 3_000_000])
    def test_are_those_of_the_file_where_the_transfer_is_compressed(
        self, sandbox: Sandbox, conn_id: str, size: int
    ) -> None:
        content = file_bytes(size)
        job = sandbox.add_job(SERIES, errors=3, error_file=content)
        sandbox.inject(Fault("gzip", endpoint="download"))
        assert read_job(sandbox, job) == content
        assert sandbox.count("download") == 1

    def test_are_asked_for_uncompressed(self, sandbox: Sandbox, connect: Connect) -> None:
        connect(sandbox)
        job = sandbox.add_job(SERIES, errors=3)
        read(job.handle)
        read(f"{sandbox.base_url}/files/{job.handle}")
        assert [request.headers["Accept-Encoding"] for request in sandbox.requests[1:]] == ["identity", "identity"]

    def test_in_an_unknown_compression_are_refused(self, sandbox: Sandbox, conn_id: str) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        sandbox.inject(Fault("body", endpoint="download", status=200, body=b"?", headers={"Content-Encoding": "br"}))
        with pytest.raises(CapillaryErrorFileError, match="Content-Encoding 'br'"):
            read(job.handle)

    def test_that_are_no_gzip_although_they_say_so_are_refused(self, sandbox: Sandbox, conn_id: str) -> None:
        headers = {"Content-Encoding": "gzip"}
        sandbox.inject(Fault("body", endpoint="download", status=200, body=b"no gzip", headers=headers))
        with pytest.raises(CapillaryErrorFileError, match="cannot be decompressed"):
            read("handle")

    def test_can_be_read_line_by_line_or_in_pieces(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        found = hook.get_redeem_upload_job(SERIES, job.job_id)
        whole = job.read_error_file()
        with hook.open_error_file(found) as stream:
            assert list(stream) == whole.splitlines(keepends=True)
        with hook.open_error_file(found) as stream:
            assert iter(lambda: stream.read(7), b"").__next__() == whole[:7]
            assert stream.readable()
            assert not stream.writable()
            assert not stream.seekable()
            assert stream.read() == whole[7:]
            assert stream.read() == stream.read(1) == b""
        with hook.open_error_file(found) as stream, io.TextIOWrapper(stream, "utf-8") as text:
            assert text.read() == whole.decode()

    def test_come_while_others_are_read(self, sandbox: Sandbox, hook: CapillaryHook) -> None:
        contents = [file_bytes(2_000_000) for _ in range(2)]
        jobs = [sandbox.add_job(SERIES, errors=3, error_file=content) for content in contents]
        first, second = (job_at(job.handle) for job in jobs)
        with hook.open_error_file(first) as one, hook.open_error_file(second) as two:
            pieces = [(one.read(999_999), two.read(777_777)) for _ in range(4)]
            assert len(hook.get_redeem_upload_jobs(SERIES)) == 2
        assert [b"".join(each) for each in zip(*pieces, strict=True)] == contents


class TestInsteadOfTheFile:
    @pytest.mark.parametrize("form", ["http_401", "http_498", "body_401", "body_498"])
    def test_a_refused_token_leads_to_a_new_one(self, sandbox: Sandbox, conn_id: str, form: str) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        sandbox.inject(Fault("expired_token", endpoint="download", form=form))
        assert read_job(sandbox, job) == job.read_error_file()
        assert sandbox.counts == {"token": 2, "status": 1, "download": 2}

    def test_so_does_one_that_comes_compressed(self, sandbox: Sandbox, conn_id: str) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        refusal = json.dumps({"response": {"status": {"success": "true", "code": "498", "message": "expired"}}})
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        sandbox.inject(
            Fault("body", endpoint="download", status=200, body=gzip.compress(refusal.encode()), headers=headers)
        )
        assert read_job(sandbox, job) == job.read_error_file()

    def test_a_second_refusal_is_an_error_of_authentication(self, sandbox: Sandbox, conn_id: str) -> None:
        sandbox.inject(Fault("expired_token", endpoint="download", times=None))
        with pytest.raises(CapillaryAuthError, match="refuses even a fresh token"):
            read("handle")
        assert sandbox.counts == {"token": 2, "download": 2}

    @pytest.mark.parametrize("status", [404, 410])
    def test_a_file_that_is_not_there_is_asked_for_once(self, sandbox: Sandbox, conn_id: str, status: int) -> None:
        sandbox.inject(Fault("status", endpoint="download", status=status))
        with pytest.raises(CapillaryErrorFileError, match="not there") as caught:
            read("handle")
        assert caught.value.http_status == status
        assert caught.value.request_id
        assert sandbox.count("download") == 1

    @pytest.mark.parametrize("status", [408, 429, 500, 503, 524])
    def test_a_transient_error_is_waited_out(self, sandbox: Sandbox, conn_id: str, status: int) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        sandbox.inject(Fault("status", endpoint="download", status=status, times=3))
        assert read_job(sandbox, job) == job.read_error_file()
        assert sandbox.count("download") == 4

    def test_a_failure_in_an_envelope_is_one(self, sandbox: Sandbox, conn_id: str) -> None:
        body = {"success": False, "status": 8001, "message": "no such thing"}
        sandbox.inject(Fault("body", endpoint="download", status=200, body=body))
        with pytest.raises(CapillaryApiError, match="no such thing") as caught:
            read("handle")
        assert caught.value.api_code == "8001"
        assert sandbox.count("download") == 1

    @pytest.mark.parametrize("status", [200, 502])
    def test_a_page_of_the_edge_is_not_taken_for_the_file(self, sandbox: Sandbox, conn_id: str, status: int) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        sandbox.inject(Fault("html", endpoint="download", status=status, times=2))
        assert read_job(sandbox, job) == job.read_error_file()
        sandbox.inject(Fault("html", endpoint="download", status=status, times=None))
        with pytest.raises((CapillaryResponseError, CapillaryApiError)):
            read("handle")

    @pytest.mark.parametrize("status", [401, 498])
    def test_a_refusal_of_a_host_that_gets_no_token_is_an_error_users_know(
        self, sandbox: Sandbox, start: Start, connect: Connect, status: int
    ) -> None:
        files = start()
        connect(sandbox, error_file_url=f"{files.base_url}/files/{{handle}}")
        files.inject(Fault("status", endpoint="files", status=status, times=None))
        with pytest.raises(CapillaryError) as caught:
            read("handle")
        assert type(caught.value).__name__ in exceptions.__all__
        assert caught.value.http_status == status
        assert (sandbox.counts, files.counts) == ({}, {"files": 1})

    def test_a_refusal_of_an_object_store_is_not_said_to_be_that_of_capillarys_edge(
        self, sandbox: Sandbox, start: Start, connect: Connect
    ) -> None:
        files = start()
        connect(sandbox, error_file_url=f"{files.base_url}/files/{{handle}}")
        body = "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        files.inject(Fault("body", endpoint="files", status=403, body=body))
        with pytest.raises(CapillaryError) as caught:
            read("handle")
        assert caught.value.http_status == 403
        assert "edge in front of Capillary" not in str(caught.value)

    def test_a_body_whose_end_nobody_marks_is_refused(self, sandbox: Sandbox, conn_id: str) -> None:
        job = sandbox.add_job(SERIES, errors=3)
        sandbox.inject(Fault("unmarked", endpoint="download", fraction=1.0))
        with pytest.raises(CapillaryErrorFileError, match="a broken download would go unnoticed"):
            read_job(sandbox, job)
        assert sandbox.count("download") == 1

    def test_a_large_one_without_a_marked_end_is_refused_before_any_of_it_is_handed_on(
        self, sandbox: Sandbox, hook: CapillaryHook
    ) -> None:
        job = sandbox.add_job(SERIES, errors=3, error_file=b"x" * 500_000)
        sandbox.inject(Fault("unmarked", endpoint="download", fraction=0.9))
        with pytest.raises(CapillaryErrorFileError), hook.open_error_file(job_at(job.handle)) as stream:
            stream.read(1)

    @pytest.mark.parametrize(
        "head",
        [
            b"Content-Length: -1",
            b"Content-Length: many",
            b"Content-Length: 7\r\nContent-Length: 8",
            b"X-Y: 1",
        ],
    )
    def test_a_length_that_makes_no_sense_is_not_trusted(self, sandbox: Sandbox, connect: Connect, head: bytes) -> None:
        with answering(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nConnection: close\r\n\r\n1234567") as server:
            connect(sandbox, error_file_url=f"http://127.0.0.1:{server.port}/{{handle}}")
            with pytest.raises(CapillaryError):
                read("handle")


def test_a_file_of_300_mib_is_read_in_constant_memory(sandbox: Sandbox, connect: Connect, tmp_path: Path) -> None:
    size = 300 << 20
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(size)  # sparse: it takes no room on the disk
    job = sandbox.add_job(SERIES, errors=3, error_file=large)
    connect(sandbox)
    script = """
        import resource, sys
        from airflow_provider_capillary.api.jobs import UploadJob
        from airflow_provider_capillary.hooks.capillary import CapillaryHook

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        hook = CapillaryHook()
        hook.get_redeem_upload_jobs(1)
        job = UploadJob(job_id=1, status="COMPLETED", error_file_url=sys.argv[1])
        before, size = peak(), 0
        with hook.open_error_file(job) as stream:
            while piece := stream.read(1 << 20):
                size += len(piece)
        print(size, (peak() - before) << 10)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), job.handle],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    received, growth = map(int, run.stdout.split()[-2:])
    assert received == size
    assert growth < 64 << 20
    assert sandbox.count("download") == 1
