# SPDX-License-Identifier: Apache-2.0
"""Authentication type bearer: a ready token in place of key and secret, sent as it is and never fetched."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_capillary.api.download import read_file
from airflow_provider_capillary.api.error_files import DownloadSource, UrlSource
from airflow_provider_capillary.api.errors import (
    CapillaryAccessError,
    CapillaryApiError,
    CapillaryAuthError,
    CapillaryConfigurationError,
)
from airflow_provider_capillary.api.secrecy import tail
from airflow_provider_capillary.api.settings import ConnectionSettings
from airflow_provider_capillary.api.tokens import end_of_token
from tests.api.flows import (
    API,
    ENVELOPES,
    HEADER_VALUE,
    KEY,
    SECRET,
    TOKEN_HEADER,
    Client,
    Conversation,
    reply,
    sample,
    settings,
    token_reply,
    v11,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
EMPTY = reply(sample("status-empty"))
REFUSED = [*(reply(form(401)) for form in ENVELOPES), reply(b"", 401), reply(b"", 498), reply(v11("498"))]
RENEW = "store a new token as Client secret (password) of the connection, in Airflow or in the secrets backend"


def jwt(**claims: Any) -> str:
    parts = ({"alg": "RS256"}, {"source": "WEBAPP", "orgID": 0} | claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join([*encoded, "the-signature-of-this-token-is-secret"])


LIVE = jwt(exp=(NOW + timedelta(hours=3)).timestamp())


def bearer(
    token: Any = LIVE, /, *, conn_id: str = "capillary_eu", login: Any = None, **extra: Any
) -> ConnectionSettings:
    return settings(conn_id, login=login, password=token, extra={"auth_type": "bearer", **extra})


def refusal(*args: Any, **given: Any) -> str:
    with pytest.raises(CapillaryConfigurationError) as caught:
        bearer(*args, **given)
    return str(caught.value).removeprefix("Connection 'capillary_eu', ")


def sent(talk: Conversation) -> list[tuple[str | None, str | None]]:
    """What each request carried: the header of a ready token, and that of an OAuth token."""
    return [(request.headers.get("Authorization"), request.headers.get(TOKEN_HEADER)) for request in talk.requests]


# --- the connection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["bearer", "Bearer", " BEARER "])
@pytest.mark.parametrize("login", [None, "", "  "])
def test_a_connection_with_a_ready_token_needs_no_more_than_host_and_token(written: str, login: str | None) -> None:
    read = settings(login=login, password="token-1", extra={"auth_type": written})
    assert read == ConnectionSettings(
        conn_id="capillary_test",
        scheme="https",
        host="eu.api.capillarytech.com",
        port=443,
        client_key="",
        client_secret="token-1",
        auth_url="",
        auth_type="bearer",
        auth_header_name="Authorization",
    )
    assert read.ready_token == "token-1"


@pytest.mark.parametrize("written", [None, "", "oauth", "OAuth", " oauth "])
def test_without_a_type_or_with_oauth_there_is_no_ready_token(written: str | None) -> None:
    assert settings(extra={"auth_type": written}).ready_token is None


@pytest.mark.parametrize("value", ["basic", "token", SECRET, "oauth2", "Bearer x"])
def test_another_authentication_type_is_refused_unshown(value: str) -> None:
    with pytest.raises(CapillaryConfigurationError) as caught:
        settings("capillary_eu", extra={"auth_type": value})
    assert str(caught.value) == "Connection 'capillary_eu', field 'Authentication type': it must be oauth or bearer"


@pytest.mark.parametrize(
    "stored", ["token-1", "Bearer token-1", "bearer token-1", "BEARER   token-1", " token-1 ", " Bearer token-1 "]
)
def test_a_token_is_taken_with_and_without_the_word_bearer(stored: str) -> None:
    assert bearer(stored).ready_token == "token-1"


@pytest.mark.parametrize("stored", ["bearer-1", "BearerToken", "bearer.a.b"])
def test_a_token_that_begins_like_the_word_is_kept_whole(stored: str) -> None:
    assert bearer(stored).ready_token == stored


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        (None, "it is not set; with Authentication type bearer it is the token"),
        ("", "it is not set; with Authentication type bearer it is the token"),
        ("  ", "it is not set; with Authentication type bearer it is the token"),
        ("Bearer", "it is not set; with Authentication type bearer it is the token"),
        ("Bearer  ", "it is not set; with Authentication type bearer it is the token"),
        ("hidden\n", "it has a control character in it, such as a line break; copy the token once more"),
        ("Bearer\thidden", "it has a control character in it, such as a line break; copy the token once more"),
        ("hidden\x7f", "it has a control character in it, such as a line break; copy the token once more"),
        ("hidden hidden", "it has a space in it, which no token has; store the token alone"),
        ("Authorization: Bearer hidden", "it has a space in it, which no token has; store the token alone"),
        ("hidden\u00a0hidden", "it has a space in it, which no token has; store the token alone"),
        ("hidd\u00e9n", "it has characters other than ASCII in it, which no token has; copy the token once more"),
        ("hidden\ud800", "it has characters other than ASCII in it, which no token has; copy the token once more"),
        ("None", "it is None or null as text; clear the field, or correct what fills it in"),
        (["hidden"], "it must be text, but is a list"),
    ],
    ids=repr,
)
def test_what_is_no_token_is_refused_by_name_and_unshown(stored: Any, problem: str) -> None:
    assert refusal(stored) == f"field 'Client secret': {problem}"


def test_a_client_key_beside_a_ready_token_is_refused() -> None:
    # The password would be a client secret, which must not be sent as a token.
    assert refusal(SECRET, login=KEY) == (
        "field 'Client key': it has no use with Authentication type bearer, which sends the Client secret as a ready "
        "token; clear it, or set Authentication type to oauth"
    )


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_the_header_of_a_ready_token_is_not_for_other_values(name: str) -> None:
    assert refusal(headers={name: HEADER_VALUE}) == (
        f"field 'Extra headers': {name!r} is for the token in the Client secret; remove it"
    )
    # With OAuth, the token has a header of its own.
    assert settings(extra={"headers": {name: HEADER_VALUE}}).headers == {name: HEADER_VALUE}


def test_fields_without_use_are_named_and_not_read() -> None:
    read = bearer(auth_url="ftp://no url", auth_header_name="no header name")
    assert read.unused_fields == ("Authentication URL", "auth_header_name")
    assert (read.auth_url, read.auth_header_name, read.unknown_extras) == ("", "Authorization", ())
    assert bearer().unused_fields == ()
    assert settings(extra={"auth_url": f"{API}/token"}).unused_fields == ()


# --- its end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "end"),
    [
        ({"exp": 1_772_366_400}, NOW),
        ({"exp": "1772366400"}, NOW),
        ({"exp": 1_772_366_400.5}, NOW + timedelta(seconds=0.5)),
        ({}, None),
        ({"exp": None}, None),
        ({"exp": True}, None),
        ({"exp": "later"}, None),
        ({"exp": 0}, None),
        ({"exp": -1}, None),
        ({"exp": 1_772_366_400_000}, None),  # milliseconds
        ({"exp": 10**40}, None),
        ({"exp": [1_772_366_400]}, None),
    ],
    ids=str,
)
def test_the_end_of_a_token_is_its_exp_claim(claims: dict[str, Any], end: datetime | None) -> None:
    assert end_of_token(jwt(**claims)) == end


@pytest.mark.parametrize(
    "token", ["opaque", "", "..", "a.b.c", "a.!!!.c", "a.W10.c", "a.bnVsbA.c", "a.%.c", "a.\xe9.c"]
)
def test_a_token_without_readable_claims_has_no_known_end(token: str) -> None:
    assert end_of_token(token) is None


# --- sending it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [LIVE, jwt(), "opaque"], ids=["with exp", "without exp", "opaque"])
def test_a_ready_token_is_sent_as_it_is_and_none_is_fetched(token: str) -> None:
    client = Client(bearer(f"Bearer {token}"))
    for _ in range(2):
        talk = client.get_jobs(EMPTY)
        assert talk.kinds == ["SendRequest"]
        assert sent(talk) == [(f"Bearer {token}", None)]


def test_it_goes_to_the_api_host_only() -> None:
    client = Client(bearer())
    file = reply(b"message,code\n", content_length="13")
    talk = client.run(read_file(client.api, UrlSource("https://files.example.com/f?x=1")), file)
    assert sent(talk) == [(None, None)]


@pytest.mark.parametrize("past", [timedelta(0), timedelta(minutes=1), timedelta(days=400)], ids=str)
def test_an_expired_token_is_not_sent(past: timedelta) -> None:
    ended_at = NOW - past
    talk = Client(bearer(jwt(exp=ended_at.timestamp()))).get_jobs()
    assert talk.kinds == []
    assert type(talk.error) is CapillaryAuthError
    assert talk.error.is_transient is False
    assert talk.error.message.startswith(
        "the ready token of connection 'capillary_eu' (Authentication type bearer) expired at "
        f"{ended_at:%Y-%m-%d %H:%M} UTC, by the clock of this machine: {RENEW}"
    )


def test_a_token_that_expires_while_a_request_waits_for_the_limit_is_not_sent() -> None:
    client = Client(bearer(jwt(exp=(NOW + timedelta(seconds=1)).timestamp())), requests_per_minute=1)
    client.api._now = lambda: NOW + timedelta(seconds=client.clock.now - 1_000)
    assert client.get_jobs(EMPTY).error is None
    talk = client.get_jobs()
    assert talk.kinds == ["Sleep"]
    assert "expired at 2026-03-01 12:00 UTC" in str(talk.error)


@pytest.mark.parametrize("response", REFUSED, ids=lambda each: f"{each.status} {each.body[:40]!r}")
def test_a_refused_token_is_sent_once_and_reported_with_the_remedy(response: Any) -> None:
    talk = Client(bearer()).get_jobs(response)
    assert talk.kinds == ["SendRequest"]
    assert type(talk.error) is CapillaryAuthError
    assert talk.error.message.startswith("Capillary does not accept the token")
    assert f"it is the ready token of connection 'capillary_eu' (Authentication type bearer): {RENEW}" in str(
        talk.error
    )


def test_a_refusal_that_echoes_the_token_does_not_show_it() -> None:
    talk = Client(bearer()).get_jobs(reply(v11("401", f"no good: Bearer {LIVE}")))
    assert talk.error is not None
    assert "no good: Bearer ***" in str(talk.error)
    assert LIVE not in repr(talk.error.to_dict())


def test_a_transient_error_is_retried_with_the_same_token() -> None:
    talk = Client(bearer()).get_jobs(reply(b"", 503), EMPTY)
    assert sent(talk) == [(f"Bearer {LIVE}", None)] * 2


# --- the alternatives --------------------------------------------------------------------------------------------

HANDLE = DownloadSource("error_redemption_upload_1619_1")
DOWNLOAD_REFUSALS = [
    (reply(b"", 401), CapillaryAuthError),
    (reply(v11("401")), CapillaryAuthError),
    (reply({"message": "no"}, 403), CapillaryAccessError),
    (reply(v11("403")), CapillaryAccessError),
]


@pytest.mark.parametrize(("response", "kind"), DOWNLOAD_REFUSALS, ids=str)
def test_a_refused_download_with_oauth_names_bearer_another_host_and_the_template(response: Any, kind: type) -> None:
    client = Client().with_token()
    script = [response] if kind is CapillaryAccessError else [response, token_reply("token-1"), response]
    talk = client.run(read_file(client.api, HANDLE), *script)
    assert type(talk.error) is kind
    for words in ("Authentication type bearer", "another API host", "the Error file URL"):
        assert words in str(talk.error)
    assert (talk.error.http_status, talk.error.is_transient) == (response.status, False)


@pytest.mark.parametrize(("response", "kind"), DOWNLOAD_REFUSALS, ids=str)
def test_a_refused_download_with_a_ready_token_names_oauth_the_org_header_and_the_template(
    response: Any, kind: type
) -> None:
    client = Client(bearer())
    talk = client.run(read_file(client.api, HANDLE), response)
    assert type(talk.error) is kind
    for words in ("Authentication type oauth", "X-CAP-API-AUTH-ORG-ID", "the Error file URL"):
        assert words in str(talk.error)


@pytest.mark.parametrize(
    ("source", "script"),
    [
        # The token call refuses the credentials: the download was not even tried.
        (HANDLE, [reply(sample("token-bad-credentials"))]),
        (HANDLE, [reply({"message": "Access forbidden"}, 403)]),
        # The edge, which is not about credentials.
        (HANDLE, [token_reply(), reply("<html>", 403)]),
        # A URL that Capillary gave out with the job.
        (UrlSource(f"{API}/files/1"), [token_reply(), reply(v11("403"))]),
    ],
    ids=["wrong credentials", "no token", "edge", "url"],
)
def test_no_other_error_of_a_download_names_them(source: Any, script: list[Any]) -> None:
    client = Client()
    talk = client.run(read_file(client.api, source), *script)
    assert isinstance(talk.error, CapillaryApiError)
    assert "Authentication type bearer" not in str(talk.error)


def test_no_alternatives_are_named_for_a_status_call() -> None:
    for client in (Client().with_token(), Client(bearer())):
        assert "Authentication type oauth" not in str(client.get_jobs(reply(v11("403"))).error)


# --- what is hidden ----------------------------------------------------------------------------------------------


def test_neither_repr_nor_identity_show_the_token() -> None:
    read = bearer()
    for shown in (repr(read), str(read), read.identity, repr(Client(read).get_token().value)):
        assert LIVE not in shown
        assert tail(LIVE) not in shown


def test_the_token_is_a_secret_and_its_end_is_masked() -> None:
    read = bearer(headers={"X-Org": HEADER_VALUE})
    assert set(read.secrets) == {LIVE, HEADER_VALUE}
    assert set(read.masks) == {tail(LIVE), HEADER_VALUE}


def test_connections_with_different_tokens_differ() -> None:
    assert bearer("token-1").identity != bearer("token-2").identity
