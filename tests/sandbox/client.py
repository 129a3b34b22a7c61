# SPDX-License-Identifier: Apache-2.0
"""A plain HTTP client, which shows everything and repairs nothing."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from email.message import Message

    from airflow_provider_capillary.sandbox import Sandbox

TOKEN_PATH = "/v3/oauth/token/generate"
STATUS_PATH = "/coupon/api/v1/upload/getUploadRedeemedCouponStatus"
UPLOAD_PATH = "/coupon/api/v1/upload/redeemFile"
COUPON_STATUS_PATH = "/coupon/api/v1/upload/getUploadStatus"
COUPON_UPLOAD_PATH = "/coupon/api/v1/upload/file"
DOWNLOAD_PATH = "/coupon/api/v1/download"
SERIES = 535512
BOUNDARY = "sandbox-test-boundary"

#: Index of each column in the files of `csv_file`.
COLUMNS = {"redeemedDateInMillis": 0, "redeemedAt": 1, "mobile": 2, "couponCode": 3}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    def __init__(self, sandbox: Sandbox, *, context: ssl.SSLContext | None = None, timeout: float = 20.0) -> None:
        self.sandbox = sandbox
        self.context = context
        self.timeout = timeout

    def connect(self) -> http.client.HTTPConnection:
        host, port = self.sandbox.host, self.sandbox.port
        if self.context is not None:
            return http.client.HTTPSConnection(host, port, context=self.context, timeout=self.timeout)
        return http.client.HTTPConnection(host, port, timeout=self.timeout)

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post_json(self, path: str, value: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return self.send("POST", path, json.dumps(value), {"Content-Type": "application/json", **(headers or {})})

    def ask_token(self, key: str = "sandbox-key", secret: str = "sandbox-secret") -> Reply:
        return self.post_json(TOKEN_PATH, {"key": key, "secret": secret})

    def authorized(self) -> dict[str, str]:
        return {"X-CAP-API-OAUTH-TOKEN": self.ask_token().json()["data"]["accessToken"]}

    def ask_status(self, series: int | str = SERIES, headers: Mapping[str, str] | None = None) -> Reply:
        return self.send("GET", f"{STATUS_PATH}/{series}", headers=self.authorized() if headers is None else headers)

    def coupon_jobs(self, series: int = SERIES) -> list[dict[str, Any]]:
        reply = self.send("GET", f"{COUPON_STATUS_PATH}/{series}", headers=self.authorized())
        jobs: list[dict[str, Any]] = reply.json()["result"]["uploadJobStatuses"]
        return jobs

    def jobs(self, series: int = SERIES) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = self.ask_status(series).json()["result"]["redeemUploadJobStatuses"]
        return jobs

    def upload(
        self,
        form: Any,
        *,
        series: int | str = SERIES,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        path: str = UPLOAD_PATH,
    ) -> Reply:
        content_type = content_type or f"multipart/form-data; boundary={BOUNDARY}"
        headers = {"Content-Type": content_type, **(self.authorized() if headers is None else headers)}
        return self.send("POST", f"{path}/{series}", form, headers)

    def download(self, name: Any) -> Reply:
        return self.post_json(f"{DOWNLOAD_PATH}?time=1716811570000", {"fileName": name}, self.authorized())

    def raw(self, request: bytes) -> bytes:
        """Send bytes, and return all that comes until the server closes."""
        with socket.create_connection((self.sandbox.host, self.sandbox.port), timeout=self.timeout) as connection:
            connection.sendall(request)
            received = b""
            while data := connection.recv(65536):
                received += data
            return received


def csv_file(*rows: tuple[Any, ...]) -> bytes:
    lines = ["Redeemed on,Till,Mobile,Coupon", *(",".join(map(str, row)) for row in rows)]
    return "".join(f"{line}\n" for line in lines).encode()


def good_row(coupon: str) -> tuple[Any, ...]:
    return (1716811570000, "till-7", "919900000001", coupon)


def multipart(parts: Mapping[str, tuple[str | None, bytes]], boundary: str = BOUNDARY) -> bytes:
    """Write a form; a part is its file name, None where it is no file, and its content."""
    written = b""
    for name, (file_name, content) in parts.items():
        disposition = f'form-data; name="{name}"' + (f'; filename="{file_name}"' if file_name is not None else "")
        written += f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
    return written + f"--{boundary}--\r\n".encode()


def upload_parts(content: bytes, *, file_name: str = "redeemed.csv") -> dict[str, tuple[str | None, bytes]]:
    return {
        "file": (file_name, content),
        "customerIdentifier": (None, b"MOBILE"),
        "couponIdentifier": (None, b"COUPON_CODE"),
        "uploadHeaders": (None, json.dumps(COLUMNS).encode()),
    }


def coupon_parts(
    content: bytes, *, customer: str = "NOT_TAGGED", **columns: int
) -> dict[str, tuple[str | None, bytes]]:
    """The parts of an upload of coupons, whose codes are the first column."""
    return {
        "file": ("coupons.csv", content),
        "customerIdentifier": (None, customer.encode()),
        "uploadHeaders": (None, json.dumps({"couponCode": 0} | columns).encode()),
    }
