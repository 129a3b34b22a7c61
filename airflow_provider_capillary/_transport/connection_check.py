# SPDX-License-Identifier: Apache-2.0
"""Checks a connection, for the Test button."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_capillary._airflow_compat import mask_secret
from airflow_provider_capillary._transport.connection_state import ConnectionState
from airflow_provider_capillary._transport.requests_transport import RequestsTransport
from airflow_provider_capillary.api.auth_messages import describe_end
from airflow_provider_capillary.api.client import CapillaryClient
from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryError,
    CapillaryResponseError,
    CapillaryTransportError,
)
from airflow_provider_capillary.api.responses import BAD_CREDENTIALS_CODE
from airflow_provider_capillary.api.retry import HttpRetry
from airflow_provider_capillary.api.tokens import end_of_token
from airflow_provider_capillary.api.upload_kinds import REDEEM

if TYPE_CHECKING:
    from airflow_provider_capillary.api.settings import ConnectionSettings

_TIMEOUT_SECONDS = 5.0
#: Any series will do: the check is whether the token is accepted.
_SERIES_ID = 1


def check_connection(settings: ConnectionSettings) -> tuple[bool, str]:
    """Fetch a token, unless the connection holds a ready one, and make one status call.

    :param settings: The connection. Its timeout is limited to 5 seconds.
    :return: Whether the connection works, and a message that names the result or the problem.
    """
    settings = replace(settings, timeout_seconds=min(settings.timeout_seconds, _TIMEOUT_SECONDS))
    state = ConnectionState.fresh(settings)
    api = CapillaryClient(settings, tokens=state.tokens, limiter=state.limiter, retry=HttpRetry(max_attempts=1))
    try:
        transport = RequestsTransport(settings, mask=mask_secret)
    except CapillaryError as error:
        return False, str(error)
    with closing(transport):
        return _call_api(settings, api, transport)


def without_name(message: str, conn_id: str) -> str:
    """Return a message of the Test button that says "this connection": its id is a random one that Airflow made up.

    :param message: The message, which may name the connection.
    :param conn_id: The id.
    """
    message = message.replace(f"Connection {conn_id!r}: ", "")
    message = message.replace(f"Airflow connection {conn_id!r}", f"connection {conn_id!r}")
    message = re.sub(f"[Cc]onnection {re.escape(repr(conn_id))}", "this connection", message)
    return f"T{message[1:]}" if message.startswith("this connection") else message


def _call_api(settings: ConnectionSettings, api: CapillaryClient, transport: RequestsTransport) -> tuple[bool, str]:
    try:
        transport.run(api.get_token())
    except CapillaryTransportError as error:
        return False, f"The authentication URL cannot be reached: {error}"
    except CapillaryAuthError as error:
        no_token = settings.ready_token is not None or _may_lack_access(error)
        return False, f"{'No token' if no_token else 'Wrong credentials'}: {error}"
    except CapillaryError as error:
        return False, f"The authentication URL gave no token: {error}"
    try:
        transport.run(api.get_upload_jobs(REDEEM, _SERIES_ID))
    except CapillaryTransportError as error:
        return False, f"There is a token, but the API host cannot be reached: {error}"
    except CapillaryAuthError as error:
        return False, f"There is a token, but the API host does not accept it: {error}"
    except CapillaryAccessError as error:
        return False, f"The credentials are good, but without access: {error}"
    except CapillaryResponseError as error:
        return False, f"There is a token, but {settings.host} is not the kind of host that serves coupons: {error}"
    except CapillaryApiError as error:
        # An error about the series comes after authentication, so the check has passed.
        if error.is_transient:
            return False, f"There is a token, but Capillary is not in order: {error}"
        if error.http_status == 403:
            return False, f"There is a token, but no way to the API: {error}"
    except CapillaryError as error:
        return False, str(error)
    good = f"Connected to {settings.host}: the credentials are good and the coupon resource answers"
    if settings.ready_token is not None:
        good = f"{good}; {describe_end(end_of_token(settings.ready_token), now=datetime.now(UTC))}"
    return True, good


def _may_lack_access(error: CapillaryAuthError) -> bool:
    """Return whether a missing access group may be the reason for a refused token request, besides the credentials."""
    if error.api_code == str(BAD_CREDENTIALS_CODE):
        return False
    return error.http_status == 403 or error.api_code in ("403", "4000")
