# SPDX-License-Identifier: Apache-2.0
"""What is blanked in messages, and what of a URL is masked in logs."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.error_files import UrlSource
from airflow_provider_capillary.api.flow import MaskSecret, SendRequest
from airflow_provider_capillary.api.http_messages import ApiRequest, Response
from airflow_provider_capillary.api.jobs import UploadJob
from airflow_provider_capillary.api.responses import facts_of
from airflow_provider_capillary.api.secrecy import (
    TAIL_LENGTH,
    blank,
    query_secrets,
    shown,
    shown_id,
    tail,
    without_query,
)
from tests.api.flows import any_text, examples, settings

LONG = "k" * 40 + "the-end-of-a-long-security-token"


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("https://h/x", []),
        ("https://h/x?", []),
        ("https://h/x?a=b&c", []),
        ("https://h/x?sig=signature", ["signature"]),
        ("https://h/x?a=1&sig=signature&key=other-key#fragment-of-it", ["signature", "other-key"]),
        ("https://h/x?sig=four", []),
        ("https://h/x?download-this", ["download-this"]),
        ("https://h/x?sig=fives&X-Api-Key=12345&apikey=abcde", ["fives", "12345", "abcde"]),
        ("https://h/x?type=downloads&day=2026-11-25&at=2026-11-25T10%3A00%3A00Z&n=1234567890", []),
        (
            "https://h/x?hash=a1b2c3d4&v=abcdefghijklmnop&w=1234567890123456",
            ["a1b2c3d4", "abcdefghijklmnop", "1234567890123456"],
        ),
        (
            "https://h/x?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261125T000000Z&X-Amz-Signature=abcdef01",
            ["abcdef01"],
        ),
        ("https://h/x?Expires=1790000000&Signature=abcdefgh", ["abcdefgh"]),
        ("https://[", []),
        ("", []),
    ],
)
def test_the_long_parameters_of_a_query_are_secrets(url: str, secrets: list[str]) -> None:
    assert query_secrets(url) == secrets


@pytest.mark.parametrize(
    ("raw", "logged"),
    [
        ("abc%2bdef%3d", "abc%2Bdef%3D"),
        ("abc%2Bdef%3D", "abc%2bdef%3d"),
        ("abc%2bdef%3D", "abc+def="),
        ("abc+def/ghi=", "abc%2Bdef%2Fghi%3D"),
        ("abc+def+ghi=", "abc def ghi="),
        ("abc%7Edef%2Dghi", "abc~def-ghi"),
        ("abc/de%2ffg%7Ehi", "abc/de%2Ffg~hi"),
        ("abc+def=g|hi", "abc+def=g%7Chi"),
        ("abc def|ghi", "abc%20def%7Cghi"),
        ("abc%def-ghi", "abc%def-ghi"),
    ],
)
def test_a_secret_is_known_in_the_spelling_of_every_library(raw: str, logged: str) -> None:
    found = query_secrets(f"https://h/x?sig={raw}")
    assert raw in found
    assert logged in found


@examples(300)
@given(st.text(st.characters(codec="utf-8"), min_size=8, max_size=40))
def test_a_value_that_is_quoted_into_a_query_is_found_quoted_and_as_it_was(value: str) -> None:
    for quoted in (quote(value, safe=""), quote_plus(value)):
        assert {quoted, value} <= set(query_secrets(f"https://h/x?sig={quoted}"))


def test_only_the_end_of_a_long_secret_is_masked() -> None:
    assert tail(LONG) == LONG[-TAIL_LENGTH:]
    assert tail("signature") == "signature"


def test_the_queries_of_a_connection_are_secrets_of_it_and_masked_by_their_ends() -> None:
    connection = settings(
        extra={
            "auth_url": f"https://h/token?apikey={LONG}",
            "error_file_url": "https://f/x?name={handle}&sig=of%2bthe-template",
            "headers": {"X-Org": "value-of-a-header"},
        }
    )
    assert {LONG, "of%2bthe-template", "of%2Bthe-template", "of+the-template"} < set(connection.secrets)
    assert {tail(LONG), "of%2bthe-template", "value-of-a-header", connection.client_secret} < set(connection.masks)
    assert LONG not in connection.masks
    assert not any("handle" in each for each in connection.secrets)


@pytest.mark.parametrize("short", ["1", "55", "2_53", "", "5355"])
def test_a_value_of_less_than_five_characters_is_not_blanked(short: str) -> None:
    assert blank("series 535512", [short]) == "series 535512"


def test_a_value_of_five_characters_is() -> None:
    assert blank("series 535512", ["53551"]) == "series ***2"


def test_the_longest_value_is_blanked_first() -> None:
    assert blank("a-secret-that-is-long", ["a-secret", "a-secret-that-is-long"]) == "***"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("see https://h/x?X-Amz-Signature=abc for more", "see https://h/x?*** for more"),
        ("GET http://user:password@h:80/x, failed", "GET http://h:80/x, failed"),
        ("url=URL('https://h/x?sig=abc#d')", "url=URL('https://h/x?***')"),
        ("s3://id@bucket/key#fragment", "s3://bucket/key?***"),
        ("what? nothing", "what? nothing"),
        ("two\nlines\x1b[31m\u2028and\x9bmore", "two lines [31m and more"),
        ("x" * 400, "x" * 299 + "…"),
        ("x" * 298 + "a-secret", "x" * 298 + "*…"),
    ],
)
def test_text_of_others_is_one_short_printable_line_without_queries(text: str, line: str) -> None:
    assert shown(text, secrets=["a-secret"]) == line


@examples(200)
@given(any_text, st.integers(5, 50))
def test_of_any_text_the_line_is_printable_and_short(text: str, most: int) -> None:
    line = shown(text, most=most)
    assert line.isprintable()
    assert len(line) <= most


@pytest.mark.parametrize("name", ["x-cap-request-id", "x-cap-requestid"])
def test_the_request_id_of_an_error_is_short_printable_and_without_secrets(name: str) -> None:
    def request_id(value: str) -> str | None:
        facts = facts_of(Response(200, {name: value}), ["a-secret"])
        assert facts["http_status"] == 200
        result: str | None = facts["request_id"]
        return result

    assert request_id("req-7") == "req-7"
    assert request_id("6e7ff1ab-90f9-4b23-8f4b-1f6b2e11b2a3") == "6e7ff1ab-90f9-4b23-8f4b-1f6b2e11b2a3"
    assert request_id("with a-secret\x9b31m") == "with *** 31m"
    assert request_id("x" * 9000) == "x" * 99 + "…"
    assert request_id("\x9b") is None
    assert shown_id(None) is None


@pytest.mark.parametrize(
    "value",
    [
        UploadJob(job_id=1, status="X", error_file_url=f"https://h/x?sig={LONG}", success_file_url="handle"),
        UrlSource(f"https://h/x?sig={LONG}"),
        ApiRequest("GET", f"https://h/x?sig={LONG}", headers={"X": LONG}, body=LONG.encode()),
        SendRequest(ApiRequest("GET", f"https://h/x?sig={LONG}")),
        MaskSecret(LONG),
        settings(extra={"auth_url": f"https://h/x?sig={LONG}", "error_file_url": f"https://h/{{handle}}?sig={LONG}"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_repr_shows_no_query(value: object) -> None:
    assert LONG not in repr(value)
    assert LONG not in f"{value}"


def test_the_repr_of_a_job_has_all_its_fields() -> None:
    job = UploadJob(job_id=1, status="QUEUED", error_file_url="handle", success_file_url="https://h/x?sig=1")
    assert repr(job).startswith("UploadJob(job_id=1, status='QUEUED', org_id=None, ")
    assert "error_file_url='handle', success_file_url='https://h/x', uploaded_file_url=None" in repr(job)


def test_another_header_is_no_request_id() -> None:
    assert facts_of(Response(200, {"x-request-id": "other"}), ())["request_id"] is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/p/q?sig=1#f", "https://h/p/q"),
        ("https://user:pw@h:8443/p?sig=1", "https://h:8443/p"),
        ("https://a@b@h/p", "https://h/p"),
        ("https://[::1]:9/p?x", "https://[::1]:9/p"),
        ("/p?sig=1", "/p"),
        ("https://[::1/p?sig=1", "(malformed URL)"),
    ],
)
def test_a_url_is_shown_without_query_fragment_and_credentials(url: str, expected: str) -> None:
    assert without_query(url) == expected


@examples(100)
@given(any_text)
def test_any_text_can_be_shown_as_a_url(text: str) -> None:
    assert isinstance(without_query(text), str)
    assert "sig-secret" not in without_query(f"https://host/{text}?sig-secret")
