# SPDX-License-Identifier: Apache-2.0
"""Imports names from Airflow 2.11 and later. Other modules of the package import them from here only.

``apache-airflow-providers-common-compat`` has such a table too, but the constraints of each Airflow pin an older
release of it than the next Airflow needs. A name is imported at its first use, because some modules are slow to import
and a DAG file needs few of them.
"""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from airflow import __version__ as _airflow_version

if TYPE_CHECKING:
    from airflow.cli.cli_config import ActionCommand as ActionCommand
    from airflow.cli.cli_config import Arg as Arg
    from airflow.cli.cli_config import GroupCommand as GroupCommand
    from airflow.cli.cli_config import lazy_load_command as lazy_load_command
    from airflow.sdk import Asset as Asset
    from airflow.sdk import AssetWatcher as AssetWatcher
    from airflow.sdk import BaseHook as BaseHook
    from airflow.sdk import BaseOperator as BaseOperator
    from airflow.sdk import BaseOperatorLink as BaseOperatorLink
    from airflow.sdk import BaseSensorOperator as BaseSensorOperator
    from airflow.sdk import Context as Context
    from airflow.sdk import ObjectStoragePath as ObjectStoragePath
    from airflow.sdk import PokeReturnValue as PokeReturnValue
    from airflow.sdk import XComArg as XComArg
    from airflow.sdk.configuration import conf as conf
    from airflow.sdk.exceptions import AirflowException as AirflowException
    from airflow.sdk.exceptions import AirflowFailException as AirflowFailException
    from airflow.sdk.exceptions import AirflowNotFoundException as AirflowNotFoundException
    from airflow.sdk.exceptions import AirflowSensorTimeout as AirflowSensorTimeout
    from airflow.sdk.exceptions import AirflowSkipException as AirflowSkipException
    from airflow.sdk.exceptions import TaskDeferred as TaskDeferred
    from airflow.sdk.execution_time.xcom import XCom as XCom
    from airflow.sdk.io import has_fs as has_fs
    from airflow.sdk.log import mask_secret as mask_secret
    from airflow.sdk.observability.stats import Stats as Stats
    from airflow.triggers.base import BaseEventTrigger as BaseEventTrigger
    from airflow.triggers.base import BaseTrigger as BaseTrigger
    from airflow.triggers.base import StartTriggerArgs as StartTriggerArgs
    from airflow.triggers.base import TriggerEvent as TriggerEvent
    from airflow.triggers.shared_stream import AdvanceItem as AdvanceItem
    from airflow.triggers.shared_stream import SharedStreamProducer as SharedStreamProducer

AIRFLOW_VERSION: Final = tuple(int(part) for part in re.findall(r"\d+", _airflow_version)[:3])

#: Whether Airflow has asset watchers and starts DAGs by events.
HAS_ASSET_WATCHERS: Final = AIRFLOW_VERSION >= (3, 0)
#: Whether the triggerer renders the templates of a task that starts there.
TRIGGERER_RENDERS_TEMPLATES: Final = AIRFLOW_VERSION >= (3, 3)

_EXCEPTIONS: Final = ((3, 2), "airflow.sdk.exceptions", "airflow.exceptions")
_COMMANDS: Final = ((2, 11), "airflow.cli.cli_config", "")
_TRIGGERS: Final = ((2, 11), "airflow.triggers.base", "")
#: Name -> the Airflow version of its present module, that module, and the previous module. A different name in the
#: previous module follows a colon. An empty module means that the older Airflow has no such name.
_HOMES: Final[dict[str, tuple[tuple[int, int], str, str]]] = {
    "ActionCommand": _COMMANDS,
    "AirflowException": _EXCEPTIONS,
    "AirflowFailException": _EXCEPTIONS,
    "AirflowNotFoundException": _EXCEPTIONS,
    "AirflowSensorTimeout": _EXCEPTIONS,
    "AirflowSkipException": _EXCEPTIONS,
    "Arg": _COMMANDS,
    "Asset": ((3, 0), "airflow.sdk", "airflow.datasets:Dataset"),
    "AssetWatcher": ((3, 0), "airflow.sdk", ""),
    "BaseEventTrigger": ((3, 0), "airflow.triggers.base", "airflow.triggers.base:BaseTrigger"),
    "BaseHook": ((3, 1), "airflow.sdk", "airflow.hooks.base"),
    "BaseOperator": ((3, 0), "airflow.sdk", "airflow.models.baseoperator"),
    "BaseOperatorLink": ((3, 0), "airflow.sdk", "airflow.models.baseoperatorlink"),
    "BaseSensorOperator": ((3, 0), "airflow.sdk", "airflow.sensors.base"),
    "BaseTrigger": _TRIGGERS,
    "GroupCommand": _COMMANDS,
    "ObjectStoragePath": ((3, 0), "airflow.sdk", "airflow.io.path"),
    "PokeReturnValue": ((3, 0), "airflow.sdk", "airflow.sensors.base"),
    "SharedStreamProducer": ((3, 3), "airflow.triggers.shared_stream", ""),
    "StartTriggerArgs": _TRIGGERS,
    "Stats": ((3, 2), "airflow.sdk.observability.stats", "airflow.stats"),
    "TaskDeferred": _EXCEPTIONS,
    "TriggerEvent": _TRIGGERS,
    "XCom": ((3, 0), "airflow.sdk.execution_time.xcom", "airflow.models.xcom"),
    "XComArg": ((3, 0), "airflow.sdk", "airflow.models.xcom_arg"),
    "conf": ((3, 2), "airflow.sdk.configuration", "airflow.configuration"),
    "has_fs": ((3, 1), "airflow.sdk.io", "airflow.io"),
    "lazy_load_command": _COMMANDS,
    "mask_secret": ((3, 0), "airflow.sdk.log", "airflow.utils.log.secrets_masker"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _resolve(name)


def _resolve(name: str) -> Any:
    since, home, before = _HOMES[name]
    module, _, called = (home if since <= AIRFLOW_VERSION else before).partition(":")
    if not module:
        raise ImportError(f"{name} needs Airflow {since[0]}.{since[1]} or newer; this is {_airflow_version}")
    value = globals()[name] = getattr(import_module(module), called or name)
    return value


def configured_stats() -> Any:
    """Return Airflow's interface to its metrics, ready to be used."""
    if AIRFLOW_VERSION >= (3, 2):
        # Configures it on import. In Airflow 3.2 not every process has imported it, and would send nothing.
        import_module("airflow.sdk.serde")
    return _resolve("Stats")


async def aget_connection(conn_id: str) -> Any:
    """Return an Airflow connection without blocking the event loop.

    :param conn_id: Id of the connection.
    :raises AirflowNotFoundException: There is no such connection.
    """
    if AIRFLOW_VERSION >= (3, 1):
        return await _resolve("BaseHook").aget_connection(conn_id)
    return await run_in_thread(_resolve("BaseHook").get_connection, conn_id)


async def amask_secret(secret: str) -> None:
    """Mask a secret in logs without blocking the event loop.

    :param secret: The secret.
    """
    if AIRFLOW_VERSION >= (3, 3):
        await import_module("airflow.sdk.log").amask_secret(secret)
    elif AIRFLOW_VERSION >= (3, 2):
        # A thread would hold a lock of Airflow's while it waits for the event loop. There, Airflow masks connections
        # that it reads, and waits for that lock: the triggerer would stop for good.
        import_module("airflow.sdk._shared.secrets_masker").mask_secret(secret)
        comms = getattr(import_module("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS", None)
        if comms is not None:
            with suppress(Exception):  # as Airflow does: a log that masks less fails no poll
                await comms.asend(import_module("airflow.sdk.execution_time.comms").MaskSecret(value=secret))
    else:
        await run_in_thread(_resolve("mask_secret"), secret)


async def run_in_thread(function: Any, *args: Any) -> Any:
    """Call a function that blocks, or that may send a request to Airflow's supervisor, from an event loop.

    In a thread, Airflow 3.0 to 3.2 sends requests by ``async_to_sync``, which finds the event loop of the connection
    only in threads that asgiref started. In a thread of ``asyncio.to_thread`` it would read the response on another
    loop, take the response to another request, and the triggerer would end with "Response read out of order".
    """
    from asgiref.sync import sync_to_async

    return await sync_to_async(function)(*args)
