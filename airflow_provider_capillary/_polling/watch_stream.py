# SPDX-License-Identifier: Apache-2.0
"""What the triggerer runs once for all watchers of a series: the looks, and what to do once their events are stored."""

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

log = logging.getLogger(__name__)


@dataclass(eq=False)
class PollBatch:
    """One look, on its way through the watchers.

    :param jobs: All jobs of the series.
    :param when_stored: What the watchers want done once Airflow has stored the events that they made of it.
    """

    jobs: JobHistory
    when_stored: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


class RedeemUploadStream(SharedStreamProducer):
    """The looks at one series, in the form that Airflow shares among triggers.

    Airflow says when the events of a look are in its database. Only then a cursor may move: stored any earlier, it
    would lose the jobs of an event that a crash overtook.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param coupon_series_id: The series.
    :param poll_interval: Seconds between two looks.
    """

    def __init__(self, capillary_conn_id: str, coupon_series_id: int, poll_interval: float) -> None:
        self._polls: AsyncGenerator[JobHistory, None] = poll_series(
            capillary_conn_id, coupon_series_id, interval=poll_interval, log=log
        )

    async def open_stream(self) -> AsyncIterator[tuple[PollBatch, PollBatch]]:
        """Yield each look, as what the watchers get and as what comes back in :meth:`advance`."""
        async for jobs in self._polls:
            delivery = PollBatch(jobs)
            yield delivery, delivery

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Do what was to be done once the events of these looks are stored.

        :param batch: The looks, with how the watchers ended theirs.
        """
        for item in batch:
            # Of a watcher that failed, the events may be lost: it reads its cursor anew, which must be the old one.
            if item.outcome.is_clean:
                for act in item.broker_payload.when_stored:
                    await act()

    async def aclose(self) -> None:
        """Leave the poll."""
        await self._polls.aclose()
