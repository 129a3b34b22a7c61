# SPDX-License-Identifier: Apache-2.0
"""S3 and compatible stores: a multipart upload with its parts sent in parallel."""

from __future__ import annotations

import base64
import logging
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from airflow_provider_capillary._airflow_compat import mask_secret
from airflow_provider_capillary._storage.stores.base import SHA256, PartStore, warn_if_checksum_not_stored
from airflow_provider_capillary.api.errors import CapillaryConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsspec import AbstractFileSystem

    from airflow_provider_capillary._storage.stores.base import ObjectLocation

log = logging.getLogger(__name__)


class S3Parts(PartStore):
    """Writes a multipart upload by boto3, with the client of Airflow's connection.

    s3fs sends one part at a time. boto3's ``upload_fileobj`` sends several, but an interrupted task ends only after it
    has read its source to the end.
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
        client = self._hook.get_conn()
        for operation in ("PutObject", "UploadPart"):
            client.meta.events.register(f"before-call.s3.{operation}", _send_checksum_as_header)
        return client

    @cached_property
    def _extra_args(self) -> dict[str, Any]:
        return read_extra_args(self._hook.service_config.get("extra_args"), self._client)

    def _call(self, operation: str, **arguments: Any) -> Any:
        """Call the store with the extra arguments of the connection that the operation accepts, such as encryption."""
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
            with suppress(Exception):  # some stores have no tags, and some roles may not read them
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

    def finish(self, sent: list[Any], *, sha256: str, overwrite: bool, store_checksum: bool) -> None:
        with _translate_conflict(overwrite):
            self._call(
                "complete_multipart_upload",
                UploadId=self._upload_id,
                MultipartUpload={"Parts": sent},
                **_condition(overwrite),
            )
        self._upload_id = None
        if store_checksum:
            # Metadata must be given when an upload begins, but the hash is known only when it ends. The call replaces
            # all tags of the object.
            with warn_if_checksum_not_stored():  # some stores have no tags, and some roles may not write them
                tags = [*parse_qsl(self._extra_args.get("Tagging", ""), keep_blank_values=True), (SHA256, sha256)]
                self._call("put_object_tagging", Tagging={"TagSet": [{"Key": key, "Value": of} for key, of in tags]})

    def put(
        self, data: bytes, *, sha256: str, overwrite: bool, store_checksum: bool, note: Callable[[str], None]
    ) -> None:
        metadata = {**self._extra_args.get("Metadata", {}), SHA256: sha256}
        try:
            with _translate_conflict(overwrite):
                self._call("put_object", Body=data, Metadata=metadata, **_condition(overwrite))
        except FileExistsError as refused:
            # If the response to a successful attempt was lost, boto3 retried and found the object of that attempt.
            if not _was_retried(refused.__cause__) or self.stored_checksum() != (len(data), sha256):
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
            if _status(error) != 404:  # the upload no longer exists
                raise

    def _head(self) -> Any:
        """Return the headers of the existing object; None if there is none or the store does not report it."""
        from botocore.exceptions import ClientError

        try:
            return self._call("head_object")
        except ClientError as error:
            # 403 is returned for a missing object to a role without s3:ListBucket, and for any object to one without
            # s3:GetObject; 400 for an object under a customer's key. The write itself then shows whether it exists.
            if _status(error) not in (400, 403, 404):
                raise
            if _status(error) != 404:
                log.info(
                    "S3 does not report whether the object exists (HTTP %s); the write will show it", _status(error)
                )
            return None


def read_extra_args(given: Any, client: Any) -> dict[str, Any]:
    """Check the ``extra_args`` of a connection's ``service_config`` for S3.

    :param given: The value; None if it is not set.
    :param client: Client of S3, whose service model has the valid keys.
    :raises CapillaryConfigurationError: It is not a JSON object, or has a key that is no parameter of a new upload.
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
            "accept; use names of the parameters of CreateMultipartUpload, such as ServerSideEncryption or ACL"
        )
    if key := given.get("SSECustomerKey"):
        # botocore logs request headers at debug level; they have it in base64.
        mask_secret(str(key))
        mask_secret(base64.b64encode(str(key).encode()).decode())
    return given


def _send_checksum_as_header(params: dict[str, Any], **_: Any) -> None:
    """Send the checksum of a body before it and not behind it.

    Over https, botocore sends the checksum behind the body, which it cuts into pieces of 16 KiB for that. Each cut
    copies up to 1 MiB, which takes much CPU. The body is in memory, so its checksum can go first, as over
    http. Over https it stays unsigned in either case.
    """
    algorithm = params.get("context", {}).get("checksum", {}).get("request_algorithm")
    if isinstance(algorithm, dict) and algorithm.get("in") == "trailer":
        algorithm["in"] = "header"


def _condition(overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {"IfNoneMatch": "*"}


def _status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _was_retried(error: Any) -> bool:
    return bool(error.response["ResponseMetadata"].get("RetryAttempts"))


@contextmanager
def _translate_conflict(overwrite: bool) -> Iterator[None]:
    """Translate a failure of our own condition. Without a condition, 409 and 412 have other meanings."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if overwrite or _status(error) not in (409, 412):
            raise
        if _status(error) == 412:
            raise FileExistsError from error
        raise OSError(
            "another process wrote the same object at the same time (HTTP 409); the next try will show the result"
        ) from error
