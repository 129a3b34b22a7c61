# SPDX-License-Identifier: Apache-2.0
"""The sandbox's own endpoints."""

from __future__ import annotations

import io
from email.message import Message

import pytest

from airflow_provider_capillary.sandbox import Fault
from airflow_provider_capillary.sandbox.endpoints import find_route, is_loopback
from airflow_provider_capillary.sandbox.http_messages import Request
from tests.sandbox.client import SERIES


def test_the_overview_shows_jobs_faults_and_counts(client, sandbox):
    job = sandbox.add_job(SERIES, rows=9, errors=2)
    client.ask_token()
    sandbox.inject(Fault("status", times=2))

    overview = client.send("GET", "/sandbox").json()

    assert overview["base_url"] == sandbox.base_url
    assert overview["coupon_series"] == {
        str(SERIES): [
            {
                "job_id": job.job_id,
                "kind": "redeem",
                "coupon_series_id": SERIES,
                "status": "COMPLETED",
                "rows": 9,
                "errors": 2,
                "uploaded_file_name": job.uploaded_file_name,
                "error_file": job.handle,
                "error_file_bytes": len(job.read_error_file()),
            }
        ]
    }
    assert overview["faults"] == [{"kind": "status", "endpoint": "any", "skip": 0, "times": 2}]
    assert overview["requests"] == {"token": 1}


def test_the_overview_shows_no_token_no_secret_and_no_row(client, sandbox):
    sandbox.add_job(SERIES, errors=1, error_file=b"message,coupon code\nprivate, row,CODE\n")
    client.authorized()
    sandbox.inject(Fault("status", body="private body", headers={"X-Secret": "private"}))

    text = client.send("GET", "/sandbox").body.decode()

    assert not any(word in text for word in ("private", "sandbox-secret", *sandbox.tokens_issued))


def test_a_job_can_be_added(client, sandbox):
    reply = client.send(
        "POST",
        "/sandbox/jobs",
        '{"coupon_series_id": 7, "rows": 10, "errors": 2, "status": "COMPLETED", '
        '"error_file": "message,code\\nä,b,c\\n"}'.encode(),
    )

    (job,) = sandbox.jobs(7)
    assert reply.status == 201
    assert reply.json()["job_id"] == job.job_id
    assert (job.rows, job.errors, job.status()) == (10, 2, "COMPLETED")
    assert job.read_error_file().decode() == "message,code\nä,b,c\n"


def test_a_fault_can_be_added_and_all_of_them_removed(client, sandbox):
    added = client.post_json("/sandbox/faults", {"kind": "status", "endpoint": "token", "status": 429, "times": None})

    assert added.status == 201
    assert added.json() == {"faults": [{"kind": "status", "endpoint": "token", "skip": 0, "times": None}]}
    assert client.ask_token().status == 429

    removed = client.send("DELETE", "/sandbox/faults")

    assert (removed.status, removed.json()) == (200, {"faults": []})
    assert client.ask_token().status == 200


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("jobs", {}, "coupon_series_id"),
        ("jobs", {"coupon_series_id": "x"}, "coupon_series_id"),
        ("jobs", {"coupon_series_id": 1, "row": 3}, "row"),
        ("jobs", {"coupon_series_id": 1, "rows": -3}, "rows"),
        ("jobs", {"coupon_series_id": 1, "error_file": ["/etc/passwd"]}, "error_file"),
        ("jobs", {"coupon_series_id": 1, "success_file": ["/etc/passwd"]}, "success_file"),
        ("jobs", {"coupon_series_id": 1, "uploaded_file": 7}, "uploaded_file"),
        ("faults", {}, "kind"),
        ("faults", {"kind": "explode"}, "kind"),
        ("faults", {"kind": "status", "end_point": "token"}, "end_point"),
        ("faults", {"kind": "status", "_": 1}, "_"),
        ("faults", {"kind": "status", "status": 9}, "status"),
        ("faults", {"kind": "status", "headers": 9}, "headers"),
    ],
)
def test_bad_input_is_refused_by_the_name_of_its_field(client, sandbox, path, value, field):
    reply = client.post_json(f"/sandbox/{path}", value)

    assert reply.status == 400
    assert reply.json()["field"] == field
    assert reply.json()["error"].startswith(f"{field}: ")
    assert sandbox.jobs() == sandbox.faults == []


@pytest.mark.parametrize("path", ["/sandbox/jobs", "/sandbox/faults"])
@pytest.mark.parametrize("body", ["", "[]", "{", "rows=3"])
def test_a_body_that_is_no_json_object_is_refused(client, path, body):
    reply = client.send("POST", path, body)

    assert reply.status == 400
    assert reply.json() == {"error": "the body must be a JSON object"}


@pytest.mark.parametrize("name", ["error_file", "success_file", "uploaded_file"])
def test_a_file_is_its_content_and_never_a_path(client, sandbox, name):
    client.post_json("/sandbox/jobs", {"coupon_series_id": 1, "errors": 1, name: "/etc/passwd"})

    assert getattr(sandbox.jobs(1)[0], name) == b"/etc/passwd"


@pytest.mark.parametrize(("method", "path"), [("GET", "/sandbox/jobs"), ("PUT", "/sandbox"), ("POST", "/sandbox/x")])
def test_an_unknown_request_gets_a_list_of_the_known_ones(client, method, path):
    reply = client.send(method, path)

    assert reply.status == 404
    assert "POST /sandbox/faults" in reply.json()["error"]


def test_faults_and_records_leave_the_control_alone(client, sandbox):
    sandbox.inject(Fault("reset", times=None))

    assert client.send("GET", "/sandbox").status == 200
    assert client.send("DELETE", "/sandbox/faults").status == 200
    assert sandbox.requests == []


def test_only_this_machine_may_use_it(sandbox):
    route, argument = find_route("/sandbox")
    request = Request("GET", argument, Message(), io.BytesIO(), peer="192.168.1.5")

    assert route.respond(sandbox, request).status == 403


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("fe80::1%eth0", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_only_loopback_addresses_are_loopback(address, expected):
    assert is_loopback(address) is expected
