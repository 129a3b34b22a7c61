# SPDX-License-Identifier: Apache-2.0
"""A server that speaks Google Cloud Storage's JSON API, for tests: gcp-storage-emulator, from PyPI.

It shows what a mock cannot: that an object is invisible until the last piece of its resumable upload is there, and that
an abandoned upload stays behind. Two things of the real service, which the emulator lacks, are added here: that an
upload can be cancelled, and that `ifGenerationMatch=0` keeps an object which is already there.

It is no measure of speed: it answers one request at a time, and rewrites all it has of an object with every piece.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import urllib.request
from http import HTTPStatus
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tests.integration.server_process import NotInstalledError, NotReadyError, ServerProcess
from tests.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from pathlib import Path

UPLOADS = "/_uploads"


class GCSEmulator(ServerProcess):
    """A running server with one empty bucket."""

    name = "gcs"

    def __init__(self, bucket: str = "lake") -> None:
        super().__init__()
        self.bucket = bucket

    def _command(self, folder: Path) -> list[str]:
        if find_spec("gcp_storage_emulator") is None:
            raise NotInstalledError("no emulator: install gcp-storage-emulator, or run `make venv`")
        (port,) = free_ports(1)
        self.endpoint_url = f"http://{LOOPBACK}:{port}"
        return [sys.executable, "-m", __name__, str(port), str(folder / "data"), self.bucket]

    def _try_out(self) -> None:
        try:
            self.keys()
        except OSError as failure:
            raise NotReadyError(str(failure)) from failure

    def google_connection_json(self) -> str:
        """Return the value of an `AIRFLOW_CONN_…` variable for a `google_cloud_platform` connection to the server.

        gcsfs takes the endpoint from it. Google's own client does not: that one needs the environment variable
        STORAGE_EMULATOR_HOST. And gcsfs needs GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false before it is imported, or it asks
        by gRPC what kind of bucket this is, for a minute and a half.
        """
        return json.dumps(
            {
                "conn_type": "google_cloud_platform",
                "extra": {"is_anonymous": True, "project": "tests", "gcs.endpoint": self.endpoint_url},
            }
        )

    def uri(self, key: str = "") -> str:
        """Return the `gs://` URI of a key in the bucket."""
        return f"gs://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        query = urlencode({"uploadType": "media", "name": key})
        self._ask("POST", f"/upload/storage/v1/b/{self.bucket}/o?{query}", body)

    def read(self, key: str) -> bytes:
        """Return the content of an object."""
        return self._ask("GET", f"{self._object(key)}?alt=media")

    def metadata(self, key: str) -> dict[str, str]:
        """Return the metadata that was stored with an object."""
        described: dict[str, Any] = json.loads(self._ask("GET", self._object(key)))
        return described.get("metadata") or {}

    def written_at(self, key: str) -> object:
        """Return what differs from write to write of an object."""
        described = json.loads(self._ask("GET", self._object(key)))
        return described["generation"], described["timeCreated"]

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all objects that a reader of the bucket sees."""
        query = urlencode({"prefix": prefix})
        listed = json.loads(self._ask("GET", f"/storage/v1/b/{self.bucket}/o?{query}"))
        return [entry["name"] for entry in listed.get("items", [])]

    def open_uploads(self, prefix: str = "") -> list[str]:
        """Return the keys of all resumable uploads that were neither finished nor cancelled.

        The real service has no such list.
        """
        return [key for key in json.loads(self._ask("GET", UPLOADS)) if key.startswith(prefix)]

    def empty(self) -> None:
        """Remove all objects and cancel all uploads."""
        for key in self.keys():
            self._ask("DELETE", self._object(key))
        self._ask("DELETE", UPLOADS)

    def _object(self, key: str) -> str:
        return f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}"

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.endpoint_url + path, body, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/octet-stream")
        # Without the proxies of the environment: the server is here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            content: bytes = response.read()
        return content


def _serve(port: int, folder: str, bucket: str) -> None:
    """Run the emulator, with the two additions."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import objects

    # What Google answers to a cancelled upload: https://cloud.google.com/storage/docs/performing-resumable-uploads
    cancelled = SimpleNamespace(value=499, phrase="Client Closed Request")

    def forget(storage: Any, upload_id: str) -> None:
        storage.delete_resumable_file_obj(upload_id)
        with contextlib.suppress(Exception):  # nothing was sent to it yet
            storage._delete_file("_resumable", storage.safe_id(upload_id))

    def cancel(request: Any, response: Any, storage: Any) -> None:
        upload_id = request.query.get("upload_id", [""])[0]
        if upload_id not in storage.resumable:
            response.status = HTTPStatus.NOT_FOUND
            return
        forget(storage, upload_id)
        response.status = cancelled

    def refused(request: Any, response: Any, storage: Any, key: str | None) -> bool:
        asked = request.query.get("ifGenerationMatch", [""])[0]
        if asked != "0" or key not in storage.objects.get(request.params["bucket_name"], {}):
            return False
        response.status = HTTPStatus.PRECONDITION_FAILED
        response.json({"error": {"code": 412, "message": "conditionNotMet"}})
        return True

    def insert(request: Any, response: Any, storage: Any) -> None:
        if "upload_id" in request.query:
            upload(request, response, storage)
            return
        named = request.query.get("name", [None])[0]
        if named is None and isinstance(request.data, dict):
            named = request.data.get("name") or (request.data.get("meta") or {}).get("name")
        if not refused(request, response, storage, named):
            objects.insert(request, response, storage)

    def upload(request: Any, response: Any, storage: Any) -> None:
        started = storage.resumable.get(request.query["upload_id"][0]) or {}
        is_last = not (request.get_header("Content-Range") or "").endswith("/*")
        if not (is_last and refused(request, response, storage, started.get("name"))):
            objects.upload_partial(request, response, storage)

    def list_uploads(request: Any, response: Any, storage: Any) -> None:
        response.json([started["name"] for started in storage.resumable.values()])

    def cancel_all(request: Any, response: Any, storage: Any) -> None:
        for upload_id in list(storage.resumable):
            forget(storage, upload_id)

    route = r"^/upload/storage/v1/b/(?P<bucket_name>[-.\w]+)/o$"
    server.HANDLERS = (
        (f"^{UPLOADS}$", {server.GET: list_uploads, server.DELETE: cancel_all}),
        (route, {server.POST: insert, server.PUT: upload, server.DELETE: cancel}),
        *server.HANDLERS,
    )
    running = server.create_server(LOOPBACK, port, False, bucket, data_dir=folder)
    running.start()
    try:
        signal.pause()
    finally:
        running.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        _serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
