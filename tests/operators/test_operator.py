# SPDX-License-Identifier: Apache-2.0
"""The arguments, results, waits and messages of the upload operators."""

from __future__ import annotations

import inspect
import json
import pickle
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._airflow_compat import TaskDeferred
from airflow_provider_capillary.api.errors import (
    CapillaryAuthError,
    CapillaryConfigurationError,
    CapillaryError,
    CapillaryUploadError,
)
from airflow_provider_capillary.exceptions import CapillaryJobFailedError
from airflow_provider_capillary.sandbox import Fault
from tests.child import ChildProcess, peak_of_memory
from tests.operators.running import (
    HEADER,
    OPERATORS,
    PERSONAL,
    SERIES,
    TaskInstance,
    job_ids,
    row,
    upload,
    write_source,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_capillary.operators.capillary import (
        CapillaryCouponUploadOperator,
        CapillaryRedeemUploadOperator,
    )
    from airflow_provider_capillary.sandbox import Sandbox


# --- one job, several jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["coupon", "redeem"])
def test_the_result_is_the_list_of_job_ids(sandbox: Sandbox, source: str, kind: str) -> None:
    result = upload(source, kind=kind)
    assert result == job_ids(sandbox)
    assert json.loads(json.dumps(result)) == result


def test_a_file_with_too_many_rows_becomes_several_jobs_in_order(sandbox: Sandbox, tmp_path: Path) -> None:
    source = write_source(tmp_path / "redeemed.csv", rows=7)
    result = upload(source, max_rows_per_job=3)
    assert result == job_ids(sandbox)
    assert [(job.rows, job.errors) for job in sandbox.jobs(SERIES)] == [(3, 0), (3, 0), (1, 0)]
    names = [job.uploaded_file_name.partition("-")[2][:4] for job in sandbox.jobs(SERIES)]
    assert names == ["1of3", "2of3", "3of3"]


def test_quoted_line_breaks_do_not_split_a_row(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "redeemed.csv"
    rows = [f'1732000000000,"till\n\n{number}",{PERSONAL},CODE{number}\n' for number in range(4)]
    path.write_text(HEADER + "".join(rows))
    upload(str(path), max_rows_per_job=1)
    assert [(job.rows, job.errors) for job in sandbox.jobs(SERIES)] == [(1, 0)] * 4


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("\ufeff" + HEADER + row(1) + row(2), 2),
        ((HEADER + row(1) + row(2)).replace("\n", "\r\n"), 2),
        ((HEADER + row(1) + row(2)).rstrip("\n"), 2),
    ],
    ids=["byte_order_mark", "crlf", "no_line_end"],
)
def test_forms_of_a_file_that_are_handled(sandbox: Sandbox, tmp_path: Path, content: str, rows: int) -> None:
    path = tmp_path / "redeemed.csv"
    path.write_bytes(content.encode())
    upload(str(path))
    assert [(job.rows, job.errors) for job in sandbox.jobs(SERIES)] == [(rows, 0)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (HEADER.encode(), "header"),
        ((HEADER + row(1)).replace(",", ";").encode(), "comma"),
        ((HEADER + row(1)).encode("utf-16"), "UTF-16"),
        ((HEADER + row(1)).replace("\n", "\r").encode(), "carriage return"),
        ((HEADER + f'1732000000000,"till,{PERSONAL},CODE\n').encode(), "line 2"),
        (("mobile,couponCode\n" + f"{PERSONAL},CODE\n").encode(), "redeemedDateInMillis, redeemedAt"),
    ],
    ids=["empty", "header_only", "semicolons", "utf_16", "lone_cr", "open_quote", "columns"],
)
@pytest.mark.parametrize("validate_only", [False, True])
def test_files_that_are_refused_before_anything_is_sent(
    sandbox: Sandbox, tmp_path: Path, content: bytes, problem: str, validate_only: bool
) -> None:
    path = tmp_path / "redeemed.csv"
    path.write_bytes(content)
    with pytest.raises(CapillaryUploadError, match=problem) as caught:
        upload(str(path), validate_only=validate_only)
    assert PERSONAL not in str(caught.value)
    assert sandbox.requests == []


def test_validate_only_checks_the_file_and_sends_nothing(
    sandbox: Sandbox, source: str, said: Callable[[], str]
) -> None:
    assert upload(source, validate_only=True) == []
    assert sandbox.requests == []
    assert "3 rows" in said()


def test_a_file_that_changes_while_it_is_uploaded_makes_no_job(
    sandbox: Sandbox, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_capillary._storage import prepared_upload

    def prepare(*args: Any, **kwargs: Any) -> Any:
        prepared = original(*args, **kwargs)
        text = (tmp_path / "redeemed.csv").read_text()
        (tmp_path / "redeemed.csv").write_text(text.replace("CODE1", "CODE9"))
        return prepared

    original = prepared_upload.prepare_upload
    monkeypatch.setattr(prepared_upload, "prepare_upload", prepare)
    with pytest.raises(CapillaryUploadError, match="changed while it was uploaded"):
        upload(source)
    assert job_ids(sandbox) == []


def test_a_large_file_is_sent_in_constant_memory(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "redeemed.csv"
    line = f"1732000000000,till-1,{PERSONAL},{'X' * 200}\n"
    with path.open("w") as file:
        file.write(HEADER)
        for _ in range(100):
            file.write(line * 2_000)
    assert path.stat().st_size > 32 << 20
    small = write_source(tmp_path / "small.csv")
    with ChildProcess(growth_of_upload, small=small, large=str(path)) as child:
        assert child.result() < 16 << 20
    assert len(job_ids(sandbox)) == 2


def growth_of_upload(small: str, large: str) -> int:
    """Return the bytes by which the peak of memory grows from a small upload to a large one."""
    upload(small)
    before = peak_of_memory()
    upload(large)
    return peak_of_memory() - before


# --- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"coupon_series_id": "none"}, "coupon_series_id"),
        ({"customer_identifier": "PHONE"}, "customer_identifier"),
        ({"coupon_identifier": "CODE"}, "coupon_identifier"),
        ({"columns": {"couponCod": "couponCode"}}, "couponCod"),
        ({"columns": {"couponCode": 17}}, "couponCode"),
        ({"max_rows_per_job": 0}, "max_rows_per_job"),
        ({"object_storage_conn_id": ""}, "object_storage_conn_id"),
        ({"capillary_conn_id": "None"}, "capillary_conn_id"),
        ({"lookup_seconds": -1}, "lookup_seconds"),
        ({"force": "yes"}, "force"),
        ({"validate_only": "no"}, "validate_only"),
        ({"wait_for_completion": 1}, "wait_for_completion"),
        ({"poke_interval": "often"}, "poke_interval"),
        ({"timeout": -5}, "timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_argument_that_cannot_be_used_is_named_before_anything_is_sent(
    sandbox: Sandbox, source: str, arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(CapillaryConfigurationError, match=named):
        upload(source, **arguments)
    assert sandbox.count("upload") == 0


@pytest.mark.parametrize("source", ["relative.csv", "s3://bucket", "/tmp/folder/", 5, "ftp:///x"], ids=repr)
def test_a_source_that_names_no_file_is_refused(sandbox: Sandbox, source: Any) -> None:
    with pytest.raises(CapillaryConfigurationError, match="source"):
        upload(source)
    assert sandbox.requests == []


@pytest.mark.parametrize("kind", ["coupon", "redeem"])
def test_everything_that_one_may_want_to_template_is_templated(kind: str) -> None:
    fields = {"coupon_series_id", "source", "customer_identifier", "columns", "details"}
    fields |= {"object_storage_conn_id", "capillary_conn_id"} | ({"coupon_identifier"} if kind == "redeem" else set())
    assert set(OPERATORS[kind].template_fields) == fields


@pytest.mark.parametrize("kind", ["coupon", "redeem"])
def test_a_copy_and_a_pickle_begin_without_a_hook(kind: str) -> None:
    given = {"coupon_identifier": "COUPON_CODE", "customer_identifier": "MOBILE"} if kind == "redeem" else {}
    operator = OPERATORS[kind](task_id="upload", coupon_series_id=SERIES, source="/tmp/x.csv", **given)
    assert operator.hook is not None
    for copied in (deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert "hook" not in vars(copied)
        assert copied.source == "/tmp/x.csv"


def test_coupons_are_tagged_to_customers_if_asked_for(sandbox: Sandbox, source: str) -> None:
    upload(source, kind="coupon", customer_identifier="MOBILE")
    (request,) = [request for request in sandbox.requests if request.endpoint == "upload"]
    assert request.method == "POST"
    assert len(job_ids(sandbox)) == 1


def test_details_are_sent(sandbox: Sandbox, source: str) -> None:
    assert upload(source, details="of the night") == job_ids(sandbox)


# --- waiting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["coupon", "redeem"])
def test_wait_for_completion_returns_when_all_jobs_have_finished(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    source = write_source(tmp_path / "redeemed.csv", rows=4)
    result = upload(
        source, kind=kind, max_rows_per_job=2, wait_for_completion=True, deferrable=False, poke_interval=0.01
    )
    assert result == job_ids(sandbox)
    assert len(result) == 2


@pytest.mark.parametrize("kind", ["coupon", "redeem"])
def test_a_job_that_fails_fails_the_task_without_a_retry(sandbox: Sandbox, source: str, kind: str) -> None:
    upload(source, kind=kind)
    sandbox.finish(sandbox.jobs()[0], "ERRORED")
    with pytest.raises(CapillaryJobFailedError, match="ERRORED"):
        upload(source, kind=kind, wait_for_completion=True, deferrable=False, ti={"try_number": 2})
    assert len(job_ids(sandbox)) == 1


@pytest.mark.parametrize("kind", ["coupon", "redeem"])
def test_a_deferrable_wait_defers_for_one_job_after_the_other(sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    source = write_source(tmp_path / "redeemed.csv", rows=4)
    ids = upload(source, kind=kind, max_rows_per_job=2)
    for job in sandbox.jobs():
        sandbox.finish(job, "STARTED")
    operator = make_operator(kind, source, max_rows_per_job=2, wait_for_completion=True, deferrable=True)
    context: Any = {"ti": TaskInstance(try_number=2, task_id="upload")}

    with pytest.raises(TaskDeferred) as first:
        inspect.unwrap(type(operator).execute)(operator, context)
    assert first.value.trigger.serialize()[1]["job_id"] == ids[0]
    assert (first.value.method_name, first.value.kwargs) == ("execute_complete", {"job_ids": ids, "position": 0})

    job = sandbox.jobs()[0]
    sandbox.finish(job)
    event = event_of(operator, ids[0])
    with pytest.raises(TaskDeferred) as second:
        operator.execute_complete(context, event, **(first.value.kwargs or {}))
    assert second.value.trigger.serialize()[1]["job_id"] == ids[1]

    for each in sandbox.jobs():
        sandbox.finish(each)
    assert operator.execute_complete(context, event_of(operator, ids[1]), **(second.value.kwargs or {})) == ids


def test_a_wait_whose_ids_airflow_lost_finds_them_in_the_status_list(sandbox: Sandbox, source: str) -> None:
    # As after a deferral in dag.test(), which drops its arguments.
    ids = upload(source)
    operator = make_operator("redeem", source, wait_for_completion=True, deferrable=True)
    assert operator.execute_complete({"ti": TaskInstance(task_id="upload")}, event_of(operator, ids[0])) == ids
    assert sandbox.count("upload") == 1


def make_operator(kind: str, source: str, **arguments: Any) -> Any:
    given = {"coupon_identifier": "COUPON_CODE", "customer_identifier": "MOBILE"} if kind == "redeem" else {}
    return OPERATORS[kind](
        task_id="upload", coupon_series_id=SERIES, source=source, lookup_seconds=1.0, **given, **arguments
    )


def event_of(operator: CapillaryRedeemUploadOperator | CapillaryCouponUploadOperator, job_id: int) -> dict[str, Any]:
    """Return the event of a trigger whose job has completed."""
    jobs = {
        "redeem": operator.hook.get_redeem_upload_job,
        "coupon": operator.hook.get_coupon_upload_job,
    }[operator.kind.name]
    job = jobs(SERIES, job_id)
    return {"status": "success", "message": f"job {job_id} has finished", "job": job.to_dict()}


# --- credentials -------------------------------------------------------------------------------------------------


def test_a_refusal_of_the_credentials_names_the_bearer_token_of_capillarys_own_page(
    sandbox: Sandbox, source: str
) -> None:
    sandbox.upload_auth = "bearer"
    with pytest.raises(CapillaryError, match=r"Capillary's own page shows a bearer token.*Authentication type bearer"):
        upload(source)
    assert job_ids(sandbox) == []


def test_a_ready_token_uploads_where_capillary_wants_one(
    sandbox: Sandbox, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.upload_auth = "bearer"
    connection = sandbox.connection_json(auth_type="bearer", requests_per_minute=1_000_000)
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", connection)
    assert upload(source) == job_ids(sandbox)
    assert sandbox.count("token") == 0


def test_an_expired_ready_token_is_refused_before_anything_is_sent(
    sandbox: Sandbox, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.token_ttl_seconds = -60
    connection = sandbox.connection_json(auth_type="bearer", requests_per_minute=1_000_000)
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", connection)
    with pytest.raises(CapillaryAuthError, match="expired at"):
        upload(source)
    assert sandbox.requests == []


# --- secrecy -----------------------------------------------------------------------------------------------------


def test_no_row_and_no_secret_gets_into_the_log_or_an_error(
    sandbox: Sandbox, source: str, said: Callable[[], str]
) -> None:
    sandbox.inject(Fault("reset", endpoint="upload", processed=True))
    upload(source)
    sandbox.inject(Fault("status", endpoint="upload", status=400, body={"success": False, "message": "No."}))
    with pytest.raises(CapillaryError) as caught:
        upload(source, ti={"run_id": "another"})
    logged = said()
    for secret in (PERSONAL, "CODE1", sandbox.client_secret, *sandbox.tokens_issued):
        assert secret not in logged
        assert secret not in str(caught.value)
