# SPDX-License-Identifier: Apache-2.0
"""An open connection to Capillary for the triggerer: one for each async hook, and one for all polls of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from airflow_provider_capillary._airflow_compat import amask_secret
from airflow_provider_capillary._transport.connection_state import make_client
from airflow_provider_capillary._transport.connections import warn_about
from airflow_provider_capillary._transport.httpcore_transport import HttpcoreTransport
from airflow_provider_capillary.api.secrecy import tail

if TYPE_CHECKING:
    from airflow_provider_capillary.api.client import CapillaryClient
    from airflow_provider_capillary.api.flow import Flow
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings
    from airflow_provider_capillary.api.wait_log import Log

T = TypeVar("T")


class AsyncConnection:
    """Runs flows of the client over ``httpcore``. Create it with :meth:`open` and end it with :meth:`close`.

    :param settings: The Airflow connection.
    :param client: The client that makes the flows.
    :param transport: The transport that runs them.
    """

    def __init__(self, settings: ConnectionSettings, client: CapillaryClient, transport: HttpcoreTransport) -> None:
        self.settings = settings
        self.client = client
        self._transport = transport

    @classmethod
    async def open(
        cls, settings: ConnectionSettings, *, http_retry: HttpRetry | None = None, log: Log
    ) -> AsyncConnection:
        """Return an open connection. The first request connects.

        :param settings: The Airflow connection.
        :param http_retry: How safe requests are retried.
        :param log: Log for warnings about unusual settings.
        :raises CapillaryConfigurationError: The certificates or the proxy of the connection cannot be used.
        """
        warn_about(settings, log)
        transport = await HttpcoreTransport.open(settings, mask=_amask_tail)
        return cls(settings, make_client(settings, http_retry), transport)

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow and return its result.

        :param flow: A flow of :attr:`client`.
        :raises CapillaryError: The flow ended in this error.
        """
        return await self._transport.run(flow)

    async def close(self) -> None:
        """Close all sockets."""
        await self._transport.close()


async def _amask_tail(token: str) -> None:
    """Mask the end of a token. It holds the signature, without which the rest is useless.

    Airflow keeps masked values until the process ends, in a triggerer for weeks, and compiles all of them again for
    each new one, on the event loop. After 1,000 tokens that takes 0.85 s with 740 characters each, 0.024 s with 32.
    """
    await amask_secret(tail(token))
