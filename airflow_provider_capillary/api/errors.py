# SPDX-License-Identifier: Apache-2.0
"""Every error of a request to Capillary.

``airflow_provider_capillary.exceptions`` hands these on to users; the one error that must also be an Airflow
error lives there, because ``api`` does not import Airflow.
"""

from __future__ import annotations

from typing import Any


class CapillaryError(Exception):
    """Base class of all errors of this provider.

    :param message: What went wrong, in plain words. Never holds a token, a secret, a URL's query or file content.
    :param http_status: HTTP status of the response, if there was one.
    :param api_code: Code that Capillary gave in the body, as text (``"320001"``), if there was one.
    :param request_id: Value of the ``X-CAP-REQUEST-ID`` response header, by which Capillary's support finds the
        request (docs/capillary/api.md, 6).
    :param is_transient: Whether the same request may succeed later without a change.
    """

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        api_code: str | None = None,
        request_id: str | None = None,
        is_transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.api_code = api_code
        self.request_id = request_id
        self.is_transient = is_transient

    def __str__(self) -> str:
        facts = [
            f"{name} {value}"
            for name, value in (
                ("HTTP", self.http_status),
                ("code", self.api_code),
                ("X-CAP-REQUEST-ID", self.request_id),
            )
            if value is not None
        ]
        return f"{self.message} ({', '.join(facts)})" if facts else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by the default pickling of exceptions.
        return _rebuild, (type(self), self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "message": self.message,
            "http_status": self.http_status,
            "api_code": self.api_code,
            "request_id": self.request_id,
            "is_transient": self.is_transient,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON-ready values, as it travels from a trigger to its task.

        :return: ``{"error", "message", "http_status", "api_code", "request_id", "is_transient"}``.
        """
        return {"error": type(self).__name__, **self._facts()}

    @staticmethod
    def from_dict(value: dict[str, Any]) -> CapillaryError:
        """Build the error again that :meth:`to_dict` wrote down.

        :param value: What :meth:`to_dict` returned. An unknown class becomes a plain :class:`CapillaryError`.
        """
        cls = _BY_NAME.get(value.get("error") or "", CapillaryError)
        return _rebuild(cls, value)


class CapillaryConfigurationError(CapillaryError, ValueError):
    """A connection field or an argument has a value that cannot be used; the message names it and the remedy."""


class CapillaryTransportError(CapillaryError):
    """No complete response arrived: no connection, a timeout, or a body that broke off."""


class CapillaryResponseError(CapillaryError):
    """The response is not one that the endpoint is documented to send."""


class CapillaryApiError(CapillaryError):
    """Capillary answered with an error of its own."""


class CapillaryRateLimitError(CapillaryApiError):
    """Capillary refused the request because too many were sent (HTTP 429)."""


class CapillaryAuthError(CapillaryApiError):
    """Capillary accepts neither the credentials nor a fresh token."""


class CapillaryAccessError(CapillaryApiError):
    """The credentials are valid, but the API client may not use this resource (code 403 or 4000)."""


class CapillaryJobNotFoundError(CapillaryError):
    """The coupon series has no upload job with the requested id."""


class CapillaryErrorFileError(CapillaryError):
    """The error file of a job cannot be fetched, or its location is refused."""


class CapillaryUploadError(CapillaryError):
    """A file cannot be uploaded: it is missing, empty or malformed, or nobody knows whether Capillary received it."""


_BY_NAME: dict[str, type[CapillaryError]] = {
    cls.__name__: cls
    for cls in (
        CapillaryError,
        CapillaryConfigurationError,
        CapillaryTransportError,
        CapillaryResponseError,
        CapillaryApiError,
        CapillaryRateLimitError,
        CapillaryAuthError,
        CapillaryAccessError,
        CapillaryJobNotFoundError,
        CapillaryErrorFileError,
        CapillaryUploadError,
    )
}


def _rebuild(cls: type[CapillaryError], facts: dict[str, Any]) -> CapillaryError:
    # By name, so that unknown facts of a later version are ignored: triggerer and worker are not upgraded at once.
    return cls(
        facts.get("message") or "unknown error",
        http_status=facts.get("http_status"),
        api_code=facts.get("api_code"),
        request_id=facts.get("request_id"),
        is_transient=bool(facts.get("is_transient")),
    )
