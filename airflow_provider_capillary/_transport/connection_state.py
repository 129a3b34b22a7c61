# SPDX-License-Identifier: Apache-2.0
"""What all hooks of one connection share within a process: the token and the request limit."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_capillary._transport.forking import ForkLock
from airflow_provider_capillary.api.limiter import RequestLimiter
from airflow_provider_capillary.api.tokens import TokenCache

if TYPE_CHECKING:
    from airflow_provider_capillary.api.client import CapillaryClient
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings


@dataclass(frozen=True)
class ConnectionState:
    """The shared state of one connection.

    :param tokens: Keeps its token.
    :param limiter: Spaces its requests.
    """

    tokens: TokenCache
    limiter: RequestLimiter

    @classmethod
    def fresh(cls, settings: ConnectionSettings) -> ConnectionState:
        """Return a state that nobody else shares.

        :param settings: The connection.
        """
        return cls(
            tokens=TokenCache(monotonic=time.monotonic),
            limiter=RequestLimiter(settings.requests_per_minute, monotonic=time.monotonic),
        )


_lock = ForkLock()
_states: dict[str, tuple[str, ConnectionState]] = {}


def connection_state(settings: ConnectionSettings) -> ConnectionState:
    """Return the state that all hooks of this connection share in this process.

    :param settings: The connection. Once it was edited, its hooks begin with a new token and limit.
    """
    with _lock:
        identity, state = _states.get(settings.conn_id, (None, None))
        if state is None or identity != settings.identity:
            state = ConnectionState.fresh(settings)
            _states[settings.conn_id] = (settings.identity, state)
        return state


def make_client(settings: ConnectionSettings, http_retry: HttpRetry | None = None) -> CapillaryClient:
    """Return a client that shares token and request limit with all others of its connection in this process.

    :param settings: The connection.
    :param http_retry: How safe requests are tried again.
    """
    from airflow_provider_capillary.api.client import CapillaryClient

    state = connection_state(settings)
    return CapillaryClient(settings, tokens=state.tokens, limiter=state.limiter, retry=http_retry)


def forget_connection_states() -> None:
    """Begin anew, as a process does after a fork: a fetch of a token that the parent had under way never ends here."""
    _states.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_connection_states)
