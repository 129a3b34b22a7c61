# SPDX-License-Identifier: Apache-2.0
"""Object storage as Airflow reaches it, with errors that say which place they are about."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.api.secrecy import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

#: Size of the blocks that are read and of the parts that are sent. s3fs's own default of 50 MiB costs 170 MB of
#: memory, this one 47 MB.
BLOCK_BYTES = 8 << 20
#: Most characters of what a store says that go into a message: Azure's errors have many lines.
_LONGEST_REASON = 500


def object_storage_path(uri: str, conn_id: str | None, *, account_host: str | None = None, name: str = "object") -> Any:
    """Return Airflow's path of an object.

    Not to be called while a DAG file is parsed: it reads the connection.

    :param uri: URI without credentials.
    :param conn_id: Airflow connection; None for what the machine itself may do.
    :param account_host: Host of the Azure storage account that the URI was written with.
    :param name: What errors call the object, such as ``destination``.
    :raises AirflowNotFoundException: There is no such connection.
    :raises CapillaryConfigurationError: The path would be that of another object.
    """
    from airflow_provider_capillary._airflow_compat import BaseHook, ObjectStoragePath

    if conn_id is not None:
        # The amazon provider only warns of a connection that is not there, and goes on with the machine's own rights.
        BaseHook.get_connection(conn_id)
    path = ObjectStoragePath(uri, conn_id=conn_id)
    # Airflow and fsspec each cut some names short, and reading or writing would then go to another object.
    if not str(path.path).endswith(uri.partition("://")[2].partition("/")[2]):
        raise CapillaryConfigurationError(f"{name} {uri} cannot be used: fsspec takes it for {path.path!r}")
    if account_host is not None:
        _check_account(path.fs, f"{name} {uri}", account_host, conn_id)
    return path


def storage_account(fs: AbstractFileSystem) -> tuple[str | None, str | None]:
    """Return name and host of the Azure storage account that a file system is for.

    :param fs: File system of any kind.
    :return: None for what is not known: a private domain or an emulator stands for the host of any account.
    """
    client = getattr(fs, "service_client", None)
    name = getattr(client, "account_name", None) or getattr(fs, "account_name", None)
    host = str(getattr(client, "primary_hostname", None) or "")
    return name, _dfs_host(host) if ".blob." in host else None


def _check_account(fs: AbstractFileSystem, what: str, account_host: str, conn_id: str | None) -> None:
    """Refuse a URI that names another storage account than the connection: the object would go elsewhere."""
    name, host = storage_account(fs)
    wanted = _dfs_host(account_host)
    if (host or wanted) != wanted or name != wanted.partition(".")[0]:
        whose = "the machine's own credentials" if conn_id is None else f"connection {conn_id!r}"
        raise CapillaryConfigurationError(
            f"{what} is written with the storage account {account_host}, but {whose} is for "
            f"{host or name or 'an unknown account'}; use a connection of that account"
        )


def _dfs_host(host: str) -> str:
    """Return the one host by which the endpoints of an account are compared."""
    return host.lower().replace(".blob.", ".dfs.", 1).replace(".privatelink.", ".", 1)


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Turn whatever a store raises into one error that says which place it is about.

    :param what: The beginning of the message, such as ``destination s3://lake/errors.csv cannot be written``.
    :raises CapillaryErrorFileError: What the block raised, in its own words behind ``what``.
    """
    from airflow_provider_capillary._airflow_compat import AirflowException

    try:
        yield
    except (CapillaryError, AirflowException):
        raise
    except OSError as error:
        raise CapillaryErrorFileError(f"{what}: {_said_by(error, error.strerror) or type(error).__name__}") from error
    except Exception as error:  # every store brings its own classes
        raise CapillaryErrorFileError(f"{what}: {type(error).__name__}: {_said_by(error)}") from error


def _said_by(error: Exception, words: str | None = None) -> str:
    """Return what a store said as one short line, without the query of a URL, which may be a signature."""
    return shown(words or str(error), most=_LONGEST_REASON)
