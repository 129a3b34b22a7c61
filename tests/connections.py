# SPDX-License-Identifier: Apache-2.0
"""Connections of tests: the tokens and request limits that a process keeps, and ready tokens that are rotated."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from airflow_provider_capillary._transport import connection_state
from airflow_provider_capillary.api.tokens import end_of_token

if TYPE_CHECKING:
    import pytest

    from airflow_provider_capillary.sandbox import Sandbox

#: A token is checked before it is sent, and the request arrives later.
_UNDER_WAY_SECONDS = 0.5


def forget_connection_states() -> None:
    """Drop them, as if the process had just begun."""
    connection_state._cache.value.clear()


def bearer_connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """Store a new ready token in the default connection, as a secrets backend does that rotates it, and return it."""
    made = sandbox.connection(requests_per_minute=1_000_000, auth_type="bearer")
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", json.dumps(made))
    return str(made["password"])


def assert_not_sent_after_its_end(token: str, sandbox: Sandbox) -> None:
    """The sandbox saw a token in requests, and in none after the end that it claims."""
    end = end_of_token(token)
    assert end is not None
    latest = time.monotonic() - time.time() + end.timestamp() + _UNDER_WAY_SECONDS
    times = [request.at for request in sandbox.requests if request.headers["Authorization"] == f"Bearer {token}"]
    assert times
    assert max(times) < latest
