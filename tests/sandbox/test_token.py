# SPDX-License-Identifier: Apache-2.0
"""The token endpoint, and how tokens are refused."""

from __future__ import annotations

import base64
import json
import time

import pytest

from tests.sandbox.client import COUPON_UPLOAD_PATH, DOWNLOAD_PATH, STATUS_PATH, TOKEN_PATH, UPLOAD_PATH


def test_right_credentials_give_a_token_and_its_lifetime(client):
    reply = client.ask_token()

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    answer = reply.json()
    assert answer == {
        "data": {"accessToken": answer["data"]["accessToken"], "ttlSeconds": 300},
        "errors": None,
        "warnings": None,
    }


def test_a_token_has_the_form_of_a_real_one(client):
    header, claims, signature = client.ask_token().json()["data"]["accessToken"].split(".")

    assert "kid" in json.loads(base64.urlsafe_b64decode(header + "=="))
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["org"] == 100458
    assert len(base64.urlsafe_b64decode(signature + "==")) == 32


def test_a_token_says_when_it_expires(client):
    _, claims, _ = client.ask_token().json()["data"]["accessToken"].split(".")

    claims = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert claims["exp"] - claims["iat"] == 300
    assert abs(claims["iat"] - time.time()) < 60


def test_the_lifetime_can_be_left_out_of_the_answer(start):
    assert list(start(ttl_in_answer=False).ask_token().json()["data"]) == ["accessToken"]


def test_every_call_makes_another_token_and_all_of_them_hold(client, sandbox):
    tokens = [client.ask_token().json()["data"]["accessToken"] for _ in range(3)]

    assert len(set(tokens)) == 3
    assert sandbox.tokens_issued == tokens
    assert {client.ask_status(headers={"X-CAP-API-OAUTH-TOKEN": token}).status for token in tokens} == {200}


@pytest.mark.parametrize(
    ("key", "secret"), [("wrong", "sandbox-secret"), ("sandbox-key", "wrong"), ("", ""), (1, None)]
)
def test_wrong_credentials_are_answered_as_in_the_sample(client, sandbox, key, secret):
    reply = client.ask_token(key, secret)

    assert reply.status == 200
    assert reply.json() == {
        "data": None,
        "errors": [{"code": 320001, "message": "Invalid client key and secret"}],
    }
    assert sandbox.tokens_issued == []


def test_the_http_status_of_wrong_credentials_can_be_chosen(start):
    reply = start(bad_credentials_status=401).ask_token(secret="wrong")

    assert reply.status == 401
    assert reply.json()["errors"][0]["code"] == 320001


def test_key_and_secret_and_lifetime_can_be_chosen(start):
    client = start(client_key="kéy", client_secret="s'cret", token_ttl_seconds=3600)

    assert client.ask_token("kéy", "s'cret").json()["data"]["ttlSeconds"] == 3600
    assert client.ask_token().json()["data"] is None


def test_a_further_secret_is_accepted_until_it_is_revoked(client, sandbox):
    sandbox.further_secrets = {"another"}
    accepted = [client.ask_token(sandbox.client_key, secret).json()["data"] for secret in ("another", "sandbox-secret")]
    sandbox.further_secrets = set()

    assert None not in accepted
    assert client.ask_token(sandbox.client_key, "another").json()["data"] is None


@pytest.mark.parametrize("body", ["", "{", "[]", '"text"', "[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(client, body):
    reply = client.send("POST", TOKEN_PATH, body, {"Content-Type": "application/json"})

    assert reply.status == 400
    assert reply.json()["errors"][0]["code"] == 400


def test_a_form_as_in_rfc_6749_is_not_understood(client):
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    assert client.send("POST", TOKEN_PATH, "grant_type=client_credentials", form).status == 415


@pytest.mark.parametrize(
    ("refusal", "http_status", "code"),
    [
        ("http_401", 401, "401"),
        ("http_498", 498, "498"),
        ("body_401", 200, "401"),
        ("body_498", 200, "498"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", f"{STATUS_PATH}/1"), ("POST", f"{UPLOAD_PATH}/1"), ("POST", DOWNLOAD_PATH)],
)
def test_a_missing_or_unknown_token_is_refused_in_the_form_chosen(start, refusal, http_status, code, method, path):
    client = start(refusal=refusal)

    for headers in ({}, {"X-CAP-API-OAUTH-TOKEN": "made.up.token"}):
        reply = client.send(method, path, headers=headers)

        assert reply.status == http_status
        status = reply.json()["response"]["status"]
        assert (status["success"], status["code"]) == ("true", code)
        assert status["message"].startswith("Unauthorized" if code == "401" else "Token expired at 20")


def test_the_token_header_takes_no_scheme(client):
    token = client.ask_token().json()["data"]["accessToken"]

    assert client.ask_status(headers={"X-CAP-API-OAUTH-TOKEN": f"Bearer {token}"}).status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", f"{STATUS_PATH}/1"), ("POST", f"{UPLOAD_PATH}/1"), ("POST", DOWNLOAD_PATH)],
)
def test_a_bearer_token_is_taken_wherever_the_token_header_is(client, sandbox, method, path):
    token = sandbox.issue_token()

    assert client.send(method, path, headers={"Authorization": f"Bearer {token}"}).status in (200, 400, 415)
    for wrong in (f"Basic {token}", token, "Bearer", "Bearer made.up.token", f"Bearer {token}x"):
        assert client.send(method, path, headers={"Authorization": wrong}).status == 401


def test_an_issued_token_may_have_a_lifetime_of_its_own(start, clock):
    client = start(clock=clock)
    long, expired = client.sandbox.issue_token(ttl_seconds=3600), client.sandbox.issue_token(ttl_seconds=-1)
    clock.now += 3599

    assert [client.ask_status(headers={"Authorization": f"Bearer {one}"}).status for one in (long, expired)] == [
        200,
        401,
    ]
    clock.now += 1
    assert client.ask_status(headers={"Authorization": f"Bearer {long}"}).status == 401
    claims = [json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")) for token in (long, expired)]
    assert [one["exp"] - one["iat"] for one in claims] == [3600, -1]


@pytest.mark.parametrize("path", [UPLOAD_PATH, COUPON_UPLOAD_PATH])
@pytest.mark.parametrize(
    ("upload_auth", "oauth", "bearer"), [("any", 400, 400), ("oauth", 400, 401), ("bearer", 401, 400)]
)
def test_uploads_may_need_their_token_in_one_header(start, path, upload_auth, oauth, bearer):
    client = start(upload_auth=upload_auth)
    token = client.sandbox.issue_token()
    own, authorization = {"X-CAP-API-OAUTH-TOKEN": token}, {"Authorization": f"Bearer {token}"}

    # The empty form is refused once the token is accepted.
    assert client.upload(b"", path=path, headers=own).status == oauth
    assert client.upload(b"", path=path, headers=authorization).status == bearer
    assert client.upload(b"", path=path, headers=own | authorization).status == 400
    assert client.ask_status(headers=own).status == client.ask_status(headers=authorization).status == 200


def test_an_upload_with_its_token_in_the_wrong_header_is_http_401_in_every_form_of_refusal(start):
    client = start(upload_auth="bearer", refusal="body_498")

    reply = client.upload(b"")

    assert (reply.status, reply.json()["response"]["status"]["code"]) == (401, "401")


def test_the_connection_of_a_bearer_token_has_one_that_is_accepted(client, sandbox):
    connection = sandbox.connection(auth_type="bearer")

    assert (connection["login"], connection["extra"]) == (None, {"auth_type": "bearer"})
    assert client.ask_status(headers={"Authorization": f"Bearer {connection['password']}"}).status == 200


def test_a_token_expires_after_its_lifetime(start, clock):
    client = start(token_ttl_seconds=300, clock=clock)
    old = client.authorized()
    clock.now += 299
    assert client.ask_status(headers=old).status == 200

    clock.now += 1
    assert client.ask_status(headers=old).status == 401
    assert client.ask_status(headers=client.authorized()).status == 200


def test_all_tokens_issued_so_far_can_be_expired(client, sandbox):
    old = client.authorized()

    sandbox.expire_tokens()

    assert client.ask_status(headers=old).status == 401
    assert client.ask_status(headers=client.authorized()).status == 200
    assert len(sandbox.tokens_issued) == 2
