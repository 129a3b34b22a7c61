# SPDX-License-Identifier: Apache-2.0
"""An open connection to Capillary for a worker: one for each hook and process."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from airflow_provider_capillary._airflow_compat import mask_secret
from airflow_provider_capillary._transport.connection_state import make_client
from airflow_provider_capillary._transport.requests_transport import RequestsTransport

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self

    from airflow_provider_capillary.api.client import CapillaryClient
    from airflow_provider_capillary.api.flow import EmitChunk, Flow
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings

T = TypeVar("T")


class SyncConnection:
    """Runs flows of the client over ``requests``. Create it with :meth:`open` and end it with :meth:`close`.

    :param client: The client that makes the flows.
    :param transport: The transport that runs them.
    """

    def __init__(self, client: CapillaryClient, transport: RequestsTransport) -> None:
        self.client = client
        self.transport = transport

    @classmethod
    def open(cls, settings: ConnectionSettings, *, http_retry: HttpRetry | None = None) -> Self:
        """Return an open connection. The first request connects.

        :param settings: The Airflow connection.
        :param http_retry: How safe requests are retried.
        :raises CapillaryConfigurationError: The certificates or the proxy of the connection cannot be used.
        """
        return cls(make_client(settings, http_retry), RequestsTransport(settings, mask=mask_secret))

    def run(self, flow: Flow[T]) -> T:
        """Run a flow and return its result.

        :param flow: A flow of :attr:`client`.
        :raises CapillaryError: The flow ended in this error.
        """
        return self.transport.run(flow)

    def iterate(self, flow: Flow[None]) -> Generator[EmitChunk]:
        """Run a flow that reads a file, and yield the chunks of the file.

        :param flow: A flow of :attr:`client`.
        :raises CapillaryError: The flow ended in this error.
        """
        return self.transport.iterate(flow)

    def close(self) -> None:
        """Close all sockets."""
        self.transport.close()
