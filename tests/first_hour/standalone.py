# SPDX-License-Identifier: Apache-2.0
"""Airflow as the page starts it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import psutil
import requests

from tests.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

#: Deadlines, not waits: a machine with nothing else to do needs a tenth of these.
START_SECONDS = 300.0
STOP_SECONDS = 15.0


class Standalone:
    """An Airflow that `airflow standalone` has started.

    :param folder: Where its output is kept.
    :param env: Environment, with the Airflow home, in which the command is found.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        (port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        settings = {
            # What the page does not need: another port, no password, and few processes.
            "API__PORT": str(port),
            "API__BASE_URL": self.url,
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__PARALLELISM": "2",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            # On a loaded machine an answer takes its time.
            "WORKERS__EXECUTION_API_TIMEOUT": "60",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{env['AIRFLOW_HOME']}/airflow.db?timeout=60",
        }
        self._session = requests.Session()
        # No proxy, no .netrc.
        self._session.trust_env = False
        self._log = folder / "standalone.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["airflow", "standalone"],
                env={**env, **{f"AIRFLOW__{name}": value for name, value in settings.items()}},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_healthy(self) -> None:
        """Wait until all its parts run."""
        token = self.until(lambda: self._ask("auth/token"), "the API server answers", seconds=START_SECONDS)
        self._session.headers["Authorization"] = f"Bearer {token['access_token']}"

        def healthy() -> bool:
            parts = self.get("monitor/health")
            return all(part["status"] == "healthy" for part in parts.values())

        self.until(healthy, "all parts are healthy", seconds=START_SECONDS)

    def get(self, path: str) -> dict[str, Any]:
        """Ask the REST API; an empty answer where it has none."""
        return self._ask(f"api/v2/{path}")

    def until(self, condition: Callable[[], Any], what: str, *, seconds: float) -> Any:
        """Wait until a condition holds, and return what it returned."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            is_over = time.monotonic() > deadline or self._process.poll() is not None
            assert not is_over, f"not within {seconds:.0f} s: {what}\n{self._log.read_text(errors='replace')[-5000:]}"
            time.sleep(0.5)
        return result

    def stop(self) -> None:
        """End all its processes."""
        self._session.close()
        family = [psutil.Process(self._process.pid)] if self._process.poll() is None else []
        family += [child for member in family for child in member.children(recursive=True)]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(number)
            _, family = psutil.wait_procs(family, STOP_SECONDS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)

    def _ask(self, path: str) -> dict[str, Any]:
        try:
            answer = self._session.get(f"{self.url}/{path}", timeout=60)
        except requests.RequestException:
            return {}
        body: dict[str, Any] = answer.json() if answer.ok else {}
        return body
