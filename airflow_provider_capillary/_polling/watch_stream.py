# SPDX-License-Identifier: Apache-2.0
"""Polls a series once for all its watchers, and stores their cursors once Airflow has stored their events."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_capillary._airflow_compat import SharedStreamProducer
from airflow_provider_capillary._polling.shared_poll import poll_series

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from airflow_provider_capillary._airflow_compat import AdvanceItem
    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.upload_kinds import UploadKind

log = logging.getLogger(__name__)


@dataclass(eq=False)
class PollBatch:
    """The result of one poll, on its way through the watchers.

    :param jobs: All jobs of the series.
    :param when_stored: Callbacks of the watchers, for when Airflow has stored the events that they made of it.
    """

    jobs: JobHistory
    when_stored: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


class UploadStream(SharedStreamProducer):
    """The polls of one series, in the form that Airflow shares among triggers.

    Airflow reports when the events of a poll are in its database. Only then may a cursor advance: stored earlier, it
    would skip the jobs of an event that a crash prevented.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param kind: The kind of upload.
    :param coupon_series_id: The series.
    :param poll_interval: Seconds between two polls.
    """

    def __init__(self, capillary_conn_id: str, kind: UploadKind, coupon_series_id: int, poll_interval: float) -> None:
        self._polls: AsyncGenerator[JobHistory, None] = poll_series(
            capillary_conn_id, kind, coupon_series_id, interval=poll_interval, log=log
        )

    async def open_stream(self) -> AsyncIterator[tuple[PollBatch, PollBatch]]:
        """Yield each poll twice: for the watchers, and for :meth:`advance`."""
        async for jobs in self._polls:
            batch = PollBatch(jobs)
            yield batch, batch

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Run the callbacks of polls whose events are stored.

        :param batch: The polls, each with its outcome in the watchers.
        """
        for item in batch:
            # The events of a watcher that failed may be lost: it reads its cursor again, which must be the old one.
            if item.outcome.is_clean:
                for callback in item.broker_payload.when_stored:
                    await callback()

    async def aclose(self) -> None:
        """Leave the poll."""
        await self._polls.aclose()
