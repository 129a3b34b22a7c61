# SPDX-License-Identifier: Apache-2.0
"""The sensor that never takes a worker slot for its start: from the DAG file to the event, by Airflow's own steps."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.sensors.capillary import CapillaryCouponUploadSensor, CapillaryRedeemUploadSensor
from airflow_provider_capillary.triggers.capillary import CapillaryCouponUploadTrigger, CapillaryRedeemUploadTrigger
from tests.airflow_compat import (
    DAG,
    DagSerialization,
    TaskDeferred,
    TaskGroup,
    XComArg,
    needs_start_from_trigger,
    task,
    task_group,
)

if TYPE_CHECKING:
    from airflow.triggers.base import StartTriggerArgs

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.sensors.running import UploadSensor

    UploadTrigger = CapillaryRedeemUploadTrigger | CapillaryCouponUploadTrigger

SERIES = 535512

pytestmark = [pytest.mark.usefixtures("capillary_connection", "quick_retries"), needs_start_from_trigger]


def dag_with(sensor_class: type[UploadSensor] = CapillaryRedeemUploadSensor, /, **given: Any) -> DAG:
    with DAG("night", schedule=None, params={"job_id": 4711, "most": 2}) as dag:
        arguments = {"task_id": "wait", "coupon_series_id": SERIES, "poke_interval": 0.05, "timeout": 600}
        sensor_class(**{**arguments, "start_from_trigger": True, **given})
    return dag


def start_of(dag: DAG) -> tuple[Any, StartTriggerArgs]:
    """Return the task as the scheduler sees it, and what it starts it with."""
    encoded = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    task = DagSerialization.from_dict(encoded).get_task("wait")
    assert task.start_from_trigger is True
    return encoded, task.start_trigger_args


def triggered(
    dag: DAG,
    *,
    timeout_after: datetime,
    job_id: int = 4711,
    trigger_class: type[UploadTrigger] = CapillaryRedeemUploadTrigger,
) -> UploadTrigger:
    """Make the trigger as a triggerer does, from what the scheduler stored."""
    from uuid import uuid4

    from airflow.executors.workloads import TaskInstanceDTO
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger
    from airflow.serialization.decoders import smart_decode_trigger_kwargs

    encoded, start = start_of(dag)
    stored = Trigger._decrypt_kwargs(Trigger.encrypt_kwargs(start.trigger_kwargs or {}))
    assert start.trigger_cls == f"airflow_provider_capillary.triggers.capillary.{trigger_class.__name__}"
    trigger = trigger_class(**{name: smart_decode_trigger_kwargs(value) for name, value in stored.items()})
    now = datetime.now(UTC)
    ti = TaskInstanceDTO(
        id=uuid4(),
        dag_version_id=uuid4(),
        task_id="wait",
        dag_id="night",
        run_id="manual",
        try_number=1,
        map_index=-1,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )
    run = {
        "dag_id": "night",
        "run_id": "manual",
        "run_after": now,
        "logical_date": now,
        "data_interval_start": now,
        "data_interval_end": now,
        "start_date": now,
        "end_date": None,
        "partition_key": None,
        "clear_number": 0,
        "run_type": "manual",
        "state": "running",
        "conf": {"job_id": job_id},
        "consumed_asset_events": [],
    }
    runtime_ti = TriggerRunner.create_runtime_ti(ti, encoded, run)
    context = runtime_ti.get_template_context()
    trigger.task_instance = runtime_ti  # type: ignore[assignment]
    trigger.timeout_after = timeout_after  # type: ignore[attr-defined]
    trigger.render_template_fields(context=context)
    return trigger


def event_of(trigger: UploadTrigger) -> Any:
    async def only() -> Any:
        (event,) = [event.payload async for event in trigger.run()]
        return json.loads(json.dumps(event))

    return asyncio.run(only())


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=900)


@pytest.mark.parametrize(
    ("sensor_class", "trigger_class", "kind"),
    [
        pytest.param(CapillaryRedeemUploadSensor, CapillaryRedeemUploadTrigger, "redeem", id="redeem"),
        pytest.param(CapillaryCouponUploadSensor, CapillaryCouponUploadTrigger, "coupon", id="coupon"),
    ],
)
def test_it_waits_for_the_job_of_a_template_and_ends_as_any_other_wait(
    sandbox: Sandbox, sensor_class: type[UploadSensor], trigger_class: type[UploadTrigger], kind: str
) -> None:
    sandbox.add_job(SERIES, kind=kind)
    job = sandbox.add_job(SERIES, rows=4, errors=2, kind=kind)
    sandbox.add_job(SERIES, kind=kind)
    dag = dag_with(sensor_class, job_id="{{ dag_run.conf['job_id'] }}", max_error_count="{{ params.most }}")

    event = event_of(triggered(dag, timeout_after=soon(), job_id=job.job_id, trigger_class=trigger_class))

    assert (event["status"], event["job"]["job_id"]) == ("success", job.job_id)
    sensor = dag.get_task("wait")
    assert isinstance(sensor, sensor_class)
    assert start_of(dag)[1].next_method == "execute_complete"
    assert sensor.execute_complete({}, event)["job_id"] == job.job_id  # type: ignore[typeddict-item]


def test_limits_of_templates_count(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, rows=4, errors=3)

    event = event_of(triggered(dag_with(job_id=job.job_id, max_error_count="{{ params.most }}"), timeout_after=soon()))

    assert event["status"] == "error_limit_exceeded"
    assert event["message"].endswith("more than max_error_count=2")


def test_a_template_that_renders_to_no_id_ends_in_an_error_that_names_it(sandbox: Sandbox) -> None:
    event = event_of(triggered(dag_with(job_id="{{ dag_run.conf.get('absent') }}"), timeout_after=soon()))

    assert event["status"] == "error"
    assert event["message"].startswith("job_id must be a positive whole number, but is 'None'")


def test_the_time_counts_from_the_start_of_the_task_and_not_anew_after_a_restart(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, status="STARTED")
    dag = dag_with(job_id=job.job_id, timeout=600)
    _, start = start_of(dag)
    assert start.timeout is not None
    started_at = datetime.now(UTC) - timedelta(seconds=601)

    began = time.monotonic()
    event = event_of(triggered(dag, timeout_after=started_at + start.timeout))

    assert event["status"] == "timeout"
    assert event["message"] == (
        f"redeem upload job {job.job_id} of coupon series {SERIES} did not end within 600 seconds; "
        f"last seen: job {job.job_id} was STARTED"
    )
    assert time.monotonic() - began < 300


def test_an_execution_timeout_does_not_make_the_wait_shorter_than_it_says() -> None:
    dag = dag_with(timeout=600, execution_timeout=timedelta(seconds=700))
    started_at = datetime.now(UTC)

    # The scheduler takes the earlier of the two ends.
    trigger = triggered(dag, timeout_after=started_at + timedelta(seconds=700))

    assert trigger._end_of_wait() == pytest.approx(started_at.timestamp() + 600)


def test_the_output_of_a_task_becomes_its_template_and_its_dependency() -> None:
    with DAG("night", schedule=None) as dag:

        @task
        def upload() -> int:
            return 4711

        job_id: Any = upload()
        CapillaryRedeemUploadSensor(
            task_id="wait", coupon_series_id=SERIES, job_id=job_id, start_from_trigger=True, timeout=600
        )

    _, start = start_of(dag)

    assert dag.get_task("wait").upstream_task_ids == {"upload"}
    assert start.trigger_kwargs is not None
    template = "{{ ti.xcom_pull(task_ids='upload', key='return_value', map_indexes=-1) }}"
    assert template in json.dumps(start.trigger_kwargs)


def test_a_template_whose_xcom_the_triggerer_never_answers_is_refused_when_the_dag_is_parsed() -> None:
    # Airflow 3.3.2 would wait for ever, and only the log of the triggerer says why.
    with pytest.raises(CapillaryConfigurationError, match=r"job_id pulls an XCom .*map_indexes=-1"):
        dag_with(job_id="{{ ti.xcom_pull('upload')['job_id'] }}")

    template = "{{ ti.xcom_pull('upload', map_indexes=-1)['job_id'] }}"
    assert template in json.dumps(start_of(dag_with(job_id=template))[1].trigger_kwargs)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ti.xcom_pull('b', map_indexes=-1) or ti.xcom_pull('a') }}",
        "{{ ti.xcom_pull('map_indexes=') }}",
        "{{ ti.xcom_pull('a') }}{# map_indexes=-1 #}",
        "{{ task_instance['xcom_pull']('a') }}",
        "{{ (ti | attr('xcom_pull'))('a') }}",
        "{{ ti.xcom_pull('a') | int(map_indexes=1) }}",
        "{{ ti.xcom_pull(ti.xcom_pull('a', map_indexes=-1)) }}",
        "{% set pull = ti.xcom_pull %}{{ pull('a') }}",
        "{% do ti.xcom_pull('a') %}4711",
        "{% if ti.xcom_pull('a') %}4711{% endif %}",
        ["{{ ti.xcom_pull('a') }}"],
        {"id": ("{{ ti.xcom_pull('a') }}",)},
    ],
)
def test_each_pull_of_a_template_needs_map_indexes(template: Any) -> None:
    with pytest.raises(CapillaryConfigurationError, match=r"job_id pulls an XCom .*map_indexes=-1"):
        dag_with(job_id=template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ti.xcom_pull('a', map_indexes=-1) or ti.xcom_pull('b', map_indexes = -1) }}",
        "{{ ti.xcom_pull('a', map_indexes=-1)['job_id'] | int }}",
        "{# ti.xcom_pull('a') #}4711",
        "{{ 'xcom_pull' if false else 4711 }}",
        "{% raw %}{{ ti.xcom_pull('a') }}{% endraw %}",
        "{{ ti['xcom_pull']('a', map_indexes=-1) }}",
        "xcom_pull",
        "{{ ti.xcom_pull('a' }}",  # malformed, which Airflow says itself
    ],
)
def test_a_template_without_such_a_pull_is_handed_to_the_scheduler(template: str) -> None:
    arguments = start_of(dag_with(uploaded_file_name=template))[1].trigger_kwargs
    assert json.dumps(template) in json.dumps(arguments)


@pytest.mark.parametrize("is_nested", [False, True], ids=["in the group", "in a group within it"])
def test_a_task_of_a_mapped_group_begins_on_a_worker(sandbox: Sandbox, is_nested: bool) -> None:
    with DAG("night", schedule=None) as dag:

        @task_group
        def one_series(series: Any) -> None:
            with TaskGroup("inner") if is_nested else nullcontext():
                CapillaryRedeemUploadSensor(
                    task_id="wait", coupon_series_id=series, start_from_trigger=True, timeout=600, poke_interval=0.05
                )

        one_series.expand(series=[SERIES, SERIES + 1])
    (task_id,) = dag.task_ids
    scheduled = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag)))).get_task(task_id)

    assert (scheduled.start_from_trigger, scheduled.start_trigger_args) == (False, None)
    sensor = dag.get_task(task_id)
    assert isinstance(sensor, CapillaryRedeemUploadSensor)
    sensor.coupon_series_id = SERIES
    sandbox.add_job(SERIES, status="STARTED")
    with pytest.raises(TaskDeferred):
        sensor.execute({})


def test_a_task_of_a_group_that_is_not_mapped_starts_in_the_triggerer() -> None:
    with DAG("night", schedule=None) as dag, TaskGroup("inner"):
        CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=SERIES, start_from_trigger=True, timeout=600)
    scheduled = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag)))).get_task("inner.wait")

    assert scheduled.start_from_trigger is True
    assert scheduled.start_trigger_args is not None


def test_outputs_that_were_put_together_are_refused_when_the_dag_is_parsed() -> None:
    with DAG("night", schedule=None):

        @task
        def upload() -> list[int]:
            return [4711]

        outputs: Any = upload()
        with pytest.raises(CapillaryConfigurationError, match=r"job_id is put together from XComs \(MapXComArg\)"):
            CapillaryRedeemUploadSensor(
                task_id="wait", coupon_series_id=SERIES, job_id=XComArg(outputs.operator).map(int),
                start_from_trigger=True,
            )  # fmt: skip


def test_it_contradicts_a_wait_on_the_worker() -> None:
    with pytest.raises(CapillaryConfigurationError, match="deferrable=False forbids"):
        dag_with(deferrable=False)


def test_a_choice_that_contradicts_itself_is_refused_when_the_dag_is_parsed() -> None:
    with pytest.raises(CapillaryConfigurationError, match="job_id already picks one job"):
        dag_with(job_id=1, uploaded_file_name="x")


def test_without_it_nothing_is_handed_to_the_scheduler() -> None:
    sensor = CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=SERIES, deferrable=True)

    assert (sensor.start_from_trigger, sensor.start_trigger_args) == (False, None)


def test_numbers_of_other_kinds_reach_the_trigger_as_plain_ones() -> None:
    dag = dag_with(coupon_series_id=Decimal(SERIES), job_id=Decimal(4711), max_error_rate=Decimal("0.25"))
    trigger = triggered(dag, timeout_after=datetime.now(UTC) + timedelta(hours=1))
    arguments = trigger.serialize()[1]
    given = [arguments[name] for name in ("coupon_series_id", "job_id", "max_error_rate")]
    assert json.dumps(given) == f"[{SERIES}, 4711, 0.25]"
