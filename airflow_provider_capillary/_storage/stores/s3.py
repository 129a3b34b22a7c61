# SPDX-License-Identifier: Apache-2.0
"""S3, and what speaks its protocol: a multipart upload, its parts sent side by side."""

from __future__ import annotations

import base64
import logging
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from airflow_provider_capillary._airflow_compat import mask_secret
from airflow_provider_capillary._storage.stores.base import SHA256, warning_of_no_record
from airflow_provider_capillary.api.errors import CapillaryConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsspec import AbstractFileSystem

    from airflow_provider_capillary._storage.stores.base import ObjectLocation

log = logging.getLogger(__name__)


class S3Parts:
    """A multipart upload by boto3, with the client of Airflow's connection.

    s3fs sends one part at a time. boto3's own ``upload_fileobj`` sends several, but reads its source to the end before
    it lets an interrupted task go.
    """

    workers = 3

    @classmethod
    def supports(cls, fs: AbstractFileSystem) -> bool:
        return hasattr(fs, "call_s3")

    def __init__(self, location: ObjectLocation, path: Any) -> None:
        self._conn_id = location.conn_id
        self._object = {"Bucket": location.container, "Key": location.key}
        self._upload_id: str | None = None

    @cached_property
    def _hook(self) -> Any:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        return S3Hook(aws_conn_id=self._conn_id)

    @cached_property
    def _client(self) -> Any:
        return self._hook.get_conn()

    @cached_property
    def _extra_args(self) -> dict[str, Any]:
        return read_extra_args(self._hook.service_config.get("extra_args"), self._client)

    def _call(self, operation: str, **arguments: Any) -> Any:
        """Call the store with what the connection wants to go with each call that takes it, such as encryption."""
        method = self._client.meta.method_to_api_mapping[operation]
        taken = self._client.meta.service_model.operation_model(method).input_shape.members
        extra = {name: value for name, value in self._extra_args.items() if name in taken}
        return getattr(self._client, operation)(**extra | self._object | arguments)

    def exists(self) -> bool:
        return self._head() is not None

    def stored_checksum(self) -> tuple[int, str | None] | None:
        head = self._head()
        if head is None:
            return None
        sha256 = head["Metadata"].get(SHA256)
        if sha256 is None:
            tags = []
            with suppress(Exception):  # not every store has tags, nor every role the right to read them
                tags = self._call("get_object_tagging")["TagSet"]
            sha256 = next((tag["Value"] for tag in tags if tag["Key"] == SHA256), None)
        return head["ContentLength"], sha256

    def begin(self) -> str:
        self._upload_id = str(self._call("create_multipart_upload")["UploadId"])
        return self._upload_id

    def send(self, number: int, data: bytes | bytearray) -> Any:
        sent = self._call("upload_part", UploadId=self._upload_id, PartNumber=number, Body=data)
        checksums = {name: sent[name] for name in sent if name.startswith("Checksum") and name != "ChecksumType"}
        return {"PartNumber": number, "ETag": sent["ETag"], **checksums}

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, record: bool) -> None:
        with _refused_if_there(overwrite):
            self._call(
                "complete_multipart_upload",
                UploadId=self._upload_id,
                MultipartUpload={"Parts": sent},
                **_condition(overwrite),
            )
        self._upload_id = None
        if record:
            # Metadata has to be given when an upload begins, and the hash is known when it ends. The call replaces all
            # tags of the object.
            with warning_of_no_record():  # not every store has tags, nor every role the right to write them
                tags = [*parse_qsl(self._extra_args.get("Tagging", ""), keep_blank_values=True), (SHA256, sha256)]
                self._call("put_object_tagging", Tagging={"TagSet": [{"Key": key, "Value": of} for key, of in tags]})

    def put(self, data: bytes, *, sha256: str, overwrite: bool, record: bool, note: Callable[[str], None]) -> None:
        metadata = {**self._extra_args.get("Metadata", {}), SHA256: sha256}
        try:
            with _refused_if_there(overwrite):
                self._call("put_object", Body=data, Metadata=metadata, **_condition(overwrite))
        except FileExistsError as refused:
            # Where the answer of a successful attempt was lost, boto3 tried again, and met the object of that attempt.
            if not _was_tried_again(refused.__cause__) or self.stored_checksum() != (len(data), sha256):
                raise

    def abort(self) -> None:
        upload_id, self._upload_id = self._upload_id, None
        if upload_id is not None:
            self.remove(upload_id)

    def remove(self, left: str) -> None:
        from botocore.exceptions import ClientError

        try:
            self._call("abort_multipart_upload", UploadId=left)
        except ClientError as error:
            if _status(error) != 404:  # there is no such upload any more
                raise

    def _head(self) -> Any:
        """Return what the store says of the object that is there; None where there is none, or it does not say."""
        from botocore.exceptions import ClientError

        try:
            return self._call("head_object")
        except ClientError as error:
            # 403 is the answer for a missing object to a role without s3:ListBucket, and for any object to one without
            # s3:GetObject; 400 for an object under a customer's key. The write itself decides then.
            if _status(error) not in (400, 403, 404):
                raise
            if _status(error) != 404:
                log.info("S3 does not say whether the object is there (HTTP %s); the write decides", _status(error))
            return None


def read_extra_args(given: Any, client: Any) -> dict[str, Any]:
    """Check the ``extra_args`` of a connection's ``service_config`` for S3.

    :param given: What is there; None for nothing.
    :param client: Client of S3, which knows what there is.
    :raises CapillaryConfigurationError: It is not an object, or has a key that does not describe an object as a whole.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise CapillaryConfigurationError("service_config.s3.extra_args of the AWS connection must be a JSON object")
    model = client.meta.service_model.operation_model("CreateMultipartUpload")
    unknown = sorted(set(given) - (set(model.input_shape.members) - {"Bucket", "Key"}))
    if unknown:
        raise CapillaryConfigurationError(
            f"service_config.s3.extra_args of the AWS connection has {', '.join(unknown)}, which an upload does not "
            "take; write names of the parameters of CreateMultipartUpload, such as ServerSideEncryption or ACL"
        )
    if key := given.get("SSECustomerKey"):
        # botocore logs request headers at debug level; they have it in base64.
        mask_secret(str(key))
        mask_secret(base64.b64encode(str(key).encode()).decode())
    return given


def _condition(overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {"IfNoneMatch": "*"}


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _was_tried_again(error: Any) -> bool:
    return bool(error.response["ResponseMetadata"].get("RetryAttempts"))


@contextmanager
def _refused_if_there(overwrite: bool) -> Iterator[None]:
    """Turn the refusal of our own condition into what it means. Without a condition, 409 and 412 mean other things."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if overwrite or _status(error) not in (409, 412):
            raise
        if _status(error) == 412:
            raise FileExistsError from error
        raise OSError(
            "another write to the same object was under way at the same time (HTTP 409); the next try decides"
        ) from error
