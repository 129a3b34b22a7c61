# SPDX-License-Identifier: Apache-2.0
"""Messages about refused and expired tokens, and about the credentials that a call may want instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from airflow_provider_capillary.api.errors import CapillaryAuthError, CapillaryError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_capillary.api.settings import AuthType, ConnectionSettings

#: A call for which Capillary's documents and samples do not agree on the credentials (docs/capillary/api.md, 4 and 5).
AuthSensitiveCall = Literal["upload", "download"]

_RENEW = (
    "store a new token as Client secret (password) of the connection, in Airflow or in the secrets backend that "
    "rotates it"
)
_BEARER_SEEN = {
    "upload": "Capillary's own page shows a bearer token for this upload",
    "download": "Capillary documents no credentials for this download and may want a bearer token",
}
_ORG_HEADER = "X-CAP-API-AUTH-ORG-ID"
_SPANS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def auth_alternatives(call: AuthSensitiveCall, auth_type: AuthType) -> str:
    """Return which other credentials to try for a call that Capillary refused with 401 or 403.

    :param call: ``upload``, or ``download`` of a bare handle.
    :param auth_type: Authentication type of the connection that was refused.
    """
    if auth_type == "oauth":
        options = [
            f"{_BEARER_SEEN[call]}: make a connection with Authentication type bearer and a ready token",
            "try another API host of your cluster, such as that of its web pages",
        ]
    else:
        options = [
            "Capillary may want an OAuth token here: make a connection with Authentication type oauth, key and secret",
            f"name the organisation of the token in Extra headers ({_ORG_HEADER}), or try another API host",
        ]
    if call == "download":
        options.append("set the Error file URL to where your brand gets these files")
    return "; or ".join(options)


def with_auth_alternatives(
    error: CapillaryError, call: AuthSensitiveCall | None, auth_type: AuthType
) -> CapillaryError:
    """Return the same error with the alternatives of :func:`auth_alternatives` in its message.

    :param error: The refusal.
    :param call: The call that was refused; None for a call whose credentials are documented, which leaves the error
        as it is.
    :param auth_type: Authentication type of the connection.
    """
    if call is None:
        return error
    message = f"{error.message}. {auth_alternatives(call, auth_type)}"
    return CapillaryError.from_dict({**error.to_dict(), "message": message})


def with_connection_name(error: CapillaryError, conn_id: str) -> CapillaryError:
    """Return the same error with the connection in its message whose credentials were refused.

    :param error: The refusal.
    :param conn_id: Airflow's id of the connection.
    """
    if f"onnection {conn_id!r}" in error.message:
        return error
    return CapillaryError.from_dict({**error.to_dict(), "message": f"Connection {conn_id!r}: {error.message}"})


def token_refused(error: CapillaryAuthError, settings: ConnectionSettings) -> CapillaryAuthError:
    """Return the error for a token that Capillary refuses and that no fetch can replace.

    :param error: The refusal.
    :param settings: The connection.
    """
    if settings.ready_token is None:
        message = (
            "Capillary refuses even a fresh token; check that the API host and the authentication URL "
            "belong to the same cluster"
        )
    else:
        message = f"{error.message}; it is the ready token of {_name_of(settings)}: {_RENEW}"
    return CapillaryAuthError(
        message, http_status=error.http_status, api_code=error.api_code, request_id=error.request_id
    )


def token_expired(ended_at: datetime, settings: ConnectionSettings) -> CapillaryAuthError:
    """Return the error for a ready token that is over by its own ``exp`` claim.

    :param ended_at: When it expired, in UTC.
    :param settings: The connection.
    """
    return CapillaryAuthError(
        f"the ready token of {_name_of(settings)} expired at {_time(ended_at)}, by the clock of this machine: {_RENEW}"
    )


def possibly_outdated(error: CapillaryError, unreadable: CapillaryError) -> CapillaryError:
    """Return the error for refused credentials while nobody knows whether the connection has others by now.

    It is transient: a secret that was rotated must not fail a wait because the connection cannot be read for a moment.

    :param error: The refusal.
    :param unreadable: Why the connection could not be read again.
    """
    message = f"{error.message}; whether the connection has changed is unknown: {unreadable.message}"
    return CapillaryError.from_dict({**error.to_dict(), "message": message, "is_transient": True})


def describe_end(ends_at: datetime | None, *, now: datetime) -> str:
    """Return when a ready token ends, for the Test button.

    :param ends_at: When it expires, in UTC; None if the token has no such claim.
    :param now: The wall clock.
    """
    if ends_at is None:
        return "the token does not say when it ends"
    return f"the token ends in {_span((ends_at - now).total_seconds())}, at {_time(ends_at)}"


def _name_of(settings: ConnectionSettings) -> str:
    return f"connection {settings.conn_id!r} (Authentication type bearer)"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _span(seconds: float) -> str:
    """Return a span of time in its two largest units."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in _SPANS:
        count, left = divmod(left, length)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    return " ".join(parts)
