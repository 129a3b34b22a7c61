# SPDX-License-Identifier: Apache-2.0
"""The operator that pulls error files into object storage."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from airflow_provider_capillary.api.errors import CapillaryErrorFileError, CapillarySettingsError
from airflow_provider_capillary.api.jobs import read_id
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.transfers.whole_object import locate, open_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.transfers.whole_object import ObjectLocation

IfNoErrors = Literal["skip", "succeed", "fail"]
_BLOCK_BYTES = 1 << 20


class CapillaryErrorFileToObjectStorageOperator(BaseOperator):
    """Copy the error file of a redeem upload job into object storage.

    The object appears whole, or the old one stays. The bytes are those that Capillary holds: their format is not
    documented, and they are personal data, so no row of them is ever logged.

    :param coupon_series_id: The coupon series, number or text. (templated)
    :param job_id: The job; it must be done, see ``CapillaryRedeemUploadSensor``. (templated)
    :param destination: ``s3://bucket/key``, ``file:///path`` or an absolute path. One that ends in ``/`` is a folder,
        in which the file is named ``redeem_errors_{coupon_series_id}_{job_id}.csv``. (templated)
    :param object_storage_conn_id: Airflow connection of the object store; None, the default, for what the worker
        itself may do. (templated)
    :param if_no_errors: What to do where the job has no errors and no file: ``skip`` the task (default), ``succeed``,
        or ``fail`` without retry. (templated)
    :param overwrite: Whether to replace an object that is already there; default True.
    :param capillary_conn_id: Airflow connection of type ``capillary``; default ``capillary_default``. (templated)
    :return: XCom ``return_value``: the object's URI, without connection id or credentials; None where there was
        nothing to pull. XCom ``error_file``: ``{uri, coupon_series_id, job_id, error_count, size_bytes, sha256}``.
    """

    template_fields: Sequence[str] = (
        "coupon_series_id",
        "job_id",
        "destination",
        "object_storage_conn_id",
        "if_no_errors",
        "capillary_conn_id",
    )
    ui_color = "#fbe6d4"

    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        job_id: int | str,
        destination: str,
        object_storage_conn_id: str | None = None,
        if_no_errors: IfNoErrors = "skip",
        overwrite: bool = True,
        capillary_conn_id: str = CapillaryHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.coupon_series_id = coupon_series_id
        self.job_id = job_id
        self.destination = destination
        self.object_storage_conn_id = object_storage_conn_id
        self.if_no_errors = if_no_errors
        self.overwrite = overwrite
        self.capillary_conn_id = capillary_conn_id

    @cached_property
    def hook(self) -> CapillaryHook:
        """The hook of the connection."""
        return CapillaryHook(self.capillary_conn_id)

    def execute(self, context: Context) -> str | None:
        """Copy the file.

        :param context: Airflow's context.
        :return: The object's URI, or None.
        :raises CapillarySettingsError: A parameter cannot be used.
        :raises CapillaryErrorFileError: The job is not done, its file cannot be had, or the destination not written.
        """
        if self.if_no_errors not in get_args(IfNoErrors):
            raise CapillarySettingsError(
                f"if_no_errors must be one of {', '.join(get_args(IfNoErrors))}, but is {self.if_no_errors!r}"
            )
        series_id, job_id = read_id("coupon_series_id", self.coupon_series_id), read_id("job_id", self.job_id)
        location = locate(
            self.destination,
            conn_id=self.object_storage_conn_id,
            file_name=f"redeem_errors_{series_id}_{job_id}.csv",
        )
        job = self.hook.get_redeem_upload_job(series_id, job_id)
        if not self._has_error_file(job):
            return None
        size, sha256 = self._copy(job, location)
        self.log.info("Error file of upload job %d: %d bytes, sha256 %s, now at %s", job_id, size, sha256, location.uri)
        context["ti"].xcom_push(
            key="error_file",
            value={
                "uri": location.uri,
                "coupon_series_id": series_id,
                "job_id": job_id,
                "error_count": job.error_count,
                "size_bytes": size,
                "sha256": sha256,
            },
        )
        return location.uri

    def _has_error_file(self, job: UploadJob) -> bool:
        """Decide whether there is something to pull, and what it means if not."""
        if not job.is_done:
            raise CapillaryErrorFileError(
                f"upload job {job.job_id} is still {job.status.strip()}; "
                "wait for it with CapillaryRedeemUploadSensor before its error file is pulled"
            )
        if job.error_file_url:
            return True
        if job.is_failed or job.error_count != 0:
            count = "an unknown number of" if job.error_count is None else job.error_count
            raise CapillaryErrorFileError(
                f"upload job {job.job_id} ended as {job.status.strip()} with {count} errors, but without an error file"
            )
        message = f"upload job {job.job_id} has no errors and no error file"
        if self.if_no_errors == "fail":
            raise AirflowFailException(f"{message}, and if_no_errors is 'fail'")
        if self.if_no_errors == "skip":
            raise AirflowSkipException(message)
        self.log.info("There is nothing to pull: %s", message)
        return False

    def _copy(self, job: UploadJob, location: ObjectLocation) -> tuple[int, str]:
        """Stream the file and return its size in bytes and its sha256."""
        digest = hashlib.sha256()
        size = 0
        with self.hook.open_error_file(job) as source, open_whole(location, overwrite=self.overwrite) as sink:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                sink.write(block)
                size += len(block)
        return size, digest.hexdigest()
