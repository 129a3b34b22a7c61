# SPDX-License-Identifier: Apache-2.0
"""The count of failed polls in the state store of a task."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest

from airflow_provider_capillary._polling.stored_failures import StoredFailures
from airflow_provider_capillary.api.upload_kinds import REDEEM
from airflow_provider_capillary.api.wait_log import WaitTimes
from airflow_provider_capillary.api.waiting import JobWaiter, WaitOptions

log = logging.getLogger("the task")


class Store:
    """What Airflow's state store of a task does."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.calls = 0
        self.fails = False

    def get(self, key: str) -> Any:
        self._called()
        return self.values.get(key)

    def set(self, key: str, value: Any) -> None:
        self._called()
        self.values[key] = value

    def _called(self) -> None:
        self.calls += 1
        if self.fails:
            raise RuntimeError("no API server, says hunter2")


def failures(store: Store | None, try_number: int | None = 1) -> StoredFailures:
    return StoredFailures({"ti": SimpleNamespace(try_number=try_number), "task_state_store": store}, log)


def wait_with(count: int = 0) -> JobWaiter:
    return JobWaiter(WaitOptions(coupon_series_id=1), kind=REDEEM, log=log, now=pendulum.now, failures=count)


def write(stored: StoredFailures, count: int) -> None:
    stored.store(wait_with(count))


def read(stored: StoredFailures) -> int:
    wait = wait_with()
    stored.restore(wait, WaitTimes(interval=60), 600)
    return wait.failures


def test_the_count_of_the_same_try_is_read_again_and_that_of_another_is_not() -> None:
    store = Store()
    write(failures(store), 3)

    assert read(failures(store)) == 3
    assert read(failures(store, try_number=2)) == 0


@pytest.mark.parametrize("value", [None, "", 3, [1], [1, "3"], [1, -1], [1, True], [1, 3, 3], {"1": 3}], ids=repr)
def test_what_is_no_count_is_read_as_0(value: Any) -> None:
    store = Store()
    write(failures(store), 3)
    store.values = dict.fromkeys(store.values, value)

    stored = failures(store)
    assert read(stored) == 0
    assert stored.is_usable


@pytest.mark.parametrize("call", [read, lambda stored: write(stored, 1)], ids=["read", "write"])
def test_a_store_that_fails_is_warned_about_once_and_not_used_again(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    store.fails, stored = True, failures(store)
    for _ in range(3):
        call(stored)

    assert store.calls == 1
    assert not stored.is_usable
    assert read(stored) == 0
    (warning,) = [message for message in caplog.messages if "cannot be kept" in message]
    assert "(RuntimeError)" in warning
    assert "hunter2" not in caplog.text


def test_without_the_number_of_the_try_nothing_is_kept() -> None:
    store = Store()
    stored = failures(store, try_number=None)
    write(stored, 3)

    assert not stored.is_usable
    assert (read(stored), store.calls) == (0, 0)
