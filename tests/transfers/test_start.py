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


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_transfer_to_a_folder_imports_no_library_of_a_store(job: SandboxJob, store: LocalFolder, prefix: str) -> None:
    done = run_fresh(job, f"{prefix}{store.path}/{NAME}")

    assert store.visible() == {NAME: Content.of(SMALL)}
    assert not {"boto3", *FILE_SYSTEMS} & set(done["imported"])


@pytest.mark.parametrize("scheme", ["s3", "s3a", "gs", "abfs"])
def test_a_store_whose_provider_is_not_installed_is_refused(job: SandboxJob, sandbox: Sandbox, scheme: str) -> None:
    # Airflow reads the package data of a provider beside these, from its entry point.
    packages = (
        "airflow.providers.amazon.aws",
        "airflow.providers.google.cloud",
        "airflow.providers.microsoft.azure.fs",
    )

    done = run_fresh(job, f"{scheme}://lake/{NAME}", missing=packages)

    assert done["error"].startswith(f"CapillaryConfigurationError: destination begins with '{scheme}'")
    assert "is the Airflow provider of the store installed?" in done["error"]
    assert sandbox.requests == []


@pytest.mark.parametrize("scheme", ["file", "s3"])
def test_a_connection_that_does_not_exist_is_an_error_that_names_it(
    job: SandboxJob, tmp_path: Path, scheme: str
) -> None:
    done = run_fresh(job, f"{scheme}://{tmp_path}/{NAME}".replace("s3:///", "s3://"), object_storage_conn_id="missing")

    assert "missing" in done["error"]
    assert "isn't defined" in done["error"]
    assert list(tmp_path.iterdir()) == []
