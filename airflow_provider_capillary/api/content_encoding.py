# SPDX-License-Identifier: Apache-2.0
"""Decodes ``Content-Encoding``, which belongs to the transfer and not to the file."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from airflow_provider_capillary.api.error_files import ERROR_FILE
from airflow_provider_capillary.api.errors import CapillaryErrorFileError
from airflow_provider_capillary.api.secrecy import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Largest piece that one call returns, so that a small body cannot fill the memory.
_PIECE = 1 << 20


class Decoder(Protocol):
    """Decodes the body of a file."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded ``data``, in pieces of bounded size."""

    @property
    def is_whole(self) -> bool:
        """Whether the body may end here."""


def make_decoder(encoding: str, *, name: str = ERROR_FILE) -> Decoder:
    """Return the decoder for a ``Content-Encoding``.

    :param encoding: Lower case; empty for none.
    :param name: Name of the file in errors.
    :raises CapillaryErrorFileError: The encoding was not requested and is not known.
    """
    if not encoding:
        return _Plain()
    if encoding in ("gzip", "x-gzip"):
        return _Gzip(name)
    raise CapillaryErrorFileError(
        f"the {name} came with the Content-Encoding {shown(encoding, most=20)!r}, although none was asked for"
    )


class _Plain:
    is_whole = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        if data:
            yield data


class _Gzip:
    """Gzip, possibly of several members one behind the other (RFC 1952, 2.2)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._member = zlib.decompressobj(wbits=31)
        self._is_fresh = True
        self._has_member = False

    @property
    def is_whole(self) -> bool:
        return self._is_fresh and self._has_member

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            self._is_fresh = False
            try:
                piece = self._member.decompress(data, _PIECE)
            except zlib.error:
                raise CapillaryErrorFileError(f"the {self._name} came as gzip that cannot be decompressed") from None
            if piece:
                yield piece
            if self._member.eof:
                data = self._member.unused_data
                self._member = zlib.decompressobj(wbits=31)
                self._is_fresh, self._has_member = True, True
            else:
                data = self._member.unconsumed_tail
