# SPDX-License-Identifier: Apache-2.0
"""Requests, responses and transport failures as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_capillary.api.secrecy import without_query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from airflow_provider_capillary.api.auth_messages import AuthSensitiveCall


class SizedReader(Protocol):
    """A file to send.

    :param len: Number of bytes that are left to read.
    """

    len: int

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end."""


@dataclass(frozen=True)
class FileForm:
    """A form with a file (``multipart/form-data``), which a transport streams.

    :param fields: The parts with text.
    :param file_name: Name of the file in the part ``file``.
    :param size_bytes: Size of the file.
    :param open_file: Opens the file for reading from its beginning. Called for each request, directly before it is
        sent; an error of it prevents the request.
    """

    fields: Mapping[str, str] = field(hash=False, repr=False)
    file_name: str
    size_bytes: int
    open_file: Callable[[], AbstractContextManager[SizedReader]] = field(repr=False)


@dataclass(frozen=True, repr=False)
class ApiRequest:
    """One HTTP request.

    :param method: HTTP method.
    :param url: Absolute URL. In the repr without its query, which may be a signature.
    :param headers: Request headers. Not in the repr: they carry the token.
    :param body: Request body. Not in the repr: the token request carries the client secret.
    :param form: A form to send as the body instead.
    :param is_safe: Whether sending the request twice does no harm.
    :param needs_token: Whether the request carries the OAuth token.
    :param stream: Whether the response body may be large and is read piece by piece.
    :param auth_sensitive: The call, if a refusal of its token is to name other credentials; see ``auth_messages``.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: bytes | None = None
    form: FileForm | None = None
    is_safe: bool = True
    needs_token: bool = False
    stream: bool = False
    auth_sensitive: AuthSensitiveCall | None = None

    def __repr__(self) -> str:
        return f"ApiRequest({self.method} {without_query(self.url)})"

    def with_headers(self, headers: Mapping[str, str]) -> ApiRequest:
        """Return the same request with more headers, which replace those of the same name.

        :param headers: The headers.
        """
        return replace(self, headers=merge_headers(self.headers, headers))


def merge_headers(*layers: Mapping[str, str]) -> dict[str, str]:
    """Return all headers, of the same name only the last one. Names are the same in upper and lower case.

    Two spellings of one name would be one header to requests and two to httpcore.

    :param layers: Headers, from the weakest to the strongest.
    """
    by_name = {name.lower(): (name, value) for layer in layers for name, value in layer.items()}
    return dict(by_name.values())


@dataclass(frozen=True)
class Response:
    """One HTTP response.

    :param status: HTTP status.
    :param headers: Response headers, names in lower case.
    :param body: The whole body; of a streamed request its first bytes (at most 64 KiB).
    :param rest: For a streamed request, the object from which the transport reads the bytes after ``body``; None if
        ``body`` is complete; a :class:`TransportFailure` if the response broke off after ``body``.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    body: bytes = field(default=b"", repr=False)
    rest: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class TransportFailure:
    """Reported by a transport in place of a response that did not arrive whole.

    :param message: The cause, without URL, headers or body.
    :param is_transient: False if another attempt cannot help, for example with an untrusted certificate.
    """

    message: str
    is_transient: bool = True


def proxy_wants_credentials(source: str = "") -> TransportFailure:
    """Return the failure for HTTP 407, which only a proxy sends.

    :param source: The variable or field that names the proxy, if known.
    """
    where = source or "the environment variable that names it, such as HTTPS_PROXY"
    return TransportFailure(
        "the proxy does not accept its user name and password, or was sent none (HTTP 407); write them into "
        f"{where}, as in http://user:password@host:port",
        is_transient=False,
    )
