# SPDX-License-Identifier: Apache-2.0
"""A gateway in front of a store that is a real server: it answers some requests itself, and hands on the rest.

It stands for what the servers of the tests do not do: roles that may write and not read, conflicts, encryption that a
bucket asks for.
"""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Request:
    """A request that came in, without its body."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Gateway:
    """The gateway, serving while its context is open.

    :param target: URL of the real server.
    :param answer: Returns status and body for a request that is to be answered here, or None.
    :ivar requests: all that came in
    """

    target: str
    answer: Callable[[Request], tuple[int, bytes, dict[str, str]] | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        gateway = self
        host = urlsplit(self.target).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
                gateway.requests.append(request)
                status, content, headers = gateway.answer(request) or self._handed_on(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def _handed_on(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
                connection = http.client.HTTPConnection(host, timeout=60)
                try:
                    # Host as it came, because it is signed.
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "expect")}
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    content = answer.read()
                finally:
                    connection.close()
                own = ("transfer-encoding", "connection", "content-length" if self.command != "HEAD" else "")
                return answer.status, content, {k: v for k, v in answer.getheaders() if k.lower() not in own}

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def count(self, method: str, part: str = "") -> int:
        """Return how many requests came in by a method, with a text in their path."""
        return sum(request.method == method and part in request.path for request in self.requests)


def s3_error(status: int, code: str) -> tuple[int, bytes, dict[str, str]]:
    """Return an answer as S3 gives it."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>said {code}</Message></Error>'
    return status, body.encode(), {"Content-Type": "application/xml"}
