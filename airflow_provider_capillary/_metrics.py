# SPDX-License-Identifier: Apache-2.0
"""Counts and times for Airflow's metrics. Where Airflow sends none, nothing is imported and nothing happens.

Import this module inside functions: a DAG file that is parsed sends no metrics. A backend that fails never fails what
is measured.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_capillary._airflow_compat import conf, configured_stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.api.flow import Measure
    from airflow_provider_capillary.api.upload_kinds import UploadKind

log = logging.getLogger(__name__)

_SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")
_CONNECTION: Final = ("conn_id",)
_UPLOADS: Final = (*_CONNECTION, "upload_kind")
#: Name below ``capillary.`` -> counter or timer, and its tags. The coupon series is no tag: campaigns add series for
#: years, and a database of metrics would keep each metric once for every one of them.
METRICS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "polls": ("counter", _UPLOADS),
    "poll_failures": ("counter", (*_UPLOADS, "error")),
    "waits_started": ("counter", _UPLOADS),
    "waits_ended": ("counter", (*_UPLOADS, "status")),
    "watcher_events": ("counter", _UPLOADS),
    "rate_limited": ("counter", _CONNECTION),
    "request_delay": ("timer", _CONNECTION),
    "token_fetches": ("counter", _CONNECTION),
    "upload_jobs": ("counter", _UPLOADS),
    "transfer_bytes": ("counter", (*_UPLOADS, "file_type", "store")),
    "transfer_duration": ("timer", (*_UPLOADS, "file_type", "store")),
}


class _Backend:
    """Airflow's backend in this process, found at the first metric."""

    _stats: Any = None
    _is_open = False
    _has_warned = False

    @cached_property
    def is_on(self) -> bool:
        """Whether Airflow sends metrics."""
        return bool(self._guarded(lambda: any(conf.getboolean("metrics", each, fallback=False) for each in _SWITCHES)))

    @property
    def is_ready(self) -> bool:
        """Whether sending a metric takes no time."""
        return self._is_open or not self.is_on

    def open(self) -> None:
        """Import the client and resolve the name of its host."""
        self._guarded(self._import)
        self._is_open = True

    def send(self, method: str, name: str, value: Any, tags: dict[str, str]) -> None:
        """Send one metric.

        :param method: ``incr`` or ``timing``.
        :param name: Its name below ``capillary.``.
        :param value: The count or the time.
        :param tags: Its tags.
        """
        if not self.is_ready:
            self.open()
        if self._stats is not None:
            self._guarded(lambda: getattr(self._stats, method)(f"capillary.{name}", value, tags=tags))

    def _import(self) -> None:
        stats = configured_stats()
        stats.timer()  # makes the client, and sends nothing
        self._stats = stats

    def _guarded(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - a backend may raise any class, and no metric is worth a task
            if not self._has_warned:
                self._has_warned = True
                log.warning("Metrics of Capillary cannot be sent (%s)", type(error).__name__)
        return None


_backend = _Backend()


async def prepare() -> None:
    """Open Airflow's backend without blocking the event loop, before the first metric of a triggerer."""
    if not _backend.is_ready:
        await asyncio.to_thread(_backend.open)


def count(name: str, value: int = 1, /, **tags: str) -> None:
    """Count something.

    :param name: A counter of :data:`METRICS`.
    :param value: How many.
    :param tags: Its tags.
    """
    _backend.send("incr", name, value, tags)


def time(name: str, seconds: float, /, **tags: str) -> None:
    """Report how long something took.

    :param name: A timer of :data:`METRICS`.
    :param seconds: How long.
    :param tags: Its tags.
    """
    _backend.send("timing", name, timedelta(seconds=seconds), tags)


def count_wait(name: str, /, conn_id: str, kind: UploadKind, **tags: str) -> None:
    """Count the start or the end of a wait.

    :param name: A counter of :data:`METRICS`.
    :param conn_id: The Airflow connection.
    :param kind: The kind of upload.
    :param tags: Its other tags.
    """
    count(name, conn_id=conn_id, upload_kind=kind.name, **tags)


def count_poll(conn_id: str, kind: UploadKind, error: Exception | None) -> None:
    """Count a poll, and whether it failed.

    :param conn_id: The Airflow connection.
    :param kind: The kind of upload.
    :param error: Its error; None if it succeeded.
    """
    count("polls", conn_id=conn_id, upload_kind=kind.name)
    if error is not None:
        count("poll_failures", conn_id=conn_id, upload_kind=kind.name, error=type(error).__name__)


def measure(step: Measure, conn_id: str) -> None:
    """Carry out a step of a flow.

    :param step: The step.
    :param conn_id: The Airflow connection.
    """
    tags = {"conn_id": conn_id}
    if step.upload_kind is not None:
        tags["upload_kind"] = step.upload_kind
    if step.seconds is None:
        count(step.metric, **tags)
    else:
        time(step.metric, step.seconds, **tags)
