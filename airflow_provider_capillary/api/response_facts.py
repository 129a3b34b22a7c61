# SPDX-License-Identifier: Apache-2.0
"""Facts about responses that a report may show in public: statuses, names and kinds, but no value of a body."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.file_parts import encoding_of
from airflow_provider_capillary.api.http_messages import Response
from airflow_provider_capillary.api.public_words import NOT_SHOWN
from airflow_provider_capillary.api.responses import decode_object
from airflow_provider_capillary.api.retry import parse_http_date
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_capillary.api.attempts import Attempt
    from airflow_provider_capillary.api.public_words import PublicWords

_RATE_LIMIT = re.compile(r"rate-?limit|retry-after")
_REQUEST_ID = re.compile(r"request-?id|correlation-?id|trace-?id")
_MEDIA_TYPE = re.compile(r"[a-z]{1,20}/[a-z.+-]{1,60}[0-9]{0,3}\Z")


def describe_attempts(attempts: Sequence[Attempt], words: PublicWords) -> dict[str, Any]:
    """Return the facts of the last response, and a few of all of them; nothing where no request was sent.

    :param attempts: The requests for one thing, and their results.
    :param words: Which words are shown.
    """
    if not attempts:
        return {}
    facts: dict[str, Any] = {
        "http_statuses": [None if each.response is None else each.response.status for each in attempts],
        "http_status": None,
    }
    failures = [words.line(each.result.message) for each in attempts if not isinstance(each.result, Response)]
    if failures:
        facts["transport_failures"] = failures
    # Of all responses: that to too many requests is rarely the last one.
    names = [name for each in attempts if each.response is not None for name in each.response.headers]
    waits = (each.response.headers.get("retry-after") for each in attempts if each.response is not None)
    facts |= {
        "rate_limit_headers": words.words(name for name in names if _RATE_LIMIT.search(name)),
        "retry_after_is": sorted({_form_of_retry_after(value) for value in waits if value is not None}),
        "request_id_headers": words.words(name for name in names if _REQUEST_ID.search(name)),
    }
    response = attempts[-1].response
    if response is not None:
        headers = response.headers
        facts |= {
            "http_status": response.status,
            "media_type": _media_type(headers, words),
            "length_from": _length_from(headers),
            "content_length": as_int(headers.get("content-length")),
            "content_encoding": words.word(encoding_of(response) or "none"),
        }
    return facts


def describe_error(error: Exception, words: PublicWords) -> dict[str, Any]:
    """Return the facts of an error. Its message is not one: it may quote a server.

    :param error: The error.
    :param words: Which words are shown.
    """
    facts: dict[str, Any] = {"type": type(error).__name__}
    if isinstance(error, CapillaryError):
        code = error.api_code
        facts |= {
            "http_status": error.http_status,
            "api_code": NOT_SHOWN if code is not None and words.is_private(code) else code,
            "is_transient": error.is_transient,
        }
    return facts


def kind_of_body(response: Response) -> str:
    """Return the kind of an unexpected body: ``JSON object``, ``HTML page``, ``empty``, ...

    :param response: The response.
    """
    start = response.body[:512].lstrip().lower()
    if not start:
        return "empty"
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML page"
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError):
        return "text OK" if start.strip() == b"ok" else "neither JSON nor HTML"
    return f"JSON {kind_of_value(value)}"


def envelope_of(payload: Mapping[str, Any]) -> str:
    """Return which of the five envelopes of the platform a payload has (docs/capillary/api.md, 6), or ``unknown``.

    :param payload: A JSON object.
    """
    response = payload.get("response")
    if isinstance(response, dict) and isinstance(response.get("status"), dict):
        return "v1.1"
    if isinstance(payload.get("status"), dict):
        return "authentication"
    if "success" in payload and "status" in payload:
        return "coupon service"
    errors = payload.get("errors")
    if isinstance(errors, list) and any(isinstance(each, dict) and "status" in each for each in errors):
        return "v2"
    return "v3" if "data" in payload and ("errors" in payload or "warnings" in payload) else "unknown"


def kind_of_value(value: Any) -> str:
    """Return the JSON type of a value.

    :param value: A decoded JSON value.
    """
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return kinds.get(type(value), "other")


def payload_of(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return the JSON object of the last response; an empty one if there is none.

    :param attempts: The requests for one thing, and their results.
    """
    response = attempts[-1].response if attempts else None
    return (decode_object(response.body) if response is not None else None) or {}


def _media_type(headers: Mapping[str, str], words: PublicWords) -> str | None:
    # Without parameters: one of them may be the name of the file.
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not media_type:
        return None
    return media_type if _MEDIA_TYPE.match(media_type) and not words.is_private(media_type) else NOT_SHOWN


def _length_from(headers: Mapping[str, str]) -> str:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return "chunks"
    return "content-length" if "content-length" in headers else "none"


def _form_of_retry_after(value: str) -> str:
    if as_int(value) is not None:
        return "seconds"
    return "date" if parse_http_date(value) is not None else "other"
