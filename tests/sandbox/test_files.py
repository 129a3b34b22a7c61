# SPDX-License-Identifier: Apache-2.0
"""Both ways to an error file: the download with a token, and plain files with byte ranges."""

from __future__ import annotations

import tracemalloc
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.sandbox.endpoints import parse_range
from tests.sandbox.client import DOWNLOAD_PATH, SERIES

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def job(sandbox):
    return sandbox.add_job(SERIES, errors=1, error_file=CONTENT)


def test_a_download_is_the_bytes_of_the_file(client, job):
    reply = client.download(job.handle)

    assert reply.status == 200
    assert reply.body == CONTENT
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert reply.headers["Content-Length"] == "1024"


def test_a_file_is_the_bytes_of_the_file_and_needs_no_token(client, job):
    reply = client.send("GET", f"/files/{job.handle}")

    assert reply.status == 200
    assert reply.body == CONTENT
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert reply.headers["Content-Length"] == "1024"
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["ETag"].startswith('"')
    assert reply.headers["Last-Modified"].endswith(" GMT")


def test_head_has_the_headers_of_get_without_a_body(client, job):
    get, head = client.send("GET", f"/files/{job.handle}"), client.send("HEAD", f"/files/{job.handle}")

    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "ETag", "Last-Modified", "Accept-Ranges"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize("fetch", ["download", "files"])
def test_there_is_no_file_under_another_name(client, job, fetch):
    for name in ("unknown", f"{job.handle}x", "../../../etc/passwd", "/etc/passwd", ""):
        reply = client.download(name) if fetch == "download" else client.send("GET", f"/files/{quote(name)}")
        assert reply.status == 404
    assert client.download("unknown").json()["success"] is False


@pytest.mark.parametrize("fetch", ["download", "files"])
def test_there_is_no_file_before_the_job_is_done(client, sandbox, fetch):
    job = sandbox.add_job(SERIES, errors=1, status="STARTED")

    def status() -> int:
        reply = client.download(job.handle) if fetch == "download" else client.send("GET", f"/files/{job.handle}")
        return reply.status

    assert status() == 404
    sandbox.finish(job)
    assert status() == 200


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"fileName": 7}', '{"filename": "x"}'])
def test_a_download_without_a_file_name_is_refused_in_the_coupon_envelope(client, body):
    headers = {"Content-Type": "application/json", **client.authorized()}

    reply = client.send("POST", DOWNLOAD_PATH, body, headers)

    assert reply.status == 400
    assert reply.json()["success"] is False


def test_a_download_is_asked_for_in_json(client, job):
    assert client.send("POST", DOWNLOAD_PATH, "fileName=x", client.authorized()).status == 415


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b/c%2e?d#e", "%2e%2e", "übel\n"])
def test_a_strange_handle_leads_to_its_file_all_the_same(client, sandbox, name):
    sandbox.add_job(SERIES, errors=1, error_file=CONTENT, error_file_url=name)

    assert client.download(name).body == CONTENT
    assert client.send("GET", f"/files/{quote(name, safe='')}").body == CONTENT


def test_an_absolute_url_of_the_sandbox_leads_to_the_file(client, sandbox):
    sandbox.add_job(
        SERIES, errors=1, error_file=CONTENT, error_file_url=f"{sandbox.base_url}/files/my%20errors.csv?signature=abc"
    )

    assert client.send("GET", "/files/my%20errors.csv?signature=abc").body == CONTENT


def test_an_empty_file_is_served(client, sandbox):
    job = sandbox.add_job(SERIES, errors=1, error_file=b"")

    for reply in (client.download(job.handle), client.send("GET", f"/files/{job.handle}")):
        assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "0")


def test_a_file_that_was_taken_away_is_not_there(client, sandbox, tmp_path):
    path = tmp_path / "errors.csv"
    path.write_bytes(CONTENT)
    job = sandbox.add_job(SERIES, errors=1, error_file=path)
    path.unlink()

    assert client.download(job.handle).status == 404
    assert client.send("GET", f"/files/{job.handle}").status == 404


def test_a_large_file_is_served_in_constant_memory(client, sandbox, tmp_path):
    path = tmp_path / "large"
    size = 256 * 1024 * 1024
    with path.open("wb") as file:
        file.truncate(size)
    job = sandbox.add_job(SERIES, errors=1, error_file=path)
    connection = client.connect()
    connection.request("GET", f"/files/{job.handle}")
    response = connection.getresponse()
    received = 0

    tracemalloc.start()
    try:
        while data := response.read(64 * 1024):
            received += len(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        connection.close()

    assert received == size
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("fetch", ["download", "files"])
def test_the_success_file_and_the_uploaded_one_are_served_like_the_error_file(client, sandbox, tmp_path, fetch):
    path = tmp_path / "uploaded.csv"
    path.write_bytes(b"uploaded")
    job = sandbox.add_job(SERIES, errors=1, error_file=b"refused", success_file=b"accepted", uploaded_file=path)

    def read(name: str) -> bytes:
        reply = client.download(name) if fetch == "download" else client.send("GET", f"/files/{name}")
        return reply.body if reply.status == 200 else b""

    (shown,) = client.jobs()
    names = [shown[field] for field in ("errorFileUrl", "successFileUrl", "uploadedFileUrl")]
    assert [read(name) for name in names] == [b"refused", b"accepted", b"uploaded"]
    assert names == [job.handle, job.success_handle, job.uploaded_file_name]
    assert job.success_handle.startswith("success_redemption_upload_")


def test_the_success_file_is_there_once_the_job_is_done_and_the_uploaded_one_at_once(client, sandbox):
    job = sandbox.add_job(SERIES, status="STARTED", success_file=b"accepted", uploaded_file=b"uploaded")

    assert client.jobs()[0]["successFileUrl"] is None
    assert client.download(job.success_handle).status == 404
    assert client.download(job.uploaded_file_name).body == b"uploaded"

    sandbox.finish(job)
    assert client.jobs()[0]["successFileUrl"] == job.success_handle
    assert client.download(job.success_handle).body == b"accepted"


def test_unless_they_are_given_there_is_no_success_file_and_the_upload_is_not_kept(client, sandbox):
    job = sandbox.add_job(SERIES, errors=1)

    (shown,) = client.jobs()
    assert (shown["successFileUrl"], shown["uploadedFileUrl"]) == (None, job.uploaded_file_name)
    assert client.download(job.success_handle).status == 404
    assert client.download(job.uploaded_file_name).status == 404


# Ranges


@pytest.mark.parametrize(
    ("header", "part", "content_range"),
    [
        ("bytes=0-99", slice(0, 100), "bytes 0-99/1024"),
        ("bytes=1000-", slice(1000, None), "bytes 1000-1023/1024"),
        ("bytes=1000-5000", slice(1000, None), "bytes 1000-1023/1024"),
        ("bytes=-24", slice(1000, None), "bytes 1000-1023/1024"),
        ("bytes=-5000", slice(0, None), "bytes 0-1023/1024"),
        ("bytes=5-5", slice(5, 6), "bytes 5-5/1024"),
    ],
)
def test_a_range_is_served(client, job, header, part, content_range):
    reply = client.send("GET", f"/files/{job.handle}", headers={"Range": header})

    assert reply.status == 206
    assert reply.body == CONTENT[part]
    assert reply.headers["Content-Range"] == content_range
    assert reply.headers["Content-Length"] == str(len(reply.body))


def test_a_range_of_a_file_on_disk_is_served(client, sandbox, tmp_path):
    path = tmp_path / "errors.csv"
    path.write_bytes(CONTENT)
    job = sandbox.add_job(SERIES, errors=1, error_file=path)

    assert client.send("GET", f"/files/{job.handle}", headers={"Range": "bytes=10-19"}).body == CONTENT[10:20]


@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=2000-3000", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(client, job, header):
    reply = client.send("GET", f"/files/{job.handle}", headers={"Range": header})

    assert reply.status == 416
    assert reply.headers["Content-Range"] == "bytes */1024"
    assert reply.body == b""


@pytest.mark.parametrize("header", ["bytes=5-1", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "0-5"])
def test_a_range_that_makes_no_sense_is_ignored(client, job, header):
    reply = client.send("GET", f"/files/{job.handle}", headers={"Range": header})

    assert (reply.status, reply.body) == (200, CONTENT)


def test_if_range_asks_for_the_whole_file_once_it_has_changed(client, job):
    path = f"/files/{job.handle}"
    first = client.send("GET", path)
    for version in (first.headers["ETag"], first.headers["Last-Modified"]):
        reply = client.send("GET", path, headers={"Range": "bytes=1-2", "If-Range": version})
        assert reply.status == 206

    job.error_file = b"another"
    reply = client.send("GET", path, headers={"Range": "bytes=1-2", "If-Range": first.headers["ETag"]})

    assert (reply.status, reply.body) == (200, b"another")


def test_the_tag_of_a_file_on_disk_changes_with_it(client, sandbox, tmp_path):
    path = tmp_path / "errors.csv"
    path.write_bytes(CONTENT)
    job = sandbox.add_job(SERIES, errors=1, error_file=path)

    before = client.send("HEAD", f"/files/{job.handle}").headers["ETag"]
    path.write_bytes(CONTENT + b"more")

    assert client.send("HEAD", f"/files/{job.handle}").headers["ETag"] != before


def test_a_sandbox_without_ranges_ignores_them(start):
    client = start(file_ranges=False)
    job = client.sandbox.add_job(SERIES, errors=1, error_file=CONTENT)

    reply = client.send("GET", f"/files/{job.handle}", headers={"Range": "bytes=1-2"})

    assert (reply.status, reply.body) == (200, CONTENT)
    assert "Accept-Ranges" not in reply.headers


@given(first=st.integers(0, 40) | st.none(), last=st.integers(0, 40) | st.none(), size=st.integers(0, 30))
def test_a_range_equals_a_slice(first, last, size):
    content = bytes(range(size))
    text = [("" if bound is None else str(bound)) for bound in (first, last)]
    if first is None and last is not None:
        expected = content[max(0, size - last) :]
    elif first is None or (last is not None and last < first):
        assert parse_range(f"bytes={text[0]}-{text[1]}", size) is None
        return
    else:
        expected = content[first : None if last is None else last + 1]

    part = parse_range(f"bytes={text[0]}-{text[1]}", size)
    assert bytes(content[at] for at in part) == expected
