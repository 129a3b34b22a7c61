# SPDX-License-Identifier: Apache-2.0
"""Parses the object that an argument names: the destination of a transfer, the source of an upload."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_capillary._storage.stores.base import ObjectLocation
from airflow_provider_capillary._storage.stores.choice import has_store
from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.object_uris import parse_object_uri
from airflow_provider_capillary.api.values import read_text


def locate(uri: str, *, conn_id: str | None, name: str = "destination", file_name: str | None = None) -> ObjectLocation:
    """Parse the URI or path of an object.

    :param uri: ``s3://bucket/key``, ``abfss://container@account.dfs.core.windows.net/name``, ``file:///path`` or
        ``/path``; a folder if it ends in ``/``. It may contain a connection id, as Airflow allows
        (``s3://aws_default@bucket/key``).
    :param conn_id: Airflow connection of the store.
    :param name: The argument, for messages.
    :param file_name: Name of the object within a folder that is written to; None for an object that is read.
    :raises CapillaryConfigurationError: It names no object that can be used, or ``conn_id`` no connection; the message
        gives the reason.
    """
    if not isinstance(uri, str):
        raise CapillaryConfigurationError(
            f"{name} must be text such as 's3://bucket/folder/', but is a {type(uri).__name__}; "
            "Airflow's templating takes an ObjectStoragePath apart"
        )
    if conn_id is not None:  # a template that renders natively may give None
        read_text("object_storage_conn_id", conn_id)
    try:
        parsed = parse_object_uri(
            f"file://{uri}" if uri.startswith("/") else uri, conn_id=conn_id, conn_field="object_storage_conn_id"
        )
    except ValueError as problem:
        raise CapillaryConfigurationError(f"{name} {problem}") from None
    if file_name is None:
        # To read an object, a file system of fsspec is needed.
        from airflow_provider_capillary._airflow_compat import has_fs

        is_reachable = has_fs(parsed.scheme)
    else:
        is_reachable = has_store(parsed.scheme)
    if not is_reachable:
        raise CapillaryConfigurationError(
            f"{name} begins with {parsed.scheme!r}, but must be an absolute path or begin with the scheme of a "
            "store that Airflow can reach, such as s3://, gs://, abfs:// or file://; is the Airflow provider of the "
            "store installed?"
        )
    if parsed.key.endswith("/") or not parsed.key:
        if file_name is None:
            raise CapillaryConfigurationError(f"{name} names a folder; write the name of a file behind it")
        parsed = replace(parsed, key=parsed.key + file_name)
    return ObjectLocation(parsed.uri, parsed.conn_id, parsed.account_host)
