# SPDX-License-Identifier: Apache-2.0
"""The sandbox as a Python object with its HTTP server: h11 for the protocol, sockets for the faults it refuses."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import traceback
import uuid
from contextlib import suppress
from email.message import Message
from email.utils import formatdate
from functools import cache, partial
from http.client import responses
from math import ceil

import h11

from airflow_provider_capillary.sandbox.endpoints import Route, find_route
from airflow_provider_capillary.sandbox.faults import TRANSPORT_KINDS, Fault
from airflow_provider_capillary.sandbox.http_messages import RecordedRequest, Request, Response, uploaded_file_name
from airflow_provider_capillary.sandbox.state import SandboxState

_HANDSHAKE_SECONDS = 10.0
_CLOSE_SECONDS = 0.3  # how long a stop waits for open connections to end
_MAX_HEAD_BYTES = 64 * 1024  # a client may have long headers; h11 itself allows a quarter of this
_RECEIVE_BYTES = 64 * 1024  # h11 copies what it has received with each piece that it returns
_MAX_MEMORY_BYTES = 1024 * 1024  # larger bodies are received into a temporary file
_MAX_RECORDED_BODY_BYTES = 64 * 1024  # an upload can be hundreds of megabytes
_DRIP_CHUNKS = 20  # a drip has at least so many, if there are as many bytes
_EXCESS_BYTES = 16  # added to the Content-Length of a `wrong_length` response


class Sandbox(SandboxState):
    """A local Capillary that serves from a thread of its own.

    It can be started again after a stop: on the same port, and with the jobs and tokens it had.

    :param host: address to listen on; default 127.0.0.1, so that only this machine reaches it
    :param port: port to listen on; default 0: any that is free
    :param client_key: key that the token endpoint accepts
    :param client_secret: secret that goes with it
    :param org_id: number of the org, as responses show it
    :param token_ttl_seconds: lifetime of tokens in seconds; default 300, as in samples
    :param ttl_in_answer: whether the response to a token call has ``ttlSeconds``; default true; unknown of the real one
    :param queued_seconds: how long a job is QUEUED, in seconds; default 0; ``add_job`` may set it for one job
    :param started_seconds: how long it is then STARTED; default 0
    :param list_lag_seconds: how long a new job is missing from the list of the status endpoint, in seconds; default 0
    :param cluster_timezone: zone of the cluster, whose midnight is the timestamp of jobs; default as in samples
    :param ssl_context: makes it https
    :param file_ranges: whether ``/files/`` serves byte ranges; default true
    :param refusal: how an expired or unknown token is refused: ``http_401`` or ``http_498`` by HTTP status and body,
        ``body_401`` or ``body_498`` by the body of an HTTP 200. The form of the coupon endpoints is unknown
    :param bad_credentials_status: HTTP status of the response to wrong credentials; default 200; unknown, too
    :param upload_auth: where an upload must have its token: ``oauth`` for the header ``X-CAP-API-OAUTH-TOKEN``,
        ``bearer`` for ``Authorization: Bearer``, ``any`` for either (default); elsewhere it is HTTP 401. Other calls
        take either
    :param access_log: called with one line for each request (method, path without query, status, milliseconds)
    :ivar clock: returns the sandbox's time in seconds since 1970; a test may replace it, to let jobs and tokens age
    :ivar further_secrets: secrets that the token endpoint accepts beside ``client_secret``, as while one is rotated
    :raises ValueError: if a value cannot be used; the message names the field
    """

    _listener: socket.socket | None = None
    _thread: threading.Thread

    def __repr__(self) -> str:
        return f"<Sandbox on {self._address}:{self.port}, {'serving' if self._listener else 'stopped'}>"

    def start(self) -> None:
        """Begin to serve.

        :raises RuntimeError: if it serves already
        :raises OSError: if the address is taken or cannot be used
        """
        if self._listener is not None:
            raise RuntimeError("the sandbox serves already")
        ipv6 = ":" in self._address
        # It sets no SO_REUSEPORT: two sandboxes on one port would share its requests between them, unnoticed.
        listener = socket.create_server(
            (self._address, self.port),
            family=socket.AF_INET6 if ipv6 else socket.AF_INET,
            backlog=1024,  # a thousand clients may connect at once
            dualstack_ipv6=ipv6 and socket.has_dualstack_ipv6(),
        )
        self.port = listener.getsockname()[1]
        if self.ssl_context is not None:
            # Without the handshake at accept, which would wait for the client.
            listener = self.ssl_context.wrap_socket(listener, server_side=True, do_handshake_on_connect=False)
        self._listener = listener
        self._stopping = threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}  # each with its thread
        self._thread = threading.Thread(target=self._accept, args=(listener,), name="capillary-sandbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and close all connections; does nothing if it does not serve."""
        if self._listener is None:
            return
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept on Linux; elsewhere the close does
        self._listener.close()
        self._thread.join()
        self._listener = None
        deadline = time.monotonic() + _CLOSE_SECONDS
        with self._lock:
            connections = dict(self._connections)
            for connection in connections:
                with suppress(OSError):
                    # Not SSLSocket.shutdown, which would pull the TLS state from under the thread that reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in connections.values():
            thread.join(max(0, deadline - time.monotonic()))

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            with suppress(OSError):  # the client has gone away
                connection, address = listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection, address[0]), daemon=True)
                with self._lock:
                    try:
                        thread.start()
                        self._connections[connection] = thread
                    except RuntimeError:  # there are too many threads
                        connection.close()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        try:
            with suppress(OSError):  # the client has gone away
                _Connection(connection, peer, self, self._stopping).serve()
                # Before the close, which would discard the last bytes if the client has sent more than was read.
                connection.shutdown(socket.SHUT_WR)
        except Exception as error:  # noqa: BLE001 - print the place of a bug in the sandbox, but no value
            if not self._stopping.is_set():
                frame = traceback.extract_tb(error.__traceback__)[-1]
                sys.stderr.write(f"sandbox: {type(error).__name__} in {frame.filename}:{frame.lineno}\n")
        finally:
            with self._lock:
                # It may outlive its stop, and be unknown after the next start.
                self._connections.pop(connection, None)
                connection.close()


class _Connection:
    """One connection, with any number of requests."""

    def __init__(self, connection: socket.socket, peer: str, state: SandboxState, stopping: threading.Event) -> None:
        self._socket = connection
        self._peer = peer
        self._state = state
        self._stopping = stopping
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._broken = False
        # Headers and body are two writes; the second must not wait for the client's delayed acknowledgement.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        """Serve requests until the connection ends."""
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(_HANDSHAKE_SECONDS)
            self._socket.do_handshake()
            self._socket.settimeout(None)
        try:
            while isinstance(head := self._next_event(), h11.Request):
                self._serve(head)
                if self._broken or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            self._log("malformed request", self._refuse(error), time.monotonic())

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._send_event(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(self._socket.recv(_RECEIVE_BYTES))
        return event

    def _serve(self, head: h11.Request) -> None:
        began = time.monotonic()
        method = head.method.decode()
        path, _, query = head.target.decode().partition("?")
        headers = Message()
        for name, value in head.headers:
            headers[name.decode()] = value.decode("latin-1")
        route, argument = find_route(path)
        outcome = "-"
        record = partial(RecordedRequest, method, path, query, headers, route.endpoint)
        try:
            if self._state.take_fault(route.endpoint):
                self._state.record(record(b"", 0, began))
                outcome = self._reset()
                return
            with tempfile.SpooledTemporaryFile(max_size=_MAX_MEMORY_BYTES) as body:
                while isinstance(event := self._next_event(), h11.Data):
                    body.write(event.data)
                size = body.tell()
                body.seek(0)
                self._state.record(record(body.read() if size <= _MAX_RECORDED_BODY_BYTES else b"", size, began))
                body.seek(0)
                outcome = self._respond(route, Request(method, argument, headers, body, peer=self._peer))
        except h11.RemoteProtocolError as error:
            outcome = self._refuse(error)
        finally:
            self._log(f"{method} {path}", outcome, began)

    def _respond(self, route: Route, request: Request) -> str:
        """Respond to a request, with the fault that it meets; return the outcome for the log."""
        fault = self._state.take_fault(route.endpoint, cache(partial(uploaded_file_name, request)))
        if fault is None:
            return self._send(request.method, route.respond(self._state, request))
        if fault.kind in TRANSPORT_KINDS:
            response = route.respond(self._state, request)
        else:
            if fault.processed:
                route.respond(self._state, request)
            response = fault.replacement(refusal=self._state.refusal, now=self._state.cluster_time())
        if fault.kind == "slow":
            self._wait(fault.seconds)
        if fault.kind == "reset":
            return self._reset()
        return f"{self._send(request.method, response, fault)} (fault: {fault.kind})"

    def _refuse(self, error: h11.RemoteProtocolError) -> str:
        """Respond to a request that cannot be read to its end; nothing behind it can be read either."""
        return self._send("", Response.of(error.error_status_hint, "The request cannot be read.\n"))

    def _send(self, method: str, response: Response, fault: Fault | None = None) -> str:
        """Send a response, changed as ``fault`` says; return its status for the log."""
        kind = fault.kind if fault else None
        has_body = method != "HEAD" and response.status not in (204, 304)
        if kind == "gzip" and has_body:
            response = response.gzipped()
        whole = response.size
        headers = {"Server": "capillary-sandbox", "Date": formatdate(usegmt=True)}
        headers |= {"X-CAP-REQUEST-ID": str(uuid.uuid4())} | response.headers
        if kind == "unmarked":
            headers["Connection"] = "close"
        elif response.status != 204 and not (fault and kind == "cut" and not fault.content_length):
            headers["Content-Length"] = str(whole + (_EXCESS_BYTES if kind == "wrong_length" else 0))
        extra = fault.extra_headers() if fault else {}
        replaced = {name.lower() for name in extra}
        headers = {name: value for name, value in headers.items() if name.lower() not in replaced} | extra
        # h11 refuses to leave the end unmarked, and to send a body that its headers contradict.
        raw = kind == "unmarked" or bool(replaced & {"content-length", "transfer-encoding"})
        phrase = responses.get(response.status, "")
        encoded = [(name.encode(), value.strip().encode("latin-1")) for name, value in headers.items()]
        if raw:
            lines = [f"HTTP/1.1 {response.status} {phrase}".encode(), *map(b": ".join, encoded), b"", b""]
            self._socket.sendall(b"\r\n".join(lines))
        else:
            self._send_event(h11.Response(status_code=response.status, reason=phrase, headers=encoded))
        size = int(whole * fault.fraction) if fault and kind in ("cut", "unmarked") else whole
        left = size if has_body else 0
        pieces = response.chunks(left, ceil(size / _DRIP_CHUNKS)) if kind == "drip" else response.chunks(left)
        for data in pieces:
            if fault and kind == "drip":
                self._wait(fault.seconds * len(data) / size)
            self._socket.sendall(data) if raw else self._send_event(h11.Data(data=data))
            left -= len(data)
        # A file that has become shorter than announced leaves something, too.
        self._broken = raw or left > 0 or kind in ("cut", "wrong_length")
        if not self._broken:
            self._send_event(h11.EndOfMessage())
        elif fault and kind == "cut" and fault.rst:
            self._reset()
        return str(response.status)

    def _send_event(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._socket.sendall(data)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError("the sandbox is stopping")

    def _reset(self) -> str:
        """Break the connection off with a reset (RST), by closing it without lingering; return that for the log."""
        self._broken = True
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        return "- (fault: reset)"

    def _log(self, line: str, outcome: str, began: float) -> None:
        if self._state.access_log is not None:
            milliseconds = round((time.monotonic() - began) * 1000)
            self._state.access_log(f"{line} {outcome} {milliseconds} ms")
