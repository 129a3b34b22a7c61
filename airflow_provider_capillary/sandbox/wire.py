# SPDX-License-Identifier: Apache-2.0
"""HTTP: reading requests, sending answers, and whatever goes wrong between the two."""

from __future__ import annotations

import contextlib
import re
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
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from math import ceil
from socketserver import TCPServer, ThreadingMixIn
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_capillary.sandbox.answers import (
    PIECE,
    SPOOL,
    Answer,
    Body,
    bytes_answer,
    html_answer,
    json_answer,
)
from airflow_provider_capillary.sandbox.api import Api, Request, route
from airflow_provider_capillary.sandbox.faults import TRANSPORT_KINDS, Fault, FaultBook
from airflow_provider_capillary.sandbox.records import BODY_KEPT, Headers, RecordedRequest, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_capillary.sandbox.control import Control

_HANDSHAKE_SECONDS = 10.0
# At least so many pieces make a drip, as long as there are bytes for them.
_DROPS = 20
# How much longer than the truth the length of a `wrong_length` answer is.
_LENGTH_TOO_LONG_BY = 16
_LONGEST_CHUNK_LINE = 1024


class _MalformedRequestError(Exception):
    """The request cannot be read to its end; nothing that follows on the connection can be either."""


class SandboxServer(ThreadingMixIn, HTTPServer):
    """A server with a thread for each connection, which it can also close.

    :param host: address to listen on
    :param port: port, 0 for any that is free
    :param api: the endpoints of Capillary
    :param control: those of the sandbox
    :param faults: the faults to come
    :param recorder: takes note of each request
    :param access_log: called with a line for each request, None for no log
    :param ssl_context: makes it https
    :raises OSError: if it cannot listen there
    """

    daemon_threads = True
    # How long `handle_request` waits for a connection, in seconds: it is only called when there is one.
    timeout = 0
    # A thousand clients may connect at once; the default is 5.
    request_queue_size = 1024
    # Two sandboxes on one port would share its requests between them, unnoticed.
    allow_reuse_port = False

    def __init__(
        self,
        host: str,
        port: int,
        *,
        api: Api,
        control: Control,
        faults: FaultBook,
        recorder: Recorder,
        access_log: Callable[[str], None] | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.api = api
        self.control = control
        self.faults = faults
        self.recorder = recorder
        self.access_log = access_log
        self.stopping = threading.Event()
        self._ssl_context = ssl_context
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._woken, self._waker = socket.socketpair()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Listen, without the look-up of the own name that HTTPServer does, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def serve(self) -> None:
        """Accept connections until :meth:`stop` is called.

        Unlike ``serve_forever`` it does not poll for that, so that a test-suite can afford many servers.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while selector.select() and not self.stopping.is_set():
                self.handle_request()

    def stop(self) -> None:
        """Let :meth:`serve` return."""
        self.stopping.set()
        self._waker.send(b"!")

    def server_close(self) -> None:
        """Stop listening."""
        super().server_close()
        self._woken.close()
        self._waker.close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; the TLS handshake is left to its thread, since it waits for the client."""
        connection, address = self.socket.accept()
        if self._ssl_context is not None:
            try:
                wrap = self._ssl_context.wrap_socket
                connection = wrap(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:
                connection.close()
                raise
        with self._changed:
            self._connections.add(connection)
        return connection, address

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        super().close_request(request)
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()

    def close_connections(self, *, seconds: float) -> None:
        """Close all connections, and wait up to ``seconds`` for their threads to notice."""
        with self._changed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which would pull the TLS state from under the thread that reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._connections, timeout=seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent where a client has gone away; of a bug in the sandbox name the place, but no value."""
        kind, error, place = sys.exc_info()
        if isinstance(error, OSError) or self.stopping.is_set() or kind is None:
            return
        frame = traceback.extract_tb(place)[-1]
        print(f"sandbox: {kind.__name__} in {frame.filename}:{frame.lineno}", file=sys.stderr, flush=True)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: SandboxServer
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; without this the second waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Shake hands, where it is TLS."""
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(_HANDSHAKE_SECONDS)
            self.request.do_handshake()
            self.request.settimeout(None)
        super().setup()

    def version_string(self) -> str:
        """Return the Server header."""
        return "capillary-sandbox"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: the base class would write to stderr, the query included."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is no HTTP; the base class would quote it."""
        self.close_connection = True
        # Until a version is understood, the base class takes the request for HTTP/0.9, which has no headers.
        self.request_version = self.protocol_version
        self._send(html_answer(code))

    def _serve(self) -> None:
        began = time.monotonic()
        # Not self.path, where the base class has already collapsed slashes.
        path, _, query = self.requestline.split()[1].partition("?")
        endpoint, argument = route(path)
        headers = Headers(self.headers.items())
        outcome = "-"
        try:
            with tempfile.SpooledTemporaryFile(max_size=SPOOL) as body:
                size = self._read_body(headers, body)
                request = Request(self.command, endpoint, argument, headers, body)
                if endpoint == "control":
                    peer = str(self.client_address[0])
                    outcome = self._send(self.server.control.answer(request, peer=peer))
                    return
                body.seek(0)
                kept = body.read() if size <= BODY_KEPT else b""
                self.server.recorder.add(
                    RecordedRequest(self.command, path, query, headers, endpoint, kept, size, began)
                )
                outcome = self._answer(request, self.server.faults.take(endpoint))
        except _MalformedRequestError:
            self.close_connection = True
            outcome = self._send(_content(400, "The body cannot be read.\n"))
        finally:
            self._log(path, outcome, began)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve  # noqa: N815 - what http.server looks for

    def _log(self, path: str, outcome: str, began: float) -> None:
        if self.server.access_log is not None:
            # What a client sends must not steer a terminal.
            path = "".join(character if character.isprintable() else "?" for character in path)
            milliseconds = round((time.monotonic() - began) * 1000)
            self.server.access_log(f"{self.command} {path} {outcome} {milliseconds} ms")

    # Reading

    def _read_body(self, headers: Headers, body: IO[bytes]) -> int:
        if headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := self._chunk_size():
                self._copy(size, body)
                if self.rfile.readline(3) != b"\r\n":
                    raise _MalformedRequestError
            while self.rfile.readline(_LONGEST_CHUNK_LINE).strip():
                pass  # trailers
        else:
            length = headers.get("Content-Length", "0")
            if not re.fullmatch(r"\d{1,18}", length, re.ASCII) or "Transfer-Encoding" in headers:
                raise _MalformedRequestError
            self._copy(int(length), body)
        size = body.tell()
        body.seek(0)
        return size

    def _chunk_size(self) -> int:
        size = self.rfile.readline(_LONGEST_CHUNK_LINE).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", size):
            raise _MalformedRequestError
        return int(size, 16)

    def _copy(self, size: int, body: IO[bytes]) -> None:
        while size:
            data = self.rfile.read(min(size, PIECE))
            if not data:
                raise ConnectionAbortedError("the client went away")
            body.write(data)
            size -= len(data)

    # Answering

    def _answer(self, request: Request, fault: Fault | None) -> str:
        """Answer a request; return what to write in the log."""
        if fault is None:
            return self._send(self.server.api.answer(request))
        if fault.kind in TRANSPORT_KINDS:
            answer = self.server.api.answer(request)
        else:
            if fault.processed:
                self.server.api.answer(request)
            answer = self._instead(fault)
        if fault.kind == "slow":
            self._wait(fault.seconds)
        outcome = "-"
        if fault.kind == "reset":
            self._reset()
        else:
            outcome = self._send(answer, fault)
        return f"{outcome} (fault: {fault.kind})"

    def _instead(self, fault: Fault) -> Answer:
        """Return the answer that a fault puts in the place of the real one."""
        match fault.kind:
            case "expired_token":
                return self.server.api.refuse_token(fault.form)
            case "redirect":
                status = fault.status if 300 <= fault.status <= 399 else 302
                return Answer(status, {"Location": fault.location or ""}, Body.of(b""))
            case "empty":
                return Answer(200, {}, Body.of(b""))
            case "text":
                return _content(200, "OK" if fault.body is None else fault.body)
            case "html":
                if fault.body is None:
                    return html_answer(fault.status)
                page = _content(fault.status, fault.body)
                return replace(page, headers={"Content-Type": "text/html; charset=UTF-8"})
            case _:  # "status" and "body"; a "reset" sends nothing of it
                return _content(fault.status, {} if fault.body is None else fault.body)

    def _wait(self, seconds: float) -> None:
        if self.server.stopping.wait(seconds):
            raise ConnectionAbortedError("the sandbox is stopping")

    def _reset(self) -> None:
        """Break the connection off with a reset (RST), which is what closing without lingering does."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # it shares the socket, which is closed with the last of the two
        self.connection.close()

    # Sending

    def _send(self, answer: Answer, fault: Fault | None = None) -> str:
        """Send an answer, spoilt as ``fault`` says; return its status for the log."""
        kind = fault.kind if fault is not None else ""
        fraction = fault.fraction if fault is not None and kind in ("cut", "unmarked") else 1.0
        chunked = fault is not None and kind == "cut" and not fault.content_length
        headers = {"X-CAP-REQUEST-ID": str(uuid.uuid4())} | answer.headers
        body = answer.body
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        if kind == "gzip" and has_body:
            body = body.gzipped()
            headers["Content-Encoding"] = "gzip"
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif kind == "unmarked":
            headers["Connection"] = "close"
        elif answer.status != 204:
            untruth = _LENGTH_TOO_LONG_BY if kind == "wrong_length" else 0
            headers["Content-Length"] = str(body.size + untruth)
        if fault is not None:
            extra = fault.extra_headers()
            replaced = {name.lower() for name in extra}
            headers = {name: value for name, value in headers.items() if name.lower() not in replaced} | extra
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            part = body.part(0, int(body.size * fraction))
            drip_seconds = fault.seconds if fault is not None and kind == "drip" else None
            if not self._send_body(part, chunked=chunked, drip_seconds=drip_seconds):
                self.close_connection = True  # the file has become shorter than announced
        if kind in ("cut", "unmarked", "wrong_length"):
            self.close_connection = True
            if fault is not None and fault.rst and kind == "cut":
                self._reset()
        return str(answer.status)

    def _send_body(self, body: Body, *, chunked: bool, drip_seconds: float | None) -> bool:
        """Send a body, spread over ``drip_seconds``; tell whether it was all there."""
        sent = 0
        piece = PIECE if drip_seconds is None else max(1, min(PIECE, ceil(body.size / _DROPS)))
        for data in body.pieces(piece):
            if drip_seconds is not None:
                self._wait(drip_seconds * len(data) / body.size)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            sent += len(data)
        return sent == body.size


def _content(status: int, content: Any) -> Answer:
    """Make an answer of what a fault carries."""
    if isinstance(content, bytes):
        return bytes_answer(status, "application/octet-stream", content)
    if isinstance(content, str):
        return bytes_answer(status, "text/plain; charset=utf-8", content.encode(errors="replace"))
    return json_answer(status, content)
