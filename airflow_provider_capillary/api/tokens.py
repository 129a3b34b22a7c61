# SPDX-License-Identifier: Apache-2.0
"""Tokens: how long one is used, which caller fetches the next one, and ready tokens that are never fetched.

Facts (docs/capillary/api.md, 1): the lifetime is set per API client, 300 to 3600 s in samples; there is no refresh
token; every token call makes another token and several live side by side.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.values import as_int, as_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_capillary.api.errors import CapillaryError

#: Assumed where a response has no usable lifetime.
DEFAULT_TTL_SECONDS = 300.0
#: The longest lifetime that Capillary grants, on request.
_LONGEST_TTL_SECONDS = 30 * 24 * 3600.0
_MAX_LEAD_SECONDS = 60.0
_LEAD_FRACTION = 0.2
_SCHEME = re.compile(r"bearer(?: +|\Z)", re.IGNORECASE)


@dataclass(frozen=True)
class Token:
    """An access token.

    :param value: Value of the token header. Never in a repr.
    :param use_until: Monotonic time, in seconds, from which on a new token is fetched instead.
    """

    value: str = field(repr=False)
    use_until: float


def make_token(value: str, ttl_seconds: float | None, *, asked_at: float) -> Token:
    """Return a token that is replaced before Capillary lets it expire.

    :param value: The access token.
    :param ttl_seconds: Lifetime that Capillary returned; missing or not positive counts as 300.
    :param asked_at: Monotonic time at which the request for it was sent, which is before its life began.
    :return: The token, used until ``ttl - min(60 s, 20 % of ttl)`` after ``asked_at``.
    """
    ttl = DEFAULT_TTL_SECONDS
    if ttl_seconds is not None and ttl_seconds > 0:
        ttl = min(ttl_seconds, _LONGEST_TTL_SECONDS)
    return Token(value, asked_at + ttl - min(_MAX_LEAD_SECONDS, _LEAD_FRACTION * ttl))


def claimed_lifetime(token: str, *, sent_at: datetime | None, now: datetime) -> float | None:
    """Return the lifetime of a token by its own ``exp`` claim, in seconds; None if it has no such claim.

    Measured by the server's clock if that is known, because the local one may be wrong.

    :param token: The access token; in samples a JWT, whose ``exp - iat`` is its lifetime (docs/capillary/api.md, 1).
    :param sent_at: When the server sent it, by its own clock; None if it did not say.
    :param now: The local wall clock.
    """
    claims = read_claims(token)
    ends_at, issued_at = (as_int(claims.get(name)) for name in ("exp", "iat"))
    if ends_at is None:
        return None
    if sent_at is None and issued_at is not None:
        return float(ends_at - issued_at)
    return ends_at - (sent_at or now).timestamp()


def end_of_token(token: str) -> datetime | None:
    """Return when a token expires by its ``exp`` claim; None if it has no such claim.

    :param token: The access token; in samples a JWT (docs/capillary/api.md, 1).
    """
    ends_at = as_number(read_claims(token).get("exp"))
    if ends_at is None or ends_at <= 0:
        return None
    try:
        return datetime.fromtimestamp(ends_at, UTC)
    except (OverflowError, ValueError, OSError):  # beyond the year 9999, such as milliseconds
        return None


def parse_ready_token(text: str) -> str:
    """Return the token that a user or a secrets backend stored, without a leading ``Bearer``.

    :param text: The stored text.
    :raises ValueError: It is not a token. The message names the problem and never shows the text.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("it has a control character in it, such as a line break; copy the token once more")
    token = text.strip()
    if (scheme := _SCHEME.match(token)) is not None:
        token = token[scheme.end() :]
    if not token:
        raise ValueError("it is not set; with Authentication type bearer it is the token")
    if any(character.isspace() for character in token):
        raise ValueError("it has a space in it, which no token has; store the token alone")
    if not token.isascii():
        raise ValueError("it has characters other than ASCII in it, which no token has; copy the token once more")
    return token


def read_claims(token: str) -> Mapping[str, Any]:
    """Return the claims of a JWT; none of any other token.

    :param token: The token. Its signature is not checked.
    """
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    except (IndexError, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


class TokenRefresh:
    """One fetch of a token, shared by all callers that wait for it.

    :param future: Resolves to the token, to the error of the fetch, or to None if the caller that fetched it was
        cancelled, so that another one has to fetch it.
    """

    def __init__(self, future: Future[Token | CapillaryError | None]) -> None:
        self.future = future


class TokenCache:
    """Keeps the token of one connection, and has one caller at a time fetch the next one.

    Safe to use from several threads and event loops: nothing in it waits.

    :param monotonic: The clock, in seconds.
    """

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._refresh: TokenRefresh | None = None

    def acquire(self) -> tuple[Token | TokenRefresh, bool]:
        """Return a usable token, or the fetch of one.

        :return: The token and False; or a fetch, and whether the caller has to carry it out and call
            :meth:`complete`.
        """
        with self._lock:
            if self._token is not None and self.monotonic() < self._token.use_until:
                return self._token, False
            if self._refresh is not None:
                return self._refresh, False
            future: Future[Token | CapillaryError | None] = Future()
            # A running future cannot be cancelled, so a cancelled waiter does not cancel the others.
            future.set_running_or_notify_cancel()
            self._refresh = TokenRefresh(future)
            return self._refresh, True

    def complete(self, refresh: TokenRefresh, result: Token | CapillaryError | None) -> None:
        """End a fetch that :meth:`acquire` gave to the caller.

        :param refresh: The fetch.
        :param result: The token; or the error, for all that wait; or None if the caller was cancelled.
        """
        with self._lock:
            if isinstance(result, Token):
                self._token = result
            self._refresh = None
        refresh.future.set_result(result)

    def held(self) -> Token | None:
        """Return the token that is kept, usable or not."""
        with self._lock:
            return self._token

    def invalidate(self, token: Token) -> None:
        """Forget a token that Capillary refused, unless a newer one is already here."""
        with self._lock:
            if self._token is token:
                self._token = None
