# SPDX-License-Identifier: Apache-2.0
"""The form reader by itself, wherever the pieces it reads begin and end."""

from __future__ import annotations

import io
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.sandbox import multipart
from tests.sandbox.client import multipart as write_form

# Contents made of what delimiters are made of.
CONTENTS = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", b"\r\n--X", b"a", b"\0"])).map(b"".join)


@given(
    contents=st.lists(CONTENTS, min_size=1, max_size=4),
    boundary=st.text("Xab", min_size=2, max_size=5).map(lambda text: f"{text}."),
    piece=st.integers(1, 40),
)
def test_parts_come_back_as_they_were_written(contents, boundary, piece):
    form = write_form({f"part{number}": (None, content) for number, content in enumerate(contents)}, boundary)

    with mock.patch.object(multipart, "_PIECE", piece):
        parts = multipart.read_form(f"multipart/form-data; boundary={boundary}", io.BytesIO(form))

    assert [part.open().read() for part in parts.values()] == contents


def test_a_preamble_and_an_epilogue_are_passed_over():
    form = b"preamble\r\n" + write_form({"a": (None, b"1")}, "b") + b"epilogue"

    parts = multipart.read_form('multipart/form-data; boundary="b"', io.BytesIO(form))

    assert {name: part.text() for name, part in parts.items()} == {"a": "1"}


def test_file_names_are_read_in_all_their_spellings():
    disposition = b'form-data; name="file"; filename="a \\"b\\"; c.csv"'
    encoded = b"form-data; name=file; filename*=UTF-8''gr%C3%BC%C3%9Fe.csv"
    names = []
    for value in (disposition, encoded):
        form = b"--b\r\nContent-Type: text/csv\r\ncontent-disposition: " + value + b"\r\n\r\n\r\n--b--"
        names.append(multipart.read_form("multipart/form-data; boundary=b", io.BytesIO(form))["file"].file_name)

    assert names == ['a "b"; c.csv', "grüße.csv"]
