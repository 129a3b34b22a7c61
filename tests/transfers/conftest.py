# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.transfers.running import connect
from tests.transfers.stores import LocalFolder

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox


@pytest.fixture(autouse=True)
def _connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, sandbox)


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    """An empty folder of this machine."""
    folder = tmp_path / "lake"
    folder.mkdir()
    return LocalFolder(folder)
