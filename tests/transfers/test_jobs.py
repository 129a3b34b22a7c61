# SPDX-License-Identifier: Apache-2.0
"""What the state of the job means: whether there is a file to pull, nothing to pull, or something wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import CapillaryError, CapillaryErrorFileError, CapillaryJobNotFoundError
from airflow_provider_capillary.sandbox import Fault
from tests.airflow_compat import AirflowFailException, AirflowSkipException
from tests.transfers.running import SERIES, SMALL, Run, pull
from tests.transfers.stores import Content

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox
    from tests.transfers.stores import LocalFolder


def report_instead(sandbox: Sandbox, **changes: Any) -> None:
    """Let the status response contain one job, with fields that the sandbox itself would never combine."""
    (job,) = sandbox.jobs(SERIES)
    reported = job.to_json() | changes
    result = {"orgId": 1, "couponSeriesId": SERIES, "redeemUploadJobStatuses": [reported]}
    sandbox.inject(
        Fault("body", endpoint="status", status=200, body={"success": True, "status": 200, "result": result})
    )


class TestNoErrors:
    @pytest.fixture
    def run(self, sandbox: Sandbox, store: LocalFolder) -> Any:
        job = sandbox.add_job(SERIES, errors=0)
        return lambda **arguments: Run(job, store.folder, **arguments)

    def test_the_task_is_skipped_by_default(self, run: Any, store: LocalFolder) -> None:
        with pytest.raises(AirflowSkipException, match="has no errors and no error file"):
            run()()

        assert store.visible() == {}

    def test_the_task_is_skipped_on_demand(self, run: Any) -> None:
        with pytest.raises(AirflowSkipException):
            run(if_no_errors="skip")()

    def test_the_task_succeeds_on_demand_with_none_and_no_further_xcom(
        self, run: Any, sandbox: Sandbox, store: LocalFolder
    ) -> None:
        done = run(if_no_errors="succeed")()

        assert done.result is None
        assert done.xcoms == {}
        assert store.visible() == {}
        assert sandbox.count("download") == 0

    def test_the_task_fails_for_good_on_demand(self, run: Any) -> None:
        with pytest.raises(AirflowFailException, match=r"has no errors and no error file.*if_no_errors"):
            run(if_no_errors="fail")()

    def test_the_same_goes_for_an_empty_name_of_the_file(self, run: Any, sandbox: Sandbox) -> None:
        report_instead(sandbox, errorFileUrl="", errorCount="0")

        assert run(if_no_errors="succeed")().result is None

    @pytest.mark.parametrize("if_no_errors", ["skip", "succeed", "fail"])
    def test_a_file_that_is_there_is_pulled_all_the_same(
        self, sandbox: Sandbox, store: LocalFolder, if_no_errors: str
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
        report_instead(sandbox, errorCount=0)

        run = pull(job, store.folder, if_no_errors=if_no_errors)

        assert list(store.visible().values()) == [Content.of(SMALL)]
        assert run.xcoms["error_file"]["error_count"] == 0


@pytest.mark.parametrize("if_no_errors", ["skip", "succeed", "fail"])
class TestSomethingWrong:
    """None of this is "no errors", so `if_no_errors` has no say."""

    @pytest.mark.parametrize("count", [1, None], ids=["errors", "an unknown number of errors"])
    def test_errors_without_a_file_are_an_error(
        self, sandbox: Sandbox, store: LocalFolder, if_no_errors: str, count: int | None
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1, error_file_url=None)
        if count is None:
            report_instead(sandbox, errorCount=None)
        words = f"{'an unknown number of' if count is None else count} errors, but without an error file"

        with pytest.raises(CapillaryErrorFileError, match=f"upload job {job.job_id} ended as COMPLETED with {words}"):
            pull(job, store.folder, if_no_errors=if_no_errors)

        assert store.visible() == {}

    @pytest.mark.parametrize("word", ["ERRORED", "FAILED", "CANCELLED"])
    def test_a_failed_job_without_a_file_is_an_error(
        self, sandbox: Sandbox, store: LocalFolder, if_no_errors: str, word: str
    ) -> None:
        job = sandbox.add_job(SERIES, ends=word, errors=0)

        with pytest.raises(CapillaryErrorFileError, match=f"upload job {job.job_id} ended as {word}") as caught:
            pull(job, store.folder, if_no_errors=if_no_errors)

        assert "part of its rows may have been redeemed all the same" in str(caught.value)
        assert f"with org {job.org_id}, coupon series {SERIES} and job {job.job_id}" in str(caught.value)

    @pytest.mark.parametrize("word", ["QUEUED", "STARTED", "SOMETHING_NEW"])
    def test_a_job_that_is_not_done_is_an_error_that_names_the_sensor(
        self, sandbox: Sandbox, store: LocalFolder, if_no_errors: str, word: str
    ) -> None:
        job = sandbox.add_job(SERIES, status=word, errors=1)

        with pytest.raises(CapillaryErrorFileError, match=rf"still {word}.*CapillaryRedeemUploadSensor"):
            pull(job, store.folder, if_no_errors=if_no_errors)

        assert sandbox.count("download") == 0

    def test_a_job_that_is_not_finished_is_an_error_even_if_it_has_a_file(
        self, sandbox: Sandbox, store: LocalFolder, if_no_errors: str
    ) -> None:
        job = sandbox.add_job(SERIES, status="STARTED", errors=1)
        report_instead(sandbox, errorFileUrl=job.handle)

        with pytest.raises(CapillaryErrorFileError, match="still STARTED"):
            pull(job, store.folder, if_no_errors=if_no_errors)

    def test_a_job_that_is_not_there_is_an_error_that_names_both_ids(
        self, sandbox: Sandbox, store: LocalFolder, if_no_errors: str
    ) -> None:
        job = sandbox.add_job(SERIES, errors=1)

        with pytest.raises(CapillaryJobNotFoundError, match=rf"{SERIES}.*{job.job_id + 1}"):
            pull(job, store.folder, if_no_errors=if_no_errors, job_id=job.job_id + 1)

    def test_a_file_that_is_gone_is_an_error(self, sandbox: Sandbox, store: LocalFolder, if_no_errors: str) -> None:
        job = sandbox.add_job(SERIES, errors=1)
        sandbox.inject(Fault("status", endpoint="download", status=404))

        with pytest.raises(CapillaryErrorFileError, match=r"not there \(any more\)"):
            pull(job, store.folder, if_no_errors=if_no_errors)

        assert store.visible() == {}
        assert store.unfinished() == []


@pytest.mark.parametrize("word", ["ERRORED", "FAILED", "CANCELLED"])
def test_the_file_of_a_failed_job_is_pulled(sandbox: Sandbox, store: LocalFolder, word: str) -> None:
    job = sandbox.add_job(SERIES, ends=word, errors=1, error_file=SMALL)

    pull(job, store.folder)

    assert list(store.visible().values()) == [Content.of(SMALL)]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("html", status=200),
        Fault("body", status=200, body={"success": False, "status": 500, "message": "no such file"}),
        Fault("status", status=403, body={"status": {"success": False, "code": 4000, "message": "no access"}}),
        Fault("status", status=500),
    ],
    ids=["an HTML page", "an error that says 200", "no access", "an error"],
)
def test_an_error_that_comes_in_place_of_the_file_is_not_taken_for_it(
    sandbox: Sandbox, store: LocalFolder, fault: Fault
) -> None:
    job = sandbox.add_job(SERIES, errors=1)
    sandbox.inject(Fault(fault.kind, endpoint="download", times=None, status=fault.status, body=fault.body))
    run = Run(job, store.folder)

    with pytest.raises(CapillaryError):
        run()

    assert store.visible() == {}
    assert store.unfinished() == []
    assert run.xcoms == {}


def test_an_error_file_that_is_json_or_html_of_its_own_is_pulled(sandbox: Sandbox, store: LocalFolder) -> None:
    # Its format is not documented, so its beginning alone decides nothing.
    for content in (b'{"errors": "column"}\n1,2\n', b"<html>,code\n", b'{"row": 1}\n{"row": 2}\n'):
        job = sandbox.add_job(SERIES, errors=1, error_file=content)
        pull(job, store.folder + "errors.csv")
        assert store.visible() == {"errors.csv": Content.of(content)}


def test_the_token_is_renewed_where_it_expires_on_the_way(sandbox: Sandbox, store: LocalFolder) -> None:
    job = sandbox.add_job(SERIES, errors=1, error_file=SMALL)
    sandbox.inject(Fault("expired_token", endpoint="download", form="body_401"))

    pull(job, store.folder)

    assert list(store.visible().values()) == [Content.of(SMALL)]
    assert sandbox.count("token") == 2
