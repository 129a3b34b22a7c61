# SPDX-License-Identifier: Apache-2.0
"""Error files that break off on the way: read on from there, or not handed on at all."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import strategies as st

from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.exceptions import (
    CapillaryError,
    CapillaryErrorFileError,
    CapillaryResponseError,
    CapillaryTransportError,
)
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.hooks.clients import CONN_ID, QUICK, SERIES, file_bytes
from tests.hooks.servers import Server
from tests.hooks.test_error_files import job_at, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox import RecordedRequest, SandboxJob
    from tests.hooks.conftest import Connect, Start
    from tests.hooks.servers import Connection

    Files = Callable[..., tuple[Sandbox, SandboxJob]]

SMALL = b"message,coupon code\n" + b"not issued, or of another series,SANDBOX000001\n" * 20
LARGE = file_bytes(1_000_000)
ATTEMPTS = QUICK.max_attempts
AT_ONCE = HttpRetry(base_seconds=0.0)


@pytest.fixture(params=["download", "ranges", "no ranges"])
def way(request: pytest.FixtureRequest) -> str:
    """By which endpoint, and whether the server can begin in the middle."""
    return request.param


@pytest.fixture
def files(way: str, start: Start, connect: Connect) -> Files:
    """Put a file into a sandbox, to be had by one of the ways."""

    def put(content: bytes, **extra: object) -> tuple[Sandbox, SandboxJob]:
        sandbox = start(file_ranges=way == "ranges")
        job = sandbox.add_job(SERIES, errors=3, error_file=content)
        template = {} if way == "download" else {"error_file_url": f"{sandbox.base_url}/files/{{handle}}"}
        connect(sandbox, **template, **extra)
        return sandbox, job

    return put


@pytest.fixture
def ranged(start: Start, connect: Connect) -> Files:
    """Put a file where it can be had in ranges."""

    def put(content: bytes) -> tuple[Sandbox, SandboxJob]:
        sandbox = start()
        job = sandbox.add_job(SERIES, errors=3, error_file=content)
        connect(sandbox, error_file_url=f"{sandbox.base_url}/files/{{handle}}")
        return sandbox, job

    return put


def fetched(sandbox: Sandbox) -> list[RecordedRequest]:
    """The requests for files."""
    return [request for request in sandbox.requests if request.endpoint in ("files", "download")]


def starts(sandbox: Sandbox) -> list[int]:
    """The first byte that each of them asked for."""
    return [
        int(re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "bytes=0-"))[1]) for request in fetched(sandbox)
    ]


class TestOneBreak:
    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
    @pytest.mark.parametrize("content_length", [True, False], ids=["length", "chunked"])
    def test_leaves_no_trace_in_the_file(
        self, files: Files, content: bytes, fraction: float, content_length: bool
    ) -> None:
        sandbox, job = files(content)
        sandbox.inject(Fault("cut", fraction=fraction, content_length=content_length, skip=1))
        assert read(job.handle) == content
        assert len(fetched(sandbox)) == 2

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    def test_may_be_that_of_the_last_chunk_alone(self, files: Files, content: bytes) -> None:
        sandbox, job = files(content)
        sandbox.inject(Fault("cut", fraction=1.0, content_length=False, skip=1))
        assert read(job.handle) == content
        assert len(fetched(sandbox)) in (2, 3)  # where the rest is no range any more, it is read as a whole

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("kind", ["reset", "wrong_length"])
    def test_may_be_of_another_kind(self, files: Files, content: bytes, kind: str) -> None:
        sandbox, job = files(content)
        sandbox.inject(Fault(kind, skip=1))
        assert read(job.handle) == content

    def test_is_not_believed_if_two_responses_give_two_lengths_until_a_third_agrees(self, files: Files) -> None:
        # Either of them may be right, and what is here already could be a part.
        sandbox, job = files(SMALL)
        sandbox.inject(Fault("wrong_length", skip=1))
        assert read(job.handle) == SMALL
        assert len(fetched(sandbox)) in (3, 4)  # one more where a range is asked for first

    def test_may_be_an_answer_that_takes_too_long(self, files: Files) -> None:
        sandbox, job = files(SMALL, timeout_seconds=0.3)
        sandbox.inject(Fault("slow", skip=1, seconds=9))
        assert read(job.handle) == SMALL

    def test_may_be_a_body_that_stops_coming(self, files: Files) -> None:
        sandbox, job = files(LARGE, timeout_seconds=0.3)
        sandbox.inject(Fault("drip", skip=1, seconds=90))
        assert read(job.handle) == LARGE
        assert len(fetched(sandbox)) == 2

    @pytest.mark.parametrize("fraction", [0.3, 0.9])
    def test_may_be_a_reset_in_the_middle(self, files: Files, fraction: float) -> None:
        sandbox, job = files(LARGE)
        sandbox.inject(Fault("cut", fraction=fraction, rst=True, skip=1))
        assert read(job.handle) == LARGE

    def test_may_come_in_a_compressed_transfer(self, files: Files) -> None:
        sandbox, job = files(LARGE)
        sandbox.inject(Fault("gzip", skip=1))
        assert read(job.handle) == LARGE

    def test_costs_no_second_token(self, files: Files) -> None:
        sandbox, job = files(LARGE)
        sandbox.inject(Fault("cut", fraction=0.5, skip=1))
        read(job.handle)
        assert sandbox.count("token") == 1

    def test_may_meet_an_expired_token_on_the_way_back(self, files: Files) -> None:
        sandbox, job = files(LARGE)
        sandbox.inject(Fault("cut", fraction=0.5, skip=1))
        sandbox.inject(Fault("status", status=503, endpoint="any", skip=1))
        sandbox.inject(Fault("expired_token", endpoint="any", skip=1))
        assert read(job.handle) == LARGE


@pytest.mark.parametrize("content_length", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("form", ["http_401", "body_498"])
def test_a_refusal_that_breaks_off_is_not_taken_for_the_beginning_of_the_file(
    start: Start, connect: Connect, form: str, content_length: bool
) -> None:
    sandbox = start(refusal=form)
    job = sandbox.add_job(SERIES, errors=3, error_file=SMALL)
    hook = CapillaryHook(connect(sandbox), http_retry=QUICK)
    hook.get_redeem_upload_jobs(SERIES)
    sandbox.expire_tokens()
    sandbox.inject(Fault("cut", endpoint="download", content_length=content_length))
    with hook.open_error_file(job_at(job.handle)) as stream:
        assert stream.read() == SMALL


class TestReadingOn:
    @pytest.mark.parametrize("fraction", [0.25, 0.5, 0.99])
    def test_begins_exactly_where_it_broke(self, ranged: Files, fraction: float) -> None:
        sandbox, job = ranged(LARGE)
        sandbox.inject(Fault("cut", endpoint="files", fraction=fraction))
        assert read(job.handle) == LARGE
        first, second = fetched(sandbox)
        assert "Range" not in first.headers
        assert "If-Range" not in first.headers
        assert second.headers["Range"] == f"bytes={int(len(LARGE) * fraction)}-"
        assert re.fullmatch(r'"[0-9a-f]+"', second.headers["If-Range"])
        assert second.headers["Accept-Encoding"] == "identity"

    def test_begins_there_however_early_it_broke(self, ranged: Files) -> None:
        sandbox, job = ranged(LARGE)
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.02))
        assert read(job.handle) == LARGE
        assert starts(sandbox) == [0, 20_000]

    def test_does_so_again_and_again(self, ranged: Files) -> None:
        sandbox, job = ranged(LARGE)
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.3, times=4))
        assert read(job.handle) == LARGE
        expected, position = [0], 0
        for _ in range(4):
            position += int((len(LARGE) - position) * 0.3)
            expected.append(position)
        assert starts(sandbox) == expected

    def test_goes_on_as_long_as_there_is_progress(self, ranged: Files) -> None:
        # Twice as many breaks as attempts, but every answer brings something.
        sandbox, job = ranged(file_bytes(4_000_000))
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.15, times=2 * ATTEMPTS))
        assert read(job.handle) == job.read_error_file()
        assert len(fetched(sandbox)) == 2 * ATTEMPTS + 1

    def test_goes_on_as_well_where_every_answer_brings_little(self, ranged: Files) -> None:
        # A connection that dies after 40 KB, again and again: small pieces are progress, too.
        sandbox, job = ranged(LARGE)
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.04, times=2 * ATTEMPTS))
        assert read(job.handle) == LARGE

    def test_reads_from_the_beginning_where_the_tag_is_weak(self, ranged: Files) -> None:
        # A weak tag may stand for two files that differ in bytes.
        sandbox, job = ranged(LARGE)
        sandbox.inject(Fault("cut", endpoint="files", headers={"ETag": 'W/"weak"'}))
        assert read(job.handle) == LARGE
        assert starts(sandbox) == [0, 0]

    def test_goes_by_the_date_where_there_is_no_tag(self, sandbox: Sandbox, connect: Connect) -> None:
        date = "Mon, 01 Jan 2024 00:00:00 GMT"
        asked: list[tuple[str | None, str | None]] = []

        def serve(connection: Connection) -> None:
            head = connection.read_head().decode()
            wanted = re.search(r"(?im)^range: bytes=(\d+)-", head)
            condition = re.search(r"(?im)^if-range: (.*?)\r", head)
            asked.append((wanted and wanted[1], condition and condition[1]))
            start = int(wanted[1]) if wanted else 0
            line = f"206 Partial Content\r\nContent-Range: bytes {start}-999999/1000000" if wanted else "200 OK"
            length = len(LARGE) - start
            connection.send(
                f"HTTP/1.1 {line}\r\nContent-Length: {length}\r\nAccept-Ranges: bytes\r\nLast-Modified: {date}\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            connection.send(LARGE[start:] if wanted else LARGE[:600_000])

        with Server(serve) as server:
            connect(sandbox, error_file_url=f"http://127.0.0.1:{server.port}/{{handle}}")
            assert read("handle") == LARGE
        assert asked == [(None, None), ("600000", date)]

    def test_takes_no_other_range_than_it_asked_for(self, ranged: Files) -> None:
        sandbox, job = ranged(LARGE)
        sandbox.inject(Fault("cut", endpoint="files"))
        sandbox.inject(
            Fault("slow", endpoint="files", seconds=0, headers={"Content-Range": "bytes 400000-999999/1000000"})
        )
        with pytest.raises(CapillaryResponseError, match="another range"):
            read(job.handle)

    def test_reads_from_the_beginning_where_the_server_takes_no_ranges(self, start: Start, connect: Connect) -> None:
        sandbox = start(file_ranges=False)
        job = sandbox.add_job(SERIES, errors=3, error_file=LARGE)
        connect(sandbox, error_file_url=f"{sandbox.base_url}/files/{{handle}}")
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.7, times=3))
        assert read(job.handle) == LARGE
        assert starts(sandbox) == [0, 0, 0, 0]

    def test_follows_the_redirect_again(self, ranged: Files) -> None:
        sandbox, job = ranged(LARGE)
        target = f"/files/{job.handle}"
        sandbox.inject(Fault("redirect", endpoint="files", location=target))
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.5))
        sandbox.inject(Fault("redirect", endpoint="files", location=target))
        assert read(job.handle) == LARGE
        assert starts(sandbox) == [0, 0, 500_000, 500_000]

    def test_of_a_compressed_transfer_goes_on_in_the_compressed_bytes(self, start: Start, connect: Connect) -> None:
        # A store that keeps the file compressed, and says so: ranges are of what it keeps.
        kept = gzip.compress(LARGE)
        sandbox = start()
        job = sandbox.add_job(SERIES, errors=3, error_file=kept)
        encoded = {"Content-Encoding": "gzip"}
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.5, headers=encoded))
        sandbox.inject(Fault("slow", endpoint="files", seconds=0, headers=encoded))
        connect(sandbox, error_file_url=f"{sandbox.base_url}/files/{{handle}}")
        assert read(job.handle) == LARGE
        assert starts(sandbox) == [0, len(kept) // 2]


class TestChangedMeanwhile:
    @pytest.mark.parametrize(
        "other",
        [file_bytes(1_000_000), LARGE[:400_000], b"", LARGE[:-1] + b"!", b"!" + LARGE[1:]],
        ids=["other", "shorter", "empty", "other end", "other beginning"],
    )
    def test_a_file_is_never_put_together_of_two(self, files: Files, other: bytes) -> None:
        sandbox, job = files(LARGE)
        sandbox.inject(Fault("cut", fraction=0.5, skip=1))
        with CapillaryHook(CONN_ID, http_retry=QUICK).open_error_file(job_at(job.handle)) as stream:
            first = stream.read(1)
            job.error_file = other
            try:
                whole = first + stream.read()
            except CapillaryErrorFileError as error:
                whole, message = None, str(error)
                assert not error.is_transient  # noqa: PT017 - one of two good ends
                assert "changed while it was being read" in message
        # Where the new file begins like the old one did, it may have been read to its end.
        assert whole in (None, other)

    @pytest.mark.parametrize("other", [file_bytes(1_000_000), LARGE[:400_000]], ids=["other", "shorter"])
    def test_it_is_an_error(self, files: Files, other: bytes) -> None:
        sandbox, job = files(LARGE)
        sandbox.inject(Fault("cut", fraction=0.5, skip=1))
        with CapillaryHook(CONN_ID, http_retry=QUICK).open_error_file(job_at(job.handle)) as stream:
            stream.read(1)
            job.error_file = other
            with pytest.raises(CapillaryErrorFileError, match="changed while it was being read"):
                stream.read()
        assert len(fetched(sandbox)) == 2

    def test_one_that_went_away_is_an_error_too(self, files: Files) -> None:
        sandbox, job = files(LARGE)
        sandbox.inject(Fault("cut", fraction=0.5, skip=1))
        with CapillaryHook(CONN_ID, http_retry=QUICK).open_error_file(job_at(job.handle)) as stream:
            stream.read(1)
            job.error_file = None
            with pytest.raises(CapillaryErrorFileError, match="not there"):
                stream.read()


class TestGivingUp:
    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
    def test_after_its_attempts(self, files: Files, content: bytes, fraction: float) -> None:
        sandbox, job = files(content)
        sandbox.inject(Fault("cut", fraction=fraction, skip=1, times=None))
        with pytest.raises(CapillaryTransportError, match="broke off") as caught:
            read(job.handle)
        assert caught.value.is_transient
        assert ATTEMPTS <= len(fetched(sandbox)) <= 60

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
    def test_where_the_length_never_fits(self, files: Files, content: bytes) -> None:
        sandbox, job = files(content)
        sandbox.inject(Fault("wrong_length", skip=1, times=None))
        with pytest.raises(CapillaryTransportError):
            read(job.handle)
        assert len(fetched(sandbox)) >= ATTEMPTS

    def test_as_the_policy_says(self, files: Files) -> None:
        sandbox, job = files(SMALL)
        sandbox.inject(Fault("cut", fraction=0.0, skip=1, times=None))
        hook = CapillaryHook(CONN_ID, http_retry=HttpRetry(max_attempts=2, base_seconds=0.0))
        with pytest.raises(CapillaryTransportError), hook.open_error_file(job_at(job.handle)) as stream:
            stream.read()
        assert len(fetched(sandbox)) == 2

    def test_hands_on_nothing_but_what_is_certain(self, ranged: Files) -> None:
        sandbox, job = ranged(LARGE)
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.5))
        sandbox.inject(Fault("reset", endpoint="files", times=None))
        received = b""

        def receive() -> None:
            nonlocal received
            with CapillaryHook(CONN_ID, http_retry=QUICK).open_error_file(job_at(job.handle)) as stream:
                while piece := stream.read1(10_000):
                    received += piece

        with pytest.raises(CapillaryTransportError):
            receive()
        assert received == LARGE[: len(received)]
        assert len(received) <= 500_000

    def test_a_stream_that_failed_does_not_seem_to_be_at_its_end(self, files: Files) -> None:
        sandbox, job = files(LARGE)
        sandbox.inject(Fault("cut", fraction=0.5, skip=1, times=None))
        hook = CapillaryHook(CONN_ID, http_retry=QUICK)
        with hook.open_error_file(job_at(job.handle)) as stream:
            with pytest.raises(CapillaryError):
                stream.read()
            # Whoever reads on must not take half of the file for the whole.
            with pytest.raises((CapillaryError, ValueError)):
                list(iter(lambda: stream.read(100_000), b""))


FAULTS = st.builds(
    Fault,
    st.sampled_from(
        ["cut", "cut", "cut", "reset", "wrong_length", "status", "html", "expired_token", "gzip", "unmarked"]
    ),
    endpoint=st.sampled_from(["files", "files", "token"]),
    times=st.integers(1, 3),
    skip=st.integers(0, 2),
    fraction=st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.9, 0.99, 1.0]),
    content_length=st.booleans(),
    rst=st.booleans(),
    form=st.sampled_from(["http_401", "http_498", "body_401", "body_498"]),
)


@hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(
    size=st.sampled_from([0, 1, 1000, 65_535, 65_536, 65_537, 200_000, 1_200_000]),
    faults=st.lists(FAULTS, max_size=5),
    has_ranges=st.booleans(),
)
def test_at_any_break_a_file_is_whole_or_an_error(
    monkeypatch: pytest.MonkeyPatch, size: int, faults: list[Fault], has_ranges: bool
) -> None:
    content = LARGE[:size] if size <= len(LARGE) else LARGE + LARGE[: size - len(LARGE)]
    with Sandbox(file_ranges=has_ranges) as sandbox:
        job = sandbox.add_job(SERIES, errors=3, error_file=content)
        template = f"{sandbox.base_url}/files/{{handle}}"
        connection = sandbox.connection_json(requests_per_minute=1_000_000, error_file_url=template)
        monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", connection)
        for fault in faults:
            sandbox.inject(fault)
        received = b""
        try:
            with CapillaryHook(CONN_ID, http_retry=AT_ONCE).open_error_file(job_at(job.handle)) as stream:
                while piece := stream.read(50_000):
                    received += piece
        except CapillaryError:
            assert content.startswith(received)
        else:
            assert received == content
