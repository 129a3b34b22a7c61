# SPDX-License-Identifier: Apache-2.0
"""The doctor's report about accounts that answer in many ways, over real HTTP."""

from __future__ import annotations

import codecs
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.job_facts import JOB_FIELDS
from airflow_provider_capillary.api.jobs import read_jobs
from airflow_provider_capillary.api.sandbox_answers import _SANDBOX
from airflow_provider_capillary.api.upload_kinds import REDEEM
from airflow_provider_capillary.doctor.__main__ import main
from airflow_provider_capillary.sandbox import Fault
from tests.doctor.conftest import JOB_ID, SERIES
from tests.hooks.servers import closed_port, connect_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.doctor.conftest import Examine
    from tests.hooks.conftest import Authority, Connect, Start

ROWS = "message,coupon code\nCoupon is expired, really,SECRETCODE1\nCoupon is gone,SECRETCODE2\n"


@pytest.fixture
def conn_id(sandbox: Sandbox, connect: Connect) -> str:
    return connect(sandbox)


def job_of(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    """A job as the status endpoint describes it, changed."""
    job = sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
    described = job.to_json()
    return described | changes


def answer_with(sandbox: Sandbox, *jobs: dict[str, Any], **more: Any) -> None:
    """Have the status endpoint answer with these jobs."""
    result = {"orgId": sandbox.org_id, "couponSeriesId": SERIES, "redeemUploadJobStatuses": list(jobs)} | more
    body = {"success": True, "status": 200, "result": result}
    sandbox.inject(Fault("body", endpoint="status", status=200, body=body, times=None))


class TestGoodAccount:
    def test_of_the_sandbox_differs_from_the_sandbox_in_nothing(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=3)
        sandbox.add_job(SERIES, status="QUEUED")

        examined = examine(sandbox, conn_id)

        assert examined.code == 0
        assert examined.document["ok"] is True
        assert examined.document["version"] == 1
        assert examined.differences() == {}
        assert [examined.document[each]["result"] for each in ("host", "token", "status", "error_file")] == ["ok"] * 4

    def test_has_every_fact_that_is_compared_with_the_sandbox(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, errors=3)

        document = examine(sandbox, conn_id).document

        assert [path for path in _SANDBOX if path[1] not in document[path[0]]] == []

    def test_reports_counts_words_dates_and_the_zone_of_their_midnight(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, errors=3)
        sandbox.add_job(SERIES, status="QUEUED")
        sandbox.add_job(SERIES, status="ERRORED")

        examined = examine(sandbox, conn_id)

        status = examined.document["status"]
        assert status["jobs"] == 3
        assert status["status_words"] == {"COMPLETED": 1, "ERRORED": 1, "QUEUED": 1}
        assert status["dates_are"] == ["text of 13 digits"]
        assert (status["finished_jobs"], status["finished_jobs_not_at_a_midnight"]) == (2, 0)
        assert status["midnight_at_utc_offsets"] == ["+05:30"]
        assert status["finished_jobs_at_midnight_of_cluster_timezone"] == 0
        assert "COMPLETED: 1; ERRORED: 1; QUEUED: 1" in examined.text

    def test_whose_zone_is_set_has_midnights_in_it(self, sandbox: Sandbox, connect: Connect, examine: Examine) -> None:
        sandbox.add_job(SERIES, errors=3)

        status = examine(sandbox, connect(sandbox, cluster_timezone="Asia/Kolkata")).document["status"]

        assert status["finished_jobs_at_midnight_of_cluster_timezone"] == status["finished_jobs"] == 1

    def test_shows_the_host_on_the_screen_only(self, sandbox: Sandbox, conn_id: str, examine: Examine) -> None:
        examined = examine(sandbox, conn_id)

        assert sandbox.base_url in examined.text
        assert examined.document["host"]["kind"] == "this machine"

    def test_is_only_read(self, sandbox: Sandbox, conn_id: str, examine: Examine) -> None:
        sandbox.add_job(SERIES, errors=1)

        examine(sandbox, conn_id)

        assert {request.endpoint for request in sandbox.requests} == {"token", "status", "download"}

    def test_without_an_error_file_skips_that_step(self, sandbox: Sandbox, conn_id: str, examine: Examine) -> None:
        sandbox.add_job(SERIES)

        examined = examine(sandbox, conn_id)

        assert examined.document["error_file"] == {"result": "skipped", "reason": "no job has an error file"}
        assert (examined.code, examined.document["ok"]) == (0, True)

    def test_without_any_job_is_one(self, sandbox: Sandbox, conn_id: str, examine: Examine) -> None:
        examined = examine(sandbox, conn_id)

        assert examined.document["status"]["jobs"] == 0
        assert (examined.code, examined.differences()) == (0, {})

    def test_examines_the_newest_job_with_an_error_file(self, sandbox: Sandbox, conn_id: str, examine: Examine) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=1, error_file=b"new;\n1;2\n")
        sandbox.add_job(SERIES, errors=1, job_id=JOB_ID - 1)
        sandbox.add_job(SERIES, job_id=JOB_ID + 1)

        assert examine(sandbox, conn_id).document["error_file"]["delimiter"] == "semicolon"


class TestToken:
    @pytest.mark.parametrize("status", [200, 400, 401, 403])
    def test_that_is_refused_is_reported_with_its_status_and_code(
        self, status: int, start: Start, connect: Connect, examine: Examine
    ) -> None:
        sandbox = start(bad_credentials_status=status)
        conn_id = connect(sandbox, fields={"password": "not-the-secret"})

        examined = examine(sandbox, conn_id, private=("not-the-secret",))

        token = examined.document["token"]
        assert (examined.code, token["result"], token["http_status"], token["envelope"]) == (1, "failed", status, "v3")
        assert token["error"] == {
            "type": "CapillaryAuthError",
            "http_status": status,
            "api_code": "320001",
            "is_transient": False,
        }
        assert examined.document["status"] == {"result": "skipped", "reason": "there is no token"}
        assert examined.document["error_file"]["result"] == "skipped"
        assert "does not accept the client key and secret" in " ".join(examined.text.split())

    def test_without_ttl_seconds_has_the_lifetime_of_its_claims(
        self, start: Start, connect: Connect, examine: Examine
    ) -> None:
        sandbox = start(ttl_in_answer=False, token_ttl_seconds=600)

        examined = examine(sandbox, connect(sandbox))

        token = examined.document["token"]
        assert (token["lifetime_seconds"], token["lifetime_from"]) == (600, "claims")
        assert examined.differences() == {"token.lifetime_from": "claims"}

    def test_has_the_names_of_its_claims_and_the_number_of_warnings(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        warnings = [{"code": 1, "message": "SECRETWARNING of the org"}]
        body = {"data": {"accessToken": sandbox.issue_token(), "ttlSeconds": 300}, "errors": None, "warnings": warnings}
        sandbox.inject(Fault("body", endpoint="token", status=200, body=body, times=None))

        token = examine(sandbox, conn_id, private=("SECRETWARNING",)).document["token"]

        assert token["claims"] == ["exp", "iat", "jti", "org"]
        assert token["warnings"] == 1

    def test_that_is_no_jwt_has_no_claims(self, sandbox: Sandbox, conn_id: str, examine: Examine) -> None:
        body = {"data": {"accessToken": "plain-token-value", "ttlSeconds": 300}, "errors": None, "warnings": None}
        sandbox.inject(Fault("body", endpoint="token", status=200, body=body, times=None))

        examined = examine(sandbox, conn_id, private=("plain-token-value",))

        assert (examined.document["token"]["is_jwt"], examined.document["token"]["claims"]) == (False, [])
        # The sandbox does not know it.
        assert examined.document["status"]["error"]["type"] == "CapillaryAuthError"
        assert examined.document["status"]["http_statuses"] == [401, 401]

    def test_that_expires_is_replaced_and_both_answers_are_reported(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.inject(Fault("expired_token", endpoint="status", form="http_498"))

        examined = examine(sandbox, conn_id)

        assert examined.document["status"]["http_statuses"] == [498, 200]
        assert examined.code == 0


class TestStatus:
    def test_with_an_unknown_word_shows_it_and_what_may_be_an_id_not(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, status="ALMOST_DONE")
        sandbox.add_job(SERIES, status=f"JOB OF ORG {sandbox.org_id}")

        examined = examine(sandbox, conn_id)

        status = examined.document["status"]
        assert status["unknown_status_words"] == ["(not shown)", "ALMOST_DONE"]
        assert status["status_words"] == {"(not shown)": 1, "ALMOST_DONE": 1}
        assert examined.differences()["status.unknown_status_words"] == ["(not shown)", "ALMOST_DONE"]
        assert examined.code == 0

    def test_with_unknown_and_missing_fields_marks_them(self, sandbox: Sandbox, conn_id: str, examine: Examine) -> None:
        job = job_of(sandbox, failureReason="SECRETREASON", **{f"org_{sandbox.org_id}": 1})
        del job["uploadTableName"]
        answer_with(sandbox, job, nextPage="SECRETPAGE")

        examined = examine(sandbox, conn_id, private=("SECRETREASON", "SECRETPAGE"))

        status = examined.document["status"]
        assert status["unknown_fields"] == ["job.(not shown)", "job.failureReason", "result.nextPage"]
        assert status["missing_fields"] == ["job.uploadTableName"]
        assert status["fields"]["failureReason"] == ["text"]
        assert {"status.unknown_fields", "status.missing_fields"} <= examined.differences().keys()

    def test_with_dates_and_counts_of_other_types_names_them(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        answer_with(sandbox, job_of(sandbox, createdOn=1_603_132_201, updatedOn="2020-10-20", errorCount="2"))

        status = examine(sandbox, conn_id).document["status"]

        assert status["dates_are"] == ["number of 10 digits", "text that is no whole number"]
        assert status["fields_of_other_types"] == ["createdOn", "errorCount"]
        assert status["finished_jobs_not_at_a_midnight"] == 1

    def test_that_the_package_cannot_read_is_described_all_the_same(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        job = job_of(sandbox)
        del job["jobId"]
        answer_with(sandbox, job)

        examined = examine(sandbox, conn_id)

        status = examined.document["status"]
        assert (status["result"], status["missing_fields"]) == ("failed", ["job.jobId"])
        assert status["error"]["type"] == "CapillaryResponseError"
        assert examined.document["error_file"] == {"result": "skipped", "reason": "the jobs are not known"}

    def test_of_a_server_error_is_reported_after_as_many_attempts_as_allowed(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.inject(Fault("status", endpoint="status", status=503, times=None))

        examined = examine(sandbox, conn_id)

        status = examined.document["status"]
        assert (examined.code, status["result"], status["http_statuses"]) == (1, "failed", [503, 503])
        assert status["error"]["is_transient"] is True
        assert examined.document["token"]["result"] == "ok"

    def test_of_a_connection_that_breaks_off_has_the_failure_and_no_address(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.inject(Fault("reset", endpoint="status", times=None))

        status = examine(sandbox, conn_id).document["status"]

        assert status["http_statuses"] == [None, None]
        assert status["transport_failures"] == ["the connection broke off"] * 2
        assert status["error"]["type"] == "CapillaryTransportError"

    @pytest.mark.parametrize(
        ("retry_after", "form"), [("0", "seconds"), ("Wed, 21 Oct 2015 07:28:00 GMT", "date"), ("soon", "other")]
    )
    def test_of_too_many_requests_has_the_names_of_the_headers_and_the_form_of_retry_after(
        self, retry_after: str, form: str, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        headers = {"X-RateLimit-Limit": "100", "X-Correlation-Id": "SECRETID"}
        sandbox.inject(Fault("status", endpoint="status", status=429, retry_after=retry_after, headers=headers))

        examined = examine(sandbox, conn_id, private=("SECRETID",))

        status = examined.document["status"]
        assert status["http_statuses"] == [429, 200]
        assert status["rate_limit_headers"] == ["retry-after", "x-ratelimit-limit"]
        assert status["retry_after_is"] == [form]
        assert status["request_id_headers"] == ["x-cap-request-id", "x-correlation-id"]

    def test_that_has_ids_in_every_place_shows_none_of_them(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=1)
        org = str(sandbox.org_id)
        headers = {
            "Content-Type": f'application/x-{org}; name="SECRETNAME.csv"',
            f"X-RateLimit-{org}": "SECRETLIMIT",
            f"{org}-Request-Id": "SECRETID",
            "Retry-After": f"ask {org}",
        }
        error = {"code": org, "status": f"SECRET of {org}", "message": f"SECRET of {org}", org: {org: [org]}}
        body = {"errors": [error], "result": {"orgId": sandbox.org_id, org: org}, org: org}
        sandbox.inject(Fault("body", endpoint="status", status=400, body=body, headers=headers, times=None))

        examined = examine(sandbox, conn_id, private=("SECRETNAME", "SECRETLIMIT", "SECRETID"))

        status = examined.document["status"]
        assert status["error"]["api_code"] == status["media_type"] == "(not shown)"
        assert status["retry_after_is"] == ["other"]
        assert status["rate_limit_headers"] == ["(not shown)", "retry-after"]
        assert "SECRET" not in json.dumps(examined.document)

    def test_message_of_a_server_is_on_the_screen_only_and_without_the_org(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        result = {"orgId": sandbox.org_id}
        body = {"success": False, "status": 400, "result": result, "message": f"No series for org {sandbox.org_id}"}
        sandbox.inject(Fault("body", endpoint="status", status=400, body=body, times=None))

        examined = examine(sandbox, conn_id)

        assert "No series for org ***" in examined.text
        assert "No series" not in json.dumps(examined.document)
        assert "request id" in examined.text

    def test_knows_exactly_the_fields_that_the_package_reads(self, sandbox: Sandbox) -> None:
        asked: set[str] = set()

        class Asked(dict[str, Any]):
            def get(self, key: str, default: Any = None) -> Any:
                asked.add(key)
                return super().get(key, default)

        job = Asked(sandbox.add_job(SERIES).to_json())
        read_jobs({"result": {"redeemUploadJobStatuses": [job]}}, REDEEM)

        assert asked == JOB_FIELDS.keys() == sandbox.jobs()[0].to_json().keys()


class TestErrorFile:
    def test_that_needs_another_token_is_reported_with_its_refusal(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
        sandbox.inject(Fault("expired_token", endpoint="download", form="http_401", times=None))

        examined = examine(sandbox, conn_id)

        file = examined.document["error_file"]
        assert (examined.code, file["result"], file["way"]) == (1, "failed", "download")
        assert file["http_statuses"] == [401, 401]
        assert (file["error"]["type"], file["body"], file["envelope"]) == ("CapillaryAuthError", "JSON object", "v1.1")
        assert "error_file.http_status" in examined.differences()

    def test_that_is_forbidden_is_reported_as_lacking_access(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
        body = {"status": {"success": False, "code": 403, "message": "Access denied"}}
        sandbox.inject(Fault("body", endpoint="download", status=403, body=body, times=None))

        file = examine(sandbox, conn_id).document["error_file"]

        assert (file["http_status"], file["error"]["type"]) == (403, "CapillaryAccessError")
        assert (file["envelope"], file["body_fields"]) == ("authentication", ["status"])

    @pytest.mark.parametrize(
        ("fault", "body", "status"),
        [
            (Fault("html", status=403, endpoint="download", times=None), "HTML page", 403),
            (Fault("html", status=200, endpoint="download", times=None), "HTML page", 200),
            (Fault("text", endpoint="download", times=None), "text OK", 200),
            (Fault("empty", endpoint="download", times=None), "empty", 200),
            (Fault("status", status=404, endpoint="download", times=None), "JSON object", 404),
        ],
        ids=["edge", "page", "ok", "nothing", "missing"],
    )
    def test_in_whose_place_something_else_came_is_reported_by_its_kind(
        self, fault: Fault, body: str, status: int, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
        sandbox.inject(fault)

        examined = examine(sandbox, conn_id)

        file = examined.document["error_file"]
        assert (examined.code, file["result"], file["http_status"], file["body"]) == (1, "failed", status, body)
        assert "lines" not in file

    def test_in_whose_place_a_signed_address_came_shows_the_name_of_its_field(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
        body = {"presignedUrl": "https://bucket.example.com/SECRETPATH?X-Amz-Signature=SECRETSIGNATURE"}
        sandbox.inject(Fault("body", endpoint="download", status=200, body=body, times=None))

        file = examine(sandbox, conn_id, private=("SECRETPATH", "SECRETSIGNATURE")).document["error_file"]

        assert (file["result"], file["body"], file["body_fields"]) == ("failed", "JSON object", ["presignedUrl"])

    @pytest.mark.parametrize(
        ("content", "shape"),
        [
            (ROWS.encode(), {"line_ends": "LF", "delimiter": "comma", "columns_first": 2, "columns_most": 3}),
            (codecs.BOM_UTF8 + ROWS.encode(), {"encoding": "utf-8", "has_byte_order_mark": True, "lines": 3}),
            (ROWS.replace("\n", "\r\n").encode(), {"line_ends": "CRLF", "ends_with_line_end": True}),
            (b"message;coupon code\nCoupon is gone, really;SECRETCODE1\n", {"delimiter": "semicolon", "lines": 2}),
            (ROWS.encode("utf-16"), {"encoding": "utf-16-le", "has_byte_order_mark": True, "delimiter": "comma"}),
            (ROWS.replace("expired", "überfällig").encode("latin-1"), {"encoding": "not utf-8"}),
            (gzip.compress(ROWS.encode()), {"compression": "gzip", "delimiter": "comma", "lines": 3}),
            (ROWS.encode() * 2000, {"is_whole": False, "ends_with_line_end": None, "columns_first": 2}),
        ],
        ids=["plain", "bom", "crlf", "semicolon", "utf-16", "latin-1", "gzip", "large"],
    )
    def test_is_described_by_its_shape_and_never_quoted(
        self, content: bytes, shape: dict[str, Any], sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2, error_file=content)

        private = ("SECRETCODE1", "SECRETCODE2", "Coupon is", "coupon code")
        file = examine(sandbox, conn_id, private=private).document["error_file"]

        assert file["result"] == "ok"
        assert {name: file[name] for name in shape} == shape
        assert file["content_length"] == len(content)

    def test_that_is_compressed_on_its_way_only_has_the_shape_of_what_was_compressed(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
        sandbox.inject(Fault("gzip", endpoint="download", times=None))

        examined = examine(sandbox, conn_id)

        file = examined.document["error_file"]
        assert (file["content_encoding"], file["compression"], file["delimiter"]) == ("gzip", None, "comma")
        assert examined.differences() == {"error_file.content_encoding": "gzip"}

    def test_is_resumed_where_it_breaks_off(self, sandbox: Sandbox, conn_id: str, examine: Examine) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
        sandbox.inject(Fault("cut", endpoint="download"))

        file = examine(sandbox, conn_id).document["error_file"]

        assert (file["result"], file["http_statuses"], file["lines"]) == ("ok", [200, 200], 3)

    def test_with_an_absolute_url_is_fetched_from_there_without_showing_it(
        self, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        url = f"{sandbox.base_url}/files/SECRETNAME.csv?X-Amz-Signature=SECRETSIGNATURE"
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2, error_file_url=url)

        examined = examine(sandbox, conn_id, private=("SECRETNAME", "SECRETSIGNATURE"))

        file = examined.document["error_file"]
        assert (file["result"], file["way"], file["fetched_from"]) == ("ok", "absolute URL", "the API host")
        assert examined.differences() == {"error_file.way": "absolute URL"}

    def test_by_a_template_is_fetched_by_it(self, sandbox: Sandbox, connect: Connect, examine: Examine) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
        conn_id = connect(sandbox, error_file_url=f"{sandbox.base_url}/files/{{handle}}?key=SECRETKEY")

        examined = examine(sandbox, conn_id, private=("SECRETKEY",))

        assert (examined.document["error_file"]["way"], examined.code) == ("template", 0)
        assert examined.document["host"]["error_file_url"] == "http"

    def test_in_object_storage_is_read_from_there(
        self, sandbox: Sandbox, connect: Connect, examine: Examine, tmp_path: Path
    ) -> None:
        job = sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)
        (tmp_path / job.handle).write_bytes(ROWS.encode())

        examined = examine(sandbox, connect(sandbox, error_file_url=f"file://{tmp_path}/{{handle}}"))

        file = examined.document["error_file"]
        assert (file["result"], file["way"], file["lines"]) == ("ok", "template", 3)
        assert examined.document["host"]["error_file_url"] == "object storage"
        assert sandbox.count("download") == 0

    def test_that_is_not_in_object_storage_is_reported_without_its_name(
        self, sandbox: Sandbox, connect: Connect, examine: Examine, tmp_path: Path
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2)

        examined = examine(sandbox, connect(sandbox, error_file_url=f"file://{tmp_path}/{{handle}}"))

        assert examined.document["error_file"]["error"]["type"] == "CapillaryErrorFileError"
        assert str(tmp_path) not in json.dumps(examined.document)
        assert examined.code == 1

    @pytest.mark.parametrize(
        "reference", ["ftp://example.com/SECRETNAME", "https://10.0.0.1/SECRETNAME?sig=SECRETSIG", "../SECRETNAME"]
    )
    def test_whose_location_breaks_a_rule_is_not_fetched(
        self, reference: str, sandbox: Sandbox, conn_id: str, examine: Examine
    ) -> None:
        sandbox.add_job(SERIES, job_id=JOB_ID, errors=2, error_file_url=reference)

        examined = examine(sandbox, conn_id, private=("SECRETNAME", "SECRETSIG"))

        file = examined.document["error_file"]
        assert (file["way"], file["error"]["type"]) == (None, "CapillaryErrorFileError")
        assert "is not fetched, because" in examined.text


class TestHost:
    def test_without_an_address_is_reported_and_the_token_call_too(
        self, sandbox: Sandbox, connect: Connect, examine: Examine
    ) -> None:
        conn_id = connect(sandbox, fields={"host": "https://no-such-host.invalid", "port": 443})

        examined = examine(sandbox, conn_id, private=())

        host = examined.document["host"]
        assert (host["result"], host["resolves"], host["kind"]) == ("failed", False, "other host")
        assert examined.document["token"]["transport_failures"] == ["the host name cannot be resolved"] * 2
        assert "no-such-host" not in json.dumps(examined.document)
        assert "no-such-host.invalid" in examined.text

    def test_behind_a_proxy_names_the_variable_and_on_the_screen_its_address(
        self, sandbox: Sandbox, connect: Connect, examine: Examine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with connect_proxy({f"127.0.0.1:{sandbox.port}": sandbox.port}) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://somebody:SECRETPASS@localhost:{proxy.port}")
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)

            examined = examine(sandbox, connect(sandbox), private=("SECRETPASS", "somebody"))

            assert proxy.accepted > 0
        assert examined.document["host"]["proxy"] == {"scheme": "http", "set_by": "environment variable HTTP_PROXY"}
        assert f"http://localhost:{proxy.port}" in examined.text
        assert "localhost" not in json.dumps(examined.document)
        assert examined.code == 0

    def test_behind_a_proxy_that_is_away_blames_the_proxy(
        self, sandbox: Sandbox, conn_id: str, examine: Examine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{closed_port()}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)

        failures = examine(sandbox, conn_id).document["token"]["transport_failures"]

        assert failures == ["the proxy (environment variable HTTP_PROXY) cannot be reached"] * 2

    def test_with_tls_has_its_version_and_the_end_of_its_certificate_and_its_issuer_on_the_screen(
        self, start: Start, connect: Connect, examine: Examine, authority: Authority
    ) -> None:
        sandbox = start(ssl_context=authority.server_context())

        examined = examine(sandbox, connect(sandbox, verify=str(authority.bundle)))

        tls = examined.document["host"]["tls"]
        assert tls["version"] in ("TLSv1.2", "TLSv1.3")
        assert tls["certificate_ends_in_days"] > 300
        assert (tls["issuer"], tls["trusted_by"]) == (None, "a CA bundle of this machine")
        assert "issued by trustme" in examined.text
        assert "trustme" not in json.dumps(examined.document)

    def test_with_tls_that_is_not_checked_has_its_version_only(
        self, start: Start, connect: Connect, examine: Examine, authority: Authority
    ) -> None:
        sandbox = start(ssl_context=authority.server_context())

        tls = examine(sandbox, connect(sandbox, verify="false")).document["host"]["tls"]

        assert tls["trusted_by"] == "nothing: certificates are not checked"
        assert (tls["issuer"], tls["certificate_ends_in_days"]) == (None, None)

    def test_with_a_certificate_that_is_not_trusted_has_no_tls_and_a_failed_token(
        self, start: Start, connect: Connect, examine: Examine, authority: Authority
    ) -> None:
        sandbox = start(ssl_context=authority.server_context())

        examined = examine(sandbox, connect(sandbox))

        assert examined.document["host"]["tls"] is None
        assert "is not trusted" in examined.document["token"]["transport_failures"][0]
        assert examined.code == 1


class TestArguments:
    @pytest.mark.parametrize("series", ["abc", "0", "None"])
    def test_with_a_series_that_is_no_number_are_refused_in_one_sentence(
        self, series: str, conn_id: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main([conn_id, series]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert "SERIES must be a positive whole number" in err

    def test_that_are_missing_are_a_usage_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            main([])
        assert stop.value.code == 2

    def test_with_a_connection_that_cannot_be_used_name_its_field(
        self, sandbox: Sandbox, connect: Connect, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main([connect(sandbox, timeout_seconds=-1), str(SERIES), "--json"]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert "field 'Timeout'" in err
