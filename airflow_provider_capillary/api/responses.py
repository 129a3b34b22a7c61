# SPDX-License-Identifier: Apache-2.0
"""Turns responses, in the five envelopes of the platform, into a payload or a typed error.

The envelopes (docs/capillary/api.md, 6): coupon service ``{success, status, result}``; v3 ``{data, errors, warnings}``;
v2 ``{..., errors: [{status, code, message}]}``; v1.1 ``{response: {status: {success, code, message}}}``; auth
``{status: {success, code, message}}``. Codes and flags come as strings or numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryError,
    CapillaryRateLimitError,
    CapillaryResponseError,
)
from airflow_provider_capillary.api.retry import RETRY_CODES, RETRY_STATUSES
from airflow_provider_capillary.api.secrecy import shown, shown_id
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_capillary.api.http_messages import Response

BAD_CREDENTIALS_CODE = 320001
_REFUSED_TOKEN_CODES = frozenset({401, 498})
_NO_ACCESS_CODES = frozenset({403, 4000})


class TokenRefusedError(CapillaryAuthError):
    """Capillary does not accept the token of this request, but may accept a fresh one.

    Internal: the client either recovers or raises :class:`CapillaryAuthError`.
    """


@dataclass(frozen=True)
class _Failure:
    code: int | None
    message: str | None


def read_payload(response: Response, *, secrets: Iterable[str] = (), is_token_call: bool = False) -> dict[str, Any]:
    """Return the JSON object of a successful response.

    :param response: The response with its whole body.
    :param secrets: Values to blank in error messages, in case the server echoes them.
    :param is_token_call: As for :func:`raise_for_failure`.
    :return: The decoded JSON object; its envelope reports no failure.
    :raises CapillaryError: The response is an error, or not a JSON object.
    """
    secrets = tuple(secrets)
    payload = _decode(response.body)
    raise_for_failure(response, payload, secrets=secrets, is_token_call=is_token_call)
    if not isinstance(payload, dict):
        raise CapillaryResponseError(
            f"Capillary answered with {_describe_body(response)} where a JSON object was expected",
            **facts_of(response, secrets),
            is_transient=True,
        )
    return payload


def raise_for_failure(
    response: Response, payload: Any, *, secrets: Iterable[str] = (), is_token_call: bool = False
) -> None:
    """Raise the typed error of a response; return if it reports no failure.

    :param response: The response.
    :param payload: Its decoded body, or None if that is not JSON.
    :param secrets: Values to blank in the message.
    :param is_token_call: Whether a token was requested, so that a refusal concerns the credentials.
    :raises CapillaryError: The response is an error.
    """
    secrets = tuple(secrets)
    failure = _failure_in(payload, secrets) if isinstance(payload, dict) else None
    if failure is None and 200 <= response.status < 300:
        return
    # A body may say 401 under any HTTP status, and an HTTP 401 may come without any body.
    codes = {response.status} if failure is None or failure.code is None else {response.status, failure.code}
    says = (failure.message if failure is not None else None) or _said_in(payload, secrets)
    facts = facts_of(response, secrets)
    facts["api_code"] = None if failure is None or failure.code is None else str(failure.code)
    if 300 <= response.status < 400:
        raise CapillaryResponseError(
            "Capillary's host answered with a redirect, which its API never does: check the host of the connection",
            **facts,
        )
    error: CapillaryError
    if BAD_CREDENTIALS_CODE in codes:
        error = CapillaryAuthError(_sentence("Capillary does not accept the client key and secret", says), **facts)
    elif response.status == 403 and payload is None:
        error = CapillaryApiError(
            f"the edge in front of Capillary refused the request with {_describe_body(response)}; this is not about "
            "the credentials: check that this machine's address may reach the host",
            **facts,
        )
    elif codes & _NO_ACCESS_CODES and is_token_call:
        # Documented for either (docs/capillary/api.md, 1).
        error = CapillaryAuthError(
            _sentence("Capillary refuses to give out a token", says)
            + "; either the client key or the secret is wrong, or the API client has no access group: check key and "
            "secret, and ask Capillary to put the API client into an access group",
            **facts,
        )
    elif codes & _REFUSED_TOKEN_CODES and is_token_call:
        # The token endpoint takes no token: its 401 is about the credentials.
        error = CapillaryAuthError(_sentence("Capillary does not accept the client key and secret", says), **facts)
    elif codes & _REFUSED_TOKEN_CODES:
        error = TokenRefusedError(_sentence("Capillary does not accept the token", says), **facts)
    elif codes & _NO_ACCESS_CODES:
        error = CapillaryAccessError(
            _sentence("the API client has no access to this resource", says)
            + "; ask Capillary to give it access to the coupon resource",
            **facts,
        )
    elif failure is None and response.status in (404, 405):
        error = CapillaryResponseError(
            f"this host has no such endpoint, it answered with {_sentence(_describe_body(response), says)}; "
            "check that it is an API host, such as eu.api.capillarytech.com",
            **facts,
        )
    elif 429 in codes:
        error = CapillaryRateLimitError(
            _sentence("Capillary's rate limit is reached", says), is_transient=True, **facts
        )
    else:
        is_transient = response.status in RETRY_STATUSES or (
            failure is not None and failure.code in RETRY_CODES and response.status < 300
        )
        what = says or (_describe_body(response) if response.body.strip() not in (b"", b"{}") else None)
        error = CapillaryApiError(
            _sentence("Capillary answered with an error", what), is_transient=is_transient, **facts
        )
    raise error


def facts_of(response: Response, secrets: Iterable[str]) -> dict[str, Any]:
    """Return the facts that each error of a response carries: its HTTP status, and Capillary's id of the request.

    :param response: The response.
    :param secrets: Values to blank in the id, in case the server echoes them.
    """
    # Both spellings of the header occur (docs/capillary/api.md, 6).
    request_id = response.headers.get("x-cap-request-id") or response.headers.get("x-cap-requestid")
    return {"http_status": response.status, "request_id": shown_id(request_id, secrets=secrets)}


def decode_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``body``, or None if it is anything else."""
    payload = _decode(body)
    return payload if isinstance(payload, dict) else None


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body, object_hook=_release_gil)
    except (ValueError, RecursionError):
        return None


def _release_gil(value: dict[str, Any]) -> dict[str, Any]:
    """Return the object unchanged.

    A Python hook lets json release the GIL between objects; the C parser would hold it for the whole document.
    """
    return value


def _failure_in(payload: Mapping[str, Any], secrets: tuple[str, ...]) -> _Failure | None:
    """Find the failure in any of the five envelopes, or None."""
    errors = payload.get("errors")
    if isinstance(errors, list) and errors:  # v3, v2
        first = next((item for item in errors if isinstance(item, dict)), errors[0])
        code = as_int(first.get("code")) if isinstance(first, dict) else None
        return _Failure(code, _text(first, secrets))
    response = payload.get("response")
    nested = response.get("status") if isinstance(response, dict) else payload.get("status")
    if isinstance(nested, dict):  # v1.1, auth
        code = as_int(nested.get("code"))
        if _is_false(nested.get("success")) or (code is not None and code >= 400):
            return _Failure(code, _text(nested, secrets))
        return None
    status = as_int(nested)  # coupon service
    if _is_false(payload.get("success")) or (status is not None and status >= 400):
        code = as_int(payload.get("code"))
        message = next(filter(None, (_text(payload.get(key), secrets) for key in ("message", "errors", "error"))), None)
        return _Failure(status if status is not None and status >= 400 else code, message)
    return None


def _said_in(payload: Any, secrets: tuple[str, ...]) -> str | None:
    """Return the message of an error without any of the five envelopes, or None."""
    if not isinstance(payload, dict):
        return None  # an unexpected body may contain anything, so it is never quoted
    texts = (_text(payload.get(key), secrets) for key in ("message", "errors", "error", "error_description"))
    return next(filter(None, texts), None)


def _is_false(value: Any) -> bool:
    return value is False or (isinstance(value, str) and value.strip().lower() == "false")


def _text(value: Any, secrets: tuple[str, ...]) -> str | None:
    """Return a message as one short printable line without any secret that the server echoed, or None."""
    if isinstance(value, dict):
        value = value.get("message")
    return shown(value, secrets=secrets) if isinstance(value, str) else None


def _describe_body(response: Response) -> str:
    """Describe the body without quoting it: an unexpected one may contain anything."""
    start = response.body[:512].lstrip().lower()
    if not start:
        return "an empty body"
    if start.startswith((b"<!doctype html", b"<html")) or "html" in response.headers.get("content-type", ""):
        return "an HTML page"
    return "a body that is not JSON" if _decode(response.body) is None else "JSON of another form"


def _sentence(what: str, says: str | None) -> str:
    return f"{what}: {says}" if says else what
