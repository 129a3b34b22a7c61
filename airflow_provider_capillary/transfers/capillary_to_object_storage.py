# SPDX-License-Identifier: Apache-2.0
"""Copies the files of upload jobs into object storage."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_provider_capillary._airflow_compat import AirflowFailException, AirflowSkipException, BaseOperator
from airflow_provider_capillary._copying import ResetOperatorOnCopy
from airflow_provider_capillary._storage.part_writer import HashingWriter
from airflow_provider_capillary._storage.transfer_log import TransferLog
from airflow_provider_capillary._storage.transferred_file import TransferredFile
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryErrorFileError
from airflow_provider_capillary.api.job_messages import failure_hint, shown_status
from airflow_provider_capillary.api.jobs import JOB_FILES
from airflow_provider_capillary.api.log_lines import write_lines
from airflow_provider_capillary.api.upload_kinds import UPLOAD_KINDS
from airflow_provider_capillary.api.values import parse_id, validate_choice
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.links.capillary import CapillaryObjectLink, publish_object_link

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_capillary._airflow_compat import Context
    from airflow_provider_capillary._storage.atomic_write import Writer
    from airflow_provider_capillary._storage.stores.base import ObjectLocation
    from airflow_provider_capillary.api.jobs import JobFile, UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind, UploadKindName

IfNoErrors = Literal["skip", "succeed", "fail"]
_IF_CHANGED = "if_changed"
#: File type -> the part of the file name in a folder after the kind of upload.
_NAMES = {"error": "errors", "success": "success", "uploaded": "uploaded"}


class CapillaryErrorFileToObjectStorageOperator(ResetOperatorOnCopy, BaseOperator):
    """Copy the error file of an upload job, or another of its files, into object storage.

    The object appears whole, or the old one stays. The file is copied byte for byte: its format is not documented, and
    it holds personal data, so no row is ever logged.

    One task copies the file of one job. Map the task over ``job_id`` for several: Airflow retries each on its own.

    Each ``Asset`` among the ``outlets`` gets an event whose extra is the dictionary of XCom ``error_file``.

    :param coupon_series_id: The coupon series, number or text. (templated)
    :param job_id: The job; it must be finished, see ``CapillaryRedeemUploadSensor``. (templated)
    :param upload_kind: The kind of upload that the job belongs to: ``redeem`` (default) or ``coupon``. (templated)
    :param file_type: Which file of the job: ``error`` (default), ``success``, which no published sample has, or
        ``uploaded``. (templated)
    :param destination: ``s3://bucket/key``, ``abfs://container/name``, ``gs://bucket/key``, ``file:///path`` or an
        absolute path. One that ends in ``/`` is a folder, in which the file is named
        ``redeem_errors_{coupon_series_id}_{job_id}.csv``, ``redeem_success_...`` or ``redeem_uploaded_...``, or the
        same with ``coupon_``. (templated)
    :param object_storage_conn_id: Airflow connection of the object store; None, the default, for the credentials
        of the worker; a template may render natively to None. The text ``None`` and an empty one are refused.
        (templated)
    :param if_no_errors: What to do if the job has no errors and no error file, or, for the other file types, no such
        file: ``skip`` the task (default), ``succeed``, or ``fail`` without retry. (templated)
    :param overwrite: Whether to replace an existing object; default True. With ``"if_changed"``, the file is read first
        and sent only if its length or sha256 differs from the existing object's.
    :param capillary_conn_id: Airflow connection of type ``capillary``; default ``capillary_default``. (templated)
    :return: XCom ``return_value``: the object's URI, without connection id or credentials; None if there was
        nothing to copy. XCom ``error_file``: ``{uri, coupon_series_id, job_id, error_count, size_bytes, sha256}``.
    :raises CapillaryConfigurationError: ``overwrite`` is not one of these.
    """

    template_fields: Sequence[str] = (
        "coupon_series_id",
        "job_id",
        "file_type",
        "upload_kind",
        "destination",
        "object_storage_conn_id",
        "if_no_errors",
        "capillary_conn_id",
    )
    ui_color = "#fbe6d4"
    operator_extra_links = (CapillaryObjectLink(),)
    _made_by_use = ("hook",)
    shallow_copy_attrs: Sequence[str] = (*BaseOperator.shallow_copy_attrs, *_made_by_use)

    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        job_id: int | str,
        file_type: JobFile = "error",
        upload_kind: UploadKindName = "redeem",
        destination: str,
        object_storage_conn_id: str | None = None,
        if_no_errors: IfNoErrors = "skip",
        overwrite: bool | Literal["if_changed"] = True,
        capillary_conn_id: str = CapillaryHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if overwrite not in (True, False, _IF_CHANGED):
            raise CapillaryConfigurationError(f"overwrite must be True, False or {_IF_CHANGED!r}, but is {overwrite!r}")
        self.coupon_series_id = coupon_series_id
        self.job_id = job_id
        self.file_type = file_type
        self.upload_kind = upload_kind
        self.destination = destination
        self.object_storage_conn_id = object_storage_conn_id
        self.if_no_errors = if_no_errors
        self.overwrite = overwrite
        self.capillary_conn_id = capillary_conn_id
        self._transferred: TransferredFile | None = None

    @cached_property
    def hook(self) -> CapillaryHook:
        """The hook for the Capillary connection."""
        return CapillaryHook(self.capillary_conn_id)

    def execute(self, context: Context) -> str | None:
        """Copy the file.

        :param context: Airflow's context.
        :return: The object's URI, or None.
        :raises CapillaryConfigurationError: A parameter cannot be used.
        :raises CapillaryJobNotFoundError: The series has no such job.
        :raises CapillaryErrorFileError: The job is not finished, its file cannot be fetched, or the destination cannot
            be written.
        """
        # Import the stores only when a task runs: a DAG file is parsed again and again, and writes nothing.
        from airflow_provider_capillary._storage.locations import locate
        from airflow_provider_capillary._storage.unfinished import remove_unfinished

        # First of all, before anything can end this try: an earlier try may have left parts of a file of personal data.
        remove_unfinished(context.get("task_state_store"), conn_id=self.object_storage_conn_id)
        validate_choice("if_no_errors", self.if_no_errors, get_args(IfNoErrors))
        validate_choice("file_type", self.file_type, JOB_FILES)
        validate_choice("upload_kind", self.upload_kind, tuple(UPLOAD_KINDS))
        series_id, job_id = parse_id("coupon_series_id", self.coupon_series_id), parse_id("job_id", self.job_id)
        file_name = f"{self.upload_kind}_{_NAMES[self.file_type]}_{series_id}_{job_id}.csv"
        location = locate(self.destination, conn_id=self.object_storage_conn_id, file_name=file_name)
        self._transferred = None
        job = self.hook._get_upload_job(self._kind, series_id, job_id)
        reason = self._reason_for_no_file(job)
        if reason is not None:
            self._end_without_file(reason)
            return None
        self._transferred = self._transfer(context, series_id, job, location)
        self._publish(context, self._transferred.facts())
        publish_object_link(context, location)
        return self._transferred.location.uri

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the job file as input and the object as output. Called by Airflow's OpenLineage provider only.

        :param task_instance: The task instance.
        """
        from airflow_provider_capillary._storage.lineage import lineage_of

        return lineage_of(self._transferred, api_host=self.hook.settings.host)

    @property
    def _kind(self) -> UploadKind:
        return UPLOAD_KINDS[self.upload_kind]

    def _end_without_file(self, reason: str) -> None:
        if self.if_no_errors == "fail":
            raise AirflowFailException(f"{reason}, and if_no_errors is 'fail'")
        if self.if_no_errors == "skip":
            raise AirflowSkipException(reason)
        self.log.info("There is nothing to copy: %s", reason)

    def _reason_for_no_file(self, job: UploadJob) -> str | None:
        """Return why the job has no such file; None if it has one.

        :raises CapillaryErrorFileError: The job is not finished, or should have an error file and has none.
        """
        if not job.is_done:
            raise CapillaryErrorFileError(
                f"{self._kind.title} job {job.job_id} is still {shown_status(job)}; wait for it with "
                f"Capillary{self._kind.name.capitalize()}UploadSensor before its {self.file_type} file is copied"
            )
        if job.file_url(self.file_type):
            return None
        if self.file_type != "error":
            return f"{self._kind.title} job {job.job_id} has no {self.file_type} file"
        if job.is_failed or job.error_count != 0:
            count = "an unknown number of" if job.error_count is None else job.error_count
            found = (
                f"{self._kind.title} job {job.job_id} ended as {shown_status(job)} with {count} errors, "
                "but without an error file"
            )
            if job.is_failed:
                found = f"{found}; {failure_hint(job, self._kind, self.coupon_series_id)}"
            raise CapillaryErrorFileError(found)
        return f"{self._kind.title} job {job.job_id} has no errors and no error file"

    def _transfer(self, context: Context, series_id: int, job: UploadJob, location: ObjectLocation) -> TransferredFile:
        """Stream the file to its destination; with ``overwrite="if_changed"``, only if the object there differs."""
        from airflow_provider_capillary._storage.atomic_write import atomic_write, stored_checksum_at

        self._log_start(series_id, job, location)
        what = f"{self.file_type.capitalize()} file of upload job {job.job_id}"
        stored = stored_checksum_at(location) if self.overwrite == _IF_CHANGED else None
        writer: Writer = HashingWriter()
        progress = TransferLog(self.log, what)
        if stored is not None:
            with self.hook.open_job_file(job, self.file_type) as source:
                _stream(source, writer, progress, most=stored[0])
        if stored == (writer.size, writer.sha256):
            progress.finish(lines=writer.lines, sha256=writer.sha256, uri=f"{location.uri} unchanged, not sent again")
        else:
            progress = TransferLog(self.log, what)
            with (
                self.hook.open_job_file(job, self.file_type) as source,
                atomic_write(
                    location,
                    overwrite=bool(self.overwrite),
                    store_checksum=self.overwrite == _IF_CHANGED,
                    state_store=context.get("task_state_store"),
                ) as writer,
            ):
                _stream(source, writer, progress)
            progress.finish(lines=writer.lines, sha256=writer.sha256, uri=location.uri)
            self._count(writer.size, progress.seconds, location)
        return TransferredFile(
            location=location,
            upload_kind=self._kind.name,
            coupon_series_id=series_id,
            job_id=job.job_id,
            file_type=self.file_type,
            error_count=job.error_count,
            size_bytes=writer.size,
            sha256=writer.sha256,
            lines=writer.lines,
        )

    def _log_start(self, series_id: int, job: UploadJob, location: ObjectLocation) -> None:
        from airflow_provider_capillary.api.error_files import shown_source

        org = "" if job.org_id is None else f" (org {job.org_id})"
        source = shown_source(self.hook._locate_job_file(job, self.file_type))
        store = "" if location.conn_id is None else f"connection {location.conn_id}, "
        write_lines(
            self.log.info,
            f"Copying the {self.file_type} file of {self._kind.title} job {job.job_id}, coupon series {series_id}"
            f"{org}, from {source} to {location.uri} ({store}overwrite={self.overwrite!r})",
        )

    def _count(self, size_bytes: int, seconds: float, location: ObjectLocation) -> None:
        from airflow_provider_capillary import _metrics

        tags = {"conn_id": self.capillary_conn_id, "upload_kind": self.upload_kind, "file_type": self.file_type}
        _metrics.count("transfer_bytes", size_bytes, **tags, store=location.scheme)
        _metrics.time("transfer_duration", seconds, **tags, store=location.scheme)

    def _publish(self, context: Context, facts: dict[str, Any]) -> None:
        """Push the XCom, and add the same dictionary to the event of each asset among the outlets."""
        from airflow_provider_capillary._airflow_compat import Asset

        context["ti"].xcom_push(key="error_file", value=facts)
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = facts


def _stream(source: BinaryIO, writer: Writer, progress: TransferLog, *, most: float = float("inf")) -> None:
    """Copy a stream to a writer, up to its end or until there are more than ``most`` bytes."""
    from airflow_provider_capillary._transport.error_file_stream import digest_of, size_of

    while writer.size <= most and (count := source.readinto(writer.room())):  # type: ignore[attr-defined] # BinaryIO lacks it
        if not writer.size and (digest := digest_of(source)) is not None:
            writer.share_digest(digest)
        writer.add(count)
        progress.add(count, total=size_of(source))
