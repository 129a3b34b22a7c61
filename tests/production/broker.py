# SPDX-License-Identifier: Apache-2.0
"""What lies in the broker, message by message, while tasks are sent through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.leaks import redis_contents

if TYPE_CHECKING:
    from tests.system.airflow_processes import AirflowProcesses


class Broker:
    """Collects the keys of Redis and what they hold: a message is gone once its task has ended.

    :param url: URL of Redis.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        #: Key, and what it held at any moment, such as one message.
        self.cells: set[tuple[str, bytes]] = set()

    def begin(self, cluster: AirflowProcesses) -> None:
        """Do nothing: there is nothing to start."""

    def is_under_way(self) -> bool:
        return True

    def step(self, progress: float) -> None:
        """Add what lies there now."""
        for key, content in redis_contents(self._url):
            self.cells |= {(key, cell) for cell in content.split(b"\0")}

    def is_over(self) -> bool:
        return True
