# SPDX-License-Identifier: Apache-2.0
"""The form part ``uploadHeaders``, from the header line or from the argument ``columns``."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.csv_files import CsvFile, CsvScanner
from airflow_provider_capillary.api.errors import CapillaryConfigurationError, CapillaryUploadError
from airflow_provider_capillary.api.upload_columns import upload_headers
from airflow_provider_capillary.api.upload_kinds import COUPON, REDEEM, UPLOAD_KINDS
from tests.api.test_values import Bool, Float32, Int64

if TYPE_CHECKING:
    from airflow_provider_capillary.api.upload_kinds import UploadKind

API_KEYS = "redeemedDateInMillis,redeemedAt,userId,couponCode"
OWN_NAMES = "when,till,customer,code"
OWN_COLUMNS = {"redeemedDateInMillis": "when", "redeemedAt": "till", "userId": "customer", "couponCode": "code"}


def file_with(header: str) -> CsvFile:
    scanner = CsvScanner(max_rows_per_part=1000)
    scanner.feed(f"{header}\n1\n".encode())
    return scanner.finish()


def headers(
    header: str,
    kind: UploadKind = REDEEM,
    *,
    customer: Any = "USER_ID",
    coupon: Any = "COUPON_CODE",
    columns: Any = None,
) -> dict[str, int]:
    coupon = coupon if kind is REDEEM or coupon != "COUPON_CODE" else None
    return upload_headers(
        file_with(header), kind, customer_identifier=customer, coupon_identifier=coupon, columns=columns
    )


def refusal(header: str, kind: UploadKind = REDEEM, **given: Any) -> str:
    with pytest.raises(CapillaryConfigurationError) as caught:
        headers(header, kind, **given)
    return str(caught.value)


# --- from the header line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        API_KEYS,
        "redeemed_date_in_millis,redeemed_at,user_id,coupon_code",
        " REDEEMEDDATEINMILLIS , Redeemed_At,USERID,\tCouponCode\t",
        '"redeemedDateInMillis"," redeemedAt","user_id","couponCode"',
    ],
    ids=["as-in-the-api", "snake-case", "any-case-and-spaces", "quoted"],
)
def test_names_are_the_api_s_keys_or_their_snake_case(header: str) -> None:
    assert headers(header) == {"redeemedDateInMillis": 0, "redeemedAt": 1, "userId": 2, "couponCode": 3}


def test_optional_columns_are_included_and_those_that_capillary_does_not_read_are_not() -> None:
    found = headers(f"store,{API_KEYS},,bill_number,store,details")

    assert found == {
        "redeemedDateInMillis": 1,
        "redeemedAt": 2,
        "userId": 3,
        "couponCode": 4,
        "billNumber": 6,
        "details": 8,
    }
    assert json.loads(json.dumps(found)) == found


def test_an_identifier_that_was_not_chosen_is_left_out() -> None:
    # Capillary would take the user id instead of the mobile number.
    found = headers(f"{API_KEYS},mobile,couponId", customer="MOBILE", coupon="COUPON_ID")

    assert found == {"redeemedDateInMillis": 0, "redeemedAt": 1, "mobile": 4, "couponId": 5}


@pytest.mark.parametrize("kind", UPLOAD_KINDS.values(), ids=UPLOAD_KINDS)
def test_each_identifier_requires_its_column(kind: UploadKind) -> None:
    for customer, customer_key in kind.customer_columns.items():
        for coupon, coupon_key in kind.coupon_columns.items() or [(None, None)]:
            keys = [*kind.required_columns, *filter(None, (customer_key, coupon_key))]
            assert [*headers(",".join(keys), kind, customer=customer, coupon=coupon)] == keys
            for key in keys:
                others = [other for other in keys if other != key] or ["other"]
                with pytest.raises(CapillaryUploadError, match=f"lacks {key};"):
                    headers(",".join(others), kind, customer=customer, coupon=coupon)


def test_all_missing_columns_are_named_at_once_with_what_is_there_and_the_remedy() -> None:
    with pytest.raises(CapillaryUploadError) as caught:
        headers(f"redeemedAt,till id,{'x' * 200},billId,when")

    message = str(caught.value)
    assert "lacks redeemedDateInMillis, userId, couponCode;" in message
    assert "it has 'redeemedAt', 'till id', 'xxx" in message
    assert "columns={'redeemedDateInMillis': <name or index from 0>, 'userId': <name or index" in message
    assert "x" * 80 not in message


def test_many_names_are_shown_in_part() -> None:
    with pytest.raises(CapillaryUploadError, match=r"'c17' and 3 more;") as caught:
        headers(",".join(["redeemedAt", "billId", *(f"c{number}" for number in range(21))]))

    assert "c18" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    ["1700000000000,till-1,5512345678,SUMMER-4711", "1700000000000,mobile,a@example.com,SUMMER-4711", "SUMMER-4711"],
)
def test_values_of_a_file_without_a_header_line_are_not_shown(line: str) -> None:
    for columns in (None, {"couponCode": "code"}):
        with pytest.raises((CapillaryUploadError, CapillaryConfigurationError)) as caught:
            headers(line, columns=columns)

        message = str(caught.value)
        assert "check that the first line is a header line" in message
        assert not [value for value in line.split(",") if value != "mobile" and value in message]


@pytest.mark.parametrize("again", ["userId", "user_id", "USERID"])
def test_a_needed_column_that_is_there_twice_is_refused(again: str) -> None:
    with pytest.raises(CapillaryUploadError, match=r"has userId 2 times, as columns 3, 6;.*columns=\{'userId': 2, "):
        headers(f"{API_KEYS},,{again}")


def test_an_optional_column_that_is_there_twice_is_refused() -> None:
    with pytest.raises(CapillaryUploadError, match="has details 2 times"):
        headers(f"{API_KEYS},details,details")


def test_columns_that_are_not_needed_may_be_there_twice_or_have_no_name() -> None:
    assert len(headers(f"{API_KEYS},,,mobile,mobile,other,other")) == 4


# --- from the argument ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        OWN_COLUMNS,
        {"redeemed_date_in_millis": "when", "redeemed_at": 1, "user_id": " customer ", "COUPONCODE": 3},
        dict(zip(OWN_COLUMNS, map(Int64, range(4)), strict=True)),
    ],
    ids=["names", "snake-case-and-indexes", "integers-of-another-library"],
)
def test_columns_are_given_by_name_or_index(columns: Any) -> None:
    found = headers(OWN_NAMES, columns=columns)

    assert found == {"redeemedDateInMillis": 0, "redeemedAt": 1, "userId": 2, "couponCode": 3}
    assert json.loads(json.dumps(found)) == found


def test_given_columns_are_all_that_is_sent() -> None:
    assert "billId" not in headers(f"{OWN_NAMES},billId", columns=OWN_COLUMNS)
    assert headers(f"{OWN_NAMES},phone", columns=OWN_COLUMNS | {"mobile": "phone"})["mobile"] == 4


def test_an_index_serves_where_a_name_is_there_twice() -> None:
    header = f"{OWN_NAMES},till"

    assert headers(header, columns=OWN_COLUMNS | {"redeemedAt": 4})["redeemedAt"] == 4
    assert "redeemedAt is 'till', which the header line has 2 times" in refusal(header, columns=OWN_COLUMNS)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"redeemed": 1}, "columns has the key 'redeemed', but a redeem upload has the keys redeemedDateInMillis, "),
        ({7: 1}, "columns has the key 7, but"),
        ({None: 1}, "columns has the key None, but"),
        ({"userId": 2, "user_id": 2}, "columns has the key userId twice"),
        ({"userId": "user"}, "userId is 'user', which the header line does not have; it has 4 columns"),
        ({"userId": "2"}, "userId is '2', which the header line does not have; an index must be a number, not text"),
        ({"userId": " "}, "userId must be a name in the header line or an index from 0, but is ' '"),
        ({"userId": 4}, "userId is 4, but the header line has 4 columns; indexes begin at 0, so the last one is 3"),
        ({"userId": -1}, "userId is -1, but the header line has 4 columns"),
        ({"userId": True}, "userId must be a name in the header line or an index from 0, but is True"),
        ({"userId": Bool()}, "userId must be a name in the header line or an index from 0"),
        ({"userId": 2.0}, "userId must be a name in the header line or an index from 0, but is 2.0"),
        ({"userId": Float32(2.0)}, "userId must be a name in the header line or an index from 0"),
        ({"userId": Decimal(2)}, "userId must be a name in the header line or an index from 0"),
        ({"userId": None}, "userId must be a name in the header line or an index from 0, but is None"),
        ({"userId": ["customer"]}, "userId must be a name in the header line or an index from 0"),
        ({"userId": 0, "redeemedAt": "when"}, "columns has the index 0 for both userId and redeemedAt"),
        ({"userId": 0, "redeemedAt": 1}, "columns lacks redeemedDateInMillis, couponCode;"),
        ({}, "columns lacks redeemedDateInMillis, redeemedAt, userId, couponCode;"),
        ("{}", "columns must be a mapping of API keys"),
        (["when", "till"], "columns must be a mapping of API keys"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_columns_that_cannot_be_used_are_refused_by_name(columns: Any, words: str) -> None:
    assert words in refusal(OWN_NAMES, columns=columns)


def test_an_empty_text_is_not_the_name_of_a_column_without_one() -> None:
    assert "redeemedAt must be a name in the header line" in refusal(f"{OWN_NAMES},", columns={"redeemedAt": ""})


def test_a_key_of_the_other_kind_is_refused() -> None:
    message = refusal("code,till", COUPON, customer="NOT_TAGGED", columns={"couponCode": 0, "redeemedAt": 1})

    assert "'redeemedAt', but a coupon upload has the keys couponCode, mobile, externalId, email, userId" in message


@pytest.mark.parametrize("customer", ["user_id", "NOT_TAGGED", "", None, 5, ["MOBILE"]])
def test_a_customer_identifier_that_the_kind_does_not_have_is_refused(customer: Any) -> None:
    assert "customer_identifier must be one of MOBILE, EXTERNAL_ID, EMAIL, USER_ID" in refusal(
        API_KEYS, customer=customer
    )


@pytest.mark.parametrize("coupon", ["coupon_code", "", None, 5])
def test_a_coupon_identifier_that_the_kind_does_not_have_is_refused(coupon: Any) -> None:
    assert "coupon_identifier must be one of COUPON_ID, COUPON_CODE" in refusal(API_KEYS, coupon=coupon)


def test_a_coupon_upload_has_no_coupon_identifier() -> None:
    message = refusal("couponCode", COUPON, customer="NOT_TAGGED", coupon="COUPON_ID")

    assert message == "coupon_identifier is not for a coupon upload, but is 'COUPON_ID'; leave it out"
