# SPDX-License-Identifier: Apache-2.0
"""Chooses the store that writes an object."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from airflow_provider_capillary._storage.stores.azure import AzureBlocks
from airflow_provider_capillary._storage.stores.local import LocalSibling
from airflow_provider_capillary._storage.stores.s3 import S3Parts
from airflow_provider_capillary._storage.stores.staged import StagedFile
from airflow_provider_capillary._transport.object_storage import check_connection, object_storage_path

if TYPE_CHECKING:
    from airflow_provider_capillary._storage.stores.base import ObjectLocation, PartStore

#: The last one supports every file system.
_STORES: tuple[type[PartStore], ...] = (LocalSibling, S3Parts, AzureBlocks, StagedFile)
_S3_SCHEMES = ("s3", "s3a", "s3n")
_S3_HOOK = "airflow.providers.amazon.aws.hooks.s3"


def has_store(scheme: str) -> bool:
    """Return whether Airflow can reach a kind of store.

    :param scheme: Scheme of a URI, in lower case.
    """
    from airflow_provider_capillary._airflow_compat import has_fs

    return _direct_store(scheme) is not None or bool(has_fs(scheme))


def store_of(location: ObjectLocation) -> PartStore:
    """Return the store that writes an object to a location.

    :param location: Where the object is to be.
    """
    direct = _direct_store(location.scheme)
    if direct is not None:
        check_connection(location.conn_id)
        return direct(location, None)
    path = object_storage_path(location.uri, location.conn_id, account_host=location.account_host, name="destination")
    store = next(store for store in _STORES if store.supports(path.fs))
    return store(location, path)


def _direct_store(scheme: str) -> type[PartStore] | None:
    """Return the store of a scheme that needs no file system of fsspec; None for other schemes.

    For any file system, Airflow imports those of all installed providers, and s3fs imports aiobotocore. That takes
    longer than the transfer of a small file. ``parse_object_uri`` refuses the names that fsspec would truncate.
    """
    if scheme == "file":
        return LocalSibling
    if scheme in _S3_SCHEMES and _is_installed(_S3_HOOK):
        return S3Parts
    return None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # of a package that it is in
        return False
