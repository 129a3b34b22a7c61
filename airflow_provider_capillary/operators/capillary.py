# SPDX-License-Identifier: Apache-2.0
"""Operators that upload files to Capillary, each part exactly once."""

from __future__ import annotations

import inspect
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_capillary._airflow_compat import BaseOperator, TaskDeferred
from airflow_provider_capillary._copying import ResetOperatorOnCopy
from airflow_provider_capillary.api.log_lines import write_lines
from airflow_provider_capillary.api.upload_identity import TaskIdentity, tries_before_clearing
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM
from airflow_provider_capillary.api.uploads import UploadLookup, find_uploads, part_names, send_upload
from airflow_provider_capillary.api.values import read_flag, read_seconds
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.links.capillary import CapillaryObjectLink, publish_object_link
from airflow_provider_capillary.sensors.capillary import CapillaryCouponUploadSensor, CapillaryRedeemUploadSensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_capillary._airflow_compat import Context
    from airflow_provider_capillary._storage.prepared_upload import PreparedUpload
    from airflow_provider_capillary.api.upload_kinds import UploadKind

#: Seconds to wait for another try on this machine, in addition to its lookups.
_LONGEST_WAIT = 60.0
_TEMPLATED = (
    "coupon_series_id",
    "source",
    "customer_identifier",
    "columns",
    "details",
    "object_storage_conn_id",
    "capillary_conn_id",
)


class _UploadOperator(ResetOperatorOnCopy, BaseOperator):
    """Uploads a file, in as many jobs as its rows need."""

    kind: ClassVar[UploadKind]
    sensor_class: ClassVar[type[CapillaryRedeemUploadSensor | CapillaryCouponUploadSensor]]

    template_fields: Sequence[str] = _TEMPLATED
    template_fields_renderers: ClassVar[dict[str, str]] = {"columns": "json"}
    ui_color = "#dce9f7"
    operator_extra_links = (CapillaryObjectLink(),)
    _made_by_use = ("hook",)
    shallow_copy_attrs: Sequence[str] = (*BaseOperator.shallow_copy_attrs, *_made_by_use)

    def __init__(
        self,
        *,
        coupon_series_id: int | str,
        source: str,
        customer_identifier: str,
        coupon_identifier: str | None = None,
        columns: Mapping[str, str | int] | None = None,
        details: str | None = None,
        object_storage_conn_id: str | None = None,
        max_rows_per_job: int = 500_000,
        validate_only: bool = False,
        wait_for_completion: bool = False,
        deferrable: bool | None = None,
        poke_interval: float = 60.0,
        timeout: float | None = None,
        force: bool = False,
        lookup_seconds: float = UploadLookup.seconds,
        capillary_conn_id: str = CapillaryHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.coupon_series_id = coupon_series_id
        self.source = source
        self.customer_identifier = customer_identifier
        self.coupon_identifier = coupon_identifier
        self.columns = columns
        self.details = details
        self.object_storage_conn_id = object_storage_conn_id
        self.max_rows_per_job = max_rows_per_job
        self.validate_only = read_flag("validate_only", validate_only)
        self.wait_for_completion = read_flag("wait_for_completion", wait_for_completion)
        self.deferrable = deferrable
        self.poke_interval = read_seconds("poke_interval", poke_interval, may_be_zero=True)
        self.timeout = None if timeout is None else read_seconds("timeout", timeout, may_be_zero=True)
        self.force = read_flag("force", force)
        self.lookup_seconds = read_seconds("lookup_seconds", lookup_seconds)
        self.capillary_conn_id = capillary_conn_id

    @cached_property
    def hook(self) -> CapillaryHook:
        """The hook of the Capillary connection."""
        return CapillaryHook(self.capillary_conn_id)

    def execute(self, context: Context) -> list[int]:
        """Check the file, and upload each part that was not uploaded yet.

        :param context: Airflow's context.
        :return: The ids of the jobs, in the order of the parts.
        :raises CapillaryConfigurationError: An argument cannot be used.
        :raises CapillaryUploadError: The file cannot be used, or Capillary's answer was lost.
        :raises CapillaryError: Capillary refused the file, or cannot be reached.
        """
        prepared = self._prepare()
        publish_object_link(context, prepared.source.location)
        if self.validate_only:
            self.log.info("The file can be uploaded; validate_only is set, so nothing was sent")
            return []
        job_ids = self._upload(context, prepared)
        return self._wait(context, job_ids) if self.wait_for_completion else job_ids

    def execute_complete(
        self, context: Context, event: Any, job_ids: list[int] | None = None, position: int = 0
    ) -> list[int]:
        """Go on where the trigger ended.

        :param context: Airflow's context.
        :param event: The event of the trigger.
        :param job_ids: The ids of the jobs; None where Airflow lost them, as ``dag.test()`` does.
        :param position: Index of the job that the trigger waited for.
        :return: The ids of the jobs, in the order of the parts.
        """
        if job_ids is None:
            job_ids = self._upload(context, self._prepare())
            position = job_ids.index(event["job"]["job_id"]) if (event or {}).get("job") else 0
        sensor = self._sensor(job_ids[position])
        sensor.execute_complete(context, event)
        return self._wait(context, job_ids, position + 1)

    def _prepare(self) -> PreparedUpload:
        from airflow_provider_capillary._storage.prepared_upload import prepare_upload

        prepared = prepare_upload(
            self.kind,
            self.coupon_series_id,
            self.source,
            customer_identifier=self.customer_identifier,
            coupon_identifier=self.coupon_identifier,
            columns=self.columns,
            object_storage_conn_id=self.object_storage_conn_id,
            max_rows_per_job=self.max_rows_per_job,
            details=self.details,
        )
        write_lines(
            self.log.info,
            f"{prepared.source.location.uri}: {prepared.file.row_count} rows, {prepared.file.size_bytes} bytes, "
            f"for coupon series {prepared.coupon_series_id} in {len(prepared.file.parts)} {self.kind.title} job(s)",
        )
        return prepared

    def _upload(self, context: Context, prepared: PreparedUpload) -> list[int]:
        from airflow_provider_capillary._storage.upload_ledger import UploadLedger
        from airflow_provider_capillary._storage.upload_lock import only_here

        identity = self._identity(context)
        tokens = [
            identity.token(
                kind=self.kind.name, coupon_series_id=prepared.coupon_series_id, part=number, sha256=part.sha256
            )
            for number, part in enumerate(prepared.file.parts)
        ]
        names = part_names(prepared.stem, tokens)
        ledger = UploadLedger(context.get("task_state_store"))
        lookup = UploadLookup(self.lookup_seconds)
        with only_here(tokens[0], wait_seconds=2 * self.lookup_seconds + _LONGEST_WAIT) as waited:
            ledger.begin()
            may_exist = waited or ledger.may_have_sent or context["ti"].try_number > 1
            missing = [name for name, token in zip(names, tokens, strict=True) if token not in ledger.job_ids]
            run = self.hook._connection.run
            find = partial(
                find_uploads,
                kind=self.kind,
                coupon_series_id=prepared.coupon_series_id,
                file_names=missing,
                lookup=lookup,
                may_exist=may_exist,
            )
            found = run(find) if missing else {}
            for number, (part, name, token) in enumerate(zip(prepared.file.parts, names, tokens, strict=True), 1):
                which = f"Part {number} of {len(names)}"
                if token in ledger.job_ids or name in found:
                    job_ids = [job.job_id for job in found.get(name, [])] or [ledger.job_ids[token]]
                    self.log.info("%s was uploaded before, as job %d; it is not sent again", which, job_ids[0])
                    if len(job_ids) > 1:
                        write_lines(
                            self.log.error,
                            f"{which} was uploaded more than once, as jobs {', '.join(map(str, job_ids))}: its coupons "
                            "may be redeemed twice. Ask Capillary's support about the later ones",
                        )
                    job_id = job_ids[0]
                else:
                    upload = prepared.upload_of(part, name, before_send=ledger.check)
                    job_id = run(partial(send_upload, upload=upload, lookup=lookup)).job_id
                    self.log.info("%s: %d rows uploaded as %s job %d", which, part.row_count, self.kind.title, job_id)
                ledger.record(token, job_id)
        return [ledger.job_ids[token] for token in tokens]

    def _identity(self, context: Context) -> TaskIdentity:
        ti = context["ti"]
        forced = ""
        if self.force:
            cleared = tries_before_clearing(max_tries=ti.max_tries, retries=self.retries or 0)
            # A cleared DAG run that had ended starts again; within a running one, the number of tries changes.
            forced = f"{cleared} {context['dag_run'].start_date}"
        return TaskIdentity(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            forced=forced,
        )

    def _sensor(self, job_id: int) -> CapillaryRedeemUploadSensor | CapillaryCouponUploadSensor:
        times: dict[str, Any] = {} if self.timeout is None else {"timeout": self.timeout}
        return self.sensor_class(
            task_id=self.task_id,
            coupon_series_id=self.coupon_series_id,
            job_id=job_id,
            deferrable=self.deferrable,
            poke_interval=self.poke_interval,
            capillary_conn_id=self.capillary_conn_id,
            **times,
        )

    def _wait(self, context: Context, job_ids: list[int], position: int = 0) -> list[int]:
        """Wait for one job after the other, by the code of the sensor."""
        for index, job_id in enumerate(job_ids[position:], position):
            sensor = self._sensor(job_id)
            try:
                # Unwrapped, because Airflow warns of operators that are executed by others.
                inspect.unwrap(type(sensor).execute)(sensor, context)
            except TaskDeferred as deferral:
                self.defer(
                    trigger=deferral.trigger,
                    method_name="execute_complete",
                    kwargs={"job_ids": job_ids, "position": index},
                    timeout=deferral.timeout,
                )
        return job_ids


class CapillaryRedeemUploadOperator(_UploadOperator):
    """Upload a CSV file of redeemed coupons: each part exactly once.

    ``POST /coupon/api/v1/upload/redeemFile/{couponSeriesId}`` has no idempotency key: sent twice, it redeems twice
    (docs/capillary/api.md, 4). The operator names each uploaded file after DAG, task, run, map index and content. When
    an answer is lost, or the task is retried or cleared, it first searches the status list of the series for a job with
    that name, and sends only what is not there. docs/guides/uploads.md says what remains uncertain.

    The file is checked before anything is sent. It is read twice in constant memory, and not sent if it changed in
    between. A file with more rows than ``max_rows_per_job`` becomes several jobs, each with the header line.

    :param coupon_series_id: The coupon series, number or text. (templated)
    :param source: The CSV file: ``s3://bucket/key``, ``abfs://container/name``, ``gs://bucket/key``, ``file:///path``
        or an absolute path. Its first line is a header; fields are separated by commas. (templated)
    :param customer_identifier: ``MOBILE``, ``EXTERNAL_ID``, ``EMAIL`` or ``USER_ID``: the column that identifies
        customers. (templated)
    :param coupon_identifier: ``COUPON_ID`` or ``COUPON_CODE``: the column that identifies coupons. (templated)
    :param columns: Key of the API -> name in the header line, or index from 0; such as
        ``{"redeemedDateInMillis": "redeemed_at_ms", "redeemedAt": "till", "mobile": 3, "couponCode": "code"}``. None,
        the default, if the header line has the keys of the API or their snake_case. (templated)
    :param details: Free text that Capillary keeps with the job; None, the default, for none. (templated)
    :param object_storage_conn_id: Airflow connection of the object store; None, the default, for the credentials of the
        worker. (templated)
    :param max_rows_per_job: The most rows of one job; default 500,000, which Capillary recommends for coupons.
    :param validate_only: Check the file and send nothing; default False.
    :param wait_for_completion: Wait until each job has finished, as ``CapillaryRedeemUploadSensor`` does; default
        False.
    :param deferrable: With ``wait_for_completion``: wait in the triggerer; default: Airflow's
        ``[operators] default_deferrable``.
    :param poke_interval: With ``wait_for_completion``: seconds between two polls, default 60.
    :param timeout: With ``wait_for_completion``: seconds to wait for each job; default that of Airflow's sensors.
    :param force: Upload again after the task was cleared, although a job exists; default False. Retries of one clearing
        still upload once.
    :param lookup_seconds: How long the status list is searched for a job that an earlier request or try may have made,
        before the file is sent again; default 60. Raise it if your jobs take longer to appear in the list.
    :param capillary_conn_id: Airflow connection of type ``capillary``; default ``capillary_default``. (templated)
    :return: XCom ``return_value``: list of the job ids, in the order of the parts; empty with ``validate_only``. Map
        ``CapillaryRedeemUploadSensor.partial(...).expand(job_id=upload.output)`` over it.
    """

    kind = REDEEM
    sensor_class = CapillaryRedeemUploadSensor
    template_fields: Sequence[str] = (*_TEMPLATED, "coupon_identifier")

    def __init__(self, *, coupon_identifier: str, **kwargs: Any) -> None:
        super().__init__(coupon_identifier=coupon_identifier, **kwargs)


class CapillaryCouponUploadOperator(_UploadOperator):
    """Upload a CSV file of coupons to a series: each part exactly once.

    ``POST /coupon/api/v1/upload/file/{couponSeriesId}`` (docs/capillary/api.md, 4). All else is as with
    :class:`CapillaryRedeemUploadOperator`.

    :param customer_identifier: ``NOT_TAGGED`` (default) for coupons that belong to no customer yet, or ``MOBILE``,
        ``EXTERNAL_ID``, ``EMAIL`` or ``USER_ID``. (templated)
    :param columns: Key of the API (``couponCode`` and that of the customer) -> name in the header line, or index from
        0; None, the default, if the header line has the keys of the API or their snake_case. (templated)
    :param kwargs: The other arguments of :class:`CapillaryRedeemUploadOperator`, without ``coupon_identifier``.
    :return: XCom ``return_value``: list of the job ids, in the order of the parts; empty with ``validate_only``.
    """

    kind = COUPON
    sensor_class = CapillaryCouponUploadSensor

    def __init__(self, *, customer_identifier: str = "NOT_TAGGED", **kwargs: Any) -> None:
        super().__init__(customer_identifier=customer_identifier, **kwargs)
