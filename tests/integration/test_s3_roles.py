# SPDX-License-Identifier: Apache-2.0
"""S3 as it is with narrow roles, bucket policies and conflicts: a real server behind a gateway that refuses."""

from __future__ import annotations

import base64
import json
import logging
import time
import uuid
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_capillary._storage.stores.base import ObjectLocation
from airflow_provider_capillary._storage.stores.choice import store_of
from airflow_provider_capillary._storage.unfinished import remove_unfinished
from airflow_provider_capillary.exceptions import CapillaryConfigurationError, CapillaryErrorFileError
from airflow_provider_capillary.sandbox import Fault
from tests.airflow_compat import redact
from tests.integration.gateway import Gateway, s3_error
from tests.running import StateStore
from tests.transfers.child import Child
from tests.transfers.contract import NAME, OLD
from tests.transfers.running import LARGE, SERIES, SMALL, Run, connect, pull
from tests.transfers.stores import Content, S3Folder
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.integration.gateway import Request
    from tests.integration.seaweedfs import SeaweedFS

pytestmark = pytest.mark.slow

CONTENTS = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "of several parts"])
#: What the store needs at most to give an answer, and no patience for one that gives none.
IMPATIENT = {"read_timeout": 1, "connect_timeout": 1, "retries": {"total_max_attempts": 1}}


@pytest.fixture(autouse=True)
def _connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, sandbox)


@pytest.fixture
def store(s3: SeaweedFS, aws_connection: str) -> S3Folder:
    return S3Folder(s3, f"error-files/{uuid.uuid4().hex}/", aws_connection)


@contextmanager
def gateway(
    store: S3Folder, monkeypatch: pytest.MonkeyPatch, answer: Any = lambda request: None, **extra: Any
) -> Iterator[tuple[Gateway, dict[str, str]]]:
    """A gateway before the store, and the arguments of the operator that lead through it."""
    with Gateway(store.s3.endpoint_url, answer) as before:
        conn_id = f"aws_{uuid.uuid4().hex}"
        connection = json.loads(store.s3.aws_connection_json())
        connection["extra"] |= {"endpoint_url": before.url, "config_kwargs": IMPATIENT} | extra
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        yield before, {"destination": store.folder + NAME, "object_storage_conn_id": conn_id}


def without_list_bucket(request: Request) -> Any:
    """As S3 to a role without s3:ListBucket, for an object that is not there."""
    return s3_error(403, "AccessDenied") if request.method == "HEAD" else None


# --- roles without s3:ListBucket ---------------------------------------------------------------------------------


@CONTENTS
@pytest.mark.parametrize("overwrite", [False, "if_changed"])
def test_a_role_that_cannot_see_what_is_there_can_write_a_new_object(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, content: bytes, overwrite: Any
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=content)

    with gateway(store, monkeypatch, without_list_bucket) as (before, to):
        pull(job, **to, overwrite=overwrite)

    assert before.count("HEAD") == 1
    assert store.visible() == {NAME: Content.of(content)}
    assert store.unfinished() == []


@CONTENTS
def test_a_role_that_cannot_see_what_is_there_does_not_replace_it_without_overwrite(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    store.put(NAME, OLD)
    job = sandbox.add_job(SERIES, errors=1, error_file=content)

    with (
        gateway(store, monkeypatch, without_list_bucket) as (_, to),
        pytest.raises(CapillaryErrorFileError, match="already there and overwrite is off"),
    ):
        pull(job, **to, overwrite=False)

    assert store.visible() == {NAME: Content.of(OLD)}
    assert store.unfinished() == []


def test_a_store_that_fails_when_it_is_asked_fails_the_task_before_the_download(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

    with (
        gateway(store, monkeypatch, lambda request: s3_error(500, "InternalError")) as (_, to),
        pytest.raises(CapillaryErrorFileError, match=f"destination {store.folder}{NAME} cannot be written"),
    ):
        pull(job, **to, overwrite=False)

    assert sandbox.count("download") == 0


# --- conflicts ---------------------------------------------------------------------------------------------------


def shows_the_object(status: int, code: str) -> Any:
    """An answer to what would show the object."""

    def answer(request: Request) -> Any:
        is_put = request.method == "PUT" and "uploadId" not in request.path
        is_complete = request.method == "POST" and "uploadId" in request.path
        return s3_error(status, code) if is_put or is_complete else None

    return answer


@CONTENTS
@pytest.mark.parametrize(
    ("status", "code"), [(409, "OperationAborted"), (412, "PreconditionFailed"), (409, "ConditionalRequestConflict")]
)
def test_with_overwrite_a_refusal_is_shown_in_the_words_of_the_store(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, content: bytes, status: int, code: str
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=content)

    with (
        gateway(store, monkeypatch, shows_the_object(status, code)) as (_, to),
        pytest.raises(CapillaryErrorFileError, match=f"cannot be written: .*{code}") as caught,
    ):
        pull(job, **to)

    assert "overwrite" not in str(caught.value)
    assert store.unfinished() == []


@CONTENTS
def test_without_overwrite_a_conflict_with_another_write_does_not_say_that_an_object_is_there(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=content)

    with (
        gateway(store, monkeypatch, shows_the_object(409, "ConditionalRequestConflict")) as (_, to),
        pytest.raises(CapillaryErrorFileError, match="another process wrote the same object") as caught,
    ):
        pull(job, **to, overwrite=False)

    assert "already there" not in str(caught.value)
    assert store.unfinished() == []


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "an object there"])
def test_without_overwrite_an_attempt_whose_answer_was_lost_is_not_taken_for_the_object_of_somebody_else(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, old: bytes | None
) -> None:
    # boto3 sends the request again, and S3 refuses that because of the first one.
    puts = 0

    def answer(request: Request) -> Any:
        nonlocal puts
        puts += request.method == "PUT"
        if request.method == "HEAD" and not puts:
            return s3_error(404, "NotFound")
        if request.method == "PUT" and puts == 1:
            store.s3.client.put_object(
                Bucket=store.s3.bucket,
                Key=store.prefix + NAME,
                Body=old or SMALL,
                Metadata={} if old else {"sha256": sha256(SMALL).hexdigest()},
            )
            return s3_error(503, "SlowDown")
        return None

    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

    with gateway(store, monkeypatch, answer, config_kwargs={"retries": {"total_max_attempts": 2}}) as (_, to):
        run = Run(job, **to, overwrite=False)
        if old is None:
            assert run().result == store.folder + NAME
        else:
            with pytest.raises(CapillaryErrorFileError, match="already there and overwrite is off"):
                run()

    assert puts == 2
    assert store.visible() == {NAME: Content.of(old or SMALL)}


# --- what fails when the object is complete ----------------------------------------------------------------------


def tagging(kind: str) -> Any:
    def answer(request: Request) -> Any:
        if "tagging" not in request.path:
            return None
        if kind == "a time-out":
            time.sleep(2.0)
        return s3_error(501, "NotImplemented") if kind == "refused" else (200, b"<", {"Content-Length": "100000"})

    return answer


@pytest.mark.parametrize("kind", ["refused", "a time-out", "an answer that breaks off"])
def test_an_object_whose_hash_cannot_be_recorded_is_complete_and_so_is_the_task(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)

    with gateway(store, monkeypatch, tagging(kind)) as (before, to):
        run = pull(job, **to, overwrite="if_changed")

    assert before.count("PUT", "tagging") == 1
    assert run.result == store.folder + NAME
    assert store.visible() == {NAME: Content.of(LARGE)}
    assert "sha256 could not be stored" in caplog.text


@pytest.mark.parametrize("kind", ["refused", "a time-out"])
def test_an_object_whose_record_cannot_be_read_is_sent_again(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store.put(NAME, OLD)
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

    with gateway(store, monkeypatch, tagging(kind)) as (before, to):
        pull(job, **to, overwrite="if_changed")

    assert before.count("GET", "tagging") == 1
    assert store.visible() == {NAME: Content.of(SMALL)}


@CONTENTS
def test_with_if_changed_a_store_that_fails_when_it_is_asked_gets_the_file(
    sandbox: Sandbox,
    store: S3Folder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=content)

    def answer(request: Request) -> Any:
        return s3_error(500, "InternalError") if request.method == "HEAD" else None

    with gateway(store, monkeypatch, answer) as (_, to):
        pull(job, **to, overwrite="if_changed")

    assert store.visible() == {NAME: Content.of(content)}
    assert "cannot be read (ClientError): the file is sent again" in caplog.text


# --- encryption and access that a bucket asks for ----------------------------------------------------------------


def asks_for_encryption(request: Request) -> Any:
    """As a bucket policy that denies each upload without encryption and access for the bucket's owner."""
    begins = (request.method == "PUT" and "uploadId" not in request.path and "tagging" not in request.path) or (
        request.method == "POST" and "uploads" in request.path
    )
    ours = {name: request.headers.get(name) for name in WANTED}
    return s3_error(403, "AccessDenied") if begins and ours != WANTED else None


WANTED = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "the-key",
    "x-amz-acl": "bucket-owner-full-control",
}
EXTRA_ARGS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "the-key", "ACL": "bucket-owner-full-control"}
KEY = "a customer's key of 32 characters"[:32]


def in_front_of_seaweedfs(check: Any) -> Any:
    """Answer what needs a key service, which SeaweedFS has none of, as if all went well; remember nothing."""

    def answer(request: Request) -> Any:
        refused = check(request)
        if refused is not None:
            return refused
        if request.method == "POST" and "uploads" in request.path:
            body = b"<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>"
            return 200, body, {"Content-Type": "application/xml"}
        if request.method == "POST":
            return 200, b"<CompleteMultipartUploadResult/>", {"Content-Type": "application/xml"}
        if request.method == "PUT":
            return 200, b"", {"ETag": '"x"'}
        return None

    return answer


@CONTENTS
def test_what_the_connection_asks_for_goes_with_each_upload(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=content)
    answer = in_front_of_seaweedfs(asks_for_encryption)

    with gateway(store, monkeypatch, answer, service_config={"s3": {"extra_args": EXTRA_ARGS}}) as (_, to):
        pull(job, **to)
    with gateway(store, monkeypatch, answer) as (_, to), pytest.raises(CapillaryErrorFileError, match="AccessDenied"):
        pull(job, **to)


@CONTENTS
def test_a_customer_s_key_goes_with_each_call_that_needs_it_and_is_masked_in_logs(
    sandbox: Sandbox,
    store: S3Folder,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    job = sandbox.add_job(SERIES, errors=1, error_file=content)
    extra_args = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY}
    encoded = base64.b64encode(KEY.encode()).decode()

    with gateway(
        store,
        monkeypatch,
        in_front_of_seaweedfs(lambda request: None),
        service_config={"s3": {"extra_args": extra_args}},
    ) as (before, to):
        pull(job, **to, overwrite=False)

    with_key = [r.method for r in before.requests if "x-amz-server-side-encryption-customer-key" in r.headers]
    assert len(with_key) == len(before.requests) == (2 if content is SMALL else 6)
    assert encoded in caplog.text  # botocore shows the headers, and Airflow masks them
    assert encoded not in redact(caplog.text)
    assert KEY not in redact(KEY)


def test_the_tags_that_the_connection_asks_for_stay_beside_the_hash(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
    extra_args = {"Tagging": "owner=finance&personal%20data=yes", "Metadata": {"source": "capillary"}}

    with gateway(store, monkeypatch, service_config={"s3": {"extra_args": extra_args}}) as (_, to):
        run = pull(job, **to, overwrite="if_changed")
        again = pull(job, **to, overwrite="if_changed")

    key = store.prefix + NAME
    tags = store.s3.client.get_object_tagging(Bucket=store.s3.bucket, Key=key)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "owner": "finance",
        "personal data": "yes",
        "sha256": run.xcoms["error_file"]["sha256"],
    }
    assert store.s3.client.head_object(Bucket=store.s3.bucket, Key=key)["Metadata"] == {"source": "capillary"}
    assert again.xcoms == run.xcoms


@pytest.mark.parametrize(
    ("extra_args", "problem"),
    [
        ({"ServerSideEncription": "AES256"}, "has ServerSideEncription, which an upload does not accept"),
        ({"Body": "x", "ACL": "private"}, "has Body, which an upload does not accept"),
        ({"IfNoneMatch": "*"}, "has IfNoneMatch, which an upload does not accept"),
        (["ACL"], "must be a JSON object"),
        ("ACL", "must be a JSON object"),
    ],
)
def test_what_an_upload_does_not_take_is_refused_by_name(
    sandbox: Sandbox, store: S3Folder, monkeypatch: pytest.MonkeyPatch, extra_args: Any, problem: str
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

    with (
        gateway(store, monkeypatch, service_config={"s3": {"extra_args": extra_args}}) as (before, to),
        pytest.raises(CapillaryConfigurationError, match=problem),
    ):
        pull(job, **to)

    assert before.requests == []


# --- access points -----------------------------------------------------------------------------------------------


@CONTENTS
def test_an_access_point_is_asked_at_its_own_host(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=content)
    arn = "arn:aws:s3:eu-central-1:123456789012:accesspoint/ours"
    conn_id = f"aws_{uuid.uuid4().hex}"
    connection = {
        "conn_type": "aws",
        "login": "tests",
        "password": "only-for-tests",
        "extra": {"endpoint_url": "http://s3.example", "region_name": "eu-central-1"},
    }
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Gateway("http://127.0.0.1:9", in_front_of_seaweedfs(lambda request: None)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        run = pull(job, f"s3://{arn}/errors/{NAME}", object_storage_conn_id=conn_id)

    assert run.result == f"s3://{arn}/errors/{NAME}"
    assert {urlsplit(r.path)._replace(query="").geturl() for r in proxy.requests} == {
        f"http://ours-123456789012.s3.example/errors/{NAME}"
    }


# --- what killed runs leave behind -------------------------------------------------------------------------------


def test_the_upload_of_a_killed_run_is_cleared_up_by_a_retry_that_writes_another_object(
    sandbox: Sandbox, store: S3Folder, tmp_path: Path
) -> None:
    state_file = tmp_path / "state.json"
    job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
    sandbox.inject(Fault("drip", endpoint="download", seconds=15.0))
    with Child(job, store.folder + NAME, state_file=str(state_file), object_storage_conn_id=store.conn_id) as child:
        wait_until(lambda: store.under_way() != [], seconds=60)
        wait_until(lambda: StateStore(str(state_file)).get("capillary_unfinished") is not None)
        child.kill()
    sandbox.clear_faults()
    state = StateStore(str(state_file))

    run = Run(job, store.folder + "other.csv", object_storage_conn_id=store.conn_id)
    run.operator.execute({"ti": run.ti, "task_state_store": state})

    assert store.unfinished() == []
    assert state.get("capillary_unfinished") is None


def test_an_upload_that_is_gone_already_is_forgotten(store: S3Folder) -> None:
    state = StateStore()
    location = ObjectLocation(store.folder + NAME, store.conn_id)
    upload_id = store_of(location).begin()
    state.set("capillary_unfinished", [{"uri": location.uri, "conn_id": store.conn_id, "left": upload_id}])
    store_of(location).remove(upload_id)

    remove_unfinished(state)

    assert state.get("capillary_unfinished") is None
