# SPDX-License-Identifier: Apache-2.0
"""Reads Airflow connections of type ``capillary``, blocking and awaited."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary._airflow_compat import (
    AirflowNotFoundException,
    aget_connection,
    amask_secret,
    mask_secret,
)
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError, CapillaryTransportError
from airflow_provider_capillary.api.log_lines import write_lines
from airflow_provider_capillary.api.secrecy import LEAST_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_capillary.api.settings import ConnectionSettings
    from airflow_provider_capillary.api.wait_log import Log


def read_settings(conn_id: str, get_connection: Callable[[str], Any]) -> ConnectionSettings:
    """Read and validate a connection, and mask its secrets in logs.

    :param conn_id: Airflow connection of type ``capillary``.
    :param get_connection: Returns the Airflow connection of an id.
    :raises AirflowNotFoundException: There is no such connection.
    :raises CapillaryConfigurationError: A field of the connection is invalid.
    :raises CapillaryTransportError: Airflow cannot read the connection at the moment.
    """
    from airflow_provider_capillary.api.connection_parser import parse_connection

    with _translate_lookup_errors(conn_id):
        settings = parse_connection(conn_id, get_connection(conn_id))
        # The whole secret too: a worker ends soon, so what it masks does not add up.
        for secret in _maskable(settings.client_secret, *settings.masks):
            mask_secret(secret)
    return settings


async def aread_settings(conn_id: str) -> ConnectionSettings:
    """Read and validate a connection without blocking the event loop, and mask its secrets in logs.

    :param conn_id: Airflow connection of type ``capillary``.
    :raises AirflowNotFoundException: There is no such connection.
    :raises CapillaryConfigurationError: A field of the connection is invalid.
    :raises CapillaryTransportError: Airflow cannot read the connection at the moment.
    """
    from airflow_provider_capillary.api.connection_parser import parse_connection

    with _translate_lookup_errors(conn_id):
        settings = parse_connection(conn_id, await aget_connection(conn_id))
        for secret in _maskable(*settings.masks):
            await amask_secret(secret)
    return settings


def _maskable(*secrets: str) -> list[str]:
    """Return the values that Airflow masks. It skips shorter ones with a warning that does not say which they are."""
    from airflow_provider_capillary._airflow_compat import conf

    least = conf.getint("logging", "min_length_masked_secret", fallback=LEAST_LENGTH)
    return [secret for secret in dict.fromkeys(secrets) if len(secret) >= least]


def warn_about(settings: ConnectionSettings, log: Log) -> None:
    """Warn about settings that are valid but rarely intended.

    :param settings: The connection.
    :param log: The log.
    """
    warn, named = partial(write_lines, log.warning), f"Connection {settings.conn_id!r}"
    if settings.is_plain_http:
        warn(f"{named} sends the client secret and tokens over plain http to {settings.host}")
    if len(settings.client_secret) < LEAST_LENGTH:
        warn(f"{named} has a Client secret of fewer than {LEAST_LENGTH} characters, too short to be masked in logs")
    if settings.verify is False:
        warn(f"{named} does not check TLS certificates")
    if settings.unknown_extras:
        warn(f"{named} has fields that mean nothing here: {', '.join(settings.unknown_extras)}")
    if settings.unused_fields:
        warn(
            f"{named} has fields that are not used with Authentication type {settings.auth_type}: "
            f"{', '.join(settings.unused_fields)}"
        )


def undefined_connection(conn_id: str) -> CapillaryConfigurationError:
    """Return the error for an Airflow connection that does not exist.

    :param conn_id: Id of the connection.
    """
    return CapillaryConfigurationError(
        f"Airflow connection {conn_id!r} is not defined; create it, or correct capillary_conn_id"
    )


@contextmanager
def _translate_lookup_errors(conn_id: str) -> Iterator[None]:
    """Raise a transient error if a secrets backend or the API server fails to return a connection.

    The message leaves its text out, which may contain secrets.
    """
    try:
        yield
    except (CapillaryError, AirflowNotFoundException):
        raise
    except Exception as error:  # noqa: BLE001 - a secrets backend may raise any class
        raise CapillaryTransportError(
            f"Airflow connection {conn_id!r} cannot be read for the moment ({type(error).__name__})", is_transient=True
        ) from None
