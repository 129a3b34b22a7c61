# SPDX-License-Identifier: Apache-2.0
"""Object storage as Airflow reaches it, with errors that say which place they are about."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_capillary.api.errors import CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.api.secrecy import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Size of the blocks that are read and of the parts that are sent. s3fs's own default of 50 MiB costs 170 MB of
#: memory, this one 47 MB.
BLOCK_BYTES = 8 << 20
#: Most characters of what a store says that go into a message: Azure's errors have many lines.
_LONGEST_REASON = 500


def object_storage_path(uri: str, conn_id: str | None) -> Any:
    """Return Airflow's path of an object.

    Not to be called while a DAG file is parsed: it reads the connection.

    :param uri: URI without credentials.
    :param conn_id: Airflow connection; None for what the machine itself may do.
    :raises AirflowNotFoundException: There is no such connection.
    """
    from airflow_provider_capillary._airflow_compat import BaseHook, ObjectStoragePath

    if conn_id is not None:
        # The amazon provider only warns of a connection that is not there, and goes on with the machine's own rights.
        BaseHook.get_connection(conn_id)
    return ObjectStoragePath(uri, conn_id=conn_id)


@contextmanager
def telling(what: str) -> Iterator[None]:
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
