# SPDX-License-Identifier: Apache-2.0
"""S3, by a real server: the contract of all stores, and what only an object store can get wrong."""

from __future__ import annotations

import io
import json
import logging
import shutil
import socket
import uuid
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary._storage.stores import s3 as s3_store
from airflow_provider_capillary.exceptions import CapillaryConfigurationError, CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from tests.ports import free_ports
from tests.transfers import contract
from tests.transfers.child import run_child
from tests.transfers.contract import NAME, OLD
from tests.transfers.fresh import FILE_SYSTEMS, run_fresh
from tests.transfers.running import LARGE, MIB, SERIES, SMALL, Run, connect, pull
from tests.transfers.stores import Content, S3Folder

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.integration.seaweedfs import SeaweedFS

pytestmark = pytest.mark.slow


@pytest.fixture
def store(s3: SeaweedFS, aws_connection: str) -> S3Folder:
    return S3Folder(s3, f"error-files/{uuid.uuid4().hex}/", aws_connection)


class TestArrival(contract.Arrival):
    pass


@pytest.mark.usefixtures("capillary_connection")
def test_an_object_in_a_store_with_an_endpoint_of_its_own_gets_no_link(sandbox: Sandbox, store: S3Folder) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

    assert set(pull(job, store.folder, object_storage_conn_id=store.conn_id).xcoms) == {"error_file"}


class TestOverwriting(contract.Overwriting):
    pass


class TestChanging(contract.Changing):
    pass


class TestWholeness(contract.Wholeness):
    @pytest.fixture
    def quick_runs(self, store: S3Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lend one client to all runs: to make one takes ten times as long as all else."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        client = S3Hook(store.conn_id).get_conn()

        def lend(hook: S3Hook) -> object:
            # Each run adds them again.
            for operation in ("PutObject", "UploadPart"):
                client.meta.events.unregister(f"before-call.s3.{operation}", s3_store._send_checksum_as_header)
            return client

        monkeypatch.setattr(S3Hook, "get_conn", lend)


class TestKilling(contract.Killing):
    ROUNDS = 10  # one store is enough for so many: what differs is how each hides a part


class TestDestination(contract.Contract):
    @pytest.fixture
    def job(self, sandbox: Sandbox) -> SandboxJob:
        return sandbox.add_job(SERIES, errors=1, error_file=SMALL)

    def aws(self, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, **changes: object) -> str:
        """Return the id of an `aws` connection of its own: Airflow keeps what it made of one for ever."""
        conn_id = f"aws_{uuid.uuid4().hex}"
        connection = json.loads(s3.aws_connection_json())
        connection["extra"] |= changes.pop("extra", {})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection | changes))
        return conn_id

    def test_the_connection_may_stand_in_the_uri_which_is_handed_on_without_it(
        self, job: SandboxJob, store: S3Folder
    ) -> None:
        run = pull(job, f"s3://{store.conn_id}@{store.s3.bucket}/{store.prefix}{NAME}")

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert run.result == run.xcoms["error_file"]["uri"] == store.folder + NAME

    def test_a_connection_in_the_uri_that_contradicts_the_one_given_is_refused(
        self, job: SandboxJob, store: S3Folder
    ) -> None:
        with pytest.raises(
            CapillaryConfigurationError, match=r"destination names the connection 'other' .* leave one of"
        ):
            pull(job, f"s3://other@{store.s3.bucket}/{store.prefix}{NAME}", object_storage_conn_id=store.conn_id)

        assert store.visible() == {}

    def test_the_same_connection_may_be_given_twice(self, job: SandboxJob, store: S3Folder) -> None:
        destination = f"s3://{store.conn_id}@{store.s3.bucket}/{store.prefix}{NAME}"

        pull(job, destination, object_storage_conn_id=store.conn_id)

        assert store.visible() == {NAME: Content.of(SMALL)}

    def test_without_a_connection_the_machine_s_own_credentials_count(
        self, job: SandboxJob, store: S3Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", store.s3.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", store.s3.secret_key)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.s3.endpoint_url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", store.s3.region)

        # In a process of its own, because Airflow keeps what it made of the environment for ever.
        output = run_child(job, store.folder + NAME)

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert output["uri"] == store.folder + NAME

    def test_the_scheme_of_hadoop_means_the_same(self, job: SandboxJob, store: S3Folder) -> None:
        run = pull(job, store.folder.replace("s3://", "s3a://") + NAME, object_storage_conn_id=store.conn_id)

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert run.result == store.folder.replace("s3://", "s3a://") + NAME

    def test_a_transfer_imports_boto3_and_no_file_system(self, job: SandboxJob, store: S3Folder) -> None:
        destinations = [
            store.folder.replace("s3://", f"{scheme}://") + f"{scheme}.csv" for scheme in ("s3", "s3a", "s3n")
        ]

        outcomes, imported = run_fresh(job, *destinations, missing=("s3fs",), object_storage_conn_id=store.conn_id)

        assert outcomes == destinations
        assert store.visible() == dict.fromkeys(("s3.csv", "s3a.csv", "s3n.csv"), Content.of(SMALL))
        assert "boto3" in imported
        assert not set(FILE_SYSTEMS) & imported

    def test_a_bucket_alone_with_a_slash_is_a_folder(self, job: SandboxJob, store: S3Folder) -> None:
        run = pull(job, f"s3://{store.s3.bucket}/", object_storage_conn_id=store.conn_id)

        name = f"redeem_errors_{SERIES}_{job.job_id}.csv"
        assert run.result == f"s3://{store.s3.bucket}/{name}"
        assert store.s3.read(name) == SMALL
        store.s3.client.delete_object(Bucket=store.s3.bucket, Key=name)

    @pytest.mark.parametrize("name", ["a b", "50%25", "part#1", "ä", "x=1&y", "a:b@c", "~a"])
    def test_a_key_is_taken_literally(self, job: SandboxJob, store: S3Folder, name: str) -> None:
        run = pull(job, store.folder + name, object_storage_conn_id=store.conn_id)

        assert store.visible() == {name: Content.of(SMALL)}
        assert run.result == store.folder + name

    @pytest.mark.parametrize("name", ["what?", "what?versionId=1", "what::b", "what#"])
    def test_a_key_that_would_be_cut_short_is_refused(self, job: SandboxJob, store: S3Folder, name: str) -> None:
        # fsspec takes what follows for a version or another file system: the object would be another than the URI
        # says, and the one it replaces somebody else's.
        store.put("what", OLD)
        before = store.visible()

        with pytest.raises(CapillaryConfigurationError, match="destination"):
            pull(job, store.folder + name, object_storage_conn_id=store.conn_id)

        assert store.visible() == before

    def test_a_refusal_does_not_show_what_may_be_a_signature(self, job: SandboxJob, store: S3Folder) -> None:
        with pytest.raises(CapillaryConfigurationError, match="destination") as caught:
            pull(job, store.folder + "errors.csv?X-Amz-Signature=hunter2", object_storage_conn_id=store.conn_id)

        assert "hunter2" not in str(caught.value)

    def test_a_small_file_is_sent_in_one_request_that_leaves_nothing_behind_if_it_is_interrupted(
        self, job: SandboxJob, store: S3Folder, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Of an upload in parts, one that is cut off while it begins stays in the bucket, unseen and paid for.
        caplog.set_level(logging.DEBUG, logger="botocore.endpoint")

        pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        assert store.visible() == {NAME: Content.of(SMALL)}
        assert "PutObject" in caplog.text
        assert "Multipart" not in caplog.text

    def test_a_file_that_must_not_be_fetched_asks_nothing_of_the_store(
        self, sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Otherwise the reason is reported only after all attempts to reach the store, should that be out of order.
        job = sandbox.add_job(SERIES, errors=1, error_file_url="../x")
        impatient = {"read_timeout": 0.2, "retries": {"total_max_attempts": 1}}
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            conn_id = self.aws(store.s3, monkeypatch, extra={"endpoint_url": url, "config_kwargs": impatient})

            with pytest.raises(CapillaryErrorFileError, match="is not fetched, because"):
                pull(job, store.folder + NAME, object_storage_conn_id=conn_id)

            silent.setblocking(False)
            with pytest.raises(BlockingIOError):
                silent.accept()

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "of several parts"])
    def test_a_bucket_that_cannot_be_used_is_named(self, sandbox: Sandbox, store: S3Folder, content: bytes) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=content)
        # Too short to be the name of a bucket. (For one that is merely not there, SeaweedFS makes it.)
        run = Run(job, "s3://ab/errors.csv", object_storage_conn_id=store.conn_id)

        with pytest.raises(
            CapillaryErrorFileError, match=r"destination s3://ab/errors\.csv cannot be written: .*bucket"
        ):
            run()

        assert run.xcoms == {}

    @pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "of several parts"])
    @pytest.mark.parametrize("wrong", [{"login": "nobody"}, {"password": "wrong-secret"}], ids=["key", "secret"])
    def test_credentials_that_are_refused_are_an_error_that_names_the_destination(
        self, sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, wrong: dict, content: bytes
    ) -> None:
        store.put(NAME, OLD)
        job = sandbox.add_job(SERIES, errors=1, error_file=content)
        conn_id = self.aws(store.s3, monkeypatch, **wrong)

        with pytest.raises(CapillaryErrorFileError, match=f"destination {store.folder}{NAME} ") as caught:
            pull(job, store.folder + NAME, object_storage_conn_id=conn_id)

        assert not any(value in str(caught.value) for value in wrong.values())
        assert store.visible() == {NAME: Content.of(OLD)}
        assert store.unfinished() == []

    def test_without_overwrite_credentials_that_are_refused_are_the_same_error(
        self, job: SandboxJob, store: S3Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conn_id = self.aws(store.s3, monkeypatch, password="wrong-secret")

        with pytest.raises(CapillaryErrorFileError, match=f"destination {store.folder}{NAME} "):
            pull(job, store.folder + NAME, object_storage_conn_id=conn_id, overwrite=False)

    def test_no_credentials_at_all_are_an_error_that_names_the_destination(
        self, job: SandboxJob, store: S3Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conn_id = self.aws(store.s3, monkeypatch, login=None, password=None)

        with pytest.raises(CapillaryErrorFileError, match=f"destination {store.folder}{NAME} "):
            pull(job, store.folder + NAME, object_storage_conn_id=conn_id)

    def test_a_store_that_cannot_be_reached_is_an_error_that_names_the_destination(
        self, job: SandboxJob, store: S3Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (port,) = free_ports(1)
        conn_id = self.aws(
            store.s3,
            monkeypatch,
            extra={"endpoint_url": f"http://127.0.0.1:{port}", "config_kwargs": {"retries": {"total_max_attempts": 1}}},
        )

        with pytest.raises(CapillaryErrorFileError, match=f"destination {store.folder}{NAME} "):
            pull(job, store.folder + NAME, object_storage_conn_id=conn_id)

    def test_a_connection_that_is_not_there_is_named(
        self, job: SandboxJob, store: S3Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The amazon provider would only warn, and go on without any credentials.
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.s3.endpoint_url)

        with pytest.raises(Exception, match="no_such_connection"):
            pull(job, store.folder + NAME, object_storage_conn_id="no_such_connection")

        assert store.visible() == {}

    @pytest.mark.parametrize("between", [b"", LARGE], ids=["small", "of several parts"])
    def test_no_row_token_or_secret_is_logged_even_by_the_libraries_at_debug_level(
        self,
        sandbox: Sandbox,
        store: S3Folder,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
        between: bytes,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL + between + b"4111-mobile-of-a-customer\n")

        run = pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        out, err = capfd.readouterr()
        said = caplog.text + out + err + repr(run.xcoms)
        assert "botocore" in said
        for secret in ("4111-mobile", "WELCOME10", store.s3.secret_key, "sandbox-secret", *sandbox.tokens_issued):
            assert secret not in said

    def test_memory_stays_small_however_large_the_file(self, sandbox: Sandbox, store: S3Folder, tmp_path: Path) -> None:
        size = 100 * MIB
        source = tmp_path / "source.csv"
        with source.open("wb") as file:
            file.truncate(size)
        job = sandbox.add_job(SERIES, errors=1, error_file=source)

        small = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

        output = run_child(job, store.folder + NAME, object_storage_conn_id=store.conn_id)
        small_output = run_child(small, store.folder + "small.csv", object_storage_conn_id=store.conn_id)

        assert output["error_file"]["size_bytes"] == size
        assert store.visible()[NAME].sha256 == output["error_file"]["sha256"]
        # Clients and their descriptions of the service take the same for a file of one byte.
        assert output["growth"] - small_output["growth"] < 64 * MIB


class TestSource:
    """Error files that lie in object storage themselves."""

    @pytest.fixture
    def job(self, sandbox: Sandbox) -> SandboxJob:
        return sandbox.add_job(SERIES, errors=1)

    @pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "of several parts"])
    def test_a_template_leads_from_a_handle_to_an_object(
        self, sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        job = sandbox.add_job(SERIES, errors=int(bool(content)), error_file=b"not here")
        connect(monkeypatch, sandbox, error_file_url=store.folder + "{handle}.csv", error_file_conn_id=store.conn_id)
        store.put(f"{job.handle}.csv", content)

        run = pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        assert store.visible() == {f"{job.handle}.csv": Content.of(content), NAME: Content.of(content)}
        assert run.xcoms["error_file"]["size_bytes"] == len(content)
        assert sandbox.count("download") == 0

    def test_an_object_named_by_the_answer_is_read_with_the_connection_for_error_files(
        self, sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        connect(monkeypatch, sandbox, error_file_conn_id=store.conn_id)
        store.put("theirs.csv", SMALL)
        job = sandbox.add_job(SERIES, errors=1, error_file_url=store.folder + "theirs.csv")

        pull(job, f"{tmp_path}/{NAME}")

        assert (tmp_path / NAME).read_bytes() == SMALL

    def test_an_object_that_is_not_there_is_an_error_and_leaves_all_as_it_was(
        self, sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, job: SandboxJob
    ) -> None:
        connect(monkeypatch, sandbox, error_file_url=store.folder + "{handle}.csv", error_file_conn_id=store.conn_id)
        store.put(NAME, OLD)

        with pytest.raises(CapillaryErrorFileError, match=f"no error file at {store.folder}{job.handle}.csv"):
            pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        assert store.visible() == {NAME: Content.of(OLD)}

    def test_credentials_that_are_refused_are_an_error_that_names_the_error_file(
        self, sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, job: SandboxJob
    ) -> None:
        conn_id = f"aws_{uuid.uuid4().hex}"
        refused = json.loads(store.s3.aws_connection_json()) | {"password": "wrong-secret"}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(refused))
        connect(monkeypatch, sandbox, error_file_url=store.folder + "{handle}.csv", error_file_conn_id=conn_id)
        store.put(f"{job.handle}.csv", SMALL)

        with pytest.raises(CapillaryError, match=f"{store.folder}{job.handle}.csv"):
            pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        assert NAME not in store.visible()
        assert store.unfinished() == []

    @pytest.mark.parametrize("handle", ["theirs?", "theirs?versionId=1", "theirs#"])
    def test_a_handle_that_would_be_cut_short_does_not_lead_to_another_object(
        self, sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, handle: str
    ) -> None:
        connect(monkeypatch, sandbox, error_file_url=store.folder + "{handle}", error_file_conn_id=store.conn_id)
        store.put("theirs", SMALL)
        job = sandbox.add_job(SERIES, errors=1, error_file_url=handle)

        with pytest.raises(CapillaryErrorFileError):
            pull(job, store.folder + NAME, object_storage_conn_id=store.conn_id)

        assert store.visible() == {"theirs": Content.of(SMALL)}

    def test_an_object_that_changes_while_it_is_read_is_an_error_that_names_it(
        self, sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(monkeypatch, sandbox, error_file_conn_id=store.conn_id)
        store.put("theirs.csv", LARGE)
        sandbox.add_job(SERIES, errors=1, error_file_url=store.folder + "theirs.csv")
        hook = CapillaryHook()
        (job,) = hook.get_redeem_upload_jobs(SERIES)

        with hook.open_error_file(job) as stream:
            assert stream.read(MIB) == LARGE[:MIB]
            store.put("theirs.csv", LARGE[::-1])
            with pytest.raises(CapillaryErrorFileError, match=f"{store.folder}theirs.csv"):
                shutil.copyfileobj(stream, io.BytesIO())
