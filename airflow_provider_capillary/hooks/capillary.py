# SPDX-License-Identifier: Apache-2.0
"""The hooks: Capillary over one Airflow connection, blocking for workers and awaited for the triggerer.

What only a running task needs is imported inside functions: a DAG file that names a sensor pays for its import each
time it is parsed.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_capillary._airflow_compat import AirflowNotFoundException, BaseHook
from airflow_provider_capillary._copying import BeginsAnew
from airflow_provider_capillary._transport.connections import aread_settings, read_settings, warn_about
from airflow_provider_capillary._transport.forking import PerProcess
from airflow_provider_capillary.api.errors import CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.api.values import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    import requests

    from airflow_provider_capillary._transport.async_connection import AsyncConnection
    from airflow_provider_capillary._transport.sync_connection import SyncConnection
    from airflow_provider_capillary.api.jobs import JobFile, JobHistory, UploadJob
    from airflow_provider_capillary.api.retry import HttpRetry
    from airflow_provider_capillary.api.settings import ConnectionSettings

_TEST_DEADLINE_SECONDS = 14.0


def _nothing() -> None:
    """Return the connection that a hook starts with."""


class _CapillaryConnection(BeginsAnew, BaseHook):
    """What both hooks are: named after one connection, and doing nothing until asked.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :raises CapillaryConfigurationError: ``capillary_conn_id`` is no text, empty, or what a template renders nothing to.
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


class CapillaryHook(_CapillaryConnection):
    """Talk to Capillary from a worker, by ``requests``.

    Nothing is read or sent before the first call. The OAuth token and the limit of requests per minute are shared by
    all hooks of the connection in the process.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param http_retry: How often and how patiently safe requests are tried again; by default five times with waits
        of up to 1, 2, 4 and 8 seconds.
    """

    _made_by_use = ("settings", "_opened")

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

    @cached_property
    def settings(self) -> ConnectionSettings:
        """The connection, read and checked once.

        :raises CapillaryConfigurationError: A field of it cannot be used.
        :raises CapillaryTransportError: Airflow cannot give it for the moment.
        """
        settings = self._read_settings()
        warn_about(settings, self.log)
        return settings

    def _read_settings(self) -> ConnectionSettings:
        return read_settings(self.capillary_conn_id, self.get_connection)

    def _refresh(self) -> bool:
        """Read the connection again, if it was read before; where that fails, what was read before stays.

        :return: Whether it changed.
        """
        before = self.__dict__.get("settings")
        if before is None:
            return False
        try:
            settings = self._read_settings()
        except (CapillaryError, AirflowNotFoundException) as error:
            self.log.warning("Go on with the Airflow connection %r as it was: %s", self.capillary_conn_id, error)
            return False
        if settings == before:
            return False
        self.log.info("Airflow connection %r changed; polls use what it says now", self.capillary_conn_id)
        warn_about(settings, self.log)
        connection, self._opened.value = self._opened.value, None
        if connection is not None:
            connection.close()
        self.__dict__["settings"] = settings
        return True

    @cached_property
    def _opened(self) -> PerProcess[SyncConnection | None]:
        return PerProcess(_nothing)

    def _open(self) -> SyncConnection:
        """Return the open connection of this process; the first call opens it."""
        connection = self._opened.value
        if connection is None:
            from airflow_provider_capillary._transport.sync_connection import SyncConnection

            connection = self._opened.value = SyncConnection.open(self.settings, http_retry=self.http_retry)
        return connection

    def get_conn(self) -> requests.Session:
        """Return a pooled session for requests of your own.

        It carries the token and the connection's extra headers to the API host, and to no other host, redirects
        included; it has the connection's timeout and TLS settings, and neither tries again nor counts against the
        limit of requests per minute.

        :return: The session. Close it, or use it as a context manager.
        """
        from airflow_provider_capillary._transport.requests_transport import make_session

        session = make_session(self.settings)

        def authenticate(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if self.settings.is_api_host(request.url or ""):
                connection = self._open()
                token = connection.run(connection.client.get_token())
                for name, value in self.settings.headers.items():
                    # The Content-Type of the user's own body counts more.
                    if name.lower() != "content-type" or name not in request.headers:
                        request.headers[name] = value
                request.headers[self.settings.auth_header_name] = token.value
            return request

        session.auth = authenticate
        return session

    def get_redeem_upload_jobs(self, coupon_series_id: int | str) -> list[UploadJob]:
        """Return every redeem upload job that a coupon series ever had.

        ``GET /coupon/api/v1/upload/getUploadRedeemedCouponStatus/{couponSeriesId}``, documented by Capillary.

        :param coupon_series_id: The coupon series.
        :return: The jobs in no particular order, the newest being the one with the largest id; an empty list for a
            series without any.
        :raises CapillaryError: Capillary could not be asked, see the subclasses in ``exceptions``.
        """
        connection = self._open()
        return connection.run(connection.client.get_redeem_upload_jobs(coupon_series_id))

    def get_redeem_upload_job(self, coupon_series_id: int | str, job_id: int | str) -> UploadJob:
        """Return one redeem upload job.

        :param coupon_series_id: The coupon series.
        :param job_id: The job.
        :raises CapillaryJobNotFoundError: The series has no such job.
        :raises CapillaryError: Capillary could not be asked.
        """
        connection = self._open()
        return connection.run(connection.client.get_redeem_upload_job(coupon_series_id, job_id))

    def open_error_file(self, job: UploadJob) -> AbstractContextManager[BinaryIO]:
        """Open the error file of a job for reading: short for ``open_job_file(job, "error")``.

        :param job: A job with an ``error_file_url``.
        """
        return self.open_job_file(job)

    @contextmanager
    def open_job_file(self, job: UploadJob, file_type: JobFile = "error") -> Iterator[BinaryIO]:
        """Open a file of a job for reading, whatever its size, in constant memory.

        Capillary documents no download for any of them. A URL is fetched, an object-storage URI read through Airflow,
        a bare handle looked up by the connection's error file URL, or else asked for at ``/coupon/api/v1/download``,
        which was seen in use but is not official (docs/capillary-api.md, 5). What breaks off is read on from there.

        :param job: A job with an ``error_file_url``, ``success_file_url`` or ``uploaded_file_url``.
        :param file_type: Which of these: ``error`` (default), ``success`` or ``uploaded``.
        :return: A context manager of a binary stream, read from front to end. The bytes are those of the file,
            unchanged: their format is not documented either, and they hold personal data.
        :raises CapillaryConfigurationError: ``file_type`` is none of the three.
        :raises CapillaryErrorFileError: The job has no such file, or its place breaks a rule of safety; the message
            says which.
        :raises CapillaryResponseError: Something else came in place of the file: a JSON object, or, where the job
            counts rows for the file, any JSON value, an HTML page, ``OK`` or nothing.
        :raises CapillaryError: The file could not be fetched.
        """
        from airflow_provider_capillary._transport.error_file_stream import open_object, open_pieces
        from airflow_provider_capillary.api.error_files import ObjectSource, locate_error_file
        from airflow_provider_capillary.api.file_content import expects_rows
        from airflow_provider_capillary.api.jobs import JOB_FILES, validate_choice

        validate_choice("file_type", file_type, JOB_FILES)
        url = job.file_url(file_type)
        if not url:
            raise CapillaryErrorFileError(f"upload job {job.job_id} has no {file_type} file")
        source = locate_error_file(url, self.settings, name=f"{file_type} file")
        has_rows = expects_rows(job, file_type)
        if isinstance(source, ObjectSource):
            with open_object(source, expects_rows=has_rows) as stream:
                yield stream
            return
        connection = self._open()
        chunks = connection.iterate(connection.client.read_file(source, expects_rows=has_rows))
        with open_pieces(chunks) as stream:
            yield stream

    def test_connection(self) -> tuple[bool, str]:
        """Get a token and make one cheap authenticated call, for the Test button and ``airflow connections test``.

        :return: Whether it works, and in plain words what does not. Comes back within 15 seconds, whatever the
            network does.
        """
        from airflow_provider_capillary._transport.connection_check import check_connection

        try:
            settings = self.settings
        except CapillaryError as error:
            return False, str(error)
        result: list[tuple[bool, str]] = []
        # A thread, because neither resolving a name nor a dripping answer can be given a time limit from outside.
        worker = threading.Thread(target=lambda: result.append(check_connection(settings)), daemon=True)
        worker.start()
        worker.join(_TEST_DEADLINE_SECONDS)
        if not result:
            return False, f"{settings.host} cannot be reached: no answer within {_TEST_DEADLINE_SECONDS:g} seconds"
        return result[0]


class CapillaryAsyncHook(_CapillaryConnection):
    """Talk to Capillary from the triggerer, by ``httpx``. Use it as ``async with CapillaryAsyncHook(...) as hook``.

    :param capillary_conn_id: Airflow connection of type ``capillary``.
    :param http_retry: How often and how patiently safe requests are tried again, as for :class:`CapillaryHook`.
    """

    _connection: AsyncConnection | None = None
    _made_by_use = ("_connection",)

    async def __aenter__(self) -> Self:
        """Read the connection; the first request connects.

        :raises AirflowNotFoundException: There is no such connection.
        :raises CapillaryConfigurationError: A field of it cannot be used.
        :raises CapillaryTransportError: Airflow cannot give it for the moment.
        """
        from airflow_provider_capillary._transport.async_connection import AsyncConnection

        settings = await aread_settings(self.capillary_conn_id)
        self._connection = await AsyncConnection.open(settings, http_retry=self.http_retry, log=self.log)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def get_redeem_upload_jobs(self, coupon_series_id: int | str) -> list[UploadJob]:
        """Return every redeem upload job that a coupon series ever had; see :class:`CapillaryHook`.

        :param coupon_series_id: The coupon series.
        :raises CapillaryError: Capillary could not be asked.
        """
        connection = self._opened()
        return await connection.run(connection.client.get_redeem_upload_jobs(coupon_series_id))

    async def get_redeem_upload_history(
        self, coupon_series_id: int | str, before: JobHistory | None = None
    ) -> JobHistory:
        """Return the same jobs to those who ask again and again, at the cost of what changed.

        :param coupon_series_id: The coupon series.
        :param before: What the last call returned.
        :return: All jobs, in order; ``before`` itself where nothing changed.
        :raises CapillaryError: Capillary could not be asked.
        """
        return await self._opened().get_redeem_upload_history(coupon_series_id, before)

    async def get_redeem_upload_job(self, coupon_series_id: int | str, job_id: int | str) -> UploadJob:
        """Return one redeem upload job; see :class:`CapillaryHook`.

        :param coupon_series_id: The coupon series.
        :param job_id: The job.
        :raises CapillaryJobNotFoundError: The series has no such job.
        :raises CapillaryError: Capillary could not be asked.
        """
        connection = self._opened()
        return await connection.run(connection.client.get_redeem_upload_job(coupon_series_id, job_id))

    def _opened(self) -> AsyncConnection:
        if self._connection is None:
            raise RuntimeError("use the hook as: async with CapillaryAsyncHook(...) as hook")
        return self._connection
