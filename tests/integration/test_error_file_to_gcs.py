# SPDX-License-Identifier: Apache-2.0
"""Google Cloud Storage by Airflow's provider and an emulator with resumable uploads: the contract of all stores."""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.integration.gateway import Gateway
from tests.transfers import contract
from tests.transfers.running import LARGE, SERIES, SMALL, pull
from tests.transfers.stores import Content, Prefix

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox
    from tests.integration.gcs_emulator import GCSEmulator

# Asked by gRPC what kind of bucket it is, an emulator keeps gcsfs waiting for more than a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

pytestmark = pytest.mark.slow


@pytest.fixture
def store(gcs: GCSEmulator, monkeypatch: pytest.MonkeyPatch) -> Prefix:
    conn_id = f"google_{uuid.uuid4().hex}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", gcs.google_connection_json())
    return Prefix(gcs, f"error-files/{uuid.uuid4().hex}/", conn_id)


class TestArrival(contract.Arrival):
    pass


class TestOverwriting(contract.Overwriting):
    pass


class TestChanging(contract.Changing):
    pass


class TestWholeness(contract.Wholeness):
    pass


class TestObjects(contract.Contract):
    def test_the_hash_is_recorded_with_the_object_where_it_is_asked_for(
        self, sandbox: Sandbox, store: Prefix, gcs: GCSEmulator
    ) -> None:
        for content in (SMALL, LARGE):
            job = sandbox.add_job(SERIES, errors=1, error_file=content)

            run = pull(job, store.folder + "x.csv", object_storage_conn_id=store.conn_id, overwrite="if_changed")

            assert store.visible() == {"x.csv": Content.of(content)}
            assert gcs.metadata(store.prefix + "x.csv") == {"sha256": run.xcoms["error_file"]["sha256"]}

    @pytest.mark.parametrize("method", ["GET", "PATCH"], ids=["read", "record the hash"])
    def test_with_if_changed_a_role_that_may_not_do_this_sends_the_file(
        self, sandbox: Sandbox, store: Prefix, gcs: GCSEmulator, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        body = json.dumps({"error": {"code": 403, "message": "no permission"}}).encode()
        refused = (403, body, {"Content-Type": "application/json"})
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)

        with Gateway(gcs.endpoint_url, lambda request: refused if request.method == method else None) as gateway:
            conn_id = f"google_{uuid.uuid4().hex}"
            connection = gcs.google_connection_json().replace(gcs.endpoint_url, gateway.url)
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", connection)
            run = pull(job, store.folder + "x.csv", object_storage_conn_id=conn_id, overwrite="if_changed")

        assert gateway.count(method) > 0
        assert store.visible() == {"x.csv": Content.of(LARGE)}
        recorded = {"sha256": run.xcoms["error_file"]["sha256"]}
        assert gcs.metadata(store.prefix + "x.csv") == (recorded if method == "GET" else {})
