# SPDX-License-Identifier: Apache-2.0
"""Everything that can be made to go wrong."""

from __future__ import annotations

import gzip
import http.client
import socket
import time

import pytest

from airflow_provider_capillary.sandbox import Fault
from tests.sandbox.client import SERIES, STATUS_PATH, csv_file, good_row, multipart, upload_parts

CONTENT = b"message,coupon code\n" + b"some, message,CODE\n" * 500


@pytest.fixture
def path(sandbox):
    """The path of an error file of `CONTENT`."""
    return f"/files/{sandbox.add_job(SERIES, errors=500, error_file=CONTENT).handle}"


def read_to_the_end(client, path):
    """Return the raw answer to a GET."""
    return client.raw(f"GET {path} HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\r\n".encode())


# Which requests a fault meets


def test_a_fault_meets_one_request_by_default(client, sandbox):
    sandbox.inject(Fault("status"))

    assert [client.ask_token().status for _ in range(3)] == [503, 200, 200]


def test_a_fault_can_meet_several_requests_after_some_that_pass(client, sandbox):
    sandbox.inject(Fault("status", skip=1, times=2))

    assert [client.ask_token().status for _ in range(5)] == [200, 503, 503, 200, 200]


def test_a_fault_can_last_until_the_faults_are_cleared(client, sandbox):
    sandbox.inject(Fault("status", times=None))

    assert {client.ask_token().status for _ in range(5)} == {503}
    sandbox.clear_faults()
    assert client.ask_token().status == 200


def test_a_fault_can_be_tied_to_an_endpoint(client, sandbox, path):
    for endpoint, status in (("status", 501), ("upload", 502), ("download", 503), ("files", 504), ("other", 505)):
        sandbox.inject(Fault("status", endpoint=endpoint, status=status))

    assert client.ask_token().status == 200
    assert client.ask_status().status == 501
    assert client.upload(b"").status == 502
    assert client.download("x").status == 503
    assert client.send("GET", path).status == 504
    assert client.send("GET", "/").status == 505
    assert sandbox.faults == []


def test_faults_come_in_the_order_they_were_put(client, sandbox):
    for status in (500, 502, 503):
        sandbox.inject(Fault("status", status=status))

    assert [client.ask_token().status for _ in range(4)] == [500, 502, 503, 200]


def test_pending_faults_are_listed(client, sandbox):
    sandbox.inject(Fault("status", endpoint="token", skip=2, times=3, body="secret"))
    client.ask_token()

    assert sandbox.faults == [{"kind": "status", "endpoint": "token", "skip": 1, "times": 3}]


def test_a_faulty_request_is_recorded_and_its_answer_has_a_request_id(client, sandbox):
    sandbox.inject(Fault("status", status=500))

    assert client.ask_token().headers["X-CAP-REQUEST-ID"]
    assert sandbox.count("token") == 1


# Another answer


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (None, "application/json", b"{}"),
        ({"success": "false"}, "application/json", b'{"success": "false"}'),
        ([], "application/json", b"[]"),
        ("busy", "text/plain; charset=utf-8", b"busy"),
        (b"\xff", "application/octet-stream", b"\xff"),
    ],
)
@pytest.mark.parametrize("kind", ["status", "body"])
def test_status_and_body_send_the_given_body(client, sandbox, kind, body, content_type, expected):
    sandbox.inject(Fault(kind, status=429, body=body, retry_after=7, headers={"X-Extra": "yes"}))

    reply = client.ask_token()

    assert (reply.status, reply.body, reply.headers["Content-Type"]) == (429, expected, content_type)
    assert (reply.headers["Retry-After"], reply.headers["X-Extra"]) == ("7", "yes")


def test_a_header_of_a_fault_replaces_that_of_the_answer(client, sandbox):
    sandbox.inject(Fault("body", status=200, body="{", headers={"content-TYPE": "application/json"}))

    reply = client.ask_token()

    assert reply.headers.get_all("Content-Type") == ["application/json"]
    assert reply.body == b"{"


@pytest.mark.parametrize("headers", [{"Content-Length": "1000"}, {"Transfer-Encoding": "chunked"}])
def test_a_header_of_a_fault_may_contradict_the_body(client, sandbox, headers):
    sandbox.inject(Fault("body", status=200, body="short", headers=headers))

    head, _, body = read_to_the_end(client, "/").partition(b"\r\n\r\n")

    ((name, value),) = headers.items()
    assert f"{name}: {value}".encode() in head
    assert body == b"short"


def test_retry_after_can_be_any_text(client, sandbox):
    sandbox.inject(Fault("status", retry_after="Wed, 21 Oct 2026 07:28:00 GMT"))

    assert client.ask_token().headers["Retry-After"] == "Wed, 21 Oct 2026 07:28:00 GMT"


def test_text_is_plain_and_has_http_status_200(client, sandbox):
    sandbox.inject(Fault("text"))
    sandbox.inject(Fault("text", body="Unable to post."))

    replies = [client.ask_token() for _ in range(2)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, b"OK"), (200, b"Unable to post.")]
    assert replies[0].headers["Content-Type"].startswith("text/plain")


def test_html_is_a_page_of_the_edge(client, sandbox):
    sandbox.inject(Fault("html", status=403))
    sandbox.inject(Fault("html", status=521, body="<p>down"))

    first, second = client.ask_token(), client.ask_token()

    assert (first.status, second.status, second.body) == (403, 521, b"<p>down")
    assert first.headers["Content-Type"].startswith("text/html")
    assert b"<html>" in first.body


def test_empty_has_no_body(client, sandbox):
    sandbox.inject(Fault("empty"))

    reply = client.ask_token()

    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "0")


def test_a_status_without_a_body_ends_with_its_headers(client, sandbox):
    sandbox.inject(Fault("status", status=204))
    connection = client.connect()

    for expected in (204, 404):
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        assert response.status == expected
    connection.close()


def test_redirect_leads_to_its_location(client, sandbox):
    sandbox.inject(Fault("redirect", location="http://169.254.169.254/latest"))
    sandbox.inject(Fault("redirect", status=307, location="/elsewhere"))

    first, second = client.ask_token(), client.ask_token()

    assert (first.status, first.headers["Location"]) == (302, "http://169.254.169.254/latest")
    assert (second.status, second.headers["Location"]) == (307, "/elsewhere")


@pytest.mark.parametrize(("form", "status", "code"), [(None, 498, "498"), ("body_401", 200, "401")])
def test_expired_token_refuses_a_good_token(start, form, status, code):
    client = start(refusal="http_498")
    client.sandbox.inject(Fault("expired_token", endpoint="status", form=form))
    headers = client.authorized()

    reply = client.ask_status(headers=headers)

    assert (reply.status, reply.json()["response"]["status"]["code"]) == (status, code)
    assert client.ask_status(headers=headers).status == 200


# Broken connections


def test_reset_breaks_off_before_any_answer(client, sandbox):
    sandbox.inject(Fault("reset", endpoint="token"))

    with pytest.raises(ConnectionResetError):
        client.ask_token()
    assert client.ask_token().status == 200
    assert len(sandbox.tokens_issued) == 1


@pytest.mark.parametrize("kind", ["reset", "status", "html", "empty"])
@pytest.mark.parametrize("processed", [True, False])
def test_the_work_may_be_done_although_the_answer_is_lost(client, sandbox, kind, processed):
    sandbox.inject(Fault(kind, endpoint="upload", processed=processed))
    form = multipart(upload_parts(csv_file(good_row("A1"))))

    if kind == "reset":
        with pytest.raises(ConnectionResetError):
            client.upload(form)
    else:
        client.upload(form)

    assert len(sandbox.jobs(SERIES)) == processed


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_cut_breaks_off_a_body_of_known_length(client, sandbox, path, fraction):
    sandbox.inject(Fault("cut", fraction=fraction))

    with pytest.raises(http.client.IncompleteRead) as caught:
        client.send("GET", path)

    sent = int(len(CONTENT) * fraction)
    assert caught.value.partial == CONTENT[:sent]
    assert caught.value.expected == len(CONTENT) - sent


def test_cut_leaves_out_the_last_chunk_of_a_body_of_unknown_length(client, sandbox, path):
    sandbox.inject(Fault("cut", content_length=False, fraction=0.25))

    head, _, body = read_to_the_end(client, path).partition(b"\r\n\r\n")

    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    size, _, chunk = body.partition(b"\r\n")
    assert int(size, 16) == len(CONTENT) // 4
    assert chunk == CONTENT[: len(CONTENT) // 4] + b"\r\n"


def test_cut_can_end_by_a_reset(client, sandbox, path):
    sandbox.inject(Fault("cut", rst=True))

    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        client.send("GET", path)


def test_cut_does_the_work_first(client, sandbox):
    sandbox.inject(Fault("cut", endpoint="upload"))

    with pytest.raises(http.client.IncompleteRead):
        client.upload(multipart(upload_parts(csv_file(good_row("A1")))))

    assert len(sandbox.jobs(SERIES)) == 1


def test_only_the_end_of_the_connection_marks_the_end_of_unmarked(client, sandbox, path):
    sandbox.inject(Fault("unmarked"))
    sandbox.inject(Fault("unmarked", fraction=1.0))

    half, whole = client.send("GET", path), client.send("GET", path)

    assert (half.status, half.body) == (200, CONTENT[: len(CONTENT) // 2])
    assert (whole.status, whole.body) == (200, CONTENT)
    for reply in (half, whole):
        assert "Content-Length" not in reply.headers
        assert "Transfer-Encoding" not in reply.headers
        assert reply.headers["Connection"] == "close"


def test_wrong_length_announces_more_than_it_sends(client, sandbox, path):
    sandbox.inject(Fault("wrong_length"))

    with pytest.raises(http.client.IncompleteRead) as caught:
        client.send("GET", path)

    assert caught.value.partial == CONTENT
    assert caught.value.expected == 16


# Slow and strange


def test_slow_answers_rightly_but_late(client, sandbox):
    sandbox.inject(Fault("slow", seconds=0.2))

    began = time.monotonic()
    reply = client.ask_token()

    assert reply.status == 200
    assert time.monotonic() - began >= 0.2


def test_slow_does_the_work_although_the_client_gives_up(client, sandbox):
    sandbox.inject(Fault("slow", endpoint="upload", seconds=60))
    headers = client.authorized()
    client.timeout = 0.2

    with pytest.raises(TimeoutError):
        client.send(
            "POST",
            f"/coupon/api/v1/upload/redeemFile/{SERIES}",
            multipart(upload_parts(csv_file(good_row("A1")))),
            headers | {"Content-Type": "multipart/form-data; boundary=sandbox-test-boundary"},
        )

    assert len(sandbox.jobs(SERIES)) == 1


def test_drip_sends_the_whole_body_in_small_pieces(client, sandbox, path):
    sandbox.inject(Fault("drip", seconds=0.2))
    began = time.monotonic()
    connection = client.connect()
    connection.request("GET", path)
    response = connection.getresponse()
    pieces = []
    while piece := response.read1():
        pieces.append(piece)
    connection.close()

    assert b"".join(pieces) == CONTENT
    assert len(pieces) > 1
    assert time.monotonic() - began >= 0.2


def test_drip_of_an_empty_body_is_an_empty_body(client, sandbox):
    job = sandbox.add_job(SERIES, errors=1, error_file=b"")
    sandbox.inject(Fault("drip", seconds=60))

    assert client.send("GET", f"/files/{job.handle}").body == b""


@pytest.mark.parametrize("on_disk", [True, False])
def test_gzip_compresses_the_body_and_announces_the_compressed_length(client, sandbox, tmp_path, on_disk):
    source = CONTENT
    if on_disk:
        source = tmp_path / "errors.csv"
        source.write_bytes(CONTENT)
    job = sandbox.add_job(SERIES, errors=1, error_file=source)
    sandbox.inject(Fault("gzip"))

    reply = client.send("GET", f"/files/{job.handle}")

    assert reply.headers["Content-Encoding"] == "gzip"
    assert int(reply.headers["Content-Length"]) == len(reply.body) < len(CONTENT)
    assert gzip.decompress(reply.body) == CONTENT


def test_gzip_of_a_part_compresses_that_part(client, sandbox, path):
    sandbox.inject(Fault("gzip"))

    reply = client.send("GET", path, headers={"Range": "bytes=20-99"})

    assert reply.status == 206
    assert gzip.decompress(reply.body) == CONTENT[20:100]


@pytest.mark.parametrize("kind", ["slow", "drip", "gzip"])
def test_a_connection_goes_on_after_a_fault_that_does_not_break_it(client, sandbox, kind):
    sandbox.inject(Fault(kind, seconds=0.01))
    connection = client.connect()
    addresses = set()
    for _ in range(2):
        connection.request("GET", f"{STATUS_PATH}/1")
        response = connection.getresponse()
        response.read()
        addresses.add(connection.sock.getsockname())
    connection.close()

    assert len(addresses) == 1


def test_a_head_is_never_given_a_body(client, sandbox, path):
    for kind in ("status", "html", "gzip", "drip", "slow"):
        sandbox.inject(Fault(kind, seconds=0.01))
    request = f"HEAD {path} HTTP/1.1\r\nHost: sandbox\r\n\r\n".encode()
    with socket.create_connection((sandbox.host, sandbox.port), timeout=20) as connection:
        for _ in range(5):
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += connection.recv(1)
            assert answer.startswith(b"HTTP/1.1 ")


# Invalid faults


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "explode"),
        ("kind", None),
        ("endpoint", "control"),
        ("endpoint", 1),
        ("times", 0),
        ("times", 1.5),
        ("skip", -1),
        ("status", 100),
        ("status", 600),
        ("status", "503"),
        ("status", True),
        ("seconds", -1),
        ("seconds", float("inf")),
        ("seconds", 1e9),
        ("fraction", 1.1),
        ("fraction", "half"),
        ("content_length", 1),
        ("rst", None),
        ("processed", "yes"),
        ("retry_after", "a\r\nb"),
        ("retry_after", []),
        ("body", object()),
        ("headers", ["a"]),
        ("headers", {"a b": "c"}),
        ("headers", {"a": "b\r\nc: d"}),
        ("headers", {"a": 1}),
        ("headers", {"a": "€"}),
        ("location", "/a\r\nb"),
        ("location", 7),
        ("form", "http_403"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        Fault(**{"kind": "status", field: value})


def test_a_redirect_needs_a_location():
    with pytest.raises(ValueError, match=r"^location: "):
        Fault("redirect")


def test_the_repr_of_a_fault_shows_no_content():
    fault = Fault("status", body="personal data", headers={"X-Secret": "s3cret"}, location="http://x/?signature=1")

    assert not any(word in repr(fault) for word in ("personal", "s3cret", "signature"))
