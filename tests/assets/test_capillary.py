# SPDX-License-Identifier: Apache-2.0
"""Redeem uploads as an asset: its URI, its watcher, and what a DAG run gets of the events."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pendulum
import pytest

from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.assets.capillary import (
    capillary_coupon_uploads,
    capillary_redeem_uploads,
    finished_coupon_uploads,
    finished_redeem_uploads,
)
from airflow_provider_capillary.triggers.capillary import (
    CapillaryCouponUploadEventTrigger,
    CapillaryRedeemUploadEventTrigger,
)
from tests.airflow_compat import AIRFLOW_VERSION, Asset, needs_asset_watchers

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_asset_watchers


@pytest.mark.parametrize(
    ("make", "kind", "trigger_class"),
    [
        pytest.param(capillary_redeem_uploads, "redeem", CapillaryRedeemUploadEventTrigger, id="redeem"),
        pytest.param(capillary_coupon_uploads, "coupon", CapillaryCouponUploadEventTrigger, id="coupon"),
    ],
)
def test_one_line_makes_asset_and_watcher(make: Callable[..., Asset], kind: str, trigger_class: type) -> None:
    asset = make("535512", poll_interval=30, include_existing=True, group="lake", extra={"team": "crm"})

    assert asset.uri == asset.name == f"capillary://capillary_default/{kind}-uploads/535512"
    assert (asset.group, asset.extra) == ("lake", {"team": "crm"})
    (watcher,) = asset.watchers
    assert watcher.name == f"{kind} uploads of coupon series 535512"
    assert type(watcher.trigger) is trigger_class
    assert watcher.trigger.serialize()[1] == {
        "coupon_series_id": 535512,
        "capillary_conn_id": "capillary_default",
        "poll_interval": 30.0,
        "include_existing": True,
    }


def test_connections_make_assets_of_their_own_under_any_name() -> None:
    names = ["capillary_eu", "capillary_in", "brand/EU:2", "brand#1"]

    uris = [capillary_redeem_uploads(1, capillary_conn_id=name).uri for name in names]

    assert uris == [
        "capillary://capillary_eu/redeem-uploads/1",
        "capillary://capillary_in/redeem-uploads/1",
        "capillary://brand%2FEU%3A2/redeem-uploads/1",
        "capillary://brand%231/redeem-uploads/1",
    ]


def test_a_name_may_be_given() -> None:
    asset = capillary_redeem_uploads(1, name="redeem uploads")

    assert (asset.name, asset.uri) == ("redeem uploads", "capillary://capillary_default/redeem-uploads/1")


def test_a_series_that_is_none_is_refused_when_the_dag_is_parsed() -> None:
    with pytest.raises(CapillaryConfigurationError, match="coupon_series_id"):
        capillary_redeem_uploads("{{ params.series }}")


@pytest.mark.parametrize(
    "uri",
    [
        "CAPILLARY://conn/redeem-uploads/7",
        "capillary://conn/redeem-uploads/007/",
        "capillary://conn/redeem-uploads/7#x",
    ],
)
@pytest.mark.parametrize("uploads", ["redeem-uploads", "coupon-uploads"])
def test_airflow_brings_a_uri_into_its_one_form_by_the_registered_scheme(uri: str, uploads: str) -> None:
    assert Asset(uri.replace("redeem-uploads", uploads)).uri == f"capillary://conn/{uploads}/7"


@pytest.mark.parametrize(
    "uri",
    [
        "capillary://conn/",
        "capillary:///redeem-uploads/7",
        "capillary://conn/redeem-uploads",
        "capillary://conn/redeem-uploads/x",
        "capillary://conn/redeem-uploads/0",
        "capillary://conn/redeem-uploads/7/8",
        "capillary://conn/coupons/7",
        "capillary://conn/redeem-uploads/7?since=1",
    ],
)
def test_a_uri_of_another_form_is_refused_with_the_form_it_should_have(uri: str) -> None:
    with pytest.raises(ValueError, match=r"capillary://\{connection id\}/redeem-uploads/\{coupon series id\}"):
        Asset(uri)


def events(*payloads: Any) -> list[SimpleNamespace]:
    return [SimpleNamespace(extra=payload) for payload in payloads]


def test_the_jobs_of_all_events_come_once_each_and_in_order() -> None:
    def payload(*ids: int, series: int = 1) -> dict[str, Any]:
        jobs = [UploadJob(job_id=each, status="COMPLETED", coupon_series_id=series).to_dict() for each in ids]
        return {"payload": {"coupon_series_id": series, "jobs": jobs, "possible_duplicates": False}}

    jobs = finished_redeem_uploads({"a": events(payload(5, 3), payload(3, 4)), "b": events(payload(3, series=2))})

    assert [(job.coupon_series_id, job.job_id) for job in jobs] == [(1, 3), (2, 3), (1, 4), (1, 5)]


@pytest.mark.parametrize("order", [1, -1], ids=["redeem first", "coupon first"])
def test_jobs_with_equal_ids_of_both_kinds_are_kept_apart(order: int) -> None:
    def payload(upload_kind: str, status: str) -> dict[str, Any]:
        job = UploadJob(job_id=3, status=status, coupon_series_id=1).to_dict()
        return {"payload": {"upload_kind": upload_kind, "coupon_series_id": 1, "jobs": [job]}}

    both = {"a": events(*[payload("redeem", "COMPLETED"), payload("coupon", "FINISHED")][::order])}

    assert [job.status for job in finished_redeem_uploads(both)] == ["COMPLETED"]
    assert [job.status for job in finished_coupon_uploads(both)] == ["FINISHED"]


def test_an_event_that_names_no_kind_is_of_redeem_uploads() -> None:
    assert [job.job_id for job in finished_redeem_uploads({"a": events(_payload(3))})] == [3]
    assert finished_coupon_uploads({"a": events(_payload(3))}) == []


def _payload(job_id: int, conn_id: Any = None) -> dict[str, Any]:
    job = UploadJob(job_id=job_id, status="COMPLETED", coupon_series_id=1).to_dict()
    payload = {"coupon_series_id": 1, "jobs": [job], "possible_duplicates": False}
    return {"payload": payload if conn_id is None else {"capillary_conn_id": conn_id, **payload}}


def test_jobs_with_equal_ids_of_two_connections_are_two() -> None:
    found = finished_redeem_uploads(
        {"a": events(_payload(3, "emea"), _payload(3, "emea")), "b": events(_payload(3, "apac"))}
    )

    assert [job.job_id for job in found] == [3, 3]


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 2), reason="an asset of this Airflow cannot be a key of a dictionary")
def test_an_event_that_names_no_connection_is_of_that_of_its_asset() -> None:
    emea, apac = (capillary_redeem_uploads(1, capillary_conn_id=each) for each in ("emea/1", "apac"))

    found = finished_redeem_uploads({emea: events(_payload(3), _payload(3, "emea/1")), apac: events(_payload(3))})

    assert [job.job_id for job in found] == [3, 3]


@pytest.mark.parametrize("conn_id", [7, ["emea"], {}])
def test_an_event_that_names_no_usable_connection_is_read_all_the_same(conn_id: Any) -> None:
    assert [job.job_id for job in finished_redeem_uploads({"a": events(_payload(3, conn_id))})] == [3]


@pytest.mark.parametrize("extra", [None, {}, {"payload": None}, {"payload": "x"}, {"payload": {}}])
def test_an_event_that_was_made_by_hand_adds_no_job(extra: Any) -> None:
    assert finished_redeem_uploads({"a": events(extra)}) == []


@pytest.mark.parametrize("interval", [90, "90", Decimal(90), timedelta(seconds=90), pendulum.duration(seconds=90)])
def test_a_poll_interval_is_a_number_in_any_form_or_a_duration(interval: Any) -> None:
    (watcher,) = capillary_redeem_uploads(Decimal(535512), poll_interval=interval).watchers  # type: ignore[arg-type]
    arguments = watcher.trigger.serialize()[1]
    assert json.dumps([arguments["coupon_series_id"], arguments["poll_interval"]]) == "[535512, 90.0]"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("poll_interval", float("nan")),
        ("poll_interval", float("inf")),
        ("poll_interval", "soon"),
        ("poll_interval", timedelta(0)),
        ("include_existing", "no"),
        ("include_existing", None),
        ("include_existing", 1),
        ("capillary_conn_id", None),
        ("capillary_conn_id", " "),
        ("capillary_conn_id", "None"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused_by_name_when_the_dag_is_parsed(name: str, value: Any) -> None:
    with pytest.raises(CapillaryConfigurationError, match=f"^{name} "):
        capillary_redeem_uploads(1, **{name: value})


def test_include_existing_may_be_text() -> None:
    # Any text is true to Python, "False" too.
    (watcher,) = capillary_redeem_uploads(1, include_existing="False").watchers  # type: ignore[arg-type]
    assert watcher.trigger.serialize()[1]["include_existing"] is False
