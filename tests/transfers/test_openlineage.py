# SPDX-License-Identifier: Apache-2.0
"""What is reported to OpenLineage, by Airflow's own provider of it."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._storage.lineage import dataset_name
from airflow_provider_capillary._storage.locations import locate
from airflow_provider_capillary._storage.stores.base import ObjectLocation
from tests.airflow_compat import IS_AIRFLOW_2, Asset
from tests.project import ROOT
from tests.transfers.running import SERIES, SMALL, Run

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.transfers.stores import LocalFolder


@pytest.fixture
def job(sandbox: Sandbox) -> SandboxJob:
    return sandbox.add_job(SERIES, errors=1, error_file=SMALL, success_file=SMALL + SMALL)


def lineage_of(run: Run) -> OperatorLineage:
    """What the extractor of Airflow's OpenLineage provider makes of an operator that ended."""
    from airflow.providers.openlineage.extractors.base import DefaultExtractor

    task_instance: Any = SimpleNamespace()
    extracted = DefaultExtractor(run.operator).extract_on_complete(task_instance)
    assert extracted is not None
    return extracted


def names(datasets: Any) -> list[tuple[str, str]]:
    return [(dataset.namespace, dataset.name) for dataset in datasets]


def test_the_dataset_of_a_coupon_upload_is_another_one(sandbox: Sandbox, store: LocalFolder) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL, kind="coupon")

    lineage = lineage_of(Run(job, store.folder, upload_kind="coupon")())

    assert names(lineage.inputs) == [(f"capillary://{sandbox.host}", f"coupon-uploads/{SERIES}/{job.job_id}/error")]


@pytest.mark.parametrize("file_type", ["error", "success"])
def test_the_object_is_reported_to_come_from_the_job(
    sandbox: Sandbox, job: SandboxJob, store: LocalFolder, file_type: str
) -> None:
    lineage = lineage_of(Run(job, store.folder + "x.csv", file_type=file_type)())

    assert names(lineage.inputs) == [
        (f"capillary://{sandbox.host}", f"redeem-uploads/{SERIES}/{job.job_id}/{file_type}"),
    ]
    assert names(lineage.outputs) == [("file", f"{store.path}/x.csv")]


def test_size_and_lines_are_reported(job: SandboxJob, store: LocalFolder) -> None:
    output: Any
    (output,) = lineage_of(Run(job, store.folder)()).outputs

    statistics = output.outputFacets["outputStatistics"]
    assert (statistics.size, statistics.rowCount, statistics.fileCount) == (len(SMALL), 2, 1)


def test_a_task_that_copied_nothing_reports_nothing(sandbox: Sandbox, store: LocalFolder) -> None:
    lineage = lineage_of(Run(sandbox.add_job(SERIES, errors=0), store.folder, if_no_errors="succeed")())

    assert (lineage.inputs, lineage.outputs) == ([], [])


def test_neither_a_row_nor_a_secret_nor_a_signature_is_reported(sandbox: Sandbox, store: LocalFolder) -> None:
    from attrs import asdict

    url = f"{sandbox.base_url}/files/errors.csv?sig=hunter2"
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL, error_file_url=url)

    lineage = lineage_of(Run(job, store.folder)())

    output = json.dumps([asdict(dataset) for dataset in (*lineage.inputs, *lineage.outputs)], default=str)
    assert str(job.job_id) in output
    for secret in ("WELCOME10", "hunter2", "sandbox-secret", "sandbox-key", *sandbox.tokens_issued):
        assert secret not in output


class TestAssets:
    """What Airflow's OpenLineage provider makes of an asset, by the converter that the provider info names."""

    @pytest.fixture(autouse=True)
    def _needs_assets(self) -> None:
        if IS_AIRFLOW_2:
            pytest.skip("Airflow 2 has no assets")

    @staticmethod
    def translate(uri: str) -> Any:
        from airflow.providers.openlineage.utils.utils import translate_airflow_asset

        return translate_airflow_asset(Asset(uri), None)

    @pytest.mark.parametrize("kind", ["redeem", "coupon"])
    def test_an_asset_is_the_dataset_whose_files_a_transfer_reports(
        self, sandbox: Sandbox, store: LocalFolder, kind: str
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL, kind=kind)
        ((namespace, name),) = names(lineage_of(Run(job, store.folder, upload_kind=kind)()).inputs)

        dataset = self.translate(f"capillary://capillary_default/{kind}-uploads/{SERIES}")

        assert (dataset.namespace, dataset.name) == (namespace, f"{kind}-uploads/{SERIES}")
        assert name == f"{dataset.name}/{job.job_id}/error"

    def test_a_connection_id_that_the_uri_quotes_is_read(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_BRAND/EU", sandbox.connection_json())

        dataset = self.translate(f"capillary://brand%2FEU/redeem-uploads/{SERIES}")

        assert dataset.namespace == f"capillary://{sandbox.host}"

    def test_an_asset_whose_connection_is_missing_is_no_dataset(self) -> None:
        assert self.translate(f"capillary://missing/redeem-uploads/{SERIES}") is None


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("s3://lake/capillary/errors.csv", "s3://lake", "capillary/errors.csv"),
        ("s3a://lake/errors.csv", "s3://lake", "errors.csv"),
        ("gs://lake/errors.csv", "gs://lake", "errors.csv"),
        ("gcs://lake/errors.csv", "gs://lake", "errors.csv"),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ours/a/x.csv",
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ours",
            "a/x.csv",
        ),
        ("file:///data/a b/errors.csv", "file", "/data/a b/errors.csv"),
        ("hdfs://lake/errors.csv", "hdfs://lake", "errors.csv"),
    ],
)
def test_objects_are_named_by_the_rules_of_openlineage(uri: str, namespace: str, name: str) -> None:
    assert dataset_name(ObjectLocation(uri)) == (namespace, name)


@pytest.mark.parametrize(
    "extra",
    [
        {"account_name": "us", "account_key": "a2V5"},
        {"connection_string": "AccountName=us;AccountKey=a2V5;EndpointSuffix=core.windows.net"},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_a_container_of_azure_is_named_with_the_account_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, str]
) -> None:
    pytest.importorskip("adlfs")
    monkeypatch.setenv("AIRFLOW_CONN_WASB_US", json.dumps({"conn_type": "wasb", "extra": extra}))

    named = dataset_name(ObjectLocation("abfs://lake/a/errors.csv", "wasb_us"))

    assert named == ("abfss://lake@us.dfs.core.windows.net", "a/errors.csv")


@pytest.mark.parametrize(
    ("connection_string", "account"),
    [
        ("AccountName=us;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn", "us.dfs.core.chinacloudapi.cn"),
        ("AccountName=us;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:9/us", "us.dfs.core.windows.net"),
    ],
    ids=["another cloud", "an emulator"],
)
def test_the_account_in_the_name_is_that_of_the_destination(
    monkeypatch: pytest.MonkeyPatch, connection_string: str, account: str
) -> None:
    pytest.importorskip("adlfs")
    extra = {"connection_string": connection_string}
    conn_id = f"wasb_{uuid.uuid4().hex}"  # Airflow keeps what it made of one for ever
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "wasb", "extra": extra}))

    location = locate(f"abfss://lake@{account}/a/errors.csv", conn_id=conn_id, file_name="")

    assert dataset_name(location) == (f"abfss://lake@{account}", "a/errors.csv")


def test_nothing_needs_the_provider_of_openlineage(job: SandboxJob, store: LocalFolder) -> None:
    given = {"coupon_series_id": SERIES, "job_id": job.job_id, "destination": store.folder}
    without = (
        "import json, sys; "
        "sys.modules.update(dict.fromkeys(['openlineage', 'airflow.providers.openlineage.extractors'])); "
        "from tests.transfers.child import run_operator; run_operator(**json.loads(sys.argv[1]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", without, json.dumps(given)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert list(store.visible()) == [f"redeem_errors_{SERIES}_{job.job_id}.csv"]
