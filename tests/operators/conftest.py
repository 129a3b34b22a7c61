# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.operators.running import write_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _connection(capillary_connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The locks of uploads, of this process and of its children.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A file with three rows."""
    return write_source(tmp_path / "redeemed.csv")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return everything that was logged or printed since the last call, wherever this Airflow sends it."""
    caplog.set_level(logging.DEBUG)

    def read() -> str:
        text = "".join((caplog.text, *capfd.readouterr()))
        caplog.clear()
        return text

    return read
