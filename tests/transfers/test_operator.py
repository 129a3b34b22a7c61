# SPDX-License-Identifier: Apache-2.0
"""The operator as part of a DAG: templates, serialization, and what happens while the file of the DAG is read."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import CapillaryConfigurationError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.airflow_compat import DAG, IS_AIRFLOW_2, BaseOperator, DagSerialization
from tests.running import TaskInstance
from tests.transfers.running import SERIES, SMALL
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import LocalFolder

ARGUMENTS: dict[str, Any] = {
    "coupon_series_id": "{{ params.series }}",
    "job_id": "{{ ti.xcom_pull('wait')['job_id'] }}",
    "destination": "s3://lake/{{ ds }}/",
    "object_storage_conn_id": "aws_{{ params.stage }}",
    "file_type": "{{ params.file_type }}",
    "upload_kind": "{{ params.upload_kind }}",
    "if_no_errors": "{{ params.if_no_errors }}",
    "capillary_conn_id": "capillary_{{ params.stage }}",
}


def make(dag: DAG, **arguments: Any) -> CapillaryErrorFileToObjectStorageOperator:
    with dag:
        return CapillaryErrorFileToObjectStorageOperator(task_id="errors", **(ARGUMENTS | arguments))


@pytest.fixture
def dag() -> DAG:
    return DAG("coupons", schedule=None, start_date=datetime(2026, 1, 1))


class Upstream:
    """What templates see of the task instance."""

    def xcom_pull(self, task_id: str) -> Any:
        return {"wait": {"job_id": 4455}}[task_id]


def context(**changes: Any) -> Any:
    params = {"series": SERIES, "stage": "test", "file_type": "error", "upload_kind": "coupon"}
    params["if_no_errors"] = "succeed"
    return {"ds": "2026-11-23", "ti": Upstream(), "params": params} | changes


def test_every_argument_that_names_something_is_a_template(dag: DAG) -> None:
    operator = make(dag)

    operator.render_template_fields(context())

    rendered = {name: getattr(operator, name) for name in ARGUMENTS}
    assert rendered == {
        "coupon_series_id": str(SERIES),
        "job_id": "4455",
        "destination": "s3://lake/2026-11-23/",
        "object_storage_conn_id": "aws_test",
        "file_type": "error",
        "upload_kind": "coupon",
        "if_no_errors": "succeed",
        "capillary_conn_id": "capillary_test",
    }
    assert set(operator.template_fields) == set(ARGUMENTS)


def test_templates_may_render_to_numbers() -> None:
    operator = make(DAG("native", schedule=None, start_date=datetime(2026, 1, 1), render_template_as_native_obj=True))

    operator.render_template_fields(context())

    assert (operator.coupon_series_id, operator.job_id) == (SERIES, 4455)


@pytest.mark.parametrize("name", ["coupon_series_id", "job_id"])
def test_an_id_that_renders_natively_to_none_is_refused_by_name(
    sandbox: Sandbox, store: LocalFolder, name: str
) -> None:
    native = DAG("native", schedule=None, start_date=datetime(2026, 1, 1), render_template_as_native_obj=True)
    operator = make(native, destination=store.folder, **{name: "{{ none }}"})
    operator.render_template_fields(context(none=None))

    with pytest.raises(
        CapillaryConfigurationError, match=f"{name} must be .*; if it comes from a template, check what"
    ):
        operator.execute({})

    assert sandbox.requests == []


def test_the_hook_has_the_connection_that_the_template_renders_to(dag: DAG) -> None:
    operator = make(dag)

    operator.render_template_fields(context())

    assert isinstance(operator.hook, CapillaryHook)
    assert operator.hook.capillary_conn_id == "capillary_test"


def test_rendered_templates_run(
    dag: DAG, sandbox: Sandbox, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_TEST", sandbox.connection_json())
    sandbox.add_job(SERIES, job_id=4455, errors=1, error_file=SMALL, kind="coupon")
    operator = make(dag, destination=store.folder + "{{ ds }}/", object_storage_conn_id=None)
    operator.render_template_fields(context())
    ti = TaskInstance()

    result = operator.execute({"ti": ti})

    assert result == f"{store.folder}2026-11-23/coupon_errors_{SERIES}_4455.csv"
    assert Content.of((store.path / "2026-11-23" / f"coupon_errors_{SERIES}_4455.csv").read_bytes()) == Content.of(
        SMALL
    )


def test_nothing_is_checked_read_or_asked_while_a_dag_is_parsed(dag: DAG, sandbox: Sandbox) -> None:
    # The connection does not even exist, and the destination is a template still.
    make(
        dag,
        capillary_conn_id="not_there",
        destination="{{ nothing }}",
        if_no_errors="{{ nothing }}",
        file_type="{{ nothing }}",
    )

    assert sandbox.requests == []


def test_defaults_are_those_of_the_documentation(dag: DAG) -> None:
    with dag:
        operator = CapillaryErrorFileToObjectStorageOperator(
            task_id="errors", coupon_series_id=SERIES, job_id=4455, destination="s3://lake/"
        )

    assert operator.file_type == "error"
    assert operator.upload_kind == "redeem"
    assert operator.object_storage_conn_id is None
    assert operator.if_no_errors == "skip"
    assert operator.overwrite is True
    assert operator.capillary_conn_id == "capillary_default"


@pytest.mark.skipif(IS_AIRFLOW_2, reason="Airflow 2 says it in other words")
def test_arguments_are_given_by_name_only(dag: DAG) -> None:
    with dag, pytest.raises(TypeError):
        CapillaryErrorFileToObjectStorageOperator(SERIES, 4455, "s3://lake/", task_id="errors")


@pytest.mark.skipif(IS_AIRFLOW_2, reason="Airflow 2 says it in other words")
@pytest.mark.parametrize("missing", ["coupon_series_id", "destination", "job_id"])
def test_what_has_no_default_is_asked_for_by_name(dag: DAG, missing: str) -> None:
    arguments = {name: value for name, value in ARGUMENTS.items() if name != missing}

    with dag, pytest.raises(TypeError, match=missing):
        CapillaryErrorFileToObjectStorageOperator(task_id="errors", **arguments)


def test_arguments_may_come_from_the_defaults_of_the_dag() -> None:
    defaults = {"capillary_conn_id": "capillary_eu", "object_storage_conn_id": "aws_eu"}
    with DAG("coupons", schedule=None, start_date=datetime(2026, 1, 1), default_args=defaults):
        operator = CapillaryErrorFileToObjectStorageOperator(
            task_id="errors", coupon_series_id=SERIES, job_id=4455, destination="s3://lake/"
        )

    assert (operator.capillary_conn_id, operator.object_storage_conn_id) == ("capillary_eu", "aws_eu")


def test_it_survives_the_serialization_of_its_dag(dag: DAG) -> None:
    make(dag, overwrite=False)

    serialized = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    (task,) = DagSerialization.from_dict(serialized).tasks

    assert task.task_type == "CapillaryErrorFileToObjectStorageOperator"
    assert set(task.template_fields) == set(ARGUMENTS)
    assert {name: getattr(task, name) for name in ARGUMENTS} == ARGUMENTS


def test_its_output_may_be_handed_to_the_next_task(dag: DAG) -> None:
    operator = make(dag)
    with dag:
        after = BaseOperator(task_id="load")
        after.doc = operator.output
        operator >> after

    assert operator.output.operator is operator
    assert operator.output["error_file"].key == "error_file"


def is_mapped_once_stored(dag: DAG, task_id: str) -> bool:
    """Whether a task is a mapped one in what Airflow stores of its DAG; Airflow 2 and 3 share no attribute for it."""
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict[task_id]
    return type(stored).__name__.endswith("MappedOperator")


def test_it_may_be_mapped_over_jobs(dag: DAG) -> None:
    with dag:
        mapped = CapillaryErrorFileToObjectStorageOperator.partial(
            task_id="errors", coupon_series_id=SERIES, destination="s3://lake/"
        ).expand(job_id=[4455, 4456])

    assert mapped.task_id == "errors"
    assert is_mapped_once_stored(dag, "errors")


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"]
)
def test_a_copy_is_equal(duplicate: Any) -> None:
    operator = CapillaryErrorFileToObjectStorageOperator(task_id="errors", **ARGUMENTS)

    other = duplicate(operator)

    assert {name: getattr(other, name) for name in ARGUMENTS} == ARGUMENTS
    assert other.overwrite is True


def test_two_operators_share_no_hook(dag: DAG) -> None:
    with dag:
        one, two = (
            CapillaryErrorFileToObjectStorageOperator(task_id=name, **(ARGUMENTS | {"capillary_conn_id": name}))
            for name in ("one", "two")
        )

    assert (one.hook.capillary_conn_id, two.hook.capillary_conn_id) == ("one", "two")
