# SPDX-License-Identifier: Apache-2.0
"""What the two drivers agree on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_capillary import __version__
from airflow_provider_capillary.api.errors import CapillarySettingsError
from airflow_provider_capillary.api.messages import Fault

if TYPE_CHECKING:
    from airflow_provider_capillary.api.settings import ConnectionSettings

USER_AGENT = f"airflow-provider-capillary/{__version__}"
#: An answer that is not a file has to be whole within this many timeouts, however slowly it drips in.
OVERALL_TIMEOUTS = 5

UNTRUSTED = Fault("the TLS certificate of the host is not trusted; see field 'Verify TLS'", is_transient=False)
UNRESOLVED = Fault("the host name cannot be resolved")
UNREACHABLE = Fault("the host cannot be reached")
BROKE_OFF = Fault("the connection broke off")
NO_HANDSHAKE = Fault("the TLS handshake failed")
PROXY_REFUSED = Fault("the proxy did not pass the request on")


def timed_out(settings: ConnectionSettings) -> Fault:
    """Return what to report where an answer took too long.

    :param settings: The connection.
    """
    return Fault(f"no answer within {settings.timeout_seconds:g} seconds")


def not_sendable(error: Exception) -> Fault:
    """Return what to report where a request could not even be put together.

    :param error: What the library raised; only its kind is told, its text quotes the URL.
    """
    return Fault(f"the request cannot be sent ({type(error).__name__})", is_transient=False)


def check_ca_bundle(settings: ConnectionSettings) -> None:
    """Refuse a CA bundle that is not there, before a request fails for a reason nobody would look for.

    :param settings: The connection.
    :raises CapillarySettingsError: ``verify`` is the path of nothing.
    """
    if isinstance(settings.verify, str) and not Path(settings.verify).exists():
        raise CapillarySettingsError(
            f"Connection {settings.conn_id!r}, field 'Verify TLS': there is no CA bundle at {settings.verify!r} "
            "on this machine; write true, false or the path of a file that every worker and the triggerer have"
        )
