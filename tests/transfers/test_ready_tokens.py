# SPDX-License-Identifier: Apache-2.0
"""A transfer over a connection whose ready token a secrets backend rotates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.exceptions import CapillaryAuthError
from tests.connections import bearer_connection
from tests.transfers.running import SERIES, SMALL, Run
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import LocalFolder


@pytest.mark.parametrize("ending", ["expired", "refused"])
def test_a_transfer_that_begins_with_an_old_token_goes_on_with_the_new_one(
    sandbox: Sandbox, store: LocalFolder, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
    sandbox.token_ttl_seconds = -60.0 if ending == "expired" else 300.0
    old = bearer_connection(sandbox, monkeypatch)
    run = Run(job, f"{store.folder}errors.csv")
    assert run.operator.hook.settings.ready_token == old
    sandbox.expire_tokens()
    sandbox.token_ttl_seconds = 300.0
    new = bearer_connection(sandbox, monkeypatch)

    run()

    assert store.visible() == {"errors.csv": Content.of(SMALL)}
    sent = [request.headers["Authorization"] for request in sandbox.requests]
    assert sent == [f"Bearer {token}" for token in ((new, new) if ending == "expired" else (old, new, new))]
    assert [token for token in (old, new) if token in str(run.xcoms)] == []


def test_a_transfer_with_an_expired_token_sends_nothing_and_writes_nothing(
    sandbox: Sandbox, store: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
    sandbox.token_ttl_seconds = -60.0
    bearer_connection(sandbox, monkeypatch)

    with pytest.raises(CapillaryAuthError, match="expired at"):
        Run(job, f"{store.folder}errors.csv")()

    assert store.visible() == {}
    assert sandbox.requests == []
