# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.integration.server_process import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.azurite import Azurite
    from tests.integration.gcs_emulator import GCSEmulator
    from tests.integration.seaweedfs import SeaweedFS


@pytest.fixture(scope="session", autouse=True)
def _quick_s3_clients() -> Iterator[None]:
    """Keep what botocore reads from its own files for each client: that takes longer than most of the tests."""
    if find_spec("botocore") is None:
        yield
        return
    from botocore import hooks, loaders

    with pytest.MonkeyPatch.context() as patch:
        load = functools.cache(loaders.JSONFileLoader().load_file)
        patch.setattr(loaders.JSONFileLoader, "load_file", lambda _, path: load(path))
        patch.setattr(hooks, "accepts_kwargs", functools.cache(hooks.accepts_kwargs))
        yield


@pytest.fixture(scope="session")
def gcs() -> Iterator[GCSEmulator]:
    """A server that speaks as Google Cloud Storage, with one bucket, the same for the whole run."""
    from tests.integration.gcs_emulator import GCSEmulator

    yield from started(GCSEmulator())


@pytest.fixture(scope="session")
def azure() -> Iterator[Azurite]:
    """A real Blob server with one container, the same for the whole run: use names of your own."""
    from tests.integration.azurite import Azurite

    yield from started(Azurite())


@pytest.fixture
def azure_connection(azure: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an Airflow connection to the Blob server."""
    monkeypatch.setenv("AIRFLOW_CONN_WASB_DEFAULT", azure.azure_connection_json())
    return "wasb_default"


@pytest.fixture(scope="session")
def s3() -> Iterator[SeaweedFS]:
    """A real S3 server with one bucket, the same for the whole run: use keys of your own."""
    from tests.integration.seaweedfs import SeaweedFS

    yield from started(SeaweedFS())


@pytest.fixture
def aws_connection(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an Airflow connection to the S3 server."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3.aws_connection_json())
    return "aws_default"
