# SPDX-License-Identifier: Apache-2.0
"""Destinations that are refused before anything is asked of Capillary, each in words that say what to write instead."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import CapillaryConfigurationError
from tests.airflow_compat import ObjectStoragePath
from tests.transfers.running import SERIES, Run, connect

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import LocalFolder

REFUSED = {
    "a relative path": ("lake/errors.csv", "begin with the scheme of a store"),
    "a file name": ("errors.csv", "begin with the scheme of a store"),
    "a relative path behind a scheme": ("file://lake/errors.csv", "absolute path"),
    "a host of a file": ("file://server/share/errors.csv", "absolute path"),
    "a file without a path": ("file://", "absolute path"),
    "a bucket without a key": ("s3://lake", "a bucket and a key or folder"),
    "a key without a bucket": ("s3:///errors.csv", "a bucket and a key or folder"),
    "nothing behind the scheme": ("s3://", "a bucket and a key or folder"),
    "a connection without a bucket": ("s3://aws_default@/errors.csv", "a bucket and a key or folder"),
    "a store whose provider is not installed": ("hdfs://lake/errors.csv", "begins with 'hdfs'"),
    "Azure's store without a container": ("abfs:///errors.csv", "a bucket and a key or folder"),
    "a web server": ("http://lake.example/errors.csv", "begins with 'http'"),
    "memory": ("memory://lake/errors.csv", "begins with 'memory'"),
    "a chain of file systems": ("simplecache::s3://lake/errors.csv", "begin with the scheme of a store"),
    "a malformed URI": ("s3://[lake/errors.csv", "malformed"),
    "nothing": ("", "begin with the scheme of a store"),
    "what a template renders to without a value": ("None", "begin with the scheme of a store"),
}


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a destination be taken after all, it must not lead out of this machine."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")


def run_to(sandbox: Sandbox, destination: Any, **arguments: Any) -> Run:
    return Run(sandbox.add_job(SERIES, errors=1), destination, **arguments)


@pytest.mark.parametrize(("destination", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_destination_that_cannot_be_meant_is_refused(sandbox: Sandbox, destination: str, reason: str) -> None:
    run = run_to(sandbox, destination)

    with pytest.raises(CapillaryConfigurationError) as caught:
        run()

    assert str(caught.value).startswith("destination ")
    assert reason in str(caught.value)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    "destination",
    [
        "s3://AKIAEXAMPLE:hunter2@lake/errors/",
        "s3://AKIAEXAMPLE:hunter2/with/slashes@lake/errors/",
        "s3://AKIAEXAMPLE%3Ahunter2@lake/errors/",
        "s3a://:hunter2@lake/errors/",
        "file://user:hunter2@/data/errors/",
        "https://user:hunter2@lake.example/errors/",
        "gs://user:hunter2@lake/errors/",
    ],
)
def test_credentials_in_a_destination_are_refused_and_never_shown(sandbox: Sandbox, destination: str) -> None:
    run = run_to(sandbox, destination)

    with pytest.raises(CapillaryConfigurationError, match="object_storage_conn_id") as caught:
        run()

    assert "hunter2" not in str(caught.value)
    assert "AKIAEXAMPLE" not in str(caught.value)
    assert sandbox.requests == []


def test_a_path_object_is_refused_because_templates_take_it_apart(sandbox: Sandbox) -> None:
    run = run_to(sandbox, ObjectStoragePath("file:///data/errors/"))

    with pytest.raises(CapillaryConfigurationError, match=r"destination must be text .*ObjectStoragePath"):
        run()

    assert sandbox.requests == []


@pytest.mark.parametrize("name", ["err\0ors.csv", "errors.csv\n", "err\rors.csv", "err\x1b[2Jors.csv"])
def test_control_characters_in_a_destination_are_refused(sandbox: Sandbox, store: LocalFolder, name: str) -> None:
    # Nobody means them: they come from a template that ends in a line break, and go on into logs.
    run = run_to(sandbox, store.folder + name)

    with pytest.raises(CapillaryConfigurationError, match="destination") as caught:
        run()

    assert str(caught.value).isprintable()
    assert store.visible() == {}
    assert sandbox.requests == []


@pytest.mark.parametrize("value", ["", "None", "ten", "-1", "0", None, 1.5, True, "1; DROP"])
@pytest.mark.parametrize("name", ["coupon_series_id", "job_id"])
def test_an_id_that_is_none_is_refused_by_name(sandbox: Sandbox, store: LocalFolder, name: str, value: Any) -> None:
    run = run_to(sandbox, store.folder)
    setattr(run.operator, name, value)  # as a template may, after the operator was made

    with pytest.raises(CapillaryConfigurationError, match=f"{name} must be a positive whole number, but is {value!r}"):
        run()

    assert sandbox.requests == []


@pytest.mark.parametrize("value", ["ignore", "Skip", "", None, True])
def test_a_value_of_if_no_errors_that_means_nothing_is_refused_with_those_that_do(
    sandbox: Sandbox, store: LocalFolder, value: Any
) -> None:
    run = run_to(sandbox, store.folder, if_no_errors=value)

    with pytest.raises(
        CapillaryConfigurationError, match="if_no_errors must be one of skip, succeed, fail, but is"
    ) as caught:
        run()

    assert repr(value) in str(caught.value)
    assert sandbox.requests == []


@pytest.mark.parametrize("conn_id", ["None", "null", "", " ", 5, ["aws_default"]])
def test_a_connection_of_the_store_that_a_template_renders_to_nothing_is_refused(
    sandbox: Sandbox, conn_id: Any, tmp_path: Path
) -> None:
    run = run_to(sandbox, f"{tmp_path}/", object_storage_conn_id=conn_id)

    with pytest.raises(CapillaryConfigurationError, match=r"^object_storage_conn_id "):
        run()

    assert sandbox.requests == []


def test_a_connection_of_the_store_may_be_rendered_natively_to_none(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, sandbox)
    run = run_to(sandbox, f"{tmp_path}/", object_storage_conn_id="{{ params.object_storage_conn_id }}")
    run.operator.object_storage_conn_id = None  # what Airflow does where render_template_as_native_obj is on

    assert (tmp_path / run().result.rpartition("/")[2]).exists()


def test_ids_may_come_as_xcoms_bring_them(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, sandbox)
    job = sandbox.add_job(SERIES, errors=1)
    run = Run(job, f"{tmp_path}/", coupon_series_id=Decimal(SERIES), job_id=f"{job.job_id}.0")

    assert run().xcoms["error_file"]["job_id"] == job.job_id
