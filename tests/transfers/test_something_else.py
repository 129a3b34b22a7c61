# SPDX-License-Identifier: Apache-2.0
"""An answer in place of the file never becomes the object: not of any source, and not of any file of the job."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import CapillaryResponseError
from airflow_provider_capillary.sandbox import Fault
from tests.transfers.running import SERIES, Run, connect, file_url
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import LocalFolder

NAME = "errors.csv"
YESTERDAY = b"message,coupon code\nCoupon is expired, the redemption was not recorded,OLD10\n"
SIGNED = {"data": {"url": "https://s3.example.com/x?X-Amz-Signature=hunter2"}}

ANSWERS: dict[str, bytes] = {
    "an empty object": b"{}",
    "an envelope without a result": json.dumps({"success": True, "result": None}).encode(),
    "a signed URL": json.dumps(SIGNED).encode(),
    "a signed URL over several lines": json.dumps(SIGNED, indent=2).encode() + b"\n",
    "a signed URL behind a byte order mark": b"\xef\xbb\xbf\r\n" + json.dumps(SIGNED).encode(),
    "an object of more than one piece": json.dumps(SIGNED | {"padding": "x" * 200_000}).encode(),
    "an array": json.dumps([SIGNED]).encode(),
    "a string": json.dumps(SIGNED["data"]["url"]).encode(),
    "null": b"null",
    "false": b"false",
    "nothing": b"",
    "blanks": b" \r\n",
    "OK": b"OK",
    "an HTML page": b"<!DOCTYPE html>\n<html><title>Log in</title></html>\n",
}
FILES: dict[str, bytes] = {
    "lines of JSON": b'{"code": "BAD10"}\n{"code": "BAD11"}\n',
    "braces in a header": b"{message},coupon code\nx,BAD10\n",
    "a number": b"4711\n",
    "quoted fields": b'"message","coupon code"\n"Coupon is expired","BAD10"\n',
    "more than is held back": b'"BAD10"\n' * 200_000,
}
EACH_ANSWER = pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
OVERWRITE = pytest.mark.parametrize("overwrite", [True, "if_changed"])


class Place:
    """A place from which the operator takes the error file of a job."""

    def __init__(self, kind: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self._kind = kind
        self._sandbox = sandbox
        self._folder = tmp_path / "export"
        self._folder.mkdir()
        templates = {"template": f"{sandbox.base_url}/files/{{handle}}", "object": f"file://{self._folder}/{{handle}}"}
        if kind in templates:
            connect(monkeypatch, sandbox, error_file_url=templates[kind])

    def add_job(self, content: bytes, *, errors: int = 7) -> Any:
        url = file_url(self._sandbox) if self._kind == "url" else "handle"
        job = self._sandbox.add_job(SERIES, rows=9, errors=errors, error_file=content, error_file_url=url)
        (self._folder / job.handle).write_bytes(content)
        return job


@pytest.fixture(params=["download", "url", "template", "object"])
def place(request: pytest.FixtureRequest, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    """Each of the places that a file can come from."""
    return Place(request.param, sandbox, monkeypatch, tmp_path)


def assert_refused(run: Run, store: LocalFolder, *, name: str = "error file") -> None:
    """The run fails, its message quotes nothing, and the object of yesterday is the only one."""
    with pytest.raises(CapillaryResponseError, match=f"came where the {name} was expected") as caught:
        run()
    assert "hunter2" not in str(caught.value)
    assert store.visible() == {NAME: Content.of(YESTERDAY)}
    assert store.unfinished() == []
    assert run.xcoms == {}


@EACH_ANSWER
@pytest.mark.parametrize("place", ["download"], indirect=True)
def test_it_does_not_replace_the_object_of_yesterday(place: Place, store: LocalFolder, answer: bytes) -> None:
    store.put(NAME, YESTERDAY)

    assert_refused(Run(place.add_job(answer), store.folder + NAME), store)


@pytest.mark.parametrize("answer", ["an array", "nothing"])
@OVERWRITE
def test_it_does_not_replace_it_from_any_place_and_with_if_changed(
    place: Place, store: LocalFolder, answer: str, overwrite: Any
) -> None:
    store.put(NAME, YESTERDAY)

    assert_refused(Run(place.add_job(ANSWERS[answer]), store.folder + NAME, overwrite=overwrite), store)


def test_it_does_not_pass_for_unchanged_where_it_lies_in_the_store_already(place: Place, store: LocalFolder) -> None:
    answer = ANSWERS["a signed URL"]
    store.put(NAME, answer)

    with pytest.raises(CapillaryResponseError):
        Run(place.add_job(answer), store.folder + NAME, overwrite="if_changed")()


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_that_resembles_it_replaces_the_object(place: Place, store: LocalFolder, content: bytes) -> None:
    store.put(NAME, YESTERDAY)

    Run(place.add_job(content), store.folder + NAME, overwrite="if_changed")()

    assert store.visible() == {NAME: Content.of(content)}


@pytest.mark.parametrize("content", [b"", b"\n", b'"coupon code"\n'], ids=repr)
def test_a_file_without_rows_is_one_where_the_job_counts_no_errors(
    place: Place, store: LocalFolder, content: bytes
) -> None:
    Run(place.add_job(content, errors=0), store.folder + NAME)()

    assert store.visible() == {NAME: Content.of(content)}


def test_an_object_with_a_signed_url_is_none_even_there(place: Place, store: LocalFolder) -> None:
    store.put(NAME, YESTERDAY)

    assert_refused(Run(place.add_job(ANSWERS["a signed URL"], errors=0), store.folder + NAME), store)


@pytest.mark.parametrize("answer", ["a signed URL", "nothing", "OK"])
@pytest.mark.parametrize("file_type", ["success", "uploaded"])
def test_it_does_not_pass_for_another_file_of_the_job_either(
    sandbox: Sandbox, store: LocalFolder, answer: str, file_type: Any
) -> None:
    store.put(NAME, YESTERDAY)
    files: Any = {f"{file_type}_file": ANSWERS[answer]}
    job = sandbox.add_job(SERIES, rows=9, errors=7, **files)

    assert_refused(Run(job, store.folder + NAME, file_type=file_type), store, name=f"{file_type} file")


@pytest.mark.parametrize(("file_type", "errors"), [("success", 9), ("uploaded", 0)])
def test_another_file_of_the_job_may_be_empty_where_no_rows_are_counted_for_it(
    sandbox: Sandbox, store: LocalFolder, file_type: Any, errors: int
) -> None:
    files: Any = {f"{file_type}_file": b""}
    job = sandbox.add_job(SERIES, rows=errors, errors=errors, **files)

    Run(job, store.folder + NAME, file_type=file_type)()

    assert store.visible() == {NAME: Content.of(b"")}


@pytest.mark.parametrize("answer", [ANSWERS["a signed URL"], ANSWERS["nothing"]], ids=["a signed URL", "nothing"])
def test_compression_on_the_way_does_not_hide_it(sandbox: Sandbox, store: LocalFolder, answer: bytes) -> None:
    store.put(NAME, YESTERDAY)
    packed = Fault(
        "body",
        endpoint="download",
        status=200,
        body=gzip.compress(answer),
        headers={"Content-Encoding": "gzip"},
        times=None,
    )
    sandbox.inject(packed)

    assert_refused(Run(sandbox.add_job(SERIES, errors=7), store.folder + NAME), store)


@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_a_break_on_the_way_does_not_hide_it(sandbox: Sandbox, store: LocalFolder, fraction: float) -> None:
    store.put(NAME, YESTERDAY)
    answer = json.dumps(["x" * 60_000] * 5).encode()
    job = sandbox.add_job(SERIES, errors=7, error_file=answer, error_file_url=file_url(sandbox))
    sandbox.inject(Fault("cut", endpoint="files", fraction=fraction))

    assert_refused(Run(job, store.folder + NAME), store)
    assert "Range" in sandbox.requests[-1].headers


def test_a_file_that_comes_after_it_is_stored(sandbox: Sandbox, store: LocalFolder) -> None:
    job = sandbox.add_job(SERIES, errors=7)
    sandbox.inject(Fault("empty", endpoint="download"))
    sandbox.inject(Fault("text", endpoint="download"))
    sandbox.inject(Fault("body", endpoint="download", status=200, body=SIGNED))

    Run(job, store.folder + NAME)()

    assert store.visible() == {NAME: Content.of(job.read_error_file())}
    assert sandbox.count("download") == 4


def test_an_http_202_is_not_the_file(sandbox: Sandbox, store: LocalFolder) -> None:
    store.put(NAME, YESTERDAY)
    sandbox.inject(Fault("body", endpoint="download", status=202, body="being made,come again\n", times=None))

    with pytest.raises(CapillaryResponseError, match="the error file is not ready yet"):
        Run(sandbox.add_job(SERIES, errors=7), store.folder + NAME)()

    assert store.visible() == {NAME: Content.of(YESTERDAY)}
