# SPDX-License-Identifier: Apache-2.0
"""What the task state store knows of an upload, and what a failing one changes."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_capillary._storage.upload_ledger import UploadLedger
from airflow_provider_capillary.api.errors import CapillaryUploadError


class Store(dict[str, Any]):
    """A task state store."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Broken(Store):
    """A task state store that is down."""

    def get(self, key: str, default: Any = None) -> Any:
        raise RuntimeError("secret-in-a-message")

    def set(self, key: str, value: Any) -> None:
        raise RuntimeError("secret-in-a-message")


def begun(store: Any) -> UploadLedger:
    ledger = UploadLedger(store)
    ledger.begin()
    return ledger


def test_a_first_try_has_sent_nothing() -> None:
    ledger = begun(Store())
    assert (ledger.may_have_sent, ledger.job_ids) == (False, {})


def test_the_next_try_knows_the_jobs_of_the_first() -> None:
    store = Store()
    begun(store).record("token", 4455)
    ledger = begun(store)
    assert (ledger.may_have_sent, ledger.job_ids) == (True, {"token": 4455})


def test_a_try_that_began_and_recorded_nothing_may_have_sent_something() -> None:
    store = Store()
    begun(store)
    assert begun(store).may_have_sent


def test_a_later_try_takes_over_and_the_earlier_one_sends_nothing_more() -> None:
    store = Store()
    first = begun(store)
    first.check()
    second = begun(store)
    with pytest.raises(CapillaryUploadError, match="a later try of this task has taken over"):
        first.check()
    second.check()


def test_without_a_store_nothing_is_known_and_nothing_fails() -> None:
    ledger = begun(None)
    ledger.check()
    ledger.record("token", 4455)
    assert (ledger.may_have_sent, ledger.job_ids) == (False, {"token": 4455})


def test_a_store_that_is_down_leaves_the_decision_to_the_status_list(caplog: pytest.LogCaptureFixture) -> None:
    ledger = begun(Broken())
    ledger.check()
    ledger.record("token", 4455)
    assert (ledger.may_have_sent, ledger.job_ids) == (True, {"token": 4455})
    assert "RuntimeError" in caplog.text
    assert "secret-in-a-message" not in caplog.text


@pytest.mark.parametrize("noted", ["text", {"job_ids": "text"}, {"job_ids": {"token": "many"}}, []], ids=repr)
def test_a_note_of_another_form_counts_as_one_without_jobs(noted: Any) -> None:
    assert begun(Store(capillary_upload=noted)).job_ids == {}


def test_a_store_that_cannot_be_read_is_not_written_over() -> None:
    store = Store()
    begun(store).record("token", 4455)
    kept = dict(store)

    class Unreadable(Store):
        def get(self, key: str, default: Any = None) -> Any:
            raise RuntimeError("no API server")

    unreadable = Unreadable(store)
    begun(unreadable)
    assert dict(unreadable) == kept


def test_a_try_that_was_taken_over_while_it_sent_notes_its_job_and_leaves_the_upload_to_the_later_one() -> None:
    store = Store()
    first = begun(store)
    first.check()
    second = begun(store)
    first.record("token", 4455)

    second.check()
    with pytest.raises(CapillaryUploadError):
        first.check()
    second.record("other", 4456)
    assert begun(store).job_ids == {"token": 4455, "other": 4456}
