# SPDX-License-Identifier: Apache-2.0
"""The link of a task to its object: the address of the object, and what Airflow's UI gets of it."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._storage import console
from airflow_provider_capillary._storage.console import console_url
from airflow_provider_capillary._storage.locations import locate
from airflow_provider_capillary.get_provider_info import get_provider_info
from airflow_provider_capillary.links.capillary import CapillaryObjectLink
from airflow_provider_capillary.operators.capillary import CapillaryCouponUploadOperator, CapillaryRedeemUploadOperator
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.airflow_compat import IS_AIRFLOW_2, DagSerialization, add_bundle, load_dags
from tests.operators.running import write_source
from tests.transfers.running import SERIES, SMALL

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox

URL = "https://s3.console.aws.amazon.com/s3/object/lake?prefix=a.csv"
DAG_FILE = """
import pendulum

try:
    from airflow.sdk import DAG
except ImportError:
    from airflow.models.dag import DAG

from airflow_provider_capillary.operators.capillary import CapillaryRedeemUploadOperator
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator

with DAG("object_links", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
    CapillaryRedeemUploadOperator(
        task_id="upload",
        coupon_series_id={series},
        source="{source}",
        customer_identifier="MOBILE",
        coupon_identifier="COUPON_CODE",
        validate_only=True,
    )
    CapillaryErrorFileToObjectStorageOperator(
        task_id="errors", coupon_series_id={series}, job_id={job_id}, destination="{folder}"
    )
"""
OPERATORS = (CapillaryCouponUploadOperator, CapillaryErrorFileToObjectStorageOperator, CapillaryRedeemUploadOperator)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Store the connection ``store`` of a type with an extra, on a machine that is not configured for any store."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))

    def store(conn_type: str, **extra: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": conn_type, "extra": extra}))

    return store


def url_of(uri: str, conn_id: str | None = "store") -> str | None:
    return console_url(locate(uri, conn_id=conn_id, file_name="errors.csv"))


class TestS3:
    @pytest.fixture(autouse=True)
    def _provider(self) -> None:
        pytest.importorskip("airflow.providers.amazon")

    @pytest.mark.parametrize(
        ("uri", "region", "url"),
        [
            ("s3://lake/a.csv", None, URL),
            ("s3a://lake/a.csv", "eu-central-1", URL),
            ("s3://lake/errors/", None, "https://s3.console.aws.amazon.com/s3/object/lake?prefix=errors/errors.csv"),
            ("s3://lake/a b&c=%/ü.csv", None, URL.replace("a.csv", "a%20b%26c%3D%25/%C3%BC.csv")),
            ("s3://lake/a.csv", "cn-north-1", "https://console.amazonaws.cn/s3/object/lake?prefix=a.csv"),
            ("s3://lake/a.csv", "us-gov-west-1", "https://console.amazonaws-us-gov.com/s3/object/lake?prefix=a.csv"),
            ("s3://lake/a.csv", "us-iso-east-1", None),
        ],
    )
    def test_an_object_has_its_address_in_the_console_of_its_partition(
        self, connect: Any, uri: str, region: str | None, url: str | None
    ) -> None:
        connect("aws", **({} if region is None else {"region_name": region}))

        assert url_of(uri) == url

    def test_an_object_without_a_connection_has_one(self, connect: Any) -> None:
        assert url_of("s3://lake/a.csv", conn_id=None) == URL

    @pytest.mark.parametrize(
        "extra",
        [
            {"endpoint_url": "http://minio:9000"},
            {"service_config": {"s3": {"endpoint_url": "http://minio:9000"}}},
        ],
        ids=["for all services", "for S3"],
    )
    def test_a_connection_with_an_endpoint_gives_none(self, connect: Any, extra: dict[str, Any]) -> None:
        connect("aws", **extra)

        assert url_of("s3://lake/a.csv") is None

    @pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
    def test_an_endpoint_in_the_environment_gives_none(
        self, connect: Any, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        connect("aws")
        monkeypatch.setenv(variable, "http://minio:9000")

        assert url_of("s3://lake/a.csv") is None

    def test_an_endpoint_in_the_configuration_of_the_machine_gives_none(self, connect: Any, tmp_path: Path) -> None:
        connect("aws")
        (tmp_path / "aws-config").write_text("[default]\nendpoint_url = http://minio:9000\n")

        assert url_of("s3://lake/a.csv") is None

    def test_an_access_point_gives_none(self, connect: Any) -> None:
        connect("aws")

        assert url_of("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ours/a.csv") is None


class TestGoogleCloudStorage:
    @pytest.fixture(autouse=True)
    def _provider(self) -> None:
        pytest.importorskip("airflow.providers.google")

    @pytest.mark.parametrize("scheme", ["gs", "gcs"])
    def test_an_object_has_its_address_in_the_console(self, connect: Any, scheme: str) -> None:
        connect("google_cloud_platform")

        assert (
            url_of(f"{scheme}://lake/a b/c.csv")
            == "https://console.cloud.google.com/storage/browser/_details/lake/a%20b/c.csv"
        )

    def test_a_connection_with_an_endpoint_gives_none(self, connect: Any) -> None:
        connect("google_cloud_platform", **{"gcs.endpoint": "http://127.0.0.1:4443"})

        assert url_of("gs://lake/a.csv") is None

    def test_an_emulator_gives_none(self, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        connect("google_cloud_platform")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:4443")

        assert url_of("gs://lake/a.csv") is None


def test_a_local_file_gives_none(tmp_path: Path) -> None:
    assert url_of(f"{tmp_path}/a.csv", conn_id=None) is None


def test_a_store_whose_connection_cannot_be_read_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow.providers.google")

    assert url_of("gs://lake/a.csv", conn_id="missing") is None


def test_airflow_knows_the_link_of_each_operator() -> None:
    known = get_provider_info()["extra-links"]
    links = {link for operator in OPERATORS for link in map(type, operator.operator_extra_links)}

    assert [f"{link.__module__}.{link.__qualname__}" for link in links] == known


@pytest.mark.usefixtures("airflow_database", "capillary_connection")
class TestInTheUI:
    """No test can reach a real console, so the address is given. All else is Airflow's own."""

    @pytest.fixture
    def links(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: Any) -> Any:
        """Run a DAG, and return what its stored form says of the link of each task."""
        monkeypatch.setattr(console, "console_url", lambda location: request.param)
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
        source = write_source(tmp_path / "redeemed.csv")
        dags = tmp_path / "dags"
        dags.mkdir()
        (dags / "object_links.py").write_text(
            DAG_FILE.format(series=SERIES, job_id=job.job_id, source=source, folder=f"{tmp_path}/"), encoding="utf-8"
        )
        add_bundle(monkeypatch, "object-links", dags)
        dag = load_dags(dags, bundle="object-links")["object_links"]
        run = dag.test()
        instances = {ti.task_id: ti for ti in run.get_task_instances()}
        assert {str(ti.state) for ti in instances.values()} == {"success"}
        to_dict, from_dict = DagSerialization.to_dict, DagSerialization.from_dict
        stored = from_dict(json.loads(json.dumps(to_dict(dag))))
        return {
            name: stored.task_dict[name].get_extra_links(ti, CapillaryObjectLink.name) for name, ti in instances.items()
        }

    @pytest.mark.parametrize("links", [URL], indirect=True)
    def test_a_transfer_and_an_upload_link_to_their_objects(self, links: Any) -> None:
        assert links == {"upload": URL, "errors": URL}

    @pytest.mark.parametrize("links", [None], indirect=True)
    def test_an_object_without_an_address_gives_an_empty_link(self, links: Any) -> None:
        assert {name: link or "" for name, link in links.items()} == {"upload": "", "errors": ""}


@pytest.mark.skipif(IS_AIRFLOW_2, reason="Airflow 2 has no key for the XCom of a link")
def test_the_key_is_that_under_which_airflow_stores_the_link() -> None:
    from airflow.sdk import BaseOperatorLink

    assert isinstance(inspect.getattr_static(BaseOperatorLink, "xcom_key"), property)
    assert CapillaryObjectLink().xcom_key == "capillary_object_link"
