# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import gc
import json
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api import job_history
from airflow_provider_capillary.api.errors import (
    CapillaryConfigurationError,
    CapillaryJobNotFoundError,
    CapillaryResponseError,
)
from airflow_provider_capillary.api.job_history import JobHistory, JobSelector, find_job, read_history
from airflow_provider_capillary.api.jobs import JOB_FILES, JobFields, UploadJob, job_of, read_jobs
from airflow_provider_capillary.api.responses import read_payload
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM, UPLOAD_KINDS, UploadKind
from airflow_provider_capillary.api.values import parse_id, validate_choice
from tests.api.flows import any_text, attempt, examples, json_values, raw_jobs, reply, sample

MIDNIGHT_IN_INDIA = pendulum.datetime(2020, 10, 20, tz="Asia/Kolkata")


BOTH_KINDS = pytest.mark.parametrize("kind", UPLOAD_KINDS.values(), ids=list(UPLOAD_KINDS))


def read_sample(name: str, timezone: str = "UTC", *, kind: UploadKind = REDEEM) -> list[UploadJob]:
    return read_jobs(read_payload(reply(sample(name))), kind, timezone=timezone)


def read_one(kind: UploadKind = REDEEM, **fields: Any) -> UploadJob:
    job = {"jobId": 7, kind.status_field: "QUEUED", **fields}
    (read,) = read_jobs({"result": {kind.jobs_field: [job]}}, kind)
    return read


def job(job_id: int = 1, status: str = "QUEUED", **fields: Any) -> UploadJob:
    return UploadJob(job_id=job_id, status=status, **fields)


# --- the official samples ----------------------------------------------------------------------------------------


def test_the_sample_of_completed_jobs_is_read_field_by_field() -> None:
    jobs = read_sample("status-completed", "Asia/Kolkata")
    assert jobs == [
        UploadJob(
            job_id=4455,
            status="COMPLETED",
            org_id=9838,
            coupon_series_id=909234,
            created_on=MIDNIGHT_IN_INDIA,
            updated_on=MIDNIGHT_IN_INDIA,
            error_file_url="error_redemption_upload_1619_2532342020_10_20_14_17_00",
            success_file_url=None,
            uploaded_file_url="couponCode_1603183613031_253234.csv",
            uploaded_file_name="couponCode_1603183613081_259234.csv",
            total_uploaded_count=1,
            actual_row_count=1,
            error_count=1,
            upload_table_name="temp_redemption_upload_1619_20201020_141700172",
        ),
        UploadJob(
            job_id=4456,
            status="COMPLETED",
            org_id=9838,
            coupon_series_id=909234,
            created_on=MIDNIGHT_IN_INDIA,
            updated_on=MIDNIGHT_IN_INDIA,
            error_file_url="error_redemption_upload_1619_2532342020_10_20_17_33_14",
            success_file_url=None,
            uploaded_file_url="couponCode_1603195385330_253234.csv",
            uploaded_file_name="couponCode_1603195345330_253564.csv",
            total_uploaded_count=1,
            actual_row_count=1,
            error_count=1,
            upload_table_name="temp_redemption_upload_1619_20201020_173313820",
        ),
        UploadJob(
            job_id=4457,
            status="COMPLETED",
            org_id=9838,
            coupon_series_id=909234,
            created_on=MIDNIGHT_IN_INDIA.add(days=1),
            updated_on=MIDNIGHT_IN_INDIA.add(days=1),
            error_file_url="error_redemption_upload_1619_2532342020_10_21_12_29_00",
            success_file_url=None,
            uploaded_file_url="couponCode_1603263533789_253234.csv",
            uploaded_file_name="couponCode_1603263533789_253234.csv",
            total_uploaded_count=1,
            actual_row_count=1,
            error_count=1,
            upload_table_name="temp_redemption_upload_1619_20201021_122859950",
        ),
    ]
    assert [(each.is_completed, each.is_failed, each.is_done, each.error_rate) for each in jobs] == [
        (True, False, True, 1.0)
    ] * 3
    assert jobs[0].created_on is not None
    assert jobs[0].created_on.to_date_string() == "2020-10-20"


def test_the_sample_of_a_queued_upload_is_read_field_by_field() -> None:
    (queued,) = read_sample("redeem-upload-queued")
    moment = pendulum.datetime(2020, 10, 21, 6, 58, 55, tz="UTC").set(microsecond=389_000)
    assert queued == UploadJob(
        job_id=9137,
        status="QUEUED",
        org_id=9619,
        coupon_series_id=953234,
        created_on=moment,
        updated_on=moment,
        error_file_url=None,
        success_file_url=None,
        uploaded_file_url="couponCode_9603263533789_253294.csv",
        uploaded_file_name="couponCode_9603263533789_253294.csv",
        total_uploaded_count=0,
        actual_row_count=0,
        error_count=0,
        upload_table_name=None,
    )
    assert (queued.is_done, queued.has_known_status, queued.error_rate) == (False, True, 0.0)


def test_the_sample_of_a_coupon_upload_is_read_field_by_field() -> None:
    (finished,) = read_sample("coupon-upload-status-finished", kind=COUPON)
    assert finished == UploadJob(
        job_id=220605,
        status="FINISHED",
        org_id=100458,
        coupon_series_id=535521,
        created_on=pendulum.datetime(2024, 5, 27, 12, 6, 10, tz="UTC"),
        updated_on=pendulum.datetime(2024, 5, 27, 12, 6, 14, tz="UTC"),
        error_file_url="error_100458_5355212024_05_27_12_06_14",
        success_file_url=None,
        uploaded_file_url="couponbatchupload_1716811569557_535521.csv",
        uploaded_file_name="couponbatchupload.csv",
        total_uploaded_count=2,
        actual_row_count=2,
        error_count=2,
        upload_table_name="temp_100458_20240527_120613638",
    )
    assert (finished.is_done, finished.is_completed, finished.error_rate) == (True, True, 1.0)
    assert finished.uploaded_at == pendulum.datetime(2024, 5, 27, 12, 6, 9, 557_000, tz="UTC")


def test_the_sample_of_an_empty_series_has_no_jobs() -> None:
    assert read_sample("status-empty") == []


def test_the_answer_of_the_sibling_endpoint_has_no_redeem_jobs() -> None:
    # It lists uploadJobStatuses of coupons that were uploaded, not redeemed: none of them may be taken for ours.
    assert read_sample("coupon-upload-status-finished") == []
    assert read_sample("status-completed", kind=COUPON) == []


def test_the_zone_of_the_cluster_decides_the_date_and_not_the_moment() -> None:
    utc, india = read_sample("status-completed")[0], read_sample("status-completed", "Asia/Kolkata")[0]
    assert utc.created_on is not None
    assert india.created_on is not None
    assert utc.created_on == india.created_on
    assert (utc.created_on.to_date_string(), india.created_on.to_date_string()) == ("2020-10-19", "2020-10-20")


# --- the answer --------------------------------------------------------------------------------------------------


@BOTH_KINDS
@pytest.mark.parametrize("result", [{"redeemUploadJobStatuses": None, "uploadJobStatuses": None}, {}, {"orgId": 1}])
def test_a_missing_or_null_list_is_empty(result: dict[str, Any], kind: UploadKind) -> None:
    assert read_jobs({"success": True, "status": 200, "result": result}, kind) == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "Capillary's answer has no result"),
        ({"result": None}, "Capillary's answer has no result"),
        ({"result": []}, "Capillary's answer has no result"),
        ({"result": {"jobs": {}}}, "jobs in Capillary's answer is not a list"),
        ({"result": {"jobs": "no"}}, "jobs in Capillary's answer is not a list"),
        ({"result": {"jobs": ["no"]}}, "a job in Capillary's answer is not an object"),
        ({"result": {"jobs": [None]}}, "a job in Capillary's answer is not an object"),
    ],
)
@BOTH_KINDS
def test_an_answer_of_another_form_is_named_and_may_pass(
    payload: dict[str, Any], message: str, kind: UploadKind
) -> None:
    payload = json.loads(json.dumps(payload).replace('"jobs"', f'"{kind.jobs_field}"'))
    message = message.replace("jobs in", f"{kind.jobs_field} in")
    with pytest.raises(CapillaryResponseError) as caught:
        read_jobs(payload, kind)
    assert (str(caught.value), caught.value.is_transient) == (message, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"jobId": None},
        {"jobId": "x"},
        {"jobId": True},
        {"jobId": 1.5},
        {"jobId": ""},
        {"uploadRedeemedCouponStatus": None},
        {"uploadRedeemedCouponStatus": ""},
        {"uploadRedeemedCouponStatus": "  "},
        {"uploadRedeemedCouponStatus": 5},
    ],
)
def test_only_id_and_status_are_required_of_a_job(fields: dict[str, Any]) -> None:
    with pytest.raises(CapillaryResponseError, match="has no jobId or no uploadRedeemedCouponStatus"):
        read_one(**fields)


def test_a_job_with_nothing_but_id_and_status_is_read() -> None:
    assert read_one() == UploadJob(job_id=7, status="QUEUED")


@pytest.mark.parametrize("shape", [int, str, lambda number: f" {number} ", float])
def test_numbers_of_a_job_may_come_as_text(shape: Any) -> None:
    read = read_one(jobId=shape(9), totalUploadedCount=shape(4), actualRowCount=shape(3), errorCount=shape(2))
    assert (read.job_id, read.total_uploaded_count, read.actual_row_count, read.error_count) == (9, 4, 3, 2)


@pytest.mark.parametrize("shape", [int, str])
def test_moments_may_come_as_numbers(shape: Any) -> None:
    read = read_one(createdOn=shape(1_603_263_535_389), updatedOn=shape(0))
    assert read.created_on == pendulum.parse("2020-10-21T06:58:55.389Z")
    assert read.updated_on == pendulum.datetime(1970, 1, 1)


@pytest.mark.parametrize("value", [None, "", "soon", [], True, 10**18, -(10**18), 10**400, float("inf"), "9" * 20])
def test_a_moment_that_cannot_be_one_is_left_out(value: Any) -> None:
    assert read_one(createdOn=value).created_on is None


@pytest.mark.parametrize("value", [None, "", [], {}, True])
def test_a_file_name_that_is_none_is_left_out(value: Any) -> None:
    assert read_one(errorFileUrl=value).error_file_url is None


def test_a_table_name_may_come_as_a_number() -> None:
    assert read_one(uploadTableName=12).upload_table_name == "12"


@examples(80)
@given(st.lists(raw_jobs, max_size=4), st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"]))
def test_any_job_with_optional_fields_missing_null_text_or_number_is_read(
    jobs: list[dict[str, Any]], timezone: str
) -> None:
    payload = json.loads(json.dumps({"result": {"orgId": "5", "redeemUploadJobStatuses": jobs}}))
    if any(not each["uploadRedeemedCouponStatus"].strip() for each in jobs):
        with pytest.raises(CapillaryResponseError):
            read_jobs(payload, REDEEM, timezone=timezone)
        return
    read = read_jobs(payload, REDEEM, timezone=timezone)
    assert [(each.job_id, each.status) for each in read] == [
        (int(each["jobId"]), each["uploadRedeemedCouponStatus"]) for each in jobs
    ]
    for each in read:
        assert each.error_rate is None or each.error_rate >= 0
        json.dumps(each.to_dict())
        assert UploadJob.from_dict(each.to_dict()).to_dict() == each.to_dict()


@examples(80)
@given(json_values)
def test_reading_any_json_ends_in_jobs_or_in_an_error_of_ours(value: Any) -> None:
    for payload in ({"result": value}, {"result": {"redeemUploadJobStatuses": value}}, value):
        if isinstance(payload, dict):
            jobs, error = attempt(lambda payload=payload: read_jobs(payload, REDEEM))
            assert error.is_transient if error is not None else all(isinstance(each, UploadJob) for each in jobs)


# --- status words ------------------------------------------------------------------------------------------------

SPELLINGS = [str, str.lower, str.title, lambda word: f"  {word}\n"]


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("word", ["COMPLETED", "FINISHED"])
def test_completed(word: str, spell: Any) -> None:
    read = job(status=spell(word))
    assert (read.is_completed, read.is_failed, read.is_done, read.has_known_status) == (True, False, True, True)


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("word", ["ERRORED", "ERRORRED", "ERRED", "ERROR", "FAILED", "CANCELLED", "CANCELED"])
def test_failed(word: str, spell: Any) -> None:
    read = job(status=spell(word))
    assert (read.is_completed, read.is_failed, read.is_done, read.has_known_status) == (False, True, True, True)


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize(
    "word", ["QUEUED", "OPEN", "PAUSED", "PAUSE", "RUNNING", "STARTED", "VALIDATED", "COMMITED", "COMMITTED"]
)
def test_running(word: str, spell: Any) -> None:
    read = job(status=spell(word))
    assert (read.is_completed, read.is_failed, read.is_done, read.has_known_status) == (False, False, False, True)


@pytest.mark.parametrize("word", ["PARKED", "COMPLETED_WITH_ERRORS", "NOT COMPLETED", "COMPLETE", "FAIL", "?", "完了"])
def test_an_unknown_word_is_running(word: str) -> None:
    read = job(status=word)
    assert (read.is_completed, read.is_failed, read.is_done, read.has_known_status) == (False, False, False, False)


# --- counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "total", "rate"),
    [
        (0, 10, 0.0),
        (1, 4, 0.25),
        (10, 10, 1.0),
        (0, 0, 0.0),
        (3, 0, 1.0),
        (0, None, 0.0),
        (3, None, None),
        (None, 10, None),
        (None, None, None),
        (-1, 10, 0.0),
        (3, -1, 1.0),
    ],
)
def test_the_error_rate_is_a_fraction_of_the_uploaded_rows(
    errors: int | None, total: int | None, rate: float | None
) -> None:
    assert job(error_count=errors, total_uploaded_count=total).error_rate == rate


def test_counts_beyond_any_file_still_have_a_rate() -> None:
    rate = job(error_count=10**400, total_uploaded_count=1).error_rate
    assert rate is not None
    assert rate >= 1.0


# --- when it was uploaded ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name", "moment"),
    [
        ("couponCode_1603183613031_253234.csv", None, "2020-10-20T08:46:53.031Z"),
        (None, "my_file_1603183613031_253234.CSV", "2020-10-20T08:46:53.031Z"),
        ("couponCode_1603183613031_253234", None, "2020-10-20T08:46:53.031Z"),
        ("coupons.csv", "x_1603183613031_1.csv", "2020-10-20T08:46:53.031Z"),
        ("x_1603183613031_1.csv", "x_1603183613999_1.csv", "2020-10-20T08:46:53.031Z"),
        ("coupons.csv", None, None),
        ("_160318361303_253234.csv", None, None),
        ("_1603183613031_x.csv", None, None),
        ("x_1603183613031_1.csv\n", None, None),
        (None, None, None),
    ],
)
def test_the_moment_of_the_upload_is_read_from_the_stored_name(
    url: str | None, name: str | None, moment: str | None
) -> None:
    uploaded = job(uploaded_file_url=url, uploaded_file_name=name).uploaded_at
    assert uploaded == (None if moment is None else pendulum.parse(moment))


# --- there and back ----------------------------------------------------------------------------------------------

jobs_of_any_kind = st.builds(
    UploadJob,
    job_id=st.integers(0, 10**12),
    status=st.text(min_size=1, max_size=20),
    org_id=st.none() | st.integers(),
    coupon_series_id=st.none() | st.integers(),
    created_on=st.none()
    | st.builds(
        lambda millis, zone: pendulum.from_timestamp(millis / 1000, tz=zone),
        st.integers(0, 4 * 10**12),
        st.sampled_from(["UTC", "Asia/Kolkata", "Asia/Singapore"]),
    ),
    error_file_url=st.none() | any_text.filter(lambda text: "://" not in text),
    uploaded_file_name=st.none() | any_text,
    total_uploaded_count=st.none() | st.integers(),
    error_count=st.none() | st.integers(),
)


@examples(100)
@given(jobs_of_any_kind)
def test_a_job_survives_json(original: UploadJob) -> None:
    value = json.loads(json.dumps(original.to_dict()))
    assert list(value) == [field.name for field in dataclasses.fields(UploadJob)]
    assert UploadJob.from_dict(value) == original
    assert UploadJob.from_dict(value).to_dict() == original.to_dict()


def test_a_job_is_written_down_in_snake_case_with_iso_dates() -> None:
    value = read_sample("status-completed", "Asia/Kolkata")[0].to_dict()
    assert value == {
        "job_id": 4455,
        "status": "COMPLETED",
        "org_id": 9838,
        "coupon_series_id": 909234,
        "created_on": "2020-10-20T00:00:00+05:30",
        "updated_on": "2020-10-20T00:00:00+05:30",
        "error_file_url": "error_redemption_upload_1619_2532342020_10_20_14_17_00",
        "success_file_url": None,
        "uploaded_file_url": "couponCode_1603183613031_253234.csv",
        "uploaded_file_name": "couponCode_1603183613081_259234.csv",
        "total_uploaded_count": 1,
        "actual_row_count": 1,
        "error_count": 1,
        "upload_table_name": "temp_redemption_upload_1619_20201020_141700172",
    }
    assert {type(each) for each in value.values()} == {int, str, type(None)}


@pytest.mark.parametrize("field", ["error_file_url", "success_file_url", "uploaded_file_url"])
def test_a_signed_url_travels_without_its_signature_and_a_handle_as_it_is(field: str) -> None:
    signed = job(**{field: "https://user:pw@bucket.s3.amazonaws.com/a%20b.csv?X-Amz-Signature=sig-secret#x"})
    assert signed.to_dict()[field] == "https://bucket.s3.amazonaws.com/a%20b.csv"
    assert getattr(signed, field).endswith("sig-secret#x")
    for handle in ("error_redemption_upload_1619", "what?.csv", "a#b", "s3:x?y"):
        assert job(**{field: handle}).to_dict()[field] == handle


@pytest.mark.parametrize("millis", [1_604_205_000_000, 1_604_208_600_000, 1_604_212_200_000])
def test_a_job_survives_json_when_the_clocks_go_back_too(millis: int) -> None:
    # Python holds two moments of different zones for different where one of them is in the repeated hour.
    payload = {
        "result": {"redeemUploadJobStatuses": [{"jobId": 1, "uploadRedeemedCouponStatus": "X", "createdOn": millis}]}
    }
    (original,) = read_jobs(payload, REDEEM, timezone="America/New_York")
    assert original.created_on is not None
    assert original.created_on.timestamp() * 1000 == millis
    assert UploadJob.from_dict(original.to_dict()) == original


def test_keys_of_a_later_version_are_ignored() -> None:
    assert UploadJob.from_dict({"job_id": 1, "status": "QUEUED", "colour": "red"}) == job()


def test_an_id_that_came_as_text_is_a_number_again() -> None:
    assert UploadJob.from_dict({"job_id": "5", "status": "QUEUED"}).job_id == 5


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"job_id": 1},
        {"status": "QUEUED"},
        {"job_id": "x", "status": "QUEUED"},
        {"job_id": 1, "status": None},
        {"job_id": 1, "status": "QUEUED", "created_on": "yesterday"},
        {"job_id": 1, "status": "QUEUED", "created_on": 5},
        {"job_id": 1, "status": "QUEUED", "updated_on": "P1D"},
        {"job_id": 1, "status": "QUEUED", "updated_on": ""},
    ],
)
def test_what_is_no_job_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(CapillaryResponseError):
        UploadJob.from_dict(value)


@pytest.mark.parametrize("value", ["yesterday", "P1D", 5])
@pytest.mark.parametrize("name", ["created_on", "updated_on"])
def test_a_date_that_is_none_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(CapillaryResponseError, match=f"^{name} of an upload job is not an ISO 8601 date$"):
        UploadJob.from_dict({"job_id": 1, "status": "QUEUED", name: value})


def test_a_job_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        job().status = "COMPLETED"  # type: ignore[misc]


# --- ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [5, "5", " 5\n", 5.0, "5.0", Decimal(5), Decimal("5.00")])
def test_an_id_is_a_number_or_its_text(value: Any) -> None:
    assert parse_id("job_id", value) == 5


@pytest.mark.parametrize("value", [None, "", "None", "{{ x }}", 0, -5, "-5", 5.5, True, [], "\u0665"])
def test_what_is_no_id_is_named_with_a_hint_at_templates(value: Any) -> None:
    with pytest.raises(CapillaryConfigurationError) as caught:
        parse_id("coupon_series_id", value)
    assert str(caught.value) == (
        f"coupon_series_id must be a positive whole number, but is {value!r}; "
        "if it comes from a template, check what the template renders to"
    )


@pytest.mark.parametrize("value", ["", "Error", None, 1, ["error"]])
def test_a_word_that_is_not_among_those_allowed_is_named_with_them(value: Any) -> None:
    with pytest.raises(
        CapillaryConfigurationError, match=r"^file_type must be one of error, success, uploaded, but is "
    ) as caught:
        validate_choice("file_type", value, JOB_FILES)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("file_type", JOB_FILES)
def test_each_file_of_a_job_has_an_address_of_its_own(file_type: Any) -> None:
    urls: Any = {f"{name}_file_url": name for name in JOB_FILES}
    assert UploadJob(job_id=7, status="COMPLETED", **urls).file_url(file_type) == file_type
    assert UploadJob(job_id=7, status="COMPLETED").file_url(file_type) is None


def test_a_job_is_found_by_its_id_and_one_that_is_not_there_is_named() -> None:
    jobs = JobHistory.of([job(1), job(2), job(3)])
    assert find_job(jobs, 3, kind=REDEEM, coupon_series_id=9).job_id == 3
    with pytest.raises(CapillaryJobNotFoundError, match=r"^coupon series 9 has no redeem upload job 7;"):
        find_job(jobs, 7, kind=REDEEM, coupon_series_id=9)


# --- which job ---------------------------------------------------------------------------------------------------


def test_the_newest_job_is_the_one_with_the_largest_id_with_any_date_and_at_any_place() -> None:
    jobs = [
        job(5, created_on=pendulum.datetime(2020, 1, 1)),
        job(9, created_on=pendulum.datetime(2019, 1, 1)),
        job(7, created_on=pendulum.datetime(2021, 1, 1)),
    ]
    assert JobSelector().select(jobs) is jobs[1]


def test_a_job_id_picks_exactly_that_job() -> None:
    jobs = [job(5), job(9), job(7)]
    assert JobSelector(job_id=5).select(jobs) is jobs[0]
    assert JobSelector(job_id=6).select(jobs) is None


@pytest.mark.parametrize(
    ("wanted", "picked"),
    [
        ("a_1.csv", 1),
        ("a_*.csv", 2),
        ("a_?.csv", 2),
        ("*", 4),
        ("[ab]*", 3),
        ("A_1.csv", None),
        ("a_1", None),
        ("stored-3", 3),
        ("[x].csv", 4),
    ],
)
def test_a_file_name_picks_the_newest_match_exact_or_by_glob(wanted: str, picked: int | None) -> None:
    jobs = [
        job(4, uploaded_file_name="[x].csv"),
        job(2, uploaded_file_name="a_2.csv"),
        job(1, uploaded_file_name="a_1.csv"),
        job(3, uploaded_file_name="b_3.csv", uploaded_file_url="stored-3"),
    ]
    found = JobSelector(uploaded_file_name=wanted).select(jobs)
    assert (None if found is None else found.job_id) == picked


@pytest.mark.parametrize(("after", "picked"), [(0, 7), (6, 7), (7, None), (8, None)])
def test_after_a_job_the_newest_of_those_behind_it_is_picked(after: int, picked: int | None) -> None:
    found = JobSelector(after_job_id=after).select([job(5), job(7), job(6)])
    assert (None if found is None else found.job_id) == picked


def test_of_a_job_that_is_listed_twice_the_first_entry_counts_for_everybody() -> None:
    first, second = job(5, "COMPLETED", uploaded_file_name="a.csv"), job(5, "STARTED", uploaded_file_name="b.csv")
    for choice in (JobSelector(), JobSelector(job_id=5), JobSelector(uploaded_file_name="*")):
        assert choice.select([first, second]) is first
    assert find_job(JobHistory.of([first, second]), 5, kind=REDEEM, coupon_series_id=1) is first


def test_a_history_has_the_same_jobs_as_the_list_the_newest_first() -> None:
    payload = read_payload(reply(sample("status-completed")))
    history = read_history(payload, REDEEM, timezone="Asia/Kolkata")

    listed = read_jobs(payload, REDEEM, timezone="Asia/Kolkata")
    assert list(history.newest_first) == sorted(listed, key=lambda job: job.job_id, reverse=True)
    assert [history.get(each.job_id) for each in listed] == listed
    assert len(history) == len(listed) > 1


@BOTH_KINDS
def test_a_history_and_its_jobs_have_each_field_of_a_response(kind: UploadKind) -> None:
    sent = {
        "jobId": 1,
        kind.status_field: "STARTED",
        "uploadedFileName": "name.csv",
        "uploadedFileUrl": "url.csv",
        "createdOn": 2,
        "updatedOn": 3,
        "errorFileUrl": "error",
        "successFileUrl": "success",
        "totalUploadedCount": 4,
        "actualRowCount": 5,
        "errorCount": 6,
        "uploadTableName": "table",
    }
    result = {"orgId": 7, "couponSeriesId": 8, kind.jobs_field: [sent]}
    (fields,) = read_history({"result": result}, kind, timezone="Asia/Kolkata").rows
    assert fields == JobFields(
        job_id=1,
        status="STARTED",
        uploaded_file_name="name.csv",
        uploaded_file_url="url.csv",
        org_id=7,
        coupon_series_id=8,
        created_on=2,
        updated_on=3,
        timezone="Asia/Kolkata",
        error_file_url="error",
        success_file_url="success",
        total_uploaded_count=4,
        actual_row_count=5,
        error_count=6,
        upload_table_name="table",
    )
    # And so has the job that is made of it.
    created, updated = (pendulum.from_timestamp(millis / 1000, tz="Asia/Kolkata") for millis in (2, 3))
    assert job_of(fields) == UploadJob(
        job_id=1,
        status="STARTED",
        uploaded_file_name="name.csv",
        uploaded_file_url="url.csv",
        org_id=7,
        coupon_series_id=8,
        created_on=created,
        updated_on=updated,
        error_file_url="error",
        success_file_url="success",
        total_uploaded_count=4,
        actual_row_count=5,
        error_count=6,
        upload_table_name="table",
    )


def test_a_history_of_years_leaves_the_garbage_collector_next_to_nothing() -> None:
    many = 5000
    payload = {
        "result": {
            "redeemUploadJobStatuses": [
                {"jobId": number, "uploadRedeemedCouponStatus": "COMPLETED", "createdOn": str(1603132200000 + number)}
                for number in range(many)
            ]
        }
    }
    gc.collect()
    before = len(gc.get_objects())
    history = read_history(payload, REDEEM)
    gc.collect()
    after = len(gc.get_objects())

    assert len(history) == many
    assert after - before < many / 100


def test_what_still_runs_is_known_of_a_history() -> None:
    history = JobHistory.of([job(4, "completed "), job(2, "STARTED"), job(3, "PAUSED"), job(1, "ERRORED")])
    assert history.running_ids == [2, 3]
    assert history.settled_up_to == 1


def test_a_series_without_jobs_has_none_to_pick() -> None:
    assert JobSelector().select([]) is None


names = st.none() | st.sampled_from(["a.csv", "b.csv", "a_1.csv", "[a].csv", "*", ""])


@examples(80)
@given(
    st.lists(
        st.builds(
            lambda number, name, url: job(number, uploaded_file_name=name, uploaded_file_url=url),
            st.integers(1, 12),
            names,
            names,
        ),
        max_size=8,
        unique_by=lambda job: job.job_id,
    ),
    st.builds(
        JobSelector,
        job_id=st.none() | st.none() | st.integers(1, 12),
        uploaded_file_name=st.none() | st.sampled_from(["a.csv", "*.csv", "a*", "[a]*", "[a].csv", "[", "*", "[!a]*"]),
        after_job_id=st.none() | st.integers(0, 12),
    ),
)
def test_the_choice_is_that_of_trying_every_job(jobs: list[UploadJob], choice: JobSelector) -> None:
    best = None
    for each in jobs:
        if choice.job_id is not None:
            fits = each.job_id == choice.job_id
        else:
            fits = choice.after_job_id is None or each.job_id > choice.after_job_id
            if choice.uploaded_file_name is not None:
                fits = fits and any(
                    known == choice.uploaded_file_name or fnmatchcase(known, choice.uploaded_file_name)
                    for known in (each.uploaded_file_name, each.uploaded_file_url)
                    if known is not None
                )
        if fits and (best is None or each.job_id > best.job_id):
            best = each
    assert choice.select(jobs) is best


def test_many_waits_for_the_same_file_search_a_history_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    fits = job_history._fits
    monkeypatch.setattr(job_history, "_fits", lambda glob: searched.append(glob) or fits(glob))
    history = JobHistory.of([job(number, uploaded_file_name=f"night_{number}.csv") for number in range(1, 9)])
    wanted, other = JobSelector(uploaded_file_name="night_[0-5]*"), JobSelector(uploaded_file_name="night_[0-9]*")

    found = [choice.select(history, newer_than=floor) for choice in (wanted, other) for floor in (None, 5, None, 5)]

    assert [None if each is None else each.job_id for each in found] == [5, None, 5, None, 8, 8, 8, 8]
    assert searched == ["night_[0-5]*"] * 2 + ["night_[0-9]*"] * 2


@pytest.mark.parametrize(
    ("choice", "shown"),
    [
        (JobSelector(), "newest job"),
        (JobSelector(job_id=5), "job 5"),
        (JobSelector(uploaded_file_name="a*.csv"), "newest job with file name 'a*.csv'"),
        (JobSelector(after_job_id=4), "newest job with id above 4"),
        (JobSelector(uploaded_file_name="a", after_job_id=4), "newest job with file name 'a' with id above 4"),
    ],
)
def test_a_choice_is_described_in_words(choice: JobSelector, shown: str) -> None:
    assert str(choice) == shown
