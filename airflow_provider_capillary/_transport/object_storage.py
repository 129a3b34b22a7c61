# SPDX-License-Identifier: Apache-2.0
"""Opens paths in object storage through Airflow, and names the object in errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.api.secrecy import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

#: Size of blocks to read and parts to send. The default of s3fs, 50 MiB, takes 170 MB of memory, this one 47 MB.
BLOCK_BYTES = 8 << 20
#: Maximum length of a store's error text in a message: Azure's errors have many lines.
_LONGEST_REASON = 500


def object_storage_path(uri: str, conn_id: str | None, *, account_host: str | None = None, name: str = "object") -> Any:
    """Return Airflow's path of an object.

    Do not call it while a DAG file is parsed: it reads the connection.

    :param uri: URI without credentials.
    :param conn_id: Airflow connection; None for the credentials of the machine.
    :param account_host: Host of the Azure storage account that the original URI names.
    :param name: Name of the object in errors, such as ``destination``.
    :raises AirflowNotFoundException: There is no such connection.
    :raises CapillaryConfigurationError: fsspec would use another object, or the connection is for another account.
    """
    from airflow_provider_capillary._airflow_compat import ObjectStoragePath

    check_connection(conn_id)
    path = ObjectStoragePath(uri, conn_id=conn_id)
    # Airflow and fsspec truncate some names. Reading or writing would then use another object.
    if not str(path.path).endswith(uri.partition("://")[2].partition("/")[2]):
        raise CapillaryConfigurationError(f"{name} {uri} cannot be used: fsspec takes it for {path.path!r}")
    if account_host is not None:
        _check_account(path.fs, f"{name} {uri}", account_host, conn_id)
    return path


def check_connection(conn_id: str | None) -> None:
    """Refuse a connection that does not exist.

    The amazon provider would only warn, and use the credentials of the machine.

    :param conn_id: Airflow connection; None for the credentials of the machine.
    :raises AirflowNotFoundException: There is no such connection.
    """
    from airflow_provider_capillary._airflow_compat import BaseHook

    if conn_id is not None:
        BaseHook.get_connection(conn_id)


def storage_account(fs: AbstractFileSystem) -> tuple[str | None, str | None]:
    """Return name and host of the Azure storage account of a file system.

    :param fs: File system of any kind.
    :return: None for each that is unknown: a private domain or an emulator may serve any account.
    """
    client = getattr(fs, "service_client", None)
    name = getattr(client, "account_name", None) or getattr(fs, "account_name", None)
    host = str(getattr(client, "primary_hostname", None) or "")
    return name, _dfs_host(host) if ".blob." in host else None


def _check_account(fs: AbstractFileSystem, what: str, account_host: str, conn_id: str | None) -> None:
    """Reject a URI that names another storage account than the connection, whose account would be used."""
    name, host = storage_account(fs)
    wanted = _dfs_host(account_host)
    if (host or wanted) != wanted or name != wanted.partition(".")[0]:
        whose = "the machine's own credentials" if conn_id is None else f"connection {conn_id!r}"
        raise CapillaryConfigurationError(
            f"{what} is written with the storage account {account_host}, but {whose} is for "
            f"{host or name or 'an unknown account'}; use a connection of that account"
        )


def _dfs_host(host: str) -> str:
    """Return the dfs host of an account, whichever endpoint is given, for comparison."""
    return host.lower().replace(".blob.", ".dfs.", 1).replace(".privatelink.", ".", 1)


@contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Translate any error of a store into one that names the object.

    :param what: Start of the message, such as ``destination s3://lake/errors.csv cannot be written``.
    :raises CapillaryErrorFileError: The block raised an error of a store; its text follows ``what``.
    """
    from airflow_provider_capillary._airflow_compat import AirflowException

    try:
        yield
    except (CapillaryError, AirflowException):
        raise
    except OSError as error:
        raise CapillaryErrorFileError(f"{what}: {_reason_of(error, error.strerror) or type(error).__name__}") from error
    except Exception as error:  # every store has its own classes
        raise CapillaryErrorFileError(f"{what}: {type(error).__name__}: {_reason_of(error)}") from error


def _reason_of(error: Exception, text: str | None = None) -> str:
    """Return the text of an error as one short line, without the queries of URLs, which may be signatures."""
    return shown(text or str(error), most=_LONGEST_REASON)
