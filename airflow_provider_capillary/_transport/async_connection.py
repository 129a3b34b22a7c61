# SPDX-License-Identifier: Apache-2.0
"""An open connection to Capillary, awaited: one for each async hook, and one for all polls over a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from airflow_provider_capillary._airflow_compat import amask_secret
from airflow_provider_capillary._transport.connection_state import make_client
from airflow_provider_capillary._transport.connections import warn_about
from airflow_provider_capillary._transport.httpx_transport import HttpxTransport
from airflow_provider_capillary.api.secrecy import tail

if TYPE_CHECKING:
    from airflow_provider_capillary.api.client import CapillaryClient, Flow
    from airflow_provider_capillary.api.jobs import JobHistory
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings
    from airflow_provider_capillary.api.waiting import Log

T = TypeVar("T")


class AsyncConnection:
    """Runs flows of the client over ``httpx``. Make it with :meth:`open`, end it with :meth:`close`.

    :param settings: The Airflow connection.
    :param client: The client, whose flows to run.
    :param transport: What carries them out.
    """

    def __init__(self, settings: ConnectionSettings, client: CapillaryClient, transport: HttpxTransport) -> None:
        self.settings = settings
        self.client = client
        self._transport = transport

    @classmethod
    async def open(
        cls, settings: ConnectionSettings, *, http_retry: HttpRetry | None = None, log: Log
    ) -> AsyncConnection:
        """Return an open connection; the first request connects.

        :param settings: The Airflow connection.
        :param http_retry: How safe requests are tried again.
        :param log: Where to warn of settings that are rarely meant.
        :raises CapillaryConfigurationError: The certificates or the proxy of the connection cannot be used.
        """
        warn_about(settings, log)
        transport = await HttpxTransport.open(settings, mask=_amask_tail)
        return cls(settings, make_client(settings, http_retry), transport)

    async def run(self, flow: Flow[T]) -> T:
        """Carry a flow out and return its result.

        :param flow: A flow of :attr:`client`.
        :raises CapillaryError: The flow ended in this.
        """
        return await self._transport.run(flow)

    async def get_redeem_upload_history(
        self, coupon_series_id: int | str, before: JobHistory | None = None
    ) -> JobHistory:
        """Return all redeem upload jobs of a series.

        :param coupon_series_id: The coupon series.
        :param before: What the last call returned.
        :return: All jobs, in order; ``before`` itself where nothing changed.
        :raises CapillaryError: The request failed.
        """
        return await self.run(self.client.get_redeem_upload_history(coupon_series_id, before))

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()


async def _amask_tail(token: str) -> None:
    """Mask the end of a token, which signs it: the rest opens nothing.

    Airflow keeps what is masked for as long as the process lives, which in a triggerer is weeks, and compiles all of it
    anew for every new one, on the loop. With tokens of 740 characters that takes 0.85 s after 1,000 of them, with 32
    characters of each 0.024 s.
    """
    await amask_secret(tail(token))
