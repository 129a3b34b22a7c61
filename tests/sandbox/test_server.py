# SPDX-License-Identifier: Apache-2.0
"""The server: start and stop, connections, records."""

from __future__ import annotations

import graphlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

import airflow_provider_capillary.sandbox
from airflow_provider_capillary.sandbox import Fault, Sandbox
from tests.project import imports_in
from tests.sandbox.client import SERIES, STATUS_PATH, TOKEN_PATH, UPLOAD_PATH, Client, csv_file, good_row, multipart

PACKAGE = Path(airflow_provider_capillary.sandbox.__file__).parent


# Start and stop


def test_it_serves_between_start_and_stop():
    sandbox = Sandbox()
    sandbox.start()
    url = f"{sandbox.base_url}/sandbox"
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            assert response.status == 200
    finally:
        sandbox.stop()

    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=20)


def test_a_stop_leaves_no_thread_and_no_connection_behind():
    before = set(threading.enumerate())
    with Sandbox() as sandbox:
        idle = Client(sandbox).connect()
        idle.request("GET", "/")
        idle.getresponse().read()
        sandbox.inject(Fault("slow", seconds=600))
        waiting = Client(sandbox).connect()
        waiting.request("GET", "/")
        while sandbox.count("other") < 2:
            time.sleep(0.01)

    assert idle.sock.recv(1) == b""
    with pytest.raises((ConnectionError, OSError)):
        waiting.getresponse()
    idle.close()
    waiting.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=20)
    assert set(threading.enumerate()) <= before


def test_a_second_start_is_refused_and_a_second_stop_does_nothing():
    with Sandbox() as sandbox:
        with pytest.raises(RuntimeError, match="already"):
            sandbox.start()
        sandbox.stop()
        sandbox.stop()
        assert "stopped" in repr(sandbox)


def test_after_an_outage_it_is_back_on_its_port_with_its_jobs_and_tokens():
    with Sandbox() as sandbox:
        client = Client(sandbox)
        job, headers, url = sandbox.add_job(SERIES), client.authorized(), sandbox.base_url

        sandbox.stop()
        with pytest.raises(ConnectionRefusedError):
            client.ask_status(headers=headers)
        sandbox.start()

        assert sandbox.base_url == url
        answer = client.ask_status(headers=headers).json()
        assert [one["jobId"] for one in answer["result"]["redeemUploadJobStatuses"]] == [job.job_id]


def test_a_connection_that_outlives_its_stop_ends_quietly_after_the_next_start(start, monkeypatch):
    failed, began, may_end = [], threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "excepthook", failed.append)
    client = start(access_log=lambda line: (began.set(), may_end.wait(20)))
    before = set(threading.enumerate())
    assert client.send("GET", "/").status == 404
    assert began.wait(20)
    (outliving,) = set(threading.enumerate()) - before

    client.sandbox.stop()
    client.sandbox.start()
    assert outliving.is_alive()
    may_end.set()
    outliving.join(20)

    assert not outliving.is_alive()
    assert failed == []
    assert client.ask_token().status == 200


def test_a_connection_whose_thread_cannot_start_is_closed_and_the_next_one_served(client, monkeypatch):
    start, failures = threading.Thread.start, [RuntimeError("can't start new thread")]

    def fail_once(thread):
        if failures:
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_once)

    with pytest.raises(ConnectionError):
        client.ask_token()
    assert failures == []
    assert client.ask_token().status == 200


def test_there_is_no_port_before_the_start():
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = Sandbox().base_url
    assert Sandbox(port=8010).base_url == "http://127.0.0.1:8010"


def test_a_port_that_is_taken_is_an_error(sandbox):
    with pytest.raises(OSError, match="in use"):
        Sandbox(port=sandbox.port).start()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", None),
        ("port", 65536),
        ("port", "8010"),
        ("client_key", 1),
        ("client_secret", None),
        ("org_id", "x"),
        ("token_ttl_seconds", -1),
        ("ttl_in_answer", "no"),
        ("queued_seconds", float("inf")),
        ("started_seconds", "1"),
        ("list_lag_seconds", "1"),
        ("upload_auth", "basic"),
        ("upload_auth", None),
        ("cluster_timezone", "Mars/Olympus"),
        ("cluster_timezone", ""),
        ("cluster_timezone", "../../etc/passwd"),
        ("cluster_timezone", 5),
        ("refusal", "http_403"),
        ("bad_credentials_status", 99),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        Sandbox(**{field: value})


def test_the_connection_has_the_keys_of_airflow(sandbox):
    connection = sandbox.connection(cluster_timezone="Asia/Kolkata", requests_per_minute=1000)

    assert connection == {
        "conn_type": "capillary",
        "host": "http://127.0.0.1",
        "port": sandbox.port,
        "login": "sandbox-key",
        "password": "sandbox-secret",
        "extra": {"cluster_timezone": "Asia/Kolkata", "requests_per_minute": 1000},
    }
    assert json.loads(sandbox.connection_json(verify=False)) == connection | {"extra": {"verify": False}}


@pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "http://127.0.0.1"), ("localhost", "http://localhost")])
def test_a_host_for_all_addresses_is_reached_on_loopback(start, host, url):
    client = start(host=host)

    assert client.sandbox.base_url == f"{url}:{client.sandbox.port}"
    assert client.ask_token().status == 200


@pytest.mark.parametrize("host", ["::1", "::"])
def test_it_serves_on_ipv6(start, host):
    try:
        client = start(host=host)
    except OSError:
        pytest.skip("this machine has no IPv6")

    assert client.sandbox.base_url == f"http://[::1]:{client.sandbox.port}"
    assert client.ask_token().status == 200
    assert client.send("GET", "/sandbox").status == 200


def test_it_serves_https(start):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trusting)
    client = start(ssl_context=server)
    client.context = trusting
    sandbox = client.sandbox

    assert sandbox.connection()["host"] == "https://127.0.0.1"
    assert client.ask_token().status == 200

    client.context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        client.ask_token()
    with (
        socket.create_connection((sandbox.host, sandbox.port)) as silent,
        socket.create_connection((sandbox.host, sandbox.port), timeout=20) as plain,
    ):
        # Neither one that says nothing nor one that speaks no TLS keeps the others waiting.
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.context = trusting
        assert client.ask_token().status == 200
        assert silent.fileno() > 0

    sandbox.inject(Fault("reset"))
    with pytest.raises(OSError):  # noqa: PT011 - a reset or an end of file, as TLS will have it
        client.ask_token()


# HTTP


def test_one_connection_serves_many_requests(client):
    connection = client.connect()
    for path in ("/", f"{STATUS_PATH}/1", "/sandbox", "/files/x"):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status in (200, 401, 404)
        assert connection.sock is not None
    connection.close()


def test_pipelined_requests_are_answered_in_turn(client, sandbox):
    request = b"POST /%d HTTP/1.1\r\nHost: sandbox\r\nContent-Length: 3\r\n\r\nabc"
    last = b"GET /last HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\r\n"

    answer = client.raw(b"".join(request % number for number in range(3)) + last)

    assert answer.count(b"HTTP/1.1 404 ") == 4
    assert [(one.path, one.body) for one in sandbox.requests] == [
        ("/0", b"abc"),
        ("/1", b"abc"),
        ("/2", b"abc"),
        ("/last", b""),
    ]


def test_a_client_that_expects_100_continue_gets_it_before_it_sends_the_body(client, sandbox):
    head = (
        b"POST /x HTTP/1.1\r\nHost: sandbox\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((sandbox.host, sandbox.port), timeout=20) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        answer = b""
        while data := connection.recv(65536):
            answer += data

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert sandbox.requests[-1].body == b"abc"


def test_a_client_of_http_1_0_gets_one_answer_and_the_end_of_the_connection(client):
    answer = client.raw(b"GET / HTTP/1.0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"Connection: close" in answer


def test_many_clients_are_served_at_once(client, sandbox):
    headers = client.authorized()
    sandbox.inject(Fault("slow", endpoint="other", times=20, seconds=0.5))
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(client.send("GET", "/x", headers=headers).status))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    # Served although twenty others wait.
    assert client.ask_status(headers=headers).status == 200
    for thread in threads:
        thread.join()

    assert statuses == [404] * 20


def test_every_answer_has_a_request_id_of_its_own(client):
    replies = [
        client.ask_token(),
        client.ask_status(),
        client.ask_status(headers={}),
        client.send("GET", "/"),
        client.send("GET", "/files/x"),
        client.send("GET", "/sandbox"),
        client.send("POST", UPLOAD_PATH + "/1", headers=client.authorized()),
    ]

    assert len({uuid.UUID(reply.headers["X-CAP-REQUEST-ID"]) for reply in replies}) == len(replies)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /\x00 HTTP/9.9\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
        *(
            b"POST / HTTP/1.1\r\nHost: sandbox\r\n" + rest
            for rest in (
                b"Content-Length: x\r\n\r\n",
                b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
                b"Transfer-Encoding: gzip\r\n\r\n",
                b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n",
                b"X: " + b"x" * 200_000 + b"\r\n\r\n",
            )
        ),
    ],
)
def test_malformed_http_is_refused_and_the_connection_closed(client, capfd, request_bytes):
    answer = client.raw(request_bytes)

    assert int(answer.split()[1]) in (400, 431, 501)
    assert b"X-CAP-REQUEST-ID" in answer
    assert capfd.readouterr() == ("", "")


def test_a_client_that_goes_away_disturbs_nobody(client, sandbox, capfd):
    job = sandbox.add_job(SERIES, errors=1, error_file=bytes(20_000_000))
    for request in (
        b"",
        b"GET / HT",
        b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nx",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nx",
        f"GET /files/{job.handle} HTTP/1.1\r\n\r\n".encode(),
    ):
        with socket.create_connection((sandbox.host, sandbox.port)) as connection:
            connection.sendall(request)

    assert client.ask_token().status == 200
    sandbox.stop()
    assert capfd.readouterr() == ("", "")


# Records


def test_requests_are_recorded_as_they_came(client, sandbox):
    began = time.monotonic()
    client.ask_token()
    client.send("GET", f"/{STATUS_PATH}//1?x=y", headers={"X-Cap-Api-OAuth-Token": "t", "User-Agent": "me"})

    token, status = sandbox.requests
    assert (token.method, token.path, token.endpoint) == ("POST", TOKEN_PATH, "token")
    assert json.loads(token.body) == {"key": "sandbox-key", "secret": "sandbox-secret"}
    assert token.body_size == len(token.body)
    assert (status.method, status.path, status.query) == ("GET", f"/{STATUS_PATH}//1", "x=y")
    assert status.headers["X-CAP-API-OAUTH-TOKEN"] == "t"
    assert "user-agent" in status.headers
    assert status.headers.get("Accept") is None
    assert dict(status.headers)["user-agent"] == "me"
    assert began <= token.at <= status.at <= time.monotonic()


def test_requests_are_counted_by_endpoint(client, sandbox):
    client.upload(b"")
    client.download("x")
    client.send("GET", "/files/x")
    client.send("GET", "/")

    counts = {name: sandbox.count(name) for name in ("token", "status", "upload", "download", "files", "other")}
    assert counts == {"token": 2, "status": 0, "upload": 1, "download": 1, "files": 1, "other": 1}
    with pytest.raises(ValueError, match="endpoint"):
        sandbox.count("stauts")


def test_the_list_of_requests_is_a_snapshot(client, sandbox):
    client.ask_token()
    snapshot = sandbox.requests
    client.ask_token()

    assert (len(snapshot), len(sandbox.requests)) == (1, 2)


def test_no_repr_shows_a_token_or_a_secret(client, sandbox):
    client.ask_status()

    shown = repr([sandbox, sandbox.requests, sandbox.requests[0].headers])

    assert "sandbox-secret" not in shown
    assert not any(token in shown for token in sandbox.tokens_issued)


def test_it_is_silent_unless_asked(client, sandbox, capfd):
    client.ask_status()
    client.send("GET", "/nowhere")
    sandbox.inject(Fault("reset"))
    with pytest.raises(ConnectionResetError):
        client.ask_token()
    sandbox.stop()

    assert capfd.readouterr() == ("", "")


def test_the_access_log_has_a_line_for_each_request_and_nothing_private(start):
    lines = []
    client = start(access_log=lines.append)
    client.sandbox.inject(Fault("cut", endpoint="other", fraction=1.0))
    client.upload(multipart({"file": ("a.csv", csv_file(good_row("PRIVATE")))}))
    client.send("GET", "/x%1b?signature=PRIVATE", headers={"X": "PRIVATE"})
    client.raw(b"GET /\x1b[2J HTTP/1.0\r\n\r\n")
    while len(lines) < 4:
        time.sleep(0.01)  # a line is written once its answer is sent

    assert {line.rsplit(" ", 2)[0] for line in lines} == {
        f"POST {TOKEN_PATH} 200",
        f"POST {UPLOAD_PATH}/{SERIES} 400",
        "GET /x%1b 404 (fault: cut)",
        "malformed request 400",
    }
    assert all(line.endswith(" ms") for line in lines)


def test_a_bug_is_reported_by_its_place_without_values(sandbox, client, capfd, monkeypatch):
    def fail(*_):
        raise KeyError("private value")

    monkeypatch.setattr(sandbox, "take_fault", fail)

    with pytest.raises(ConnectionError):
        client.send("GET", "/")
    sandbox.stop()
    out, err = capfd.readouterr()
    assert out == ""
    assert "KeyError in " in err
    assert "private" not in err


# Imports


def test_it_needs_h11_and_python_multipart_and_nothing_else():
    imported = set()
    for file in PACKAGE.glob("*.py"):
        imported |= {module for module, _ in imports_in(file.read_text())}
    own = {name for name in imported if name.startswith("airflow_provider_capillary.sandbox")}

    others = {name.partition(".")[0] for name in imported - own} - sys.stdlib_module_names
    assert others == {"h11", "python_multipart"}


def test_no_module_imports_another_in_a_circle_not_even_for_annotations():
    prefix = "airflow_provider_capillary.sandbox."
    imports = {}
    for file in PACKAGE.glob("*.py"):
        modules = {module for module, _ in imports_in(file.read_text())}
        imports[file.stem] = {module.removeprefix(prefix) for module in modules if module.startswith(prefix)}

    assert "state" in imports["server"]
    tuple(graphlib.TopologicalSorter(imports).static_order())  # raises CycleError


def test_its_import_loads_nothing_heavy_and_starts_nothing():
    code = (
        "import sys, threading, airflow_provider_capillary.sandbox\n"
        "heavy = {'airflow', 'requests', 'httpx', 'pendulum', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert threading.active_count() == 1\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parents[1], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
