# SPDX-License-Identifier: Apache-2.0
"""The client of Capillary's API: its requests, its token, and when a request is sent again.

Each call is a :data:`Flow`, which a transport carries out.
"""

from __future__ import annotations

import hashlib
import json
import random as _random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_capillary.api.auth_messages import (
    token_expired,
    token_refused,
    with_auth_alternatives,
    with_connection_name,
)
from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryAuthError,
    CapillaryError,
    CapillaryRateLimitError,
    CapillaryTransportError,
)
from airflow_provider_capillary.api.flow import AwaitToken, Flow, MaskSecret, Measure, SendRequest, Sleep, T
from airflow_provider_capillary.api.http_messages import (
    ApiRequest,
    Response,
    TransportFailure,
    merge_headers,
    proxy_wants_credentials,
)
from airflow_provider_capillary.api.job_history import find_job, read_history
from airflow_provider_capillary.api.jobs import read_jobs
from airflow_provider_capillary.api.responses import TokenRefusedError, facts_of, read_payload
from airflow_provider_capillary.api.retry import current_http_retry, parse_http_date, parse_retry_after
from airflow_provider_capillary.api.secrecy import query_secrets, shown, without_query
from airflow_provider_capillary.api.tokens import (
    Token,
    TokenCache,
    TokenRefresh,
    claimed_lifetime,
    end_of_token,
    make_token,
)
from airflow_provider_capillary.api.values import as_int, parse_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.limiter import RequestLimiter
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings
    from airflow_provider_capillary.api.upload_kinds import UploadKind

_JSON = {"Accept": "application/json"}


@dataclass(frozen=True)
class SentRequest:
    """Facts about a sent request that the reader of its response needs.

    :param secrets: Values that must not appear in an error message.
    :param at: Monotonic time at which it was sent.
    :param is_capillary: Whether it went to Capillary, and not to another host that stores files.
    """

    secrets: tuple[str, ...] = field(repr=False)
    at: float
    is_capillary: bool


class CapillaryClient:
    """The API of Capillary over one connection.

    :param settings: The connection.
    :param tokens: Keeps the token; shared by all clients of the connection in this process.
    :param limiter: Spaces the requests; shared likewise.
    :param retry: When and how often a safe request is sent again.
    :param random: Source of numbers in [0, 1).
    :param now: The wall clock, for the end of a ready token and for ``Retry-After`` dates without a ``Date``.
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
        self.retry = retry or current_http_retry()
        self._tokens = tokens
        self._limiter = limiter
        self._random = random
        self._now = now

    def get_upload_jobs(self, kind: UploadKind, coupon_series_id: int | str) -> Flow[list[UploadJob]]:
        """Request all upload jobs of a series (docs/capillary/api.md, 3: no pagination, no promised order).

        :param kind: The kind of upload.
        :param coupon_series_id: The series.
        :return: The jobs in the order of the response; empty for a series without any.
        :raises CapillaryConfigurationError: The id is not a number.
        """
        return (yield from self.send(self._status_request(kind, coupon_series_id), partial(self._read_jobs, kind)))

    def get_upload_history(
        self, kind: UploadKind, coupon_series_id: int | str, before: JobHistory | None = None
    ) -> Flow[JobHistory]:
        """Request all upload jobs of a series again.

        :param kind: The kind of upload.
        :param coupon_series_id: The series.
        :param before: The history of the last response.
        :return: All jobs; ``before`` itself if nothing changed.
        :raises CapillaryConfigurationError: The id is not a number.
        """
        read = partial(self._read_history, kind, before=before)
        return (yield from self.send(self._status_request(kind, coupon_series_id), read))

    def get_upload_job(self, kind: UploadKind, coupon_series_id: int | str, job_id: int | str) -> Flow[UploadJob]:
        """Request one upload job.

        :param kind: The kind of upload.
        :param coupon_series_id: The series.
        :param job_id: The job.
        :raises CapillaryJobNotFoundError: The series has no such job.
        """
        wanted = parse_id("job_id", job_id)
        jobs = yield from self.get_upload_history(kind, coupon_series_id)
        return find_job(jobs, wanted, kind=kind, coupon_series_id=coupon_series_id)

    def get_token(self) -> Flow[Token]:
        """Return the token of the connection, and fetch it if there is no usable one. A ready token is never fetched.

        Only one flow fetches at a time; all others wait for it and share its result, also an error.

        :raises CapillaryAuthError: Capillary does not accept the credentials, or the ready token has expired.
        """
        ready = self.settings.ready_token
        if ready is not None:
            ends_at = end_of_token(ready)
            if ends_at is not None and ends_at <= self._now():
                raise token_expired(ends_at, self.settings)
            return Token(ready, float("inf"))
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

    def send(self, request: ApiRequest, read: Callable[[Response, SentRequest], T]) -> Flow[T]:
        """Send a request, and send it again after a transient error as far as the retry rules allow.

        :param request: The request.
        :param read: Reads a response; raises :class:`CapillaryError` if it is an error.
        :return: The result of ``read``.
        :raises CapillaryError: The last attempt failed, or another one cannot help.
        """
        is_api_host = self.settings.is_api_host(request.url)
        is_capillary = is_api_host or request.url == self.settings.auth_url
        attempt = 0
        had_fresh_token = False
        secrets = (*self.secrets(), *query_secrets(request.url))
        while True:
            attempt += 1
            token = (yield from self.get_token()) if request.needs_token else None
            pause = self._limiter.reserve() if is_capillary else 0.0
            if pause > 0:
                yield Sleep(pause)
                yield Measure("request_delay", seconds=pause)
                if token is not None:  # it may have expired during the pause
                    token = yield from self.get_token()
            if token is not None and token.value not in secrets:
                secrets = (*secrets, token.value)
            sent = SentRequest(secrets=secrets, at=self._tokens.monotonic(), is_capillary=is_capillary)
            got = yield SendRequest(self._with_connection_headers(request, token) if is_api_host else request)
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
                if had_fresh_token or self.settings.ready_token is not None:
                    raise self._refusal(token_refused(error, self.settings), request) from None
                had_fresh_token = True
                attempt -= 1
                continue
            except CapillaryError as error:
                if isinstance(got, Response):
                    retry_after = parse_retry_after(
                        got.headers.get("retry-after"), date=got.headers.get("date"), now=self._now()
                    )
                is_last = not error.is_transient or not request.is_safe or attempt >= self.retry.max_attempts
                delay = self.retry_delay(attempt, retry_after=retry_after)
                if isinstance(error, CapillaryRateLimitError) and is_capillary:
                    # All others who use the connection would be refused as well.
                    self._limiter.pause(delay)
                    yield Measure("rate_limited")
                if isinstance(error, CapillaryAuthError | CapillaryAccessError):
                    raise self._refusal(error, request) from None
                if is_last:
                    raise
            yield Sleep(delay)

    def retry_delay(self, attempt: int, *, retry_after: float | None = None) -> float:
        """Return the seconds to wait before the next attempt.

        :param attempt: How many attempts were made so far, at least 1.
        :param retry_after: Seconds that the server asked for, if it did.
        """
        return self.retry.delay(attempt, retry_after=retry_after, random=self._random)

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must not get from a response into a message, the token included."""
        token = self._tokens.held()
        return self.settings.secrets if token is None else (*self.settings.secrets, token.value)

    def _refusal(self, error: CapillaryError, request: ApiRequest) -> CapillaryError:
        """Return the error for refused credentials, which names the connection and what else to try."""
        named = with_connection_name(error, self.settings.conn_id)
        return with_auth_alternatives(named, request.auth_sensitive, self.settings.auth_type)

    def _fetch_token(self, refresh: TokenRefresh) -> Flow[Token]:
        result: Token | CapillaryError | None = None
        try:
            yield Measure("token_fetches")
            body = json.dumps({"key": self.settings.client_key, "secret": self.settings.client_secret})
            request = ApiRequest(
                "POST",
                self.settings.auth_url,
                headers={**_JSON, "Content-Type": "application/json"},
                body=body.encode(),
            )
            token = yield from self.send(request, self._read_token)
            yield MaskSecret(token.value)
            result = token
            return token
        except CapillaryError as error:
            result = error
            raise
        finally:
            # Also if the transport was cancelled or the generator discarded: another flow then fetches the token.
            self._tokens.complete(refresh, result)

    def _status_request(self, kind: UploadKind, coupon_series_id: int | str) -> ApiRequest:
        series_id = parse_id("coupon_series_id", coupon_series_id)
        return ApiRequest(
            "GET",
            self.settings.base_url + kind.status_path.format(coupon_series_id=series_id),
            headers=_JSON,
            needs_token=True,
        )

    def _with_connection_headers(self, request: ApiRequest, token: Token | None) -> ApiRequest:
        """Add the headers for the API host only: the extra headers of the connection, and the token."""
        # The request's own headers win: a Content-Type of the connection would contradict the body.
        auth = {} if token is None else self.settings.auth_headers(token.value)
        return replace(request, headers=merge_headers(self.settings.headers, request.headers, auth))

    def _read_jobs(self, kind: UploadKind, response: Response, sent: SentRequest) -> list[UploadJob]:
        return read_jobs(read_payload(response, secrets=sent.secrets), kind, timezone=self.settings.cluster_timezone)

    def _read_history(
        self, kind: UploadKind, response: Response, sent: SentRequest, *, before: JobHistory | None
    ) -> JobHistory:
        digest = hashlib.sha256(response.body).digest()
        if before is not None and before.digest == digest and 200 <= response.status < 300:
            return before
        payload = read_payload(response, secrets=sent.secrets)
        history = read_history(payload, kind, timezone=self.settings.cluster_timezone, digest=digest)
        return before if before is not None and before.rows == history.rows else history

    def _read_token(self, response: Response, sent: SentRequest) -> Token:
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
