# SPDX-License-Identifier: Apache-2.0
"""How an error file is fetched: from where, from which byte on, and what is not taken for one."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.download import read_file
from airflow_provider_capillary.api.error_files import DownloadSource, UrlSource
from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryErrorFileError,
    CapillaryResponseError,
    CapillaryTransportError,
)
from airflow_provider_capillary.api.file_parts import FilePart
from airflow_provider_capillary.api.flow import EmitChunk, MaskSecret
from airflow_provider_capillary.api.http_messages import ApiRequest, Response, TransportFailure
from airflow_provider_capillary.api.upload_kinds import REDEEM
from tests.api.flows import (
    API,
    HEADER_VALUE,
    SECRET,
    TOKEN_HEADER,
    Client,
    Conversation,
    auth,
    coupon,
    examples,
    reply,
    sample,
    settings,
    token_reply,
    v2,
    v3,
    v11,
)

ELSEWHERE = UrlSource("https://files.example.com/x")
SIGNED = UrlSource("https://files.example.com/x?sig=sig-secret")
AT_THE_API = UrlSource(f"{API}/files/x")
HANDLE = DownloadSource("error_redemption_upload_1619_2532342020_10_20_14_17_00")
ROWS = b"message,code\nExpired, long ago,ABC\n"
BROKE_OFF = TransportFailure("the connection was reset")
RESUMABLE = {"accept_ranges": "bytes", "etag": '"abc"'}


def whole(content: bytes = ROWS, status: int = 200, /, **headers: str) -> Response:
    """A file in one piece."""
    return reply(content, status, content_type="text/csv", content_length=str(len(content)), **headers)


def broken(content: bytes, at: int, /, **headers: str) -> Response:
    """A file of which the connection lets pass only the beginning."""
    announced = str(len(content))
    return reply(content[: at // 2], rest=[content[at // 2 : at], BROKE_OFF], content_length=announced, **headers)


def tail(content: bytes, start: int, /, **headers: str) -> Response:
    """The file from ``start`` on."""
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return reply(content[start:], 206, content_range=span, content_length=str(len(content) - start), **headers)


def range_of(request: ApiRequest) -> tuple[str | None, str | None]:
    return request.headers.get("Range"), request.headers.get("If-Range")


@pytest.fixture
def client() -> Client:
    return Client(settings(extra={"headers": {"X-Org": HEADER_VALUE}})).with_token("token-0")


def fetch(client: Client, source: UrlSource | DownloadSource, *script: Response | TransportFailure) -> Conversation:
    return client.run(read_file(client.api, source), *script)


def moved(location: str | None, status: int = 302) -> Response:
    return reply(b"", status) if location is None else reply(b"", status, location=location)


def assert_is_file(talk: Conversation, content: bytes = ROWS) -> None:
    assert talk.value is None
    assert talk.received == content


# --- the request -------------------------------------------------------------------------------------------------


def test_a_handle_is_posted_to_the_download_endpoint_with_the_token(client: Client) -> None:
    talk = fetch(client, HANDLE, whole())
    (request,) = talk.requests
    assert (request.method, request.url) == ("POST", f"{API}/coupon/api/v1/download")
    assert json.loads(request.body or b"") == {"fileName": HANDLE.handle}
    assert dict(request.headers) == {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "X-Org": HEADER_VALUE,
        TOKEN_HEADER: "token-0",
    }
    assert (request.stream, request.is_safe) == (True, True)
    assert_is_file(talk)


def test_a_url_elsewhere_is_got_without_any_capillary_header_and_without_a_token_being_fetched() -> None:
    client = Client(settings(extra={"headers": {"X-Org": HEADER_VALUE}}))
    talk = fetch(client, ELSEWHERE, whole())
    (request,) = talk.requests
    assert (request.method, request.url, request.body) == ("GET", ELSEWHERE.url, None)
    assert dict(request.headers) == {"Accept": "*/*", "Accept-Encoding": "identity"}
    assert request.stream is True
    assert_is_file(talk)


def test_a_url_at_the_api_host_is_got_with_the_token(client: Client) -> None:
    (request,) = fetch(client, AT_THE_API, whole()).requests
    assert (request.method, request.url) == ("GET", f"{API}/files/x")
    assert (request.headers[TOKEN_HEADER], request.headers["X-Org"]) == ("token-0", HEADER_VALUE)


@pytest.mark.parametrize("url", [f"{API}:8443/x", "http://eu.api.capillarytech.com/x"], ids=["port", "scheme"])
def test_another_port_or_scheme_is_another_host(client: Client, url: str) -> None:
    (request,) = fetch(client, UrlSource(url), whole()).requests
    assert set(request.headers) == {"Accept", "Accept-Encoding"}


@pytest.mark.parametrize("source", [HANDLE, AT_THE_API])
def test_a_refused_token_is_replaced_for_a_file_too(client: Client, source: UrlSource | DownloadSource) -> None:
    talk = fetch(client, source, reply(v11("498")), token_reply("token-1"), whole())
    assert [request.headers.get(TOKEN_HEADER) for request in talk.requests] == ["token-0", None, "token-1"]


@pytest.mark.parametrize("source", [HANDLE, AT_THE_API, ELSEWHERE])
@pytest.mark.parametrize(
    "fault", [TransportFailure("lost"), reply(b"", 503), reply(b"", 500), reply(b"", 429)], ids=repr
)
def test_a_transient_error_is_retried(
    client: Client, source: UrlSource | DownloadSource, fault: Response | TransportFailure
) -> None:
    talk = fetch(client, source, fault, fault, whole())
    assert talk.kinds == ["SendRequest", "Sleep", "SendRequest", "Sleep", "SendRequest", "EmitChunk"]
    assert_is_file(talk)


def test_a_rate_limit_of_another_host_does_not_hold_back_what_is_asked_of_capillary(client: Client) -> None:
    client.start(read_file(client.api, ELSEWHERE)).give(reply(b"", 429, retry_after="100"))
    assert client.start(client.api.get_upload_jobs(REDEEM, 1)).kinds == ["SendRequest"]


def test_the_signature_of_a_url_is_not_shown_when_it_cannot_be_reached(client: Client) -> None:
    talk = fetch(client, SIGNED, TransportFailure("the name is unknown", is_transient=False))
    assert str(talk.error) == "GET https://files.example.com/x: the name is unknown"


def test_the_signature_of_a_url_is_masked_before_it_is_asked(client: Client) -> None:
    talk = fetch(client, SIGNED, moved("https://cdn.example.com/y?X-Amz-Signature=other-secret"), whole())
    assert talk.kinds == ["MaskSecret", "SendRequest", "MaskSecret", "SendRequest", "EmitChunk"]
    assert [step.secret for step in talk.steps if isinstance(step, MaskSecret)] == [
        "sig-secret",
        "other-secret",
    ]
    assert [request.url for request in talk.requests] == [
        "https://files.example.com/x?sig=sig-secret",
        "https://cdn.example.com/y?X-Amz-Signature=other-secret",
    ]


# --- going on where it broke off ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "validator"),
    [
        (200, {"accept_ranges": "bytes", "etag": '"abc"'}, '"abc"'),
        (200, {"accept_ranges": " Bytes ", "etag": '"abc"'}, '"abc"'),
        (206, {"etag": '"abc"'}, '"abc"'),
        (200, {"etag": '"abc"'}, None),
        (200, {"accept_ranges": "none", "etag": '"abc"'}, None),
        (200, {"accept_ranges": "bytes", "etag": 'W/"abc"'}, None),
        (
            200,
            {"accept_ranges": "bytes", "etag": 'W/"abc"', "last_modified": "Tue, 20 Oct 2020 08:47:00 GMT"},
            None,
        ),
        (200, {"accept_ranges": "bytes", "etag": ""}, None),
        (
            200,
            {
                "accept_ranges": "bytes",
                "last_modified": "Tue, 20 Oct 2020 08:47:00 GMT",
                "date": "Tue, 20 Oct 2020 09:47:00 GMT",
            },
            "Tue, 20 Oct 2020 08:47:00 GMT",
        ),
        (200, {"accept_ranges": "bytes"}, None),
        (200, {}, None),
    ],
    ids=str,
)
def test_only_a_strong_validator_of_a_server_that_takes_ranges_is_used(
    status: int, headers: dict[str, str], validator: str | None
) -> None:
    assert FilePart(reply(b"x", status, **headers), 0).validator == validator


def test_a_file_that_breaks_off_is_read_on_from_there(client: Client) -> None:
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20, **RESUMABLE), tail(ROWS, 20))
    assert_is_file(talk)
    first, second = talk.requests
    assert range_of(first) == (None, None)
    assert dict(second.headers) == {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Range": "bytes=20-",
        "If-Range": '"abc"',
    }
    assert [step.total for step in talk.steps if isinstance(step, EmitChunk)] == [len(ROWS)] * 3
    assert talk.kinds == [
        "SendRequest",
        "EmitChunk",
        "ReadBody",
        "EmitChunk",
        "ReadBody",
        "Sleep",
        "SendRequest",
        "EmitChunk",
    ]


@pytest.mark.parametrize("at", [0, 1, len(ROWS) - 1])
def test_it_may_break_off_anywhere(client: Client, at: int) -> None:
    answers = [broken(ROWS, at, **RESUMABLE), tail(ROWS, at) if at else whole()]
    talk = fetch(client, ELSEWHERE, *answers)
    assert_is_file(talk)
    assert range_of(talk.requests[1]) == ((f"bytes={at}-", '"abc"') if at else (None, None))


@pytest.mark.parametrize(
    "headers",
    [{}, {"accept_ranges": "bytes"}, {"etag": '"abc"'}, {"accept_ranges": "bytes", "etag": 'W/"abc"'}],
    ids=str,
)
def test_without_a_strong_validator_it_is_read_again_and_what_is_here_is_skipped(
    client: Client, headers: dict[str, str]
) -> None:
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20, **headers), whole())
    assert_is_file(talk)
    assert [range_of(request) for request in talk.requests] == [(None, None)] * 2


def test_the_whole_file_in_answer_to_a_range_is_compared_and_skipped_too(client: Client) -> None:
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20, **RESUMABLE), whole())
    assert range_of(talk.requests[1]) == ("bytes=20-", '"abc"')
    assert_is_file(talk)


@pytest.mark.parametrize(
    "other", [ROWS[::-1], b"X" + ROWS[1:], ROWS[:10], b""], ids=["other", "one byte", "shorter", "empty"]
)
def test_a_file_that_changed_meanwhile_is_never_mixed(client: Client, other: bytes) -> None:
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20), whole(other))
    assert type(talk.error) is CapillaryErrorFileError
    assert str(talk.error) == "the error file changed while it was being read; try again"
    assert talk.received == ROWS[:20]


def test_a_change_is_seen_where_a_piece_ends_at_the_very_byte_that_is_next(client: Client) -> None:
    other = b"X" + ROWS[1:]
    second = reply(other[:20], rest=[other[20:]], content_length=str(len(other)))
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20), second)
    assert str(talk.error) == "the error file changed while it was being read; try again"
    assert talk.received == ROWS[:20]


@pytest.mark.parametrize(
    "second",
    [whole(gzip.compress(ROWS), content_encoding="gzip"), tail(ROWS, 20, content_encoding="gzip")],
    ids=["whole", "tail"],
)
def test_another_encoding_in_the_second_answer_is_a_change_too(client: Client, second: Response) -> None:
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20, **RESUMABLE), second)
    assert str(talk.error) == "the error file changed while it was being read; try again"
    assert talk.received == ROWS[:20]


@pytest.mark.parametrize(
    "content_range",
    [
        f"bytes 0-{len(ROWS) - 1}/{len(ROWS)}",
        f"bytes 19-{len(ROWS) - 1}/{len(ROWS)}",
        f"bytes 21-{len(ROWS) - 1}/{len(ROWS)}",
        f"bytes */{len(ROWS)}",
        f"bytes -20/{len(ROWS)}",
        f"items 20-{len(ROWS) - 1}/{len(ROWS)}",
        f"20-{len(ROWS) - 1}/{len(ROWS)}",
        f"bytes x-{len(ROWS) - 1}/{len(ROWS)}",
        "",
        None,
    ],
)
def test_another_range_than_the_one_asked_for_is_refused(client: Client, content_range: str | None) -> None:
    headers = {} if content_range is None else {"content_range": content_range}
    response = reply(ROWS[20:], 206, content_length=str(len(ROWS) - 20), **headers)
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20, **RESUMABLE), response)
    assert type(talk.error) is CapillaryResponseError
    assert talk.error.message == "the server sent another range of the error file than requested"
    assert talk.error.http_status == 206


@pytest.mark.parametrize("spell", [str, str.upper, lambda text: f" {text} "])
def test_the_range_asked_for_is_known_in_every_spelling(client: Client, spell: Any) -> None:
    content_range = spell(f"bytes 20-{len(ROWS) - 1}/{len(ROWS)}")
    response = reply(ROWS[20:], 206, content_length=str(len(ROWS) - 20), content_range=content_range)
    assert_is_file(fetch(client, ELSEWHERE, broken(ROWS, 20, **RESUMABLE), response))


@pytest.mark.parametrize("total", [str(len(ROWS)), "*"])
def test_a_server_that_sends_less_than_the_range_asked_for_has_not_sent_the_file(client: Client, total: str) -> None:
    # Allowed by RFC 9110, 14.2. Taken for the end, it would publish a truncated file.
    less = reply(ROWS[20:25], 206, content_length="5", content_range=f"bytes 20-24/{total}")
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20, **RESUMABLE), less, tail(ROWS, 25))
    assert range_of(talk.requests[2]) == ("bytes=25-", '"abc"')
    assert_is_file(talk)


def test_where_the_server_does_not_state_the_total_the_file_is_read_again_for_proof(client: Client) -> None:
    rest = reply(ROWS[20:], 206, content_length=str(len(ROWS) - 20), content_range=f"bytes 20-{len(ROWS) - 1}/*")
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20, **RESUMABLE), rest, reply(b"", 416), whole())
    assert [range_of(request)[0] for request in talk.requests] == [None, "bytes=20-", f"bytes={len(ROWS)}-", None]
    assert_is_file(talk)


def test_a_file_that_is_shorter_in_the_second_answer_is_not_whole(client: Client) -> None:
    talk = client.start(read_file(client.api, ELSEWHERE))
    talk.run(broken(ROWS, 20, **RESUMABLE), tail(ROWS[:30], 20))
    assert not talk.is_over or talk.error is not None, "30 bytes of 35 are taken for the file"


def test_a_part_that_nobody_asked_for_is_not_taken_for_the_file(client: Client) -> None:
    part = reply(ROWS[:5], 206, content_length="5", content_range=f"bytes 0-4/{len(ROWS)}")
    talk = client.start(read_file(client.api, ELSEWHERE)).run(part)
    assert not talk.is_over or talk.error is not None


def test_a_file_that_broke_off_behind_its_last_byte_is_read_again_for_proof(client: Client) -> None:
    first = reply(ROWS, rest=[BROKE_OFF], transfer_encoding="chunked", **RESUMABLE)
    talk = fetch(client, ELSEWHERE, first, reply(b"", 416, content_range=f"bytes */{len(ROWS)}"), whole())
    assert [range_of(request)[0] for request in talk.requests] == [None, f"bytes={len(ROWS)}-", None]
    assert_is_file(talk)


def test_an_answer_shorter_than_announced_is_read_on(client: Client) -> None:
    short = reply(ROWS[:20], rest=[], content_length=str(len(ROWS)), **RESUMABLE)
    assert_is_file(fetch(client, ELSEWHERE, short, tail(ROWS, 20)))


def test_every_bit_of_progress_begins_the_count_of_failures_anew(client: Client) -> None:
    answers: list[Response] = [broken(ROWS, 1, **RESUMABLE)]
    for at in range(1, len(ROWS) - 1):
        span = f"bytes {at}-{len(ROWS) - 1}/{len(ROWS)}"
        answers.append(
            reply(b"", 206, rest=[ROWS[at : at + 1], BROKE_OFF], content_range=span, content_length=str(len(ROWS) - at))
        )
    assert_is_file(fetch(client, ELSEWHERE, *answers, tail(ROWS, len(ROWS) - 1)))


@pytest.mark.parametrize("first", [b"{", b" {", b" "])
def test_a_part_that_begins_like_an_error_and_breaks_off_is_progress_all_the_same(client: Client, first: bytes) -> None:
    content = ROWS[:20] + 8 * first + ROWS[20:]
    answers = [broken(content, 20, **RESUMABLE)]
    for at in range(20, 20 + 8 * len(first), len(first)):
        span = f"bytes {at}-{len(content) - 1}/{len(content)}"
        part = reply(first, 206, content_range=span, content_length=str(len(content) - at))
        answers.append(replace(part, rest=BROKE_OFF))
    assert_is_file(fetch(client, ELSEWHERE, *answers, tail(content, 20 + 8 * len(first))), content)


def test_the_end_of_a_file_that_resembles_an_error_is_the_end_of_the_file(client: Client) -> None:
    content = ROWS[:20] + json.dumps(v2("Expired")).encode()
    assert_is_file(fetch(client, AT_THE_API, broken(content, 20, **RESUMABLE), tail(content, 20)), content)


def test_an_error_that_broke_off_is_not_the_beginning_of_the_file(client: Client) -> None:
    error = replace(reply(b'{"success": fal', content_length="60", **RESUMABLE), rest=BROKE_OFF)
    talk = fetch(client, ELSEWHERE, error, whole())
    assert_is_file(talk)
    assert [range_of(request) for request in talk.requests] == [(None, None)] * 2


def test_five_failures_in_a_row_without_progress_are_the_end(client: Client) -> None:
    talk = fetch(client, ELSEWHERE, broken(ROWS, 20), *[broken(ROWS, 10) for _ in range(4)])
    assert type(talk.error) is CapillaryTransportError
    assert str(talk.error) == ("the error file broke off 5 times in a row at byte 20: the connection was reset")
    assert talk.error.is_transient is True
    assert talk.waits == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("headers", [{}, {"content_length": "many"}, {"content_length": "-1"}], ids=str)
def test_an_answer_that_marks_no_end_is_refused(client: Client, headers: dict[str, str]) -> None:
    talk = fetch(client, ELSEWHERE, reply(ROWS, 200, **headers))
    assert type(talk.error) is CapillaryErrorFileError
    assert "came without Content-Length and not in chunks" in str(talk.error)
    assert talk.received == b""


def test_an_answer_in_chunks_needs_no_length(client: Client) -> None:
    response = reply(b"", rest=[ROWS[:5], ROWS[5:]], transfer_encoding="chunked")
    talk = fetch(client, ELSEWHERE, response)
    assert_is_file(talk)
    assert talk.kinds == ["SendRequest", "ReadBody", "EmitChunk", "ReadBody", "EmitChunk", "ReadBody"]


def test_an_empty_file_is_a_file(client: Client) -> None:
    talk = fetch(client, ELSEWHERE, whole(b""))
    assert_is_file(talk, b"")
    assert talk.kinds == ["SendRequest"]


def test_a_compressed_transfer_is_undone(client: Client) -> None:
    assert_is_file(fetch(client, HANDLE, whole(gzip.compress(ROWS), content_encoding="gzip")))


def test_a_compressed_transfer_goes_on_where_it_broke_off(client: Client) -> None:
    packed = gzip.compress(ROWS * 50)
    first = broken(packed, 60, content_encoding="gzip", **RESUMABLE)
    talk = fetch(client, ELSEWHERE, first, tail(packed, 60, content_encoding="gzip"))
    assert range_of(talk.requests[1])[0] == "bytes=60-"
    assert_is_file(talk, ROWS * 50)


def test_a_compressed_file_that_ends_early_is_not_whole(client: Client) -> None:
    cut_off = gzip.compress(ROWS)[:-4]
    talk = fetch(client, ELSEWHERE, *[whole(cut_off, content_encoding="gzip")] * 5)
    assert isinstance(talk.error, CapillaryTransportError)
    assert "the compressed body broke off" in str(talk.error)


@pytest.mark.parametrize("encoding", ["br", "deflate"])
def test_an_encoding_that_was_not_asked_for_is_refused(client: Client, encoding: str) -> None:
    talk = fetch(client, ELSEWHERE, whole(ROWS, content_encoding=encoding))
    assert type(talk.error) is CapillaryErrorFileError
    assert talk.received == b""


class FlakyServer:
    """Serves a file, each time only a few bytes of it."""

    def __init__(self, content: bytes, breaks: list[int], *, ranges: bool, packed: bool, changes: bool) -> None:
        self.content = gzip.compress(content) if packed else content
        self.breaks = breaks
        self.ranges = ranges
        self.packed = packed
        self.changes = changes
        self.answered = 0

    def __call__(self, request: ApiRequest) -> Response:
        self.answered += 1
        if self.changes and self.answered == 2:
            self.content = self.content[::-1]
        etag = f'"{hash(self.content)}"'
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.ranges and request.headers["If-Range"] == etag else 0
        body = self.content[start:]
        headers = {"content_length": str(len(body))}
        if self.ranges:
            headers |= {"etag": etag, "accept_ranges": "bytes"}
        if self.packed:
            headers["content_encoding"] = "gzip"
        if start and not body:
            return reply(b"", 416)
        if start:
            headers["content_range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        sent = body[: self.breaks.pop()] if self.breaks else body
        rest: list[bytes | TransportFailure] = [sent[at : at + 7] for at in range(3, len(sent), 7)]
        return reply(sent[:3], 206 if start else 200, rest=[*rest, BROKE_OFF] if sent != body else rest, **headers)


@examples(100)
@given(
    st.binary(max_size=200),
    st.lists(st.integers(0, 120), max_size=8),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_however_often_it_breaks_off_the_file_comes_whole_and_in_order_or_not_to_its_end(
    content: bytes, breaks: list[int], ranges: bool, packed: bool, changes: bool
) -> None:
    client = Client()
    server = FlakyServer(content, breaks, ranges=ranges, packed=packed, changes=changes)
    talk = client.start(read_file(client.api, ELSEWHERE)).run_with(server)
    # Where nothing of the first version came in, the second one is the file.
    versions = [content, content[::-1]] if changes and not packed else [content]
    assert any(version.startswith(talk.received) for version in versions)
    if talk.error is None:
        assert talk.received in versions
    elif "a JSON object came" not in str(talk.error):  # which chance makes once in a while
        assert isinstance(talk.error, CapillaryErrorFileError | CapillaryTransportError)


@pytest.mark.parametrize(
    ("header", "encoding"), [(None, ""), ("identity", ""), (" IDENTITY ", ""), ("gzip", "gzip"), ("BR", "br")]
)
def test_a_part_states_its_encoding(header: str | None, encoding: str) -> None:
    response = reply(b"x") if header is None else reply(b"x", content_encoding=header)
    assert FilePart(response, 0).encoding == encoding


# --- redirects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_a_url_is_followed(client: Client, status: int) -> None:
    talk = fetch(client, ELSEWHERE, moved("/y", status), whole())
    assert [(request.method, request.url) for request in talk.requests] == [
        ("GET", "https://files.example.com/x"),
        ("GET", "https://files.example.com/y"),
    ]
    assert_is_file(talk)


def test_five_redirects_are_followed_and_a_sixth_is_not(client: Client) -> None:
    steps = [moved(f"https://files.example.com/{number}") for number in range(1, 7)]
    assert_is_file(fetch(client, ELSEWHERE, *steps[:5], whole()))
    talk = fetch(client, ELSEWHERE, *steps)
    assert type(talk.error) is CapillaryErrorFileError
    assert str(talk.error) == "the error file is not fetched, because it redirects more than 5 times"


def test_a_loop_of_redirects_ends(client: Client) -> None:
    assert fetch(client, ELSEWHERE, *[moved(ELSEWHERE.url)] * 6).error is not None


@pytest.mark.parametrize("source", [HANDLE, AT_THE_API])
@pytest.mark.parametrize("status", [301, 302, 303])
@pytest.mark.parametrize(
    "target",
    ["https://bucket.s3.amazonaws.com/x?sig=1", f"{API}:8443/x", "https://eu.api.capillarytech.com.example.com/x"],
)
def test_no_capillary_header_and_no_body_goes_along_to_another_host(
    client: Client, source: UrlSource | DownloadSource, status: int, target: str
) -> None:
    talk = fetch(client, source, moved(target, status), whole())
    onward = talk.requests[1]
    assert (onward.method, onward.url, onward.body, onward.stream) == ("GET", target, None, True)
    assert dict(onward.headers) == {"Accept": "*/*", "Accept-Encoding": "identity"}


def test_a_redirect_within_the_api_host_keeps_the_token(client: Client) -> None:
    talk = fetch(client, HANDLE, moved("/files/y", 303), whole())
    assert talk.requests[1].url == f"{API}/files/y"
    assert talk.requests[1].headers[TOKEN_HEADER] == "token-0"


def test_a_redirect_keeps_the_range(client: Client) -> None:
    there = moved("https://files.example.com/y")
    talk = fetch(client, HANDLE, there, broken(ROWS, 20, **RESUMABLE), there, tail(ROWS, 20))
    assert [range_of(request) for request in talk.requests] == [(None, None)] * 2 + [("bytes=20-", '"abc"')] * 2
    assert_is_file(talk)


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_would_repeat_the_post_is_refused(client: Client, status: int) -> None:
    talk = fetch(client, HANDLE, moved("https://files.example.com/y", status))
    assert type(talk.error) is CapillaryErrorFileError
    assert str(talk.error) == (f"the error file is not fetched, because {API}/coupon/api/v1/download redirects a POST")


@pytest.mark.parametrize("where", ["{}.example.com/x", "example.com/{}/x"], ids=["host", "path"])
def test_a_redirect_that_holds_a_secret_is_refused_without_it(client: Client, where: str) -> None:
    for secret in ("token-0", HEADER_VALUE, SECRET):
        talk = fetch(client, HANDLE, moved("http://" + where.format(secret)))
        assert type(talk.error) is CapillaryErrorFileError
        assert "***" in str(talk.error)
        assert secret not in str(talk.error) + repr(talk.error.__context__)


def test_a_redirect_that_holds_a_secret_and_cannot_be_reached_is_named_without_it(client: Client) -> None:
    lost = TransportFailure("the host cannot be reached", is_transient=False)
    talk = fetch(client, HANDLE, moved(f"https://example.com/token-0/{SECRET}/" + "x" * 60_000), lost)
    assert str(talk.error).startswith("GET https://example.com/***/***/xxx")
    assert len(str(talk.error)) < 500


@pytest.mark.parametrize("location", ["http://example.com/" + "x" * 60_000, "ftp://example.com/\x9b31mred"], ids=len)
def test_a_redirect_that_is_refused_is_named_on_one_short_printable_line(client: Client, location: str) -> None:
    talk = fetch(client, HANDLE, moved(location))
    assert type(talk.error) is CapillaryErrorFileError
    assert str(talk.error).isprintable()
    assert len(str(talk.error)) < 500


@pytest.mark.parametrize(
    ("location", "rule"),
    [
        (None, "it redirects to nowhere"),
        ("//[", "it redirects to a malformed URL"),
        ("https://169.254.169.254/latest", "its address is private, loopback or link-local"),
        ("https://user:password@files.example.com/", "it carries credentials"),
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_every_redirect_is_checked(client: Client, location: str | None, rule: str, before: int) -> None:
    good = [moved("https://cdn.example.com/y?sig=sig-secret")] * before
    talk = fetch(client, SIGNED, *good, moved(location))
    assert type(talk.error) is CapillaryErrorFileError
    assert str(talk.error).endswith(f"because {rule}")
    assert "sig-secret" not in str(talk.error)
    assert "password" not in str(talk.error)


# --- what is not a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (coupon(400, "No such file"), CapillaryApiError),
        ({"success": False, "message": "No such file"}, CapillaryApiError),
        (v3(604, "No such file"), CapillaryApiError),
        (v2(4000, "No such file"), CapillaryAccessError),
        (sample("error-403-v11"), CapillaryAccessError),
    ],
)
def test_a_json_error_in_place_of_the_file_is_that_error_even_with_http_200(
    client: Client, body: Any, error: type[Exception]
) -> None:
    for padded in (json.dumps(body), f" \r\n{json.dumps(body, indent=2)}\n"):
        talk = fetch(client, HANDLE, reply(padded, 200, x_cap_request_id="req-1"))
        assert type(talk.error) is error
        assert talk.error.request_id == "req-1"


def test_a_json_error_that_came_compressed_is_that_error_too(client: Client) -> None:
    talk = fetch(client, HANDLE, whole(gzip.compress(json.dumps(coupon(400)).encode()), content_encoding="gzip"))
    assert type(talk.error) is CapillaryApiError


@pytest.mark.parametrize("first", [b"0", b"{"])
def test_a_small_body_that_stands_for_much_does_not_fill_the_memory(client: Client, first: bytes) -> None:
    packed = gzip.compress(first + bytes(24 << 20))
    flow = read_file(client.api, HANDLE)
    next(flow)
    tracemalloc.start()
    received = 0
    try:
        step = flow.send(whole(packed, content_encoding="gzip"))
        while True:
            assert isinstance(step, EmitChunk)
            received += len(step.data)
            step = next(flow)
    except StopIteration:
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert received == 1 + (24 << 20)
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "body",
    [
        b"{message},code\nx,y\n",
        b'{"success": false} is not the end,code\n',
        b"{",
        b"",
        b"[1, 2]\n",
        b"false",
        b"\xff\xfe\x00,\x00",
        b"\x1f\x8b\x08\x00",
        b"message,code\n",
        b'"errors",401\n',
    ],
    ids=repr,
)
def test_bytes_that_are_no_json_error_are_the_file(client: Client, body: bytes) -> None:
    assert_is_file(fetch(client, HANDLE, whole(body)), body)


def test_the_beginning_of_a_long_file_is_never_taken_for_an_error(client: Client) -> None:
    beginning = json.dumps(coupon(401)).encode()
    response = reply(beginning, rest=[b"\n", ROWS], content_length=str(len(beginning) + 1 + len(ROWS)))
    assert_is_file(fetch(client, HANDLE, response), beginning + b"\n" + ROWS)


# --- another answer in place of a file that has to have rows -----------------------------------------------------

SIGNED_JSON = json.dumps({"data": {"url": "https://s3.example.com/x?X-Amz-Signature=sig-secret"}}).encode()


def fetch_rows(
    client: Client, source: UrlSource | DownloadSource, *script: Response | TransportFailure
) -> Conversation:
    return client.run(read_file(client.api, source, expects_rows=True), *script)


@pytest.mark.parametrize("source", [HANDLE, AT_THE_API, ELSEWHERE])
@pytest.mark.parametrize("body", [SIGNED_JSON, b"{}", b"[]", b"null", b"", b" \n", b"OK"], ids=repr)
def test_something_else_in_place_of_the_file_is_asked_for_again_and_then_an_error(
    client: Client, source: UrlSource | DownloadSource, body: bytes
) -> None:
    talk = fetch_rows(client, source, *[whole(body, x_cap_request_id="req-1")] * 5)
    assert type(talk.error) is CapillaryResponseError
    assert "came where the error file was expected" in talk.error.message
    assert (talk.error.http_status, talk.error.request_id, talk.error.is_transient) == (200, "req-1", True)
    assert "sig-secret" not in str(talk.error)
    assert talk.received == b""


def test_a_file_that_comes_after_something_else_is_the_file(client: Client) -> None:
    assert_is_file(fetch_rows(client, HANDLE, whole(b""), whole(SIGNED_JSON), whole()))


def test_something_else_that_came_compressed_is_known_too(client: Client) -> None:
    for body in (SIGNED_JSON, b"", b"OK\n"):
        talk = fetch_rows(client, HANDLE, *[whole(gzip.compress(body), content_encoding="gzip")] * 5)
        assert type(talk.error) is CapillaryResponseError
        assert talk.received == b""


@pytest.mark.parametrize("headers", [RESUMABLE, {}], ids=["by ranges", "from the beginning"])
def test_something_else_that_broke_off_and_was_read_on_is_known_too(client: Client, headers: dict[str, str]) -> None:
    body = json.dumps([SIGNED_JSON.decode()] * 3).encode()
    again = tail(body, 40, **headers) if headers else whole(body)
    talk = fetch_rows(client, ELSEWHERE, broken(body, 40, **headers), again)
    assert type(talk.error) is CapillaryResponseError
    assert talk.received == b""


def test_something_else_in_many_pieces_is_known_too(client: Client) -> None:
    body = json.dumps({"rows": ["x" * 50] * 4000}, indent=2).encode()
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    response = reply(pieces[0], rest=pieces[1:], content_length=str(len(body)), x_cap_request_id="req-1")
    talk = fetch_rows(client, HANDLE, response)
    assert type(talk.error) is CapillaryResponseError
    assert (talk.error.http_status, talk.error.request_id) == (200, "req-1")
    assert talk.received == b""


@pytest.mark.parametrize("end", [b'{"code": "ABC"}', b"[1]", b"null", b"OK", b"\n"])
def test_the_part_of_a_file_that_was_asked_for_may_be_anything(client: Client, end: bytes) -> None:
    content = ROWS + end
    talk = fetch_rows(client, ELSEWHERE, broken(content, len(ROWS), **RESUMABLE), tail(content, len(ROWS)))
    assert_is_file(talk, content)


@pytest.mark.parametrize(
    "content",
    [b'{"code": "ABC"}\n{"code": "DEF"}\n', b"{message},code\nx,y\n", b'"message","code"\n"Expired","ABC"\n', b"{"],
    ids=repr,
)
def test_a_file_that_only_begins_like_json_is_a_file(client: Client, content: bytes) -> None:
    assert_is_file(fetch_rows(client, HANDLE, whole(content)), content)


def test_an_object_is_not_the_file_even_where_no_rows_are_expected(client: Client) -> None:
    talk = fetch(client, HANDLE, *[whole(SIGNED_JSON)] * 5)
    assert type(talk.error) is CapillaryResponseError
    assert "sig-secret" not in str(talk.error)


@pytest.mark.parametrize("error", [v11("498"), coupon(429)], ids=["expired token", "rate limit"])
def test_a_byte_order_mark_does_not_hide_an_error(client: Client, error: Any) -> None:
    marked = b"\xef\xbb\xbf" + json.dumps(error).encode()
    talk = client.start(read_file(client.api, HANDLE, expects_rows=True)).run(reply(marked))
    assert len(talk.requests) == 2  # a token is fetched, or the request sent once more


def test_a_file_that_is_not_ready_yet_is_asked_for_again(client: Client) -> None:
    pending = reply("Processing", 202)
    assert_is_file(fetch_rows(client, HANDLE, pending, whole()))
    talk = fetch_rows(client, HANDLE, *[pending] * 5)
    assert type(talk.error) is CapillaryResponseError
    assert str(talk.error) == "the error file is not ready yet (HTTP 202)"


# --- errors in place of a file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["text/html", "TEXT/HTML; charset=utf-8", "application/xhtml+xml"])
def test_an_html_page_is_not_the_file(client: Client, content_type: str) -> None:
    page = reply("<!DOCTYPE html><html>Log in</html>", 200, content_type=content_type)
    talk = fetch(client, HANDLE, *[page] * 5)
    assert type(talk.error) is CapillaryResponseError
    assert str(talk.error) == "an HTML page came where the error file was expected (HTTP 200)"


@pytest.mark.parametrize("source", [HANDLE, AT_THE_API, ELSEWHERE])
@pytest.mark.parametrize("status", [404, 410])
def test_a_file_that_is_gone_is_an_error_of_its_own(
    client: Client, source: UrlSource | DownloadSource, status: int
) -> None:
    talk = fetch(client, source, reply("gone", status, x_cap_request_id="req-1"))
    assert type(talk.error) is CapillaryErrorFileError
    assert str(talk.error) == f"the error file is not there (any more) (HTTP {status}, X-CAP-REQUEST-ID req-1)"


def test_a_token_refused_by_a_body_under_404_is_replaced_too(client: Client) -> None:
    talk = fetch(client, HANDLE, reply(v11("498"), 404), token_reply("token-1"), whole())
    assert_is_file(talk)


@pytest.mark.parametrize("status", [400, 405, 416])
def test_an_http_error_is_not_the_file(client: Client, status: int) -> None:
    talk = fetch(client, ELSEWHERE, reply("<Error><Code>Bad</Code></Error>", status, content_type="application/xml"))
    assert talk.kinds == ["SendRequest"]
    assert talk.error is not None
    assert (talk.error.http_status, talk.error.is_transient) == (status, False)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_by_another_host_is_not_reported_as_one_of_capillarys(client: Client, status: int) -> None:
    # What an object store says to a signed URL that has expired.
    xml = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    talk = fetch(client, ELSEWHERE, reply(xml, status, content_type="application/xml"))
    assert talk.kinds == ["SendRequest"]
    assert type(talk.error) is CapillaryErrorFileError
    assert talk.error.http_status == status
    assert "Capillary" not in talk.error.message


@pytest.mark.parametrize(
    "response", [reply(b"", 401), reply(b"", 498), reply(v11(401)), reply(auth("498"), 400)], ids=repr
)
def test_no_error_that_is_internal_to_the_protocol_gets_out(client: Client, response: Response) -> None:
    talk = fetch(client, ELSEWHERE, response)
    assert talk.error is not None
    assert type(talk.error).__name__ != "TokenRefusedError"


@pytest.mark.parametrize("source", [HANDLE, AT_THE_API])
def test_a_file_refused_twice_is_an_auth_error(client: Client, source: UrlSource | DownloadSource) -> None:
    talk = fetch(client, source, reply(b"", 401), token_reply(), reply(b"", 401))
    assert type(talk.error) is CapillaryAuthError
