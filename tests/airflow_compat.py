# SPDX-License-Identifier: Apache-2.0
"""Where Airflow keeps the names that only tests use, from 2.11 on; and what its versions do in ways of their own."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync

from airflow_provider_capillary._airflow_compat import (
    AIRFLOW_VERSION,
    HAS_ASSET_WATCHERS,
    TRIGGERER_RENDERS_TEMPLATES,
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    Asset,
    BaseHook,
    BaseOperator,
    BaseTrigger,
    ObjectStoragePath,
    XComArg,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

IS_AIRFLOW_2 = AIRFLOW_VERSION < (3, 0)
#: Tasks have a store that outlives a reschedule and a try.
HAS_TASK_STATE_STORE = AIRFLOW_VERSION >= (3, 3)
#: A state store of assets that can be awaited.
HAS_ASSET_STATE_STORE = AIRFLOW_VERSION >= (3, 3, 2)
#: Watchers of one series share a stream, whose events are acknowledged.
HAS_SHARED_STREAMS = AIRFLOW_VERSION >= (3, 3)
#: Airflow reads the connection form from provider info, and not from the hook.
FORM_IS_IN_PROVIDER_INFO = AIRFLOW_VERSION >= (3, 2)
#: Whether the `airflow` command has those that providers add.
TAKES_COMMANDS_OF_PROVIDERS = AIRFLOW_VERSION >= (3, 2)

needs_asset_watchers = pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="asset watchers came with Airflow 3.0")
needs_task_state_store = pytest.mark.skipif(
    not HAS_TASK_STATE_STORE, reason="tasks have a state store since Airflow 3.3"
)
needs_start_from_trigger = pytest.mark.skipif(
    not TRIGGERER_RENDERS_TEMPLATES, reason="the triggerer renders templates since Airflow 3.3"
)
needs_asset_state_store = pytest.mark.skipif(
    not HAS_ASSET_STATE_STORE, reason="the state store of assets can be awaited since Airflow 3.3.2"
)
needs_shared_streams = pytest.mark.skipif(not HAS_SHARED_STREAMS, reason="shared streams came with Airflow 3.3")


def _named(name: str, *modules: str) -> Any:
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"{name} is in none of {', '.join(modules)}")


_EXCEPTIONS = ("airflow.exceptions",) if AIRFLOW_VERSION < (3, 2) else ("airflow.sdk.exceptions",)
AirflowRescheduleException = _named("AirflowRescheduleException", *_EXCEPTIONS)
AirflowTaskTimeout = _named("AirflowTaskTimeout", *_EXCEPTIONS)
TaskDeferred = _named("TaskDeferred", *_EXCEPTIONS)

if IS_AIRFLOW_2:
    from airflow.datasets import DatasetAlias as AssetAlias
    from airflow.decorators import task, task_group
    from airflow.models.dag import DAG
    from airflow.utils import timezone
    from airflow.utils.context import OutletEventAccessors
    from airflow.utils.task_group import TaskGroup
else:
    from airflow.sdk import DAG, AssetAlias, TaskGroup, task, task_group
    from airflow.sdk.execution_time.context import OutletEventAccessors

    timezone = _named("timezone", "airflow.sdk", "airflow.utils")

# The one that can be made of JSON.
Connection = _named("Connection", "airflow.models.connection" if AIRFLOW_VERSION < (3, 1) else "airflow.sdk")

#: Turns a DAG into what Airflow stores of it, and back.
DagSerialization = _named(
    "SerializedDAG" if AIRFLOW_VERSION < (3, 2) else "DagSerialization", "airflow.serialization.serialized_objects"
)

_MASKERS = (
    "airflow.sdk._shared.secrets_masker",
    "airflow.sdk.execution_time.secrets_masker",
    "airflow.utils.log.secrets_masker",
)
_secrets_masker = _named("_secrets_masker", *_MASKERS)
redact = _named("redact", "airflow.sdk.log", *_MASKERS)
should_hide_value_for_key = _named("should_hide_value_for_key", *_MASKERS)


def before_awaited_lookups(monkeypatch: pytest.MonkeyPatch, act: Callable[[str], Awaitable[None]]) -> None:
    """Do something before each lookup of a connection that is awaited.

    :param monkeypatch: Ends it with the test.
    :param act: What to do with the id of the connection; what it raises is raised by the lookup.
    """
    if AIRFLOW_VERSION >= (3, 1):
        ask = BaseHook.aget_connection

        async def aget(conn_id: str) -> Any:
            await act(conn_id)
            return await ask(conn_id)

        monkeypatch.setattr(BaseHook, "aget_connection", staticmethod(aget))
        return
    ask_blocking = BaseHook.get_connection

    def get(conn_id: str) -> Any:
        async_to_sync(act)(conn_id)
        return ask_blocking(conn_id)

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(get))


def api_server_error(message: str) -> Exception:
    """Return what the lookup of a connection raises while Airflow's API server is away.

    :param message: Its text.
    """
    if IS_AIRFLOW_2:  # there the database is
        return ConnectionError(message)
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"message": message}))


def reset_secrets_masker() -> None:
    """Forget all masks. Airflow keeps every secret of a process in one regular expression."""
    masker = _secrets_masker()
    masker.patterns = set()
    masker.replacer = None


def asset(name: str, uri: str) -> Asset:
    """Return an asset; Airflow 2 calls it a dataset, which has no name."""
    return Asset(uri) if IS_AIRFLOW_2 else Asset(name=name, uri=uri)


def add_bundle(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> None:
    """Let Airflow find DAGs in one more folder. Those that it has not found cannot be run by ``dag.test()``.

    :param monkeypatch: Ends it with the test.
    :param name: Name of the bundle.
    :param folder: The folder.
    """
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [
        {"name": "dags-folder", "classpath": local, "kwargs": {}},
        {"name": name, "classpath": local, "kwargs": {"path": str(folder)}},
    ]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(bundles))


def load_dags(folder: Path, bundle: str = "dags-folder") -> Any:
    """Return the DAGs of a file or folder by id, as Airflow itself reads them.

    :param folder: The file or folder.
    :param bundle: Name of its DAG bundle; Airflow 2 has none.
    """
    dag_bag = _named("DagBag", "airflow.dag_processing.dagbag", "airflow.models.dagbag")
    arguments: dict[str, Any] = {"dag_folder": str(folder)}
    if AIRFLOW_VERSION >= (3, 2):
        arguments |= {"bundle_path": folder if folder.is_dir() else folder.parent, "bundle_name": bundle}
    bag = dag_bag(**arguments)
    assert bag.import_errors == {}
    return bag.dags


__all__ = [
    "AIRFLOW_VERSION",
    "DAG",
    "FORM_IS_IN_PROVIDER_INFO",
    "HAS_ASSET_STATE_STORE",
    "HAS_ASSET_WATCHERS",
    "HAS_SHARED_STREAMS",
    "HAS_TASK_STATE_STORE",
    "IS_AIRFLOW_2",
    "TRIGGERER_RENDERS_TEMPLATES",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowRescheduleException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "Asset",
    "AssetAlias",
    "BaseHook",
    "BaseOperator",
    "BaseTrigger",
    "Connection",
    "DagSerialization",
    "ObjectStoragePath",
    "OutletEventAccessors",
    "TaskDeferred",
    "TaskGroup",
    "XComArg",
    "_secrets_masker",
    "add_bundle",
    "api_server_error",
    "asset",
    "before_awaited_lookups",
    "load_dags",
    "needs_asset_state_store",
    "needs_asset_watchers",
    "needs_shared_streams",
    "needs_start_from_trigger",
    "needs_task_state_store",
    "redact",
    "reset_secrets_masker",
    "should_hide_value_for_key",
    "task",
    "task_group",
    "timezone",
]
