# SPDX-License-Identifier: Apache-2.0
"""What the operator promises for every kind of store.

Each class is run for folders by test_error_file_to_folder.py, and for S3 by
tests/integration/test_error_file_to_s3.py: they derive from it and bring the fixture `store`.
"""

from __future__ import annotations

import gzip
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from airflow_provider_capillary._storage import atomic_write, part_writer
from airflow_provider_capillary._storage.stores import azure, local, s3, staged
from airflow_provider_capillary.exceptions import CapillaryError, CapillaryErrorFileError, CapillaryResponseError
from airflow_provider_capillary.sandbox import Fault
from tests.airflow_compat import AirflowTaskTimeout
from tests.transfers.child import Child, run_child
from tests.transfers.running import (
    LARGE,
    MIB,
    SERIES,
    SMALL,
    Run,
    connect,
    file_url,
    interrupting,
    interrupting_at_line,
    pull,
)
from tests.transfers.stores import Content
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import Store

#: Where the writing of objects is at home.
WRITING = [module.__file__ for module in (atomic_write, part_writer, local, s3, azure, staged)]
NAME = "errors.csv"
OLD = b"the errors of yesterday\n"
SIZES = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "of several parts"])
#: From an endpoint that starts at the first byte each time, and from one where the file can be read on.
SOURCES = pytest.mark.parametrize("endpoint", ["download", "files"])

#: Ways to break off. The download knows no store, and tests/hooks/test_error_file_breaks.py has
#: all ways of it; a store differs in whether it has parts of the file by then.
BREAKS = {
    "small, in the middle": (SMALL, Fault("cut", fraction=0.5)),
    "of several parts, shortly before the end, in chunks": (LARGE, Fault("cut", fraction=0.99, content_length=False)),
    "of several parts, by a reset in the middle": (LARGE, Fault("cut", fraction=0.5, rst=True)),
}


def broken(*, forever: bool) -> pytest.MarkDecorator:
    """Run a test for each way to break off."""
    cases = [(content, _repeated(fault, forever=forever)) for content, fault in BREAKS.values()]
    return pytest.mark.parametrize(("content", "fault"), cases, ids=BREAKS)


def _repeated(fault: Fault, *, forever: bool) -> dict[str, object]:
    return {
        "kind": fault.kind,
        "fraction": fault.fraction,
        "content_length": fault.content_length,
        "rst": fault.rst,
        "times": None if forever else 1,
    }


class Contract:
    @pytest.fixture(autouse=True)
    def _connection(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(monkeypatch, sandbox)

    @pytest.fixture
    def to(self, store: Store) -> dict[str, object]:
        """Where to pull to: an exact name in the store."""
        return {"destination": store.folder + NAME, "object_storage_conn_id": store.conn_id}


class Arrival(Contract):
    """The file arrives, and the next tasks get its place and its facts."""

    def test_a_folder_gets_a_file_named_after_series_and_job(self, sandbox: Sandbox, store: Store) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

        run = pull(job, store.folder, object_storage_conn_id=store.conn_id)

        assert store.visible() == {f"redeem_errors_{SERIES}_{job.job_id}.csv": Content.of(SMALL)}
        assert run.result == f"{store.folder}redeem_errors_{SERIES}_{job.job_id}.csv"

    def test_an_exact_destination_is_used_as_it_stands(self, sandbox: Sandbox, store: Store) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
        name = "Fehler 100% of März, v=1+2.csv"

        run = pull(job, store.folder + name, object_storage_conn_id=store.conn_id)

        assert store.visible() == {name: Content.of(SMALL)}
        assert run.result == store.folder + name

    @SIZES
    @SOURCES
    def test_bytes_arrive_unchanged(
        self, sandbox: Sandbox, store: Store, to: dict, content: bytes, endpoint: str
    ) -> None:
        url = "handle" if endpoint == "download" else file_url(sandbox)
        job = sandbox.add_job(SERIES, errors=1, error_file=content, error_file_url=url)

        pull(job, **to)

        assert store.visible() == {NAME: Content.of(content)}
        assert store.unfinished() == []
        assert sandbox.count(endpoint) == 1

    @pytest.mark.parametrize("size", [1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 16 << 20])
    def test_sizes_around_that_of_a_part_arrive(self, sandbox: Sandbox, store: Store, to: dict, size: int) -> None:
        content = LARGE[:size]
        job = sandbox.add_job(SERIES, errors=1, error_file=content)

        run = pull(job, **to)

        assert store.visible() == {NAME: Content.of(content)}
        assert run.xcoms["error_file"]["size_bytes"] == size

    @pytest.mark.parametrize("old", [None, OLD], ids=["new", "replaced"])
    def test_an_empty_file_of_a_job_without_errors_is_an_empty_object(
        self, sandbox: Sandbox, store: Store, to: dict, old: bytes | None
    ) -> None:
        if old is not None:
            store.put(NAME, old)
        job = sandbox.add_job(SERIES, errors=0, error_file=b"")

        run = pull(job, **to)

        assert store.visible() == {NAME: Content.of(b"")}
        assert store.unfinished() == []
        assert run.xcoms["error_file"]["size_bytes"] == 0
        assert run.xcoms["error_file"]["sha256"] == sha256(b"").hexdigest()

    @pytest.mark.parametrize("answer", [b"", b"{}"], ids=repr)
    @pytest.mark.parametrize("overwrite", [True, "if_changed"])
    def test_something_else_in_place_of_the_file_leaves_the_old_object(
        self, sandbox: Sandbox, store: Store, to: dict, answer: bytes, overwrite: bool | str
    ) -> None:
        store.put(NAME, OLD)
        run = Run(sandbox.add_job(SERIES, errors=7, error_file=answer), **to, overwrite=overwrite)

        with pytest.raises(CapillaryResponseError, match="came where the error file was expected"):
            run()

        assert store.visible() == {NAME: Content.of(OLD)}
        assert store.unfinished() == []
        assert run.xcoms == {}

    def test_compression_on_the_way_is_undone(self, sandbox: Sandbox, store: Store, to: dict) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
        sandbox.inject(Fault("gzip", endpoint="download"))

        run = pull(job, **to)

        assert store.visible() == {NAME: Content.of(LARGE)}
        assert run.xcoms["error_file"]["size_bytes"] == len(LARGE)
        assert run.xcoms["error_file"]["sha256"] == sha256(LARGE).hexdigest()

    def test_a_file_that_is_compressed_itself_stays_so(self, sandbox: Sandbox, store: Store, to: dict) -> None:
        content = gzip.compress(SMALL)
        job = sandbox.add_job(SERIES, errors=1, error_file=content)

        pull(job, **to)

        assert store.visible() == {NAME: Content.of(content)}

    def test_xcom_has_place_job_size_and_hash_and_nothing_else(self, sandbox: Sandbox, store: Store, to: dict) -> None:
        job = sandbox.add_job(SERIES, rows=9, errors=7, error_file=LARGE)

        run = pull(job, **to)

        assert run.result == store.folder + NAME
        assert run.xcoms == {
            "error_file": {
                "uri": store.folder + NAME,
                "coupon_series_id": SERIES,
                "job_id": job.job_id,
                "error_count": 7,
                "size_bytes": len(LARGE),
                "sha256": store.visible()[NAME].sha256,
            }
        }

    def test_ids_may_be_text_as_templates_make_them(self, sandbox: Sandbox, store: Store) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

        run = pull(
            job,
            store.folder,
            object_storage_conn_id=store.conn_id,
            coupon_series_id=f" {SERIES}",
            job_id=f"{job.job_id}\n",
        )

        assert list(store.visible()) == [f"redeem_errors_{SERIES}_{job.job_id}.csv"]
        assert run.xcoms["error_file"]["coupon_series_id"] == SERIES
        assert run.xcoms["error_file"]["job_id"] == job.job_id


class Overwriting(Contract):
    """A run may find the object of an earlier one."""

    @SIZES
    def test_an_old_object_is_replaced(self, sandbox: Sandbox, store: Store, to: dict, content: bytes) -> None:
        store.put(NAME, OLD)
        job = sandbox.add_job(SERIES, errors=1, error_file=content)

        pull(job, **to)

        assert store.visible() == {NAME: Content.of(content)}
        assert store.unfinished() == []

    def test_a_second_run_leaves_the_same_single_object(self, sandbox: Sandbox, store: Store) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)

        first = pull(job, store.folder, object_storage_conn_id=store.conn_id)
        second = pull(job, store.folder, object_storage_conn_id=store.conn_id)

        assert second.result == first.result
        assert second.xcoms == first.xcoms
        assert store.visible() == {f"redeem_errors_{SERIES}_{job.job_id}.csv": Content.of(SMALL)}

    def test_without_overwrite_an_old_object_stays_and_the_task_says_so(
        self, sandbox: Sandbox, store: Store, to: dict
    ) -> None:
        store.put(NAME, OLD)
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
        run = Run(job, **to, overwrite=False)

        with pytest.raises(CapillaryErrorFileError, match=r"destination .* is already there.*overwrite") as caught:
            run()

        assert store.folder + NAME in str(caught.value)
        assert store.visible() == {NAME: Content.of(OLD)}
        assert run.xcoms == {}
        assert sandbox.count("download") == 0

    @pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "of several parts"])
    def test_without_overwrite_a_new_object_is_written(
        self, sandbox: Sandbox, store: Store, to: dict, content: bytes
    ) -> None:
        store.put("another.csv", OLD)
        job = sandbox.add_job(SERIES, errors=int(bool(content)), error_file=content)

        pull(job, **to, overwrite=False)

        assert store.visible() == {"another.csv": Content.of(OLD), NAME: Content.of(content)}
        assert store.unfinished() == []

    def test_without_overwrite_an_object_that_came_in_meanwhile_stays(
        self, sandbox: Sandbox, store: Store, to: dict
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
        sandbox.inject(Fault("slow", endpoint="download", seconds=0.5))
        run = Run(job, **to, overwrite=False)

        def meanwhile() -> None:
            wait_until(lambda: sandbox.count("download") == 1)
            store.put(NAME, OLD)

        other = threading.Thread(target=meanwhile)
        other.start()
        with pytest.raises(CapillaryErrorFileError, match="already there"):
            run()
        other.join()

        assert store.visible() == {NAME: Content.of(OLD)}
        assert store.unfinished() == []


class Changing(Contract):
    """With overwrite="if_changed", the same file is not sent twice."""

    @pytest.fixture(params=[SMALL, LARGE], ids=["small", "of several parts"])
    def content(self, request: pytest.FixtureRequest) -> bytes:
        return bytes(request.param)

    def test_the_same_file_is_not_sent_again(
        self, sandbox: Sandbox, store: Store, to: dict, content: bytes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=content)
        first = pull(job, **to, overwrite="if_changed")
        written_at = store.written_at(NAME)

        second = pull(job, **to, overwrite="if_changed")

        assert store.written_at(NAME) == written_at
        assert store.visible() == {NAME: Content.of(content)}
        assert second.result == first.result
        assert second.xcoms == first.xcoms
        assert sandbox.count("download") == 2
        assert "unchanged, not sent again" in capsys.readouterr().out

    @pytest.mark.parametrize("change", ["another byte", "shorter", "longer"])
    def test_another_file_replaces_the_object(
        self, sandbox: Sandbox, store: Store, to: dict, content: bytes, change: str
    ) -> None:
        other = {"another byte": b"X" + content[1:], "shorter": content[:-1], "longer": content + b"X"}[change]
        pull(sandbox.add_job(SERIES, errors=1, error_file=content), **to, overwrite="if_changed")

        run = pull(sandbox.add_job(SERIES, errors=1, error_file=other), **to, overwrite="if_changed")

        assert store.visible() == {NAME: Content.of(other)}
        assert run.xcoms["error_file"]["size_bytes"] == len(other)
        assert run.xcoms["error_file"]["sha256"] == sha256(other).hexdigest()
        assert store.unfinished() == []

    def test_an_object_of_unknown_origin_is_replaced(
        self, sandbox: Sandbox, store: Store, to: dict, content: bytes
    ) -> None:
        store.put(NAME, OLD)

        pull(sandbox.add_job(SERIES, errors=1, error_file=content), **to, overwrite="if_changed")

        assert store.visible() == {NAME: Content.of(content)}

    def test_a_file_that_breaks_off_while_it_is_compared_leaves_all_as_it_was(
        self, sandbox: Sandbox, store: Store, to: dict, content: bytes
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=content)
        pull(job, **to, overwrite="if_changed")
        sandbox.inject(Fault("cut", endpoint="download", fraction=0.5, times=None))

        with pytest.raises(CapillaryError):
            pull(job, **to, overwrite="if_changed")

        assert store.visible() == {NAME: Content.of(content)}
        assert store.unfinished() == []


class Wholeness(Contract):
    """Nothing partial is ever visible: the object appears whole, or what was there before stays."""

    @pytest.fixture
    def quick_runs(self) -> None:
        """Keep what a store makes for each run and costs time, where a test runs a hundred times."""

    @pytest.fixture(params=[None, OLD], ids=["nothing there before", "an old object there"])
    def before(self, request: pytest.FixtureRequest, store: Store) -> dict[str, Content]:
        if request.param is not None:
            store.put(NAME, request.param)
        return store.visible()

    @SOURCES
    @broken(forever=False)
    def test_a_body_that_breaks_off_once_arrives_whole(
        self, sandbox: Sandbox, store: Store, to: dict, content: bytes, fault: dict, endpoint: str
    ) -> None:
        url = "handle" if endpoint == "download" else file_url(sandbox)
        job = sandbox.add_job(SERIES, errors=1, error_file=content, error_file_url=url)
        sandbox.inject(Fault(endpoint=endpoint, **fault))

        run = pull(job, **to)

        # One more where the break was behind the last byte, which no range can be asked for.
        assert sandbox.count(endpoint) in (2, 3, 4)
        assert store.visible() == {NAME: Content.of(content)}
        assert store.unfinished() == []
        assert run.xcoms["error_file"]["sha256"] == sha256(content).hexdigest()

    @broken(forever=True)
    def test_a_body_that_always_breaks_off_leaves_all_as_it_was(
        self, sandbox: Sandbox, store: Store, to: dict, before: dict, content: bytes, fault: dict
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=content)
        sandbox.inject(Fault(endpoint="download", **fault))
        run = Run(job, **to)

        with pytest.raises(CapillaryError):
            run()

        assert store.visible() == before
        assert store.unfinished() == []
        assert run.xcoms == {}

    def test_a_file_that_can_be_read_on_but_never_ends_leaves_all_as_it_was(
        self, sandbox: Sandbox, store: Store, to: dict, before: dict
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE, error_file_url=file_url(sandbox))
        sandbox.inject(Fault("cut", endpoint="files", fraction=0.5, times=None))

        with pytest.raises(CapillaryError, match="broke off"):
            pull(job, **to)

        assert store.visible() == before
        assert store.unfinished() == []

    @SIZES
    def test_an_end_that_is_not_marked_is_not_believed(
        self, sandbox: Sandbox, store: Store, to: dict, before: dict, content: bytes
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=content)
        sandbox.inject(Fault("unmarked", endpoint="download", fraction=0.5, times=None))

        with pytest.raises(CapillaryError, match="Content-Length"):
            pull(job, **to)

        assert store.visible() == before
        assert store.unfinished() == []

    def test_compressed_bytes_that_break_off_leave_all_as_it_was(
        self, sandbox: Sandbox, store: Store, to: dict, before: dict
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
        packed = gzip.compress(SMALL)[:-9]
        # The length is right, so only the compressed data itself shows that it is not all.
        sandbox.inject(
            Fault(
                "body", endpoint="download", status=200, body=packed, headers={"Content-Encoding": "gzip"}, times=None
            )
        )

        with pytest.raises(CapillaryError):
            pull(job, **to)

        assert store.visible() == before
        assert store.unfinished() == []

    def test_a_file_that_changes_between_two_attempts_leaves_all_as_it_was(
        self, sandbox: Sandbox, store: Store, to: dict, before: dict
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
        sandbox.inject(Fault("cut", endpoint="download", fraction=0.5))
        sandbox.inject(Fault("body", endpoint="download", status=200, body=LARGE[::-1]))

        with pytest.raises(CapillaryErrorFileError, match="changed"):
            pull(job, **to)

        assert store.visible() == before
        assert store.unfinished() == []

    def test_an_observer_sees_the_old_state_until_the_object_is_whole(
        self, sandbox: Sandbox, store: Store, to: dict, before: dict
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
        sandbox.inject(Fault("drip", endpoint="download", seconds=0.7))
        seen: list[dict[str, Content]] = []
        was_under_way = False
        over = threading.Event()

        def observe() -> None:
            nonlocal was_under_way
            while not over.is_set():
                seen.append(store.visible())
                was_under_way = was_under_way or store.under_way() != []

        observer = threading.Thread(target=observe)
        observer.start()
        try:
            pull(job, **to)
        finally:
            over.set()
            observer.join()

        after = {NAME: Content.of(LARGE)}
        assert store.visible() == after
        assert was_under_way
        assert seen.count(before) > 5
        assert [state for state in seen if state not in (before, after)] == []

    @pytest.mark.parametrize(
        "error", [KeyboardInterrupt(), AirflowTaskTimeout("too long")], ids=lambda e: type(e).__name__
    )
    def test_a_task_that_is_interrupted_leaves_all_as_it_was(
        self, sandbox: Sandbox, store: Store, to: dict, before: dict, error: BaseException
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
        sandbox.inject(Fault("drip", endpoint="download", seconds=2.0))
        run = Run(job, **to)

        with pytest.raises(type(error)), interrupting(error, when=lambda: store.under_way() != []):
            run()

        assert store.visible() == before
        assert store.unfinished() == []
        assert run.xcoms == {}

    @pytest.mark.usefixtures("quick_runs")
    def test_a_task_that_is_interrupted_at_any_line_leaves_nothing_but_the_old_or_the_whole_object(
        self, sandbox: Sandbox, store: Store, to: dict
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
        states = []
        was_interrupted = True
        while was_interrupted:
            store.put(NAME, OLD)
            try:
                with interrupting_at_line(len(states) + 1, *WRITING):
                    pull(job, **to)
                was_interrupted = False
            except KeyboardInterrupt:
                pass
            states.append((store.visible()[NAME], store.unfinished()))

        assert len(states) > 20
        assert [state for state in states if state not in ((Content.of(OLD), []), (Content.of(SMALL), []))] == []

    def test_of_two_runs_at_once_one_wins_and_neither_shows_a_part(
        self, sandbox: Sandbox, store: Store, to: dict, before: dict
    ) -> None:
        contents = [LARGE, LARGE[::-1]]
        runs = [Run(sandbox.add_job(SERIES, errors=1, error_file=content), **to) for content in contents]
        sandbox.inject(Fault("drip", endpoint="download", seconds=0.5, times=2))

        with ThreadPoolExecutor() as pool:
            done = [pool.submit(run) for run in runs]
            seen = []
            while not all(each.done() for each in done):
                seen.append(store.visible())
            for each in done:
                each.result()

        whole = [{NAME: Content.of(content)} for content in contents]
        assert store.visible() in whole
        assert store.unfinished() == []
        assert [state for state in seen if state not in (before, *whole)] == []

    def test_a_process_that_is_killed_shows_nothing_and_the_next_try_replaces_it(
        self, sandbox: Sandbox, store: Store, to: dict
    ) -> None:
        store.put(NAME, OLD)
        job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
        sandbox.inject(Fault("drip", endpoint="download", seconds=4.0))
        with Child(job, **to) as child:
            wait_until(lambda: store.under_way() != [])
            child.kill()

        assert store.visible() == {NAME: Content.of(OLD)}

        pull(job, **to)

        assert store.visible() == {NAME: Content.of(LARGE)}


class Killing(Contract):
    """A worker may be killed at any moment, and a retry does not care what the try before it came to."""

    SIZE = 32 * MIB  # four parts, of which up to three are sent at a time
    #: The moments depend on it; it is printed where the test fails.
    SEED = 20261125
    ROUNDS = 2

    def test_killed_at_random_moments_it_shows_the_old_object_and_the_retry_makes_it_whole(
        self, sandbox: Sandbox, store: Store, to: dict, tmp_path: Path
    ) -> None:
        source = tmp_path / "source.csv"
        with source.open("wb") as file:
            for number in range(self.SIZE // MIB):
                file.write(number.to_bytes(4, "big") * (MIB // 4))
        digest = sha256(source.read_bytes()).hexdigest()
        job = sandbox.add_job(SERIES, errors=1, error_file=source, error_file_url=file_url(sandbox))
        state_file = str(tmp_path / "state.json")
        chance = random.Random(self.SEED)
        print(f"seed of the moments: {self.SEED}")

        def started() -> Child:
            asked = sandbox.count("files")
            child = Child(job, **to, state_file=state_file)
            wait_until(lambda: sandbox.count("files") > asked or child.ended, seconds=120)
            return child

        with started() as child:
            asked = time.monotonic()
            child.result(seconds=300)
        seconds = time.monotonic() - asked

        store.put(NAME, OLD)
        for _ in range(self.ROUNDS):
            with started() as child:
                time.sleep(chance.random() * seconds)
                child.kill()
            (visible,) = store.visible().values()
            # Where the machine was quicker than the first time, it is through already.
            assert visible == Content.of(OLD) or (visible.size, visible.sha256) == (self.SIZE, digest)
            # What a try left behind, the next one removes.
            assert len(store.unfinished()) <= 1

        output = run_child(job, **to, state_file=state_file)

        (visible,) = store.visible().values()
        assert (visible.size, visible.sha256) == (self.SIZE, digest)
        assert output["error_file"]["sha256"] == digest
        assert store.unfinished() == []
