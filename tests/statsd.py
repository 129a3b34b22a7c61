# SPDX-License-Identifier: Apache-2.0
"""A StatsD server that keeps what it receives."""

from __future__ import annotations

import importlib.util
import socket
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The most that one datagram has.
_DATAGRAM = 1 << 16


class Metric(NamedTuple):
    """One metric as a client of StatsD sends it.

    :ivar name: its name, with Airflow's prefix
    :ivar tags: its tags, in the form of InfluxDB
    :ivar value: the count, or milliseconds
    :ivar type: ``c`` for a counter, ``ms`` for a timer
    """

    name: str
    tags: Mapping[str, str]
    value: float
    type: str

    @classmethod
    def parse(cls, line: str) -> Metric:
        labels, _, rest = line.rpartition(":")
        value, type_ = rest.split("|")
        name, *tags = labels.split(",")
        return cls(name, dict(tag.split("=") for tag in tags), float(value), type_)


class StatsdServer:
    """Receives metrics on a free port of loopback, while the block lasts."""

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """What makes Airflow send its metrics here, with tags."""
        host, port = self._socket.getsockname()
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": host,
            "AIRFLOW__METRICS__STATSD_PORT": str(port),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }

    def received(self) -> list[Metric]:
        """Return what has come and was not returned before. Of a process that has ended, that is everything."""
        metrics: list[Metric] = []
        while True:
            try:
                data = self._socket.recv(_DATAGRAM)
            except BlockingIOError:
                return metrics
            metrics += map(Metric.parse, data.decode().splitlines())


def sums(metrics: list[Metric]) -> Counter[str]:
    """Return the sum of each counter by its name without Airflow's prefix."""
    found: Counter[str] = Counter()
    for metric in metrics:
        if metric.type == "c":
            found[metric.name.removeprefix("airflow.")] += int(metric.value)
    return found


if importlib.util.find_spec("statsd") is not None:
    from statsd import StatsClient

    class BrokenClient(StatsClient):
        """A client of StatsD that cannot send the metrics of this package."""

        def incr(self, stat: str, count: int = 1, rate: float = 1) -> None:
            if stat.startswith("capillary"):
                raise OSError("nothing can be sent, says hunter2")

        timing = incr
