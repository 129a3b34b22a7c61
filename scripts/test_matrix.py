# SPDX-License-Identifier: Apache-2.0
"""Install the package beside every Airflow that it supports, as its users do, and run tests there.

Each environment has a constraint file in tests/constraints, whose versions of Airflow's own packages are those that
Airflow's constraint file for that release pins. An environment whose interpreter is not on this machine is skipped by
name. Prints a table, and ends with 1 if anything in it failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "tests" / "constraints"
MATRIX = ROOT / ".matrix"
FAILED = "FAILED"
INSTALL_SECONDS = 900
TEST_SECONDS = 1500
TAIL_LINES = 60

#: What Airflow and Capillary do to the package, without what no version of Airflow changes.
WAITS = (
    "tests/sensors",
    "tests/triggers",
    "tests/operators",
    "tests/assets",
    "tests/example_dags",
    "tests/test_airflow_versions.py",
)
#: All but what kills processes for minutes, the servers of Azure and Google, and api/, which knows no Airflow.
UNITS = (
    "tests/hooks",
    "tests/transfers",
    "tests/test_get_provider_info.py",
    "tests/integration/test_error_file_to_s3.py",
    "-k",
    "not Killing",
    *WAITS,
)
REQUESTS = ("tests/api", "tests/hooks", "tests/sensors", "tests/triggers", "tests/test_airflow_versions.py")
FORM = "tests/test_connection_form.py"
REAL_RUN = "tests/system/test_real_run.py"


@dataclass(frozen=True)
class Environment:
    """A version of Airflow with a version of Python, and what is run there.

    :param airflow: Version of Airflow.
    :param python: Version of Python, such as 3.12.
    :param tests: Arguments of pytest.
    :param real_run: Whether tasks are run by a scheduler and a triggerer, too.
    :param lowest: Whether everything that pyproject.toml names is at its floor.
    """

    airflow: str
    python: str
    tests: tuple[str, ...] = ()
    real_run: bool = False
    lowest: bool = False

    @property
    def name(self) -> str:
        """What it is called on the command line, and what its constraint file is called."""
        return f"airflow-{self.airflow}-python-{self.python}" + ("-lowest" if self.lowest else "")

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of the package that are installed; the floors of theirs are those of Airflow 3.0.6."""
        return () if self.lowest else ("s3", "azure", "gcs")

    @property
    def constraints(self) -> Path:
        """The versions of everything in it."""
        return CONSTRAINTS / f"{self.name}.txt"


#: Airflow 3.3.2 with Python 3.11 is not among them: that is what `make test` runs on.
ENVIRONMENTS = (
    Environment("3.3.2", "3.13", REQUESTS),
    Environment("3.3.2", "3.14", REQUESTS),
    Environment("3.3.1", "3.12"),
    Environment("3.2.1", "3.12", WAITS, real_run=True),
    Environment("3.1.8", "3.13", WAITS, real_run=True),
    Environment("3.0.6", "3.12", UNITS, real_run=True),
    Environment("2.11.2", "3.12", UNITS, real_run=True),
    Environment("2.11.0", "3.11", WAITS, lowest=True),
)
COLUMNS = ("installed", "discovered", "form", "tests", "real run")


@dataclass
class Report:
    """What came of one environment.

    :param cells: Column -> what the table shows there.
    :param seconds: How long all of it took.
    """

    cells: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether anything did."""
        return any(FAILED in cell for cell in self.cells.values())


class Runner:
    """Makes an environment and runs tests in it."""

    def __init__(self, environment: Environment, python: str) -> None:
        self._environment = environment
        self._interpreter = python
        self._folder = MATRIX / environment.name
        self._log = MATRIX / f"{environment.name}.log"
        self._python = self._folder / "bin" / "python"

    def run(self) -> Report:
        """Do everything, as far as it makes sense after what failed."""
        print(f"== {self._environment.name}", flush=True)
        report, began = Report(), time.monotonic()
        self._log.unlink(missing_ok=True)
        if self._install():
            report.cells["installed"] = "yes"
            report.cells["discovered"] = "yes" if self._is_discovered() else FAILED
            report.cells["form"] = self._pytest(FORM)
            if self._environment.tests:
                report.cells["tests"] = self._pytest(*self._environment.tests)
            if self._environment.real_run:
                report.cells["real run"] = self._pytest(REAL_RUN)
        else:
            report.cells["installed"] = FAILED
        report.seconds = time.monotonic() - began
        if report.has_failed:
            print("\n".join(["", f"---- the end of {self._log}", *self._tail()]), flush=True)
        return report

    def _install(self) -> bool:
        shutil.rmtree(self._folder, ignore_errors=True)
        package = f"{ROOT}[{','.join(self._environment.extras)}]"
        wanted = ("--constraint", str(self._environment.constraints), "--editable", package)
        wanted = ("install", "--quiet", *wanted, "--group", f"{ROOT / 'pyproject.toml'}:test")
        # As `make venv` does: uv is quick, but does not read the configuration of pip, which may know the only index.
        return self._call(uv(), "venv", "--quiet", "--python", self._interpreter, str(self._folder)) and (
            self._call(uv(), "pip", *wanted, "--python", str(self._python))
            or self._call(sys.executable, "-m", "pip", "--python", str(self._python), *wanted)
        )

    def _is_discovered(self) -> bool:
        """Whether Airflow lists the package, and has nothing to say against it."""
        env = self._airflow_environment()
        done = subprocess.run(
            [str(self._python), "-m", "airflow", "providers", "list", "--output", "json"],
            env=env,
            capture_output=True,
            text=True,
            timeout=TEST_SECONDS,
            check=False,
        )
        with self._log.open("a") as log:
            log.write(done.stdout + done.stderr)
        before, bracket, listed = done.stdout.partition("[{")
        if done.returncode or not bracket or "capillary" in (before + done.stderr).lower():
            return False
        found = {provider["package_name"] for provider in json.loads(bracket + listed)}
        return {"airflow-provider-capillary", "apache-airflow-providers-smtp"} <= found

    def _pytest(self, *arguments: str) -> str:
        """Run tests; return how many passed."""
        file = self._folder / "report.xml"
        file.unlink(missing_ok=True)
        passed = self._call(
            *(str(self._python), "-m", "pytest", "--quiet", "-p", "no:cacheprovider", f"--junitxml={file}", *arguments),
            seconds=TEST_SECONDS,
        )
        if not file.exists():
            return FAILED
        suite = ElementTree.parse(file).getroot().find("testsuite")
        assert suite is not None
        counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
        bad = counts["failures"] + counts["errors"]
        good = counts["tests"] - bad - counts["skipped"]
        text = f"{good} passed" + (f", {counts['skipped']} skipped" if counts["skipped"] else "")
        return text if passed and good and not bad else f"{FAILED}: {bad} of {counts['tests']}"

    def _airflow_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return kept | {
            "AIRFLOW_HOME": str(self._folder / "home"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "COLUMNS": "300",
        }

    def _call(self, *command: str, seconds: float = INSTALL_SECONDS) -> bool:
        with self._log.open("a") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            try:
                done = subprocess.run(
                    command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=seconds, check=False
                )
            except subprocess.TimeoutExpired:
                log.write(f"ended after {seconds:.0f} s\n")
                return False
        return done.returncode == 0

    def _tail(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:]


class Interpreters:
    """The Pythons of this machine: those on the PATH, and those that pyenv and uv keep elsewhere."""

    def find(self, version: str) -> str | None:
        """Return the path of an interpreter.

        :param version: Such as 3.12.
        """
        return next((path for path in self._candidates(version) if self._is(path, version)), None)

    @cached_property
    def _folders(self) -> list[Path]:
        on_path = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
        pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        uv_data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "uv" / "python"
        kept = [*sorted(pyenv.glob("versions/*/bin")), *sorted(uv_data.glob("*/bin"))]
        return [*on_path, *kept]

    def _candidates(self, version: str) -> list[str]:
        return [str(folder / f"python{version}") for folder in self._folders]

    @staticmethod
    def _is(path: str, version: str) -> bool:
        # pyenv puts a stand-in on the PATH for each version that it knows, which need not be switched on.
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=30, check=False)
        except OSError:
            return False
        return done.stdout.strip() == version


def uv() -> str:
    """Return the path of the uv that is installed beside this Python."""
    return str(Path(sys.executable).with_name("uv"))


def resolve(environment: Environment, folder: Path) -> None:
    """Write the constraint file of an environment again.

    :param environment: The environment.
    :param folder: Where Airflow's own constraint files lie, under the names that they have here. One that is missing
        leaves everything but Airflow free.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = {_name(line) for line in project["dependency-groups"]["test"] if not line.startswith("apache-airflow")}
    floors = {_name(line) for line in project["project"]["dependencies"]}
    bounds = [f"apache-airflow=={environment.airflow}"]
    theirs = folder / f"{environment.name}.txt"
    # Airflow pins what tests Airflow as well; users do not install that.
    free = tools | {"apache-airflow"}
    if environment.lowest:
        # What is to be at its floor must be free, and so must be the web server, older in 2.11.0 than in 2.11.2.
        free |= floors | {"connexion", "werkzeug", "apache-airflow-providers-fab"}
        theirs = folder / "airflow-2.11.2-python-3.12.txt"
    if theirs.exists():
        bounds += [
            line
            for line in theirs.read_text().splitlines()
            if re.match(r"[\w.-]+==", line)
            and _name(line) not in free
            and not (environment.lowest and _name(line).startswith("flask"))
        ]
    MATRIX.mkdir(exist_ok=True)
    bound = MATRIX / f"{environment.name}.bounds"
    bound.write_text("\n".join(bounds) + "\n")
    command = [uv(), "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate", "--upgrade"]
    command += [part for extra in environment.extras for part in ("--extra", extra)]
    command += ["--group", "test", "--python-version", environment.python, "--constraint", str(bound)]
    command += ["--resolution", "lowest-direct"] if environment.lowest else []
    subprocess.run([*command, "--output-file", str(environment.constraints)], cwd=ROOT, check=True)


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def show(reports: dict[str, Report], skipped: dict[str, str]) -> None:
    """Print the table."""
    rows = [["environment", *COLUMNS, "seconds"]]
    for name, report in reports.items():
        rows.append([name, *(report.cells.get(column, "-") for column in COLUMNS), f"{report.seconds:.0f}"])
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for name, why in skipped.items():
        print(f"{name}  skipped: {why}")
    failed = sum(report.has_failed for report in reports.values())
    # In the form in which test runners close.
    print(f"\n{len(reports) - failed} passed, {failed} failed, {len(skipped)} skipped", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("environments", nargs="*", metavar="NAME", help="beginnings of names; by default all")
    parser.add_argument("--jobs", type=int, default=2, help="environments at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="list the environments and do nothing")
    parser.add_argument(
        "--resolve",
        metavar="FOLDER",
        type=Path,
        help="write the constraint files again from Airflow's own, found there",
    )
    arguments = parser.parse_args()
    chosen = [
        environment
        for environment in ENVIRONMENTS
        if not arguments.environments or environment.name.startswith(tuple(arguments.environments))
    ]
    if not chosen:
        parser.error("there is no such environment; --list shows them")
    if arguments.list:
        print(*(environment.name for environment in chosen), sep="\n")
        return 0
    if arguments.resolve is not None:
        for environment in chosen:
            resolve(environment, arguments.resolve)
        return 0
    MATRIX.mkdir(exist_ok=True)
    interpreters, skipped = Interpreters(), {}
    # Tests wait more than they work: two environments at a time take little longer than one.
    with ThreadPoolExecutor(arguments.jobs) as pool:
        running = {}
        for environment in reversed(chosen):  # the older ones take the longest
            python = interpreters.find(environment.python)
            if python is None:
                skipped[environment.name] = f"there is no Python {environment.python} on this machine"
            else:
                running[environment.name] = pool.submit(Runner(environment, python).run)
        reports = {each.name: running[each.name].result() for each in chosen if each.name in running}
    show(reports, skipped)
    return any(report.has_failed for report in reports.values())


if __name__ == "__main__":
    raise SystemExit(main())
