# SPDX-License-Identifier: Apache-2.0
"""The token of an upload: the same for every try of a task, and another for everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_capillary.api.upload_identity import TaskIdentity, tries_before_clearing

TASK = TaskIdentity(dag_id="night", task_id="upload", run_id="scheduled__2026-11-24", map_index=-1)
PART: dict[str, Any] = {"kind": "redeem", "coupon_series_id": 535512, "part": 0, "sha256": "ab" * 32}


def test_the_token_of_a_part_is_the_same_in_every_process_and_version() -> None:
    # A retry may run on a worker that has been upgraded: another token would upload a second time.
    assert replace(TASK).token(**PART) == "1fa3aca0efde8947c33ac0a9"


@pytest.mark.parametrize(
    "other",
    [
        {"dag_id": "day"},
        {"task_id": "upload_2"},
        {"run_id": "scheduled__2026-11-25"},
        {"map_index": 0},
        {"forced": "1"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_task_has_another_token(other: dict[str, Any]) -> None:
    assert replace(TASK, **other).token(**PART) != TASK.token(**PART)


@pytest.mark.parametrize(
    "other",
    [{"kind": "coupon"}, {"coupon_series_id": 535513}, {"part": 1}, {"sha256": "cd" * 32}],
    ids=lambda other: next(iter(other)),
)
def test_another_part_has_another_token(other: dict[str, Any]) -> None:
    assert TASK.token(**{**PART, **other}) != TASK.token(**PART)


def test_values_that_run_together_do_not_share_a_token() -> None:
    one, two = replace(TASK, dag_id="a", task_id="bc"), replace(TASK, dag_id="ab", task_id="c")
    assert one.token(**PART) != two.token(**PART)


@pytest.mark.parametrize(
    ("max_tries", "retries", "tries"),
    [(2, 2, 0), (3, 2, 1), (5, 2, 3), (0, 0, 0), (1, 2, 0)],
    ids=["never", "after_the_first", "after_the_third", "without_retries", "retries_raised_since"],
)
def test_a_cleared_task_is_recognised_by_its_raised_max_tries(max_tries: int, retries: int, tries: int) -> None:
    assert tries_before_clearing(max_tries=max_tries, retries=retries) == tries
