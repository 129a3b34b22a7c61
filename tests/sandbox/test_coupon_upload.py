# SPDX-License-Identifier: Apache-2.0
"""Uploads of coupons, beside those of redeemed coupons."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from airflow_provider_capillary.sandbox import Fault
from tests.sandbox.client import COUPON_STATUS_PATH as STATUS_PATH
from tests.sandbox.client import COUPON_UPLOAD_PATH as UPLOAD_PATH
from tests.sandbox.client import SERIES, coupon_parts, csv_file, good_row, multipart, upload_parts

MOMENT = datetime(2024, 5, 27, 12, 6, 10, 638_000, UTC)
COUPONS = b"Coupon,Mobile\nC1,919900000001\nC2,919900000002\n"


def test_a_finished_job_is_described_as_in_the_sample(start):
    client = start(cluster_timezone="UTC", clock=MOMENT.timestamp)
    client.sandbox.add_job(
        535521,
        kind="coupon",
        rows=2,
        errors=2,
        job_id=220605,
        uploaded_file_name="couponbatchupload_1716811569557_535521.csv",
    )

    reply = client.send("GET", f"{STATUS_PATH}/535521", headers=client.authorized())

    assert reply.json() == {
        "success": True,
        "status": 200,
        "result": {
            "orgId": 100458,
            "couponSeriesId": 535521,
            "uploadJobStatuses": [
                {
                    "jobId": 220605,
                    "uploadStatus": "FINISHED",
                    "createdOn": "1716811570000",
                    "updatedOn": "1716811570000",
                    "errorFileUrl": "error_100458_5355212024_05_27_12_06_10",
                    "successFileUrl": None,
                    "uploadedFileUrl": "couponbatchupload_1716811569557_535521.csv",
                    "totalUploadedCount": 2,
                    "actualRowCount": 2,
                    "errorCount": 2,
                    "uploadTableName": "temp_100458_20240527_120610638",
                    "uploadedFileName": "couponbatchupload.csv",
                    "audienceGroupId": 0,
                    "audienceGroupVersionId": 0,
                }
            ],
        },
    }


def test_an_upload_is_answered_with_its_queued_job(start):
    client = start(clock=MOMENT.timestamp)

    result = client.upload(multipart(coupon_parts(COUPONS)), path=UPLOAD_PATH).json()["result"]

    assert result["fileName"] == f"coupons_1716811570638_{SERIES}.csv"
    (job,) = result["uploadJobStatuses"]
    assert (job["uploadStatus"], job["createdOn"], job["totalUploadedCount"]) == ("QUEUED", "1716811570638", 0)
    assert (job["uploadedFileUrl"], job["uploadedFileName"]) == (result["fileName"], "coupons.csv")


def test_the_job_of_an_upload_goes_its_way_in_the_status_list(start, clock):
    client = start(queued_seconds=1, started_seconds=1, clock=clock)
    client.upload(multipart(coupon_parts(COUPONS)), path=UPLOAD_PATH)

    words = []
    for _ in range(3):
        words.append(client.coupon_jobs()[0]["uploadStatus"])
        clock.now += 1

    assert words == ["QUEUED", "STARTED", "FINISHED"]
    assert client.coupon_jobs()[0]["totalUploadedCount"] == 2


def test_each_status_endpoint_lists_jobs_of_its_own_kind_only(client, sandbox):
    coupons, redeemed = sandbox.add_job(SERIES, kind="coupon"), sandbox.add_job(SERIES)

    assert [job["jobId"] for job in client.coupon_jobs()] == [coupons.job_id]
    assert [job["jobId"] for job in client.jobs()] == [redeemed.job_id]
    assert sandbox.jobs(SERIES) == [coupons, redeemed]
    assert sandbox.jobs(SERIES, kind="coupon") == sandbox.jobs(kind="coupon") == [coupons]


def test_a_job_that_is_ended_at_once_ends_in_the_word_of_its_kind(sandbox):
    jobs = [sandbox.add_job(SERIES, kind=kind, queued_seconds=60) for kind in ("redeem", "coupon")]

    for job in jobs:
        sandbox.finish(job)

    assert [job.status() for job in jobs] == ["COMPLETED", "FINISHED"]


def test_a_row_is_refused_for_its_coupon_or_its_second_time(client, sandbox):
    content = b'Coupon\nC1\nINVALID7\n""\nC1\nC2\n'
    client.upload(multipart(coupon_parts(content)), path=UPLOAD_PATH)
    client.upload(multipart(coupon_parts(b"Coupon\nC2\nC3\n")), path=UPLOAD_PATH)

    first, second = sandbox.jobs(SERIES)
    assert [(job.rows, job.errors) for job in (first, second)] == [(5, 3), (2, 1)]
    lines = client.download(first.handle).body.decode().splitlines()
    assert [line.rpartition(",")[2] for line in lines] == ["coupon code", "INVALID7", "", "C1"]


def test_uploading_a_coupon_does_not_redeem_it(client, sandbox):
    client.upload(multipart(coupon_parts(COUPONS)), path=UPLOAD_PATH)
    client.upload(multipart(upload_parts(csv_file(good_row("C1")))))

    assert [(job.kind, job.errors) for job in sandbox.jobs()] == [("coupon", 0), ("redeem", 0)]


@pytest.mark.parametrize(
    ("customer", "key"),
    [("MOBILE", "mobile"), ("EXTERNAL_ID", "externalId"), ("EMAIL", "email"), ("USER_ID", "userId")],
)
def test_every_customer_identifier_needs_its_column(client, customer, key):
    parts = coupon_parts(COUPONS, customer=customer)
    assert client.upload(multipart(parts), path=UPLOAD_PATH).json()["message"] == f"uploadHeaders has no {key}"

    parts = coupon_parts(COUPONS, customer=customer, **{key: 1})
    assert client.upload(multipart(parts), path=UPLOAD_PATH).status == 200


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("customerIdentifier", b"mobile", "customerIdentifier must be one of MOBILE, "),
        ("uploadHeaders", b"{}", "uploadHeaders has no couponCode"),
        ("uploadHeaders", b'{"couponCode": 0, "redeemedAt": 1}', "uploadHeaders has a key beside couponCode, "),
    ],
)
def test_a_form_that_lacks_something_is_refused_and_says_what(client, sandbox, name, content, message):
    reply = client.upload(multipart(coupon_parts(COUPONS) | {name: (None, content)}), path=UPLOAD_PATH)

    assert reply.status == 400
    assert message in reply.json()["message"]
    assert sandbox.jobs() == []


def test_customers_of_redeemed_coupons_are_tagged(client):
    parts = upload_parts(csv_file(good_row("A1"))) | {"customerIdentifier": (None, b"NOT_TAGGED")}

    assert client.upload(multipart(parts)).status == 400


def test_faults_and_counts_take_both_kinds_of_upload_together(client, sandbox):
    sandbox.inject(Fault("status", endpoint="upload", times=2))
    sandbox.inject(Fault("status", endpoint="status", status=500))

    assert client.upload(b"", path=UPLOAD_PATH).status == client.upload(b"").status == 503
    assert client.send("GET", f"{STATUS_PATH}/1").status == 500
    client.ask_status()
    assert (sandbox.count("upload"), sandbox.count("status")) == (2, 2)


def test_a_job_can_be_added_and_is_shown_with_its_kind(client, sandbox):
    reply = client.post_json("/sandbox/jobs", {"coupon_series_id": SERIES, "kind": "coupon", "errors": 1})

    assert (reply.status, reply.json()["kind"], reply.json()["status"]) == (201, "coupon", "FINISHED")
    (job,) = client.send("GET", "/sandbox").json()["coupon_series"][str(SERIES)]
    assert job == reply.json()
    assert client.download(job["error_file"]).status == 200
    wrong = client.post_json("/sandbox/jobs", {"coupon_series_id": SERIES, "kind": "points"})
    assert (wrong.status, wrong.json()) == (400, {"error": "kind: must be one of redeem, coupon", "field": "kind"})


def test_a_series_that_is_no_number_is_refused(client):
    assert client.upload(multipart(coupon_parts(COUPONS)), series="abc", path=UPLOAD_PATH).status == 400


def test_a_coupon_upload_may_have_other_parts(client, sandbox):
    parts = coupon_parts(COUPONS) | {"couponIdentifier": (None, b"COUPON_CODE"), "Details": (None, b"any text")}

    assert client.upload(multipart(parts), path=UPLOAD_PATH).status == 200
    assert json.loads(json.dumps(client.coupon_jobs()))[0]["errorCount"] == sandbox.jobs()[0].errors == 0
