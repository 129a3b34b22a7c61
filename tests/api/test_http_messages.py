# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from airflow_provider_capillary.api.flow import MaskSecret, SendRequest
from airflow_provider_capillary.api.http_messages import ApiRequest, Response, proxy_wants_credentials
from airflow_provider_capillary.api.tokens import Token


def test_more_headers_leave_the_first_request_as_it_was() -> None:
    first = ApiRequest("GET", "https://h/", headers={"Accept": "a", "B": "b"})
    second = first.with_headers({"B": "c", "D": "d"})
    assert first.headers == {"Accept": "a", "B": "b"}
    assert second.headers == {"Accept": "a", "B": "c", "D": "d"}
    assert (second.method, second.url) == ("GET", "https://h/")


def test_a_header_replaces_that_of_the_same_name_in_another_case() -> None:
    request = ApiRequest("GET", "https://h/", headers={"Accept": "a", "X-B": "b"})
    assert request.with_headers({"ACCEPT": "c"}).headers == {"ACCEPT": "c", "X-B": "b"}


def test_requests_are_safe_to_repeat_and_carry_no_token_unless_said() -> None:
    request = ApiRequest("GET", "https://h/")
    assert (request.is_safe, request.needs_token, request.stream, request.body) == (True, False, False, None)


def test_requests_and_answers_with_headers_have_hashes() -> None:
    one, same, other = (ApiRequest("GET", "https://h/", headers={"A": value}) for value in "aab")
    assert {one, same, other} == {one, other}
    assert len({Response(200, {"a": "b"}, b""), Response(200, {"a": "b"}, b"")}) == 1


def test_no_repr_shows_headers_or_bodies() -> None:
    request = ApiRequest("POST", "https://h/", headers={"T": "tok-secret"}, body=b"body-secret")
    response = Response(200, {"set-cookie": "tok-secret"}, b"body-secret", rest="body-secret")
    for shown in (repr(request), repr(SendRequest(request)), repr(response), str(request), str(response)):
        assert "secret" not in shown


def test_no_repr_shows_a_token() -> None:
    assert "secret" not in repr(Token("tok-secret", 5.0)) + repr(MaskSecret("tok-secret")) + str(
        MaskSecret("tok-secret")
    )


def test_a_proxy_that_wants_credentials_names_where_to_write_them() -> None:
    for source, where in (("", "HTTPS_PROXY"), ("the variable ALL_PROXY", "the variable ALL_PROXY")):
        failure = proxy_wants_credentials(source)
        assert failure.message.endswith(f"{where}, as in http://user:password@host:port")
        assert not failure.is_transient
