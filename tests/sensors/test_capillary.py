# SPDX-License-Identifier: Apache-2.0
"""The sensor: which job it waits for, how the wait ends, and that it ends the same in every mode."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import MISSING, fields
from datetime import timedelta
from decimal import Decimal
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.waiting import WaitOptions
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault, Sandbox
from airflow_provider_capillary.sensors.capillary import CapillaryCouponUploadSensor, CapillaryRedeemUploadSensor
from airflow_provider_capillary.triggers.capillary import CapillaryRedeemUploadTrigger
from tests.airflow_compat import (
    DAG,
    AirflowTaskTimeout,
    TaskDeferred,
    api_server_error,
    needs_start_from_trigger,
    needs_task_state_store,
)
from tests.running import StateStore, TaskInstance
from tests.sensors.running import ALL_MODES, MODES, End, fire, run_to_end
from tests.transfers.running import interrupting

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sensors.running import UploadSensor

    MakeSensor = Callable[..., UploadSensor]

SERIES = 535512
NEWEST = f"the newest redeem upload job of coupon series {SERIES}"
KINDS = [
    pytest.param(CapillaryRedeemUploadSensor, "redeem", id="redeem"),
    pytest.param(CapillaryCouponUploadSensor, "coupon", id="coupon"),
]
OTHER = {"redeem": "coupon", "coupon": "redeem"}
#: Each wait option with a value that is not its default.
OPTIONS: list[dict[str, Any]] = [
    {"job_id": 7},
    {"uploaded_file_name": "a*.csv", "after_job_id": 0},
    {"max_error_count": 0, "max_error_rate": 0.25},
    {"max_consecutive_failures": 3, "silent_fail": True},
]

pytestmark = pytest.mark.usefixtures("capillary_connection", "quick_retries")


def sensor(sensor_class: type[UploadSensor] = CapillaryRedeemUploadSensor, /, **given: Any) -> MakeSensor:
    """Return what makes a sensor of the series with short intervals."""

    def make(**mode: Any) -> UploadSensor:
        arguments = {
            "task_id": "wait",
            "coupon_series_id": SERIES,
            "poke_interval": 0.05,
            "timeout": 20,
            **given,
            **mode,
        }
        return sensor_class(**arguments)

    return make


def outcome(name: str, sandbox: Sandbox) -> tuple[dict[str, Any], End]:
    """Set the sandbox up for an outcome; return the sensor's arguments and how it has to end."""
    if name == "success":
        job = sandbox.add_job(SERIES, rows=10, errors=1)
        return {"job_id": job.job_id, "max_error_count": 1, "max_error_rate": 0.1}, End("success", value=job.job_id)
    if name == "completed with too many errors":
        job = sandbox.add_job(SERIES, rows=10, errors=3)
        message = f"redeem upload job {job.job_id} has 3 errors in 10 rows, more than max_error_count=2"
        return {"max_error_count": 2}, End("failed", "CapillaryJobFailedError", message)
    if name == "completed with too high an error rate":
        job = sandbox.add_job(SERIES, rows=10, errors=3)
        message = f"redeem upload job {job.job_id} has 3 errors in 10 rows, more than max_error_rate=0.25"
        return {"max_error_rate": 0.25}, End("failed", "CapillaryJobFailedError", message)
    if name == "failed":
        job = sandbox.add_job(SERIES, status=" Errored ")
        message = (
            f"redeem upload job {job.job_id} ended as Errored; part of its rows may have been redeemed all the same; "
            f"ask Capillary's support for the reason, with org {job.org_id}, coupon series {SERIES} and job "
            f"{job.job_id}"
        )
        return {}, End("failed", "CapillaryJobFailedError", message)
    if name == "timeout":
        job = sandbox.add_job(SERIES, status="STARTED")
        message = f"{NEWEST} did not end within 0.3 seconds; last seen: job {job.job_id} was STARTED"
        return {"timeout": 0.3}, End("failed", "AirflowSensorTimeout", message)
    if name == "empty list":
        message = f"{NEWEST} did not end within 0.3 seconds; last seen: no job in the series yet"
        return {"timeout": 0.3}, End("failed", "AirflowSensorTimeout", message)
    if name == "unknown word":
        job = sandbox.add_job(SERIES, status="PONDERING")
        message = f"{NEWEST} did not end within 0.3 seconds; last seen: job {job.job_id} was PONDERING"
        return {"timeout": 0.3}, End("failed", "AirflowSensorTimeout", message)
    if name == "fault budget used up":
        sandbox.add_job(SERIES)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
        return {"max_consecutive_failures": 3}, End(
            "up_for_retry", "CapillaryApiError", "Capillary answered with an error (HTTP 503, "
        )
    if name == "faults within the budget":
        job = sandbox.add_job(SERIES)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=4))  # two polls of two attempts each
        return {"max_consecutive_failures": 3}, End("success", value=job.job_id)
    if name == "silent_fail":
        job = sandbox.add_job(SERIES)
        sandbox.inject(Fault("status", endpoint="status", status=503, times=4))
        return {"max_consecutive_failures": 1, "silent_fail": True}, End("success", value=job.job_id)
    if name == "wrong credentials":
        sandbox.add_job(SERIES)
        sandbox.inject(
            Fault(
                "body",
                endpoint="token",
                times=None,
                status=200,
                body={"data": None, "errors": [{"code": 320001, "message": "Invalid client key and secret"}]},
            )
        )
        message = (
            "Connection 'capillary_default': Capillary does not accept the client key and secret: "
            "Invalid client key and secret (HTTP 200, "
        )
        return {}, End("up_for_retry", "CapillaryAuthError", message)
    if name == "no access":
        sandbox.inject(
            Fault("body", endpoint="status", times=None, status=403, body={"errors": [{"code": 4000, "message": "No"}]})
        )
        message = "Connection 'capillary_default': the API client has no access to this resource: No; "
        return {}, End("up_for_retry", "CapillaryAccessError", message)
    if name == "rate limit":
        sandbox.inject(Fault("status", endpoint="status", status=429, times=None))
        return {"max_consecutive_failures": 1}, End("up_for_retry", "CapillaryRateLimitError", "")
    if name == "connection lost":
        sandbox.inject(Fault("reset", endpoint="status", times=None))
        return {"max_consecutive_failures": 1}, End("up_for_retry", "CapillaryTransportError", "")
    if name == "no answer of Capillary":
        sandbox.inject(Fault("html", endpoint="status", status=200, times=None))
        return {"max_consecutive_failures": 1}, End("up_for_retry", "CapillaryResponseError", "")
    if name == "connection missing":
        message = "Airflow connection 'absent' is not defined; create it, or correct capillary_conn_id"
        return {"capillary_conn_id": "absent"}, End("up_for_retry", "CapillaryConfigurationError", message)
    if name == "unusable connection":
        return {"capillary_conn_id": "unusable"}, End("up_for_retry", "CapillaryConfigurationError", "")
    if name == "unusable id":
        message = "job_id must be a positive whole number, but is 'soon'"
        return {"job_id": "soon"}, End("up_for_retry", "CapillaryConfigurationError", message)
    if name == "unusable limit":
        return {"max_error_rate": "2"}, End("up_for_retry", "CapillaryConfigurationError", "max_error_rate must be")
    if name == "unusable connection id":
        message = "capillary_conn_id is 'None', the text for nothing"
        return {"capillary_conn_id": "None"}, End("up_for_retry", "CapillaryConfigurationError", message)
    raise AssertionError(name)


UNUSABLE_ARGUMENTS = ("unusable id", "unusable limit", "unusable connection id")
FAILURES = (
    "completed with too many errors",
    "completed with too high an error rate",
    "failed",
    "timeout",
    "empty list",
    "unknown word",
    "fault budget used up",
    "wrong credentials",
    "no access",
    "rate limit",
    "connection lost",
    "no answer of Capillary",
    "connection missing",
    "unusable connection",
    *UNUSABLE_ARGUMENTS,
)
FLAGS = ("soft_fail", "never_fail", "silent_fail")
OUTCOMES = ("success", "faults within the budget", "silent_fail", *FAILURES)
#: They end in the same exception as another one, so that without flags is enough.
WITHOUT_FLAGS = ("silent_fail", "completed with too high an error rate", "empty list", "unknown word")


def end_with(flag: str | None, name: str, expected: End) -> tuple[str, str | None]:
    """Return state and error in which Airflow's base class lets a sensor in poke mode end."""
    is_timeout = expected.error == "AirflowSensorTimeout"
    if expected.state == "success":
        return "success", None
    if flag == "soft_fail" and expected.state == "failed":
        return "skipped", None
    if flag == "never_fail" and not is_timeout:
        return "skipped", None
    if flag == "silent_fail" and expected.state == "up_for_retry" and name not in UNUSABLE_ARGUMENTS:
        return "failed", "AirflowSensorTimeout"
    return expected.state, expected.error


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize(
    ("name", "flag"),
    [(name, flag) for name in OUTCOMES for flag in (None, *FLAGS) if flag is None or name not in WITHOUT_FLAGS],
)
def test_every_outcome_is_the_same_in_every_mode(
    name: str, flag: str | None, mode: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_UNUSABLE", '{"conn_type": "capillary", "host": "no host"}')
    arguments, expected = outcome(name, sandbox)
    if flag is not None:
        arguments[flag] = True
    state, error = end_with(flag, name, expected)
    if error == "AirflowSensorTimeout":
        arguments["timeout"] = 0.3

    end = run_to_end(mode, sensor(**arguments))

    assert (end.state, end.error) == (state, error)
    assert (end.value or {}).get("job_id") == expected.value
    if error == expected.error:
        assert end.message.startswith(expected.message)


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize(("word", "state"), [("COMPLETED", "success"), ("FINISHED", "success"), ("ERRORED", "failed")])
@pytest.mark.parametrize(("sensor_class", "kind"), KINDS)
def test_a_job_of_either_kind_ends_the_wait_in_every_mode(
    sensor_class: type[UploadSensor], kind: str, word: str, state: str, mode: str, sandbox: Sandbox
) -> None:
    # With jobs of the other kind in the same series, which must not count.
    sandbox.add_job(SERIES, job_id=900, status="STARTED" if state == "success" else "FINISHED", kind=OTHER[kind])
    job = sandbox.add_job(SERIES, job_id=800, rows=5, errors=2, ends=word, kind=kind)

    end = run_to_end(mode, sensor(sensor_class))

    assert end.state == state
    if state == "success":
        assert (end.value["job_id"], end.value["status"], end.value["error_count"]) == (job.job_id, word, 2)
    else:
        done_to_rows = {"redeem": "redeemed", "coupon": "added to the series"}[kind]
        assert end.error == "CapillaryJobFailedError"
        assert end.message.startswith(
            f"{kind} upload job 800 ended as ERRORED; part of its rows may have been {done_to_rows} all the same; "
        )


@pytest.mark.parametrize("mode", ALL_MODES)
@pytest.mark.parametrize(("sensor_class", "kind"), KINDS)
def test_a_wait_of_either_kind_that_times_out_names_the_kind(
    sensor_class: type[UploadSensor], kind: str, mode: str, sandbox: Sandbox
) -> None:
    sandbox.add_job(SERIES, kind=OTHER[kind])

    end = run_to_end(mode, sensor(sensor_class, timeout=0.3))

    assert (end.state, end.error) == ("failed", "AirflowSensorTimeout")
    assert end.message == (
        f"the newest {kind} upload job of coupon series {SERIES} did not end within 0.3 seconds; "
        "last seen: no job in the series yet"
    )


def test_the_sensors_of_both_kinds_take_the_same_arguments_and_templates() -> None:
    redeem, coupon = CapillaryRedeemUploadSensor, CapillaryCouponUploadSensor
    assert signature(coupon) == signature(redeem)
    assert coupon.template_fields == redeem.template_fields


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", [None, *FLAGS])
def test_an_execution_timeout_on_the_worker_ends_the_same_in_every_mode(
    flag: str | None, mode: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_job(SERIES, status="STARTED")
    sandbox.inject(Fault("slow", endpoint="status", seconds=5))
    is_reading, read = threading.Event(), CapillaryHook.get_connection

    def read_slowly(conn_id: str) -> Any:
        is_reading.set()
        time.sleep(5)  # as a secrets backend that hangs
        return read(conn_id)

    if mode == "deferrable":  # which asks nobody else while it is on the worker
        monkeypatch.setattr(CapillaryHook, "get_connection", staticmethod(read_slowly))

    # By a signal, as Airflow does it.
    with interrupting(AirflowTaskTimeout("Timeout"), when=lambda: is_reading.is_set() or sandbox.count("status") > 0):
        end = run_to_end(mode, sensor(**{flag: True} if flag else {}))

    skipped = flag in ("soft_fail", "never_fail")
    assert (end.state, end.error) == (("skipped", None) if skipped else ("up_for_retry", "AirflowTaskTimeout"))
    assert is_reading.is_set() == (mode == "deferrable")


@pytest.mark.parametrize(
    ("flag", "state"), [(None, "up_for_retry"), ("soft_fail", "up_for_retry"), ("never_fail", "skipped")]
)
@pytest.mark.parametrize("event", [None, {"status": "of a later version"}, {"status": "error"}])
def test_an_event_that_is_not_understood_ends_as_an_error_of_a_poll(event: Any, flag: str | None, state: str) -> None:
    def resume(**mode: Any) -> Any:
        made = sensor(**({flag: True} if flag else {}))(**mode)
        made.execute = lambda context: made.resume_execution("execute_complete", {"event": event}, context)
        return made

    end = run_to_end("deferrable", resume)

    assert (end.state, end.error) == (state, None if state == "skipped" else "CapillaryError")


@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_appears_late_is_waited_for(mode: str, sandbox: Sandbox) -> None:
    appeared = []

    def upload(step: int) -> None:
        if step == 0:
            appeared.append(sandbox.add_job(SERIES, queued_seconds=0.1, started_seconds=0.1))

    if mode == "poke":
        sandbox.add_job(SERIES, job_id=1)
        make = sensor(after_job_id=1)
        appeared.append(sandbox.add_job(SERIES, queued_seconds=0.1, started_seconds=0.1))
        end = run_to_end(mode, make)
    else:
        end = run_to_end(mode, sensor(), between=upload)

    assert end.state == "success"
    assert end.value["job_id"] == appeared[0].job_id
    assert end.value["status"] == "COMPLETED"


@pytest.mark.parametrize("mode", MODES)
def test_the_failure_budget_counts_failures_in_a_row_only(mode: str, sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES, queued_seconds=1.0)
    for skip in (0, 2, 4):  # a good poll between two failed ones
        sandbox.inject(Fault("status", endpoint="status", status=500, times=2, skip=skip // 2))

    end = run_to_end(mode, sensor(max_consecutive_failures=4))

    assert end.value["job_id"] == job.job_id


def test_a_new_try_in_reschedule_mode_begins_with_a_new_failure_budget(sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
    store = StateStore()
    first = run_to_end("reschedule", sensor(max_consecutive_failures=3), store=store)
    asked = sandbox.count("status")

    second = run_to_end("reschedule", sensor(max_consecutive_failures=3), store=store, try_number=2)

    assert (first.state, first.error) == (second.state, second.error) == ("up_for_retry", "CapillaryApiError")
    assert sandbox.count("status") == 2 * asked == 12  # three polls of two attempts each


class _FailingStore(StateStore):
    """Fails as the API server of Airflow does while it is away."""

    def __init__(self, *failing: str) -> None:
        super().__init__()
        self.failing = failing

    def get(self, key: str, default: Any = None) -> Any:
        if "get" in self.failing:
            raise ConnectionError("state of the task at https://airflow.example.test?key=s3cret")
        return super().get(key, default)

    def set(self, key: str, value: Any) -> None:
        if "set" in self.failing:
            raise ConnectionError("state of the task at https://airflow.example.test?key=s3cret")
        super().set(key, value)


@needs_task_state_store
@pytest.mark.parametrize("failing", [("get",), ("set",), ("get", "set")], ids="-".join)
def test_a_state_store_that_fails_does_not_fail_the_task(
    failing: tuple[str, ...], sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    job = sandbox.add_job(SERIES)
    sandbox.inject(Fault("status", endpoint="status", status=503, times=2))

    end = run_to_end("reschedule", sensor(), store=_FailingStore(*failing))

    assert (end.state, end.value["job_id"]) == ("success", job.job_id)
    out = capsys.readouterr().out
    assert out.count("The count of failed polls cannot be kept") == 1
    assert "s3cret" not in out


@pytest.mark.parametrize("failing", [("get",), ("set",)], ids="-".join)
def test_failed_polls_are_counted_even_where_the_state_store_fails(failing: tuple[str, ...], sandbox: Sandbox) -> None:
    sandbox.inject(Fault("status", endpoint="status", status=503, times=None))

    end = run_to_end("reschedule", sensor(max_consecutive_failures=3), store=_FailingStore(*failing))

    assert (end.state, end.error) == ("up_for_retry", "CapillaryApiError")
    assert sandbox.count("status") == 6  # three polls of two attempts each


@pytest.mark.parametrize(
    "stored", [[], [1], [1, "9"], [1, None], [1, True], [1, -9], [1, 9, 9], 9, "x", {"1": 9}, [2, 9]]
)
def test_a_stored_value_that_is_no_count_of_this_try_counts_as_none(stored: Any, sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES)
    sandbox.inject(Fault("status", endpoint="status", status=503, times=2))
    store = StateStore()
    store.set("capillary_failures", stored)

    end = run_to_end("reschedule", sensor(max_consecutive_failures=2), store=store)

    assert (end.state, end.value["job_id"]) == ("success", job.job_id)


@pytest.mark.parametrize("context", [{}, {"ti": None}, {"ti": object()}], ids=["no ti", "None", "no try number"])
def test_a_context_without_a_try_number_does_not_fail_the_task(context: dict[str, Any], sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES)

    done = sensor(deferrable=False, mode="reschedule")().poke({**context, "task_state_store": StateStore()})

    assert done.xcom_value["coupon_series_id"] == SERIES


@pytest.mark.parametrize("mode", MODES)
def test_wrong_credentials_are_tried_once(mode: str, sandbox: Sandbox) -> None:
    arguments, _ = outcome("wrong credentials", sandbox)

    run_to_end(mode, sensor(**arguments))

    assert sandbox.count("token") == 1


def test_the_job_is_the_one_with_the_id(sandbox: Sandbox) -> None:
    first, _ = sandbox.add_job(SERIES), sandbox.add_job(SERIES, status="STARTED")

    end = run_to_end("poke", sensor(job_id=str(first.job_id)))

    assert end.value["job_id"] == first.job_id


def test_the_job_is_the_newest_with_the_file_name(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES, uploaded_file_name="night_1603183613031_535512.csv")
    newest = sandbox.add_job(SERIES, uploaded_file_name="night_1603195385330_535512.csv")
    sandbox.add_job(SERIES, uploaded_file_name="other_1603263533789_535512.csv")

    end = run_to_end("poke", sensor(uploaded_file_name="night_*_535512.csv"))

    assert end.value["job_id"] == newest.job_id


def test_a_job_id_that_a_template_renders_to_nothing_is_refused(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES)

    for rendered in ("", "None"):
        end = run_to_end("poke", sensor(job_id=rendered))
        assert end.error == "CapillaryConfigurationError"
        assert "job_id must be a positive whole number" in end.message


@pytest.mark.parametrize(
    "name",
    [
        "job_id",
        "uploaded_file_name",
        "after_job_id",
        "max_error_count",
        "max_error_rate",
        "coupon_series_id",
        "capillary_conn_id",
    ],
)
def test_an_argument_that_a_template_renders_natively_to_none_is_refused(sandbox: Sandbox, name: str) -> None:
    sandbox.add_job(SERIES)

    def make(**mode: Any) -> CapillaryRedeemUploadSensor:
        made = sensor(**{name: "{{ ti.xcom_pull('nobody') }}"})(**mode)
        setattr(made, name, None)  # what Airflow does where render_template_as_native_obj is on
        return made

    for mode in MODES:
        end = run_to_end(mode, make)
        assert end.error == "CapillaryConfigurationError"
        assert end.message.startswith(f"{name} was given, but its template rendered to None")
    assert sandbox.count("status") == 0


@pytest.mark.parametrize("rendered", ["None", "null", "", " "])
@pytest.mark.parametrize("name", ["uploaded_file_name", "max_error_count", "max_error_rate", "capillary_conn_id"])
def test_an_argument_that_a_template_renders_to_the_text_for_nothing_is_refused(
    sandbox: Sandbox, name: str, rendered: str
) -> None:
    sandbox.add_job(SERIES)
    for mode in MODES:
        end = run_to_end(mode, sensor(**{name: rendered}))
        assert end.error == "CapillaryConfigurationError"
        assert end.message.startswith(f"{name} ")
    assert sandbox.count("status") == 0


def test_an_argument_that_a_mapping_expands_to_none_is_refused(sandbox: Sandbox) -> None:
    # Taken for "not given", the second instance would wait for the newest job.
    job = sandbox.add_job(SERIES)
    with DAG("night", schedule=None) as dag:
        mapped = CapillaryRedeemUploadSensor.partial(
            task_id="wait", coupon_series_id=SERIES, uploaded_file_name=None
        ).expand(job_id=[job.job_id, None])
    good, bad = (mapped.unmap({"job_id": each}) for each in (job.job_id, None))

    assert good.poke({}).xcom_value["job_id"] == job.job_id
    with pytest.raises(CapillaryConfigurationError, match="job_id was given, but its template rendered to None"):
        bad.poke({})
    assert dag.task_ids == ["wait"]


@pytest.mark.parametrize("mode", MODES)
def test_ids_and_limits_may_come_as_xcoms_bring_them(sandbox: Sandbox, mode: str) -> None:
    job = sandbox.add_job(SERIES, rows=10, errors=2, queued_seconds=0.2)
    arguments = {
        "coupon_series_id": Decimal(SERIES),
        "job_id": Decimal(job.job_id),
        "max_error_count": Decimal("2.0"),
        "max_error_rate": Decimal("0.5"),
        "max_consecutive_failures": "3",
    }
    end = run_to_end(mode, sensor(**arguments))
    assert (end.state, end.value["job_id"]) == ("success", job.job_id)


@pytest.mark.parametrize("rendered", [20261121, 1.5, Decimal(7), ["a.csv"]])
@pytest.mark.parametrize("mode", MODES)
def test_a_file_name_that_is_rendered_natively_to_something_else_is_refused(
    sandbox: Sandbox, mode: str, rendered: Any
) -> None:
    end = run_to_end(mode, sensor(uploaded_file_name=rendered))
    assert end.error == "CapillaryConfigurationError"
    assert end.message.startswith("uploaded_file_name must be text, but is ")


@pytest.mark.parametrize("mode", MODES)
def test_a_budget_of_failures_without_an_end_is_refused(sandbox: Sandbox, mode: str) -> None:
    sandbox.inject(Fault("status", endpoint="status", status=503, times=None))
    end = run_to_end(mode, sensor(max_consecutive_failures=float("inf")))
    assert end.error == "CapillaryConfigurationError"
    assert end.message.startswith("max_consecutive_failures must be a whole number, 1 or more, but is inf")


@pytest.mark.parametrize("name", ["poke_interval", "timeout", "max_wait"])
def test_times_are_numbers_in_any_form_or_durations(name: str) -> None:
    for value in (90, "90", Decimal("90.0"), timedelta(seconds=90)):
        read = getattr(sensor(**{name: value})(), name)
        assert read == (timedelta(seconds=90) if name == "max_wait" else 90)
    for value in (float("inf"), float("nan"), "soon", -1, True):
        with pytest.raises(CapillaryConfigurationError, match=f"^{name} must be a number of seconds from 0 on, but is"):
            sensor(**{name: value})()


@pytest.mark.parametrize("name", ["deferrable", "start_from_trigger"])
def test_a_flag_that_is_text_is_read_as_such(name: str) -> None:
    assert getattr(sensor(**{name: "False"})(), name) is False
    with pytest.raises(CapillaryConfigurationError, match=f"^{name} must be True or False, but is 'off'"):
        sensor(**{name: "off"})()


def test_an_after_job_id_of_0_comes_before_all_jobs(sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES)

    assert run_to_end("poke", sensor(after_job_id=0)).value["job_id"] == job.job_id


def test_a_job_id_next_to_another_choice_is_refused_when_the_dag_is_parsed() -> None:
    with pytest.raises(CapillaryConfigurationError, match="job_id already picks one job"):
        CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=SERIES, job_id=1, after_job_id=2)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"max_error_rate": 1.5}, "max_error_rate"),
        ({"max_error_rate": "many"}, "max_error_rate"),
        ({"max_error_count": -1}, "max_error_count"),
        ({"max_consecutive_failures": 0}, "max_consecutive_failures"),
    ],
)
def test_a_limit_out_of_its_range_is_named(limits: dict[str, Any], name: str) -> None:
    end = run_to_end("poke", sensor(**limits))

    assert end.error == "CapillaryConfigurationError"
    assert end.message.startswith(f"{name} must be") or end.message.startswith(f"{name} is a fraction")


def test_limits_may_come_from_templates_as_text(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES, rows=4, errors=2)

    assert run_to_end("poke", sensor(max_error_count="1")).state == "failed"
    assert run_to_end("poke", sensor(max_error_rate="0.5")).state == "success"


def test_the_choice_of_the_job_is_logged_once_with_id_file_and_age(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    job = sandbox.add_job(SERIES, queued_seconds=0.2, started_seconds=0.2)

    run_to_end("poke", sensor())

    reported = [line for line in capsys.readouterr().out.splitlines() if "Found redeem upload job" in line]
    assert len(reported) == 1
    assert (
        f"upload job {job.job_id} of coupon series {SERIES}, file {job.uploaded_file_name}, uploaded 20" in reported[0]
    )


def test_an_unknown_status_is_warned_about_once(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    job = sandbox.add_job(SERIES, status="PONDERING")

    def finish_after_three_polls() -> None:
        while sandbox.count("status") < 3:
            time.sleep(0.01)
        sandbox.finish(job)

    finisher = threading.Thread(target=finish_after_three_polls, daemon=True)
    finisher.start()
    assert run_to_end("poke", sensor()).state == "success"
    finisher.join()

    assert capsys.readouterr().out.count("unknown status 'PONDERING'") == 1


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
def test_a_paused_job_is_logged_once_as_what_it_is(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    job = sandbox.add_job(SERIES, status="PAUSED")

    def finish_after_three_polls() -> None:
        while sandbox.count("status") < 3:
            time.sleep(0.01)
        sandbox.finish(job)

    finisher = threading.Thread(target=finish_after_three_polls, daemon=True)
    finisher.start()
    assert run_to_end(mode, sensor()).state == "success"
    finisher.join()

    paused = f"Upload job {job.job_id} is PAUSED: it waits until somebody at Capillary"
    assert capsys.readouterr().out.count(paused) == 1


def defer(make: MakeSensor, **given: Any) -> TaskDeferred:
    """Execute a deferrable sensor on a worker, up to its deferral."""
    with pytest.raises(TaskDeferred) as deferred:
        make(deferrable=True, **given).execute({"ti": TaskInstance(1)})
    return deferred.value


@pytest.mark.parametrize(
    "given",
    [{}, {"timeout": 0}, {"timeout": 1e-9}, {"mode": "reschedule"}, {"silent_fail": True}, {"soft_fail": True}],
    ids=str,
)
@pytest.mark.parametrize(("sensor_class", "kind"), KINDS)
def test_a_worker_asks_capillary_nothing_in_deferrable_mode(
    sensor_class: type[UploadSensor], kind: str, given: dict[str, Any], sandbox: Sandbox
) -> None:
    sandbox.add_job(SERIES, kind=kind)

    began = time.time()
    deferral = defer(sensor(sensor_class), **given)

    assert sandbox.requests == []
    wanted = began + given.get("timeout", 20)
    assert wanted <= deferral.trigger.serialize()[1]["end_time"] <= time.time() + given.get("timeout", 20)


@needs_start_from_trigger
def test_a_worker_asks_nothing_where_airflow_begins_the_task_there_all_the_same(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_job(SERIES)

    defer(sensor(start_from_trigger=True))

    assert sandbox.requests == []
    assert capsys.readouterr().out.count("Airflow began this task on a worker all the same") == 1


@pytest.mark.parametrize("mode", ["deferrable", "triggerer"])
@pytest.mark.parametrize("timeout", [0, 1e-9, 0.01])
def test_a_wait_without_any_time_polls_all_the_same(timeout: float, mode: str, sandbox: Sandbox) -> None:
    job = sandbox.add_job(SERIES)

    end = run_to_end(mode, sensor(timeout=timeout, poke_interval=60))

    assert (end.state, end.value["job_id"]) == ("success", job.job_id)
    assert sandbox.count("token") == 1
    # The first poll, and on a busy machine that of the end too.
    assert sandbox.count("status") in (1, 2)


def test_many_deferrable_sensors_need_one_token(sandbox: Sandbox) -> None:
    sandbox.add_job(SERIES)
    deferrals = [defer(sensor()) for _ in range(20)]
    assert sandbox.requests == []

    async def end_of_all() -> list[Any]:
        return await asyncio.gather(*[fire(deferral) for deferral in deferrals])

    events = asyncio.run(end_of_all())

    assert [event["status"] for event in events] == ["success"] * 20
    assert sandbox.count("token") == 1
    assert sandbox.count("status") < 20


@pytest.mark.parametrize("silent_fail", [False, True])
def test_a_connection_that_the_worker_cannot_read_for_the_moment_is_left_to_the_trigger(
    silent_fail: bool, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(conn_id: str) -> Any:
        raise api_server_error("the vault says hunter2")

    monkeypatch.setattr(CapillaryHook, "get_connection", staticmethod(fail))

    deferral = defer(sensor(silent_fail=silent_fail))

    assert deferral.trigger.serialize()[1]["failures"] == 1  # as in the other modes, it is a failed poll
    assert sandbox.requests == []


def test_every_argument_of_the_sensor_reaches_the_trigger(sandbox: Sandbox) -> None:
    given: dict[str, Any] = {
        "coupon_series_id": "535512",
        "uploaded_file_name": "night_*",
        "after_job_id": 7,
        "max_error_count": 3,
        "max_error_rate": 0.25,
        "max_consecutive_failures": 4,
        "silent_fail": True,
        "capillary_conn_id": "capillary_default",
        "poke_interval": 12.0,
        "exponential_backoff": True,
        "max_wait": 90.0,
        "timeout": 600.0,
    }
    with pytest.raises(TaskDeferred) as deferred:
        sensor()(**given, deferrable=True).execute({"ti": TaskInstance(1)})

    path, arguments = deferred.value.trigger.serialize()
    assert path == f"{CapillaryRedeemUploadTrigger.__module__}.CapillaryRedeemUploadTrigger"
    assert arguments.items() >= {**given, "coupon_series_id": 535512}.items()
    assert set(arguments) - set(given) == {"job_id", "end_time", "execution_deadline", "failures"}


def test_no_secret_is_among_the_arguments_of_the_trigger(sandbox: Sandbox) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor()(deferrable=True).execute({"ti": TaskInstance(1)})

    shown = repr(deferred.value.trigger) + repr(deferred.value.trigger.serialize())
    for secret in ("sandbox-secret", "sandbox-key"):
        assert secret not in shown


def test_the_deferral_has_a_backstop_behind_the_sensors_own_timeout(sandbox: Sandbox) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor(timeout=600, execution_timeout=None)(deferrable=True).execute({"ti": TaskInstance(1)})

    assert deferred.value.timeout is not None
    assert 600 < deferred.value.timeout.total_seconds() <= 1200


def test_everything_worth_templating_is_templated() -> None:
    assert set(CapillaryRedeemUploadSensor.template_fields) == {
        "coupon_series_id",
        "job_id",
        "uploaded_file_name",
        "after_job_id",
        "max_error_count",
        "max_error_rate",
        "capillary_conn_id",
    }


def test_the_sensor_has_each_wait_option_with_its_default() -> None:
    parameters = signature(CapillaryRedeemUploadSensor.__init__).parameters

    for option in fields(WaitOptions):
        if option.name != "silent_fail":  # Airflow's own option
            default = MISSING if (given := parameters[option.name].default) is Parameter.empty else given
            assert (default, option.name) == (option.default, option.name)
    assert WaitOptions.of(sensor()()) == WaitOptions(coupon_series_id=SERIES)


@pytest.mark.parametrize("given", OPTIONS, ids=lambda given: "+".join(given))
def test_the_trigger_gets_each_wait_option_of_the_sensor(given: dict[str, Any], sandbox: Sandbox) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor(**given)(deferrable=True).execute({"ti": TaskInstance(1)})

    assert WaitOptions.of(deferred.value.trigger) == WaitOptions(coupon_series_id=SERIES, **given)


def test_deferrable_follows_airflows_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=SERIES).deferrable is True
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "False")
    assert CapillaryRedeemUploadSensor(task_id="wait", coupon_series_id=SERIES).deferrable is False


def test_nothing_is_asked_while_the_dag_is_parsed(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_CAPILLARY_DEFAULT")

    made = sensor()(deferrable=True)

    assert made.coupon_series_id == SERIES
    assert sandbox.requests == []
