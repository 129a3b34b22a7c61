# SPDX-License-Identifier: Apache-2.0
"""The check that a body is the file that was asked for, and not an answer that came in its place.

A download may answer HTTP 200 with a JSON object that holds a signed URL, with ``OK``, or with nothing at all
(docs/capillary/api.md, 5). Stored, that would replace the good file of yesterday, and put a signature into the lake.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryResponseError

if TYPE_CHECKING:
    from airflow_provider_capillary.api.jobs import JobFile, UploadJob

#: Bytes up to which a body is held back and parsed. An answer in place of a file is small, a file may have gigabytes.
MOST_HELD_BYTES = 1 << 20
_BLANKS = " \t\r\n\v\f"
#: With which byte something else than a file can begin: that of a JSON value, of ``OK``, of an HTML document, or of any
#: of them in UTF-8, UTF-16 or UTF-32 with a byte order mark. Not a digit: a number can be a row.
_SUSPECT = b'{["tfnoO<\0\xef\xfe\xff'


def expects_rows(job: UploadJob, file: JobFile) -> bool:
    """Return whether a file of a job must have rows, going by what Capillary counts.

    Without a count, an error file must have some: in all samples, none is named where there are no errors.

    :param job: The job.
    :param file: ``error``, ``success`` or ``uploaded``.
    """
    if file == "error":
        return job.error_count != 0
    uploaded = job.total_uploaded_count or 0
    return uploaded > (0 if file == "uploaded" else max(job.error_count or 0, 0))


class FileContent:
    """Takes a body piece by piece and hands on what is the file.

    As long as the body may turn out to be something else, its bytes are held back, up to 1 MiB of them. A file of rows
    is known by its first character and passes through as it comes.

    :param name: What errors are to call the file, such as ``error file``.
    :param expects_rows: Whether the job counts rows for the file. If not, an empty file is a file, and so is any other
        content but a JSON object, which is no row and no header line.
    """

    def __init__(self, name: str, *, expects_rows: bool) -> None:
        self._name = name
        self._expects_rows = expects_rows
        self._held = bytearray()
        self._is_blank = True
        self._is_held = True

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body.

        :param data: Of any length.
        :return: What may be handed on by now, in order; possibly nothing.
        """
        if self._is_blank:
            start = data.lstrip(_BLANKS.encode())[:1]
            self._is_blank = not start
            if start and start not in _SUSPECT:
                return self._release() + data
        if not self._is_held:
            return data
        self._held += data
        return self._release() if len(self._held) > MOST_HELD_BYTES else b""

    def end(self, *, http_status: int | None = None, request_id: str | None = None) -> bytes:
        """Take the end of the body.

        :param http_status: HTTP status of the answer, for the error.
        :param request_id: Capillary's id of the request, for the error.
        :return: What is left to hand on.
        :raises CapillaryResponseError: The body is not the file. The message never quotes it.
        """
        if self._is_blank and not self._is_held:
            found: str | None = "nothing but blanks"
        else:
            found = _describe(bytes(self._held)) if self._is_held else None
        if found is not None and (self._expects_rows or found == _OBJECT):
            raise CapillaryResponseError(
                f"{found} came where the {self._name} was expected; if this goes on, check where Capillary keeps the "
                "files of your brand, and write that into field 'Error file URL'",
                http_status=http_status,
                request_id=request_id,
                is_transient=True,
            )
        return self._release()

    def _release(self) -> bytes:
        self._is_held = False
        held, self._held = bytes(self._held), bytearray()
        return held


def check_content(body: bytes, *, name: str, expects_rows: bool, **facts: Any) -> None:
    """Refuse a whole body that is not the file.

    :param body: The body, no longer compressed.
    :param name: As for :class:`FileContent`.
    :param expects_rows: As for :class:`FileContent`.
    :param facts: What :meth:`FileContent.end` takes.
    :raises CapillaryResponseError: It is something else.
    """
    content = FileContent(name, expects_rows=expects_rows)
    content.feed(body)
    content.end(**facts)


_OBJECT = "a JSON object"
_STATUSES: dict[type, str] = {
    dict: _OBJECT,
    list: "a JSON array",
    str: "a JSON string",
    bool: "a JSON literal",
    type(None): "a JSON null",
}


def _describe(body: bytes) -> str | None:
    """Name what a whole body is instead of a file, or None where it may be one."""
    if not body:
        return "an empty body"
    # JSON comes as UTF-8, UTF-16 or UTF-32, marked or not (RFC 8259 and its predecessors).
    text = body.decode(json.detect_encoding(body), errors="replace").strip(f"{_BLANKS}\ufeff")
    if not text:
        return "nothing but blanks"
    if text.casefold() == "ok":
        return "the text OK"
    if text[:14].casefold() == "<!doctype html":
        return "an HTML page"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return _STATUSES.get(type(value))
