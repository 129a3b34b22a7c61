# SPDX-License-Identifier: Apache-2.0
"""The uploads of a coupon series as an asset that a DAG can be scheduled by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM, UPLOAD_KINDS
from airflow_provider_capillary.api.values import as_int

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta
    from urllib.parse import SplitResult

    from openlineage.client.event_v2 import Dataset

    from airflow_provider_capillary._airflow_compat import Asset
    from airflow_provider_capillary.api.jobs import UploadJob
    from airflow_provider_capillary.api.upload_kinds import UploadKind

_SCHEME = "capillary"
#: First part of the path of an asset's URI.
_UPLOADS = tuple(f"{name}-uploads" for name in UPLOAD_KINDS)


def capillary_redeem_uploads(
    coupon_series_id: int | str,
    *,
    capillary_conn_id: str = "capillary_default",
    poll_interval: float | timedelta = 60.0,
    include_existing: bool = False,
    name: str | None = None,
    **kwargs: Any,
) -> Asset:
    """Return the redeem uploads of a coupon series as an asset, with its watcher.

    A DAG with ``schedule=[capillary_redeem_uploads(535512)]`` starts when upload jobs of the series finish.

    :param coupon_series_id: The coupon series, number or text.
    :param capillary_conn_id: Airflow connection of type ``capillary``; default ``capillary_default``.
    :param poll_interval: Time between two polls, seconds or a timedelta; default 60.
    :param include_existing: Whether the first poll reports all jobs that finished before; default False.
    :param name: Name of the asset; default: its URI, ``capillary://{connection id}/redeem-uploads/{coupon series}``.
    :param kwargs: Other arguments of assets, such as ``group`` and ``extra``.
    :raises CapillaryConfigurationError: An argument cannot be used, or this Airflow has no asset watchers.
    """
    return _asset(
        REDEEM,
        name,
        kwargs,
        coupon_series_id=coupon_series_id,
        capillary_conn_id=capillary_conn_id,
        poll_interval=poll_interval,
        include_existing=include_existing,
    )


def capillary_coupon_uploads(
    coupon_series_id: int | str,
    *,
    capillary_conn_id: str = "capillary_default",
    poll_interval: float | timedelta = 60.0,
    include_existing: bool = False,
    name: str | None = None,
    **kwargs: Any,
) -> Asset:
    """Return the coupon uploads of a coupon series as an asset, with its watcher.

    :param coupon_series_id: The coupon series, number or text.
    :param capillary_conn_id: As for :func:`capillary_redeem_uploads`.
    :param poll_interval: As for :func:`capillary_redeem_uploads`.
    :param include_existing: As for :func:`capillary_redeem_uploads`.
    :param name: Name of the asset; default: its URI, ``capillary://{connection id}/coupon-uploads/{coupon series}``.
    :param kwargs: Other arguments of assets.
    :raises CapillaryConfigurationError: As for :func:`capillary_redeem_uploads`.
    """
    return _asset(
        COUPON,
        name,
        kwargs,
        coupon_series_id=coupon_series_id,
        capillary_conn_id=capillary_conn_id,
        poll_interval=poll_interval,
        include_existing=include_existing,
    )


def _asset(kind: UploadKind, name: str | None, asset_arguments: Mapping[str, Any], **trigger_arguments: Any) -> Asset:
    from airflow_provider_capillary._airflow_compat import HAS_ASSET_WATCHERS

    if not HAS_ASSET_WATCHERS:
        raise CapillaryConfigurationError(
            f"capillary_{kind.name}_uploads needs Airflow 3.0 or newer, which can watch assets; use a schedule and "
            f"Capillary{kind.name.capitalize()}UploadSensor instead"
        )
    from airflow_provider_capillary._airflow_compat import Asset, AssetWatcher
    from airflow_provider_capillary.triggers import capillary as triggers

    trigger_class = {
        "redeem": triggers.CapillaryRedeemUploadEventTrigger,
        "coupon": triggers.CapillaryCouponUploadEventTrigger,
    }[kind.name]
    trigger = trigger_class(**trigger_arguments)
    series_id = trigger.coupon_series_id
    uri = f"{_SCHEME}://{quote(trigger.capillary_conn_id, safe='')}/{kind.name}-uploads/{series_id}"
    watcher = AssetWatcher(name=f"{kind.title}s of coupon series {series_id}", trigger=trigger)
    return Asset(name=name or uri, uri=uri, watchers=[watcher], **asset_arguments)


def finished_redeem_uploads(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[UploadJob]:
    """Return the redeem upload jobs whose end started a DAG run.

    :param triggering_asset_events: What Airflow hands to a task under this name.
    :return: Each job of each connection once, the oldest first. Events without jobs, such as those made by hand in the
        UI, add none, and neither do those of coupon uploads.
    """
    return _finished(REDEEM, triggering_asset_events)


def finished_coupon_uploads(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[UploadJob]:
    """Return the coupon upload jobs whose end started a DAG run; like :func:`finished_redeem_uploads`.

    :param triggering_asset_events: What Airflow hands to a task under this name.
    """
    return _finished(COUPON, triggering_asset_events)


def _finished(kind: UploadKind, triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[UploadJob]:
    from airflow_provider_capillary.api.jobs import UploadJob

    jobs = {}
    for asset, events in triggering_asset_events.items():
        for event in events:
            payload = (event.extra or {}).get("payload")
            # Events of version 0.1 do not name the kind: they are of redeem uploads.
            if not isinstance(payload, dict) or payload.get("upload_kind", REDEEM.name) != kind.name:
                continue
            for value in payload.get("jobs", ()):
                job = UploadJob.from_dict(value)
                # Two connections are two orgs or clusters, which number their series and jobs alike.
                jobs[_connection_of(payload, asset), job.coupon_series_id, job.job_id] = job
    return sorted(jobs.values(), key=lambda job: job.job_id)


def _connection_of(payload: Mapping[str, Any], asset: Any) -> str:
    """Return the connection that an event is of. Events of version 0.1 do not name it; the asset's URI mostly does."""
    if isinstance(named := payload.get("capillary_conn_id"), str):
        return named
    uri = urlsplit(str(getattr(asset, "uri", "")))
    return unquote(uri.netloc) if uri.scheme == _SCHEME else ""


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Bring the URI of an asset into its one form; Airflow calls this for the scheme ``capillary``.

    :param uri: ``capillary://{connection id}/redeem-uploads/{coupon series}``, or the same with ``coupon-uploads``.
    :raises ValueError: It has another form.
    """
    uploads, _, series = uri.path.strip("/").partition("/")
    series_id = as_int(series)
    if not uri.netloc or uploads not in _UPLOADS or series_id is None or series_id < 1 or uri.query:
        raise ValueError(
            f"an asset of Capillary is {_SCHEME}://{{connection id}}/redeem-uploads/{{coupon series id}}, or the same "
            "with coupon-uploads; best made by capillary_redeem_uploads or capillary_coupon_uploads"
        )
    return uri._replace(path=f"/{uploads}/{series_id}")


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Dataset | None:
    """Return the dataset that an asset is for OpenLineage. Called by Airflow's OpenLineage provider only.

    It is named after the cluster, as a transfer names the files of the same uploads, so the connection is read.

    :param asset: An asset of the scheme ``capillary``.
    :param lineage_context: What the asset was found at.
    :return: The dataset; None where the connection is missing or cannot be used, which older providers do not catch.
    """
    from openlineage.client.event_v2 import Dataset

    from airflow_provider_capillary._airflow_compat import AirflowNotFoundException
    from airflow_provider_capillary._storage.lineage import uploads_name
    from airflow_provider_capillary.api.errors import CapillaryError
    from airflow_provider_capillary.hooks.capillary import CapillaryHook

    uri = urlsplit(asset.uri)
    uploads, _, series_id = uri.path.strip("/").partition("/")
    try:
        host = CapillaryHook(unquote(uri.netloc)).settings.host
    except (AirflowNotFoundException, CapillaryError):
        return None
    namespace, name = uploads_name(host, uploads, series_id)
    return Dataset(namespace=namespace, name=name)
