# SPDX-License-Identifier: Apache-2.0
"""Chooses the store that writes an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_capillary._storage.stores.azure import AzureBlocks
from airflow_provider_capillary._storage.stores.local import LocalSibling
from airflow_provider_capillary._storage.stores.s3 import S3Parts
from airflow_provider_capillary._storage.stores.staged import StagedFile
from airflow_provider_capillary._transport.object_storage import object_storage_path

if TYPE_CHECKING:
    from airflow_provider_capillary._storage.stores.base import ObjectLocation, PartStore

#: The last one supports every file system.
_STORES: tuple[type[PartStore], ...] = (LocalSibling, S3Parts, AzureBlocks, StagedFile)


def store_of(location: ObjectLocation) -> PartStore:
    """Return the store that writes an object to a location.

    :param location: Where the object is to be.
    """
    path = object_storage_path(location.uri, location.conn_id, account_host=location.account_host, name="destination")
    store = next(store for store in _STORES if store.supports(path.fs))
    return store(location, path)
