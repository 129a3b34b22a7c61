# SPDX-License-Identifier: Apache-2.0
"""The tokens and request limits that a process keeps."""

from __future__ import annotations

from airflow_provider_capillary._transport import connection_state


def forget_connection_states() -> None:
    """Drop them, as if the process had just begun."""
    connection_state._cache.value.clear()
