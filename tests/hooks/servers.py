# SPDX-License-Identifier: Apache-2.0
"""Small servers on loopback, for what the sandbox does not do: hang, relay, be a proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Self

    Handle = Callable[["Connection"], None]


class Connection:
    """One accepted connection."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self.server = server

    def read_head(self) -> bytes:
        """Read a request up to the blank line, or what came before the client went away."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.receive()
            if not data:
                break
            head += data
        return head

    def receive(self) -> bytes:
        """Read what is there, noting it down."""
        data = self.sock.recv(65536)
        self.server.received += data
        return data

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def hang(self) -> None:
        """Do nothing until the test is over."""
        self.server.stopping.wait()

    def pause(self, seconds: float) -> None:
        """Wait, or give up if the test is over.

        :raises OSError: the test is over
        """
        if self.server.stopping.wait(seconds):
            raise OSError("the test is over")


class Server:
    """Accepts connections, counts them, and gives each to ``handle`` in a thread of its own."""

    def __init__(self, handle: Handle, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.accepted = 0
        self.received = b""
        self.stopping = threading.Event()
        self._handle = handle
        self._tls = tls
        self._listener = socket.create_server((host, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(2)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            with contextlib.closing(sock):
                self._handle(Connection(sock, self))


def silent() -> Server:
    """A server that accepts and never answers."""
    return Server(Connection.hang)


def answering(*pieces: bytes, pause: float = 0.0, tls: ssl.SSLContext | None = None) -> Server:
    """A server that answers every connection's first request with these pieces, and then closes it."""

    def handle(connection: Connection) -> None:
        connection.read_head()
        for piece in pieces:
            if pause:
                connection.pause(pause)
            connection.send(piece)

    return Server(handle, tls=tls)


def relay(port: int) -> Server:
    """A server that passes everything on to another port: it makes connections countable."""
    return Server(lambda connection: _pass_on(connection, port))


def connect_proxy(ports: dict[str, int], *, refusal: bytes | None = None, tls: ssl.SSLContext | None = None) -> Server:
    """An HTTP proxy, for https by CONNECT and for http by whole URLs, to the hosts it knows.

    :param ports: port on loopback behind each ``host:port``
    :param refusal: what it answers instead of doing its work
    :param tls: given where the proxy itself is spoken to by TLS
    """

    def handle(connection: Connection) -> None:
        head = connection.read_head()
        method, target, *_ = head.decode("latin-1").split()
        where = target if method == "CONNECT" else target.partition("://")[2].partition("/")[0]
        if refusal is not None or where not in ports:
            connection.send(refusal or b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        elif method == "CONNECT":
            connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _pass_on(connection, ports[where])
        else:
            own_form = head.replace(f"http://{where}".encode(), b"", 1)
            _pass_on(connection, ports[where], begin_with=own_form.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    return Server(handle, tls=tls)


def socks_proxy(ports: dict[str, int]) -> Server:
    """A SOCKS 5 proxy without credentials, to the hosts it knows by name.

    :param ports: port on loopback behind each ``host:port``
    """

    def handle(connection: Connection) -> None:
        connection.receive()
        connection.send(b"\x05\x00")
        request = connection.receive()  # version, connect, reserved, kind of address, its length, the name, the port
        length = request[4]
        where = f"{request[5 : 5 + length].decode()}:{int.from_bytes(request[5 + length : 7 + length])}"
        connection.send(bytes([5, 0 if where in ports else 4, 0, 1, 0, 0, 0, 0, 0, 0]))
        if where in ports:
            _pass_on(connection, ports[where])

    return Server(handle)


def _pass_on(connection: Connection, port: int, *, begin_with: bytes = b"") -> None:
    with socket.create_connection(("127.0.0.1", port)) as onward:
        for sock in (connection.sock, onward):  # a relay must not hold small pieces back
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_pump, args=(onward, connection.sock), daemon=True)
        back.start()
        onward.sendall(begin_with)
        _pump(connection.sock, onward)
        back.join(2)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
