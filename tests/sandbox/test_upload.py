# SPDX-License-Identifier: Apache-2.0
"""The upload of redeemed coupons."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

import airflow_provider_capillary
from tests.sandbox.client import BOUNDARY, COLUMNS, SERIES, csv_file, good_row, multipart, upload_parts

ROOT = Path(airflow_provider_capillary.__file__).parents[1]


def test_an_upload_is_answered_as_in_the_sample(start):
    client = start(clock=lambda: 1603263533.789)

    reply = client.upload(multipart(upload_parts(csv_file(good_row("A1")), file_name="couponCode.csv")))

    assert reply.status == 200
    stored = f"couponCode_1603263533789_{SERIES}.csv"
    assert reply.json() == {
        "success": True,
        "status": 200,
        "result": {
            "orgId": 100458,
            "couponSeriesId": SERIES,
            "redeemUploadJobStatuses": [
                {
                    "jobId": 4455,
                    "uploadRedeemedCouponStatus": "QUEUED",
                    "createdOn": "1603263533789",
                    "updatedOn": "1603263533789",
                    "errorFileUrl": None,
                    "successFileUrl": None,
                    "uploadedFileUrl": stored,
                    "totalUploadedCount": 0,
                    "actualRowCount": 0,
                    "errorCount": 0,
                    "uploadTableName": None,
                    "uploadedFileName": stored,
                }
            ],
            "fileName": stored,
        },
    }


def test_the_job_of_an_upload_goes_its_way_in_the_status_list(start, clock):
    client = start(queued_seconds=1, started_seconds=1, clock=clock)
    client.upload(multipart(upload_parts(csv_file(good_row("A1"), good_row("A2")))))

    words = []
    for _ in range(3):
        words.append(client.jobs()[0]["uploadRedeemedCouponStatus"])
        clock.now += 1

    assert words == ["QUEUED", "STARTED", "COMPLETED"]
    (job,) = client.jobs()
    assert (job["totalUploadedCount"], job["actualRowCount"], job["errorCount"]) == (2, 2, 0)


def test_rows_are_refused_for_their_coupon_or_their_time(client, sandbox):
    content = csv_file(
        good_row("A1"),
        good_row("INVALID7"),
        good_row(""),
        good_row("A1"),
        (1716811570, "till-7", "919900000001", "SECONDS"),
        ("2024-05-27", "till-7", "919900000001", "TEXT"),
        ("", "till-7", "919900000001", "NOTHING"),
        (1716811570000,),
        good_row("A2"),
    )

    client.upload(multipart(upload_parts(content)))

    (job,) = sandbox.jobs(SERIES)
    assert (job.rows, job.errors) == (9, 7)
    header, *rows = job.read_error_file().decode().split("\n")
    assert header == "message,coupon code"
    assert [row.rpartition(",")[2] for row in rows[:-1]] == ["INVALID7", "", "A1", "SECONDS", "TEXT", "NOTHING", ""]
    assert all(row.count(",") == 2 and '"' not in row for row in rows[:-1])
    assert rows[-1] == ""


def test_a_coupon_is_redeemed_once_in_a_series_and_stays_so(client, sandbox):
    form = multipart(upload_parts(csv_file(good_row("A1"))))

    client.upload(form)
    client.upload(form)
    client.upload(form, series=7)

    assert [job.errors for job in sandbox.jobs()] == [0, 1, 0]


def test_a_post_sent_twice_makes_two_jobs(client, sandbox):
    form = multipart(upload_parts(csv_file(good_row("A1"))))

    names = {client.upload(form).json()["result"]["fileName"] for _ in range(2)}

    assert len(names) == len(sandbox.jobs(SERIES)) == 2


def test_the_error_file_of_an_upload_can_be_fetched(client, sandbox):
    client.upload(multipart(upload_parts(csv_file(good_row("INVALID1")))))

    (job,) = client.jobs()
    assert client.download(job["errorFileUrl"]).body == sandbox.jobs(SERIES)[0].read_error_file()


@pytest.mark.parametrize(
    ("customer", "coupon", "columns"),
    [
        ("EXTERNAL_ID", "COUPON_ID", {"externalId": 2, "couponId": 3}),
        ("EMAIL", "COUPON_CODE", {"email": 2, "couponCode": 3}),
        ("USER_ID", "COUPON_CODE", {"userId": 2, "couponCode": 3, "billId": 4, "billNumber": 5, "details": 6}),
    ],
)
def test_every_identifier_has_a_column_of_its_own(client, sandbox, customer, coupon, columns):
    parts = upload_parts(csv_file(good_row("A1"), good_row("INVALID2")))
    parts["customerIdentifier"] = (None, customer.encode())
    parts["couponIdentifier"] = (None, coupon.encode())
    parts["uploadHeaders"] = (None, json.dumps({"redeemedDateInMillis": 0, "redeemedAt": 1, **columns}).encode())
    parts["Details"] = (None, b"any text")

    assert client.upload(multipart(parts)).status == 200
    (job,) = sandbox.jobs(SERIES)
    assert (job.rows, job.errors) == (2, 1)
    assert job.read_error_file().startswith(b"message,coupon id" if coupon == "COUPON_ID" else b"message,coupon code")


def changed(**parts: object) -> bytes:
    """Write the form of a good upload, with some parts changed, or left out where they are None."""
    form = upload_parts(csv_file(good_row("A1"))) | parts
    return multipart({name: part for name, part in form.items() if part is not None})


def headers_without(key: str) -> tuple[None, bytes]:
    return None, json.dumps({name: index for name, index in COLUMNS.items() if name != key}).encode()


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (changed(file=None), "part file is missing"),
        (changed(customerIdentifier=None), "part customerIdentifier is missing"),
        (changed(couponIdentifier=None), "part couponIdentifier is missing"),
        (changed(uploadHeaders=None), "part uploadHeaders is missing"),
        (changed(file=(None, b"a,b\n")), "part file has no file name"),
        (changed(file=("a.csv", b"")), "the file is empty"),
        (changed(file=("a.csv", b"head\n" + b"x" * 200_000)), "the file is not CSV: line"),
        (changed(customerIdentifier=(None, b"mobile")), "customerIdentifier must be one of MOBILE, "),
        (changed(customerIdentifier=(None, b"\xff")), "part customerIdentifier is not UTF-8"),
        (changed(couponIdentifier=(None, b"CODE")), "couponIdentifier must be one of COUPON_ID, "),
        (changed(uploadHeaders=(None, b"{")), "uploadHeaders is not JSON"),
        (changed(uploadHeaders=(None, b"[" * 60_000)), "uploadHeaders is not JSON"),
        (changed(uploadHeaders=(None, b"[]")), "uploadHeaders must be a JSON object"),
        (changed(uploadHeaders=(None, b'{"coupon": 1}')), "uploadHeaders has a key beside"),
        (changed(uploadHeaders=(None, b'{"couponCode": "1"}')), "couponCode must be a column index"),
        (changed(uploadHeaders=(None, b'{"couponCode": -1}')), "couponCode must be a column index"),
        (changed(uploadHeaders=(None, b'{"couponCode": true}')), "couponCode must be a column index"),
        (changed(uploadHeaders=headers_without("mobile")), "uploadHeaders has no mobile"),
        (changed(uploadHeaders=headers_without("couponCode")), "uploadHeaders has no couponCode"),
        (changed(uploadHeaders=headers_without("redeemedAt")), "uploadHeaders has no redeemedAt"),
        (changed(uploadHeaders=headers_without("redeemedDateInMillis")), "uploadHeaders has no redeemedDateInMillis"),
        (b"", "does not end with its closing boundary"),
        (b"no form at all", "the form is malformed"),
        (changed()[:-6], "does not end with its closing boundary"),
        (changed().replace(b'name="file"', b"nothing"), "the form is malformed"),
        (changed().replace(b"Content-Disposition", b"X-Disposition"), "the form is malformed"),
        (changed().replace(b"\r\n\r\n", b"\r\n"), "the form is malformed"),
        (f"--{BOUNDARY}\r\n--{BOUNDARY}--".encode(), "does not end with its closing boundary"),
        (changed().replace(b"couponIdentifier", b"customerIdentifier"), "part customerIdentifier is there twice"),
    ],
)
def test_a_form_that_lacks_something_is_refused_and_says_what(client, sandbox, form, message):
    reply = client.upload(form)

    assert reply.status == 400
    answer = reply.json()
    assert (answer["success"], answer["status"], answer["result"]) == (False, 400, None)
    assert message in answer["message"]
    assert sandbox.jobs() == []


def test_malformed_forms_leave_stderr_alone():
    forms = [
        b"no form at all",
        changed() + b"epilogue",
        changed().replace(b"Content-Disposition", b"Content Disposition"),
    ]
    code = (
        "import sys\n"
        "from airflow_provider_capillary.sandbox import Sandbox\n"
        "from tests.sandbox.client import Client\n"
        "with Sandbox() as sandbox:\n"
        f"    statuses = [Client(sandbox).upload(form).status for form in {forms!r}]\n"
        "assert statuses == [400, 200, 400], statuses\n"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_upload_without_python_multipart_is_refused_with_the_extra_to_install(client, sandbox, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_multipart", None)
    monkeypatch.delitem(sys.modules, "python_multipart.multipart", raising=False)
    monkeypatch.delitem(sys.modules, "python_multipart.exceptions", raising=False)

    reply = client.upload(changed())

    assert reply.status == 501
    assert "pip install 'airflow-provider-capillary[sandbox]'" in reply.json()["message"]
    assert sandbox.jobs() == []
    assert client.ask_status().status == 200


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "multipart/form-data", "multipart/mixed; boundary=b", "multipart/form-data; boundary=other"],
)
def test_a_body_of_another_kind_is_refused(client, content_type):
    assert client.upload(changed(), content_type=content_type).status == 400


def test_a_file_that_cannot_be_read_to_its_end_redeems_nothing(client, sandbox):
    broken = csv_file(good_row("A1")) + b"x" * 200_000
    assert client.upload(multipart(upload_parts(broken))).status == 400

    client.upload(multipart(upload_parts(csv_file(good_row("A1")))))

    assert sandbox.jobs(SERIES)[0].errors == 0


def test_a_series_that_is_no_number_is_refused(client):
    reply = client.upload(changed(), series="abc")

    assert reply.status == 400
    assert reply.json()["success"] is False


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (csv_file(), 0),
        (csv_file(good_row("A1")).rstrip(b"\n"), 1),
        (csv_file(good_row("A1"), good_row("A2")).replace(b"\n", b"\r\n"), 2),
        (b"\xef\xbb\xbf" + csv_file(good_row("A1")), 1),
        (csv_file(good_row("A1")) + b"\n\n" + csv_file(good_row("A2")).split(b"\n", 1)[1], 2),
        (csv_file(good_row('"A,1"')), 1),
        (csv_file(good_row("\u0915")), 1),
    ],
    ids=["no rows", "no last newline", "CRLF", "BOM", "blank lines", "quotes", "Devanagari"],
)
def test_csv_is_read_in_all_its_dialects(client, sandbox, content, rows):
    assert client.upload(multipart(upload_parts(content))).status == 200

    (job,) = sandbox.jobs(SERIES)
    assert (job.rows, job.errors) == (rows, 0)


def test_bytes_that_are_no_utf_8_spoil_only_their_row(client, sandbox):
    content = csv_file(good_row("A1"), good_row("INVALID?")).replace(b"?", b"\xff")

    assert client.upload(multipart(upload_parts(content))).status == 200
    assert (sandbox.jobs(SERIES)[0].rows, sandbox.jobs(SERIES)[0].errors) == (2, 1)


@pytest.mark.parametrize(
    ("file_name", "stem"),
    [("a.b.csv", "a.b"), ("plain", "plain"), ("", "upload"), ("dir/a.csv", "a"), ("grüße.csv", "grüße")],
)
def test_the_stored_name_begins_with_that_of_the_file(client, file_name, stem):
    answer = client.upload(multipart(upload_parts(csv_file(), file_name=file_name))).json()

    name, milliseconds, rest = answer["result"]["fileName"].rsplit("_", 2)
    assert name == stem
    assert len(milliseconds) == 13
    assert rest == f"{SERIES}.csv"


def test_a_chunked_body_is_understood(client, sandbox):
    form = changed()
    pieces = [form[at : at + 50] for at in range(0, len(form), 50)]

    assert client.upload(iter(pieces)).status == 200
    assert sandbox.requests[-1].headers["Transfer-Encoding"] == "chunked"
    assert sandbox.jobs(SERIES)[0].rows == 1


def test_a_large_file_is_taken_and_not_kept_in_the_records(client, sandbox):
    content = csv_file(*(good_row(f"C{number:06d}") for number in range(60_000)))

    assert client.upload(multipart(upload_parts(content))).status == 200

    assert (sandbox.jobs(SERIES)[0].rows, sandbox.jobs(SERIES)[0].errors) == (60_000, 0)
    assert sandbox.requests[-1].body == b""
    assert sandbox.requests[-1].body_size > len(content) > 1024 * 1024


def test_a_large_upload_is_spooled_to_disk(client, sandbox):
    size = 32 * 1024 * 1024
    row = b",".join(str(cell).encode() for cell in good_row("INVALID" + "x" * 60_000)) + b"\n"
    head, tail = multipart(upload_parts(b"CONTENT")).split(b"CONTENT")
    rows = size // len(row)

    def form():
        yield head + b"head\n"
        for _ in range(rows):
            yield row
        yield tail

    tracemalloc.start()
    try:
        # A series that is no number is refused once the whole form has been read.
        reply = client.upload(form(), series="x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reply.status == 400
    assert sandbox.requests[-1].body_size > size - len(row)
    assert peak < 8 * 1024 * 1024


def test_uploads_at_the_same_time_redeem_each_coupon_once(client, sandbox):
    form = multipart(upload_parts(csv_file(*(good_row(f"C{number}") for number in range(200)))))
    threads = [threading.Thread(target=client.upload, args=(form,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    jobs = sandbox.jobs(SERIES)
    assert len({job.job_id for job in jobs}) == len({job.uploaded_file_name for job in jobs}) == 8
    assert sum(job.rows - job.errors for job in jobs) == 200
