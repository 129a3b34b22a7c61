# SPDX-License-Identifier: Apache-2.0
"""The download of an error file over HTTP, resumed where it breaks off."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_capillary.api.content_encoding import make_decoder
from airflow_provider_capillary.api.error_files import DownloadSource, UrlSource, follow_redirect
from airflow_provider_capillary.api.errors import (
    CapillaryError,
    CapillaryErrorFileError,
    CapillaryResponseError,
    CapillaryTransportError,
)
from airflow_provider_capillary.api.file_content import FileContent, check_content
from airflow_provider_capillary.api.file_parts import FilePart, PartReader, encoding_of, file_changed, start_of
from airflow_provider_capillary.api.flow import EmitChunk, Flow, MaskSecret, Sleep
from airflow_provider_capillary.api.http_messages import ApiRequest, TransportFailure
from airflow_provider_capillary.api.responses import TokenRefusedError, decode_object, facts_of, raise_for_failure
from airflow_provider_capillary.api.secrecy import query_secrets, tail, without_query

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.api.client import CapillaryClient, SentRequest
    from airflow_provider_capillary.api.http_messages import Response

DOWNLOAD_PATH = "/coupon/api/v1/download"
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MARKS_OF_END = frozenset({"content-length", "transfer-encoding"})


def read_file(client: CapillaryClient, source: UrlSource | DownloadSource, *, expects_rows: bool = False) -> Flow[None]:
    """Read an error file from front to end, and yield its bytes as :class:`EmitChunk` steps.

    A response that breaks off is resumed there if the server takes ranges. If not, the file is read again from its
    beginning, and the bytes that were already read are compared and skipped.

    :param client: Sends the requests.
    :param source: Where the file is.
    :param expects_rows: Whether the job counts rows for the file, so that a body without rows is not the file.
    :raises CapillaryErrorFileError: The file does not exist, it changed between two responses, or a redirect breaks a
        rule.
    :raises CapillaryResponseError: The response is not the file.
    :raises CapillaryTransportError: The file broke off again and again without any progress.
    """
    download = _Download(client, source, expects_rows=expects_rows)
    part = yield from download.open_part()
    encoding, validator, total = part.encoding, part.validator, part.total
    decoder = make_decoder(encoding, name=source.name)
    content = FileContent(source.name, expects_rows=expects_rows)
    position, digest = 0, hashlib.sha256()
    failures = 0
    is_doubtful = False
    while True:
        reader = PartReader(part, position, digest)
        while (data := (yield from reader.next_piece())) is not None:
            for piece in decoder.feed(data):
                if ready := content.feed(piece):
                    yield EmitChunk(ready, *((None, None) if encoding else (total, digest)))
        if reader.fault is None and not decoder.is_whole:
            reader.fault = TransportFailure("the compressed body broke off")
        if reader.fault is None and is_doubtful:
            reader.fault, is_doubtful = TransportFailure("two responses disagreed on its length"), False
        if reader.fault is None:
            if ready := content.end(**facts_of(part.response, client.secrets())):
                yield EmitChunk(ready, *((None, None) if encoding else (total, digest)))
            return
        failures = 1 if reader.position > position else failures + 1
        position = reader.position
        if failures >= client.retry.max_attempts:
            raise CapillaryTransportError(
                f"the {source.name} broke off {failures} times in a row at byte {position}: {reader.fault.message}",
                is_transient=True,
            )
        yield Sleep(client.retry_delay(failures))
        part = yield from download.open_part(start=position, validator=validator)
        if part.encoding != encoding:
            raise file_changed(source.name)
        if None not in (total, part.total) and part.total != total:
            # The two responses disagree on the total length. Either may be wrong, and the bytes read so far may be a
            # part only: require a third response to confirm.
            is_doubtful, validator = True, None
        total = part.total


class _Download:
    """Sends the requests of one download.

    :param client: Sends them.
    :param source: Where the file is.
    :param expects_rows: Whether a body without rows is not the file.
    """

    def __init__(self, client: CapillaryClient, source: UrlSource | DownloadSource, *, expects_rows: bool) -> None:
        self._client = client
        self._settings = client.settings
        self._source = source
        self._name = source.name
        self._expects_rows = expects_rows

    def open_part(self, *, start: int = 0, validator: str | None = None) -> Flow[FilePart]:
        """Request the file, or the rest of it after an earlier response broke off.

        :param start: Bytes that are already read; the response may begin at 0 all the same.
        :param validator: Validator of the earlier response; without it the file is requested from its beginning.
        """
        request = self._request()
        # A later response is compared with the bytes that are already read; its content is checked at the end.
        check = None if start else partial(check_content, name=self._name, expects_rows=self._expects_rows)
        read = partial(self._read_response, check=check)
        if start and validator is not None:
            request = request.with_headers({"Range": f"bytes={start}-", "If-Range": validator})
        for _ in range(_MAX_REDIRECTS + 1):
            for secret in dict.fromkeys(map(tail, query_secrets(request.url))):
                # It may be a signature, and HTTP libraries log it at DEBUG.
                yield MaskSecret(secret)
            try:
                response = yield from self._client.send(request, read)
                self._refuse_unrequested_part(request, response)
            except CapillaryError as error:
                if error.http_status != 416 or "Range" not in request.headers:
                    raise
                # It broke off after its last byte. Read it again, which proves that nothing is missing.
                request = self._request()
                continue
            if response.status not in _REDIRECTS:
                return FilePart(response, start_of(response, start, self._name), self._name)
            request = self._redirected(request, response)
        raise CapillaryErrorFileError(
            f"the {self._name} is not fetched, because it redirects more than {_MAX_REDIRECTS} times"
        )

    def _request(self) -> ApiRequest:
        if isinstance(self._source, UrlSource):
            return self._get(self._source.url)
        # Not documented: Capillary's own web page was seen to call it (docs/capillary/api.md, 5).
        return ApiRequest(
            "POST",
            f"{self._settings.base_url}{DOWNLOAD_PATH}",
            headers={"Accept": "*/*", "Accept-Encoding": "identity", "Content-Type": "application/json"},
            body=json.dumps({"fileName": self._source.handle}).encode(),
            needs_token=True,
            stream=True,
            auth_sensitive="download",
        )

    def _get(self, url: str) -> ApiRequest:
        return ApiRequest(
            "GET",
            url,
            headers={"Accept": "*/*", "Accept-Encoding": "identity"},
            needs_token=self._settings.is_api_host(url),
            stream=True,
        )

    def _redirected(self, request: ApiRequest, response: Response) -> ApiRequest:
        target = follow_redirect(
            request.url,
            response.headers.get("location"),
            self._settings,
            name=self._name,
            secrets=self._client.secrets(),
        )
        if request.method != "GET" and response.status in (307, 308):
            # These two mean "the same request again, over there"; the handle is for Capillary alone.
            raise CapillaryErrorFileError(
                f"the {self._name} is not fetched, because {without_query(request.url)} redirects a POST"
            )
        kept = {name: value for name, value in request.headers.items() if name in ("Range", "If-Range")}
        return self._get(target).with_headers(kept)

    def _refuse_unrequested_part(self, request: ApiRequest, response: Response) -> None:
        if response.status == 206 and "Range" not in request.headers:
            raise CapillaryResponseError(
                f"the server sent a part of the {self._name} where all of it was requested", http_status=206
            )

    def _read_response(self, response: Response, sent: SentRequest, *, check: Callable[..., None] | None) -> Response:
        """Return the response if it brings the file, judged by its first bytes; else raise the error that it is."""
        if response.status in _REDIRECTS:
            return response
        # A 206 body may start at any offset, so do not inspect it for an error.
        is_file = bool(response.body) if response.status == 206 else response.body.lstrip()[:1] not in (b"", b"{")
        if isinstance(response.rest, TransportFailure) and (encoding_of(response) or not is_file):
            # It broke off before it was clear whether this is the file at all.
            raise CapillaryTransportError(
                f"the {self._name}: {response.rest.message}", is_transient=response.rest.is_transient
            )
        body = _small_body(response)
        payload = decode_object(body) if body is not None else None
        facts = facts_of(response, sent.secrets)
        try:
            raise_for_failure(response, payload, secrets=sent.secrets)
        except CapillaryError as error:
            if response.status in (404, 410) and not isinstance(error, TokenRefusedError):
                raise CapillaryErrorFileError(f"the {self._name} is not there (any more)", **facts) from None
            if sent.is_capillary:
                raise
            raise CapillaryErrorFileError(
                f"the host of the {self._name} did not hand it out; where its URL is signed, it may have expired",
                is_transient=error.is_transient,
                **facts,
            ) from None
        if "html" in response.headers.get("content-type", "").lower():
            raise CapillaryResponseError(
                f"an HTML page came where the {self._name} was expected", is_transient=True, **facts
            )
        if response.status == 202:
            raise CapillaryResponseError(f"the {self._name} is not ready yet", is_transient=True, **facts)
        if check is not None and body is not None and not response.headers.keys().isdisjoint(_MARKS_OF_END):
            # As early as here, because the request can still be sent again.
            check(body, **facts)
        return response


def _small_body(response: Response) -> bytes | None:
    """Return the whole body, decompressed; None if it is large, broken, or only a part of a file."""
    if response.rest is not None or response.status == 206:
        return None
    encoding = encoding_of(response)
    if not encoding:
        return response.body
    try:
        decoder = make_decoder(encoding)
        # An error or page in place of a file fits into one piece, however large the body that it decompresses to.
        pieces = decoder.feed(response.body)
        body, more = next(pieces, b""), next(pieces, None)
    except CapillaryErrorFileError:
        return None
    return body if more is None and decoder.is_whole else None
