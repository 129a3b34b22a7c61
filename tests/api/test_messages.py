# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given

from airflow_provider_capillary.api.exchange import Mask, Send
from airflow_provider_capillary.api.messages import Answer, ApiRequest, without_query
from airflow_provider_capillary.api.tokens import Token
from tests.api.driving import any_text, examples


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
    assert len({Answer(200, {"a": "b"}, b""), Answer(200, {"a": "b"}, b"")}) == 1


def test_no_repr_shows_headers_or_bodies() -> None:
    request = ApiRequest("POST", "https://h/", headers={"T": "tok-secret"}, body=b"body-secret")
    answer = Answer(200, {"set-cookie": "tok-secret"}, b"body-secret", rest="body-secret")
    for shown in (repr(request), repr(Send(request)), repr(answer), str(request), str(answer)):
        assert "secret" not in shown


def test_no_repr_shows_a_token() -> None:
    assert "secret" not in repr(Token("tok-secret", 5.0)) + repr(Mask("tok-secret")) + str(Mask("tok-secret"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/p/q?sig=1#f", "https://h/p/q"),
        ("https://user:pw@h:8443/p?sig=1", "https://h:8443/p"),
        ("https://a@b@h/p", "https://h/p"),
        ("https://[::1]:9/p?x", "https://[::1]:9/p"),
        ("/p?sig=1", "/p"),
        ("https://[::1/p?sig=1", "(malformed URL)"),
    ],
)
def test_a_url_is_shown_without_query_fragment_and_credentials(url: str, shown: str) -> None:
    assert without_query(url) == shown


@examples(100)
@given(any_text)
def test_any_text_can_be_shown_as_a_url(text: str) -> None:
    assert isinstance(without_query(text), str)
    assert "sig-secret" not in without_query(f"https://host/{text}?sig-secret")
