# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_capillary.api.auth_messages import (
    AuthSensitiveCall,
    auth_alternatives,
    describe_end,
    possibly_outdated,
    with_auth_alternatives,
    with_connection_name,
)
from airflow_provider_capillary.api.errors import CapillaryAccessError, CapillaryAuthError, CapillaryTransportError
from airflow_provider_capillary.api.settings import AUTH_TYPES, AuthType

NOW = datetime(2026, 11, 26, 0, 48, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "span"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3 * 3600 + 12 * 60 + 5, "3 h 12 min"),
        (86_400 + 59, "1 d 0 h"),
        (30 * 86_400, "30 d 0 h"),
        (-5, "0 s"),
    ],
)
def test_the_end_of_a_token_is_given_in_its_two_largest_units(seconds: float, span: str) -> None:
    ends_at = NOW + timedelta(seconds=seconds)
    assert describe_end(ends_at, now=NOW) == f"the token ends in {span}, at {ends_at:%Y-%m-%d %H:%M} UTC"


def test_a_token_without_an_end_is_described_as_such() -> None:
    assert describe_end(None, now=NOW) == "the token does not say when it ends"


@pytest.mark.parametrize("call", ["upload", "download"])
@pytest.mark.parametrize("auth_type", AUTH_TYPES)
def test_the_alternatives_name_the_other_type_and_no_template_for_an_upload(
    call: AuthSensitiveCall, auth_type: AuthType
) -> None:
    (other,) = set(AUTH_TYPES) - {auth_type}
    hint = auth_alternatives(call, auth_type)
    assert f"Authentication type {other}" in hint
    assert f"Authentication type {auth_type}" not in hint
    assert "another API host" in hint
    assert ("Error file URL" in hint) == (call == "download")


@pytest.mark.parametrize("kind", [CapillaryAuthError, CapillaryAccessError])
def test_an_error_keeps_its_class_and_facts(kind: type[CapillaryAuthError]) -> None:
    error = kind("no access", http_status=403, api_code="4000", request_id="req-1")
    named = with_auth_alternatives(error, "upload", "oauth")
    assert type(named) is kind
    assert named.message == f"no access. {auth_alternatives('upload', 'oauth')}"
    assert {**named.to_dict(), "message": ""} == {**error.to_dict(), "message": ""}
    assert with_auth_alternatives(error, None, "oauth") is error


@pytest.mark.parametrize("kind", [CapillaryAuthError, CapillaryAccessError])
def test_a_refusal_names_its_connection_once(kind: type[CapillaryAuthError]) -> None:
    error = kind("no access", http_status=403, api_code="4000", request_id="req-1")

    named = with_connection_name(error, "capillary_eu")

    assert named.to_dict() == {**error.to_dict(), "message": "Connection 'capillary_eu': no access"}
    assert type(named) is kind
    assert with_connection_name(named, "capillary_eu").message == "Connection 'capillary_eu': no access"


def test_a_refusal_that_may_be_outdated_is_transient_and_keeps_its_class_and_facts() -> None:
    error = CapillaryAuthError("refused", http_status=401, request_id="req-1")

    outdated = possibly_outdated(error, CapillaryTransportError("no answer", is_transient=True))

    assert type(outdated) is CapillaryAuthError
    assert (outdated.is_transient, outdated.http_status, outdated.request_id) == (True, 401, "req-1")
    assert outdated.message == "refused; whether the connection has changed is unknown: no answer"
