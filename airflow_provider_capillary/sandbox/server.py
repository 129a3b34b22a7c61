# SPDX-License-Identifier: Apache-2.0
"""The sandbox as a Python object, which starts and stops its HTTP server."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from airflow_provider_capillary.sandbox.http_server import HttpServer
from airflow_provider_capillary.sandbox.state import SandboxState

if TYPE_CHECKING:
    from types import TracebackType

# How long a stop waits for open connections to end, in seconds.
_CLOSE_SECONDS = 0.3


class Sandbox(SandboxState):
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

    _server: HttpServer | None = None
    _thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Sandbox on {self._host}:{self._port}, {'serving' if self._server else 'stopped'}>"

    def start(self) -> None:
        """Begin to serve.

        :raises RuntimeError: if it serves already
        :raises OSError: if the address is taken or cannot be used
        """
        if self._server is not None:
            raise RuntimeError("the sandbox serves already")
        self._server = HttpServer(self._host, self._port, self)
        self._port = self._server.port
        self._thread = threading.Thread(target=self._server.serve, name="capillary-sandbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and close all connections; does nothing if it does not serve."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.stop()
        self._thread.join()
        server.close(seconds=_CLOSE_SECONDS)

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.stop()
