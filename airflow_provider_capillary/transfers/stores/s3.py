# SPDX-License-Identifier: Apache-2.0
"""S3, and what speaks its protocol: a multipart upload, its parts sent side by side."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.transfers.stores.base import SHA256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsspec import AbstractFileSystem

    from airflow_provider_capillary.transfers.stores.base import ObjectLocation

log = logging.getLogger(__name__)


class S3Parts:
    """A multipart upload by boto3, with the client of Airflow's connection.

    s3fs sends one part at a time. boto3's own ``upload_fileobj`` sends several, but reads its source to the end before
    it lets an interrupted task go.
    """

    workers = 3

    @classmethod
    def fits(cls, fs: AbstractFileSystem) -> bool:
        return hasattr(fs, "call_s3")

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._conn_id = location.conn_id
        self._object = {"Bucket": location.container, "Key": location.key}
        self._upload_id: str | None = None

    @cached_property
    def _client(self) -> Any:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        return S3Hook(aws_conn_id=self._conn_id).get_conn()

    def exists(self) -> bool:
        return self._head() is not None

    def recorded(self) -> tuple[int, str | None] | None:
        head = self._head()
        if head is None:
            return None
        sha256 = head["Metadata"].get(SHA256)
        if sha256 is None:
            from botocore.exceptions import ClientError

            try:
                tags = self._client.get_object_tagging(**self._object)["TagSet"]
            except ClientError:  # not every store has tags, nor every role the right to read them
                tags = []
            sha256 = next((tag["Value"] for tag in tags if tag["Key"] == SHA256), None)
        return head["ContentLength"], sha256

    def begin(self) -> str:
        self._upload_id = str(self._client.create_multipart_upload(**self._object)["UploadId"])
        return self._upload_id

    def send(self, number: int, data: bytes | bytearray) -> Any:
        sent = self._client.upload_part(**self._object, UploadId=self._upload_id, PartNumber=number, Body=data)
        checksums = {name: sent[name] for name in sent if name.startswith("Checksum") and name != "ChecksumType"}
        return {"PartNumber": number, "ETag": sent["ETag"], **checksums}

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, record: bool) -> None:
        with _refused_if_there():
            self._client.complete_multipart_upload(
                **self._object, UploadId=self._upload_id, MultipartUpload={"Parts": sent}, **_condition(overwrite)
            )
        self._upload_id = None
        if record:
            from botocore.exceptions import ClientError

            # Metadata has to be given when an upload begins, and the hash is known when it ends.
            try:
                self._client.put_object_tagging(**self._object, Tagging={"TagSet": [{"Key": SHA256, "Value": sha256}]})
            except ClientError as error:  # not every store has tags, nor every role the right to write them
                log.warning(
                    "The object is there, but its sha256 could not be recorded as a tag (%s): the next run will send "
                    "it again",
                    type(error).__name__,
                )

    def put(self, data: bytes, *, sha256: str, overwrite: bool, record: bool, note: Callable[[str], None]) -> None:
        with _refused_if_there():
            self._client.put_object(**self._object, Body=data, Metadata={SHA256: sha256}, **_condition(overwrite))

    def abort(self) -> None:
        upload_id, self._upload_id = self._upload_id, None
        if upload_id is not None:
            self.remove(upload_id)

    def remove(self, left: str) -> None:
        self._client.abort_multipart_upload(**self._object, UploadId=left)

    def _head(self) -> Any:
        from botocore.exceptions import ClientError

        try:
            return self._client.head_object(**self._object)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise


def _condition(overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {"IfNoneMatch": "*"}


@contextmanager
def _refused_if_there() -> Iterator[None]:
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        # 412 where an object is there; 409 where another conditional write to the same key is under way.
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
            raise FileExistsError from error
        raise
