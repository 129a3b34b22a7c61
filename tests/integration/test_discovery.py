# SPDX-License-Identifier: Apache-2.0
"""What a user gets: the wheel, in an environment without our sources, seen through Airflow's own commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cached_property
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project import ROOT

EXAMPLES = ROOT / "example_dags"

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def install(wheel: Path, into: Path) -> None:
    """Install into a new virtual environment."""
    run(sys.executable, "-m", "venv", "--without-pip", into, cwd=ROOT)
    python = into / "bin" / "python"
    common = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    run(sys.executable, "-m", "uv", "pip", *common, "--python", python, cwd=into)
    (site_packages,) = into.glob("lib/python*/site-packages")
    (ours,) = distributions(path=[str(site_packages)])
    for dist in required_by(ours):
        for top in {file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")}:
            there, here = Path(dist.locate_file(top)), site_packages / top  # type: ignore[arg-type] # always a path
            if not here.exists():  # several share a folder
                here.symlink_to(there)


def required_by(dist: Distribution) -> list[Distribution]:
    """Return what a package asks for, and what that asks for, as it is installed beside the tests.

    Downloading and linking it once more would take a minute and prove the same: that nothing is missing from the list.
    """
    found: dict[str, Distribution] = {}
    todo, seen = [(dist, "")], {(dist.name, "")}
    while todo:
        by, extra = todo.pop()
        for requirement in map(Requirement, by.requires or ()):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(requirement.name)
            found[name] = wanted = distribution(name)
            assert requirement.specifier.contains(wanted.version, prereleases=True), requirement
            for each in ("", *requirement.extras):
                if (name, each) not in seen:
                    seen.add((name, each))
                    todo.append((wanted, each))
    return list(found.values())


class Installed:
    """An environment that holds our wheel and what it asks for, and an empty Airflow home."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.venv = folder / "venv"
        self.folder = folder
        install(wheel, self.venv)
        kept = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR")
        self.env = {name: os.environ[name] for name in kept if name in os.environ} | {
            "AIRFLOW_HOME": str(folder / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "COLUMNS": "300",
        }

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.venv / "bin" / "python", *arguments, cwd=self.folder, env=self.env)

    def airflow(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.python("-m", "airflow", *arguments, "-o", "json")
        # Discovery logs and goes on where a provider is broken; both end up on stderr or before the list.
        noise = done.stdout.partition("[")[0] + done.stderr
        assert "capillary" not in noise.lower(), noise
        return json.loads(done.stdout[done.stdout.index("[") :])

    @cached_property
    def providers(self) -> dict[str, dict[str, Any]]:
        """What Airflow lists, by name of the package."""
        return {provider["package_name"]: provider for provider in self.airflow("providers", "list")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path):
    folder = tmp_path_factory.mktemp("installed")
    yield Installed(folder, wheel)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_environment_is_clean(installed: Installed) -> None:
    done = installed.python("-c", "import airflow_provider_capillary as package; print(package.__file__)")
    where = Path(done.stdout.strip())
    assert where.is_relative_to(installed.venv)
    assert not where.is_relative_to(ROOT)
    assert not where.is_symlink()


def test_the_examples_can_be_imported_from_what_is_installed(installed: Installed) -> None:
    found = installed.python(
        "-c",
        "import pathlib, runpy, airflow_provider_capillary as package\n"
        "for file in (pathlib.Path(package.__path__[0]) / 'example_dags').glob('*.py'):\n"
        "    print(runpy.run_path(str(file))['dag'].dag_id)\n",
    ).stdout
    assert {file.stem for file in EXAMPLES.glob("*.py")} <= set(found.split())


def test_airflow_lists_the_package(installed: Installed) -> None:
    from airflow_provider_capillary import __version__

    assert installed.providers["airflow-provider-capillary"]["version"] == __version__


def test_airflow_finds_the_hook_of_the_connection_type(installed: Installed) -> None:
    hooks = {hook["connection_type"]: hook for hook in installed.airflow("providers", "hooks")}
    assert hooks["capillary"]["class"] == "airflow_provider_capillary.hooks.capillary.CapillaryHook"
    assert hooks["capillary"]["package_name"] == "airflow-provider-capillary"
    assert hooks["capillary"]["hook_name"] == "Capillary"


def test_other_providers_are_still_found(installed: Installed) -> None:
    # A provider info that Airflow cannot accept ends the discovery of all that come after it.
    assert {"apache-airflow-providers-standard", "apache-airflow-providers-smtp"} <= set(installed.providers)
