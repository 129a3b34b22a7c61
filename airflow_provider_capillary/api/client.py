# SPDX-License-Identifier: Apache-2.0
"""The conversation with Capillary, as generators that yield what they want done and receive what happened.

A driver carries the steps out, with ``requests`` on a worker and ``httpx`` in the triggerer; neither knows any rule.
What is sent, how answers are read, when a token is fetched and when something is tried again is all in here.
"""

from __future__ import annotations

import hashlib
import json
import random as _random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_capillary.api.content_encoding import make_decoder
from airflow_provider_capillary.api.error_files import ERROR_FILE, DownloadSource, UrlSource, follow_redirect
from airflow_provider_capillary.api.errors import (
    CapillaryAuthError,
    CapillaryError,
    CapillaryErrorFileError,
    CapillaryRateLimitError,
    CapillaryResponseError,
    CapillaryTransportError,
)
from airflow_provider_capillary.api.file_content import FileContent, check_content
from airflow_provider_capillary.api.http_messages import ApiRequest, Response, TransportFailure, proxy_wants_credentials
from airflow_provider_capillary.api.jobs import find_job, parse_id, read_history, read_jobs
from airflow_provider_capillary.api.responses import (
    TokenRefusedError,
    decode_object,
    facts_of,
    raise_for_failure,
    read_payload,
)
from airflow_provider_capillary.api.retry import current_http_retry, parse_http_date, parse_retry_after
from airflow_provider_capillary.api.secrecy import query_secrets, shown, tail, without_query
from airflow_provider_capillary.api.tokens import Token, TokenCache, TokenRefresh, claimed_lifetime, make_token
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from concurrent.futures import Future

    from airflow_provider_capillary.api.jobs import JobHistory, UploadJob
    from airflow_provider_capillary.api.limiter import RequestLimiter
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings

STATUS_PATH = "/coupon/api/v1/upload/getUploadRedeemedCouponStatus/{coupon_series_id}"
DOWNLOAD_PATH = "/coupon/api/v1/download"
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_JSON = {"Accept": "application/json"}
_MARKS_OF_END = frozenset({"content-length", "transfer-encoding"})


@dataclass(frozen=True)
class SendRequest:
    """Send a request. Answered with a :class:`Response`, or a :class:`TransportFailure` where none arrived whole."""

    request: ApiRequest


@dataclass(frozen=True)
class Sleep:
    """Wait for ``seconds``. Answered with None."""

    seconds: float


@dataclass(frozen=True)
class AwaitToken:
    """Wait for the token that another caller fetches. Answered with the future's result."""

    future: Future[Token | CapillaryError | None]


@dataclass(frozen=True)
class MaskSecret:
    """Keep a fresh secret out of the logs from now on. Answered with None."""

    secret: str

    def __repr__(self) -> str:
        return "MaskSecret(***)"


@dataclass(frozen=True)
class ReadBody:
    """Read more of a streamed body. Answered with bytes, empty at the end, or with a :class:`TransportFailure`."""

    response: Response


@dataclass(frozen=True)
class EmitChunk:
    """Hand on a piece of the file. Answered with None.

    :param total: Bytes of the whole file, where the server told that.
    """

    data: bytes = field(repr=False)
    total: int | None = None


Step = SendRequest | Sleep | AwaitToken | MaskSecret | ReadBody | EmitChunk
T = TypeVar("T")
#: A conversation that ends in a ``T``, or raises :class:`CapillaryError`.
Flow = Generator[Step, Any, T]


@dataclass(frozen=True)
class FilePart:
    """An error file as it comes in, from ``start`` on.

    :param response: The answer; its body is the first bytes, the rest is still to be read.
    :param start: Offset of the first byte in the encoded body.
    :param name: What errors are to call the file.
    """

    response: Response
    start: int
    name: str = ERROR_FILE

    @property
    def encoding(self) -> str:
        """The ``Content-Encoding``, lower case; empty for none."""
        return _encoding_of(self.response)

    @property
    def length(self) -> int | None:
        """Bytes that the answer announces; None where it comes in chunks, whose end is marked.

        :raises CapillaryErrorFileError: The answer marks no end at all. One that broke off could not be told from a
            whole one, so it is not taken.
        """
        headers = self.response.headers
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return None
        length = as_int(headers.get("content-length"))
        if length is None or length < 0:
            raise CapillaryErrorFileError(
                f"the {self.name} came without Content-Length and not in chunks, so that nobody can tell whether it is "
                "whole; have the server or proxy that sends it mark its end"
            )
        return length

    @property
    def validator(self) -> str | None:
        """What ``If-Range`` may be asked with: only where the server takes ranges, and only a strong validator."""
        headers = self.response.headers
        if self.response.status != 206 and headers.get("accept-ranges", "").strip().lower() != "bytes":
            return None
        etag = headers.get("etag")
        if etag is not None:
            return etag if etag.startswith('"') else None
        return headers.get("last-modified")

    @property
    def total(self) -> int | None:
        """Length of the whole encoded body, where the answer tells it."""
        return self.length if self.response.status != 206 else _content_range(self.response)[3]

    @property
    def reaches_end(self) -> bool:
        """Whether the file ends where this answer does; a server may send less than the range it was asked for."""
        if self.response.status != 206:
            return True
        _, _, end, total = _content_range(self.response)
        return end is not None and total is not None and end + 1 == total


class CapillaryClient:
    """The questions that can be asked of Capillary over one connection.

    :param settings: The connection.
    :param tokens: Keeps the token; shared by all who use the connection in this process.
    :param limiter: Spaces the requests; shared likewise.
    :param retry: When and how often a safe request is tried again.
    :param random: Source of numbers in [0, 1).
    :param now: The wall clock, for ``Retry-After`` dates of servers that tell no ``Date``.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        tokens: TokenCache,
        limiter: RequestLimiter,
        retry: HttpRetry | None = None,
        random: Callable[[], float] = _random.random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.settings = settings
        self._tokens = tokens
        self._limiter = limiter
        self._retry = retry or current_http_retry()
        self._random = random
        self._now = now

    def get_redeem_upload_jobs(self, coupon_series_id: int | str) -> Flow[list[UploadJob]]:
        """Ask for all upload jobs of a series (docs/capillary-api.md, 3: no pagination, no promised order).

        :param coupon_series_id: The series.
        :return: The jobs in the order of the answer; empty for a series without any.
        :raises CapillaryConfigurationError: The id is no number.
        """
        return (yield from self._ask(self._status_request(coupon_series_id), self._read_jobs))

    def get_redeem_upload_history(
        self, coupon_series_id: int | str, before: JobHistory | None = None
    ) -> Flow[JobHistory]:
        """Ask for all upload jobs of a series again.

        :param coupon_series_id: The series.
        :param before: What the last answer brought.
        :return: All jobs; ``before`` itself where nothing changed.
        :raises CapillaryConfigurationError: The id is no number.
        """
        read = partial(self._read_history, before=before)
        return (yield from self._ask(self._status_request(coupon_series_id), read))

    def get_redeem_upload_job(self, coupon_series_id: int | str, job_id: int | str) -> Flow[UploadJob]:
        """Ask for one upload job.

        :param coupon_series_id: The series.
        :param job_id: The job.
        :raises CapillaryJobNotFoundError: The series has no such job.
        """
        wanted = parse_id("job_id", job_id)
        jobs = yield from self.get_redeem_upload_history(coupon_series_id)
        return find_job(jobs, wanted, coupon_series_id=coupon_series_id)

    def get_token(self) -> Flow[Token]:
        """Return the token of the connection, fetching it where there is none that is fresh.

        One fetch at a time, however many wait for it; those who wait share its result, an error too.

        :raises CapillaryAuthError: Capillary does not accept the credentials.
        """
        while True:
            claimed, is_ours = self._tokens.acquire()
            if isinstance(claimed, Token):
                return claimed
            if is_ours:
                return (yield from self._fetch_token(claimed))
            result = yield AwaitToken(claimed.future)
            if isinstance(result, Token):
                return result
            if isinstance(result, CapillaryError):
                # A copy: one exception object raised in many places would collect all their tracebacks.
                raise CapillaryError.from_dict(result.to_dict())

    def read_file(self, source: UrlSource | DownloadSource, *, expects_rows: bool = False) -> Flow[None]:
        """Read an error file from one end to the other, yielding its bytes as :class:`EmitChunk` steps.

        An answer that breaks off is taken up again where it broke where the server allows ranges, and otherwise read
        again from its beginning, skipping what is already here if that is still the same.

        :param source: Where the file is.
        :param expects_rows: Whether the job counts rows for the file, so that one without any is not the file.
        :raises CapillaryErrorFileError: The file is not there, changed between two answers, or a redirect leads where
            it must not.
        :raises CapillaryResponseError: Something else came in place of the file.
        :raises CapillaryTransportError: The file broke off again and again without any progress.
        """
        open_part = partial(self._open_part, source, expects_rows=expects_rows)
        part = yield from open_part()
        encoding, validator, total = part.encoding, part.validator, part.total
        decoder = make_decoder(encoding, name=source.name)
        content = FileContent(source.name, expects_rows=expects_rows)
        position, digest = 0, hashlib.sha256()
        failures = 0
        is_doubtful = False
        while True:
            progress = _Progress(part, position, digest)
            while (data := (yield from progress.next_piece())) is not None:
                for piece in decoder.feed(data):
                    if ready := content.feed(piece):
                        yield EmitChunk(ready, None if encoding else total)
            if progress.fault is None and not decoder.is_whole:
                progress.fault = TransportFailure("the compressed body broke off")
            if progress.fault is None and is_doubtful:
                progress.fault, is_doubtful = TransportFailure("two answers told two lengths of it"), False
            if progress.fault is None:
                if ready := content.end(**facts_of(part.response, self._secrets())):
                    yield EmitChunk(ready, None if encoding else total)
                return
            failures = 1 if progress.position > position else failures + 1
            position = progress.position
            if failures >= self._retry.max_attempts:
                raise CapillaryTransportError(
                    f"the {source.name} broke off {failures} times in a row at byte {position}: "
                    f"{progress.fault.message}",
                    is_transient=True,
                )
            yield Sleep(self._retry.delay(failures, retry_after=None, random=self._random))
            part = yield from open_part(start=position, validator=validator)
            if part.encoding != encoding:
                raise _changed(source.name)
            if None not in (total, part.total) and part.total != total:
                # Either may be wrong, and what is here a part only. The next answer has to agree with this one.
                is_doubtful, validator = True, None
            total = part.total

    def _open_part(
        self,
        source: UrlSource | DownloadSource,
        *,
        expects_rows: bool,
        start: int = 0,
        validator: str | None = None,
    ) -> Flow[FilePart]:
        """Begin to fetch a file, or go on where an earlier answer broke off.

        :param source: Where it is.
        :param expects_rows: Whether a file without rows is not the file.
        :param start: Bytes that are already here; the answer may begin at 0 all the same.
        :param validator: What the earlier answer said to recognise the file by; without it, the file is asked for
            from its beginning.
        """
        request = self._file_request(source)
        # A later answer is compared with what came before; the content is then checked at its end.
        check = None if start else partial(check_content, name=source.name, expects_rows=expects_rows)
        read = partial(self._read_file_answer, name=source.name, check=check)
        if start and validator is not None:
            request = request.with_headers({"Range": f"bytes={start}-", "If-Range": validator})
        for _ in range(_MAX_REDIRECTS + 1):
            for secret in dict.fromkeys(map(tail, query_secrets(request.url))):
                # It may be a signature, and HTTP libraries log it at DEBUG.
                yield MaskSecret(secret)
            try:
                response = yield from self._ask(request, read)
                _refuse_unasked_part(request, response, source.name)
            except CapillaryError as error:
                if error.http_status != 416 or "Range" not in request.headers:
                    raise
                # It broke off behind its last byte. Reading it again proves that nothing is missing.
                request = self._file_request(source)
                continue
            if response.status not in _REDIRECTS:
                return FilePart(response, _start_of(response, start, source.name), source.name)
            request = self._redirected(request, response, source.name)
        raise CapillaryErrorFileError(
            f"the {source.name} is not fetched, because it redirects more than {_MAX_REDIRECTS} times"
        )

    def _fetch_token(self, refresh: TokenRefresh) -> Flow[Token]:
        result: Token | CapillaryError | None = None
        try:
            body = json.dumps({"key": self.settings.client_key, "secret": self.settings.client_secret})
            request = ApiRequest(
                "POST",
                self.settings.auth_url,
                headers={**_JSON, "Content-Type": "application/json"},
                body=body.encode(),
            )
            token = yield from self._ask(request, self._read_token)
            yield MaskSecret(token.value)
            result = token
            return token
        except CapillaryError as error:
            result = error
            raise
        finally:
            # Also when the driver was cancelled or the generator thrown away: someone else takes over then.
            self._tokens.complete(refresh, result)

    def _ask(self, request: ApiRequest, read: Callable[[Response, _Sent], T]) -> Flow[T]:
        """Send a request until its answer can be read, within the rules for trying again."""
        is_capillary = self.settings.is_api_host(request.url) or request.url == self.settings.auth_url
        attempt = 0
        had_fresh_token = False
        secrets = (*self._secrets(), *query_secrets(request.url))
        while True:
            attempt += 1
            token = (yield from self.get_token()) if request.needs_token else None
            pause = self._limiter.reserve() if is_capillary else 0.0
            if pause > 0:
                yield Sleep(pause)
                if token is not None:  # it may have become stale meanwhile
                    token = yield from self.get_token()
            if token is not None and token.value not in secrets:
                secrets = (*secrets, token.value)
            sent = _Sent(
                secrets=secrets,
                at=self._tokens.monotonic(),
                is_capillary=is_capillary,
            )
            got = yield SendRequest(self._dressed(request, token))
            if isinstance(got, Response) and got.status == 407:
                got = proxy_wants_credentials()
            retry_after: float | None = None
            try:
                if isinstance(got, TransportFailure):
                    raise CapillaryTransportError(
                        f"{request.method} {shown(without_query(request.url), secrets=secrets)}: {got.message}",
                        is_transient=got.is_transient,
                    )
                return read(got, sent)
            except TokenRefusedError as error:
                if token is None:
                    raise
                self._tokens.invalidate(token)
                if had_fresh_token:
                    raise CapillaryAuthError(
                        "Capillary refuses even a fresh token; check that the API host and the authentication URL "
                        "belong to the same cluster",
                        http_status=error.http_status,
                        api_code=error.api_code,
                        request_id=error.request_id,
                    ) from None
                had_fresh_token = True
                attempt -= 1
                continue
            except CapillaryError as error:
                if isinstance(got, Response):
                    retry_after = parse_retry_after(
                        got.headers.get("retry-after"), date=got.headers.get("date"), now=self._now()
                    )
                is_last = not error.is_transient or not request.is_safe or attempt >= self._retry.max_attempts
                delay = self._retry.delay(attempt, retry_after=retry_after, random=self._random)
                if isinstance(error, CapillaryRateLimitError) and is_capillary:
                    # Whoever else uses the connection would only be refused as well.
                    self._limiter.pause(delay)
                if is_last:
                    raise
            yield Sleep(delay)

    def _secrets(self) -> tuple[str, ...]:
        """Return what no answer may bring into a message, the token included."""
        token = self._tokens.held()
        return self.settings.secrets if token is None else (*self.settings.secrets, token.value)

    def _status_request(self, coupon_series_id: int | str) -> ApiRequest:
        series_id = parse_id("coupon_series_id", coupon_series_id)
        return ApiRequest(
            "GET",
            self.settings.base_url + STATUS_PATH.format(coupon_series_id=series_id),
            headers=_JSON,
            needs_token=True,
        )

    def _dressed(self, request: ApiRequest, token: Token | None) -> ApiRequest:
        """Add what goes to the API host only: extra headers, and the token."""
        if not self.settings.is_api_host(request.url):
            return request
        # What the request needs counts more: a Content-Type from elsewhere would belie its body.
        request = request.with_headers(self.settings.headers).with_headers(request.headers)
        return request if token is None else request.with_headers({self.settings.auth_header_name: token.value})

    def _file_request(self, source: UrlSource | DownloadSource) -> ApiRequest:
        if isinstance(source, UrlSource):
            return self._get_file(source.url)
        # Not documented: what Capillary's own web page was seen to call (docs/capillary-api.md, 5).
        return ApiRequest(
            "POST",
            f"{self.settings.base_url}{DOWNLOAD_PATH}",
            headers={"Accept": "*/*", "Accept-Encoding": "identity", "Content-Type": "application/json"},
            body=json.dumps({"fileName": source.handle}).encode(),
            needs_token=True,
            stream=True,
        )

    def _get_file(self, url: str) -> ApiRequest:
        return ApiRequest(
            "GET",
            url,
            headers={"Accept": "*/*", "Accept-Encoding": "identity"},
            needs_token=self.settings.is_api_host(url),
            stream=True,
        )

    def _redirected(self, request: ApiRequest, response: Response, name: str) -> ApiRequest:
        target = follow_redirect(
            request.url, response.headers.get("location"), self.settings, name=name, secrets=self._secrets()
        )
        if request.method != "GET" and response.status in (307, 308):
            # These two mean "the same request again, over there"; the handle is for Capillary alone.
            raise CapillaryErrorFileError(
                f"the {name} is not fetched, because {without_query(request.url)} redirects a POST"
            )
        onward = self._get_file(target)
        kept = {name: value for name, value in request.headers.items() if name in ("Range", "If-Range")}
        return onward.with_headers(kept)

    def _read_jobs(self, response: Response, sent: _Sent) -> list[UploadJob]:
        return read_jobs(read_payload(response, secrets=sent.secrets), timezone=self.settings.cluster_timezone)

    def _read_history(self, response: Response, sent: _Sent, *, before: JobHistory | None) -> JobHistory:
        digest = hashlib.sha256(response.body).digest()
        if before is not None and before.digest == digest and 200 <= response.status < 300:
            return before
        payload = read_payload(response, secrets=sent.secrets)
        history = read_history(payload, timezone=self.settings.cluster_timezone, digest=digest)
        return before if before is not None and before.rows == history.rows else history

    def _read_token(self, response: Response, sent: _Sent) -> Token:
        data = read_payload(response, secrets=sent.secrets, is_token_call=True).get("data")
        value = data.get("accessToken") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(value, str) or not value.strip():
            raise CapillaryAuthError(
                f"{without_query(self.settings.auth_url)} answered without a token; check the client key and secret, "
                "and that this is the authentication URL of your cluster",
                **facts_of(response, sent.secrets),
            )
        value = value.strip()
        if not value.isascii() or not value.isprintable():
            raise CapillaryAuthError("Capillary's token has characters that no header can carry")
        lifetime: float | None = as_int(data.get("ttlSeconds"))
        if lifetime is None or lifetime <= 0:
            lifetime = claimed_lifetime(value, sent_at=parse_http_date(response.headers.get("date")), now=self._now())
        return make_token(value, lifetime, asked_at=sent.at)

    def _read_file_answer(
        self, response: Response, sent: _Sent, *, name: str, check: Callable[..., None] | None
    ) -> Response:
        """Return the answer if it brings the file, and raise what came in its place, going by the first bytes."""
        if response.status in _REDIRECTS:
            return response
        # A part can begin with anything. It is no error, whatever it looks like.
        is_file = bool(response.body) if response.status == 206 else response.body.lstrip()[:1] not in (b"", b"{")
        if isinstance(response.rest, TransportFailure) and (_encoding_of(response) or not is_file):
            # It broke off before one could tell whether this is the file at all.
            raise CapillaryTransportError(
                f"the {name}: {response.rest.message}", is_transient=response.rest.is_transient
            )
        body = _small_body(response)
        payload = decode_object(body) if body is not None else None
        facts = facts_of(response, sent.secrets)
        try:
            raise_for_failure(response, payload, secrets=sent.secrets)
        except CapillaryError as error:
            if response.status in (404, 410) and not isinstance(error, TokenRefusedError):
                raise CapillaryErrorFileError(f"the {name} is not there (any more)", **facts) from None
            if sent.is_capillary:
                raise
            raise CapillaryErrorFileError(
                f"the host of the {name} did not hand it out; where its URL is signed, it may have expired",
                is_transient=error.is_transient,
                **facts,
            ) from None
        if "html" in response.headers.get("content-type", "").lower():
            raise CapillaryResponseError(f"an HTML page came where the {name} was expected", is_transient=True, **facts)
        if response.status == 202:
            raise CapillaryResponseError(f"the {name} is not ready yet", is_transient=True, **facts)
        if check is not None and body is not None and not response.headers.keys().isdisjoint(_MARKS_OF_END):
            # As early as here, because the request can still be sent again.
            check(body, **facts)
        return response


def _small_body(response: Response) -> bytes | None:
    """Return the whole body, no longer compressed; None where it is large, broken, or only a part of a file."""
    if response.rest is not None or response.status == 206:
        return None
    encoding = _encoding_of(response)
    if not encoding:
        return response.body
    try:
        decoder = make_decoder(encoding)
        # Nothing in place of a file is larger than one piece, however large a body it was compressed from.
        pieces = decoder.feed(response.body)
        body, more = next(pieces, b""), next(pieces, None)
    except CapillaryErrorFileError:
        return None
    return body if more is None and decoder.is_whole else None


def _encoding_of(response: Response) -> str:
    """Return the ``Content-Encoding``, lower case; empty for none."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


@dataclass(frozen=True)
class _Sent:
    """What the reader of an answer has to know of the request.

    :param secrets: Values that must not come back in an error message.
    :param at: Monotonic time at which it was sent.
    :param is_capillary: Whether it went to Capillary, and not to another host that keeps files.
    """

    secrets: tuple[str, ...] = field(repr=False)
    at: float
    is_capillary: bool


def _refuse_unasked_part(request: ApiRequest, response: Response, name: str) -> None:
    if response.status == 206 and "Range" not in request.headers:
        raise CapillaryResponseError(f"the server sent a part of the {name} where all was asked for", http_status=206)


def _content_range(response: Response) -> tuple[str, int | None, int | None, int | None]:
    """Read ``Content-Range: bytes first-last/total``."""
    unit, _, span = response.headers.get("content-range", "").strip().partition(" ")
    ends, _, total = span.partition("/")
    first, _, last = ends.partition("-")
    return unit.lower(), as_int(first), as_int(last), as_int(total)


def _start_of(response: Response, asked_from: int, name: str) -> int:
    """Return the offset at which an answer begins, from its ``Content-Range``."""
    if response.status != 206:
        return 0
    unit, start, _, _ = _content_range(response)
    if unit != "bytes" or start != asked_from:
        raise CapillaryResponseError(
            f"the server sent another range of the {name} than was asked for", http_status=response.status
        )
    return start


def _changed(name: str) -> CapillaryErrorFileError:
    return CapillaryErrorFileError(f"the {name} changed while it was being read; try again")


class _Progress:
    """Reads one answer of a file, skipping what earlier answers brought already.

    :param part: The answer.
    :param position: Bytes that are already here.
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
        """Return the next bytes that are new; None at the end, or where :attr:`fault` says what broke."""
        while True:
            data = yield from self._next()
            if data is None:
                return None
            overlap = min(len(data), self.position - self._offset)
            self._offset += len(data)
            if overlap > 0:
                self._again.update(data[:overlap])
                if self._offset >= self.position and self._again.digest() != self._digest.digest():
                    raise _changed(self._part.name)
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
            raise _changed(self._part.name)
        elif not self._part.reaches_end:
            self.fault = TransportFailure("the server sent less than it was asked for")
        return None
