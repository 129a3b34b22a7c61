# SPDX-License-Identifier: Apache-2.0
"""Hooks for Capillary: blocking for workers, async for the triggerer.

Imports that only a running task needs are inside functions, because a DAG file with a sensor imports this module each
time it is parsed.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_capillary._airflow_compat import BaseHook
from airflow_provider_capillary._copying import ResetOnCopy
from airflow_provider_capillary._storage.upload_methods import AsyncUploadMethods, UploadMethods
from airflow_provider_capillary._transport.renewed_connection import RenewedAsyncConnection, RenewedConnection
from airflow_provider_capillary.api.errors import CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM
from airflow_provider_capillary.api.values import read_text, validate_choice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    import requests

    from airflow_provider_capillary.api.error_files import ErrorFileSource
    from airflow_provider_capillary.api.job_history import JobHistory
    from airflow_provider_capillary.api.jobs import JobFile, UploadJob
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings
    from airflow_provider_capillary.api.upload_kinds import UploadKind

_TEST_DEADLINE_SECONDS = 14.0


class _CapillaryConnection(ResetOnCopy, BaseHook):
    """Base of both hooks.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :raises CapillaryConfigurationError: ``capillary_conn_id`` is not text, is empty, or is a template that rendered to
        nothing.
    """

    conn_name_attr = "capillary_conn_id"
    default_conn_name = "capillary_default"
    conn_type = "capillary"
    hook_name = "Capillary"

    def __init__(
        self, capillary_conn_id: str = default_conn_name, *, http_retry: HttpRetry | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.capillary_conn_id = read_text("capillary_conn_id", capillary_conn_id)
        self.http_retry = http_retry


class CapillaryHook(UploadMethods, _CapillaryConnection):
    """Interact with Capillary from a worker, over ``requests``.

    The connection is read at the first call, and once more where Capillary refuses its credentials, which a secrets
    backend may have rotated. All hooks of a connection in a process share the OAuth token and the limit of requests per
    minute.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param http_retry: Attempts and waits of safe requests; by default five attempts with waits of up to 1, 2, 4 and 8
        seconds.
    """

    _made_by_use = ("_connection",)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form. Called by Airflow before 3.2 only."""
        from airflow_provider_capillary._connection_form import form_widgets

        return form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the standard fields of the connection form behave. Called by Airflow before 3.2 only."""
        from airflow_provider_capillary._connection_form import field_behaviour

        return field_behaviour()

    @property
    def settings(self) -> ConnectionSettings:
        """The connection, read and validated at the first use.

        :raises CapillaryConfigurationError: A field of the connection is invalid.
        :raises CapillaryTransportError: Airflow cannot read the connection at the moment.
        """
        return self._connection.settings

    @cached_property
    def _connection(self) -> RenewedConnection:
        return RenewedConnection(
            self.capillary_conn_id, get_connection=self.get_connection, http_retry=self.http_retry, log=self.log
        )

    def _refresh(self) -> bool:
        """Read the connection again if it was read before, and return whether it changed."""
        return self._connection.refresh()

    def get_conn(self) -> requests.Session:
        """Return a pooled session for your own requests.

        It sends the token and the extra headers of the connection to the API host, and to no other host, redirects
        included. It uses the timeout and the TLS settings of the connection. It neither retries nor counts against the
        limit of requests per minute.

        :return: The session. Close it, or use it as a context manager.
        """
        from airflow_provider_capillary._transport.requests_transport import make_session

        session = make_session(self.settings)

        def authenticate(request: requests.PreparedRequest) -> requests.PreparedRequest:
            url = request.url or ""
            if not self.settings.is_api_host(url):
                return request
            token = self._connection.run(lambda client: client.get_token())
            settings = self.settings
            session.adopt(settings)
            # Once more: the connection may have been read again, and the token is for its new host alone.
            if settings.is_api_host(url):
                for name, value in settings.headers.items():
                    # The Content-Type of the user's own body has precedence.
                    if name.lower() != "content-type" or name not in request.headers:
                        request.headers[name] = value
                request.headers.update(settings.auth_headers(token.value))
            return request

        session.auth = authenticate
        return session

    def get_redeem_upload_jobs(self, coupon_series_id: int | str) -> list[UploadJob]:
        """Return all redeem upload jobs of a coupon series, past ones included.

        ``GET /coupon/api/v1/upload/getUploadRedeemedCouponStatus/{couponSeriesId}``, documented by Capillary.

        :param coupon_series_id: The coupon series.
        :return: The jobs in no particular order; the newest has the largest id. An empty list for a series without
            jobs.
        :raises CapillaryError: The request failed; see the subclasses in ``exceptions``.
        """
        return self._get_upload_jobs(REDEEM, coupon_series_id)

    def get_coupon_upload_jobs(self, coupon_series_id: int | str) -> list[UploadJob]:
        """Return all coupon upload jobs of a coupon series; like :meth:`get_redeem_upload_jobs`.

        ``GET /coupon/api/v1/upload/getUploadStatus/{couponSeriesId}``, documented by Capillary.

        :param coupon_series_id: The coupon series.
        """
        return self._get_upload_jobs(COUPON, coupon_series_id)

    def get_redeem_upload_history(self, coupon_series_id: int | str, before: JobHistory | None = None) -> JobHistory:
        """Return all redeem upload jobs of a series for repeated polls: an unchanged response is not parsed again.

        :param coupon_series_id: The coupon series.
        :param before: The history that the last call returned.
        :return: All jobs, in order; ``before`` itself if nothing changed.
        :raises CapillaryError: The request failed.
        """
        return self._connection.run(lambda client: client.get_upload_history(REDEEM, coupon_series_id, before))

    def get_coupon_upload_history(self, coupon_series_id: int | str, before: JobHistory | None = None) -> JobHistory:
        """Return all coupon upload jobs of a series; like :meth:`get_redeem_upload_history`.

        :param coupon_series_id: The coupon series.
        :param before: The history that the last call returned.
        """
        return self._connection.run(lambda client: client.get_upload_history(COUPON, coupon_series_id, before))

    def get_redeem_upload_job(self, coupon_series_id: int | str, job_id: int | str) -> UploadJob:
        """Return one redeem upload job.

        :param coupon_series_id: The coupon series.
        :param job_id: The job.
        :raises CapillaryJobNotFoundError: The series has no such job.
        :raises CapillaryError: The request failed.
        """
        return self._get_upload_job(REDEEM, coupon_series_id, job_id)

    def get_coupon_upload_job(self, coupon_series_id: int | str, job_id: int | str) -> UploadJob:
        """Return one coupon upload job; like :meth:`get_redeem_upload_job`.

        :param coupon_series_id: The coupon series.
        :param job_id: The job.
        """
        return self._get_upload_job(COUPON, coupon_series_id, job_id)

    def _get_upload_jobs(self, kind: UploadKind, coupon_series_id: int | str) -> list[UploadJob]:
        return self._connection.run(lambda client: client.get_upload_jobs(kind, coupon_series_id))

    def _get_upload_job(self, kind: UploadKind, coupon_series_id: int | str, job_id: int | str) -> UploadJob:
        return self._connection.run(lambda client: client.get_upload_job(kind, coupon_series_id, job_id))

    def open_error_file(self, job: UploadJob) -> AbstractContextManager[BinaryIO]:
        """Open the error file of a job for reading: short for ``open_job_file(job, "error")``.

        :param job: A job with an ``error_file_url``.
        """
        return self.open_job_file(job)

    @contextmanager
    def open_job_file(self, job: UploadJob, file_type: JobFile = "error") -> Iterator[BinaryIO]:
        """Open a file of a job for reading, in constant memory.

        Capillary documents no download of these files. A URL is fetched, and an object-storage URI is read through
        Airflow. A bare handle is resolved by the error file URL of the connection, or else requested from
        ``/coupon/api/v1/download``, which was seen in use but is not official (docs/capillary/api.md, 5). An
        interrupted download is resumed.

        :param job: A job with an ``error_file_url``, ``success_file_url`` or ``uploaded_file_url``.
        :param file_type: File to open: ``error`` (default), ``success`` or ``uploaded``.
        :return: A context manager of a sequential binary stream. The bytes are unchanged: the format is not documented,
            and the file contains personal data.
        :raises CapillaryConfigurationError: ``file_type`` is not one of these.
        :raises CapillaryErrorFileError: The job has no such file, or its location violates a safety rule, which the
            message names.
        :raises CapillaryResponseError: The response is not the file but a JSON object or, if the job reports rows for
            the file, any JSON value, an HTML page, ``OK`` or nothing.
        :raises CapillaryError: The file could not be fetched.
        """
        from airflow_provider_capillary._transport.error_file_stream import open_chunks, open_object
        from airflow_provider_capillary.api.download import read_file
        from airflow_provider_capillary.api.error_files import ObjectSource
        from airflow_provider_capillary.api.file_content import expects_rows

        source = self._locate_job_file(job, file_type)
        has_rows = expects_rows(job, file_type)
        if isinstance(source, ObjectSource):
            with open_object(source, expects_rows=has_rows) as stream:
                yield stream
            return
        chunks = self._connection.iterate(lambda client: read_file(client, source, expects_rows=has_rows))
        with open_chunks(chunks) as stream:
            yield stream

    def _locate_job_file(self, job: UploadJob, file_type: JobFile) -> ErrorFileSource:
        from airflow_provider_capillary.api.error_files import locate_error_file
        from airflow_provider_capillary.api.jobs import JOB_FILES

        validate_choice("file_type", file_type, JOB_FILES)
        url = job.file_url(file_type)
        if not url:
            raise CapillaryErrorFileError(f"upload job {job.job_id} has no {file_type} file")
        return locate_error_file(url, self.settings, name=f"{file_type} file")

    def test_connection(self) -> tuple[bool, str]:
        """Get a token and make one cheap authenticated call, for the Test button and ``airflow connections test``.

        :return: Whether the connection works, and a message that names the result or the problem. Returns within 15
            seconds in any case.
        """
        from airflow_provider_capillary._transport.connection_check import check_connection, without_name

        try:
            settings = self.settings
        except CapillaryError as error:
            return False, without_name(str(error), self.capillary_conn_id)
        result: list[tuple[bool, str]] = []
        # Use a thread, because resolving a name and a slow response cannot be given a time limit otherwise.
        worker = threading.Thread(target=lambda: result.append(check_connection(settings)), daemon=True)
        worker.start()
        worker.join(_TEST_DEADLINE_SECONDS)
        if not result:
            return False, f"{settings.host} cannot be reached: no answer within {_TEST_DEADLINE_SECONDS:g} seconds"
        good, message = result[0]
        return good, without_name(message, self.capillary_conn_id)


class CapillaryAsyncHook(AsyncUploadMethods, _CapillaryConnection):
    """Interact with Capillary from the triggerer, over ``httpcore``.

    Use it as ``async with CapillaryAsyncHook(...) as hook``.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param http_retry: Attempts and waits of safe requests, as for :class:`CapillaryHook`.
    """

    _connection: RenewedAsyncConnection | None = None
    _made_by_use = ("_connection",)

    async def __aenter__(self) -> Self:
        """Read the connection. The first request connects.

        :raises AirflowNotFoundException: There is no such connection.
        :raises CapillaryConfigurationError: A field of the connection is invalid.
        :raises CapillaryTransportError: Airflow cannot read the connection at the moment.
        """
        self._connection = await RenewedAsyncConnection.open(
            self.capillary_conn_id, http_retry=self.http_retry, log=self.log
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all sockets."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def get_redeem_upload_jobs(self, coupon_series_id: int | str) -> list[UploadJob]:
        """Return all redeem upload jobs of a coupon series; see :class:`CapillaryHook`.

        :param coupon_series_id: The coupon series.
        :raises CapillaryError: The request failed.
        """
        return await self._opened().run(lambda client: client.get_upload_jobs(REDEEM, coupon_series_id))

    async def get_coupon_upload_jobs(self, coupon_series_id: int | str) -> list[UploadJob]:
        """Return all coupon upload jobs of a coupon series; see :class:`CapillaryHook`.

        :param coupon_series_id: The coupon series.
        """
        return await self._opened().run(lambda client: client.get_upload_jobs(COUPON, coupon_series_id))

    async def get_redeem_upload_history(
        self, coupon_series_id: int | str, before: JobHistory | None = None
    ) -> JobHistory:
        """Return all redeem upload jobs of a series for repeated polls; see :class:`CapillaryHook`.

        :param coupon_series_id: The coupon series.
        :param before: The history that the last call returned.
        :return: All jobs, in order; ``before`` itself if nothing changed.
        :raises CapillaryError: The request failed.
        """
        return await self._opened().run(lambda client: client.get_upload_history(REDEEM, coupon_series_id, before))

    async def get_coupon_upload_history(
        self, coupon_series_id: int | str, before: JobHistory | None = None
    ) -> JobHistory:
        """Return all coupon upload jobs of a series; like :meth:`get_redeem_upload_history`.

        :param coupon_series_id: The coupon series.
        :param before: The history that the last call returned.
        """
        return await self._opened().run(lambda client: client.get_upload_history(COUPON, coupon_series_id, before))

    async def get_redeem_upload_job(self, coupon_series_id: int | str, job_id: int | str) -> UploadJob:
        """Return one redeem upload job; see :class:`CapillaryHook`.

        :param coupon_series_id: The coupon series.
        :param job_id: The job.
        :raises CapillaryJobNotFoundError: The series has no such job.
        :raises CapillaryError: The request failed.
        """
        return await self._opened().run(lambda client: client.get_upload_job(REDEEM, coupon_series_id, job_id))

    async def get_coupon_upload_job(self, coupon_series_id: int | str, job_id: int | str) -> UploadJob:
        """Return one coupon upload job; see :class:`CapillaryHook`.

        :param coupon_series_id: The coupon series.
        :param job_id: The job.
        """
        return await self._opened().run(lambda client: client.get_upload_job(COUPON, coupon_series_id, job_id))

    def _opened(self) -> RenewedAsyncConnection:
        if self._connection is None:
            raise RuntimeError("use the hook as: async with CapillaryAsyncHook(...) as hook")
        return self._connection
