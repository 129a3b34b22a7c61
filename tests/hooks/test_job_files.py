# SPDX-License-Identifier: Apache-2.0
"""The files of a job: what holds for the error file holds for the others, under their own names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.exceptions import CapillaryConfigurationError, CapillaryError, CapillaryErrorFileError
from airflow_provider_capillary.hooks.capillary import CapillaryHook
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import QUICK, SERIES

if TYPE_CHECKING:
    from airflow_provider_capillary.sandbox import Sandbox, SandboxJob

FILES = {"error": b"refused\n", "success": b"accepted\n", "uploaded": b"both\n"}
EACH = pytest.mark.parametrize("file_type", FILES)


@pytest.fixture
def job(sandbox: Sandbox) -> SandboxJob:
    files: Any = {f"{file_type}_file": content for file_type, content in FILES.items()}
    return sandbox.add_job(SERIES, errors=1, **files)


def job_at(file_type: str, reference: str | None) -> UploadJob:
    url: Any = {f"{file_type}_file_url": reference}
    return UploadJob(job_id=7, status="COMPLETED", **url)


def read(job: UploadJob, file_type: Any) -> bytes:
    with CapillaryHook(http_retry=QUICK).open_job_file(job, file_type) as stream:
        return stream.read()


@EACH
def test_each_file_of_a_job_can_be_read(sandbox: Sandbox, conn_id: str, job: SandboxJob, file_type: str) -> None:
    reported = CapillaryHook(http_retry=QUICK).get_redeem_upload_job(SERIES, job.job_id)

    assert read(reported, file_type) == FILES[file_type]


def test_the_error_file_is_the_default_and_has_a_shorthand(sandbox: Sandbox, conn_id: str, job: SandboxJob) -> None:
    hook = CapillaryHook(http_retry=QUICK)
    reported = hook.get_redeem_upload_job(SERIES, job.job_id)

    with hook.open_job_file(reported) as one, hook.open_error_file(reported) as other:
        assert one.read() == other.read() == FILES["error"]


@EACH
@pytest.mark.parametrize("reference", [None, ""])
def test_a_job_without_the_file_is_an_error_that_names_it(
    sandbox: Sandbox, conn_id: str, file_type: str, reference: str | None
) -> None:
    with pytest.raises(CapillaryErrorFileError, match=f"^upload job 7 has no {file_type} file$"):
        read(job_at(file_type, reference), file_type)

    assert sandbox.counts == {}


@pytest.mark.parametrize("file_type", ["errors", "", None, 1, "error_file_url"])
def test_a_file_that_no_job_has_is_refused(sandbox: Sandbox, conn_id: str, file_type: Any) -> None:
    with pytest.raises(CapillaryConfigurationError, match="file_type must be one of error, success, uploaded, but is"):
        read(job_at("error", "handle"), file_type)

    assert sandbox.counts == {}


@EACH
@pytest.mark.parametrize(
    "reference",
    # One for each place in api/error_files.py that words a refusal: a handle, its length, a scheme, objects and URLs.
    ["../x", "x" * 5000, "file:///etc/passwd", "s3://id@bucket/key", "s3://[", "https://10.1.2.3/x?s3cr3t"],
)
def test_the_rules_of_safety_are_the_same_for_each(
    sandbox: Sandbox, conn_id: str, file_type: str, reference: str
) -> None:
    with pytest.raises(CapillaryErrorFileError, match=f"^the {file_type} file.* is not fetched, because ") as caught:
        read(job_at(file_type, reference), file_type)

    assert "s3cr3t" not in str(caught.value)
    assert sandbox.counts == {}


@EACH
@pytest.mark.parametrize(
    "fault",
    [
        Fault("redirect", endpoint="download", location="https://10.0.0.1/"),
        Fault("redirect", endpoint="download", location="/files/x", status=307),
        Fault("status", endpoint="download", status=404),
        Fault("cut", endpoint="download", times=None),
        Fault("cut", endpoint="download", fraction=0.0, times=None),
        Fault("unmarked", endpoint="download", times=None),
        Fault("html", endpoint="download", status=200, times=None),
        Fault("body", endpoint="download", status=206, body=b"x", times=None),
        Fault("body", endpoint="download", status=200, body=b"x", headers={"Content-Encoding": "br"}),
        Fault("body", endpoint="download", status=200, body=b"x", headers={"Content-Encoding": "gzip"}),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_what_goes_wrong_on_the_way_names_the_file(
    sandbox: Sandbox, conn_id: str, job: SandboxJob, file_type: str, fault: Fault
) -> None:
    reported = CapillaryHook(http_retry=QUICK).get_redeem_upload_job(SERIES, job.job_id)
    sandbox.inject(fault)

    with pytest.raises(CapillaryError, match=f"the {file_type} file"):
        read(reported, file_type)
