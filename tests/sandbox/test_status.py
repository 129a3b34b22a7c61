# SPDX-License-Identifier: Apache-2.0
"""The status endpoint, and the life of a job."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_capillary.sandbox import Sandbox
from tests.sandbox.client import SERIES, STATUS_PATH

INDIA = ZoneInfo("Asia/Kolkata")
#: Half an hour past midnight in India, where it is another day than in UTC.
MOMENT = datetime(2026, 5, 27, 0, 30, 14, 250_000, INDIA)


def test_a_series_without_jobs_is_an_empty_list_with_success(client):
    reply = client.ask_status(760779)

    assert reply.status == 200
    assert reply.json() == {
        "success": True,
        "status": 200,
        "result": {"orgId": 100458, "couponSeriesId": 760779, "redeemUploadJobStatuses": []},
    }


def test_a_finished_job_is_described_as_in_the_sample(start):
    client = start(org_id=1619, clock=MOMENT.timestamp)
    client.sandbox.add_job(SERIES, rows=5, errors=2, job_id=4455, uploaded_file_name="coupons_1_535512.csv")

    midnight = str(int(datetime(2026, 5, 27, tzinfo=INDIA).timestamp() * 1000))
    assert client.jobs() == [
        {
            "jobId": 4455,
            "uploadRedeemedCouponStatus": "COMPLETED",
            "createdOn": midnight,
            "updatedOn": midnight,
            "errorFileUrl": "error_redemption_upload_1619_5355122026_05_27_00_30_14",
            "successFileUrl": None,
            "uploadedFileUrl": "coupons_1_535512.csv",
            "totalUploadedCount": 5,
            "actualRowCount": 5,
            "errorCount": 2,
            "uploadTableName": "temp_redemption_upload_1619_20260527_003014250",
            "uploadedFileName": "coupons_1_535512.csv",
        }
    ]


def test_the_day_of_a_job_is_that_of_the_cluster(start):
    client = start(cluster_timezone="UTC", clock=MOMENT.timestamp)
    client.sandbox.add_job(SERIES)

    created = int(client.jobs()[0]["createdOn"]) / 1000
    assert datetime.fromtimestamp(created, ZoneInfo("UTC")) == datetime(2026, 5, 26, tzinfo=ZoneInfo("UTC"))


def test_a_job_goes_from_queued_to_started_to_its_end(start, clock):
    client = start(queued_seconds=10, started_seconds=5, clock=clock, token_ttl_seconds=3600)
    job = client.sandbox.add_job(SERIES, rows=4, errors=1)

    seen = []
    for seconds in (0, 9, 1, 4, 1):
        clock.now += seconds
        (answer,) = client.jobs()
        counts = answer["totalUploadedCount"], answer["actualRowCount"], answer["errorCount"]
        urls = answer["errorFileUrl"] is not None, answer["uploadTableName"] is not None
        seen.append((answer["uploadRedeemedCouponStatus"], counts, urls))

    assert seen == [
        ("QUEUED", (0, 0, 0), (False, False)),
        ("QUEUED", (0, 0, 0), (False, False)),
        ("STARTED", (4, 4, 0), (False, True)),
        ("STARTED", (4, 4, 0), (False, True)),
        ("COMPLETED", (4, 4, 1), (True, True)),
    ]
    assert job.is_done


def test_a_job_can_take_other_times_and_end_in_another_word(start, clock):
    client = start(queued_seconds=10, started_seconds=5, clock=clock)
    job = client.sandbox.add_job(SERIES, ends="ERRORED", queued_seconds=1, started_seconds=0)

    assert job.status() == "QUEUED"
    clock.now += 1
    assert job.status() == "ERRORED"
    assert job.is_done


def test_a_job_may_have_been_made_some_time_ago(start):
    client = start(queued_seconds=3600, clock=MOMENT.timestamp)
    job = client.sandbox.add_job(SERIES, errors=1, age_seconds=86_400)

    assert job.status() == "COMPLETED"
    assert job.handle.endswith("2026_05_26_00_30_14")


def test_a_clock_that_is_replaced_later_moves_jobs_and_tokens_that_are_there(client, sandbox, clock):
    job, headers = sandbox.add_job(SERIES, queued_seconds=60), client.authorized()
    clock.now = sandbox.clock() + 400

    sandbox.clock = clock

    assert job.status() == "COMPLETED"
    assert client.ask_status(headers=headers).status == 401


@pytest.mark.parametrize("word", ["QUEUED", " completed ", "VALIDATED", "Finished", "", "fertig ✓"])
def test_a_job_can_stay_in_any_word_for_ever(start, clock, word):
    client = start(clock=clock)
    client.sandbox.add_job(SERIES, status=word)
    clock.now += 10_000

    assert client.jobs()[0]["uploadRedeemedCouponStatus"] == word


@pytest.mark.parametrize(
    ("word", "shown"), [(" completed ", True), ("ERRORRED", True), ("CANCELLED", True), ("VALIDATED", False)]
)
def test_errors_are_shown_as_soon_as_the_word_means_an_end(client, sandbox, word, shown):
    sandbox.add_job(SERIES, status=word, rows=3, errors=2)

    (job,) = client.jobs()
    assert job["errorCount"] == (2 if shown else 0)
    assert (job["errorFileUrl"] is not None) == shown


def test_a_job_can_be_ended_at_once(start, clock):
    client = start(queued_seconds=60, clock=clock)
    first, second, third = (client.sandbox.add_job(SERIES, status=status) for status in (None, "QUEUED", "PAUSED"))

    client.sandbox.finish(first)
    client.sandbox.finish(second, "FAILED")
    third.finish("CANCELLED")

    assert [job["uploadRedeemedCouponStatus"] for job in client.jobs()] == ["COMPLETED", "FAILED", "CANCELLED"]


def test_there_is_no_error_file_without_errors(client, sandbox):
    job = sandbox.add_job(SERIES, errors=0)

    assert client.jobs()[0]["errorFileUrl"] is None
    assert job.error_file is None
    assert job.read_error_file() == b""


def test_a_job_without_errors_may_have_a_given_error_file(client, sandbox):
    job = sandbox.add_job(SERIES, errors=0, error_file=b"")

    assert client.jobs()[0]["errorFileUrl"] == job.handle
    assert client.jobs()[0]["errorCount"] == 0
    assert client.download(job.handle).body == b""


@pytest.mark.parametrize(
    "url", [None, "https://bucket.example/errors.csv?signature=abc", "../../etc/passwd", "http://[x/files/", ""]
)
def test_the_error_file_url_can_be_anything(client, sandbox, url):
    sandbox.add_job(SERIES, errors=1, error_file_url=url)

    assert client.jobs()[0]["errorFileUrl"] == url


def test_two_jobs_of_one_second_have_handles_and_file_names_of_their_own(start):
    sandbox = start(clock=MOMENT.timestamp).sandbox
    jobs = [sandbox.add_job(SERIES, errors=1) for _ in range(3)]

    assert len({job.handle for job in jobs}) == 3
    assert len({job.uploaded_file_name for job in jobs}) == 3


def test_job_ids_grow_and_can_be_chosen(client, sandbox):
    ids = [sandbox.add_job(SERIES).job_id, sandbox.add_job(SERIES, job_id=9000).job_id]
    ids += [sandbox.add_job(SERIES, job_id=17).job_id, sandbox.add_job(SERIES).job_id]

    assert ids == [4455, 9000, 17, 9001]
    assert [job["jobId"] for job in client.jobs()] == ids
    with pytest.raises(ValueError, match="job_id"):
        sandbox.add_job(1, job_id=17)


def test_a_series_shows_its_own_jobs_only(client, sandbox):
    mine, other = sandbox.add_job(SERIES), sandbox.add_job(1)

    assert [job["jobId"] for job in client.jobs()] == [mine.job_id]
    assert sandbox.jobs(SERIES) == [mine]
    assert sandbox.jobs(1) == [other]
    assert sandbox.jobs() == [mine, other]


def test_a_made_up_error_file_has_a_row_for_each_error_with_unquoted_commas(sandbox):
    content = sandbox.add_job(SERIES, errors=7).read_error_file().decode()

    header, *rows = content.splitlines()
    assert header == "message,coupon code"
    assert len(rows) == 7
    assert all(re.fullmatch(r"[^\"]+, [^\"]+,SANDBOX\d+", row) for row in rows)


def test_an_error_file_can_be_bytes_or_a_file(sandbox, tmp_path):
    path = tmp_path / "errors.csv"
    path.write_bytes(b"message,coupon code\n")

    assert sandbox.add_job(SERIES, errors=1, error_file=b"").read_error_file() == b""
    assert sandbox.add_job(SERIES, errors=1, error_file=path).read_error_file() == b"message,coupon code\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("coupon_series_id", "535512"),
        ("coupon_series_id", True),
        ("status", 3),
        ("ends", 7),
        ("kind", "other"),
        ("kind", None),
        ("list_lag_seconds", -1),
        ("rows", -1),
        ("errors", 1.5),
        ("error_file", "text"),
        ("error_file", Path("/nowhere/at/all")),
        ("success_file", "text"),
        ("success_file", Path("/nowhere/at/all")),
        ("uploaded_file", 7),
        ("job_id", "7"),
        ("uploaded_file_name", 7),
        ("queued_seconds", -1),
        ("started_seconds", float("nan")),
        ("error_file_url", 7),
        ("age_seconds", "1"),
        ("age_seconds", 1e12),
    ],
)
def test_a_job_that_cannot_be_is_refused_by_the_name_of_its_field(field, value):
    values = {"coupon_series_id": SERIES, field: value}

    with pytest.raises(ValueError, match=f"^{field}: "):
        Sandbox().add_job(**values)


@pytest.mark.parametrize("path", [f"/{STATUS_PATH}", f"{STATUS_PATH}/".replace("/api", "//api")])
def test_slashes_in_a_row_count_as_one(client, sandbox, path):
    sandbox.add_job(SERIES)

    reply = client.send("GET", f"{path}//{SERIES}", headers=client.authorized())

    assert len(reply.json()["result"]["redeemUploadJobStatuses"]) == 1


@pytest.mark.parametrize("series", ["abc", "1x", "-1", "1/2", "", "٣", "9" * 5000])
def test_a_series_that_is_no_number_is_an_error_in_the_coupon_envelope(client, series):
    reply = client.ask_status(series.encode().hex() if series == "٣" else series)

    assert reply.status == 400
    assert reply.json()["success"] is False
    assert reply.json()["message"] == "Incorrect or invalid input."


@pytest.mark.parametrize("path", ["/", "/coupon/api/v1/upload", "/coupon/api/v2/upload/x", "/v1/oauth", "/%00"])
def test_an_unknown_path_gets_html_as_from_the_edge(client, sandbox, path):
    reply = client.send("GET", path, headers=client.authorized())

    assert reply.status == 404
    assert reply.headers["Content-Type"].startswith("text/html")
    assert b"<html>" in reply.body
    assert sandbox.count("other") == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_refused_with_the_allowed_ones(client, method):
    reply = client.send(method, f"{STATUS_PATH}/{SERIES}", headers=client.authorized())

    assert reply.status == 405
    assert reply.headers["Allow"] == "GET"
