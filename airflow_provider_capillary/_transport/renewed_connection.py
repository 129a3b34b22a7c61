# SPDX-License-Identifier: Apache-2.0
"""The connection of a hook, read again when Capillary refuses its credentials.

A secrets backend may have rotated a token or secret since the connection was read.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_capillary._airflow_compat import AirflowNotFoundException
from airflow_provider_capillary._transport.connections import aread_settings, read_settings, warn_about
from airflow_provider_capillary._transport.forking import PerProcess
from airflow_provider_capillary.api.errors import CapillaryAuthError, CapillaryError
from airflow_provider_capillary.api.log_lines import write_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capillary._transport.async_connection import AsyncConnection
    from airflow_provider_capillary._transport.sync_connection import SyncConnection
    from airflow_provider_capillary.api.client import CapillaryClient
    from airflow_provider_capillary.api.flow import EmitChunk, Flow
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings
    from airflow_provider_capillary.api.wait_log import Log

T = TypeVar("T")

_CHANGED = "Airflow connection {!r} changed; using the new settings"
_KEPT = "Keeping the previous settings of Airflow connection {!r}: {}"


def _nothing() -> None:
    """Return the connection that a hook starts with."""


class RenewedConnection:
    """Runs flows over an Airflow connection, on a worker. Nothing is read or sent before the first call.

    :param conn_id: Airflow connection of type ``capillary``.
    :param get_connection: Returns the Airflow connection of an id.
    :param http_retry: How safe requests are retried.
    :param log: Log of the hook.
    """

    def __init__(
        self, conn_id: str, *, get_connection: Callable[[str], Any], http_retry: HttpRetry | None, log: Log
    ) -> None:
        self._conn_id = conn_id
        self._get_connection = get_connection
        self._http_retry = http_retry
        self._log = log
        self._opened: PerProcess[SyncConnection | None] = PerProcess(_nothing)
        #: Without it, a thread could open a connection with settings that another thread replaces meanwhile.
        self._lock = PerProcess(threading.Lock)

    @cached_property
    def settings(self) -> ConnectionSettings:
        """The connection, read and validated once.

        :raises CapillaryConfigurationError: A field of the connection is invalid.
        :raises CapillaryTransportError: Airflow cannot read the connection at the moment.
        """
        settings = read_settings(self._conn_id, self._get_connection)
        warn_about(settings, self._log)
        return settings

    def open(self) -> SyncConnection:
        """Return the open connection of this process; the first call opens it."""
        with self._lock.value:
            connection = self._opened.value
            if connection is None:
                from airflow_provider_capillary._transport.sync_connection import SyncConnection

                connection = self._opened.value = SyncConnection.open(self.settings, http_retry=self._http_retry)
            return connection

    def refresh(self) -> bool:
        """Read the connection again if it was read before. If that fails, keep the settings.

        :return: Whether it changed.
        """
        before = self.__dict__.get("settings")
        if before is None:
            return False
        try:
            settings = read_settings(self._conn_id, self._get_connection)
        except (CapillaryError, AirflowNotFoundException) as error:
            write_lines(self._log.warning, _KEPT.format(self._conn_id, error))
            return False
        if settings == before:
            return False
        write_lines(self._log.info, _CHANGED.format(self._conn_id))
        warn_about(settings, self._log)
        with self._lock.value:
            self.__dict__["settings"] = settings
            connection, self._opened.value = self._opened.value, None
        if connection is not None:
            connection.close()
        return True

    def run(self, make: Callable[[CapillaryClient], Flow[T]]) -> T:
        """Run a flow. If the credentials are refused, run it once more over the connection as it is now, if it changed.

        :param make: Makes the flow. It is called again for the changed connection.
        :raises CapillaryError: The flow ended in this error.
        """
        connection = self.open()
        try:
            return connection.run(make(connection.client))
        except CapillaryAuthError:
            if not self._is_replaced(connection):
                raise
        connection = self.open()
        return connection.run(make(connection.client))

    def iterate(self, make: Callable[[CapillaryClient], Flow[None]]) -> Iterator[EmitChunk]:
        """Run a flow that reads a file, and yield the chunks. As :meth:`run`, as long as there was no chunk.

        :param make: Makes the flow.
        :raises CapillaryError: The flow ended in this error.
        """
        connection = self.open()
        has_begun = False
        try:
            with closing(connection.iterate(make(connection.client))) as chunks:
                for chunk in chunks:
                    has_begun = True
                    yield chunk
            return
        except CapillaryAuthError:
            if has_begun or not self._is_replaced(connection):
                raise
        connection = self.open()
        yield from connection.iterate(make(connection.client))

    def _is_replaced(self, connection: SyncConnection) -> bool:
        # Another thread may have read it again already.
        return self.refresh() or self.settings != connection.client.settings


class RenewedAsyncConnection:
    """Does the same in the triggerer. Create it with :meth:`open` and end it with :meth:`close`.

    :param conn_id: Airflow connection of type ``capillary``.
    :param http_retry: How safe requests are retried.
    :param log: Log of the hook.
    """

    def __init__(self, conn_id: str, *, http_retry: HttpRetry | None, log: Log) -> None:
        self._conn_id = conn_id
        self._http_retry = http_retry
        self._log = log
        #: The newest is in use. Requests may be under way over the others, so all are closed in the end.
        self._opened: list[AsyncConnection] = []
        self._lookup = asyncio.Lock()

    @classmethod
    async def open(cls, conn_id: str, *, http_retry: HttpRetry | None, log: Log) -> RenewedAsyncConnection:
        """Read the Airflow connection. The first request connects.

        :param conn_id: Airflow connection of type ``capillary``.
        :param http_retry: How safe requests are retried.
        :param log: Log of the hook.
        :raises AirflowNotFoundException: There is no such connection.
        :raises CapillaryConfigurationError: A field of the connection is invalid.
        :raises CapillaryTransportError: Airflow cannot read the connection at the moment.
        """
        connection = cls(conn_id, http_retry=http_retry, log=log)
        await connection._use(await aread_settings(conn_id))
        return connection

    @property
    def settings(self) -> ConnectionSettings:
        """The settings in use."""
        return self._opened[-1].settings

    async def run(self, make: Callable[[CapillaryClient], Flow[T]]) -> T:
        """Run a flow. If the credentials are refused, run it once more over the connection as it is now, if it changed.

        :param make: Makes the flow. It is called again for the changed connection.
        :raises CapillaryError: The flow ended in this error.
        """
        connection = self._opened[-1]
        try:
            return await connection.run(make(connection.client))
        except CapillaryAuthError:
            if not await self._is_replaced(connection):
                raise
        connection = self._opened[-1]
        return await connection.run(make(connection.client))

    async def close(self) -> None:
        """Close all sockets."""
        while self._opened:
            await self._opened.pop().close()

    async def _is_replaced(self, connection: AsyncConnection) -> bool:
        async with self._lookup:
            if self._opened[-1] is not connection:  # another request has read it again already
                return True
            try:
                settings = await aread_settings(self._conn_id)
            except (CapillaryError, AirflowNotFoundException) as error:
                write_lines(self._log.warning, _KEPT.format(self._conn_id, error))
                return False
            if settings == connection.settings:
                return False
            write_lines(self._log.info, _CHANGED.format(self._conn_id))
            await self._use(settings)
            return True

    async def _use(self, settings: ConnectionSettings) -> None:
        from airflow_provider_capillary._transport.async_connection import AsyncConnection

        self._opened.append(await AsyncConnection.open(settings, http_retry=self._http_retry, log=self._log))
