# SPDX-License-Identifier: Apache-2.0
"""The protocol stands alone: no Airflow, no HTTP library, no waiting of its own."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_capillary.api as api
from tests.project import imports_in

MODULES = sorted(f"{api.__name__}.{module.name}" for module in pkgutil.iter_modules(api.__path__))


def loaded_by(*modules: str) -> set[str]:
    """The top-level packages that a fresh process has loaded after importing these modules."""
    script = f"import {', '.join(modules)}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("modules", [[f"{api.__name__}.client"], MODULES], ids=["client", "all"])
def test_importing_the_protocol_imports_neither_airflow_nor_an_http_library(modules: list[str]) -> None:
    assert not loaded_by(*modules) & {"airflow", "requests", "httpx", "urllib3", "aiohttp", "fsspec", "upath"}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_only_the_standard_library_its_own_package_and_libraries_of_values(name: str) -> None:
    path = Path(api.__path__[0], f"{name.rpartition('.')[2]}.py")
    allowed = sys.stdlib_module_names | {"pendulum", "msgspec"}
    strangers = {
        root
        for root, _ in imports_in(path.read_text())
        if root.partition(".")[0] not in allowed and not root.startswith(api.__name__)
    }
    assert strangers == set()


@pytest.mark.parametrize("name", MODULES)
def test_no_module_sleeps_or_opens_a_socket(name: str) -> None:
    path = Path(api.__path__[0], f"{name.rpartition('.')[2]}.py")
    imported = {name or module for module, name in imports_in(path.read_text())}
    assert not imported & {"time", "sleep", "socket", "ssl", "asyncio", "http", "subprocess"}
