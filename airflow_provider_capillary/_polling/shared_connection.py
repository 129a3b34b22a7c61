# SPDX-License-Identifier: Apache-2.0
"""One open connection for all polls over an Airflow connection, replaced when that changes.

Everything in here belongs to one event loop and is used from it alone, so nothing needs a lock between threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from airflow_provider_capillary._airflow_compat import AirflowNotFoundException
from airflow_provider_capillary._transport.async_connection import AsyncConnection
from airflow_provider_capillary._transport.connections import aread_settings, undefined_connection
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError, CapillaryTransportError
from airflow_provider_capillary.api.log_lines import write_lines
from airflow_provider_capillary.api.timing import LookupTimes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

log = logging.getLogger(__name__)

#: Seconds that a poll waits for Airflow to answer about a connection.
_LOOKUP_WITHIN = 30.0
#: The same where one is open to go on with. Once only: while the answer is overdue, no poll waits for it.
_LOOKUP_WITHIN_IN_USE = 5.0
#: Seconds that the last user of a connection waits for a lookup that is under way.
_CLOSED_WITHIN = 5.0
#: Seconds that a poll waits for its turn to have the connection read.
_LONGEST_PATIENCE = 5.0


class _OpenConnection:
    """Counts the requests over a connection. Once retired, it is closed when the last of them has ended."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._requests = 0
        self._is_retired = False

    @asynccontextmanager
    async def request(self) -> AsyncIterator[AsyncConnection]:
        self._requests += 1
        try:
            yield self.connection
        finally:
            self._requests -= 1
            await self._close_if_unused()

    async def retire(self) -> None:
        self._is_retired = True
        await self._close_if_unused()

    async def _close_if_unused(self) -> None:
        if self._is_retired and not self._requests:
            await self.connection.close()


class SharedConnection:
    """The open connection of all polls over one Airflow connection in an event loop. Borrow it with
    :func:`~airflow_provider_capillary._polling.shared_poll.shared_connection`.

    :param conn_id: Airflow connection of type ``capillary``.
    """

    def __init__(self, conn_id: str) -> None:
        self.users = 0
        #: Called when another connection takes the place of the one in use, or the first one is open.
        self.listeners: set[Callable[[], None]] = set()
        #: Grows with each connection that takes the place of another one because the Airflow connection changed.
        self.version = 0
        self.times = LookupTimes()
        self._conn_id = conn_id
        self._open: _OpenConnection | None = None
        self._lookup: asyncio.Task[None] | None = None
        self._error: CapillaryError | None = None
        self._must_reopen = False
        self._is_overdue = False

    def reopen(self) -> None:
        """Make a new client with the next lookup, even if the connection stayed the same.

        Certificates on the disk may have been replaced.
        """
        self._must_reopen = True

    def request(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend the connection for one request; it stays open for as long, even if another one takes its place.

        :raises CapillaryError: There is none, because the connection cannot be read or used.
        """
        if self._open is None:
            # A copy: one exception object raised in many places would collect all their tracebacks.
            error = self._error or self._unreadable("no answer in time")
            raise CapillaryError.from_dict(error.to_dict())
        return self._open.request()

    @property
    def is_open(self) -> bool:
        """Whether there is one to lend."""
        return self._open is not None

    async def refresh(self, *, patiently: bool = False) -> None:
        """Read the connection where that is due. Never raises: where it fails, the one in use stays.

        One lookup at a time, however many polls need it. It is never cancelled while polls go on, because Airflow
        before 3.3 takes the answer to an abandoned question for the answer to the next one.

        :param patiently: Whether to wait until the rate limit allows a lookup.
        """
        if self._lookup is not None and not await self._ended(self._lookup):
            return
        if patiently and self.times.is_wanted:
            await asyncio.sleep(min(self.times.due() - time.monotonic(), _LONGEST_PATIENCE))
        if self._lookup is None and time.monotonic() >= self.times.due():
            self._begin_lookup()
        if self._lookup is not None:
            await self._ended(self._lookup)

    async def reread(self) -> CapillaryError | None:
        """Read the connection in use, and wait until that has ended. Call it before a permanent error is delivered.

        :meth:`refresh` spares polls that succeed a wait for Airflow. Here only a lookup that began after this call
        counts: one that is under way may have read a secret that was rotated since.

        :return: Why the connection could not be read; None if it was.
        """
        called = time.monotonic()
        self.times.want(called)
        try:
            async with asyncio.timeout(_LOOKUP_WITHIN):
                while True:
                    if self._lookup is not None:
                        await asyncio.wait({self._lookup})
                    elif self.times.is_since(called):
                        return self._error
                    elif (pause := self.times.due() - time.monotonic()) > 0:
                        await asyncio.sleep(pause)
                    else:
                        self._begin_lookup()
        except TimeoutError:
            self._is_overdue = self._lookup is not None
            self._failed(self._unreadable(f"no answer within {_LOOKUP_WITHIN:g} seconds"))
            return self._error

    def _begin_lookup(self) -> None:
        self.times.begin(time.monotonic())
        self._lookup = asyncio.create_task(self._look_up())
        self._lookup.add_done_callback(self._looked_up)

    async def _ended(self, lookup: asyncio.Task[None]) -> bool:
        seconds = _LOOKUP_WITHIN if self._open is None else _LOOKUP_WITHIN_IN_USE
        if self._is_overdue and self._open is not None:
            return False
        done, _ = await asyncio.wait({lookup}, timeout=seconds)
        if not done:
            self._is_overdue = True
            self._failed(self._unreadable(f"no answer within {seconds:g} seconds"))
        return bool(done)

    async def close(self) -> None:
        """Close it."""
        lookup = self._lookup
        if lookup is not None:
            _, pending = await asyncio.wait({lookup}, timeout=_CLOSED_WITHIN)
            if pending:
                lookup.cancel()
                await asyncio.wait({lookup})
        if self._open is not None:
            await self._open.retire()

    async def _look_up(self) -> None:
        try:
            settings = await aread_settings(self._conn_id)
        except CapillaryError as error:
            self._failed(error)
            return
        except AirflowNotFoundException:
            self._failed(undefined_connection(self._conn_id))
            return
        before = self._open
        is_new = before is None or before.connection.settings != settings
        if is_new or self._must_reopen:
            try:
                opened = await AsyncConnection.open(settings, log=log)
            except CapillaryError as error:
                self._failed(error)
                return
            except Exception as error:  # noqa: BLE001 - the HTTP library reads the environment
                self._failed(
                    CapillaryConfigurationError(
                        f"Airflow connection {self._conn_id!r} cannot be used: no HTTP client can be made "
                        f"({type(error).__name__}); check the proxy and certificate variables of the triggerer"
                    )
                )
                return
            self._open, self._must_reopen = _OpenConnection(opened), False
        self._error = None
        if is_new:
            if before is not None:
                write_lines(log.info, f"Airflow connection {self._conn_id!r} changed; polls use the new settings")
            self.version += 1
            for changed in list(self.listeners):
                changed()
        if before is not None and before is not self._open:
            await before.retire()

    def _looked_up(self, lookup: asyncio.Task[None]) -> None:
        self._lookup, self._is_overdue = None, False
        # Airflow cancels a question that its supervisor will not answer any more.
        error = asyncio.CancelledError() if lookup.cancelled() else lookup.exception()
        if error is not None:
            self._failed(self._unreadable(type(error).__name__))

    def _failed(self, error: CapillaryError) -> None:
        self.times.want(time.monotonic())
        if self._open is not None and self.users and (self._error is None or str(self._error) != str(error)):
            write_lines(log.warning, f"Polls go on with the Airflow connection {self._conn_id!r} as it was: {error}")
        self._error = error

    def _unreadable(self, why: str) -> CapillaryTransportError:
        return CapillaryTransportError(
            f"Airflow connection {self._conn_id!r} cannot be read for the moment ({why})", is_transient=True
        )
