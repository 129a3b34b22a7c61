# SPDX-License-Identifier: Apache-2.0
"""Uploads by the hooks, from a script or a task of one's own: one call, one job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryError, CapillaryUploadError
from airflow_provider_capillary.sandbox import Fault
from tests.hooks.clients import SERIES

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_capillary.sandbox import Sandbox
    from tests.hooks.clients import Client
    from tests.hooks.conftest import Connect

IDENTIFIERS = {"customer_identifier": "MOBILE", "coupon_identifier": "COUPON_CODE"}
PERSONAL = "919900000001"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "redeemed.csv"
    path.write_text(
        "redeemedDateInMillis,redeemedAt,couponCode,mobile\n"
        f"1732000000000,till-1,SAVE1,{PERSONAL}\n1732000000000,till-1,INVALID2,{PERSONAL}\n"
    )
    return path


def upload(client: Client, file: Path, **arguments: Any) -> Any:
    with client.opened() as opened:
        return opened.wait(opened.hook.upload_redeemed_coupons(SERIES, str(file), **IDENTIFIERS, **arguments))


@pytest.mark.usefixtures("capillary_connection")
class TestUpload:
    def test_a_file_of_redeemed_coupons_becomes_a_job(self, sandbox: Sandbox, client: Client, file: Path) -> None:
        job = upload(client, file)
        (made,) = sandbox.jobs(SERIES)
        assert (job.job_id, job.total_uploaded_count) == (made.job_id, 0)
        assert (made.rows, made.errors) == (2, 1)
        assert made.uploaded_file_name.startswith("redeemed-")

    def test_a_file_of_coupons_becomes_a_job(self, sandbox: Sandbox, client: Client, tmp_path: Path) -> None:
        file = tmp_path / "coupons.csv"
        file.write_text("coupon_code\nSAVE1\nSAVE2\nSAVE3\n")
        with client.opened() as opened:
            job = opened.wait(opened.hook.upload_coupons(SERIES, str(file)))
        (made,) = sandbox.jobs(SERIES)
        assert (job.job_id, made.rows, made.errors) == (made.job_id, 3, 0)

    def test_two_calls_are_two_uploads(self, sandbox: Sandbox, client: Client, file: Path) -> None:
        assert [upload(client, file).job_id for _ in range(2)] == [job.job_id for job in sandbox.jobs(SERIES)]

    def test_two_calls_with_one_file_name_are_one_upload(self, sandbox: Sandbox, client: Client, file: Path) -> None:
        ids = [upload(client, file, file_name="night-2026-11-25.csv").job_id for _ in range(2)]
        assert ids == [job.job_id for job in sandbox.jobs(SERIES)] * 2

    def test_a_lost_answer_makes_no_second_job(self, sandbox: Sandbox, client: Client, file: Path) -> None:
        sandbox.inject(Fault("reset", endpoint="upload", processed=True))
        job = upload(client, file)
        assert [each.job_id for each in sandbox.jobs(SERIES)] == [job.job_id]
        assert sandbox.count("upload") == 1

    def test_a_refusal_is_reported_with_what_capillary_says(self, sandbox: Sandbox, client: Client, file: Path) -> None:
        sandbox.inject(Fault("status", endpoint="upload", status=400, body={"success": False, "message": "No series."}))
        with pytest.raises(CapillaryError, match="No series") as caught:
            upload(client, file)
        assert caught.value.http_status == 400
        assert sandbox.jobs(SERIES) == []

    def test_columns_are_mapped_by_name_and_index(self, sandbox: Sandbox, client: Client, tmp_path: Path) -> None:
        file = tmp_path / "other.csv"
        file.write_text(f"Code,Phone,When,Till\nSAVE1,{PERSONAL},1732000000000,till-1\n")
        columns = {"couponCode": "Code", "mobile": 1, "redeemed_date_in_millis": "When", "redeemedAt": "Till"}
        upload(client, file, columns=columns)
        (made,) = sandbox.jobs(SERIES)
        assert (made.rows, made.errors) == (1, 0)

    def test_a_file_of_many_blocks_arrives_unchanged(self, sandbox: Sandbox, client: Client, tmp_path: Path) -> None:
        file = tmp_path / "large.csv"
        rows = 60_000
        file.write_text(
            "redeemedDateInMillis,redeemedAt,couponCode,mobile\n"
            + "".join(f'1732000000000,"till\n{number}",SAVE{number},{PERSONAL}\n' for number in range(rows))
        )
        upload(client, file)
        (made,) = sandbox.jobs(SERIES)
        assert (made.rows, made.errors) == (rows, 0)

    @pytest.mark.parametrize("name", ["Content-Type", "content-type"])
    def test_an_extra_header_does_not_replace_the_type_of_the_form(
        self, sandbox: Sandbox, client: Client, file: Path, connect: Connect, name: str
    ) -> None:
        connect(sandbox, headers={name: "text/csv"})
        upload(client, file)
        assert [(job.rows, job.errors) for job in sandbox.jobs(SERIES)] == [(2, 1)]

    def test_a_missing_file_is_refused_before_anything_is_sent(
        self, sandbox: Sandbox, client: Client, tmp_path: Path
    ) -> None:
        with pytest.raises(CapillaryUploadError, match=r"file: there is no file at file:///.*missing.csv"):
            upload(client, tmp_path / "missing.csv")
        assert sandbox.count("upload") == 0

    @pytest.mark.parametrize("file_name", ["", "  ", "None", 5])
    def test_a_file_name_that_names_nothing_is_refused(self, client: Client, file: Path, file_name: Any) -> None:
        with pytest.raises(CapillaryConfigurationError, match="file_name"):
            upload(client, file, file_name=file_name)

    def test_no_value_of_the_file_gets_into_the_log(
        self, sandbox: Sandbox, client: Client, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG", logger="airflow_provider_capillary")
        sandbox.inject(Fault("reset", endpoint="upload", processed=True))
        upload(client, file)
        assert PERSONAL not in caplog.text
