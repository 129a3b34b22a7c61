# SPDX-License-Identifier: Apache-2.0
"""The token and the request limit that all hooks of a connection share within a process."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_capillary._transport.forking import PerProcess
from airflow_provider_capillary.api.limiter import RequestLimiter
from airflow_provider_capillary.api.tokens import TokenCache

if TYPE_CHECKING:
    from airflow_provider_capillary.api.client import CapillaryClient
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings


@dataclass(frozen=True)
class ConnectionState:
    """The shared state of one connection.

    :param tokens: Caches its token.
    :param limiter: Limits its requests per minute.
    """

    tokens: TokenCache
    limiter: RequestLimiter

    @classmethod
    def fresh(cls, settings: ConnectionSettings) -> ConnectionState:
        """Return a state that is not shared.

        :param settings: The connection.
        """
        return cls(
            tokens=TokenCache(monotonic=time.monotonic),
            limiter=RequestLimiter(settings.requests_per_minute, monotonic=time.monotonic),
        )


_lock = PerProcess(threading.Lock)
#: Connection id -> identity of the settings, and the state.
_cache: PerProcess[dict[str, tuple[str, ConnectionState]]] = PerProcess(dict)


def connection_state(settings: ConnectionSettings) -> ConnectionState:
    """Return the state that all hooks of this connection share in this process.

    :param settings: The connection. After it was edited, it has a new state.
    """
    with _lock.value:
        states = _cache.value
        identity, state = states.get(settings.conn_id, (None, None))
        if state is None or identity != settings.identity:
            state = ConnectionState.fresh(settings)
            states[settings.conn_id] = (settings.identity, state)
        return state


def make_client(settings: ConnectionSettings, http_retry: HttpRetry | None = None) -> CapillaryClient:
    """Return a client that shares token and request limit with all others of its connection in this process.

    :param settings: The connection.
    :param http_retry: How safe requests are retried.
    """
    from airflow_provider_capillary.api.client import CapillaryClient

    state = connection_state(settings)
    return CapillaryClient(settings, tokens=state.tokens, limiter=state.limiter, retry=http_retry)
