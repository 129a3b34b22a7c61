# SPDX-License-Identifier: Apache-2.0
"""The operator that pulls the files of upload jobs into object storage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_provider_capillary._airflow_compat import AirflowFailException, AirflowSkipException, BaseOperator
from airflow_provider_capillary.api.errors import CapillaryError, CapillaryErrorFileError, CapillarySettingsError
from airflow_provider_capillary.api.job_messages import failure_hint, shown_status
from airflow_provider_capillary.api.jobs import JOB_FILES, find_jobs, read_id, read_ids, read_word
from airflow_provider_capillary.api.values import read_text
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.hooks.copying import OperatorBeginsAnew
from airflow_provider_capillary.transfers.part_writer import Measure
from airflow_provider_capillary.transfers.transfer_log import TransferLog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_capillary._airflow_compat import Context
    from airflow_provider_capillary.api.jobs import JobFile, UploadJob
    from airflow_provider_capillary.transfers.stores.base import ObjectLocation
    from airflow_provider_capillary.transfers.whole_object import Sink

IfNoErrors = Literal["skip", "succeed", "fail"]
_IF_CHANGED = "if_changed"
_BLOCK_BYTES = 1 << 20
#: Which file -> how its name in a folder begins.
_NAMES = {"error": "redeem_errors", "success": "redeem_success", "uploaded": "redeem_uploaded"}


@dataclass(frozen=True)
class PulledFile:
    """A file that is in the object store now.

    :param location: Where.
    :param coupon_series_id: Coupon series.
    :param job_id: Upload job.
    :param which: Which file of the job.
    :param error_count: Refused rows, as Capillary counts them.
    :param size_bytes: Its length.
    :param sha256: In hex.
    :param lines: Its lines, a header included.
    """

    location: ObjectLocation
    coupon_series_id: int
    job_id: int
    which: JobFile
    error_count: int | None
    size_bytes: int
    sha256: str
    lines: int

    def facts(self) -> dict[str, Any]:
        """Return what XCom and asset events carry."""
        names = ("coupon_series_id", "job_id", "error_count", "size_bytes", "sha256")
        return {"uri": self.location.uri} | {name: getattr(self, name) for name in names}


class CapillaryErrorFileToObjectStorageOperator(OperatorBeginsAnew, BaseOperator):
    """Copy the error file of a redeem upload job, or another of its files, into object storage.

    The object appears whole, or the old one stays. The bytes are those that Capillary holds: their format is not
    documented, and they are personal data, so no row of them is ever logged.

    With ``job_ids``, the files of several jobs are copied one after the other. If one of them fails, those before it
    stay, and a retry writes the same bytes under the same names.

    Each ``Asset`` among the ``outlets`` gets an event whose extra is the dictionary of XCom ``error_file``; with
    ``job_ids``, ``{"files": [...]}``, one dictionary for each file.

    :param coupon_series_id: The coupon series, number or text. (templated)
    :param job_id: The job; it must be done, see ``CapillaryRedeemUploadSensor``. (templated)
    :param job_ids: Several jobs in place of ``job_id``: a list, or text that a template made of one, such as
        ``[4455, 4456]`` or ``4455,4456``. Jobs without a file are left out. (templated)
    :param which: Which file of the job: ``error`` (default), ``success``, which no published sample has, or
        ``uploaded``. (templated)
    :param destination: ``s3://bucket/key``, ``abfs://container/name``, ``gs://bucket/key``, ``file:///path`` or an
        absolute path. One that ends in ``/`` is a folder, in which the file is named
        ``redeem_errors_{coupon_series_id}_{job_id}.csv``, ``redeem_success_...`` or ``redeem_uploaded_...``; with
        ``job_ids`` it has to be one. (templated)
    :param object_storage_conn_id: Airflow connection of the object store; None, the default, for what the worker
        itself may do; a template may render natively to None. (templated)
    :param if_no_errors: What to do where the job has no errors and no file, or, for another file than that of the
        errors, no such file: ``skip`` the task (default), ``succeed``, or ``fail`` without retry. With ``job_ids``,
        where no job has one. (templated)
    :param overwrite: Whether to replace an object that is already there; default True. With ``"if_changed"``, the file
        is read first and sent only if the object that is there has another length or another recorded sha256.
    :param capillary_conn_id: Airflow connection of type ``capillary``; default ``capillary_default``. (templated)
    :return: XCom ``return_value``: the object's URI, without connection id or credentials; None where there was
        nothing to pull. XCom ``error_file``: ``{uri, coupon_series_id, job_id, error_count, size_bytes, sha256}``.
        With ``job_ids``, both are lists in the order of the ids.
    :raises CapillarySettingsError: Both ``job_id`` and ``job_ids`` are given, or neither.
    """

    template_fields: Sequence[str] = (
        "coupon_series_id",
        "job_id",
        "job_ids",
        "which",
        "destination",
        "object_storage_conn_id",
        "if_no_errors",
        "capillary_conn_id",
    )
    ui_color = "#fbe6d4"
    #: Replaced by tests, which do not wait.
    _clock = staticmethod(time.monotonic)
    _made_by_use = ("hook",)
    shallow_copy_attrs: Sequence[str] = (*BaseOperator.shallow_copy_attrs, *_made_by_use)

    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        job_id: int | str | None = None,
        job_ids: Sequence[int | str] | str | None = None,
        which: JobFile = "error",
        destination: str,
        object_storage_conn_id: str | None = None,
        if_no_errors: IfNoErrors = "skip",
        overwrite: bool | Literal["if_changed"] = True,
        capillary_conn_id: str = CapillaryHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (job_id is None) == (job_ids is None):
            raise CapillarySettingsError(
                f"{'neither' if job_id is None else 'both'} of job_id and job_ids is given; give job_id for one job, "
                "or job_ids for several"
            )
        if overwrite not in (True, False, _IF_CHANGED):
            raise CapillarySettingsError(f"overwrite must be True, False or {_IF_CHANGED!r}, but is {overwrite!r}")
        self.coupon_series_id = coupon_series_id
        self.job_id = job_id
        self.job_ids = job_ids
        self.which = which
        self.destination = destination
        self.object_storage_conn_id = object_storage_conn_id
        self.if_no_errors = if_no_errors
        self.overwrite = overwrite
        self.capillary_conn_id = capillary_conn_id
        # Not asked again later: a template may render natively to None, which is not the same as "not given".
        self._takes_several = job_ids is not None
        self._pulled: list[PulledFile] = []

    @cached_property
    def hook(self) -> CapillaryHook:
        """The hook of the connection."""
        return CapillaryHook(self.capillary_conn_id)

    def execute(self, context: Context) -> str | list[str] | None:
        """Copy the file, or the files.

        :param context: Airflow's context.
        :return: The object's URI, or None; with ``job_ids`` a list of URIs.
        :raises CapillarySettingsError: A parameter cannot be used.
        :raises CapillaryJobNotFoundError: The series has no such job.
        :raises CapillaryErrorFileError: A job is not done, its file cannot be had, or the destination not written.
        """
        # The stores are imported where a task runs: a DAG file is parsed over and over, and writes nothing.
        from airflow_provider_capillary.transfers.unfinished import remove_unfinished

        # Before anything can end this try: what an earlier one left behind are parts of a file of personal data.
        remove_unfinished(context.get("task_state_store"), conn_id=self.object_storage_conn_id)
        read_word("if_no_errors", self.if_no_errors, get_args(IfNoErrors))
        read_word("which", self.which, JOB_FILES)
        if self.object_storage_conn_id is not None:  # natively rendered, None may be meant
            read_text("object_storage_conn_id", self.object_storage_conn_id)
        series_id = read_id("coupon_series_id", self.coupon_series_id)
        ids = read_ids("job_ids", self.job_ids) if self._takes_several else [read_id("job_id", self.job_id)]
        locations = {job_id: self._locate(series_id, job_id) for job_id in ids}
        self._pulled = []
        # One answer has all jobs of the series, so it is asked for once.
        jobs = self.hook.get_redeem_upload_jobs(series_id) if ids else []
        for job in self._with_file(find_jobs(jobs, ids, coupon_series_id=series_id)):
            try:
                self._pulled.append(self._pull(context, series_id, job, locations[job.job_id]))
            except CapillaryError as error:
                if not self._takes_several:
                    raise
                raise error.about(f"upload job {job.job_id}") from error
        uris = [file.location.uri for file in self._pulled]
        facts = [file.facts() for file in self._pulled]
        if self._takes_several:
            self._tell(context, facts, {"files": facts})
            return uris
        if not facts:
            return None
        self._tell(context, facts[0], facts[0])
        return uris[0]

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Tell OpenLineage which object came from which job. Called by Airflow's OpenLineage provider only.

        :param task_instance: The task instance.
        """
        from airflow_provider_capillary.transfers.lineage import lineage_of

        return lineage_of(self._pulled, api_host=self.hook.settings.host)

    def _locate(self, series_id: int, job_id: int) -> ObjectLocation:
        from airflow_provider_capillary.transfers.whole_object import locate

        location = locate(
            self.destination,
            conn_id=self.object_storage_conn_id,
            file_name=f"{_NAMES[self.which]}_{series_id}_{job_id}.csv",
        )
        if self._takes_several and not self.destination.endswith("/"):
            raise CapillarySettingsError(
                f"destination {location.uri} must be a folder, that is end in /, where job_ids is given: each file "
                "needs a name of its own"
            )
        return location

    def _with_file(self, jobs: list[UploadJob]) -> list[UploadJob]:
        """Return the jobs that have something to pull, and decide what it means if none has."""
        missing = {job.job_id: reason for job in jobs if (reason := self._missing(job))}
        found = [job for job in jobs if job.job_id not in missing]
        if found:
            for reason in missing.values():
                self.log.info("Left out: %s", reason)
            return found
        if len(missing) > 1:
            message = f"the upload jobs {', '.join(map(str, missing))} have no {self.which} file"
        else:
            message = next(iter(missing.values()), "job_ids is empty")
        if self.if_no_errors == "fail":
            raise AirflowFailException(f"{message}, and if_no_errors is 'fail'")
        if self.if_no_errors == "skip":
            raise AirflowSkipException(message)
        self.log.info("There is nothing to pull: %s", message)
        return []

    def _missing(self, job: UploadJob) -> str | None:
        """Return why there is rightly nothing to pull, or None where there is something."""
        if not job.is_done:
            raise CapillaryErrorFileError(
                f"upload job {job.job_id} is still {shown_status(job)}; "
                f"wait for it with CapillaryRedeemUploadSensor before its {self.which} file is pulled"
            )
        if job.file_url(self.which):
            return None
        if self.which != "error":
            return f"upload job {job.job_id} has no {self.which} file"
        if job.is_failed or job.error_count != 0:
            count = "an unknown number of" if job.error_count is None else job.error_count
            found = (
                f"upload job {job.job_id} ended as {shown_status(job)} with {count} errors, but without an error file"
            )
            if job.is_failed:
                found = f"{found}; {failure_hint(job, self.coupon_series_id)}"
            raise CapillaryErrorFileError(found)
        return f"upload job {job.job_id} has no errors and no error file"

    def _pull(self, context: Context, series_id: int, job: UploadJob, location: ObjectLocation) -> PulledFile:
        """Stream a file to its place, unless it is there already and that is reason enough not to."""
        from airflow_provider_capillary.transfers.whole_object import open_whole, recorded_at

        what = f"{self.which.capitalize()} file of upload job {job.job_id}"
        there = recorded_at(location) if self.overwrite == _IF_CHANGED else None
        sink: Sink = Measure()
        progress = TransferLog(self.log, what, clock=self._clock)
        if there is not None:
            with self.hook.open_job_file(job, self.which) as source:
                _stream(source, sink, progress, most=there[0])
        if there == (sink.size, sink.sha256):
            progress.finish(sha256=sink.sha256, uri=f"{location.uri} as before, and was not sent again")
        else:
            progress = TransferLog(self.log, what, clock=self._clock)
            with (
                self.hook.open_job_file(job, self.which) as source,
                open_whole(
                    location,
                    overwrite=bool(self.overwrite),
                    record=self.overwrite == _IF_CHANGED,
                    notes=context.get("task_state_store"),
                ) as sink,
            ):
                _stream(source, sink, progress)
            progress.finish(sha256=sink.sha256, uri=location.uri)
        return PulledFile(
            location=location,
            coupon_series_id=series_id,
            job_id=job.job_id,
            which=self.which,
            error_count=job.error_count,
            size_bytes=sink.size,
            sha256=sink.sha256,
            lines=progress.lines,
        )

    def _tell(self, context: Context, xcom: Any, extra: dict[str, Any]) -> None:
        """Hand on to downstream tasks, and with the assets that this task updates, what was pulled."""
        from airflow_provider_capillary._airflow_compat import Asset

        context["ti"].xcom_push(key="error_file", value=xcom)
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = extra


def _stream(source: BinaryIO, sink: Sink, progress: TransferLog, *, most: float = float("inf")) -> None:
    """Hand all of a stream on, or no more of it once it is longer than ``most`` bytes."""
    from airflow_provider_capillary.hooks.error_file_stream import size_of

    while sink.size <= most and (block := source.read(_BLOCK_BYTES)):
        sink.write(block)
        progress.add(block, total=size_of(source))
