# SPDX-License-Identifier: Apache-2.0
"""How the tests run the upload operators: with the real hook against a sandbox, as a task would."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.retry import HttpRetry, default_http_retry
from airflow_provider_capillary.operators.capillary import CapillaryCouponUploadOperator, CapillaryRedeemUploadOperator
from tests.running import StateStore, TaskInstance

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox

SERIES = 535512
HEADER = "redeemedDateInMillis,redeemedAt,mobile,couponCode\n"
#: The data of a customer, which no message, log line or XCom may show.
PERSONAL = "919900000001"
#: As many attempts as by default, without the waits.
QUICK = HttpRetry(base_seconds=0.001, cap_seconds=0.01)
OPERATORS = {"redeem": CapillaryRedeemUploadOperator, "coupon": CapillaryCouponUploadOperator}


def row(number: int) -> str:
    """Return a row that the sandbox redeems."""
    return f"1732000000000,till-1,{PERSONAL},CODE{number}\n"


def write_source(path: Path, rows: int = 3, *, header: str = HEADER) -> str:
    """Write a file to upload and return its path."""
    path.write_text(header + "".join(map(row, range(rows))))
    return str(path)


def upload(
    source: str,
    *,
    kind: str = "redeem",
    ti: dict[str, Any] | None = None,
    started_at: datetime = datetime(2026, 11, 25, tzinfo=UTC),
    state_file: str | None = None,
    **arguments: Any,
) -> list[int]:
    """Run one try of an upload task.

    :param source: The file.
    :param kind: ``redeem`` or ``coupon``.
    :param ti: Fields of the task instance.
    :param started_at: Start of the DAG run.
    :param state_file: Where Airflow keeps the state of the task; None for an Airflow without a state store.
    :param arguments: Arguments of the operator.
    """
    given: dict[str, Any] = {"coupon_series_id": SERIES, "lookup_seconds": 1.0, **arguments}
    if kind == "redeem":
        given = {"customer_identifier": "MOBILE", "coupon_identifier": "COUPON_CODE", **given}
    operator = OPERATORS[kind](task_id="upload", source=source, **given)
    context: dict[str, Any] = {
        "ti": TaskInstance(**{"task_id": "upload", **(ti or {})}),
        "dag_run": SimpleNamespace(start_date=started_at),
    }
    if state_file is not None:
        context["task_state_store"] = StateStore(state_file)
    with default_http_retry(QUICK):
        # Unwrapped, as Airflow 2 keeps count of its callers for the main thread only.
        job_ids: list[int] = inspect.unwrap(type(operator).execute)(operator, context)
    return job_ids


def job_ids(sandbox: Sandbox, series: int = SERIES) -> list[int]:
    """Return the ids of all jobs of a series."""
    return [job.job_id for job in sandbox.jobs(series)]
