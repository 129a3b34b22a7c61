# SPDX-License-Identifier: Apache-2.0
"""What the two drivers agree on."""

from __future__ import annotations

import os
import ssl
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
UNDECODABLE = Fault("the answer cannot be decompressed")
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


def trusted_certificates(settings: ConnectionSettings) -> bool | str:
    """Return what certificates are checked against, for both libraries alike.

    :param settings: The connection. What it says counts more than the environment, ``false`` too.
    :return: The path of a CA bundle, file or folder; True for those that the library brings, False for no check.
    :raises CapillarySettingsError: ``verify`` is the path of no CA bundle, which otherwise would make requests fail
        for a reason that nobody would look for.
    """
    if settings.verify is True:
        return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    if isinstance(settings.verify, str):
        try:
            load_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), settings.verify)
        except OSError:  # ssl.SSLError is one as well
            raise CapillarySettingsError(
                f"Connection {settings.conn_id!r}, field 'Verify TLS': there is no CA bundle at {settings.verify!r} "
                "on this machine; write true, false or the path of a file that every worker and the triggerer have"
            ) from None
    return settings.verify


def load_certificates(context: ssl.SSLContext, path: str) -> None:
    """Let a context trust the certificates of a CA bundle.

    :param context: The context.
    :param path: File, or folder as ``openssl rehash`` makes it.
    :raises OSError: There are none.
    """
    if Path(path).is_dir():
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)
