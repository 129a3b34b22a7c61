# SPDX-License-Identifier: Apache-2.0
"""What is taken for a file of rows, and what is not, however it is cut into pieces."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.errors import CapillaryResponseError
from airflow_provider_capillary.api.file_content import MOST_HELD_BYTES, FileContent, check_content, expects_rows
from airflow_provider_capillary.api.jobs import JobFile, UploadJob
from tests.api.flows import examples, json_values

SIGNED = {"data": {"url": "https://s3.example.com/x?X-Amz-Signature=sig-secret"}}

#: Bodies that are not the file, by what the message calls them.
OTHERS = {
    "an empty body": [b""],
    "nothing but blanks": [b" ", b"\n", b"\r\n \t\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", " \n".encode("utf-16")],
    "the text OK": [b"OK", b"ok\n", b" Ok \r\n", b"\xef\xbb\xbfOK", "OK".encode("utf-16")],
    "a JSON object": [
        b"{}",
        b' \r\n{"success": true, "result": null}\n',
        json.dumps(SIGNED).encode(),
        json.dumps(SIGNED, indent=4).encode(),
        b"\xef\xbb\xbf" + json.dumps(SIGNED).encode(),
        b"\n\xef\xbb\xbf {}",
        json.dumps(SIGNED).encode("utf-16"),
        json.dumps(SIGNED).encode("utf-16-le"),
        json.dumps(SIGNED).encode("utf-16-be"),
        json.dumps(SIGNED).encode("utf-32"),
        json.dumps({"padding": "x" * 500_000}).encode(),
    ],
    "a JSON array": [b"[]", b"[1, 2]", b'[\n  {"url": "https://x"}\n]\n'],
    "a JSON string": [b'""', b'"https://s3.example.com/x?sig=sig-secret"'],
    "a JSON null": [b"null", b" null\n"],
    "a JSON literal": [b"true", b"false\n"],
    "an HTML page": [b"<!DOCTYPE html><title>Log in</title>", b"\n<!doctype HTML>\n"],
}
PAIRS = [(name, body) for name, bodies in OTHERS.items() for body in bodies]

FILES = [
    b"message,coupon code\nnot issued, or of another series,ABC\n",
    b"x",
    b"okay\n",
    b"OK,ABC\n",
    b"12345\n",
    b'{"code": "ABC"}\n{"code": "DEF"}\n',
    b"{message},code\n",
    b'{"success": false} is not the end,code\n',
    b"{",
    b"[1, 2],x\n",
    b'"message","code"\n',
    b"null,null\n",
    b"true\nfalse\n",
    b"<message>,code\n",
    b"\xef\xbb\xbfmessage,code\n",
    "message,code\n".encode("utf-16"),
    b"\n\nmessage,code\n",
    b"\xff\xfe\x00,\x00",
    gzip.compress(b"message,code\n"),
    bytes(100),
    b"{" + b"x" * MOST_HELD_BYTES,
    b"[" * 100_000,
]


def passed(body: bytes, size: int, *, expects_rows: bool = True) -> bytes:
    """Return what is handed on of a body in pieces of this size."""
    content = FileContent("error file", expects_rows=expects_rows)
    pieces = [content.feed(body[at : at + size]) for at in range(0, len(body), size)]
    return b"".join([*pieces, content.end()])


@pytest.mark.parametrize("size", [7, 4096, 1 << 20])
@pytest.mark.parametrize(("name", "body"), PAIRS, ids=[f"{name} {number}" for number, (name, _) in enumerate(PAIRS)])
def test_something_else_is_named_and_not_quoted(name: str, body: bytes, size: int) -> None:
    with pytest.raises(CapillaryResponseError) as caught:
        passed(body, size)
    assert caught.value.message.startswith(f"{name} came where the error file was expected; ")
    assert caught.value.is_transient is True
    assert "sig-secret" not in str(caught.value)


@pytest.mark.parametrize("body", [body for _, body in PAIRS], ids=range(len(PAIRS)))
def test_no_byte_of_something_else_is_handed_on(body: bytes) -> None:
    content = FileContent("error file", expects_rows=True)
    assert [content.feed(body[at : at + 1000]) for at in range(0, len(body), 1000)].count(b"") == -(-len(body) // 1000)


@pytest.mark.parametrize("size", [1, 4096, 1 << 20])
@pytest.mark.parametrize("body", FILES, ids=range(len(FILES)))
def test_a_file_is_handed_on_unchanged(body: bytes, size: int) -> None:
    if len(body) > 1000:
        size = max(size, 1000)
    assert passed(body, size) == body


@pytest.mark.parametrize("body", [b"", b"\n", b"OK", b"null", b'"coupon code"\n', b"[]", b"false"], ids=repr)
def test_without_expected_rows_a_file_may_be_empty_or_a_line(body: bytes) -> None:
    assert passed(body, 1, expects_rows=False) == body


@pytest.mark.parametrize("body", OTHERS["a JSON object"], ids=range(len(OTHERS["a JSON object"])))
def test_without_expected_rows_an_object_is_no_file_either(body: bytes) -> None:
    with pytest.raises(CapillaryResponseError, match=r"^a JSON object came"):
        passed(body, 4096, expects_rows=False)


@examples(300)
@given(json_values, st.sampled_from([None, 0, 3]), st.integers(1, 50))
def test_every_json_value_but_a_number_is_something_else(value: object, indent: int | None, size: int) -> None:
    body = json.dumps(value, indent=indent).encode()
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert passed(body, size) == body
    else:
        with pytest.raises(CapillaryResponseError):
            passed(body, size)


@examples(300)
@given(st.binary(max_size=60), st.integers(1, 9), st.booleans())
def test_what_is_handed_on_is_the_body_or_nothing(body: bytes, size: int, expects_rows: bool) -> None:
    try:
        assert passed(body, size, expects_rows=expects_rows) == body
    except CapillaryResponseError:
        with pytest.raises(CapillaryResponseError):
            check_content(body, name="error file", expects_rows=expects_rows)


def test_a_file_is_handed_on_from_its_first_character_on() -> None:
    content = FileContent("error file", expects_rows=True)
    assert [content.feed(piece) for piece in (b" ", b"m", b"essage")] == [b"", b" m", b"essage"]


@pytest.mark.parametrize("first", [b"{", b"m", b" "])
def test_memory_does_not_grow_with_the_body(first: bytes) -> None:
    content = FileContent("error file", expects_rows=True)
    piece = first * 65_536
    tracemalloc.start()
    try:
        received = sum(len(content.feed(piece)) for _ in range(1000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert received == 1000 * len(piece)
    assert peak < 4 * MOST_HELD_BYTES


def test_blanks_are_nothing_however_many_they_are() -> None:
    content = FileContent("error file", expects_rows=True)
    for _ in range(40):
        content.feed(b"\n" * 65_536)
    with pytest.raises(CapillaryResponseError, match="nothing but blanks"):
        content.end()


@pytest.mark.parametrize(
    ("file_type", "counts", "expected"),
    [
        ("error", {"error_count": 7}, True),
        ("error", {"error_count": 0}, False),
        ("error", {}, True),
        ("success", {"error_count": 7, "total_uploaded_count": 8}, True),
        ("success", {"error_count": 7, "total_uploaded_count": 7}, False),
        ("success", {"total_uploaded_count": 7}, True),
        ("success", {"error_count": 7}, False),
        ("success", {}, False),
        ("uploaded", {"error_count": 7, "total_uploaded_count": 7}, True),
        ("success", {"error_count": 0, "total_uploaded_count": 1}, True),
        ("uploaded", {"total_uploaded_count": 1}, True),
        ("uploaded", {"total_uploaded_count": 0}, False),
        ("uploaded", {}, False),
    ],
)
def test_rows_are_expected_as_the_job_counts_them(file_type: JobFile, counts: dict[str, int], expected: bool) -> None:
    job = UploadJob(job_id=1, status="COMPLETED", **counts)  # type: ignore[arg-type]
    assert expects_rows(job, file_type) is expected
