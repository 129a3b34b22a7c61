# SPDX-License-Identifier: Apache-2.0
"""What a user gets: the wheel, in an environment without our sources, seen through Airflow's own commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.project import ROOT

EXAMPLES = ROOT / "example_dags"

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def install(requirement: str, into: Path) -> None:
    """Install into a new virtual environment, the versions being those of constraints.txt."""
    run(sys.executable, "-m", "venv", "--without-pip", into, cwd=ROOT)
    python = into / "bin" / "python"
    common = ["install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), requirement]
    try:
        # Seconds where pip takes half a minute: it links what it already has.
        run(sys.executable, "-m", "uv", "pip", *common, "--python", python, cwd=into)
    except AssertionError:
        # uv does not read pip's configuration, where the only index in reach may be named.
        run(sys.executable, "-m", "pip", "--python", str(python), *common, cwd=into)


class Installed:
    """An environment that holds our wheel and what it asks for, and an empty Airflow home."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.venv = folder / "venv"
        self.folder = folder
        install(str(wheel), self.venv)
        kept = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR")
        self.env = {name: os.environ[name] for name in kept if name in os.environ} | {
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "COLUMNS": "300",
        }

    def python(self, code: str) -> str:
        return run(self.venv / "bin" / "python", "-c", code, cwd=self.folder, env=self.env).stdout

    def airflow(self, *arguments: str) -> list[dict[str, Any]]:
        done = run(self.venv / "bin" / "airflow", *arguments, "-o", "json", cwd=self.folder, env=self.env)
        # Discovery logs and goes on where a provider is broken; both end up on stderr or before the list.
        noise = done.stdout.partition("[")[0] + done.stderr
        assert "capillary" not in noise.lower(), noise
        return json.loads(done.stdout[done.stdout.index("[") :])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path):
    folder = tmp_path_factory.mktemp("installed")
    yield Installed(folder, wheel)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_environment_is_clean(installed: Installed) -> None:
    where = installed.python("import airflow_provider_capillary as package; print(package.__file__)").strip()
    assert Path(where).is_relative_to(installed.venv)
    assert not Path(where).is_relative_to(ROOT)


def test_the_examples_can_be_imported_from_what_is_installed(installed: Installed) -> None:
    found = installed.python(
        "import pathlib, runpy, airflow_provider_capillary as package\n"
        "for file in (pathlib.Path(package.__path__[0]) / 'example_dags').glob('*.py'):\n"
        "    print(runpy.run_path(str(file))['dag'].dag_id)\n"
    )
    assert {file.stem for file in EXAMPLES.glob("*.py")} <= set(found.split())


def test_airflow_lists_the_package(installed: Installed) -> None:
    from airflow_provider_capillary import __version__

    (provider,) = [
        provider
        for provider in installed.airflow("providers", "list")
        if provider["package_name"] == "airflow-provider-capillary"
    ]
    assert provider["version"] == __version__


def test_airflow_finds_the_hook_of_the_connection_type(installed: Installed) -> None:
    hooks = {hook["connection_type"]: hook for hook in installed.airflow("providers", "hooks")}
    assert hooks["capillary"]["class"] == "airflow_provider_capillary.hooks.capillary.CapillaryHook"
    assert hooks["capillary"]["package_name"] == "airflow-provider-capillary"
    assert hooks["capillary"]["hook_name"] == "Capillary"


def test_other_providers_are_still_found(installed: Installed) -> None:
    # A provider info that Airflow cannot accept ends the discovery of all that come after it.
    found = {provider["package_name"] for provider in installed.airflow("providers", "list")}
    assert {"apache-airflow-providers-standard", "apache-airflow-providers-smtp"} <= found
