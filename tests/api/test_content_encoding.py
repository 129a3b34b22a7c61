# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.content_encoding import make_decoder
from airflow_provider_capillary.api.errors import CapillaryErrorFileError
from tests.api.flows import examples

PIECE = 1 << 20


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_without_an_encoding_bytes_pass_as_they_are() -> None:
    decoder = make_decoder("")
    assert [list(decoder.feed(data)) for data in (b"ab", b"", b"c")] == [[b"ab"], [], [b"c"]]
    assert decoder.is_whole


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "x" * 500])
def test_an_encoding_that_was_not_asked_for_and_is_not_known_is_refused(encoding: str) -> None:
    with pytest.raises(CapillaryErrorFileError, match="although none was asked for") as caught:
        make_decoder(encoding)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
def test_gzip_is_undone(encoding: str) -> None:
    decoder = make_decoder(encoding)
    assert b"".join(decoder.feed(gzip.compress(b"message,code\n"))) == b"message,code\n"
    assert decoder.is_whole


@examples(80)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 50))
def test_gzip_of_any_members_in_any_pieces_is_undone(members: list[bytes], size: int) -> None:
    decoder = make_decoder("gzip")
    pieces = cut(b"".join(map(gzip.compress, members)), size)
    got = [piece for data in pieces for piece in decoder.feed(data)]
    assert b"".join(got) == b"".join(members)
    assert decoder.is_whole


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_small_body_that_stands_for_much_comes_in_bounded_pieces(size: int) -> None:
    zeros = bytes(5 * PIECE + 17)
    decoder = make_decoder("gzip")
    got = [piece for data in cut(gzip.compress(zeros), size) for piece in decoder.feed(data)]
    assert max(map(len, got)) <= PIECE
    assert b"".join(got) == zeros
    assert decoder.is_whole


@pytest.mark.parametrize("missing", [1, 4, 8, 15])
def test_gzip_without_its_end_is_not_whole(missing: int) -> None:
    decoder = make_decoder("gzip")
    list(decoder.feed(gzip.compress(b"message,code\n")[:-missing]))
    assert not decoder.is_whole


def test_gzip_that_ends_within_a_second_member_is_not_whole() -> None:
    decoder = make_decoder("gzip")
    list(decoder.feed(gzip.compress(b"a") + gzip.compress(b"b")[:12]))
    assert not decoder.is_whole


def test_gzip_of_which_nothing_came_is_not_whole() -> None:
    assert not make_decoder("gzip").is_whole


@pytest.mark.parametrize(
    "data",
    [
        b"message,code\n",
        zlib.compress(b"message,code\n"),
        gzip.compress(b"a")[:-8] + bytes(8),
        gzip.compress(b"a") + b"junk that is no member",
    ],
    ids=["plain", "zlib", "checksum", "junk behind"],
)
def test_what_is_not_gzip_is_refused_without_being_quoted(data: bytes) -> None:
    decoder = make_decoder("gzip")
    with pytest.raises(CapillaryErrorFileError) as caught:
        list(decoder.feed(data))
    assert str(caught.value) == "the error file came as gzip that cannot be decompressed"
    assert caught.value.__cause__ is None
