# SPDX-License-Identifier: Apache-2.0
"""The public API as DAGs and tests of users write it, read by mypy --strict and never run.

`make lint` fails where a signature no longer fits a use that was fine, and where a wrong use is no longer refused: mypy
reports a ``type: ignore`` that nothing needs. Each of these gives the reason behind it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, assert_type

from airflow.sdk import DAG, Asset, AssetWatcher, Context, task
from pendulum import DateTime

from airflow_provider_capillary import exceptions
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.retry import HttpRetry, default_http_retry
from airflow_provider_capillary.assets.capillary import (
    capillary_coupon_uploads,
    capillary_redeem_uploads,
    finished_coupon_uploads,
    finished_redeem_uploads,
)
from airflow_provider_capillary.exceptions import CapillaryError, CapillaryJobFailedError
from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook
from airflow_provider_capillary.operators.capillary import (
    CapillaryCouponUploadOperator,
    CapillaryRedeemUploadOperator,
)
from airflow_provider_capillary.sandbox import Fault, RecordedRequest, Sandbox, SandboxJob
from airflow_provider_capillary.sensors.capillary import CapillaryCouponUploadSensor, CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from airflow_provider_capillary.triggers.capillary import (
    CapillaryCouponUploadEventTrigger,
    CapillaryRedeemUploadEventTrigger,
)

if TYPE_CHECKING:
    import requests


def hook_in_a_task() -> int:
    with default_http_retry(HttpRetry(max_attempts=2, base_seconds=0)):
        assert_type(CapillaryHook().get_redeem_upload_jobs(535512), list[UploadJob])
    retry = HttpRetry(max_attempts=3, base_seconds=0.5, cap_seconds=10, retry_after_cap_seconds=60)
    hook = CapillaryHook("capillary_default", http_retry=retry)
    jobs = hook.get_redeem_upload_jobs(535512)
    assert_type(jobs, list[UploadJob])
    history = hook.get_redeem_upload_history(535512)
    assert hook.get_redeem_upload_history("535512", before=history).newest() == jobs[-1]
    job = hook.get_redeem_upload_job("535512", job_id="4455")
    assert_type(job, UploadJob)
    assert_type(hook.get_coupon_upload_jobs(535512), list[UploadJob])
    assert_type(hook.get_coupon_upload_job(535512, "220605"), UploadJob)
    uploaded = hook.upload_redeemed_coupons(
        535512, "s3://lake/redeemed.csv", customer_identifier="MOBILE", coupon_identifier="COUPON_CODE"
    )
    assert_type(uploaded, UploadJob)
    assert_type(hook.upload_coupons("535512", "/data/coupons.csv", file_name="tonight.csv"), UploadJob)
    with hook.open_error_file(job) as stream:
        assert_type(stream, BinaryIO)
        size = len(stream.read())
    with hook.open_job_file(job, "uploaded") as stream:
        assert_type(stream.read(1 << 20), bytes)
    assert_type(hook.test_connection(), tuple[bool, str])
    session: requests.Session = hook.get_conn()
    with session:
        session.get("https://eu.api.capillarytech.com/v2/organization")
    return size


async def hook_in_a_trigger() -> UploadJob:
    async with CapillaryAsyncHook(capillary_conn_id="capillary_default") as hook:
        assert_type(hook, CapillaryAsyncHook)
        jobs = await hook.get_redeem_upload_jobs(535512)
        assert_type(jobs, list[UploadJob])
        assert_type(await hook.get_coupon_upload_jobs("535512"), list[UploadJob])
        assert_type(await hook.get_coupon_upload_job(535512, 220605), UploadJob)
        history = await hook.get_redeem_upload_history(535512)
        await hook.get_redeem_upload_history("535512", before=history)
        assert_type(await hook.upload_coupons(535512, "/data/coupons.csv", columns={"couponCode": 0}), UploadJob)
        return await hook.get_redeem_upload_job(535512, jobs[-1].job_id)


def fields_of_a_job(job: UploadJob) -> UploadJob:
    assert_type(job.job_id, int)
    assert_type(job.status, str)
    assert_type(job.org_id, int | None)
    assert_type(job.coupon_series_id, int | None)
    assert_type(job.created_on, DateTime | None)
    assert_type(job.updated_on, DateTime | None)
    assert_type(job.error_file_url, str | None)
    assert_type(job.success_file_url, str | None)
    assert_type(job.uploaded_file_url, str | None)
    assert_type(job.uploaded_file_name, str | None)
    assert_type(job.total_uploaded_count, int | None)
    assert_type(job.actual_row_count, int | None)
    assert_type(job.error_count, int | None)
    assert_type(job.upload_table_name, str | None)
    flags = (job.is_done, job.is_completed, job.is_failed, job.is_paused)
    assert_type(flags, tuple[bool, bool, bool, bool])
    assert_type(job.error_rate, float | None)
    assert_type(job.uploaded_at, DateTime | None)
    assert_type(job.to_dict(), dict[str, Any])
    return UploadJob.from_dict(job.to_dict())


def nightly_dag() -> DAG:
    with DAG(dag_id="redeem_errors", schedule="0 2 * * *") as dag:
        upload = CapillaryRedeemUploadOperator(
            task_id="upload",
            coupon_series_id=535512,
            source="s3://lake/redeemed/{{ ds }}.csv",
            object_storage_conn_id="aws_default",
            customer_identifier="MOBILE",
            coupon_identifier="COUPON_CODE",
            columns={"couponCode": "code", "mobile": 3},
            max_rows_per_job=100_000,
            wait_for_completion=True,
        )
        assert_type(upload.kind.title, str)
        CapillaryCouponUploadOperator(task_id="coupons", coupon_series_id="535512", source="/data/coupons.csv")
        wait = CapillaryRedeemUploadSensor(
            task_id="wait",
            coupon_series_id=535512,
            uploaded_file_name="redeemed_{{ ds_nodash }}*",
            after_job_id="{{ params.after }}",
            max_error_count=100,
            max_error_rate=0.5,
            max_consecutive_failures=20,
            deferrable=True,
            poke_interval=timedelta(minutes=1),
            timeout=6 * 60 * 60,
            soft_fail=True,
        )
        CapillaryRedeemUploadSensor(
            task_id="wait_from_trigger", coupon_series_id="{{ params.series }}", job_id=4455, start_from_trigger=True
        )
        errors = CapillaryErrorFileToObjectStorageOperator(
            task_id="errors",
            coupon_series_id=535512,
            job_id="{{ ti.xcom_pull('wait')['job_id'] }}",
            destination="s3://lake/capillary/redeem-errors/",
            object_storage_conn_id="aws_default",
            if_no_errors="succeed",
            overwrite="if_changed",
            outlets=[Asset("s3://lake/capillary/redeem-errors")],
        )
        uploaded = CapillaryErrorFileToObjectStorageOperator(
            task_id="uploaded",
            coupon_series_id=535512,
            job_id=4455,
            file_type="uploaded",
            destination="/mnt/capillary/redeemed.csv",
            overwrite=False,
        )
        wait_for_coupons = CapillaryCouponUploadSensor(
            task_id="wait_for_coupons", coupon_series_id=535512, job_id=220605, max_error_count=0, deferrable=True
        )
        coupon_errors = CapillaryErrorFileToObjectStorageOperator(
            task_id="coupon_errors",
            coupon_series_id=535512,
            job_id=220605,
            upload_kind="coupon",
            destination="s3://lake/capillary/coupon-errors/",
        )
        wait >> errors >> uploaded
        wait_for_coupons >> coupon_errors
    return dag


def mapped_dag() -> DAG:
    with DAG(dag_id="redeem_errors_of_many") as dag:
        waits = CapillaryRedeemUploadSensor.partial(
            task_id="waits", coupon_series_id=535512, deferrable=True, poke_interval=30
        ).expand(job_id=[4455, "4456"])
        errors = CapillaryErrorFileToObjectStorageOperator.partial(
            task_id="errors", coupon_series_id=535512, destination="s3://lake/capillary/redeem-errors/"
        ).expand(job_id=waits.output.map(lambda job: job["job_id"]))
        waits >> errors
    return dag


def dag_that_starts_by_itself() -> DAG:
    uploads = capillary_redeem_uploads(
        535512,
        capillary_conn_id="capillary_default",
        poll_interval=timedelta(minutes=5),
        include_existing=True,
        name="redeem uploads",
        group="capillary",
    )
    assert_type(uploads, Asset)
    with DAG(dag_id="redeem_errors_by_event", schedule=[uploads]) as dag:

        @task
        def jobs_with_errors(triggering_asset_events: Any = None) -> list[dict[str, int | None]]:
            jobs = finished_redeem_uploads(triggering_asset_events)
            assert_type(jobs, list[UploadJob])
            return [{"coupon_series_id": job.coupon_series_id, "job_id": job.job_id} for job in jobs if job.error_count]

        CapillaryErrorFileToObjectStorageOperator.partial(
            task_id="errors", destination="s3://lake/capillary/redeem-errors/"
        ).expand_kwargs(jobs_with_errors())
    return dag


def jobs_of_a_run(context: Context) -> list[int]:
    return [job.job_id for job in finished_redeem_uploads(context["triggering_asset_events"])]


def asset_with_a_watcher_of_its_own() -> Asset:
    trigger = CapillaryRedeemUploadEventTrigger(coupon_series_id="535512", poll_interval=30.0)
    watcher = AssetWatcher(name="redeem uploads", trigger=trigger)
    return Asset("capillary://capillary_default/redeem-uploads/535512", watchers=[watcher])


def dag_that_starts_after_both_kinds_of_upload() -> list[int]:
    trigger = CapillaryCouponUploadEventTrigger(coupon_series_id="535512", poll_interval=30.0)
    asset = Asset("coupons", watchers=[AssetWatcher(name="coupon uploads", trigger=trigger)])
    with DAG(dag_id="both", schedule=[capillary_redeem_uploads(1), capillary_coupon_uploads(1, name="coupons"), asset]):
        pass
    return [job.job_id for job in finished_coupon_uploads({})]


def errors_that_a_task_catches(hook: CapillaryHook) -> str | None:
    try:
        return hook.get_redeem_upload_job(535512, 4455).status
    except exceptions.CapillaryConfigurationError as error:
        argument_error: ValueError = error
        return str(argument_error)
    except (exceptions.CapillaryAuthError, exceptions.CapillaryAccessError):
        raise
    except exceptions.CapillaryJobNotFoundError:
        return None
    except CapillaryError as error:
        assert_type(error.http_status, int | None)
        assert_type(error.request_id, str | None)
        assert_type(error.is_transient, bool)
        assert_type(error.api_code, str | None)
        raise CapillaryJobFailedError("no status") from error


def sandbox_in_a_test() -> None:
    with Sandbox() as sandbox:
        job = sandbox.add_job(535512, rows=10, errors=2)
        assert_type(job, SandboxJob)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=2))
        assert_type(sandbox.connection_json(), str)
        assert_type(sandbox.count("status"), int)
        assert_type(sandbox.requests, list[RecordedRequest])


async def wrong_uses(job: UploadJob) -> None:
    hook, async_hook = CapillaryHook(), CapillaryAsyncHook()
    hook.get_redeem_upload_job(535512)  # type: ignore[call-arg] # a job has no meaning without its id
    hook.open_job_file(job, "errors")  # type: ignore[arg-type] # the files are error, success and uploaded
    HttpRetry(attempts=3)  # type: ignore[call-arg] # max_attempts is the name
    len(async_hook.get_redeem_upload_jobs(535512))  # type: ignore[arg-type] # not awaited
    with async_hook:  # type: ignore[attr-defined] # async with
        pass
    job.status = "COMPLETED"  # type: ignore[misc] # jobs are frozen
    assert job.error_rate < 0.5  # type: ignore[operator] # None without counts
    CapillaryRedeemUploadSensor(task_id="wait", job_id=4455)  # type: ignore[call-arg] # no coupon series
    CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id=535512,
        job_id=4455,
        destination="/mnt/capillary/",
        upload_kind="coupons",  # type: ignore[arg-type] # redeem or coupon
        if_no_errors="ignore",  # type: ignore[arg-type] # skip, succeed or fail
        overwrite="always",  # type: ignore[arg-type] # True, False or "if_changed"
    )
    capillary_redeem_uploads(535512, poll_interval="daily")  # type: ignore[arg-type] # seconds or a timedelta
