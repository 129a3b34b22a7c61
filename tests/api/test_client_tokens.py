# SPDX-License-Identifier: Apache-2.0
"""How a token is got, kept, given up and shared."""

from __future__ import annotations

import base64
import gc
import json
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryError,
    CapillaryResponseError,
    CapillaryTransportError,
)
from airflow_provider_capillary.api.flow import AwaitToken, MaskSecret, SendRequest
from airflow_provider_capillary.api.http_messages import Response, TransportFailure
from airflow_provider_capillary.api.tokens import Token
from airflow_provider_capillary.api.upload_kinds import REDEEM
from tests.api.flows import (
    ENVELOPES,
    KEY,
    SECRET,
    TOKEN_HEADER,
    TOKEN_URL,
    Client,
    Conversation,
    coupon,
    reply,
    sample,
    settings,
    token_reply,
    v2,
    v3,
    v11,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: How a message begins that is about refused credentials.
NAMED = "Connection 'capillary_test': "
EMPTY = reply(sample("status-empty"))
SAMPLE_TOKEN = "eyJraWQiOiJrMSJ9.example.signature"


def sent_tokens(talk: Conversation) -> list[str | None]:
    """The token that each request carried; None for the requests for one."""
    return [request.headers.get(TOKEN_HEADER) for request in talk.requests]


# --- getting one -------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_by_posting_key_and_secret_as_json() -> None:
    talk = Client().get_token(reply(sample("token-ok")))
    (request,) = talk.requests
    assert (request.method, request.url) == ("POST", TOKEN_URL)
    assert dict(request.headers) == {"Accept": "application/json", "Content-Type": "application/json"}
    assert json.loads(request.body or b"") == {"key": KEY, "secret": SECRET}
    assert (request.is_safe, request.needs_token, request.stream) == (True, False, False)


@pytest.mark.parametrize(("name", "ttl"), [("token-ok", 300), ("token-ok-newer", 3600)])
def test_both_samples_of_a_token_are_read(name: str, ttl: int) -> None:
    client = Client()
    token = client.get_token(reply(sample(name))).value
    assert token == Token(SAMPLE_TOKEN, client.clock.now + ttl - 60)


def test_a_secret_of_any_characters_is_posted_as_it_is() -> None:
    secret = 'ä"\\ \u2028{}'
    (request,) = Client(settings(password=secret)).get_token(token_reply()).requests
    assert json.loads(request.body or b"")["secret"] == secret


def test_a_token_is_masked_before_it_is_used() -> None:
    talk = Client().get_jobs(token_reply("token-1"), EMPTY)
    assert talk.kinds == ["SendRequest", "MaskSecret", "SendRequest"]
    assert talk.steps[1] == MaskSecret("token-1")
    assert sent_tokens(talk) == [None, "token-1"]


def test_a_token_that_is_not_masked_yet_is_not_shared_yet() -> None:
    client = Client()
    leader = client.start(client.api.get_token()).give(token_reply())
    follower = client.start(client.api.get_token())
    assert isinstance(leader.pending, MaskSecret)
    assert isinstance(follower.pending, AwaitToken)
    assert not follower.pending.future.done()


def test_a_token_is_asked_for_once_and_used_again() -> None:
    client = Client()
    first = client.get_jobs(token_reply("token-1"), EMPTY)
    second = client.get_jobs(EMPTY)
    third = client.get_jobs(EMPTY)
    assert sent_tokens(first) + sent_tokens(second) + sent_tokens(third) == [None, "token-1", "token-1", "token-1"]


@pytest.mark.parametrize(
    ("ttl", "used_for"),
    [
        (300, 240),
        (600, 540),
        (3600, 3540),
        (100, 80),
        (10, 8),
        ("300", 240),
        (" 3600 ", 3540),
        (300.0, 240),
        (None, 240),
        (0, 240),
        (-1, 240),
        ("", 240),
        ("soon", 240),
        (True, 240),
        ([], 240),
        ({}, 240),
        (float("nan"), 240),
    ],
    ids=str,
)
def test_a_token_is_used_until_sixty_seconds_or_a_fifth_of_its_life_before_its_end(ttl: Any, used_for: float) -> None:
    client = Client()
    client.get_token(token_reply("token-1", ttl))
    client.clock.now += used_for - 0.01
    assert sent_tokens(client.get_jobs(EMPTY)) == ["token-1"]
    client.clock.now += 0.02
    assert sent_tokens(client.get_jobs(token_reply("token-2"), EMPTY)) == [None, "token-2"]


def test_a_lifetime_that_is_not_given_counts_as_five_minutes() -> None:
    client = Client()
    client.get_token(reply({"data": {"accessToken": "token-1"}}))
    assert client.tokens.acquire() == (Token("token-1", client.clock.now + 240), False)


def test_a_life_beyond_all_measure_is_a_token_all_the_same() -> None:
    talk = Client().get_jobs(token_reply("token-1", 10**400), EMPTY)
    assert sent_tokens(talk) == [None, "token-1"]


def test_a_life_so_short_that_it_is_over_at_once_still_serves_one_request() -> None:
    client = Client()
    leader = client.start(client.api.get_upload_jobs(REDEEM, 1))
    client.clock.now += 30
    assert sent_tokens(leader.run(token_reply("token-1", 1), EMPTY)) == [None, "token-1"]


def test_the_life_of_a_token_begins_when_its_request_is_sent_and_not_with_an_attempt_that_failed() -> None:
    client = Client()
    client.get_token(reply(b"", 503, retry_after="100"), token_reply("token-1", 120))
    assert sent_tokens(client.get_jobs(EMPTY)) == ["token-1"]


def test_the_time_that_the_answer_took_counts_as_life() -> None:
    client = Client()
    talk = client.start(client.api.get_token())
    client.clock.now += 25
    talk.run(token_reply("token-1", 300))
    assert talk.value.use_until == 1_000 + 240


def test_a_token_that_went_stale_while_the_limit_held_the_request_back_is_not_sent() -> None:
    client = Client(requests_per_minute=1)
    talk = client.start(client.api.get_upload_jobs(REDEEM, 1))
    talk.run(token_reply("token-1", 60))
    assert client.clock.now >= 1_060.0
    talk.run(token_reply("token-2", 600), EMPTY)
    assert sent_tokens(talk) == [None, None, "token-2"]


def test_a_token_that_is_still_good_after_the_wait_for_the_limit_is_sent() -> None:
    client = Client(requests_per_minute=1)
    talk = client.get_jobs(token_reply("token-1", 600), EMPTY)
    assert client.clock.now >= 1_060.0
    assert sent_tokens(talk) == [None, "token-1"]


@pytest.mark.parametrize("between", [lambda client: None, lambda client: gc.collect()])
def test_the_wait_of_a_retry_is_not_lived_through_with_an_old_token(between: Callable[[Client], None]) -> None:
    client = Client().with_token("token-0", ttl=300)
    talk = client.start(client.api.get_upload_jobs(REDEEM, 1)).give(reply(b"", 503, retry_after="120"))
    client.clock.now += 180
    between(client)
    talk.run(token_reply("token-1"), EMPTY)
    assert sent_tokens(talk) == ["token-0", None, "token-1"]


# --- refused tokens ----------------------------------------------------------------------------------------------


def refusals() -> list[Response]:
    made = [reply(body, status) for status in (401, 498) for body in (b"", b"{}", "<html>", coupon(500))]
    for http_status in (200, 400, 401, 403, 404, 500, 503):
        for code in (401, "401", 498, "498"):
            made += [reply(envelope(code), http_status) for envelope in ENVELOPES]
    return made


def test_a_refused_token_is_dropped_and_the_request_sent_once_more_with_a_new_one() -> None:
    for refusal in refusals():
        client = Client().with_token("token-0")
        talk = client.get_jobs(refusal, token_reply("token-1"), EMPTY)
        assert talk.value == []
        assert talk.kinds == ["SendRequest", "SendRequest", "MaskSecret", "SendRequest"], refusal
        assert sent_tokens(talk) == ["token-0", None, "token-1"]


@pytest.mark.parametrize("name", ["error-401-v11", "error-498-v11"])
def test_the_samples_of_a_refused_token_are_got_over(name: str) -> None:
    talk = Client().with_token("token-0").get_jobs(reply(sample(name)), token_reply("token-1"), EMPTY)
    assert sent_tokens(talk) == ["token-0", None, "token-1"]


def test_a_second_refusal_of_the_token_is_an_auth_error() -> None:
    for refusal in refusals():
        talk = Client().with_token("token-0").get_jobs(refusal, token_reply("token-1"), refusal)
        assert talk.kinds == ["SendRequest", "SendRequest", "MaskSecret", "SendRequest"]
        assert type(talk.error) is CapillaryAuthError
        assert talk.error.message == (
            f"{NAMED}Capillary refuses even a fresh token; check that the API host and the authentication URL belong "
            "to the same cluster"
        )
        assert (talk.error.http_status, talk.error.is_transient) == (refusal.status, False)


def test_a_second_refusal_leaves_no_token_behind() -> None:
    client = Client().with_token("token-0")
    client.get_jobs(reply(b"", 401), token_reply("token-1"), reply(b"", 401))
    assert sent_tokens(client.get_jobs(token_reply("token-2"), EMPTY)) == [None, "token-2"]


def test_a_refusal_does_not_use_up_attempts_and_attempts_do_not_use_up_the_refusal() -> None:
    lost = TransportFailure("lost")
    talk = (
        Client().with_token("token-0").get_jobs(lost, lost, lost, lost, reply(b"", 401), token_reply("token-1"), EMPTY)
    )
    assert talk.value == []


@pytest.mark.parametrize("before", range(5))
def test_with_a_refusal_at_any_time_there_are_five_attempts(before: int) -> None:
    lost, refusal = TransportFailure("lost"), [reply(b"", 401), token_reply("token-1")]
    script = [*[lost] * before, *refusal, *[lost] * (4 - before)]

    assert Client().with_token("token-0").get_jobs(*script, EMPTY).value == []
    talk = Client().with_token("token-0").get_jobs(*script, lost)
    assert type(talk.error) is CapillaryTransportError


def test_a_late_refusal_of_the_old_token_costs_no_second_new_one() -> None:
    client = Client().with_token("token-0")
    first = client.start(client.api.get_upload_jobs(REDEEM, 1))
    second = client.start(client.api.get_upload_jobs(REDEEM, 2))
    first.run(reply(b"", 401), token_reply("token-1"), EMPTY)
    second.run(reply(b"", 401), EMPTY)
    assert sent_tokens(first) == ["token-0", None, "token-1"]
    assert sent_tokens(second) == ["token-0", "token-1"]


# --- wrong credentials -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 403, 500, 503])
def test_wrong_credentials_are_an_auth_error_at_once(status: int) -> None:
    talk = Client().get_jobs(reply(sample("token-bad-credentials"), status, x_cap_request_id="req-1"))
    assert talk.kinds == ["SendRequest"]
    assert type(talk.error) is CapillaryAuthError
    assert str(talk.error) == (
        f"{NAMED}Capillary does not accept the client key and secret: Invalid client key and secret "
        f"(HTTP {status}, code 320001, X-CAP-REQUEST-ID req-1)"
    )


@pytest.mark.parametrize("response", [reply(b"", 401), reply(b"{}", 498), reply(v3(401)), reply(coupon("498"))])
def test_a_refusal_by_the_token_endpoint_is_about_the_credentials(response: Response) -> None:
    talk = Client().get_jobs(response)
    assert talk.kinds == ["SendRequest"]
    assert type(talk.error) is CapillaryAuthError
    said = ": Refused" if b"Refused" in response.body else ""
    assert talk.error.message == f"{NAMED}Capillary does not accept the client key and secret{said}"
    assert talk.error.http_status == response.status


EITHER = "either the client key or the secret is wrong, or the API client has no access group"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"message": "Access forbidden"}, ": Access forbidden"),
        ({"error": "forbidden"}, ": forbidden"),
        ({"error": {"message": "forbidden"}}, ": forbidden"),
        ({"error_description": "no such client"}, ": no such client"),
        ({"message": f"{KEY} with {SECRET}\nis unknown"}, f": {KEY} with *** is unknown"),
        (v3(4000, "Access denied"), ": Access denied"),
        (v11(403, "Access denied"), ": Access denied"),
        (coupon(401, "Access denied"), ": Access denied"),
        ({"data": None}, ""),
        ([], ""),
        ("a body that is a string", ""),
    ],
    ids=str,
)
def test_a_token_call_that_is_forbidden_names_both_reasons_at_once(body: Any, said: str) -> None:
    talk = Client().get_jobs(reply(json.dumps(body), 403, x_cap_request_id="req-1"))
    assert talk.kinds == ["SendRequest"]
    assert type(talk.error) is CapillaryAuthError
    assert talk.error.message.startswith(f"{NAMED}Capillary refuses to give out a token{said}; {EITHER}: ")
    assert (talk.error.http_status, talk.error.request_id) == (403, "req-1")


@pytest.mark.parametrize("body", [v11("403"), v2(4000), coupon(403)], ids=str)
def test_so_does_one_that_says_it_in_the_body_alone(body: Any) -> None:
    talk = Client().get_jobs(reply(body))
    assert type(talk.error) is CapillaryAuthError
    assert EITHER in talk.error.message


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><title>403</title>", b"", b"Forbidden"])
def test_a_token_call_that_is_forbidden_without_json_is_the_edge(body: bytes) -> None:
    talk = Client().get_jobs(reply(body, 403))
    assert type(talk.error) is CapillaryApiError
    assert talk.error.message.startswith("the edge in front of Capillary refused the request")


def test_a_status_call_that_is_forbidden_is_still_about_access() -> None:
    talk = Client().with_token().get_jobs(reply({"message": "Access forbidden"}, 403))
    assert type(talk.error) is CapillaryAccessError
    assert talk.error.message.startswith(f"{NAMED}the API client has no access to this resource: Access forbidden; ")


# --- the life of a token -----------------------------------------------------------------------------------------

NOW = 1_772_366_400  # what `now` of the tests is: 2026-03-01 12:00:00 UTC
DATE = "Sun, 01 Mar 2026 11:00:00 GMT"


def jwt(**claims: Any) -> str:
    parts = ({"alg": "RS256"}, {"client_id": "c", "org_id": 1} | claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join([*encoded, "signature"])


@pytest.mark.parametrize("ttl", [None, 0, -1, "", "soon"])
@pytest.mark.parametrize(
    ("claims", "headers", "lifetime"),
    [
        ({"exp": NOW + 3600}, {}, 3600),
        ({"exp": str(NOW + 3600)}, {}, 3600),
        ({"iat": NOW - 9000, "exp": NOW - 9000 + 600}, {}, 600),
        ({"iat": NOW - 3600, "exp": NOW - 3600 + 600}, {"date": DATE}, 600),
        ({"iat": NOW - 3600 - 100, "exp": NOW - 3600 + 500}, {"date": DATE}, 500),
        ({"exp": NOW + 90 * 86_400}, {}, 30 * 86_400),
        ({"exp": NOW - 1}, {}, 300),
        ({"exp": None}, {}, 300),
        ({"exp": "later"}, {}, 300),
        ({}, {}, 300),
    ],
    ids=str,
)
def test_without_a_ttl_a_token_lives_as_long_as_its_claims_say(
    claims: dict[str, Any], headers: dict[str, str], lifetime: float, ttl: Any
) -> None:
    client = Client()
    response = replace(token_reply(jwt(**claims), ttl=ttl), headers=headers)
    token = client.get_token(response).value
    assert token.use_until - client.clock() == pytest.approx(lifetime - min(60, 0.2 * lifetime))


@pytest.mark.parametrize(
    "value",
    ["opaque", "a.b.c", "..", "a..c", "a.!!!.c", jwt().replace(".signature", ""), "a.W10.c", "a.bnVsbA.c", "a.%.c"],
)
def test_a_token_without_readable_claims_lives_for_five_minutes(value: str) -> None:
    client = Client()
    assert client.get_token(token_reply(value, ttl=None)).value.use_until - client.clock() == 240


def test_a_ttl_counts_more_than_the_claims() -> None:
    client = Client()
    token = client.get_token(token_reply(jwt(exp=NOW + 3600), ttl=600)).value
    assert token.use_until - client.clock() == 540


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"data": None},
        {"data": {}},
        {"data": []},
        {"data": "token"},
        {"data": {"accessToken": None, "ttlSeconds": 300}},
        {"data": {"accessToken": ""}},
        {"data": {"accessToken": "  "}},
        {"data": {"accessToken": 5}},
        {"data": {"accessToken": {"value": "x"}}},
        {"accessToken": "token-1"},
        {"data": {"token": "token-1"}, "errors": []},
    ],
    ids=str,
)
def test_an_answer_without_a_token_is_an_auth_error_at_once(payload: dict[str, Any]) -> None:
    talk = Client().get_jobs(reply(payload, 200, x_cap_request_id="req-1"))
    assert talk.kinds == ["SendRequest"]
    assert type(talk.error) is CapillaryAuthError
    assert str(talk.error) == (
        f"{NAMED}{TOKEN_URL} answered without a token; check the client key and secret, and that this is the "
        "authentication URL of your cluster (HTTP 200, X-CAP-REQUEST-ID req-1)"
    )


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX-Evil: 1", "tökén", "a\x00b", "a\u2028b", "\ud800"])
def test_a_token_that_no_header_can_carry_is_refused_unshown(token: str) -> None:
    talk = Client().get_jobs(token_reply(token))
    assert talk.kinds == ["SendRequest"]
    assert type(talk.error) is CapillaryAuthError
    assert token not in str(talk.error)


def test_a_token_comes_without_the_blanks_around_it() -> None:
    # HTTP libraries refuse a header value that begins with one.
    assert sent_tokens(Client().get_jobs(token_reply(" token-1 "), EMPTY)) == [None, "token-1"]


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (reply(b"", 503), CapillaryApiError),
        (reply(b"", 429), CapillaryApiError),
        (reply(b"", 200), CapillaryResponseError),
        (reply("<html>", 200), CapillaryResponseError),
        (TransportFailure("lost"), CapillaryTransportError),
    ],
    ids=["503", "429", "empty", "html", "lost"],
)
def test_a_transient_error_of_the_token_endpoint_is_retried_and_its_cause_is_reported(
    response: Response | TransportFailure, error: type[CapillaryError]
) -> None:
    assert sent_tokens(Client().get_jobs(response, response, token_reply("token-1"), EMPTY)) == [
        None,
        None,
        None,
        "token-1",
    ]
    talk = Client().get_jobs(*[response] * 5)
    assert isinstance(talk.error, error)
    assert talk.error.is_transient is True


def test_the_next_one_tries_anew_after_an_error() -> None:
    client = Client()
    client.get_jobs(reply(sample("token-bad-credentials")))
    assert sent_tokens(client.get_jobs(token_reply("token-1"), EMPTY)) == [None, "token-1"]


# --- one fetch for all -------------------------------------------------------------------------------------------


def together(client: Client, count: int) -> list[Conversation]:
    """As many exchanges, all begun before the first is answered."""
    return [client.start(client.api.get_upload_jobs(REDEEM, number)) for number in range(1, count + 1)]


def test_the_first_asks_for_the_token_and_the_others_wait_for_it() -> None:
    client = Client()
    leader, *followers = together(client, 5)
    assert isinstance(leader.pending, SendRequest)
    assert [type(each.pending) for each in followers] == [AwaitToken] * 4
    leader.run(token_reply("token-1"), EMPTY)
    for each in followers:
        assert each.run(EMPTY).value == []
        assert sent_tokens(each) == ["token-1"]
    assert sent_tokens(leader) == [None, "token-1"]


def test_those_who_wait_go_on_before_the_first_has_its_own_answer() -> None:
    client = Client()
    leader, follower = together(client, 2)
    leader.run(token_reply("token-1"))
    assert isinstance(leader.pending, SendRequest)
    assert follower.run(EMPTY).value == []


def test_the_error_of_the_first_is_the_error_of_all_and_nobody_asks_again() -> None:
    client = Client()
    leader, *followers = together(client, 4)
    leader.run(reply(sample("token-bad-credentials"), 400, x_cap_request_id="req-1"))
    for each in followers:
        assert each.run().is_over
        assert each.requests == []
        assert type(each.error) is CapillaryAuthError
        assert leader.error is not None
        assert str(each.error) == str(leader.error)
        assert each.error is not leader.error


def test_a_refusal_by_the_token_endpoint_is_shared_as_what_it_is() -> None:
    client = Client()
    leader, follower = together(client, 2)
    leader.run(reply(b"", 401))
    assert type(follower.run().error) is CapillaryAuthError


def test_a_shared_error_does_not_collect_the_tracebacks_of_all() -> None:
    client = Client()
    leader, *followers = together(client, 20)
    leader.run(*[reply(b"", 503)] * 5)
    lengths = {len(traceback.extract_tb(each.run().error.__traceback__)) for each in followers if each.run().error}
    assert len(lengths) == 1


@pytest.mark.parametrize(
    "progress",
    [
        lambda leader: None,
        lambda leader: leader.give(reply(b"", 503)),
        lambda leader: leader.give(token_reply("token-1")),
    ],
    ids=["at the request", "in a wait", "before masking"],
)
def test_when_the_first_is_cancelled_another_takes_over(progress: Callable[[Conversation], Any]) -> None:
    client = Client()
    leader, second, third = together(client, 3)
    progress(leader)
    leader.close()
    second.run()
    third.run()
    assert isinstance(second.pending, SendRequest)
    assert isinstance(third.pending, AwaitToken)
    second.run(token_reply("token-2"), EMPTY)
    third.run(EMPTY)
    assert sent_tokens(second) == [None, "token-2"]
    assert sent_tokens(third) == ["token-2"]


def test_when_the_first_is_thrown_away_another_takes_over() -> None:
    client = Client()
    leader, follower = together(client, 2)
    leader.exchange = iter(())  # type: ignore[assignment]
    gc.collect()
    assert sent_tokens(follower.run(token_reply("token-2"), EMPTY)) == [None, "token-2"]


@pytest.mark.parametrize("blow", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_when_the_driver_of_the_first_blows_up_another_takes_over(blow: type[BaseException]) -> None:
    client = Client()
    leader, follower = together(client, 2)
    with pytest.raises(blow):
        leader.exchange.throw(blow())
    assert sent_tokens(follower.run(token_reply("token-2"), EMPTY)) == [None, "token-2"]


def test_one_after_the_other_may_be_cancelled_and_the_last_still_gets_its_answer() -> None:
    client = Client()
    *cancelled, last = together(client, 30)
    for each in cancelled:
        each.run()
        each.close()
    assert sent_tokens(last.run(token_reply("token-1"), EMPTY)) == [None, "token-1"]


def test_who_waits_and_is_cancelled_takes_nobody_along() -> None:
    client = Client()
    leader, second, third = together(client, 3)
    second.close()
    leader.run(token_reply("token-1"), EMPTY)
    assert third.run(EMPTY).value == []


def test_a_token_that_all_use_and_that_is_refused_is_replaced_once() -> None:
    client = Client().with_token("token-0")
    talks = together(client, 5)
    for each in talks:
        each.give(reply(b"", 498))
    leader, *followers = talks
    leader.run(token_reply("token-1"), EMPTY)
    for each in followers:
        each.run(EMPTY)
    assert sum(sent_tokens(each).count(None) for each in talks) == 1
    assert [sent_tokens(each)[-1] for each in talks] == ["token-1"] * 5
