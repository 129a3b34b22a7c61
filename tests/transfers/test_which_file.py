# SPDX-License-Identifier: Apache-2.0
"""The other files of a job: that of the accepted rows, and the uploaded one."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.exceptions import (
    CapillaryConfigurationError,
    CapillaryErrorFileError,
    CapillaryJobNotFoundError,
)
from airflow_provider_capillary.sandbox import Fault
from tests.airflow_compat import AirflowFailException, AirflowSkipException
from tests.transfers.running import SERIES, Run, pull
from tests.transfers.stores import Content
from tests.transfers.test_jobs import report_instead

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob
    from tests.transfers.stores import LocalFolder

CONTENTS = {
    "error": b"message,coupon code\nCoupon is expired, the redemption was not recorded,BAD10\n",
    "success": b"coupon code\nGOOD10\n",
    "uploaded": b"redeemedDateInMillis,couponCode\n1795400755483,BAD10\n1795400755484,GOOD10\n",
}
NAMES = {"error": "redeem_errors", "success": "redeem_success", "uploaded": "redeem_uploaded"}
OTHERS = pytest.mark.parametrize("file_type", ["success", "uploaded"])


@pytest.fixture
def job(sandbox: Sandbox) -> SandboxJob:
    """A job of two rows, one of which was refused, with all three files."""
    return sandbox.add_job(
        SERIES,
        rows=2,
        errors=1,
        error_file=CONTENTS["error"],
        success_file=CONTENTS["success"],
        uploaded_file=CONTENTS["uploaded"],
    )


@pytest.mark.parametrize("file_type", CONTENTS)
def test_each_file_of_a_job_arrives_under_a_name_of_its_own(
    job: SandboxJob, store: LocalFolder, file_type: str
) -> None:
    run = pull(job, store.folder, file_type=file_type)

    name = f"{NAMES[file_type]}_{SERIES}_{job.job_id}.csv"
    assert store.visible() == {name: Content.of(CONTENTS[file_type])}
    assert run.result == store.folder + name
    assert run.xcoms == {
        "error_file": {
            "uri": store.folder + name,
            "coupon_series_id": SERIES,
            "job_id": job.job_id,
            "error_count": 1,
            "size_bytes": len(CONTENTS[file_type]),
            "sha256": sha256(CONTENTS[file_type]).hexdigest(),
        }
    }


@pytest.mark.parametrize(("upload_kind", "other"), [("redeem", "coupon"), ("coupon", "redeem")])
@pytest.mark.parametrize(("file_type", "name"), [("error", "errors"), ("success", "success"), ("uploaded", "uploaded")])
def test_each_file_of_either_kind_arrives_under_a_name_of_its_own(
    sandbox: Sandbox, store: LocalFolder, upload_kind: str, other: str, file_type: str, name: str
) -> None:
    sandbox.add_job(SERIES, kind=other, errors=0)
    files = {f"{each}_file": content for each, content in CONTENTS.items()}
    job = sandbox.add_job(SERIES, kind=upload_kind, rows=3, errors=1, **files)

    done = pull(job, store.folder, upload_kind=upload_kind, file_type=file_type)

    assert store.visible() == {f"{upload_kind}_{name}_{SERIES}_{job.job_id}.csv": Content.of(CONTENTS[file_type])}
    assert sorted(done.xcoms["error_file"]) == [
        "coupon_series_id",
        "error_count",
        "job_id",
        "sha256",
        "size_bytes",
        "uri",
    ]


def test_a_coupon_upload_that_is_not_done_is_an_error_that_names_its_sensor(
    sandbox: Sandbox, store: LocalFolder
) -> None:
    job = sandbox.add_job(SERIES, status="STARTED", kind="coupon")

    with pytest.raises(
        CapillaryErrorFileError,
        match=f"^coupon upload job {job.job_id} is still STARTED; .*CapillaryCouponUploadSensor",
    ):
        pull(job, store.folder, upload_kind="coupon")


def test_a_job_of_the_other_kind_is_not_found(sandbox: Sandbox, store: LocalFolder) -> None:
    job = sandbox.add_job(SERIES, errors=1, kind="coupon")

    with pytest.raises(CapillaryJobNotFoundError, match=f"has no redeem upload job {job.job_id}"):
        pull(job, store.folder)


@pytest.mark.parametrize("value", ["coupons", "Redeem", "", None, "{{ kind }}"])
def test_a_kind_of_upload_that_there_is_not_is_refused_with_those_there_are(
    sandbox: Sandbox, job: SandboxJob, store: LocalFolder, value: Any
) -> None:
    with pytest.raises(
        CapillaryConfigurationError, match="upload_kind must be one of redeem, coupon, but is"
    ) as caught:
        pull(job, store.folder, upload_kind=value)

    assert repr(value) in str(caught.value)
    assert sandbox.requests == []


def test_the_error_file_is_the_default(job: SandboxJob, store: LocalFolder) -> None:
    pull(job, store.folder + "x")

    assert store.visible() == {"x": Content.of(CONTENTS["error"])}


@OTHERS
def test_another_file_is_asked_for_by_its_own_handle(
    sandbox: Sandbox, job: SandboxJob, store: LocalFolder, file_type: str
) -> None:
    pull(job, store.folder, file_type=file_type)

    handle = job.success_handle if file_type == "success" else job.uploaded_file_name
    assert sandbox.requests[-1].body == b'{"fileName": "%s"}' % handle.encode()


@OTHERS
@pytest.mark.parametrize("errors", [0, 1])
def test_another_file_is_pulled_with_any_number_of_errors(
    sandbox: Sandbox, store: LocalFolder, file_type: str, errors: int
) -> None:
    job = sandbox.add_job(SERIES, errors=errors, **{f"{file_type}_file": CONTENTS[file_type]})

    pull(job, store.folder, file_type=file_type)

    assert list(store.visible().values()) == [Content.of(CONTENTS[file_type])]


def test_a_job_that_failed_has_its_uploaded_file_pulled_although_it_has_no_error_file(
    sandbox: Sandbox, store: LocalFolder
) -> None:
    job = sandbox.add_job(SERIES, ends="FAILED", uploaded_file=CONTENTS["uploaded"])

    pull(job, store.folder, file_type="uploaded")

    assert list(store.visible().values()) == [Content.of(CONTENTS["uploaded"])]


class TestNoSuchFile:
    @pytest.fixture(params=["success", "uploaded"])
    def file_type(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(params=["COMPLETED", "FAILED"])
    def run(self, sandbox: Sandbox, store: LocalFolder, file_type: str, request: pytest.FixtureRequest) -> Any:
        job = sandbox.add_job(SERIES, errors=1, ends=request.param)
        report_instead(sandbox, successFileUrl=None, uploadedFileUrl=None)
        return lambda **arguments: Run(job, store.folder, file_type=file_type, **arguments)

    def test_the_task_is_skipped_by_default_and_says_which_file(
        self, run: Any, store: LocalFolder, file_type: str
    ) -> None:
        with pytest.raises(AirflowSkipException, match=rf"^redeem upload job \d+ has no {file_type} file$"):
            run()()

        assert store.visible() == {}

    def test_the_task_fails_for_good_on_demand_and_says_which_file(self, run: Any, file_type: str) -> None:
        with pytest.raises(AirflowFailException, match=f"has no {file_type} file, and if_no_errors is 'fail'"):
            run(if_no_errors="fail")()

    def test_the_task_succeeds_on_demand_with_none_and_no_further_xcom(self, run: Any, sandbox: Sandbox) -> None:
        done = run(if_no_errors="succeed")()

        assert (done.result, done.xcoms) == (None, {})
        assert sandbox.count("download") == 0


@OTHERS
@pytest.mark.parametrize("if_no_errors", ["skip", "succeed", "fail"])
def test_a_job_that_is_not_done_is_an_error_that_names_the_file(
    sandbox: Sandbox, store: LocalFolder, file_type: str, if_no_errors: str
) -> None:
    job = sandbox.add_job(SERIES, status="STARTED", uploaded_file=CONTENTS["uploaded"])

    with pytest.raises(CapillaryErrorFileError, match=f"still STARTED; .* before its {file_type} file is copied"):
        pull(job, store.folder, file_type=file_type, if_no_errors=if_no_errors)

    assert store.visible() == {}


@OTHERS
def test_another_file_that_capillary_reports_but_does_not_have_is_an_error_that_names_it(
    sandbox: Sandbox, job: SandboxJob, store: LocalFolder, file_type: str
) -> None:
    sandbox.inject(Fault("status", endpoint="download", status=404))

    with pytest.raises(CapillaryErrorFileError, match=rf"the {file_type} file is not there \(any more\)"):
        pull(job, store.folder, file_type=file_type)

    assert store.visible() == {}
    assert store.unfinished() == []


@OTHERS
@pytest.mark.parametrize(
    ("url", "rule"),
    [("../x", "'..' segment"), ("https://169.254.169.254/?sig=hunter2", "private"), ("file:///etc/passwd", "scheme")],
)
def test_the_rules_of_safety_hold_for_each_file(
    sandbox: Sandbox, job: SandboxJob, store: LocalFolder, file_type: str, url: str, rule: str
) -> None:
    report_instead(sandbox, **{f"{file_type}FileUrl": url})

    with pytest.raises(CapillaryErrorFileError, match=f"^the {file_type} file.* is not fetched, because") as caught:
        pull(job, store.folder, file_type=file_type)

    assert rule in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert [request.endpoint for request in sandbox.requests] == ["token", "status"]
    assert store.visible() == {}


@OTHERS
def test_another_file_comes_from_the_place_that_the_connection_names(
    sandbox: Sandbox,
    job: SandboxJob,
    store: LocalFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_type: str,
) -> None:
    from tests.transfers.running import connect

    folder = tmp_path / "mounted"
    folder.mkdir()
    connect(monkeypatch, sandbox, error_file_url=f"file://{folder}/{{handle}}")
    handle = job.success_handle if file_type == "success" else job.uploaded_file_name

    with pytest.raises(CapillaryErrorFileError, match=f"there is no {file_type} file at file://{folder}/{handle}"):
        pull(job, store.folder, file_type=file_type)

    (folder / handle).write_bytes(CONTENTS[file_type])
    pull(job, store.folder, file_type=file_type)

    assert list(store.visible().values()) == [Content.of(CONTENTS[file_type])]


@pytest.mark.parametrize("value", ["errors", "Error", "", None, "error_file_url", "{{ which }}"])
def test_a_file_that_no_job_has_is_refused_with_those_it_may_have(
    sandbox: Sandbox, job: SandboxJob, store: LocalFolder, value: Any
) -> None:
    with pytest.raises(
        CapillaryConfigurationError, match="file_type must be one of error, success, uploaded, but is"
    ) as caught:
        pull(job, store.folder, file_type=value)

    assert repr(value) in str(caught.value)
    assert sandbox.requests == []
