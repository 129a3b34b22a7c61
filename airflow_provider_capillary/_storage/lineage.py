# SPDX-License-Identifier: Apache-2.0
"""Describes transfers for OpenLineage. Needs ``apache-airflow-providers-openlineage``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_capillary._storage.stores.base import ObjectLocation
    from airflow_provider_capillary._storage.transferred_file import TransferredFile

#: Other spellings of schemes -> the one that the naming rules of OpenLineage use.
_SCHEMES = {"s3a": "s3", "gcs": "gs", "abfs": "abfss"}


def lineage_of(file: TransferredFile | None, *, api_host: str) -> OperatorLineage[Any, Any]:
    """Return the job file as input and the object as output.

    :param file: The file; None if nothing was copied.
    :param api_host: Host of the Capillary cluster.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    if file is None:
        return OperatorLineage(inputs=[], outputs=[])
    source_namespace, uploads = uploads_name(api_host, f"{file.upload_kind}-uploads", file.coupon_series_id)
    source = f"{uploads}/{file.job_id}/{file.file_type}"
    namespace, name = dataset_name(file.location)
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=file.lines, size=file.size_bytes, fileCount=1
    )
    return OperatorLineage(
        inputs=[InputDataset(namespace=source_namespace, name=source)],
        outputs=[OutputDataset(namespace=namespace, name=name, outputFacets={"outputStatistics": statistics})],
    )


def uploads_name(api_host: str, uploads: str, coupon_series_id: int | str) -> tuple[str, str]:
    """Return namespace and name of the uploads of a coupon series. Names of their files begin with that name.

    :param api_host: Host of the Capillary cluster. Connections of several Airflows name the same data then.
    :param uploads: ``redeem-uploads`` or ``coupon-uploads``.
    :param coupon_series_id: The coupon series.
    """
    return f"capillary://{api_host}", f"{uploads}/{coupon_series_id}"


def dataset_name(location: ObjectLocation) -> tuple[str, str]:
    """Return namespace and name of an object by the naming rules of OpenLineage.

    :param location: Location of the object.
    """
    if location.scheme == "file":
        return "file", str(location.path)
    scheme = _SCHEMES.get(location.scheme, location.scheme)
    container = location.container
    if scheme == "abfss":
        container += _azure_account(location)
    return f"{scheme}://{container}", location.key


def _azure_account(location: ObjectLocation) -> str:
    """Return ``@`` and the host of the storage account, because the URI names only the container."""
    from airflow_provider_capillary._transport.object_storage import object_storage_path, storage_account

    name, host = storage_account(object_storage_path(location.uri, location.conn_id).fs)
    host = host or location.account_host or (f"{name}.dfs.core.windows.net" if name else None)
    return f"@{host}" if host else ""
