# SPDX-License-Identifier: Apache-2.0
"""The count of failed polls in the state store of a task."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_capillary._polling.stored_failures import StoredFailures

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


def test_the_count_of_the_same_try_is_read_again_and_that_of_another_is_not() -> None:
    store = Store()
    failures(store).write(3)

    assert failures(store).read() == 3
    assert failures(store, try_number=2).read() == 0


@pytest.mark.parametrize("value", [None, "", 3, [1], [1, "3"], [1, -1], [1, True], [1, 3, 3], {"1": 3}])
def test_what_is_no_count_is_read_as_0(value: Any) -> None:
    store = Store()
    failures(store).write(3)
    store.values = dict.fromkeys(store.values, value)

    assert failures(store).read() == 0
    assert failures(store).is_usable


@pytest.mark.parametrize("call", [StoredFailures.read, lambda counted: counted.write(1)], ids=["read", "write"])
def test_a_store_that_fails_is_warned_about_once_and_not_used_again(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    store.fails, counted = True, failures(store)
    for _ in range(3):
        call(counted)

    assert store.calls == 1
    assert not counted.is_usable
    assert counted.read() == 0
    (warning,) = caplog.messages
    assert "(RuntimeError)" in warning
    assert "hunter2" not in warning


def test_without_the_number_of_the_try_nothing_is_kept() -> None:
    store = Store()
    counted = failures(store, try_number=None)
    counted.write(3)

    assert not counted.is_usable
    assert (counted.read(), store.calls) == (0, 0)
