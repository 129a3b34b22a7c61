# SPDX-License-Identifier: Apache-2.0
"""Reads Airflow connections of type ``capillary``, blocking and awaited."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._airflow_compat import (
    AirflowNotFoundException,
    aget_connection,
    amask_secret,
    mask_secret,
)
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError, CapillaryTransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capillary.api.settings import ConnectionSettings
    from airflow_provider_capillary.api.waiting import Log


def read_settings(conn_id: str, get_connection: Callable[[str], Any]) -> ConnectionSettings:
    """Read and check a connection, and keep its secrets out of the logs.

    :param conn_id: Airflow connection of type ``capillary``.
    :param get_connection: Returns it.
    :raises AirflowNotFoundException: There is no such connection.
    :raises CapillaryConfigurationError: A field of it cannot be used.
    :raises CapillaryTransportError: Airflow cannot give it for the moment.
    """
    from airflow_provider_capillary.api.settings import ConnectionSettings

    with _translate_lookup_errors(conn_id):
        settings = ConnectionSettings.from_connection(conn_id, get_connection(conn_id))
        for secret in settings.masks:
            mask_secret(secret)
    return settings


async def aread_settings(conn_id: str) -> ConnectionSettings:
    """Do the same without blocking the event loop.

    :param conn_id: Airflow connection of type ``capillary``.
    :raises AirflowNotFoundException: There is no such connection.
    :raises CapillaryConfigurationError: A field of it cannot be used.
    :raises CapillaryTransportError: Airflow cannot give it for the moment.
    """
    from airflow_provider_capillary.api.settings import ConnectionSettings

    with _translate_lookup_errors(conn_id):
        settings = ConnectionSettings.from_connection(conn_id, await aget_connection(conn_id))
        for secret in settings.masks:
            await amask_secret(secret)
    return settings


def warn_about(settings: ConnectionSettings, log: Log) -> None:
    """Log what is permitted, but rarely meant.

    :param settings: The connection.
    :param log: Where to.
    """
    if settings.is_plain_http:
        log.warning(
            "Connection %r sends the client secret and tokens over plain http to %s", settings.conn_id, settings.host
        )
    if settings.verify is False:
        log.warning("Connection %r does not check TLS certificates", settings.conn_id)
    if settings.unknown_extras:
        log.warning(
            "Connection %r has fields that mean nothing here: %s", settings.conn_id, ", ".join(settings.unknown_extras)
        )


def undefined_connection(conn_id: str) -> CapillaryConfigurationError:
    """Return the error of a wait whose Airflow connection does not exist.

    :param conn_id: Id of the connection.
    """
    return CapillaryConfigurationError(
        f"Airflow connection {conn_id!r} is not defined; create it, or correct capillary_conn_id"
    )


@contextmanager
def _translate_lookup_errors(conn_id: str) -> Iterator[None]:
    """Make a typed, transient error of what a secrets backend or the API server raises while it is away.

    Its text is left out, because it may hold anything.
    """
    try:
        yield
    except (CapillaryError, AirflowNotFoundException):
        raise
    except Exception as error:  # noqa: BLE001 - a secrets backend raises what it likes
        raise CapillaryTransportError(
            f"Airflow connection {conn_id!r} cannot be read for the moment ({type(error).__name__})", is_transient=True
        ) from None
