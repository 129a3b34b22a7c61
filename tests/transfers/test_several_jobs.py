# SPDX-License-Identifier: Apache-2.0
"""The files of several jobs in one task."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import (
    CapillaryErrorFileError,
    CapillaryJobNotFoundError,
    CapillarySettingsError,
)
from airflow_provider_capillary.sandbox import Fault
from airflow_provider_capillary.transfers.capillary_to_object_storage import CapillaryErrorFileToObjectStorageOperator
from tests.airflow_compat import DAG, AirflowFailException, AirflowSkipException
from tests.transfers.running import SERIES, Run
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.transfers.stores import LocalFolder


def content(number: int) -> bytes:
    return f"message,coupon code\nexpired,CODE{number}\n".encode()


@pytest.fixture
def jobs(sandbox: Sandbox) -> list[SandboxJob]:
    """Three jobs with errors."""
    return [sandbox.add_job(SERIES, errors=1, error_file=content(number)) for number in range(3)]


def name_of(job: SandboxJob) -> str:
    return f"redeem_errors_{SERIES}_{job.job_id}.csv"


def run_of(store: LocalFolder, job_ids: Any, **arguments: Any) -> Run:
    nobody: Any = SimpleNamespace(coupon_series_id=SERIES, job_id=None)
    return Run(nobody, **({"destination": store.folder, "job_ids": job_ids} | arguments))


def test_the_files_of_all_jobs_arrive_and_the_results_are_in_the_order_of_the_ids(
    sandbox: Sandbox, store: LocalFolder, jobs: list[SandboxJob]
) -> None:
    asked = [jobs[2], jobs[0], jobs[1]]

    run = run_of(store, [job.job_id for job in asked])()

    assert store.visible() == {name_of(job): Content.of(content(number)) for number, job in enumerate(jobs)}
    assert run.result == [store.folder + name_of(job) for job in asked]
    told = run.xcoms["error_file"]
    assert [(each["uri"], each["job_id"]) for each in told] == [
        (uri, job.job_id) for uri, job in zip(run.result, asked, strict=True)
    ]
    assert [each["sha256"] for each in told] == [store.visible()[name_of(job)].sha256 for job in asked]


def test_one_status_request_is_made_for_all_of_them(
    sandbox: Sandbox, store: LocalFolder, jobs: list[SandboxJob]
) -> None:
    run_of(store, [job.job_id for job in jobs])()

    assert sandbox.counts == {"token": 1, "status": 1, "download": 3}


@pytest.mark.parametrize(
    "form", ["[{0}, {1}]", "{0},{1}", " {0} , {1} \n", "['{0}', '{1}']", '["{0}", "{1}"]', "({0}, {1})", "[{0}, {1},]"]
)
def test_ids_may_be_text_as_templates_make_it(store: LocalFolder, jobs: list[SandboxJob], form: str) -> None:
    run = run_of(store, form.format(jobs[0].job_id, jobs[1].job_id))()

    assert run.result == [store.folder + name_of(job) for job in jobs[:2]]


@pytest.mark.parametrize(
    "form", [lambda i: i, lambda i: [i], lambda i: (str(i),), lambda i: str(i), lambda i: f"[{i}]", lambda i: f"({i},)"]
)
def test_one_id_is_a_list_too(store: LocalFolder, jobs: list[SandboxJob], form: Any) -> None:
    run = run_of(store, form(jobs[1].job_id))()

    assert run.result == [store.folder + name_of(jobs[1])]
    assert [each["job_id"] for each in run.xcoms["error_file"]] == [jobs[1].job_id]


def test_a_job_that_is_named_twice_is_pulled_once(sandbox: Sandbox, store: LocalFolder, jobs: list[SandboxJob]) -> None:
    run = run_of(store, [jobs[0].job_id, str(jobs[0].job_id)], overwrite=False)()

    assert run.result == [store.folder + name_of(jobs[0])]
    assert sandbox.count("download") == 1


def test_jobs_without_a_file_are_left_out_and_named_in_the_log(
    sandbox: Sandbox, store: LocalFolder, jobs: list[SandboxJob], capfd: pytest.CaptureFixture[str]
) -> None:
    without = sandbox.add_job(SERIES, errors=0)

    run = run_of(store, [without.job_id, jobs[0].job_id], if_no_errors="fail")()

    assert run.result == [store.folder + name_of(jobs[0])]
    assert [each["job_id"] for each in run.xcoms["error_file"]] == [jobs[0].job_id]
    assert f"Left out: upload job {without.job_id} has no errors and no error file" in capfd.readouterr().out


class TestNothingToPull:
    @pytest.fixture(params=[0, 1, 2])
    def ids(self, sandbox: Sandbox, request: pytest.FixtureRequest) -> list[int]:
        return [sandbox.add_job(SERIES, errors=0).job_id for _ in range(request.param)]

    @pytest.fixture
    def words(self, ids: list[int]) -> str:
        match ids:
            case []:
                return "job_ids is empty"
            case [one]:
                return f"upload job {one} has no errors and no error file"
        return f"the upload jobs {ids[0]}, {ids[1]} have no error file"

    def test_the_task_is_skipped_by_default(self, store: LocalFolder, ids: list[int], words: str) -> None:
        with pytest.raises(AirflowSkipException, match=f"^{words}$"):
            run_of(store, ids)()

    def test_the_task_fails_for_good_on_demand(self, store: LocalFolder, ids: list[int], words: str) -> None:
        with pytest.raises(AirflowFailException, match=f"^{words}, and if_no_errors is 'fail'$"):
            run_of(store, ids, if_no_errors="fail")()

    def test_the_task_succeeds_on_demand_with_empty_lists(
        self, sandbox: Sandbox, store: LocalFolder, ids: list[int]
    ) -> None:
        run = run_of(store, ids, if_no_errors="succeed")()

        assert run.result == []
        assert run.xcoms == {"error_file": []}
        assert sandbox.count("download") == 0


@pytest.mark.parametrize("text", ["[]", "()", " [ ] "])
def test_an_empty_list_may_be_text(sandbox: Sandbox, store: LocalFolder, text: str) -> None:
    assert run_of(store, text, if_no_errors="succeed")().result == []
    assert sandbox.requests == []


def test_where_one_fails_the_message_says_which_and_those_before_it_stay(
    sandbox: Sandbox, store: LocalFolder, jobs: list[SandboxJob]
) -> None:
    sandbox.inject(Fault("status", endpoint="download", status=404, skip=1))
    run = run_of(store, [job.job_id for job in jobs])

    with pytest.raises(
        CapillaryErrorFileError, match=f"^upload job {jobs[1].job_id}: the error file is not there"
    ) as caught:
        run()

    assert caught.value.http_status == 404
    assert list(store.visible()) == [name_of(jobs[0])]
    assert store.unfinished() == []
    assert run.xcoms == {}

    # The next try.
    again = run_of(store, [job.job_id for job in jobs])()

    assert store.visible() == {name_of(job): Content.of(content(number)) for number, job in enumerate(jobs)}
    assert len(again.result or ()) == 3


def test_a_job_that_is_not_done_fails_the_task_before_anything_is_copied(
    sandbox: Sandbox, store: LocalFolder, jobs: list[SandboxJob]
) -> None:
    running = sandbox.add_job(SERIES, status="STARTED", errors=1)

    with pytest.raises(CapillaryErrorFileError, match=f"upload job {running.job_id} is still STARTED"):
        run_of(store, [jobs[0].job_id, running.job_id])()

    assert store.visible() == {}


def test_jobs_that_are_not_there_are_named(sandbox: Sandbox, store: LocalFolder, jobs: list[SandboxJob]) -> None:
    with pytest.raises(CapillaryJobNotFoundError, match=rf"{SERIES} has no redeem upload job 8000, 8001;"):
        run_of(store, [8000, jobs[0].job_id, 8001])()

    assert store.visible() == {}


def test_the_destination_has_to_be_a_folder(sandbox: Sandbox, store: LocalFolder, jobs: list[SandboxJob]) -> None:
    run = run_of(store, [jobs[0].job_id], destination=f"{store.folder}errors.csv")

    with pytest.raises(CapillarySettingsError, match=r"destination .*errors.csv must be a folder.*end in /.*job_ids"):
        run()

    assert sandbox.requests == []


@pytest.mark.parametrize("value", ["", "None", "[1, ten]", "1;2", [1, None], [1.5], [[1]], ["-1"], [0], ",", "[1,,2]"])
def test_what_is_no_list_of_ids_is_refused_by_name(sandbox: Sandbox, store: LocalFolder, value: Any) -> None:
    with pytest.raises(CapillarySettingsError, match="job_ids must be a positive whole number, but is"):
        run_of(store, value)()

    assert sandbox.requests == []


@pytest.mark.parametrize("value", [1.5, True, {"a": 1}, {1, 2}, b"1,2"])
def test_what_has_no_order_of_ids_is_refused_by_name(sandbox: Sandbox, store: LocalFolder, value: Any) -> None:
    with pytest.raises(CapillarySettingsError, match=f"job_ids must be a list of ids, but is a {type(value).__name__}"):
        run_of(store, value)()

    assert sandbox.requests == []


@pytest.mark.parametrize(("given", "word"), [({}, "neither"), ({"job_id": 1, "job_ids": [2]}, "both")])
def test_exactly_one_of_job_id_and_job_ids_is_given_which_the_dag_file_is_told(given: dict, word: str) -> None:
    with pytest.raises(CapillarySettingsError, match=f"^{word} of job_id and job_ids is given; give"):
        CapillaryErrorFileToObjectStorageOperator(
            task_id="errors", coupon_series_id=SERIES, destination="s3://lake/", **given
        )


@pytest.mark.parametrize("name", ["job_id", "job_ids"])
def test_a_template_that_renders_natively_to_none_is_not_taken_for_not_given(
    sandbox: Sandbox, store: LocalFolder, name: str
) -> None:
    with DAG("native", schedule=None, start_date=datetime(2026, 1, 1), render_template_as_native_obj=True):
        operator = CapillaryErrorFileToObjectStorageOperator(
            task_id="errors", coupon_series_id=SERIES, destination=store.folder, **{name: "{{ none }}"}
        )
    operator.render_template_fields({"none": None})

    with pytest.raises(CapillarySettingsError, match=f"{name} must be .*; if it comes from a template, check what"):
        operator.execute({})

    assert sandbox.requests == []


def test_a_template_may_render_natively_to_a_list(store: LocalFolder, jobs: list[SandboxJob]) -> None:
    with DAG("native", schedule=None, start_date=datetime(2026, 1, 1), render_template_as_native_obj=True):
        run = run_of(store, "{{ jobs }}")
    run.operator.render_template_fields({"jobs": [job.job_id for job in jobs]})

    assert len(run().result or ()) == 3


def test_other_files_of_several_jobs_have_names_of_their_own(sandbox: Sandbox, store: LocalFolder) -> None:
    jobs = [sandbox.add_job(SERIES, success_file=content(number)) for number in range(2)]

    run_of(store, [job.job_id for job in jobs], which="success")()

    assert store.visible() == {
        f"redeem_success_{SERIES}_{job.job_id}.csv": Content.of(content(number)) for number, job in enumerate(jobs)
    }
