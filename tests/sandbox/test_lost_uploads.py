# SPDX-License-Identifier: Apache-2.0
"""Uploads whose outcome the client does not learn: late lists, lost responses, broken requests."""

from __future__ import annotations

import http.client
import socket

import pytest

from airflow_provider_capillary.sandbox import Fault
from tests.sandbox.client import (
    COUPON_UPLOAD_PATH,
    SERIES,
    UPLOAD_PATH,
    coupon_parts,
    csv_file,
    good_row,
    multipart,
    upload_parts,
)

FORM = multipart(upload_parts(csv_file(good_row("A1"))))


def upload_part(client, number):
    """Upload a part of several; return the HTTP status."""
    parts = upload_parts(csv_file(good_row(f"A{number}")), file_name=f"redeemed_part{number}of5.csv")
    return client.upload(multipart(parts)).status


# The status list lags behind


@pytest.mark.parametrize("path", [UPLOAD_PATH, COUPON_UPLOAD_PATH])
def test_a_new_job_is_missing_from_the_status_list_for_a_while(start, clock, path):
    client = start(list_lag_seconds=30, clock=clock)
    form = FORM if path == UPLOAD_PATH else multipart(coupon_parts(b"Coupon\nC1\n"))
    jobs = client.jobs if path == UPLOAD_PATH else client.coupon_jobs

    name = client.upload(form, path=path).json()["result"]["fileName"]

    counts = []
    for seconds in (0, 29, 1, 100):
        clock.now += seconds
        counts.append([job["uploadedFileUrl"] for job in jobs()])
    assert counts == [[], [], [name], [name]]


def test_a_job_that_is_not_listed_yet_runs_and_is_known_to_the_sandbox(start, clock):
    client = start(list_lag_seconds=30, clock=clock)
    client.upload(FORM)

    (job,) = client.sandbox.jobs(SERIES)
    assert job.status() == "COMPLETED"
    assert client.jobs() == []
    assert client.sandbox.jobs(SERIES, kind="redeem") == [job]


def test_one_job_may_lag_longer_or_not_at_all(start, clock):
    client = start(list_lag_seconds=30, clock=clock)
    at_once, late = [client.sandbox.add_job(SERIES, list_lag_seconds=lag) for lag in (0, 60)]
    old = client.sandbox.add_job(SERIES, age_seconds=30)

    assert [job["jobId"] for job in client.jobs()] == [at_once.job_id, old.job_id]
    clock.now += 60
    assert [job["jobId"] for job in client.jobs()] == [at_once.job_id, late.job_id, old.job_id]


def test_a_job_that_lags_can_be_added_from_outside(client):
    client.post_json("/sandbox/jobs", {"coupon_series_id": SERIES, "list_lag_seconds": 3600})

    assert client.jobs() == []
    assert len(client.send("GET", "/sandbox").json()["coupon_series"][str(SERIES)]) == 1


# The response is lost


@pytest.mark.parametrize("status", [500, 502, 503, 401])
@pytest.mark.parametrize("processed", [True, False])
def test_an_error_comes_with_the_job_made_or_not(client, sandbox, status, processed):
    sandbox.inject(Fault("status", endpoint="upload", status=status, processed=processed))

    assert client.upload(FORM).status == status
    assert [job.rows for job in sandbox.jobs(SERIES)] == [1] * processed
    assert len(client.jobs()) == processed


@pytest.mark.parametrize("fault", [Fault("reset", processed=True), Fault("cut", fraction=0.0), Fault("cut", rst=True)])
def test_a_response_is_lost_after_the_job_was_made(client, sandbox, fault):
    sandbox.inject(fault)
    token = sandbox.issue_token()

    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        client.upload(FORM, headers={"X-CAP-API-OAUTH-TOKEN": token})

    assert len(sandbox.jobs(SERIES)) == 1


@pytest.mark.parametrize("path", [UPLOAD_PATH, COUPON_UPLOAD_PATH])
def test_a_request_is_reset_before_its_body_is_read(client, sandbox, path):
    sandbox.inject(Fault("reset", endpoint="upload", read_body=False))

    # Larger than the buffers on the way, so that a server that waits for its end would never come to it.
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.upload((b"x" * 65536 for _ in range(10_000)), path=path)

    assert sandbox.jobs() == sandbox.faults == []
    assert (sandbox.requests[-1].endpoint, sandbox.requests[-1].body_size) == ("upload", 0)
    assert client.upload(FORM).status == 200


def test_a_reset_that_reads_no_body_waits_for_none(client, sandbox):
    sandbox.inject(Fault("reset", endpoint="upload", read_body=False))
    head = f"POST {UPLOAD_PATH}/1 HTTP/1.1\r\nHost: sandbox\r\nContent-Length: 100\r\n\r\n".encode()

    with socket.create_connection((sandbox.host, sandbox.port), timeout=20) as connection:
        connection.sendall(head)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_reset_that_reads_no_body_sends_no_100_continue(client, sandbox):
    sandbox.inject(Fault("reset", read_body=False))
    head = b"POST /x HTTP/1.1\r\nHost: sandbox\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"

    with socket.create_connection((sandbox.host, sandbox.port), timeout=20) as connection:
        connection.sendall(head)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_reset_that_reads_no_body_counts_requests_like_any_fault(client, sandbox):
    sandbox.inject(Fault("status", endpoint="token", status=500))
    sandbox.inject(Fault("reset", endpoint="token", read_body=False, skip=1, times=2))

    statuses = []
    for _ in range(4):
        try:
            statuses.append(client.ask_token().status)
        except ConnectionResetError:
            statuses.append(None)

    assert statuses == [500, None, None, 200]
    assert client.send("GET", "/sandbox").status == 200


def test_faults_leave_the_control_alone_even_before_the_body(client, sandbox):
    sandbox.inject(Fault("reset", read_body=False, times=None))

    assert client.send("DELETE", "/sandbox/faults").status == 200


# One part of several


def test_one_part_of_several_fails_for_good(client, sandbox):
    sandbox.inject(Fault("status", endpoint="upload", status=500, times=None, file_name="part3of5"))

    assert [upload_part(client, number) for number in range(1, 6)] == [200, 200, 500, 200, 200]
    assert [upload_part(client, 3) for _ in range(3)] == [500] * 3
    sandbox.clear_faults()
    assert upload_part(client, 3) == 200
    assert [job.uploaded_file_name.partition("_17")[0] for job in sandbox.jobs(SERIES)] == [
        f"redeemed_part{number}of5" for number in (1, 2, 4, 5, 3)
    ]


def test_a_fault_of_one_file_counts_only_uploads_of_it(client, sandbox):
    sandbox.inject(Fault("status", endpoint="upload", file_name="part2", skip=1, times=1))

    assert [upload_part(client, number) for number in (1, 2, 1, 2, 2)] == [200, 200, 200, 503, 200]


def test_a_fault_of_one_file_can_lose_the_response_to_it(client, sandbox):
    sandbox.inject(Fault("reset", endpoint="upload", file_name="part2", processed=True))

    assert upload_part(client, 1) == 200
    with pytest.raises(ConnectionResetError):
        upload_part(client, 2)
    assert len(sandbox.jobs(SERIES)) == 2


def test_a_fault_of_one_file_takes_uploads_of_coupons_too(client, sandbox):
    sandbox.inject(Fault("status", endpoint="upload", file_name="coupons"))

    assert client.upload(FORM).status == 200
    form = multipart(coupon_parts(b"Coupon\nC1\n"))
    assert client.upload(form, path=COUPON_UPLOAD_PATH).status == 503
    assert client.upload(form, path=COUPON_UPLOAD_PATH).status == 200


@pytest.mark.parametrize("form", [b"", b"no form", multipart({"a": (None, b"redeemed")})])
def test_a_form_without_a_file_meets_no_fault_of_one_file(client, sandbox, form):
    sandbox.inject(Fault("status", endpoint="upload", file_name="redeemed"))

    assert client.upload(form).status == 400
    assert len(sandbox.faults) == 1


# Invalid faults


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("read_body", {"read_body": "no"}),
        ("read_body", {"kind": "status", "read_body": False}),
        ("read_body", {"processed": True, "read_body": False}),
        ("read_body", {"file_name": "a", "endpoint": "upload", "read_body": False}),
        ("file_name", {"file_name": "a"}),
        ("file_name", {"file_name": "a", "endpoint": "status"}),
        ("file_name", {"file_name": 3, "endpoint": "upload"}),
    ],
)
def test_a_fault_that_cannot_be_is_refused_by_the_name_of_its_field(field, values):
    with pytest.raises(ValueError, match=f"^{field}: "):
        Fault(**{"kind": "reset"} | values)


def test_a_fault_of_one_file_can_be_added_from_outside(client, sandbox):
    added = {"kind": "reset", "endpoint": "upload", "file_name": "part2", "processed": True}

    assert client.post_json("/sandbox/faults", added).status == 201
    assert upload_part(client, 1) == 200
    with pytest.raises(ConnectionResetError):
        upload_part(client, 2)
