# SPDX-License-Identifier: Apache-2.0
"""The doctor as a command: its output, its exit code, and the same as a command of Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.doctor.cli import get_capillary_cli_commands
from airflow_provider_capillary.get_provider_info import get_provider_info
from tests.airflow_compat import TAKES_COMMANDS_OF_PROVIDERS
from tests.doctor.conftest import JOB_ID, SERIES, secrets_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_capillary.sandbox import Sandbox

MODULE = ("airflow_provider_capillary.doctor",)
COMMAND = ("airflow", "capillary", "doctor")


def run(command: Sequence[str], *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
        timeout=120,
    )


def test_prints_one_json_document_and_nothing_else_however_much_airflow_logs(
    sandbox: Sandbox, capillary_connection: str
) -> None:
    sandbox.add_job(SERIES, job_id=JOB_ID, errors=3)

    done = run(MODULE, capillary_connection, str(SERIES), "--json", AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["ok"], document["error_file"]["columns_first"]) == (True, 2)
    assert [value for value in secrets_of(sandbox) if value in done.stdout + done.stderr] == []


def test_prints_text_and_ends_with_1_if_a_step_failed(sandbox: Sandbox) -> None:
    connection = json.dumps(sandbox.connection() | {"password": "not-the-secret"})

    done = run(MODULE, "my_account", str(SERIES), AIRFLOW_CONN_MY_ACCOUNT=connection)

    assert done.returncode == 1, done.stderr
    assert "Token: failed" in done.stdout
    assert "Status call: skipped" in done.stdout
    assert "not-the-secret" not in done.stdout + done.stderr


@pytest.mark.usefixtures("airflow_database")
def test_says_in_one_sentence_that_there_is_no_such_connection() -> None:
    done = run(MODULE, "no_such_connection", str(SERIES), "--json")

    assert (done.returncode, done.stdout) == (2, "")
    assert "Airflow connection 'no_such_connection' is not defined" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize(
    "command",
    [
        MODULE,
        pytest.param(
            COMMAND,
            marks=pytest.mark.skipif(not TAKES_COMMANDS_OF_PROVIDERS, reason="this Airflow takes no such commands"),
        ),
    ],
    ids=["module", "airflow"],
)
def test_finds_a_connection_that_was_made_in_the_ui(command: tuple[str, ...], sandbox: Sandbox) -> None:
    conn_id = f"stored_{len(command)}"
    connection = sandbox.connection_json(requests_per_minute=1_000_000)
    added = run(("airflow",), "connections", "add", conn_id, "--conn-json", connection)
    assert added.returncode == 0, added.stderr

    done = run(command, conn_id, str(SERIES), "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["token"]["result"] == "ok"


def test_is_the_command_that_the_provider_info_names() -> None:
    info: Any = get_provider_info()
    (path,) = info["cli"]
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name) is get_capillary_cli_commands
    (group,) = get_capillary_cli_commands()
    assert (group.name, [command.name for command in group.subcommands]) == ("capillary", ["doctor"])


@pytest.mark.skipif(not TAKES_COMMANDS_OF_PROVIDERS, reason="this Airflow takes no commands of providers")
def test_runs_as_a_command_of_airflow(sandbox: Sandbox, capillary_connection: str) -> None:
    sandbox.add_job(SERIES, errors=3)

    done = run(COMMAND, capillary_connection, str(SERIES), "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"] is True
