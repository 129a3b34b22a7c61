# SPDX-License-Identifier: Apache-2.0
"""What all tests share: an Airflow that belongs to the test run alone, and a Capillary to talk to."""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from airflow_provider_capillary.sandbox import Sandbox


def _isolate_airflow() -> None:
    """Give Airflow a home of its own; it reads all of this once, when it is first imported."""
    if "airflow" in sys.modules:
        raise RuntimeError("airflow was imported before tests/conftest.py could give it a home of its own")
    for name in list(os.environ):
        if name.startswith(("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW_CONFIG", "AIRFLOW_HOME")):
            del os.environ[name]
    # A developer's cloud credentials must not make an S3 test pass, nor be used by one.
    for name in list(os.environ):
        if name.startswith("AWS_"):
            del os.environ[name]
    home = tempfile.mkdtemp(prefix="airflow-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(
        {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[1] / "example_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AWS_EC2_METADATA_DISABLED": "true",
            # The servers of the tests are on loopback, and not behind a proxy of the machine.
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost,::1"])),
        }
    )
    os.environ["no_proxy"] = os.environ["NO_PROXY"]


_isolate_airflow()

#: Folders with the longest files, which are run first.
_FIRST = ("integration", "triggers", "sensors")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first: one that starts last would keep one process busy while the others idle."""
    items.sort(key=lambda item: _FIRST.index(item.path.parent.name) if item.path.parent.name in _FIRST else len(_FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what is imported and collected out of garbage collections, which are a hundred times as fast without."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _masks() -> Iterator[None]:
    """Let Airflow forget the secrets of a test after it.

    Airflow keeps all that it masks in a process in one regular expression, and compiles it again with each: after a
    thousand tests that would take a second for every token.
    """
    yield
    if "airflow" in sys.modules:
        from tests.airflow_compat import reset_secrets_masker

        reset_secrets_masker()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A local Capillary on a free port, whose jobs run through as soon as they are asked about."""
    from airflow_provider_capillary.sandbox import Sandbox

    with Sandbox(queued_seconds=0, started_seconds=0) as running:
        yield running


def _made_once(name: str, make: Callable[[Path], object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that one process of the test run fills, and all of them read."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder := shared / name).exists():
            with tempfile.TemporaryDirectory(dir=shared) as unfinished:
                make(Path(unfinished))
                Path(unfinished).rename(folder)
                Path(unfinished).mkdir()
    return folder


def _migrate(folder: Path) -> None:
    """Make an empty metadata database."""
    env = os.environ | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db"}
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The metadata database of this process's own Airflow."""
    shutil.copy(_made_once("database", _migrate, tmp_path_factory) / "airflow.db", os.environ["AIRFLOW_HOME"])


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel that a release has."""
    from scripts.build import build

    folder = _made_once("distributions", build, tmp_path_factory)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def wheel(distributions: tuple[Path, Path]) -> Path:
    """The wheel that a release has."""
    return distributions[1]


@pytest.fixture
def capillary_connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an Airflow connection to the sandbox, without a request limit that a test would have to sit out."""
    monkeypatch.setenv("AIRFLOW_CONN_CAPILLARY_DEFAULT", sandbox.connection_json(requests_per_minute=1_000_000))
    return "capillary_default"


@pytest.fixture
def quick_retries(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two attempts, a few milliseconds apart, or the ``HttpRetry`` that the test gives as indirect parameter."""
    from airflow_provider_capillary.api.retry import HttpRetry, default_http_retry

    with default_http_retry(getattr(request, "param", HttpRetry(2, 0.01, 0.02, 0.05))):
        yield
