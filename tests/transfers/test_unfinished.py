# SPDX-License-Identifier: Apache-2.0
"""What killed runs leave behind is noted for each object, and removed by the next try before anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._storage.stores.base import ObjectLocation
from airflow_provider_capillary._storage.unfinished import note_for, remove_unfinished
from airflow_provider_capillary.exceptions import CapillaryErrorFileError, CapillaryJobNotFoundError
from airflow_provider_capillary.sandbox import Fault
from tests.running import StateStore
from tests.transfers.child import Child
from tests.transfers.contract import NAME, OLD
from tests.transfers.running import LARGE, SERIES, SMALL, Run
from tests.transfers.stores import Content, LocalFolder
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox

KEY = "capillary_unfinished"


@pytest.fixture
def state_file(tmp_path: Path) -> str:
    return str(tmp_path / "state.json")


@pytest.fixture
def elsewhere(tmp_path: Path) -> LocalFolder:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return LocalFolder(folder)


class Failing(StateStore):
    """A state store that is out of order."""

    def __init__(self, *methods: str) -> None:
        super().__init__()
        for method in methods:
            setattr(self, method, self._fail)

    def _fail(self, *_: Any) -> Any:
        raise ConnectionError("the API server is away")


def part(number: int) -> str:
    return f".{number:032x}.part"


def leave(folder: LocalFolder, number: int, state: StateStore, name: str = NAME) -> None:
    """Leave a part behind, as a run does that is killed."""
    (folder.path / part(number)).write_bytes(b"rows of customers")
    note_for(state, ObjectLocation(folder.folder + name))(str(folder.path / part(number)))


def run_with(state: StateStore, run: Run) -> None:
    run.operator.execute({"ti": run.ti, "task_state_store": state})  # type: ignore[typeddict-item]


def test_a_killed_run_is_cleared_up_although_the_retry_writes_elsewhere(
    sandbox: Sandbox, store: LocalFolder, elsewhere: LocalFolder, state_file: str
) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=LARGE)
    sandbox.inject(Fault("drip", endpoint="download", seconds=4.0))
    with Child(job, store.folder + NAME, state_file=state_file) as child:
        wait_until(lambda: store.under_way() != [])
        wait_until(lambda: StateStore(state_file).get(KEY) is not None)
        child.kill()
    assert len(store.unfinished()) == 1

    run_with(StateStore(state_file), Run(job, elsewhere.folder + NAME))

    assert store.unfinished() == elsewhere.unfinished() == []
    assert store.visible() == {}
    assert elsewhere.visible() == {NAME: Content.of(LARGE)}
    assert StateStore(state_file).get(KEY) is None


def test_a_small_file_is_noted_too_before_there_is_anything_of_it(sandbox: Sandbox, store: LocalFolder) -> None:
    class Recording(StateStore):
        def set(self, key: str, value: Any) -> None:
            seen.append([(note["uri"], (store.path / note["left"]).stat().st_size) for note in value])
            super().set(key, value)

    seen: list[Any] = []
    state = Recording()

    run_with(state, Run(sandbox.add_job(SERIES, errors=1, error_file=SMALL), store.folder + NAME))

    assert seen == [[(store.folder + NAME, 0)]]
    assert state.get(KEY) is None


def test_each_object_has_a_note_of_its_own_with_its_uri(store: LocalFolder, elsewhere: LocalFolder) -> None:
    state = StateStore()
    leave(store, 1, state)
    leave(elsewhere, 2, state)
    leave(store, 3, state, name="other.csv")

    assert [note["uri"] for note in state.get(KEY)] == [
        store.folder + NAME,
        elsewhere.folder + NAME,
        store.folder + "other.csv",
    ]

    remove_unfinished(state)

    assert store.unfinished() == elsewhere.unfinished() == []
    assert state.get(KEY) is None


def test_a_write_that_ends_forgets_its_own_note_only(store: LocalFolder, elsewhere: LocalFolder) -> None:
    state = StateStore()
    leave(store, 1, state)
    leave(elsewhere, 2, state)
    note = note_for(state, ObjectLocation(store.folder + NAME))
    note("the part of this run")
    assert [each["left"] for each in state.get(KEY)][2:] == ["the part of this run"]

    note("")

    assert [note["uri"] for note in state.get(KEY)] == [store.folder + NAME, elsewhere.folder + NAME]


def test_what_was_left_is_removed_before_overwrite_false_refuses(sandbox: Sandbox, store: LocalFolder) -> None:
    state = StateStore()
    leave(store, 1, state)
    store.put(NAME, OLD)

    with pytest.raises(CapillaryErrorFileError, match="already there"):
        run_with(state, Run(sandbox.add_job(SERIES, errors=1), store.folder + NAME, overwrite=False))

    assert store.unfinished() == []


def test_what_was_left_is_removed_although_the_job_is_gone(sandbox: Sandbox, store: LocalFolder) -> None:
    state = StateStore()
    leave(store, 1, state)
    run = Run(sandbox.add_job(SERIES, errors=1), store.folder)
    run.operator.job_id = 1

    with pytest.raises(CapillaryJobNotFoundError):
        run_with(state, run)

    assert store.unfinished() == []


def test_what_was_left_is_removed_although_the_object_is_as_before(sandbox: Sandbox, store: LocalFolder) -> None:
    state = StateStore()
    leave(store, 1, state)
    store.put(NAME, SMALL)

    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
    run_with(state, Run(job, store.folder + NAME, overwrite="if_changed"))

    assert store.unfinished() == []


def test_the_note_of_version_0_1_is_still_understood(store: LocalFolder) -> None:
    state = StateStore()
    (store.path / part(1)).write_bytes(b"rows of customers")
    state.set(KEY, {"uri": store.folder + NAME, "left": str(store.path / part(1))})

    remove_unfinished(state)

    assert store.unfinished() == []
    assert state.get(KEY) is None


@pytest.mark.parametrize("stored", ["text", 5, [], {}, [5], [{"uri": 5, "left": "x"}], {"uri": "file:///x"}])
def test_notes_that_mean_nothing_are_no_error(store: LocalFolder, stored: Any) -> None:
    state = StateStore()
    state.set(KEY, stored)

    remove_unfinished(state)
    leave(store, 1, state)

    assert [note["uri"] for note in state.get(KEY)] == [store.folder + NAME]


def test_what_cannot_be_removed_stays_noted_and_does_not_keep_the_rest(
    store: LocalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateStore()
    state.set(KEY, [{"uri": "file:///lake/x.csv", "conn_id": "no_such_connection", "left": "/lake/.x.part"}])
    leave(store, 1, state)

    remove_unfinished(state)

    assert store.unfinished() == []
    assert [note["uri"] for note in state.get(KEY)] == ["file:///lake/x.csv"]
    assert "left behind at file:///lake/x.csv (AirflowNotFoundException)" in caplog.text


def test_what_cannot_be_removed_stays_noted_although_the_next_try_writes_to_the_same_place(
    sandbox: Sandbox, store: LocalFolder
) -> None:
    state = StateStore()
    leave(store, 1, state)
    (store.path / part(1)).unlink()
    (store.path / part(1)).mkdir()  # what is a folder now is not removed as a file
    (kept,) = state.get(KEY)

    run_with(state, Run(sandbox.add_job(SERIES, errors=1, error_file=LARGE), store.folder + NAME))

    assert store.visible() == {NAME: Content.of(LARGE)}
    assert state.get(KEY) == [kept]


def test_notes_do_not_grow_for_ever_and_the_newest_are_kept(store: LocalFolder) -> None:
    state = StateStore()
    for number in range(105):
        leave(store, number, state, name=f"{number}.csv")

    assert [note["uri"] for note in state.get(KEY)] == [f"{store.folder}{number}.csv" for number in range(5, 105)]


@pytest.mark.parametrize("name", [NAME, ".hidden", ".x.part", "x.part", f"x{part(1)}", f"{part(1)}.csv"])
def test_a_note_removes_nothing_but_parts(store: LocalFolder, name: str) -> None:
    store.put(name, OLD)
    state = StateStore()
    note_for(state, ObjectLocation(store.folder + NAME))(str(store.path / name))

    remove_unfinished(state)

    assert (store.path / name).read_bytes() == OLD


@pytest.mark.parametrize("methods", [["get"], ["set"], ["delete"], ["get", "set", "delete"]], ids=" ".join)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "of several parts"])
def test_a_state_store_that_fails_does_not_fail_the_transfer(
    sandbox: Sandbox, store: LocalFolder, methods: list[str], content: bytes
) -> None:
    run_with(Failing(*methods), Run(sandbox.add_job(SERIES, errors=1, error_file=content), store.folder + NAME))

    assert store.visible() == {NAME: Content.of(content)}
    assert store.unfinished() == []


def test_a_state_store_that_cannot_be_read_keeps_the_notes_it_has(store: LocalFolder, elsewhere: LocalFolder) -> None:
    state = Failing()
    leave(elsewhere, 1, state)
    state.get = state._fail  # type: ignore[method-assign]

    leave(store, 2, state)

    del state.get  # type: ignore[method-assign]
    assert [note["uri"] for note in state.get(KEY)] == [elsewhere.folder + NAME]


def test_without_a_state_store_nothing_is_noted_and_nothing_fails(store: LocalFolder) -> None:
    remove_unfinished(None)
    note_for(None, ObjectLocation(store.folder + NAME))("x")
