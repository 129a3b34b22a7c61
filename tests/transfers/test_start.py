# SPDX-License-Identifier: Apache-2.0
"""What a task imports, which is a process of its own each time: no file system that it does not write to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.transfers.contract import NAME
from tests.transfers.fresh import FILE_SYSTEMS, run_fresh
from tests.transfers.running import SERIES, SMALL
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.transfers.stores import LocalFolder


@pytest.fixture
def job(sandbox: Sandbox) -> SandboxJob:
    return sandbox.add_job(SERIES, errors=1, error_file=SMALL)


def test_a_transfer_to_a_folder_imports_no_library_of_a_store(job: SandboxJob, store: LocalFolder) -> None:
    outcomes, imported = run_fresh(job, f"{store.path}/{NAME}", f"file://{store.path}/again.csv")

    assert outcomes == [f"file://{store.path}/{NAME}", f"file://{store.path}/again.csv"]
    assert store.visible() == {NAME: Content.of(SMALL), "again.csv": Content.of(SMALL)}
    assert not {"boto3", *FILE_SYSTEMS} & imported


def test_a_store_whose_provider_is_not_installed_is_refused(job: SandboxJob, sandbox: Sandbox) -> None:
    # Airflow reads the package data of a provider beside these, from its entry point.
    packages = (
        "airflow.providers.amazon.aws",
        "airflow.providers.google.cloud",
        "airflow.providers.microsoft.azure.fs",
    )
    schemes = ("s3", "s3a", "gs", "abfs")

    outcomes, _ = run_fresh(job, *(f"{scheme}://lake/{NAME}" for scheme in schemes), missing=packages)

    for scheme, outcome in zip(schemes, outcomes, strict=True):
        assert outcome.startswith(f"CapillaryConfigurationError: destination begins with '{scheme}'")
        assert "is the Airflow provider of the store installed?" in outcome
    assert sandbox.requests == []


def test_a_connection_that_does_not_exist_is_an_error_that_names_it(job: SandboxJob, tmp_path: Path) -> None:
    outcomes, _ = run_fresh(job, f"file://{tmp_path}/{NAME}", f"s3://lake/{NAME}", object_storage_conn_id="missing")

    for outcome in outcomes:
        assert "missing" in outcome
        assert "isn't defined" in outcome
    assert list(tmp_path.iterdir()) == []
