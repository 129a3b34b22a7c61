# SPDX-License-Identifier: Apache-2.0
"""The file that an upload reads: from a folder, or from object storage through its Airflow connection.

It is read twice in constant memory: once to check and count its rows, once to send them.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_capillary._transport.object_storage import BLOCK_BYTES, object_storage_path, translate_errors
from airflow_provider_capillary.api.csv_files import CsvScanner
from airflow_provider_capillary.api.errors import CapillaryErrorFileError, CapillaryUploadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capillary._storage.stores.base import ObjectLocation
    from airflow_provider_capillary.api.csv_files import CsvFile, FilePart

_SCAN_BYTES = 1 << 20


@dataclass(frozen=True)
class UploadSource:
    """A file to upload.

    :param location: Where it is.
    :param name: The argument that names it, for messages.
    """

    location: ObjectLocation
    name: str = "source"

    def scan(self, *, max_rows_per_part: int) -> CsvFile:
        """Read the file once, check it and count its rows.

        :param max_rows_per_part: The most rows that one job may have.
        :raises CapillaryUploadError: There is no such file, it cannot be read, or Capillary could not read it.
        """
        scanner = CsvScanner(max_rows_per_part=max_rows_per_part, name=f"{self.name} {self.location.uri}")
        with self._open() as stream:
            while block := self._read(stream, _SCAN_BYTES):
                scanner.feed(block)
        return scanner.finish()

    @contextmanager
    def open_part(self, file: CsvFile, part: FilePart) -> Iterator[PartReader]:
        """Open a part of the file as it is uploaded: the header line, then the rows.

        :param file: What :meth:`scan` returned.
        :param part: One of its parts.
        :raises CapillaryUploadError: The file cannot be read.
        """
        with self._open() as stream:
            with self._translated():
                stream.seek(part.start)
            yield PartReader(self, stream, file, part)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        with self._translated():
            if self.location.scheme == "file":
                stream: Any = self.location.path.open("rb")
            else:
                path = object_storage_path(
                    self.location.uri, self.location.conn_id, account_host=self.location.account_host, name=self.name
                )
                stream = path.open("rb", block_size=BLOCK_BYTES)
        with stream:
            yield stream

    def _read(self, stream: BinaryIO, size: int) -> bytes:
        with self._translated():
            return stream.read(size)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translate_errors(f"{self.name} {self.location.uri} cannot be read"):
                yield
        except CapillaryErrorFileError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise CapillaryUploadError(f"{self.name}: there is no file at {self.location.uri}") from None
            raise CapillaryUploadError(error.message, is_transient=True) from error.__cause__


class PartReader:
    """Reads a part of a file, and checks it before its last bytes are handed out.

    A request whose body is not complete makes no job. So a file that was changed since it was scanned is not uploaded.

    :param source: The file.
    :param stream: The open file, positioned at the first row of the part.
    :param file: The file as it was scanned.
    :param part: The part.
    """

    def __init__(self, source: UploadSource, stream: BinaryIO, file: CsvFile, part: FilePart) -> None:
        self._source = source
        self._stream = stream
        self._header = file.header
        self._sha256 = part.sha256
        self._hash = hashlib.sha256()
        #: Number of bytes that are left.
        self.len = file.size_of(part)

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end.

        :param size: Number of bytes; negative for all.
        :raises CapillaryUploadError: The file cannot be read, or is another one than was scanned.
        """
        size = self.len if size < 0 else min(size, self.len)
        if not size:
            return b""
        if self._header:
            data, self._header = self._header[:size], self._header[size:]
        else:
            data = self._source._read(self._stream, size)
        self._hash.update(data)
        self.len -= len(data)
        if not data or (not self.len and self._hash.hexdigest() != self._sha256):
            raise CapillaryUploadError(
                f"{self._source.name} {self._source.location.uri} changed while it was uploaded; nothing was uploaded "
                "of this part. Write the file completely before the task starts",
                is_transient=True,
            )
        return data
