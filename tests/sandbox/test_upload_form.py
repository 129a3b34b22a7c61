# SPDX-License-Identifier: Apache-2.0
"""The form reader by itself, with chunks that begin and end anywhere."""

from __future__ import annotations

import io
from contextlib import ExitStack
from email.message import Message
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.sandbox import http_messages
from airflow_provider_capillary.sandbox.http_messages import RequestError
from tests.sandbox.client import multipart as write_form

# Contents made of the characters of delimiters.
CONTENTS = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", b"\r\n--X", b"a", b"\0"])).map(b"".join)


def headers(boundary: str) -> Message:
    message = Message()
    message["Content-Type"] = f"multipart/form-data; boundary={boundary}"
    return message


@given(
    contents=st.lists(CONTENTS, min_size=1, max_size=4),
    file_name=st.sampled_from([None, "a.csv"]),
    boundary=st.text("Xab", min_size=2, max_size=5).map(lambda text: f"{text}."),
    chunk=st.integers(1, 40),
)
def test_parts_come_back_as_they_were_written(contents, file_name, boundary, chunk):
    form = write_form({f"part{number}": (file_name, content) for number, content in enumerate(contents)}, boundary)

    with mock.patch.object(http_messages, "CHUNK_BYTES", chunk), ExitStack() as files:
        parts = http_messages.read_form(headers(boundary), io.BytesIO(form), files)

        read = [part if file_name is None else part.file_object.read() for part in parts.values()]
    assert read == contents


def test_an_epilogue_is_ignored():
    form = write_form({"a": (None, b"1")}, "b") + b"epilogue"

    with ExitStack() as files:
        assert http_messages.read_form(headers('"b"'), io.BytesIO(form), files) == {"a": b"1"}


def test_a_preamble_is_refused():
    form = b"preamble\r\n" + write_form({"a": (None, b"1")}, "b")

    with ExitStack() as files, pytest.raises(RequestError, match="malformed"):
        http_messages.read_form(headers("b"), io.BytesIO(form), files)


@pytest.mark.parametrize("written", ['a \\"b\\"; c.csv', "grüße.csv"])
def test_a_file_name_may_have_quotes_and_letters_of_any_language(written):
    form = write_form({"file": (written, b"content")}, "b")

    with ExitStack() as files:
        file = http_messages.read_form(headers("b"), io.BytesIO(form), files)["file"]

        assert file.file_name.decode() == written.replace("\\", "")
        assert file.file_object.read() == b"content"
