# SPDX-License-Identifier: Apache-2.0
"""A real Airflow for tests: API server, scheduler, DAG processor, triggerer and workers, each a process of its own.

Airflow 2 needs a scheduler and a triggerer only. What no API offers in all versions, tests read from the database.
Where it is production's shape that is tested, there are several of a kind, and a database and a broker of their own.

It shows what `dag.test()` cannot: what becomes of deferred tasks and watchers when the triggerer dies, and what really
lies in the metadata database and in the logs.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import requests
import sqlalchemy
from cryptography.fernet import Fernet
from sqlalchemy.pool import NullPool

from tests.airflow_compat import AIRFLOW_VERSION, IS_AIRFLOW_2
from tests.ports import LOOPBACK, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

#: Deadlines, not waits: a machine with nothing else to do needs a tenth of these.
COMMAND_SECONDS = 120.0
START_SECONDS = 240.0
#: How long a process may take to end by itself.
STOP_SECONDS = 10.0
REQUEST_SECONDS = 60.0
GET_ATTEMPTS = 3
TAIL_LINES = 25
ERROR_CHARACTERS = 1000

COMMANDS = {
    "api-server": ["api-server", "--host", LOOPBACK, "--workers", "1"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
if IS_AIRFLOW_2:  # its scheduler parses DAG files itself, and tasks need no API
    del COMMANDS["api-server"], COMMANDS["dag-processor"]
#: A Celery worker, which only the CeleryExecutor needs.
WORKER_COMMAND = ["celery", "worker", "--concurrency", "4", "--skip-serve-logs", "--without-mingle", "--without-gossip"]
#: What a process writes once it serves, for those that are killed.
READY = {"triggerer": "Starting the triggerer", "worker": " ready."}


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs. A zombie, as in a container without an init, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class AirflowProcesses:
    """A running Airflow with a home and a database of its own; nothing of it is left on leaving the context.

    :param dags: Files to put into the folder of DAGs, by name.
    :param connections: Connections to store in the metadata database, by id.
    :param hidden: Returns what no message of a failed test may show.
    :param database: URL of an empty database; by default a file of SQLite.
    :param counts: How many processes of a kind there are, one by default. Those of several are called `scheduler-1`,
        `scheduler-2`. The kind `worker` is one of Celery's.
    :param settings: Further settings of Airflow, as `SECTION__KEY`.
    """

    def __init__(
        self,
        *,
        dags: Mapping[str, str],
        connections: Mapping[str, Mapping[str, Any]],
        hidden: Callable[[], Iterable[str]] = list,
        database: str = "",
        counts: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._dags = dict(dags)
        self._connections = connections
        self._hidden = hidden
        self._database = database
        self._counts = dict.fromkeys(COMMANDS, 1) | dict(counts or {})
        self._settings = settings or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = 0
        self._outputs: dict[str, Path] = {}
        self._env: dict[str, str] = {}
        self._session = requests.Session()
        # No proxy, no .netrc.
        self._session.trust_env = False
        self.home = Path()
        self.url = ""

    def __enter__(self) -> AirflowProcesses:
        self.home = Path(tempfile.mkdtemp(prefix="airflow-system-"))
        try:
            self._prepare()
            for kind in self._counts:
                for name in self.names(kind):
                    self.start(name)
            if "api-server" in COMMANDS:
                self._log_in()
                self._wait_until_healthy()
            self.wait_until(self._all_parsed, "the DAGs are parsed", seconds=START_SECONDS)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            self._session.close()
            shutil.rmtree(self.home, ignore_errors=True)

    @property
    def database(self) -> str:
        """The URL of the metadata database."""
        return self._database or f"sqlite:///{self.home}/airflow.db?timeout=60"

    def names(self, kind: str) -> list[str]:
        """Return the names of the processes of a kind."""
        count = self._counts.get(kind, 0)
        return [kind] if count == 1 else [f"{kind}-{number}" for number in range(1, count + 1)]

    @property
    def output(self) -> Path:
        """The folder with one file for each process: what it wrote to stdout and stderr."""
        return self.home / "output"

    def _prepare(self) -> None:
        self.output.mkdir()
        (self.home / "dags").mkdir()
        self._write_dags(self._dags)
        (port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        self._env = environment(self.home, port, self.database, self._settings)
        self.run("db", "migrate")
        if not self._database:
            # Readers and a writer at the same time: five processes share this file.
            self.select("PRAGMA journal_mode=WAL")
        if not self._connections:
            return
        # A file, as the client key would be seen among the arguments of a command, which Airflow keeps.
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(self._connections, file)
            file.flush()
            self.run("connections", "import", file.name)

    def _write_dags(self, dags: Mapping[str, str]) -> None:
        for name, content in dags.items():
            # At once: the DAG processor may read the folder at any time.
            written = self.home / name
            written.write_text(content)
            written.replace(self.home / "dags" / name)

    def add_dags(self, dags: Mapping[str, str]) -> None:
        """Put further files into the folder of DAGs, and wait until their DAGs are known.

        :param dags: The files by name. One that is no DAG is there before those that may read it.
        """
        self._dags |= dags
        self._write_dags(dict(sorted(dags.items(), key=lambda item: item[0].endswith(".py"))))
        self.wait_until(self._all_parsed, f"{', '.join(dags)} are parsed", seconds=START_SECONDS)

    def add_connections(self, connections: Mapping[str, Mapping[str, Any]]) -> None:
        """Store connections, or replace those with the same id, as a user of the UI does.

        :param connections: The connections by id.
        """
        actions = [
            {
                "action": "create",
                "action_on_existence": "overwrite",
                "entities": [
                    {"connection_id": conn_id, **connection, "extra": json.dumps(connection.get("extra") or {})}
                    for conn_id, connection in connections.items()
                ],
            }
        ]
        answer = self.patch("connections", {"actions": actions})
        assert not answer["create"]["errors"]

    def run(self, *arguments: str) -> None:
        """Run an `airflow` command to its end."""
        with (self.output / f"{arguments[0]}-{arguments[1]}.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *arguments],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        if done.returncode:
            raise AssertionError(f"airflow {' '.join(arguments[:2])} ended with {done.returncode}\n{self.tails()}")

    def start(self, name: str) -> None:
        """Start one of the processes."""
        self._starts += 1
        command = COMMANDS.get(kind_of(name), WORKER_COMMAND)
        if kind_of(name) == "worker":
            command = [*command, "--celery-hostname", f"{name}@%h", "--pid", str(self.home / f"{name}.pid")]
        self._outputs[name] = self.output / f"{name}-{self._starts}.log"
        with self._outputs[name].open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                # A group of its own: Ctrl-C reaches pytest alone, which then stops them here.
                start_new_session=True,
            )

    def is_running(self, name: str) -> bool:
        """Return whether a process was started and not killed since."""
        return name in self._processes

    def is_ready(self, name: str) -> bool:
        """Return whether a worker or a triggerer serves, since its last start."""
        return READY[kind_of(name)] in self._outputs[name].read_text(errors="replace")

    def kill(self, name: str) -> None:
        """End a process and all its children at once, as the kernel does when memory runs out."""
        family = self._send(name, signal.SIGKILL)
        process = self._processes.pop(name)
        process.wait(STOP_SECONDS)
        self.wait_until(lambda: not any(map(is_alive, family)), f"{name} is gone", seconds=STOP_SECONDS)

    def freeze(self, name: str) -> None:
        """Stop a process and all its children without ending them, as a virtual machine that is paused does."""
        self._send(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a process and all its children go on that were frozen."""
        self._send(name, signal.SIGCONT)

    def _send(self, name: str, number: signal.Signals) -> list[psutil.Process]:
        process = psutil.Process(self._processes[name].pid)
        family = [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        return family

    def stop(self) -> None:
        """End all processes and their children; a second call does nothing."""
        processes, self._processes = self._processes, {}
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in processes.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            deadline = time.monotonic() + STOP_SECONDS
            for process in processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        # Tasks have groups of their own, and their parent may be gone: they are known by their home.
        strays = [process for process in psutil.process_iter() if self._is_ours(process)]
        for stray in strays:
            with contextlib.suppress(psutil.NoSuchProcess):
                stray.kill()
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(is_alive, strays)) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("AIRFLOW_HOME") == str(self.home)
        except psutil.Error:
            return False

    def wait_until(self, condition: Callable[[], Any], what: str, *, seconds: float) -> Any:
        """Wait until a condition holds, and return what it returned.

        :param condition: Asked again and again, until it returns something that is true.
        :param what: What it is, for the message of the error.
        :param seconds: For how long.
        """
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended with {process.returncode}\n{self.tails()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.tails()}")
            time.sleep(0.25)
        return result

    def tails(self) -> str:
        """Return the last lines of what each process wrote, but for the debugging of Airflow itself."""
        tails = []
        for file in sorted(self.output.iterdir()):
            lines = [line for line in file.read_text(errors="replace").splitlines() if "[debug " not in line]
            tails.append("\n".join([f"---- {file.name}", *lines[-TAIL_LINES:]]))
        return self._without_hidden("\n".join(tails))

    def errors_of(self, dag_id: str) -> str:
        """Return the errors in the logs of the tasks of a DAG, each with its file."""
        files = sorted((self.home / "logs" / f"dag_id={dag_id}").rglob("*.log*"))
        lines = [
            f"{file.name}: {line[:ERROR_CHARACTERS]}"
            for file in files
            for line in file.read_text(errors="replace").splitlines()
            if '"level":"error"' in line
        ]
        return self._without_hidden("\n".join(lines))

    def _without_hidden(self, text: str) -> str:
        for value in self._hidden():
            text = text.replace(value, "***")
        return text

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Ask the REST API; more than once where it had no time, or no access to the database."""
        for _ in range(GET_ATTEMPTS - 1):
            try:
                return self._request("GET", path, params=params)
            except requests.HTTPError as error:
                if error.response.status_code < 500:
                    raise
            except requests.RequestException:
                pass
            time.sleep(1)
        return self._request("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a POST request to the REST API."""
        return self._request("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a PATCH request to the REST API."""
        return self._request("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """Send a DELETE request to the REST API."""
        self._request("DELETE", path)

    def _request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self._session.request(method, f"{self.url}/api/v2/{path}", timeout=REQUEST_SECONDS, **arguments)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json() if answer.content else {}
        return body

    def _log_in(self) -> None:
        def token() -> str | None:
            try:
                answer = self._session.get(f"{self.url}/auth/token", timeout=10)
            except requests.RequestException:
                return None
            return str(answer.json()["access_token"]) if answer.ok else None

        found = self.wait_until(token, "the API server hands out a token", seconds=START_SECONDS)
        self._session.headers["Authorization"] = f"Bearer {found}"

    def _wait_until_healthy(self) -> None:
        def healthy() -> bool:
            return all(part["status"] == "healthy" for part in self.get("monitor/health").values())

        self.wait_until(healthy, "all parts of Airflow are healthy", seconds=START_SECONDS)

    def _all_parsed(self) -> bool:
        errors = self.select("SELECT filename, stacktrace FROM import_error")
        assert not errors, errors
        wanted = {name for name in self._dags if name.endswith(".py")}
        return wanted <= {Path(fileloc).name for (fileloc,) in self.select("SELECT fileloc FROM dag")}

    def select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read from the metadata database.

        :param query: The query, with a question mark for each value.
        :param values: The values.
        """
        engine = sqlalchemy.create_engine(self.database, poolclass=NullPool)
        if engine.dialect.paramstyle != "qmark":
            query = query.replace("?", "%s")
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query, values)]

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a DAG run and return its id."""
        return str(self.post(f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])

    def runs(self, dag_id: str) -> list[str]:
        """Return the ids of all runs of a DAG, in the order in which they came."""
        found = self.get(f"dags/{dag_id}/dagRuns", order_by="id", limit=100)["dag_runs"]
        return [run["dag_run_id"] for run in found]

    def task_instances(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a DAG run by task id."""
        found = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=100)["task_instances"]
        return {instance["task_id"]: instance for instance in found}

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom; None if there is none."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        try:
            return self.get(path, deserialize="true")["value"]
        except requests.HTTPError as error:
            if error.response.status_code == 404:
                return None
            raise


def kind_of(name: str) -> str:
    """Return the kind of a process, such as `worker` of `worker-2`."""
    return name.rstrip("-0123456789")


def environment(home: Path, port: int, database: str, further: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an Airflow that is on this machine alone, and quick to see that a part is gone.

    :param home: Its home.
    :param port: Of the API server.
    :param database: URL of its database.
    :param further: Settings to add or to replace.
    """
    # Python may keep what it compiles: a task is a process, which would compile all that it imports once more.
    dropped = ("AIRFLOW", "_AIRFLOW", "PYTEST", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    settings = {
        "API__BASE_URL": f"http://{LOOPBACK}:{port}",
        "API__PORT": str(port),
        "API__SECRET_KEY": secrets.token_hex(16),
        "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"http://{LOOPBACK}:{port}/execution/",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__FERNET_KEY": Fernet.generate_key().decode(),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": "4",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # Five processes share the file: wait for the lock instead of failing after five seconds.
        "DATABASE__SQL_ALCHEMY_CONN": database,
        # Airflow 3.0 starts a watcher only when the file of its DAG is parsed for the second time.
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600" if AIRFLOW_VERSION >= (3, 1) else "5",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # SQLite locks no rows: in Airflow 2 a task that ends and the scheduler may both schedule the next task, whose
        # first try then counts as its second.
        "SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": str(not IS_AIRFLOW_2),
        # A triggerer that sent no heartbeat for so long is dead, and its triggers go to another one.
        "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
        # All that a user may ever get to see in a log.
        "LOGGING__LOGGING_LEVEL": "DEBUG",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        # As long as a task's supervisor may sleep after the task has ended.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        # On a loaded machine an answer takes its time.
        "WORKERS__EXECUTION_API_TIMEOUT": "30",
    }
    return (
        kept
        | {f"AIRFLOW__{name}": value for name, value in (settings | dict(further)).items()}
        | {
            "AIRFLOW_HOME": str(home),
            # Otherwise Airflow 2 accepts SQLite with an executor only that takes five seconds to start each task.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            # Airflow 2 runs tasks by the command `airflow`.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": LOOPBACK,
            "no_proxy": LOOPBACK,
        }
    )
