# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryError,
    CapillaryRateLimitError,
    CapillaryResponseError,
)
from airflow_provider_capillary.api.responses import TokenRefusedError, decode_object, read_payload
from airflow_provider_capillary.api.retry import RETRY_CODES, RETRY_STATUSES
from tests.api.flows import ENVELOPES, answers, any_text, attempt, auth, coupon, examples, reply, sample, v2, v3, v11

if TYPE_CHECKING:
    from airflow_provider_capillary.api.http_messages import Response

SECRET = "zq81-open-sesame"

HTML = "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>"

Envelope = Callable[..., dict[str, Any]]


def error_of(response: Response, **options: Any) -> CapillaryError:
    with pytest.raises(CapillaryError) as caught:
        read_payload(response, **options)
    return caught.value


# --- the official samples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "token-ok",
        "token-ok-newer",
        "status-completed",
        "status-empty",
        "redeem-upload-queued",
        "coupon-upload-status-finished",
    ],
)
def test_a_sample_of_success_is_handed_on_as_it_is(name: str) -> None:
    assert read_payload(reply(sample(name))) == sample(name)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
def test_bad_credentials_are_an_auth_error_under_any_http_status(status: int) -> None:
    error = error_of(reply(sample("token-bad-credentials"), status))
    assert type(error) is CapillaryAuthError
    assert str(error) == (
        "Capillary does not accept the client key and secret: Invalid client key and secret "
        f"(HTTP {status}, code 320001)"
    )
    assert error.is_transient is False


@pytest.mark.parametrize("status", [200, 401])
def test_the_sample_of_an_expired_token_is_a_refused_token(status: int) -> None:
    error = error_of(reply(sample("error-498-v11"), status))
    assert type(error) is TokenRefusedError
    assert (error.http_status, error.api_code) == (status, "498")
    assert error.message == "Capillary does not accept the token: Token expired at 2019-12-02T12:31:15.000+0530"


@pytest.mark.parametrize("status", [200, 401])
def test_the_sample_of_an_invalid_token_is_a_refused_token(status: int) -> None:
    error = error_of(reply(sample("error-401-v11"), status))
    assert type(error) is TokenRefusedError
    assert (error.http_status, error.api_code, error.message) == (
        status,
        "401",
        "Capillary does not accept the token: Unauthorized",
    )


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("error-403-v11", "403", "Client doesn't have access to the requested resource"),
        ("error-4000-v2", "4000", "Not authorized. Access is denied!"),
    ],
)
def test_the_samples_of_no_access_name_the_remedy(name: str, code: str, says: str, status: int) -> None:
    error = error_of(reply(sample(name), status))
    assert type(error) is CapillaryAccessError
    assert (error.http_status, error.api_code, error.is_transient) == (status, code, False)
    assert error.message == (
        f"the API client has no access to this resource: {says}; ask Capillary to give it access to the coupon resource"
    )


# --- the five envelopes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("code", [400, "400", " 400 ", 400.0])
def test_every_envelope_gives_code_message_status_and_request_id(envelope: Envelope, code: Any) -> None:
    error = error_of(reply(envelope(code, "No such series"), 200, x_cap_request_id="req-1"))
    assert type(error) is CapillaryApiError
    assert str(error) == (
        "Capillary answered with an error: No such series (HTTP 200, code 400, X-CAP-REQUEST-ID req-1)"
    )


@pytest.mark.parametrize("header", ["x_cap_request_id", "x_cap_requestid"])
def test_the_request_id_is_found_under_both_names(header: str) -> None:
    assert error_of(reply(b"", 500, **{header: "req-2"})).request_id == "req-2"


@pytest.mark.parametrize("http_status", [200, 201, 400, 401, 403, 404, 500, 503])
@pytest.mark.parametrize("code", [401, "401", 498, "498"])
def test_a_refused_token_is_known_by_the_code_in_any_envelope_under_any_http_status(
    code: Any, http_status: int
) -> None:
    for envelope in ENVELOPES:
        error = error_of(reply(envelope(code), http_status))
        assert type(error) is TokenRefusedError
        assert (error.http_status, error.api_code) == (http_status, str(code))


@pytest.mark.parametrize("body", [b"", b"{}", b"no", HTML.encode(), b"[]", json.dumps(coupon(500)).encode()])
@pytest.mark.parametrize("status", [401, 498])
def test_a_refused_token_is_known_by_the_http_status_under_any_body(status: int, body: bytes) -> None:
    assert type(error_of(reply(body, status))) is TokenRefusedError


@pytest.mark.parametrize("flag", [False, "false", "FALSE", " False "])
@pytest.mark.parametrize(
    "form",
    [
        lambda flag: {"success": flag, "status": 200, "message": "Bad row", "result": {}},
        lambda flag: {"success": flag, "message": "Bad row"},
        lambda flag: {"status": {"success": flag, "code": 200, "message": "Bad row"}},
        lambda flag: {"response": {"status": {"success": flag, "code": "200", "message": "Bad row"}}},
        lambda flag: {"success": flag, "error": "Bad row"},
        lambda flag: {"success": flag, "error": {"message": "Bad row"}},
        lambda flag: {"success": flag, "errors": "Bad row"},
        lambda flag: {"success": flag, "errors": ["Bad row"]},
        lambda flag: {"success": flag, "errors": [{"message": "Bad row"}]},
    ],
)
def test_success_false_is_an_error_with_its_text_in_any_form(form: Callable[[Any], Any], flag: Any) -> None:
    error = error_of(reply(form(flag)))
    assert type(error) is CapillaryApiError
    assert error.message == "Capillary answered with an error: Bad row"


@pytest.mark.parametrize("code", [401, "498"])
def test_a_code_beside_success_false_counts_where_the_status_says_nothing(code: Any) -> None:
    for extra in ({}, {"status": 200}, {"status": "x"}):
        error = error_of(reply({"success": False, "code": code, **extra}))
        assert (type(error), error.api_code) == (TokenRefusedError, str(code))


@pytest.mark.parametrize("status", [400, "400", 461, "599", 1000])
def test_a_status_of_400_or_more_is_an_error_even_with_success_true(status: Any) -> None:
    error = error_of(reply({"success": True, "status": status, "result": {}}))
    assert (type(error), error.api_code) == (CapillaryApiError, str(status))


@pytest.mark.parametrize(
    "payload",
    [
        {"success": True, "status": 200, "result": {}},
        {"success": "true", "status": "200"},
        {"data": {}, "errors": None, "warnings": None},
        {"data": {}, "errors": [], "warnings": [{"code": 401, "message": "old"}]},
        {"response": {"status": {"success": "true", "code": "200", "message": "fine"}}},
        {"status": {"success": True, "code": 200}},
        {"status": "COMPLETED"},
        {},
    ],
)
def test_a_body_that_reports_no_failure_is_a_payload(payload: dict[str, Any]) -> None:
    assert read_payload(reply(payload)) == payload


def test_the_first_of_several_errors_is_reported() -> None:
    payload = {"errors": [None, {"code": 401, "message": "first"}, {"code": 500, "message": "second"}]}
    assert "first" in str(error_of(reply(payload)))


# --- what is not JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "an empty body"),
        (b" \n", "an empty body"),
        (b"<html>", "an HTML page"),
        (HTML.encode(), "an HTML page"),
        (b"Incorrect or invalid input.", "a body that is not JSON"),
        (b'{"success": tr', "a body that is not JSON"),
        (b"\xff\xfe\x00", "a body that is not JSON"),
        (b"[" * 100_000, "a body that is not JSON"),
        (b"[]", "JSON of another form"),
        (b'"text"', "JSON of another form"),
        (b"17", "JSON of another form"),
    ],
)
def test_a_success_without_a_json_object_is_named_and_may_pass(body: bytes, named: str) -> None:
    error = error_of(reply(body, 200, x_cap_request_id="req-3"))
    assert type(error) is CapillaryResponseError
    assert error.message == f"Capillary answered with {named} where a JSON object was expected"
    assert (error.http_status, error.request_id, error.is_transient) == (200, "req-3", True)


def test_null_is_no_object_either() -> None:
    error = error_of(reply(b"null"))
    assert (type(error), error.is_transient) == (CapillaryResponseError, True)


@pytest.mark.parametrize("body", [b"", b"{}", b"Internal error", HTML.encode(), b"[]"])
def test_an_http_error_without_an_envelope_is_still_that_error(body: bytes) -> None:
    error = error_of(reply(body, 500, content_type="text/plain"))
    assert (type(error), error.http_status, error.api_code, error.is_transient) == (CapillaryApiError, 500, None, True)


@pytest.mark.parametrize("body", [{"message": "Down for now"}, {"error": "Down for now"}, {"errors": "Down for now"}])
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_the_message_of_an_http_error_without_an_envelope_is_quoted(body: Any, status: int) -> None:
    message = error_of(reply(json.dumps(body), status)).message
    assert "Down for now" in message


def test_a_body_is_never_quoted() -> None:
    error = error_of(reply("customer 919999999999 is unknown", 500))
    assert str(error) == "Capillary answered with an error: a body that is not JSON (HTTP 500)"
    assert "919999999999" not in str(error_of(reply(json.dumps("customer 919999999999 is unknown"), 500)))


def test_a_signed_url_in_a_message_is_quoted_without_its_signature() -> None:
    error = error_of(reply({"message": "go to https://s3.example.com/x?X-Amz-Signature=abc"}, 500))
    assert error.message == "Capillary answered with an error: go to https://s3.example.com/x?***"


def test_an_html_403_is_the_edge_and_not_oauth() -> None:
    error = error_of(reply(HTML, 403, content_type="text/html; charset=UTF-8"))
    assert type(error) is CapillaryApiError
    assert error.message.startswith("the edge in front of Capillary refused the request with an HTML page")
    assert error.http_status == 403
    assert error.is_transient is False


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("body", [b"", json.dumps(v11(401)).encode()])
def test_a_redirect_is_not_followed_and_names_the_remedy(status: int, body: bytes) -> None:
    error = error_of(reply(body, status, location="https://evil.example.com/"))
    assert type(error) is CapillaryResponseError
    assert error.is_transient is False
    assert "check the host of the connection" in error.message
    assert "evil" not in str(error)


# --- what may pass -----------------------------------------------------------------------------------------------


def test_exactly_the_statuses_of_the_retry_set_may_pass() -> None:
    passing = {status for status in range(300, 600) if error_of(reply(b"", status)).is_transient}
    assert passing == RETRY_STATUSES


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_exactly_the_codes_of_the_retry_set_may_pass_under_http_200(envelope: Envelope) -> None:
    codes = [*range(400, 600), *range(3990, 4010)]
    passing = {code for code in codes if error_of(reply(envelope(code))).is_transient}
    assert passing == RETRY_CODES


def test_a_521_in_a_body_is_a_business_code_and_under_http_the_edge() -> None:
    assert error_of(reply(coupon(521))).is_transient is False
    assert error_of(reply(b"", 521)).is_transient is True


@pytest.mark.parametrize("code", [4001, "4001"])
def test_an_authorization_service_that_is_down_may_come_back(code: Any) -> None:
    error = error_of(reply(v2(code), 503))
    assert (type(error), error.api_code, error.is_transient) == (CapillaryApiError, "4001", True)


@pytest.mark.parametrize("response", [reply(b"", 429), reply(v3(429)), reply(v11("429")), reply(v2(429), 400)])
def test_a_rate_limit_is_known_by_status_or_code(response: Response) -> None:
    error = error_of(response)
    assert (type(error), error.is_transient) == (CapillaryRateLimitError, True)
    assert error.message.startswith("Capillary's rate limit is reached")


@pytest.mark.parametrize("status", [404, 405])
def test_a_path_that_is_not_there_is_a_wrong_host_and_a_thing_that_is_not_there_an_answer(status: int) -> None:
    wrong_host = error_of(reply(HTML, status))
    assert (type(wrong_host), wrong_host.is_transient) == (CapillaryResponseError, False)
    assert wrong_host.message.startswith("this host has no such endpoint, it answered with an HTML page")
    assert type(error_of(reply(coupon(status, "No such series"), status))) is CapillaryApiError


def test_a_wrong_request_stays_wrong() -> None:
    assert error_of(reply(coupon(500), 400)).is_transient is False


# --- messages ----------------------------------------------------------------------------------------------------


def test_a_message_becomes_one_printable_line() -> None:
    error = error_of(reply(auth(400, "two\nlines\t\x1b[31mred\u202e  \ud800end")))
    assert error.message == "Capillary answered with an error: two lines [31mred end"


def test_a_long_message_is_cut() -> None:
    error = error_of(reply(auth(400, "x" * 5_000)))
    assert error.message == "Capillary answered with an error: " + "x" * 299 + "…"


@pytest.mark.parametrize("before", [0, 280, 285, 290, 299, 400])
@pytest.mark.parametrize("code", [400, 401, 403, 429, 320001])
def test_a_secret_that_the_server_echoes_does_not_come_back_whole_or_in_part(code: int, before: int) -> None:
    for envelope in ENVELOPES:
        error = error_of(reply(envelope(code, "x" * before + f" {SECRET} was sent")), secrets=[SECRET, ""])
        shown = str(error) + repr(error) + repr(error.args) + json.dumps(error.to_dict())
        assert SECRET not in shown
        # Cutting a long message must not leave the beginning of the secret behind.
        assert SECRET[:4] not in shown


def test_a_secret_within_a_secret_does_not_uncover_the_rest() -> None:
    error = error_of(reply(auth(400, "sent abcdef")), secrets=["abc", "abcdef"])
    assert "def" not in error.message


def test_what_is_no_secret_is_still_shown_next_to_one() -> None:
    error = error_of(reply(auth(400, f"secret {SECRET} of org 7 is wrong")), secrets=[SECRET])
    assert error.message == "Capillary answered with an error: secret *** of org 7 is wrong"


# --- numbers -----------------------------------------------------------------------------------------------------


def test_only_an_object_counts_as_one() -> None:
    assert decode_object(b'{"a": 1}') == {"a": 1}
    assert [decode_object(body) for body in (b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000)] == [None] * 6


@examples(100)
@given(answers, any_text)
def test_no_answer_however_strange_ends_in_anything_but_a_payload_or_an_error_of_ours(
    response: Response, secret: str
) -> None:
    payload, error = attempt(lambda: read_payload(response, secrets=[secret]))
    if error is not None:
        assert json.loads(json.dumps(error.to_dict()))["http_status"] == response.status
    else:
        assert isinstance(payload, dict)
        assert 200 <= response.status < 300
