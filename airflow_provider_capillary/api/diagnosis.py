# SPDX-License-Identifier: Apache-2.0
"""The sections of the doctor's report, from what was observed. Pure: the doctor carries the steps out.

The facts of a section are fit for the public: no host, id, name of a file, claim's value or row is among them. Its
notes are for the user's own screen: they have the host and the messages of errors, but no secret either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_capillary.api.error_files import DownloadSource, ObjectSource
from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.job_facts import describe_jobs
from airflow_provider_capillary.api.response_facts import (
    describe_attempts,
    describe_error,
    envelope_of,
    kind_of_body,
    payload_of,
)
from airflow_provider_capillary.api.secrecy import query_secrets, without_query
from airflow_provider_capillary.api.settings import DEFAULT_TOKEN_HEADER, HANDLE_FIELD
from airflow_provider_capillary.api.tokens import read_claims
from airflow_provider_capillary.api.urls import is_loopback_host
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_capillary.api.attempts import Attempt
    from airflow_provider_capillary.api.error_files import ErrorFileSource
    from airflow_provider_capillary.api.file_shape import FileShape
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.public_words import PublicWords
    from airflow_provider_capillary.api.settings import ConnectionSettings

#: Documented hosts, and those seen in client code (docs/capillary/api.md, 2).
_CLUSTERS = (
    (re.compile(r"(eu|apac2?|us|ushc|sea|north-america)\.api\.capillarytech\.com\Z"), "documented API cluster"),
    (
        re.compile(r"(eu|apac2?|us|ushc|sea|north-america|tata)\.intouch\.capillarytech\.com\Z"),
        "documented intouch cluster",
    ),
    (re.compile(r".+\.capillarytech\.com\Z"), "other host of Capillary"),
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One step of the examination.

    :param result: ``ok``, ``failed``, or ``skipped``.
    :param facts: Fit for the public.
    :param notes: Label -> text, for the user's own screen.
    """

    result: str
    facts: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the result and the facts."""
        return {"result": self.result, **self.facts}


@dataclass(frozen=True, kw_only=True)
class TlsFacts:
    """Facts about one TLS connection.

    :param version: Version of the protocol.
    :param issuer: Issuer of the certificate; None if certificates are not checked.
    :param expires_at: End of the certificate; None likewise.
    :param is_public: Whether it is trusted by the public authorities of certifi, and not by a bundle of the user's.
    """

    version: str | None
    issuer: str | None
    expires_at: datetime | None
    is_public: bool


def skipped(reason: str) -> Section:
    """Return the section of a step that was not made.

    :param reason: The reason.
    """
    return Section(result="skipped", facts={"reason": reason})


def kind_of_host(host: str) -> str:
    """Return the kind of a host, which may be shown in public where the host may not.

    :param host: Lower case.
    """
    if is_loopback_host(host):
        return "this machine"
    return next((kind for pattern, kind in _CLUSTERS if pattern.match(host)), "other host")


def examine_host(
    settings: ConnectionSettings,
    *,
    addresses: int | None,
    proxy_url: str | None,
    proxy_source: str | None,
    tls: TlsFacts | None,
    now: datetime,
) -> Section:
    """Describe the way to the API host.

    :param settings: The connection.
    :param addresses: How many addresses the name of the host resolves to; None if it does not resolve.
    :param proxy_url: The proxy that applies; None for a direct connection.
    :param proxy_source: Where the proxy is set.
    :param tls: The TLS connection to the host; None if there was none.
    :param now: The wall clock.
    """
    proxy = None if proxy_url is None else urlsplit(proxy_url)
    facts: dict[str, Any] = {
        "kind": kind_of_host(settings.host),
        "authentication_host": _kind_of_auth_host(settings),
        "scheme": settings.scheme,
        "port": settings.port,
        "resolves": addresses is not None,
        "addresses": addresses,
        "proxy": None if proxy is None else {"scheme": proxy.scheme, "set_by": proxy_source},
        "auth_type": getattr(settings, "auth_type", "oauth"),
        "token_header_is_default": settings.auth_header_name == DEFAULT_TOKEN_HEADER,
        "extra_headers": len(settings.headers),
        "error_file_url": _kind_of_template(settings.error_file_url),
        "cluster_timezone": settings.cluster_timezone,
        "tls": None
        if tls is None
        else {
            "version": tls.version,
            # The authority of a company's own bundle has the name of the company.
            "issuer": tls.issuer if tls.is_public else None,
            "trusted_by": "nothing: certificates are not checked"
            if settings.verify is False
            else ("public authorities" if tls.is_public else "a CA bundle of this machine"),
            "certificate_ends_in_days": None if tls.expires_at is None else (tls.expires_at - now).days,
        },
    }
    notes = {"host": settings.base_url}
    if proxy is not None:
        notes["proxy address"] = f"{proxy.scheme}://{proxy.hostname}{'' if proxy.port is None else f':{proxy.port}'}"
    if tls is not None and tls.issuer is not None and tls.expires_at is not None:
        notes["certificate"] = f"issued by {tls.issuer}, valid until {tls.expires_at:%Y-%m-%d}"
    # A proxy resolves the name itself.
    return Section(result="failed" if addresses is None and proxy is None else "ok", facts=facts, notes=notes)


def examine_token(
    attempts: Sequence[Attempt], token: str | None, error: Exception | None, *, words: PublicWords, now: datetime
) -> Section:
    """Describe the token, and the call that returned it.

    :param attempts: The token calls. None for a ready token.
    :param token: The token, if there is one.
    :param error: The error, if there is none.
    :param words: Which words are shown.
    :param now: The wall clock.
    """
    payload = payload_of(attempts)
    claims = read_claims(token or "")
    facts = describe_attempts(attempts, words)
    if payload:
        warnings = payload.get("warnings") or []
        facts |= {"envelope": envelope_of(payload), "warnings": len(warnings) if isinstance(warnings, list) else 1}
    if token is not None:
        facts |= {"is_jwt": bool(claims), "claims": words.words(claims), **_lifetime(payload, claims, now)}
    return _section(facts, attempts, error, words)


def _lifetime(payload: Mapping[str, Any], claims: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    data = payload.get("data")
    seconds = as_int(data.get("ttlSeconds")) if isinstance(data, dict) else None
    issued_at, ends_at = (as_int(claims.get(name)) for name in ("iat", "exp"))
    claimed = ends_at - issued_at if ends_at is not None and issued_at is not None else None
    facts: dict[str, Any] = {"lifetime_seconds": claimed, "lifetime_from": None if claimed is None else "claims"}
    if seconds is not None and seconds > 0:
        facts = {"lifetime_seconds": seconds, "lifetime_from": "ttlSeconds"}
    if not payload:  # a ready token, which no call returned
        del facts["lifetime_from"]
    facts["lifetime_in_claims_seconds"] = claimed
    facts["ends_in_seconds"] = None if ends_at is None else int(ends_at - now.timestamp())
    return facts


def examine_status(
    attempts: Sequence[Attempt], error: Exception | None, *, timezone: str, words: PublicWords
) -> Section:
    """Describe the answer of the status endpoint: names, types and counts.

    :param attempts: The status calls.
    :param error: The error, if it is not one that the package can use.
    :param timezone: Zone of the cluster's day.
    :param words: Which words are shown.
    """
    payload = payload_of(attempts)
    facts = describe_attempts(attempts, words)
    if payload:
        facts["envelope"] = envelope_of(payload)
        facts |= describe_jobs(payload, timezone=timezone, words=words)
    return _section(facts, attempts, error, words)


def newest_with_error_file(jobs: Iterable[UploadJob]) -> UploadJob | None:
    """Return the job whose error file is examined: the newest that has one.

    :param jobs: All jobs of the series.
    """
    return max((job for job in jobs if job.error_file_url), key=lambda job: job.job_id, default=None)


def private_values(job: UploadJob) -> list[Any]:
    """Return the values of a job that no report shows: its ids, and the names of its files.

    :param job: The job.
    """
    values: list[Any] = [job.job_id, job.org_id, job.uploaded_file_name, job.upload_table_name]
    for reference in filter(None, (job.error_file_url, job.success_file_url, job.uploaded_file_url)):
        path = without_query(reference)
        values += [reference, path.partition("://")[2].partition("/")[2], path.rpartition("/")[2]]
        values += query_secrets(reference)
    return values


def way_of(reference: str, source: ErrorFileSource) -> str:
    """Return which of the four ways brings an error file.

    :param reference: ``error_file_url`` of the job.
    :param source: Where it is fetched from.
    """
    if isinstance(source, DownloadSource):
        return "download"
    if "://" not in reference:
        return "template"
    return "object URI" if isinstance(source, ObjectSource) else "absolute URL"


def examine_error_file(
    attempts: Sequence[Attempt],
    error: Exception | None,
    *,
    way: str | None,
    shape: FileShape | None,
    settings: ConnectionSettings,
    words: PublicWords,
) -> Section:
    """Describe the answer to the request for an error file, and the shape of the file.

    :param attempts: The requests for it; none for object storage.
    :param error: The error, if it did not come.
    :param way: The way that brings it; None if its reference is refused.
    :param shape: Its shape, if it came.
    :param settings: The connection.
    :param words: Which words are shown.
    """
    facts: dict[str, Any] = {"way": way}
    if attempts:
        url = attempts[-1].request.url
        facts["fetched_from"] = "the API host" if settings.is_api_host(url) else "another host"
    facts |= describe_attempts(attempts, words)
    response = attempts[-1].response if attempts else None
    if error is not None and response is not None:
        facts["body"] = kind_of_body(response)
        if payload := payload_of(attempts):
            facts |= {"envelope": envelope_of(payload), "body_fields": words.words(payload)}
    if shape is not None:
        facts |= shape.to_dict()
    return _section(facts, attempts, error, words)


def _section(
    facts: dict[str, Any], attempts: Sequence[Attempt], error: Exception | None, words: PublicWords
) -> Section:
    if error is None:
        return Section(result="ok", facts=facts)
    notes = {}
    if isinstance(error, CapillaryError):
        notes["message"] = words.note(error.message)
        if error.request_id is not None:
            notes["request id"] = words.note(error.request_id)
    response = attempts[-1].response if attempts else None
    body = {} if response is None or "body" in facts else {"body": kind_of_body(response)}
    return Section(result="failed", facts=facts | body | {"error": describe_error(error, words)}, notes=notes)


def _kind_of_auth_host(settings: ConnectionSettings) -> str | None:
    if not settings.auth_url:  # a ready token is never fetched
        return None
    if settings.is_api_host(settings.auth_url):
        return "the API host"
    return kind_of_host(urlsplit(settings.auth_url).hostname or "")


def _kind_of_template(template: str | None) -> str:
    if template is None:
        return "not set"
    scheme = template.replace(HANDLE_FIELD, "").partition("://")[0].lower()
    return "http" if scheme in ("http", "https") else "object storage"
