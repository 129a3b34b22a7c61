# SPDX-License-Identifier: Apache-2.0
"""How the tests run the upload operators: with the real hook against a sandbox, as a task would."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.retry import HttpRetry, default_http_retry
from airflow_provider_capillary.operators.capillary import CapillaryCouponUploadOperator, CapillaryRedeemUploadOperator

if TYPE_CHECKING:
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


@dataclass
class TaskInstance:
    """What the operator uses of a task instance."""

    dag_id: str = "night"
    task_id: str = "upload"
    run_id: str = "scheduled__2026-11-24T00:00:00+00:00"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        # As in Airflow, an XCom has to survive JSON.
        self.xcoms[key] = json.loads(json.dumps(value))


class SharedStateStore:
    """Airflow's state store of a task, which all tries of it see.

    :param file: Where it is kept.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    def _values(self) -> dict[str, Any]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def get(self, key: str, default: Any = None) -> Any:
        return self._values().get(key, default)

    def set(self, key: str, value: Any) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps({**self._values(), key: value}))
        part.replace(self._file)

    def delete(self, key: str) -> None:
        self.set(key, None)


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
        "ti": TaskInstance(**(ti or {})),
        "dag_run": SimpleNamespace(start_date=started_at),
    }
    if state_file is not None:
        context["task_state_store"] = SharedStateStore(state_file)
    with default_http_retry(QUICK):
        # Unwrapped, as Airflow 2 keeps count of its callers for the main thread only.
        job_ids: list[int] = inspect.unwrap(type(operator).execute)(operator, context)
    return job_ids


def job_ids(sandbox: Sandbox, series: int = SERIES) -> list[int]:
    """Return the ids of all jobs of a series."""
    return [job.job_id for job in sandbox.jobs(series)]
