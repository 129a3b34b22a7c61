# SPDX-License-Identifier: Apache-2.0
"""Carries the steps of an examination out. What they mean is decided in ``api/``."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_provider_capillary._airflow_compat import mask_secret
from airflow_provider_capillary._transport.connection_state import ConnectionState
from airflow_provider_capillary._transport.error_file_stream import open_chunks, open_object
from airflow_provider_capillary.api.attempts import record_attempts
from airflow_provider_capillary.api.client import CapillaryClient
from airflow_provider_capillary.api.diagnosis import (
    examine_error_file,
    examine_host,
    examine_status,
    examine_token,
    newest_with_error_file,
    private_values,
    skipped,
    way_of,
)
from airflow_provider_capillary.api.download import read_file
from airflow_provider_capillary.api.error_files import ObjectSource, locate_error_file
from airflow_provider_capillary.api.errors import CapillaryError
from airflow_provider_capillary.api.file_content import expects_rows
from airflow_provider_capillary.api.file_shape import HEAD_BYTES, describe_file
from airflow_provider_capillary.api.public_words import PublicWords
from airflow_provider_capillary.api.response_facts import payload_of
from airflow_provider_capillary.api.retry import current_http_retry
from airflow_provider_capillary.api.tokens import read_claims
from airflow_provider_capillary.api.upload_kinds import REDEEM
from airflow_provider_capillary.doctor.observed_transport import ObservedTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.api.attempts import Attempt
    from airflow_provider_capillary.api.diagnosis import Section
    from airflow_provider_capillary.api.error_files import ErrorFileSource
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.settings import ConnectionSettings

T = TypeVar("T")
#: A person waits for the report.
_MOST_ATTEMPTS, _LONGEST_PAUSE_SECONDS = 3, 20.0


@dataclass
class _Step(Generic[T]):
    """One step: its requests, and its result or error."""

    attempts: list[Attempt] = field(default_factory=list)
    result: T | None = None
    error: Exception | None = None

    def make(self, call: Callable[[], T]) -> None:
        try:
            self.result = call()
        except Exception as error:  # noqa: BLE001 - a store may raise any class, and the next step goes on
            self.error = error


def examine(settings: ConnectionSettings, series_id: int) -> dict[str, Section]:
    """Examine a connection and a coupon series. Nothing is uploaded or changed.

    :param settings: The connection.
    :param series_id: The coupon series.
    :return: The sections of the report.
    :raises CapillaryConfigurationError: The certificates or the proxy of the connection cannot be used.
    """
    with closing(ObservedTransport(settings, mask=mask_secret)) as transport:
        return _Examination(settings, series_id, transport).sections()


class _Examination:
    def __init__(self, settings: ConnectionSettings, series_id: int, transport: ObservedTransport) -> None:
        retry = current_http_retry()
        retry = replace(
            retry,
            max_attempts=min(retry.max_attempts, _MOST_ATTEMPTS),
            retry_after_cap_seconds=min(retry.retry_after_cap_seconds, _LONGEST_PAUSE_SECONDS),
        )
        state = ConnectionState.fresh(settings)
        self._settings = settings
        self._series_id = series_id
        self._transport = transport
        self._client = CapillaryClient(settings, tokens=state.tokens, limiter=state.limiter, retry=retry)
        self._words = PublicWords(
            (*settings.secrets, settings.client_key), identifying=(settings.host, settings.conn_id, series_id)
        )

    def sections(self) -> dict[str, Section]:
        token, has_token = self._token()
        jobs: list[UploadJob] | None = None
        if has_token:
            status, jobs = self._status()
        else:
            status = skipped("there is no token")
        error_file = skipped("the jobs are not known") if jobs is None else self._error_file(jobs)
        # The last one, because the other steps connect.
        return {"host": self._host(), "token": token, "status": status, "error_file": error_file}

    def _host(self) -> Section:
        settings = self._settings
        addresses = None
        try:
            found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
            addresses = len({address[0] for *_, address in found})
        except OSError:
            pass
        proxy = self._transport.proxy_for(settings.base_url)
        return examine_host(
            settings,
            addresses=addresses,
            proxy_url=None if proxy is None else proxy.url,
            proxy_source=None if proxy is None else proxy.source,
            tls=self._transport.tls.get(settings.host),
            now=datetime.now(UTC),
        )

    def _token(self) -> tuple[Section, bool]:
        step: _Step[Any] = _Step()
        step.make(lambda: self._transport.run(record_attempts(self._client.get_token(), step.attempts)))
        value = None if step.result is None else step.result.value
        self._words.add_secrets(value, read_claims(value or ""))
        section = examine_token(step.attempts, value, step.error, words=self._words, now=datetime.now(UTC))
        return section, value is not None

    def _status(self) -> tuple[Section, list[UploadJob] | None]:
        step: _Step[list[UploadJob]] = _Step()
        flow = self._client.get_upload_jobs(REDEEM, self._series_id)
        step.make(lambda: self._transport.run(record_attempts(flow, step.attempts)))
        attempts = [each for each in step.attempts if each.request.url != self._settings.auth_url]
        result = payload_of(attempts).get("result")
        if isinstance(result, dict):
            self._words.add_secrets(result.get("orgId"))
        section = examine_status(attempts, step.error, timezone=self._settings.cluster_timezone, words=self._words)
        return section, step.result

    def _error_file(self, jobs: list[UploadJob]) -> Section:
        job = newest_with_error_file(jobs)
        if job is None:
            return skipped("no job has an error file")
        self._words.add_secrets(*private_values(job))
        reference = job.error_file_url or ""
        step: _Step[bytes] = _Step()
        way = None
        try:
            source = locate_error_file(reference, self._settings)
            way = way_of(reference, source)
        except CapillaryError as error:
            step.error = error
        else:
            step.make(lambda: self._read_head(source, job, step.attempts))
        attempts = [each for each in step.attempts if each.request.url != self._settings.auth_url]
        return examine_error_file(
            attempts,
            step.error,
            way=way,
            shape=None if step.result is None else describe_file(step.result, is_whole=len(step.result) <= HEAD_BYTES),
            settings=self._settings,
            words=self._words,
        )

    def _read_head(self, source: ErrorFileSource, job: UploadJob, attempts: list[Attempt]) -> bytes:
        has_rows = expects_rows(job, "error")
        if isinstance(source, ObjectSource):
            with open_object(source, expects_rows=has_rows) as stream:
                return stream.read(HEAD_BYTES + 1)
        flow = record_attempts(read_file(self._client, source, expects_rows=has_rows), attempts)
        with open_chunks(self._transport.iterate(flow)) as stream:
            return stream.read(HEAD_BYTES + 1)
