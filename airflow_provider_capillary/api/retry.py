# SPDX-License-Identifier: Apache-2.0
"""When a request is tried again, and after how long."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.values import as_whole_number, read_seconds, short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: HTTP statuses after which a safe request is tried again: the usual ones, 461 (Capillary's "search busy") and
#: Cloudflare's 520-526 (docs/capillary/api.md, 6).
RETRY_STATUSES = frozenset({408, 425, 429, 461, 500, 502, 503, 504, *range(520, 527)})

#: The same for codes inside a body. 521 and its neighbours are left out: there they are business codes. 4001 is the
#: authorization service being down (docs/capillary/api.md, 1).
RETRY_CODES = frozenset({408, 425, 429, 461, 500, 502, 503, 504, 4001})


@dataclass(frozen=True)
class HttpRetry:
    """How often and how patiently a safe request is tried again.

    :param max_attempts: How often a request is sent at the most, the first time included.
    :param base_seconds: Upper bound of the first wait; it doubles with every attempt.
    :param cap_seconds: Upper bound of any wait of our own choosing.
    :param retry_after_cap_seconds: Upper bound of a wait that the server asks for by ``Retry-After``.
    :raises CapillaryConfigurationError: One of them is no number, or too small.
    """

    max_attempts: int = 5
    base_seconds: float = 1.0
    cap_seconds: float = 30.0
    retry_after_cap_seconds: float = 120.0

    def __post_init__(self) -> None:
        attempts = as_whole_number(self.max_attempts)
        if attempts is None or attempts < 1:
            raise CapillaryConfigurationError(
                f"max_attempts must be a whole number, 1 or more, but is {short_repr(self.max_attempts)}"
            )
        object.__setattr__(self, "max_attempts", attempts)
        for name in ("base_seconds", "cap_seconds", "retry_after_cap_seconds"):
            object.__setattr__(self, name, read_seconds(name, getattr(self, name), may_be_zero=True))

    def delay(self, attempt: int, *, retry_after: float | None, random: Callable[[], float]) -> float:
        """Return how long to wait before the next attempt.

        :param attempt: How many attempts were made so far, at least 1.
        :param retry_after: Seconds that the server asked for, if it did.
        :param random: Source of numbers in [0, 1).
        :return: Seconds. Full jitter: any wait between nothing and the exponential bound is as likely as any other,
            so that many clients that failed together do not come back together.
        """
        if retry_after is not None:
            return min(max(retry_after, 0.0), self.retry_after_cap_seconds)
        # The exponent is bounded because a float overflows long before attempts run out in theory.
        bound: float = min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 32))
        return random() * bound


#: Replacements of the default, the one that applies last.
_defaults: list[HttpRetry] = []


@contextmanager
def default_http_retry(http_retry: HttpRetry) -> Iterator[None]:
    """Replace the default of hooks, sensors, operators and triggers, in all threads: for tests, which should not wait.

    A hook with an ``http_retry`` of its own keeps it, and so does a hook that sent a request before.

    :param http_retry: The default within the block, such as ``HttpRetry(max_attempts=2, base_seconds=0)``.
    """
    _defaults.append(http_retry)
    try:
        yield
    finally:
        _defaults.pop()


def current_http_retry() -> HttpRetry:
    """Return the default: ``HttpRetry()``, unless :func:`default_http_retry` replaces it."""
    return _defaults[-1] if _defaults else HttpRetry()


def parse_retry_after(value: str | None, *, date: str | None = None, now: datetime | None = None) -> float | None:
    """Read a ``Retry-After`` header.

    :param value: The header: seconds, or an HTTP date (RFC 9110, 10.2.3).
    :param date: The answer's ``Date`` header. A date in ``value`` is measured against the server's own clock if
        it sends one, so that a wrong clock on this side does not matter.
    :param now: What to measure against where ``date`` is missing.
    :return: Seconds from now, never negative; None where the header is missing, unreadable or cannot be measured.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until = parse_http_date(text)
    since = parse_http_date(date) or now
    if until is None or since is None:
        return None
    return max((until - since).total_seconds(), 0.0)


def parse_http_date(text: str | None) -> datetime | None:
    """Read a date of HTTP (RFC 9110, 5.6.7); None where it is missing or unreadable.

    :param text: The value of a header such as ``Date``.
    """
    if not text:
        return None
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
