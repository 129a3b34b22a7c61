# SPDX-License-Identifier: Apache-2.0
"""Locates a file of a job, and refuses unsafe locations.

``errorFileUrl`` has only been seen as a bare handle, is documented as a URL, and is untrusted input in any case
(docs/capillary/api.md, 5). The same rules apply to the success file and the uploaded file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from airflow_provider_capillary.api.errors import CapillaryErrorFileError
from airflow_provider_capillary.api.object_uris import parse_object_uri
from airflow_provider_capillary.api.secrecy import blank, shown, without_query
from airflow_provider_capillary.api.settings import CONN_FIELD, HANDLE_FIELD
from airflow_provider_capillary.api.ssrf import is_local, is_public, literal_address
from airflow_provider_capillary.api.urls import host_of, is_loopback_host, split_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_capillary.api.settings import ConnectionSettings

#: Name of the file in errors, unless another one is given.
ERROR_FILE = "error file"
#: Object stores that a response may point to. Few on purpose: with file, ftp or http-like file systems a response
#: could make a worker read internal files.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss"})
_HTTP = ("http", "https")
_LONGEST_REFERENCE = 4096


@dataclass(frozen=True)
class UrlSource:
    """A file to be fetched by GET.

    :param url: Checked URL. Neither for logs nor in the repr: its query may be a signature.
    :param name: Name of the file in errors.
    """

    url: str = field(repr=False)
    name: str = ERROR_FILE


@dataclass(frozen=True)
class DownloadSource:
    """A file that Capillary's own, undocumented download endpoint returns for its handle."""

    handle: str
    name: str = ERROR_FILE


@dataclass(frozen=True)
class ObjectSource:
    """A file in object storage.

    :param uri: URI without credentials.
    :param conn_id: Airflow connection to read it with.
    :param name: Name of the file in errors.
    :param account_host: Host of the Azure storage account that the URI was written with.
    """

    uri: str
    conn_id: str | None
    name: str = ERROR_FILE
    account_host: str | None = None


ErrorFileSource = UrlSource | DownloadSource | ObjectSource


def locate_error_file(reference: str, settings: ConnectionSettings, *, name: str = ERROR_FILE) -> ErrorFileSource:
    """Return where an error file is fetched from, by the four steps of docs/guides/error-files.md.

    :param reference: ``error_file_url`` of the job, or that of another of its files.
    :param settings: The connection.
    :param name: Name of the file in errors, such as ``success file``.
    :raises CapillaryErrorFileError: The reference breaks a rule; the message says which.
    """
    if len(reference) > _LONGEST_REFERENCE:
        raise _refused("it is longer than 4096 characters", name=name)
    scheme = reference.partition("://")[0].lower() if "://" in reference else None
    if scheme in _HTTP:
        check_url(reference, settings, name=name)
        return UrlSource(reference, name)
    if scheme is not None:
        return _object_source(reference, scheme, settings, name)
    _check_handle(reference, name)
    template = settings.error_file_url
    if template is None:
        return DownloadSource(reference, name)
    if template.partition("://")[0].lower() in _HTTP:
        url = template.replace(HANDLE_FIELD, quote(reference, safe="/"))
        check_url(url, settings, name=name)
        return UrlSource(url, name)
    _check_object_name(reference, name)
    return _parse_source(template.replace(HANDLE_FIELD, reference), settings.error_file_conn_id, name)


def shown_source(source: ErrorFileSource) -> str:
    """Return where a file comes from, for a log: without the path and the query of a URL, which may be a signature.

    :param source: The source.
    """
    if isinstance(source, UrlSource):
        parts = urlsplit(source.url)
        return f"{parts.scheme}://{parts.netloc}"
    if isinstance(source, DownloadSource):
        return "Capillary's download endpoint"
    return source.uri if source.conn_id is None else f"{source.uri} (connection {source.conn_id})"


def check_url(url: str, settings: ConnectionSettings, *, name: str = ERROR_FILE) -> None:
    """Refuse a file URL that must not be fetched. Redirects are checked by it too.

    :param url: Absolute URL.
    :param settings: The connection: its own hosts are trusted further than others.
    :param name: Name of the file in errors.
    :raises CapillaryErrorFileError: The URL breaks a rule; the message says which.
    """
    try:
        parts = split_url(url)
    except ValueError as reason:
        raise _refused(str(reason), url, name=name) from None
    scheme, host = parts.scheme.lower(), host_of(parts)
    configured = is_configured_host(host, settings)
    if scheme == "http":
        plain_allowed = settings.is_api_host(url) or (
            configured and url_is_from_template(url, settings) and (settings.allow_http or is_loopback_host(host))
        )
        if not plain_allowed:
            raise _refused("it is not https", url, name=name)
    elif scheme != "https":
        raise _refused("it is neither https nor an object-storage URI", url, name=name)
    if configured:
        return
    address = literal_address(host)
    if address is not None and not is_public(address):
        raise _refused("its address is private, loopback or link-local", url, name=name)
    if is_loopback_host(host):
        raise _refused("its host is this machine", url, name=name)


def check_peer(host: str, address: str, settings: ConnectionSettings) -> None:
    """Refuse the resolved address of a file URL's host, before anything is sent to it.

    :param host: Host of the URL.
    :param address: Address of the other end of the connection.
    :param settings: The connection.
    :raises CapillaryErrorFileError: The name resolves to loopback or link-local.
    """
    if not is_configured_host(host.lower().removesuffix("."), settings) and is_local(address):
        raise _refused("its host resolves to a loopback or link-local address")


def is_configured_host(host: str, settings: ConnectionSettings) -> bool:
    """Whether the user wrote this host into the connection, as API host or in the error file URL."""
    return host == settings.host or host == _template_host(settings)


def url_is_from_template(url: str, settings: ConnectionSettings) -> bool:
    """Whether a URL has the scheme, host and port of the connection's error file URL."""
    template = settings.error_file_url
    if template is None:
        return False
    ours, theirs = urlsplit(template.replace(HANDLE_FIELD, "handle")), urlsplit(url)
    return (ours.scheme.lower(), ours.hostname, ours.port) == (theirs.scheme.lower(), theirs.hostname, theirs.port)


def follow_redirect(
    url: str,
    location: str | None,
    settings: ConnectionSettings,
    *,
    name: str = ERROR_FILE,
    secrets: Iterable[str] = (),
) -> str:
    """Return where a redirect of a file download leads.

    :param url: The URL that was asked.
    :param location: Its ``Location`` header.
    :param settings: The connection.
    :param name: Name of the file in errors.
    :param secrets: Values to blank in an error message, in case the target contains them.
    :raises CapillaryErrorFileError: There is no usable target, or the target breaks a rule.
    """
    if not location:
        raise _refused("it redirects to nowhere", url, name=name)
    try:
        target = urljoin(url, location)
    except ValueError:
        raise _refused("it redirects to a malformed URL", url, name=name) from None
    try:
        check_url(target, settings, name=name)
    except CapillaryErrorFileError as error:
        refusal = error.message
    else:
        return target
    # Not within the block: the first error would be kept as the context of this one.
    raise CapillaryErrorFileError(blank(refusal, secrets))


def _template_host(settings: ConnectionSettings) -> str | None:
    template = settings.error_file_url
    if template is None or template.partition("://")[0].lower() not in _HTTP:
        return None
    return host_of(urlsplit(template.replace(HANDLE_FIELD, "handle")))


def _check_handle(handle: str, name: str) -> None:
    if not handle.strip():
        raise _refused("it is empty", name=name)
    if not handle.isprintable():
        raise _refused("the handle has a control character in it", name=name)
    if "\\" in handle or "%" in handle:
        raise _refused("the handle has a backslash or a percent sign in it", name=name)
    if "::" in handle:
        raise _refused("the handle has '::' in it, which chains file systems", name=name)
    if handle.startswith("/"):
        raise _refused("the handle begins with a slash", name=name)
    if ".." in handle.split("/"):
        raise _refused("the handle has a '..' segment", name=name)


def _check_object_name(handle: str, name: str) -> None:
    """Refuse a name that fsspec would truncate to that of another object."""
    if "?" in handle or handle.endswith("#"):
        raise _refused("the handle has a '?' in it or ends in '#', which object storage cuts off", name=name)


def _object_source(uri: str, scheme: str, settings: ConnectionSettings, name: str) -> ObjectSource:
    if scheme not in _OBJECT_STORES:
        raise _refused(f"its scheme is not one of https, {', '.join(sorted(_OBJECT_STORES))}", uri, name=name)
    _check_handle(uri, name)
    _check_object_name(uri, name)
    source = _parse_source(uri, None, name)
    if source.conn_id is not None:
        # Airflow would use that connection, and the choice must not come from outside.
        raise _refused("it carries credentials", uri, name=name)
    if uri.endswith("/"):
        raise _refused("it names no object", uri, name=name)
    return replace(source, conn_id=settings.error_file_conn_id)


def _parse_source(uri: str, conn_id: str | None, name: str) -> ObjectSource:
    try:
        parsed = parse_object_uri(uri, conn_id=conn_id, conn_field=CONN_FIELD)
    except ValueError as problem:
        raise _refused(f"it {problem}", uri, name=name) from None
    return ObjectSource(parsed.uri, parsed.conn_id, name, parsed.account_host)


def _refused(rule: str, url: str | None = None, *, name: str = ERROR_FILE) -> CapillaryErrorFileError:
    where = f" {shown(without_query(url))}" if url is not None else ""
    return CapillaryErrorFileError(f"the {name}{where} is not fetched, because {rule}")
