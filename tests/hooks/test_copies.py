# SPDX-License-Identifier: Apache-2.0
"""Copies and pickles of hooks, sessions, operators and triggers that were used before."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.hooks.capillary import CapillaryAsyncHook, CapillaryHook
from airflow_provider_capillary.sensors.capillary import CapillaryRedeemUploadSensor
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from airflow_provider_capillary.triggers.capillary import (
    CapillaryRedeemUploadEventTrigger,
    CapillaryRedeemUploadTrigger,
)
from tests.airflow_compat import DAG, needs_asset_watchers
from tests.hooks.clients import SERIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox

    Duplicate = Callable[[Any], Any]


@pytest.fixture(
    params=[copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "deepcopy", "pickle"]
)
def duplicate(request: pytest.FixtureRequest) -> Duplicate:
    made: Duplicate = request.param
    return made


def _sensor(conn_id: str, **given: Any) -> CapillaryRedeemUploadSensor:
    return CapillaryRedeemUploadSensor(
        task_id="wait", coupon_series_id=SERIES, capillary_conn_id=conn_id, poke_interval=0.05, timeout=20, **given
    )


def test_a_hook_that_was_used_can_be_copied(duplicate: Duplicate, sandbox: Sandbox, hook: CapillaryHook) -> None:
    sandbox.add_job(SERIES)
    jobs = hook.get_redeem_upload_jobs(SERIES)

    copied = duplicate(hook)

    assert copied.get_redeem_upload_jobs(SERIES) == jobs
    assert copied.http_retry == hook.http_retry
    assert copied._connection.open() is not hook._connection.open()
    assert hook.get_redeem_upload_jobs(SERIES) == jobs


def test_no_secret_is_in_the_pickle_of_a_hook_that_was_used(sandbox: Sandbox, hook: CapillaryHook) -> None:
    hook.get_redeem_upload_jobs(SERIES)

    pickled = pickle.dumps(hook)

    assert b"sandbox-secret" not in pickled
    assert sandbox.tokens_issued[0].encode() not in pickled


async def test_an_async_hook_can_be_copied_while_it_is_open(
    duplicate: Duplicate, sandbox: Sandbox, conn_id: str
) -> None:
    async with CapillaryAsyncHook(conn_id) as hook:
        await hook.get_redeem_upload_jobs(SERIES)
        async with duplicate(hook) as copied:
            assert await copied.get_redeem_upload_jobs(SERIES) == []
        assert await hook.get_redeem_upload_jobs(SERIES) == []


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_session_that_was_used_can_be_copied(duplicate: Duplicate, sandbox: Sandbox, hook: CapillaryHook) -> None:
    url = f"{hook.settings.base_url}/coupon/api/v1/upload/getUploadRedeemedCouponStatus/{SERIES}"
    with hook.get_conn() as session:
        assert session.get(url).status_code == 200
        with duplicate(session) as copied:
            assert copied.get(url).status_code == 200


def test_the_session_for_files_can_be_copied(sandbox: Sandbox, hook: CapillaryHook) -> None:
    hook.get_redeem_upload_jobs(SERIES)
    session = hook._connection.open().transport._file_session
    with copy.deepcopy(session) as copied:
        assert copied.resolves_redirects is False
        assert copied.get(f"{hook.settings.base_url}/nothing").status_code == 404


def test_a_sensor_that_was_used_can_be_copied(duplicate: Duplicate, sandbox: Sandbox, conn_id: str) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    sensor = _sensor(conn_id, deferrable=False)
    assert sensor.poke({}) is False

    copied = duplicate(sensor)

    assert copied.poke({}) is False
    assert copied._wait is not sensor._wait
    assert copied.hook is not sensor.hook


def test_an_operator_that_was_used_can_be_copied(
    duplicate: Duplicate, sandbox: Sandbox, conn_id: str, tmp_path: Path
) -> None:
    job = sandbox.add_job(SERIES, rows=3, errors=1)
    operator = CapillaryErrorFileToObjectStorageOperator(
        task_id="errors",
        coupon_series_id=SERIES,
        job_id=job.job_id,
        destination=str(tmp_path / "errors.csv"),
        capillary_conn_id=conn_id,
    )
    operator.hook.get_redeem_upload_jobs(SERIES)

    copied = duplicate(operator)

    assert copied.hook is not operator.hook
    assert [each.job_id for each in copied.hook.get_redeem_upload_jobs(SERIES)] == [job.job_id]


def test_a_dag_can_be_cut_down_after_its_tasks_were_used(sandbox: Sandbox, conn_id: str) -> None:
    with DAG("nightly", schedule=None) as dag:
        wait = _sensor(conn_id, deferrable=False)
        pull = CapillaryErrorFileToObjectStorageOperator(
            task_id="errors", coupon_series_id=SERIES, job_id=1, destination="s3://a/b", capillary_conn_id=conn_id
        )
        wait >> pull
    assert wait.poke({}) is False
    pull.hook.get_redeem_upload_jobs(SERIES)

    part = dag.partial_subset(["errors"], include_upstream=True)

    assert set(part.task_dict) == {"wait", "errors"}
    assert part.task_dict["wait"].dag is part
    assert part.task_dict["wait"] is not wait
    assert part.task_dict["wait"].poke({}) is False


async def test_a_trigger_that_was_used_can_be_copied(duplicate: Duplicate, sandbox: Sandbox, conn_id: str) -> None:
    sandbox.add_job(SERIES)
    trigger = CapillaryRedeemUploadTrigger(
        coupon_series_id=SERIES, poke_interval=0.1, timeout=20.0, capillary_conn_id=conn_id
    )
    await trigger.cleanup()

    copied = duplicate(trigger)

    assert copied.serialize() == trigger.serialize()
    assert [event.payload["status"] async for event in copied.run()] == ["success"]


@needs_asset_watchers
async def test_a_watch_that_runs_can_be_copied(duplicate: Duplicate, sandbox: Sandbox, conn_id: str) -> None:
    sandbox.add_job(SERIES)
    watch = CapillaryRedeemUploadEventTrigger(
        coupon_series_id=SERIES, capillary_conn_id=conn_id, poll_interval=0.05, include_existing=True
    )
    events = watch.run()
    first = await anext(events)

    copied = duplicate(watch)

    assert copied.serialize() == watch.serialize()
    again = copied.run()
    assert (await anext(again)).payload["jobs"] == first.payload["jobs"]
    for each in (events, again):
        await each.aclose()
    for each in (watch, copied):
        await each.cleanup()
