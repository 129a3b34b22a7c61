# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.resources
import json
import re
import subprocess
import sys
from typing import Any

import jsonschema
import pytest

import airflow_provider_capillary
from airflow_provider_capillary.api.settings import AUTH_TYPES
from airflow_provider_capillary.get_provider_info import get_provider_info
from tests.airflow_compat import FORM_IS_IN_PROVIDER_INFO, IS_AIRFLOW_2, TAKES_COMMANDS_OF_PROVIDERS
from tests.project import PYPROJECT, ROOT

# Standard fields by what they hold, then extras; the schemas are the promise to the form.
RELABELLED = {"host": "API host", "login": "Client key", "password": "Client secret"}
EXTRA_FIELDS = {
    "auth_type": ("Authentication type", "string"),
    "auth_url": ("Authentication URL", "string"),
    "error_file_url": ("Error file URL", "string"),
    "error_file_conn_id": ("Error file connection", "string"),
    "cluster_timezone": ("Cluster time zone", "string"),
    "requests_per_minute": ("Requests per minute", "integer"),
    "timeout_seconds": ("Timeout", "number"),
    "verify": ("Verify TLS", "string"),
    "allow_http": ("Allow plain http", "boolean"),
    "headers": ("Extra headers", "object"),
}

# The stricter schema describes the file that official providers are released from, so it also wants what
# only a release knows.
RELEASE_ONLY = {
    "state": "ready",
    "source-date-epoch": 0,
    "versions": [airflow_provider_capillary.__version__],
}


@pytest.fixture
def info() -> dict[str, Any]:
    return get_provider_info()


@pytest.fixture
def connection_type(info: dict[str, Any]) -> dict[str, Any]:
    (only,) = info["connection-types"]
    return only


def airflow_schema(name: str) -> dict[str, Any]:
    return json.loads(importlib.resources.files("airflow").joinpath(name).read_text())


def modules_named_in(info: dict[str, Any]) -> list[str]:
    modules = [transfer["python-module"] for transfer in info["transfers"]]
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info.get(kind, []):
            modules += entry["python-modules"]
    modules += [entry["handler"].rpartition(".")[0] for entry in info["asset-uris"]]
    modules += [entry["hook-class-name"].rpartition(".")[0] for entry in info["connection-types"]]
    return modules


def test_satisfies_the_schema_that_airflow_checks_at_discovery(info: dict[str, Any]) -> None:
    jsonschema.validate(info, airflow_schema("provider_info.schema.json"))


@pytest.mark.skipif(IS_AIRFLOW_2, reason="the schema of Airflow 2 knows no assets, which it ignores elsewhere")
def test_satisfies_the_stricter_schema_of_provider_yaml(info: dict[str, Any]) -> None:
    # provider_info.schema.json lets any conn-fields pass, this one does not.
    if not TAKES_COMMANDS_OF_PROVIDERS:
        del info["cli"]
    jsonschema.validate(info | RELEASE_ONLY, airflow_schema("provider.yaml.schema.json"))


@pytest.mark.skipif(not FORM_IS_IN_PROVIDER_INFO, reason="the schema of this Airflow knows no connection fields")
def test_the_stricter_schema_does_check_connection_fields(info: dict[str, Any]) -> None:
    info["connection-types"][0]["conn-fields"] = {"auth_url": {"label": "no schema"}}
    with pytest.raises(jsonschema.ValidationError, match="'schema' is a required property"):
        jsonschema.validate(info | RELEASE_ONLY, airflow_schema("provider.yaml.schema.json"))


def test_package_name_is_the_normalised_name_of_the_distribution(info: dict[str, Any]) -> None:
    # If they differ, the discovery of every provider fails, not only of this one.
    assert info["package-name"] == re.sub(r"[-_.]+", "-", PYPROJECT["project"]["name"]).lower()


def test_the_installed_entry_point_is_this_function() -> None:
    from importlib.metadata import entry_points

    (entry,) = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.dist is not None and point.dist.name == "airflow-provider-capillary"
    ]
    assert entry.load() is get_provider_info


def test_connection_type_is_capillary(connection_type: dict[str, Any]) -> None:
    assert connection_type["connection-type"] == "capillary"
    assert connection_type["hook-name"] == "Capillary"
    assert connection_type["hook-class-name"] == "airflow_provider_capillary.hooks.capillary.CapillaryHook"


def test_standard_fields_are_relabelled(connection_type: dict[str, Any]) -> None:
    behaviour = connection_type["ui-field-behaviour"]
    assert behaviour["relabeling"] == RELABELLED
    assert behaviour["hidden-fields"] == ["schema"]
    assert behaviour["placeholders"]["host"] == "eu.api.capillarytech.com"
    assert behaviour["placeholders"]["port"] == "443"
    # Both are used in another way with Authentication type bearer.
    assert "bearer" in behaviour["placeholders"]["login"]
    assert "bearer" in behaviour["placeholders"]["password"]


def test_extra_fields_are_those_of_the_design_and_no_others(connection_type: dict[str, Any]) -> None:
    fields = connection_type["conn-fields"]
    assert {name: (field["label"], field["schema"]["type"][0]) for name, field in fields.items()} == EXTRA_FIELDS


@pytest.mark.parametrize("name", EXTRA_FIELDS)
class TestEveryExtraField:
    def test_may_stay_empty(self, connection_type: dict[str, Any], name: str) -> None:
        # A type without null puts a red star on the field; on save, an empty field is stored as null.
        assert connection_type["conn-fields"][name]["schema"]["type"][1:] == ["null"]

    def test_has_no_default_that_would_be_stored(self, connection_type: dict[str, Any], name: str) -> None:
        assert "default" not in connection_type["conn-fields"][name]["schema"]

    def test_is_explained_with_its_default(self, connection_type: dict[str, Any], name: str) -> None:
        assert "Default: " in connection_type["conn-fields"][name]["description"]

    def test_is_not_masked_by_its_name(self, connection_type: dict[str, Any], name: str) -> None:
        # Airflow shows *** for every extra whose key contains "token", "secret" and the like.
        from tests.airflow_compat import should_hide_value_for_key

        assert not should_hide_value_for_key(name)


def test_the_authentication_types_are_those_that_the_connection_knows(connection_type: dict[str, Any]) -> None:
    assert tuple(connection_type["conn-fields"]["auth_type"]["schema"]["enum"]) == AUTH_TYPES


def test_requests_per_minute_starts_at_one(connection_type: dict[str, Any]) -> None:
    assert connection_type["conn-fields"]["requests_per_minute"]["schema"]["minimum"] == 1


def test_every_integration_that_is_referred_to_is_declared(info: dict[str, Any]) -> None:
    declared = {integration["integration-name"] for integration in info["integrations"]}
    used = {entry["integration-name"] for kind in ("hooks", "sensors", "triggers") for entry in info[kind]}
    for transfer in info["transfers"]:
        used |= {transfer["source-integration-name"], transfer["target-integration-name"]}
    assert used == declared


@pytest.mark.parametrize("module", sorted(set(modules_named_in(get_provider_info()))))
def test_every_module_that_is_named_is_a_file_of_the_package(module: str) -> None:
    assert ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()


def test_no_module_of_the_package_is_forgotten(info: dict[str, Any]) -> None:
    package = ROOT / "airflow_provider_capillary"
    kinds = ("assets", "hooks", "operators", "sensors", "transfers", "triggers")
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for kind in kinds
        for file in (package / kind).glob("*capillary*.py")
    }
    assert files == set(modules_named_in(info))


def test_importing_it_imports_nothing_else() -> None:
    # Without -S and -I site-packages could bring in modules through .pth files of their own.
    code = (
        "import sys; before = set(sys.modules)\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from airflow_provider_capillary.get_provider_info import get_provider_info\n"
        "get_provider_info()\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) == {
        "__future__",
        "airflow_provider_capillary",
        "airflow_provider_capillary.get_provider_info",
    }


def test_every_call_returns_the_same() -> None:
    assert get_provider_info() == get_provider_info()
