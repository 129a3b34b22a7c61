# SPDX-License-Identifier: Apache-2.0
"""Access tokens of the sandbox."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class TokenBook:
    """Issues tokens and knows which of them still hold.

    Every call makes another token and all of them live side by side (documented). There is no refresh and no
    revocation in the API; :meth:`expire_all` exists for tests.

    :param ttl_seconds: lifetime of a token in seconds
    :param org_id: the org a token carries
    :param clock: monotonic clock, in seconds
    :param wall: seconds since the epoch, for the claims of a token
    """

    def __init__(
        self, *, ttl_seconds: float, org_id: int, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._org_id = org_id
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._expiry: dict[str, float] = {}
        self._issued: list[str] = []

    def issue(self) -> str:
        """Make a token like the real ones: three base64url parts, the last one unguessable.

        Its claims say when it was issued and when it expires (sample).
        """
        issued_at = int(self._wall())
        lifetime = {"iat": issued_at, "exp": issued_at + int(self._ttl_seconds)}
        claims = {"org": self._org_id, "jti": secrets.token_hex(8)} | lifetime
        parts = (
            json.dumps({"kid": "sandbox", "alg": "RS256"}).encode(),
            json.dumps(claims).encode(),
            secrets.token_bytes(32),
        )
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        with self._lock:
            now = self._clock()
            self._expiry = {known: end for known, end in self._expiry.items() if end > now}
            self._expiry[token] = now + self._ttl_seconds
            self._issued.append(token)
        return token

    def accepts(self, token: str | None) -> bool:
        """Tell whether ``token`` was issued here and has not expired."""
        with self._lock:
            return token is not None and self._expiry.get(token, float("-inf")) > self._clock()

    def expire_all(self) -> None:
        """Refuse every token issued so far from now on."""
        with self._lock:
            self._expiry.clear()

    def issued(self) -> list[str]:
        """Return every token ever issued, oldest first."""
        with self._lock:
            return list(self._issued)
