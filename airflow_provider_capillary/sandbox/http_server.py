# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: reads requests and sends responses by h11, and makes the faults of the connection."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import traceback
import uuid
from email.utils import formatdate
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING

import h11

from airflow_provider_capillary.sandbox.endpoints import Route, find_route
from airflow_provider_capillary.sandbox.faults import TRANSPORT_KINDS, Fault
from airflow_provider_capillary.sandbox.http_messages import (
    CHUNK_BYTES,
    MAX_MEMORY_BYTES,
    Body,
    Headers,
    RecordedRequest,
    Request,
    Response,
    make_response,
)

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox.state import SandboxState

_HANDSHAKE_SECONDS = 10.0
# A client may have long headers; h11 itself allows a quarter of this.
_MAX_HEAD_BYTES = 64 * 1024
# Larger bodies are not recorded: an upload can be hundreds of megabytes.
_MAX_RECORDED_BODY_BYTES = 64 * 1024
# A drip has at least so many chunks, if there are as many bytes.
_DRIP_CHUNKS = 20
# Added to the Content-Length of a `wrong_length` response.
_EXCESS_BYTES = 16
_FRAMING_HEADERS = {"content-length", "transfer-encoding"}
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class HttpServer:
    """A server with a thread for each connection, which it can also close.

    :raises OSError: if it cannot listen at this address
    """

    def __init__(self, host: str, port: int, state: SandboxState) -> None:
        self.state = state
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        # Without SO_REUSEPORT: two sandboxes on one port would share its requests between them, unnoticed.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
        except OSError:
            self.close(seconds=0)
            raise
        self._listener.listen(1024)  # a thousand clients may connect at once
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept connections until :meth:`stop` is called, without polling for that: tests start many servers."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            while selector.select() and not self.stopping.is_set():
                with contextlib.suppress(OSError):  # the client has gone away
                    connection, address = self._listener.accept()
                    if self.state.ssl_context is not None:
                        # Without the handshake, which waits for the client.
                        wrap = self.state.ssl_context.wrap_socket
                        connection = wrap(connection, server_side=True, do_handshake_on_connect=False)
                    with self._changed:
                        self._connections.add(connection)
                    threading.Thread(target=self._serve_connection, args=(connection, address[0]), daemon=True).start()

    def _serve_connection(self, connection: socket.socket, peer: str) -> None:
        try:
            _Connection(connection, peer, self).serve()
            # Before the close, which would discard what is on its way if the client has sent more.
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the client has gone away
        except Exception as error:  # noqa: BLE001 - of a bug in the sandbox print the place, but no value
            if not self.stopping.is_set():
                frame = traceback.extract_tb(error.__traceback__)[-1]
                sys.stderr.write(f"sandbox: {type(error).__name__} in {frame.filename}:{frame.lineno}\n")
        finally:
            with self._changed:
                connection.close()
                self._connections.discard(connection)
                self._changed.notify_all()

    def stop(self) -> None:
        """Let :meth:`serve` return."""
        self.stopping.set()
        self._wake_sender.send(b"!")

    def close(self, *, seconds: float) -> None:
        """Stop listening, close all connections, and wait up to ``seconds`` for their threads to end."""
        for own in (self._listener, self._wake_receiver, self._wake_sender):
            own.close()
        with self._changed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which would pull the TLS state from under the thread that reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._connections, timeout=seconds)


class _Connection:
    """One connection, with any number of requests."""

    def __init__(self, connection: socket.socket, peer: str, server: HttpServer) -> None:
        self._socket = connection
        self._peer = peer
        self._state = server.state
        self._stopping = server.stopping
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
            began = time.monotonic()
            self._log("malformed request", self._refuse(error), began)

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._send_event(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(self._socket.recv(CHUNK_BYTES))
        return event

    def _serve(self, head: h11.Request) -> None:
        began = time.monotonic()
        method = head.method.decode()
        path, _, query = head.target.decode().partition("?")
        headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        route, argument = find_route(path)
        outcome = "-"
        try:
            with tempfile.SpooledTemporaryFile(max_size=MAX_MEMORY_BYTES) as body:
                while isinstance(event := self._next_event(), h11.Data):
                    body.write(event.data)
                size = body.tell()
                body.seek(0)
                request = Request(method, argument, headers, body, peer=self._peer)
                if route.endpoint == "control":
                    outcome = self._send(method, route.respond(self._state, request))
                else:
                    kept = body.read() if size <= _MAX_RECORDED_BODY_BYTES else b""
                    body.seek(0)
                    self._state.record(RecordedRequest(method, path, query, headers, route.endpoint, kept, size, began))
                    outcome = self._respond(route, request)
        except h11.RemoteProtocolError as error:
            outcome = self._refuse(error)
        finally:
            self._log(f"{method} {path}", outcome, began)

    def _respond(self, route: Route, request: Request) -> str:
        """Respond to a request, with the fault that it meets; return the outcome for the log."""
        fault = self._state.take_fault(route.endpoint)
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
            self._reset()
            return "- (fault: reset)"
        return f"{self._send(request.method, response, fault)} (fault: {fault.kind})"

    def _refuse(self, error: h11.RemoteProtocolError) -> str:
        """Respond to a request that cannot be read to its end; nothing behind it can be read either."""
        self._broken = True
        return self._send("", make_response(error.error_status_hint, "The request cannot be read.\n"))

    def _send(self, method: str, response: Response, fault: Fault | None = None) -> str:
        """Send a response, changed as ``fault`` says; return its status for the log."""
        kind = fault.kind if fault else None
        headers = {"Server": "capillary-sandbox", "Date": formatdate(usegmt=True)}
        headers |= {"X-CAP-REQUEST-ID": str(uuid.uuid4())} | response.headers
        body = response.body
        has_body = method != "HEAD" and response.status not in (204, 304)
        with contextlib.ExitStack() as stack:
            if kind == "gzip" and has_body:
                body = stack.enter_context(body.gzipped())
                headers["Content-Encoding"] = "gzip"
            if kind == "unmarked":
                headers["Connection"] = "close"
            elif response.status != 204 and not (fault and kind == "cut" and not fault.content_length):
                headers["Content-Length"] = str(body.size + (_EXCESS_BYTES if kind == "wrong_length" else 0))
            extra = fault.extra_headers() if fault else {}
            replaced = {name.lower() for name in extra}
            headers = {name: value for name, value in headers.items() if name.lower() not in replaced} | extra
            # h11 refuses to leave the end unmarked, and to send a body that its headers contradict.
            raw = kind == "unmarked" or not replaced.isdisjoint(_FRAMING_HEADERS)
            self._send_head(response.status, headers, raw=raw)
            complete = True
            if has_body:
                part = body.part(0, int(body.size * fault.fraction)) if fault and kind in ("cut", "unmarked") else body
                complete = self._send_body(part, drip_seconds=fault.seconds if fault and kind == "drip" else 0, raw=raw)
        if raw or not complete or kind in ("cut", "wrong_length"):
            self._broken = True
            if fault and kind == "cut" and fault.rst:
                self._reset()
        else:
            self._send_event(h11.EndOfMessage())
        return str(response.status)

    def _send_head(self, status: int, headers: dict[str, str], *, raw: bool) -> None:
        phrase = _PHRASES.get(status, "")
        if raw:
            lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
            self._socket.sendall("\r\n".join(lines).encode("latin-1"))
        else:
            encoded = [(name.encode(), value.strip().encode("latin-1")) for name, value in headers.items()]
            self._send_event(h11.Response(status_code=status, reason=phrase, headers=encoded))

    def _send_body(self, body: Body, *, drip_seconds: float, raw: bool) -> bool:
        """Send a body, spread over ``drip_seconds``; False if its file has become shorter than announced."""
        sent = 0
        chunk_bytes = max(1, min(CHUNK_BYTES, ceil(body.size / _DRIP_CHUNKS))) if drip_seconds else CHUNK_BYTES
        for data in body.chunks(chunk_bytes):
            if drip_seconds:
                self._wait(drip_seconds * len(data) / body.size)
            if raw:
                self._socket.sendall(data)
            else:
                self._send_event(h11.Data(data=data))
            sent += len(data)
        return sent == body.size

    def _send_event(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._socket.sendall(data)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError("the sandbox is stopping")

    def _reset(self) -> None:
        """Break the connection off with a reset (RST), by closing it without lingering."""
        self._broken = True
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _log(self, line: str, outcome: str, began: float) -> None:
        if self._state.access_log is not None:
            milliseconds = round((time.monotonic() - began) * 1000)
            self._state.access_log(f"{line} {outcome} {milliseconds} ms")
