# SPDX-License-Identifier: Apache-2.0
"""The sandbox as a Python object: start it, give it jobs and faults, look at what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_capillary.sandbox.answers import ENDPOINTS, REFUSALS
from airflow_provider_capillary.sandbox.api import Api, Settings
from airflow_provider_capillary.sandbox.control import Control
from airflow_provider_capillary.sandbox.faults import Fault, FaultBook
from airflow_provider_capillary.sandbox.fields import FieldError, number, one_of, text, whole_number
from airflow_provider_capillary.sandbox.jobs import Clocks, JobStore, SandboxJob
from airflow_provider_capillary.sandbox.records import RecordedRequest, Recorder
from airflow_provider_capillary.sandbox.tokens import TokenBook
from airflow_provider_capillary.sandbox.wire import SandboxServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

# How long a stop waits for open connections to end, in seconds.
_GOODBYE_SECONDS = 0.3


class Sandbox:
    """A local Capillary that serves from a thread of its own.

    It can be started again after it was stopped: on the same port, and with the jobs and tokens it had.

    :param host: address to listen on; default 127.0.0.1, so that only this machine reaches it
    :param port: port to listen on; default 0: any that is free
    :param client_key: key that the token endpoint accepts
    :param client_secret: secret that goes with it
    :param org_id: number of the org, as answers show it
    :param token_ttl_seconds: lifetime of tokens in seconds; default 300, which is in Capillary's samples
    :param ttl_in_answer: whether the answer to a token call has ``ttlSeconds``; default true. Whether the real one
        always has is unknown; the token's own claims say it in any case
    :param queued_seconds: how long a job is QUEUED, in seconds, where nothing else is said for the job;
        default 0
    :param started_seconds: how long it is then STARTED; default 0
    :param cluster_timezone: zone of the cluster, whose midnight is the timestamp of jobs; default
        Asia/Kolkata, which is what Capillary's samples show
    :param ssl_context: makes it https
    :param file_ranges: whether ``/files/`` serves byte ranges; default true
    :param refusal: how an expired or unknown token is refused: ``http_401`` or ``http_498`` by HTTP status
        and body, ``body_401`` or ``body_498`` by the body of an HTTP 200. Which of them the coupon endpoints
        use is unknown
    :param bad_credentials_status: HTTP status of the answer to wrong credentials; default 200; unknown, too
    :param access_log: called with one line for each request (method, path without query, status,
        milliseconds); default: no log
    :raises ValueError: if a value cannot be used; the message names the field
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        client_key: str = "sandbox-key",
        client_secret: str = "sandbox-secret",
        org_id: int = 100458,
        token_ttl_seconds: float = 300,
        ttl_in_answer: bool = True,
        queued_seconds: float = 0.0,
        started_seconds: float = 0.0,
        cluster_timezone: str = "Asia/Kolkata",
        ssl_context: ssl.SSLContext | None = None,
        file_ranges: bool = True,
        refusal: str = "http_401",
        bad_credentials_status: int = 200,
        access_log: Callable[[str], None] | None = None,
        _monotonic: Callable[[], float] = time.monotonic,
        _wall: Callable[[], float] = time.time,
    ) -> None:
        try:
            zone = ZoneInfo(text("cluster_timezone", cluster_timezone))
        except (KeyError, ValueError, OSError):  # unknown, no name at all, a folder of names
            raise FieldError("cluster_timezone", "is not a known time zone") from None
        if not isinstance(ttl_in_answer, bool):
            raise FieldError("ttl_in_answer", "must be true or false")
        whole_number("bad_credentials_status", bad_credentials_status, least=200, most=599)
        settings = Settings(
            client_key=text("client_key", client_key),
            client_secret=text("client_secret", client_secret),
            org_id=whole_number("org_id", org_id),
            token_ttl_seconds=number("token_ttl_seconds", token_ttl_seconds),
            ttl_in_answer=ttl_in_answer,
            refusal=one_of("refusal", refusal, REFUSALS),
            bad_credentials_status=bad_credentials_status,
            file_ranges=file_ranges,
        )
        clocks = Clocks(monotonic=_monotonic, wall=_wall, zone=zone)
        self._host = text("host", host)
        self._port = whole_number("port", port, most=65535)
        self._settings = settings
        self._ssl_context = ssl_context
        self._access_log = access_log
        self._tokens = TokenBook(ttl_seconds=token_ttl_seconds, org_id=org_id, clock=_monotonic, wall=_wall)
        self._jobs = JobStore(
            org_id=org_id,
            clocks=clocks,
            queued_seconds=number("queued_seconds", queued_seconds),
            started_seconds=number("started_seconds", started_seconds),
        )
        self._api = Api(settings, clocks, self._tokens, self._jobs)
        self._faults = FaultBook()
        self._recorder = Recorder()
        self._server: SandboxServer | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Sandbox on {self._host}:{self._port}, {'serving' if self._server else 'stopped'}>"

    def start(self) -> None:
        """Begin to serve.

        :raises RuntimeError: if it serves already
        :raises OSError: if the address is taken or cannot be used
        """
        if self._server is not None:
            raise RuntimeError("the sandbox serves already")
        self._server = SandboxServer(
            self._host,
            self._port,
            api=self._api,
            control=Control(self),
            faults=self._faults,
            recorder=self._recorder,
            access_log=self._access_log,
            ssl_context=self._ssl_context,
        )
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve, name="capillary-sandbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and close all connections; does nothing if it does not serve."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.stop()
        self._thread.join()
        server.server_close()
        server.close_connections(seconds=_GOODBYE_SECONDS)

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """Address to reach it at: the one it listens on, or loopback where that is all addresses."""
        with contextlib.suppress(ValueError):
            if (address := ip_address(self._host)).is_unspecified:
                return "127.0.0.1" if address.version == 4 else "::1"
        return self._host

    @property
    def port(self) -> int:
        """Port it listens on; stays the same after a stop.

        :raises RuntimeError: before the first start, if any free port is to be used
        """
        if not self._port:
            raise RuntimeError("the sandbox has no port before it is started")
        return self._port

    @property
    def base_url(self) -> str:
        """Address with scheme and port, without a slash at the end."""
        return f"{self._origin}:{self.port}"

    @property
    def _origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._ssl_context else 'http'}://{host}"

    def connection(self, **extra: Any) -> dict[str, Any]:
        """Return the Airflow connection that leads here.

        :param extra: goes into the extra of the connection
        """
        return {
            "conn_type": "capillary",
            "host": self._origin,
            "port": self.port,
            "login": self._settings.client_key,
            "password": self._settings.client_secret,
            "extra": extra,
        }

    def connection_json(self, **extra: Any) -> str:
        """Return the connection as the value of ``AIRFLOW_CONN_CAPILLARY_DEFAULT``."""
        return json.dumps(self.connection(**extra))

    def add_job(
        self,
        coupon_series_id: int,
        *,
        status: str | None = None,
        ends: str = "COMPLETED",
        rows: int = 3,
        errors: int = 0,
        error_file: bytes | Path | None = None,
        job_id: int | None = None,
        uploaded_file_name: str | None = None,
        queued_seconds: float | None = None,
        started_seconds: float | None = None,
        error_file_url: str | None = "handle",
        success_file: bytes | Path | None = None,
        uploaded_file: bytes | Path | None = None,
        age_seconds: float = 0.0,
    ) -> SandboxJob:
        """Add an upload job, as if a file had been uploaded.

        :param coupon_series_id: number of the coupon series
        :param status: word in which the job stays for ever, any text; None: it goes from QUEUED to STARTED to
            ``ends``
        :param ends: word in which it ends
        :param rows: number of rows in the upload
        :param errors: number of rows refused
        :param error_file: the error file, as bytes or as the path of a file that is read whenever it is asked
            for; None: made up, with a row for each error
        :param job_id: number of the job; None: one more than the largest
        :param uploaded_file_name: name under which the upload is stored; None: made up
        :param queued_seconds: how long it is QUEUED, in seconds; None: as the sandbox is set
        :param started_seconds: how long it is then STARTED; None: as the sandbox is set
        :param error_file_url: what ``errorFileUrl`` shows once the job is done with errors or a given error
            file: ``handle`` for a bare handle of the usual form, None for null, any other text as it stands.
            An address under ``/files/`` of this sandbox leads to the error file
        :param success_file: the file of the accepted rows, likewise; None: there is none, as in every sample.
            ``successFileUrl`` then shows a bare handle as soon as the job is done
        :param uploaded_file: what ``uploadedFileUrl`` leads to, likewise; None: nobody kept it
        :param age_seconds: how long ago the job was made, in seconds
        :raises ValueError: if a value cannot be used; the message names the field
        """
        return self._jobs.add(
            coupon_series_id,
            status=status,
            ends=ends,
            rows=rows,
            errors=errors,
            error_file=error_file,
            job_id=job_id,
            uploaded_file_name=uploaded_file_name,
            queued_seconds=queued_seconds,
            started_seconds=started_seconds,
            error_file_url=error_file_url,
            success_file=success_file,
            uploaded_file=uploaded_file,
            age_seconds=age_seconds,
        )

    def jobs(self, coupon_series_id: int | None = None) -> list[SandboxJob]:
        """Return the jobs of a series, or of all, in the order they were added."""
        return self._jobs.jobs(coupon_series_id)

    def finish(self, job: SandboxJob, status: str = "COMPLETED") -> None:
        """End a job at once.

        :param job: the job
        :param status: word in which it ends
        """
        job.finish(text("status", status))

    def inject(self, fault: Fault) -> None:
        """Let something go wrong with requests to come."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The faults still to come: kind, endpoint, and what is left of skip and times."""
        return self._faults.pending()

    def expire_tokens(self) -> None:
        """Refuse every token issued so far from now on."""
        self._tokens.expire_all()

    @property
    def tokens_issued(self) -> list[str]:
        """Every token ever issued, oldest first, so that a test can search its logs for them."""
        return self._tokens.issued()

    @property
    def requests(self) -> list[RecordedRequest]:
        """The newest ten thousand requests, oldest first; those to ``/sandbox`` are not among them."""
        return self._recorder.requests()

    @property
    def counts(self) -> dict[str, int]:
        """How many requests each endpoint has had."""
        return self._recorder.counts()

    def count(self, endpoint: str) -> int:
        """Return how many requests an endpoint has had.

        :param endpoint: ``token``, ``status``, ``upload``, ``download``, ``files`` or ``other``
        :raises ValueError: if there is no such endpoint
        """
        return self.counts.get(one_of("endpoint", endpoint, ENDPOINTS), 0)
