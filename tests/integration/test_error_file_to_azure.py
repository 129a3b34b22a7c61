# SPDX-License-Identifier: Apache-2.0
"""Azure Blob Storage, by Microsoft's own emulator: the contract of all stores."""

from __future__ import annotations

import datetime
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary.exceptions import CapillaryConfigurationError, CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.sandbox import Fault
from tests.airflow_compat import ObjectStoragePath
from tests.integration.gateway import Gateway
from tests.transfers import contract
from tests.transfers.contract import NAME, OLD
from tests.transfers.running import LARGE, SERIES, SMALL, Run, connect, pull
from tests.transfers.stores import Content, Prefix

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.integration.azurite import Azurite

pytestmark = pytest.mark.slow


class BlobFolder(Prefix):
    """A prefix of a container.

    Azure keeps blocks that were not committed for a week, and has no call to drop them without writing the blob. But
    nobody sees them, and nobody has to remove them.
    """

    def unfinished(self) -> list[str]:
        return []


@pytest.fixture
def store(azure: Azurite, azure_connection: str) -> BlobFolder:
    return BlobFolder(azure, f"error-files/{uuid.uuid4().hex}/", azure_connection)


class TestArrival(contract.Arrival):
    pass


class TestOverwriting(contract.Overwriting):
    pass


class TestChanging(contract.Changing):
    pass


# A task that is interrupted between two calls leaves a request of the asynchronous client unsent.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
class TestWholeness(contract.Wholeness):
    def test_of_two_runs_at_once_one_wins_and_neither_shows_a_part(
        self, sandbox: Sandbox, store: BlobFolder, to: dict, before: dict
    ) -> None:
        # Unlike in other stores the slower one fails, because Azure keeps the blocks of one commit only.
        contents = [LARGE, LARGE[::-1]]
        runs = [Run(sandbox.add_job(SERIES, errors=1, error_file=content), **to) for content in contents]
        sandbox.inject(Fault("drip", endpoint="download", seconds=0.5, times=2))

        with ThreadPoolExecutor() as pool:
            done = [pool.submit(run) for run in runs]
            errors = [error for each in done if (error := each.exception()) is not None]

        assert len(errors) <= 1
        assert all("another process wrote the blob at the same time" in str(error) for error in errors)
        assert store.visible() in [{NAME: Content.of(content)} for content in contents]
        # And a retry makes up for it.
        runs[0]()
        assert store.visible() == {NAME: Content.of(LARGE)}


class TestKilling(contract.Killing):
    pass


class TestBlobs(contract.Contract):
    def test_the_hash_is_recorded_with_the_blob(self, sandbox: Sandbox, store: BlobFolder, azure: Azurite) -> None:
        for content in (SMALL, LARGE):
            job = sandbox.add_job(SERIES, errors=1, error_file=content)

            pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

            assert azure.metadata(store.prefix + NAME) == {"sha256": sha256(content).hexdigest()}

    def test_blocks_of_a_try_that_failed_are_dropped_by_the_next(self, sandbox: Sandbox, store: BlobFolder) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
        sandbox.inject(Fault("cut", endpoint="download", fraction=0.9, times=None))
        with pytest.raises(CapillaryError):
            pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)
        assert store.visible() == {}
        assert store.under_way() == [store.prefix + NAME]

        sandbox.clear_faults()
        pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        assert store.visible() == {NAME: Content.of(LARGE)}
        assert store.under_way() == []

    def test_a_key_that_is_refused_is_an_error_that_names_the_destination(
        self, sandbox: Sandbox, store: BlobFolder, azure: Azurite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.put(NAME, OLD)
        conn_id = f"wasb_{uuid.uuid4().hex}"
        wrong = azure.azure_connection_json().replace(azure.key, "d3Jvbmcta2V5LXdyb25nLWtleQ==")
        assert json.loads(wrong)
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", wrong)
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

        with pytest.raises(
            CapillaryErrorFileError, match=f"destination {store.folder}{NAME} cannot be written"
        ) as caught:
            pull(job, store.folder + NAME, object_storage_conn_id=conn_id)

        assert "d3Jvbmc" not in str(caught.value)
        assert store.visible() == {NAME: Content.of(OLD)}


def account_uri(store: BlobFolder, account: str = "devstoreaccount1.dfs.core.windows.net") -> str:
    """The folder, with the storage account as Azure itself writes it."""
    return store.folder.replace("abfs://lake/", f"abfss://lake@{account}/")


class TestStorageAccounts(contract.Contract):
    @pytest.fixture
    def job(self, sandbox: Sandbox) -> SandboxJob:
        return sandbox.add_job(SERIES, errors=1, error_file=SMALL)

    @pytest.mark.parametrize("named", ["beside", "in front", "both"])
    def test_what_stands_before_the_account_is_the_container(
        self, job: SandboxJob, store: BlobFolder, azure: Azurite, named: str
    ) -> None:
        containers = [each.name for each in azure.client.list_containers()]
        destination = account_uri(store)
        if named != "beside":
            destination = destination.replace("abfss://", f"abfss://{store.conn_id}@")

        run = pull(job, destination + NAME, object_storage_conn_id=None if named == "in front" else store.conn_id)

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert [each.name for each in azure.client.list_containers()] == containers
        assert run.result == f"abfss://lake/{store.prefix}{NAME}"
        assert ObjectStoragePath(run.result, conn_id=store.conn_id).read_bytes() == SMALL

    def test_the_account_may_stand_before_the_container_as_adlfs_has_it(
        self, job: SandboxJob, store: BlobFolder
    ) -> None:
        destination = f"abfs://devstoreaccount1.dfs.core.windows.net/lake/{store.prefix}{NAME}"

        run = pull(job, destination, object_storage_conn_id=store.conn_id)

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert run.result == store.folder + NAME

    @pytest.mark.parametrize("account", ["acct.dfs.core.windows.net", "other.blob.core.windows.net"])
    def test_an_account_that_is_not_that_of_the_connection_is_refused_before_anything_is_sent(
        self, sandbox: Sandbox, job: SandboxJob, store: BlobFolder, account: str
    ) -> None:
        with pytest.raises(
            CapillaryConfigurationError, match=f"^destination abfss://lake/.* {account}, but .* is for devstoreaccount1"
        ):
            pull(job, account_uri(store, account) + NAME, object_storage_conn_id=store.conn_id, overwrite=False)

        assert store.visible() == {}
        assert sandbox.count("download") == 0

    def test_another_cloud_is_another_account(
        self, job: SandboxJob, store: BlobFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conn_id = f"wasb_{uuid.uuid4().hex}"
        extra = {"connection_string": "AccountName=acct;AccountKey=a2V5;EndpointSuffix=core.chinacloudapi.cn"}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "wasb", "extra": extra}))

        with pytest.raises(
            CapillaryConfigurationError, match=r"is for acct.dfs.core.chinacloudapi.cn; use a connection"
        ):
            pull(job, account_uri(store, "acct.dfs.core.windows.net") + NAME, object_storage_conn_id=conn_id)

    def test_an_error_file_url_may_name_the_account(
        self, sandbox: Sandbox, store: BlobFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.put("theirs.csv", SMALL)
        job = sandbox.add_job(SERIES, errors=1, error_file_url="theirs.csv")
        connect(monkeypatch, sandbox, error_file_url=account_uri(store) + "{handle}", error_file_conn_id=store.conn_id)

        pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        assert store.visible() == {"theirs.csv": Content.of(SMALL), NAME: Content.of(SMALL)}

    @pytest.mark.parametrize("reference", ["handle", "URI of an answer"])
    def test_an_error_file_of_another_account_is_not_read(
        self, sandbox: Sandbox, store: BlobFolder, monkeypatch: pytest.MonkeyPatch, reference: str
    ) -> None:
        store.put("theirs.csv", SMALL)
        folder = account_uri(store, "acct.dfs.core.windows.net")
        url = "theirs.csv" if reference == "handle" else folder + "theirs.csv"
        job = sandbox.add_job(SERIES, errors=1, error_file_url=url)
        connect(monkeypatch, sandbox, error_file_url=folder + "{handle}", error_file_conn_id=store.conn_id)

        with pytest.raises(
            CapillaryConfigurationError, match=r"acct\.dfs\.core\.windows\.net, but .* is for devstoreaccount1"
        ):
            pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        assert NAME not in store.visible()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "of several parts"])
class TestRoles(contract.Contract):
    @pytest.fixture
    def write_only(self, azure: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
        """A connection with a signature that allows to write, and not to read."""
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        signature = generate_container_sas(
            azure.account,
            azure.container,
            account_key=azure.key,
            permission=ContainerSasPermissions(write=True, create=True),
            expiry=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
        )
        conn_id = f"wasb_{uuid.uuid4().hex}"
        extra = {"connection_string": f"BlobEndpoint={azure.endpoint_url};SharedAccessSignature={signature}"}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "wasb", "extra": extra}))
        return conn_id

    @pytest.mark.parametrize("overwrite", [False, "if_changed"])
    def test_who_may_not_read_can_write_a_new_blob(
        self, sandbox: Sandbox, store: BlobFolder, write_only: str, content: bytes, overwrite: object
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=content)

        pull(job, store.folder + NAME, object_storage_conn_id=write_only, overwrite=overwrite)

        assert store.visible() == {NAME: Content.of(content)}

    def test_who_may_not_read_does_not_replace_a_blob_without_overwrite(
        self, sandbox: Sandbox, store: BlobFolder, write_only: str, content: bytes
    ) -> None:
        store.put(NAME, OLD)
        job = sandbox.add_job(SERIES, errors=1, error_file=content)

        with pytest.raises(CapillaryErrorFileError, match="already there and overwrite is off"):
            pull(job, store.folder + NAME, object_storage_conn_id=write_only, overwrite=False)

        assert store.visible() == {NAME: Content.of(OLD)}

    def test_with_overwrite_a_conflict_is_shown_in_the_words_of_the_store(
        self, sandbox: Sandbox, store: BlobFolder, azure: Azurite, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=content)
        code = "BlobImmutableDueToPolicy"
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>it is under legal hold</Message></Error>"
        headers = {"x-ms-error-code": code, "Content-Type": "application/xml"}
        shows = ("PUT", "comp=blocklist") if content is LARGE else ("PUT", "")

        with Gateway(
            azure.endpoint_url,
            lambda request: (
                (409, body.encode(), headers) if request.method == shows[0] and shows[1] in request.path else None
            ),
        ) as gateway:
            conn_id = f"wasb_{uuid.uuid4().hex}"
            extra = {
                "connection_string": azure.connection_string.replace(
                    azure.endpoint_url, f"{gateway.url}/{azure.account}"
                )
            }
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "wasb", "extra": extra}))
            with pytest.raises(CapillaryErrorFileError, match="it is under legal hold") as caught:
                pull(job, store.folder + NAME, object_storage_conn_id=conn_id)

        assert "overwrite" not in str(caught.value)
