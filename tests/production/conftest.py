# SPDX-License-Identifier: Apache-2.0
"""One Airflow in production's shape for all tests of this folder; each adds its DAGs and connections."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow_compat import IS_AIRFLOW_2
from tests.integration.server_process import started
from tests.production.settings import RESULTS
from tests.system.airflow_processes import AirflowProcesses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.production.servers import PostgreSQL, Redis

#: Settings of the cluster: what is lost with a process is found again within seconds, not hours.
SETTINGS = {
    "CORE__EXECUTOR": "CeleryExecutor",
    "CORE__PARALLELISM": "12",
    "CELERY__WORKER_ENABLE_REMOTE_CONTROL": "False",
    "CELERY__SYNC_PARALLELISM": "1",
    # A message that a killed worker had taken goes to another one. Longer than any task: what comes twice is refused.
    "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    # The task of a killed worker has failed.
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    # On two cores a triggerer that starts keeps another one from its heartbeat for seconds.
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}


_FIGURES = pytest.StashKey[dict[str, object]]()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> dict[str, object]:
    """Figures to print at the end, by name."""
    return pytestconfig.stash.setdefault(_FIGURES, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Print the figures of the run, and write them where the environment says so, if all tests passed."""
    lines = [f"{name}: {value}" for name, value in config.stash.get(_FIGURES, {}).items()]
    if lines:
        terminalreporter.section("figures")
    for line in lines:
        terminalreporter.write_line(line)
    if lines and RESULTS and not exitstatus:
        Path(RESULTS).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def libraries() -> None:
    """What the cluster and its servers need, or a skip with the reason."""
    if IS_AIRFLOW_2:
        pytest.skip("it needs the API server of Airflow 3")
    for module in ("airflow.providers.celery", "airflow.providers.postgres", "psycopg2", "redis"):
        pytest.importorskip(module, reason="the dependency group `production` is not installed")


@pytest.fixture(scope="session")
def postgresql(libraries: None) -> Iterator[PostgreSQL]:
    from tests.production.servers import PostgreSQL

    yield from started(PostgreSQL())


@pytest.fixture(scope="session")
def redis(libraries: None) -> Iterator[Redis]:
    from tests.production.servers import Redis

    yield from started(Redis())


@pytest.fixture(scope="session")
def hidden() -> list[Callable[[], Iterable[str]]]:
    """What no message of a failed test may show: a test adds what returns its secrets and tokens."""
    return []


@pytest.fixture(scope="session")
def cluster(
    postgresql: PostgreSQL, redis: Redis, hidden: list[Callable[[], Iterable[str]]]
) -> Iterator[AirflowProcesses]:
    """An Airflow with two Celery workers of four slots, two schedulers and two triggerers, and no DAG."""
    # A time limit around the tests sends SIGTERM: then, too, nothing may be left running.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with AirflowProcesses(
            dags={},
            connections={},
            hidden=lambda: [value for values in hidden for value in values()],
            database=postgresql.endpoint_url,
            counts={"scheduler": 2, "triggerer": 2, "worker": 2},
            settings=SETTINGS | {"CELERY__BROKER_URL": redis.endpoint_url},
        ) as running:
            yield running
    finally:
        signal.signal(signal.SIGTERM, before)
