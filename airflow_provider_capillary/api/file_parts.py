# SPDX-License-Identifier: Apache-2.0
"""One response of a download: which part of the file it brings, where it ends, and its bytes that are new."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_capillary.api.error_files import ERROR_FILE
from airflow_provider_capillary.api.errors import CapillaryErrorFileError, CapillaryResponseError
from airflow_provider_capillary.api.flow import ReadBody
from airflow_provider_capillary.api.http_messages import TransportFailure
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from airflow_provider_capillary.api.flow import Flow
    from airflow_provider_capillary.api.http_messages import Response


@dataclass(frozen=True)
class FilePart:
    """A response that brings a file, from ``start`` on.

    :param response: The response; its body is the first bytes, the rest is still to be read.
    :param start: Offset of the first byte in the encoded body.
    :param name: Name of the file in errors.
    """

    response: Response
    start: int
    name: str = ERROR_FILE

    @property
    def encoding(self) -> str:
        """The ``Content-Encoding``, lower case; empty for none."""
        return encoding_of(self.response)

    @property
    def length(self) -> int | None:
        """Bytes that the response announces; None if it is chunked, which marks its end.

        :raises CapillaryErrorFileError: The response marks no end. One that broke off would pass for a whole one, so it
            is refused.
        """
        headers = self.response.headers
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return None
        length = as_int(headers.get("content-length"))
        if length is None or length < 0:
            raise CapillaryErrorFileError(
                f"the {self.name} came without Content-Length and not in chunks, so that a broken download would go "
                "unnoticed; have the server or proxy that sends it mark its end"
            )
        return length

    @property
    def validator(self) -> str | None:
        """The validator for ``If-Range``: a strong one, and only if the server takes ranges."""
        headers = self.response.headers
        if self.response.status != 206 and headers.get("accept-ranges", "").strip().lower() != "bytes":
            return None
        etag = headers.get("etag")
        if etag is not None:
            return etag if etag.startswith('"') else None
        return headers.get("last-modified")

    @property
    def total(self) -> int | None:
        """Length of the whole encoded body, if the response states it."""
        return self.length if self.response.status != 206 else _content_range(self.response)[3]

    @property
    def reaches_end(self) -> bool:
        """Whether the file ends with this response; a server may send less than the requested range."""
        if self.response.status != 206:
            return True
        _, _, end, total = _content_range(self.response)
        return end is not None and total is not None and end + 1 == total


class PartReader:
    """Reads one response of a download, and skips the bytes that earlier responses brought.

    :param part: The response.
    :param position: Bytes that are already read.
    :param digest: Digest of these bytes; kept up to date.
    """

    def __init__(self, part: FilePart, position: int, digest: hashlib._Hash) -> None:
        self.position = position
        self.fault: TransportFailure | None = None
        self._part = part
        self._offset = part.start
        self._digest = digest
        self._again = hashlib.sha256()
        self._expected = part.length
        self._received = 0
        self._is_first = True

    def next_piece(self) -> Flow[bytes | None]:
        """Return the next new bytes; None at the end, or after a failure, which :attr:`fault` then names."""
        while True:
            data = yield from self._next()
            if data is None:
                return None
            overlap = min(len(data), self.position - self._offset)
            self._offset += len(data)
            if overlap > 0:
                self._again.update(data[:overlap])
                if self._offset >= self.position and self._again.digest() != self._digest.digest():
                    raise file_changed(self._part.name)
                data = data[overlap:]
            if data:
                self._digest.update(data)
                self.position += len(data)
                return data

    def _next(self) -> Flow[bytes | None]:
        response = self._part.response
        if self._is_first and response.body:
            self._is_first = False
            data: bytes | TransportFailure = response.body
        elif response.rest is None:
            data = b""
        else:
            self._is_first = False
            data = yield ReadBody(response)
        if isinstance(data, TransportFailure):
            self.fault = data
            return None
        self._received += len(data)
        if data:
            return data
        if self._expected is not None and self._received != self._expected:
            self.fault = TransportFailure(f"{self._received} bytes came where {self._expected} were announced")
        elif self._offset < self.position:
            raise file_changed(self._part.name)
        elif not self._part.reaches_end:
            self.fault = TransportFailure("the server sent less than the requested range")
        return None


def encoding_of(response: Response) -> str:
    """Return the ``Content-Encoding``, lower case; empty for none."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def start_of(response: Response, asked_from: int, name: str) -> int:
    """Return the offset at which a response begins, from its ``Content-Range``.

    :param response: The response.
    :param asked_from: The offset that was requested.
    :param name: Name of the file in errors.
    :raises CapillaryResponseError: It begins at another offset than requested.
    """
    if response.status != 206:
        return 0
    unit, start, _, _ = _content_range(response)
    if unit != "bytes" or start != asked_from:
        raise CapillaryResponseError(
            f"the server sent another range of the {name} than requested", http_status=response.status
        )
    return start


def file_changed(name: str) -> CapillaryErrorFileError:
    """Return the error for a file that is not the same in two responses.

    :param name: Name of the file.
    """
    return CapillaryErrorFileError(f"the {name} changed while it was being read; try again")


def _content_range(response: Response) -> tuple[str, int | None, int | None, int | None]:
    """Read ``Content-Range: bytes first-last/total``."""
    unit, _, span = response.headers.get("content-range", "").strip().partition(" ")
    ends, _, total = span.partition("/")
    first, _, last = ends.partition("-")
    return unit.lower(), as_int(first), as_int(last), as_int(total)
