# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.connection_parser import parse_connection
from airflow_provider_capillary.api.errors import CapillaryConfigurationError
from airflow_provider_capillary.api.settings import ConnectionSettings
from airflow_provider_capillary.api.urls import is_loopback_host
from tests.api.flows import (
    HEADER_VALUE,
    HOST,
    KEY,
    SECRET,
    TOKEN_URL,
    Connection,
    any_text,
    examples,
    json_values,
    settings,
)

#: Extra field -> label on the form, and how it reads when unset.
EXTRAS: dict[str, tuple[str, Any]] = {
    "auth_type": ("Authentication type", "oauth"),
    "auth_url": ("Authentication URL", TOKEN_URL),
    "error_file_url": ("Error file URL", None),
    "error_file_conn_id": ("Error file connection", None),
    "cluster_timezone": ("Cluster time zone", "UTC"),
    "requests_per_minute": ("Requests per minute", 100),
    "timeout_seconds": ("Timeout", 30.0),
    "verify": ("Verify TLS", True),
    "allow_http": ("Allow plain http", False),
    "headers": ("Extra headers", {}),
    "auth_header_name": ("auth_header_name", "X-CAP-API-OAUTH-TOKEN"),
}


def short(value: Any) -> str:
    """An id of a test case that fits on a line."""
    return str(value)[:30]


def refusal(**fields: Any) -> str:
    with pytest.raises(CapillaryConfigurationError) as caught:
        settings("capillary_eu", **fields)
    return str(caught.value)


def refusal_of(field: str, value: Any, /, **extra: Any) -> str:
    """The message for a bad extra, without its beginning, which is always connection and label."""
    message = refusal(extra={field: value, **extra})
    beginning = f"Connection 'capillary_eu', field {EXTRAS[field][0]!r}: "
    assert message.startswith(beginning), message
    return message.removeprefix(beginning)


def test_equal_settings_with_extra_headers_have_equal_hashes() -> None:
    one, same = (settings("capillary_eu", extra={"headers": {"X-Brand": "a"}}) for _ in range(2))
    other = settings("capillary_eu", extra={"headers": {"X-Brand": "b"}})
    assert hash(one) == hash(same)
    assert {one, same, other} == {one, other}


# --- unset fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra", [None, "", "  ", "null", "{}", json.dumps(dict.fromkeys(EXTRAS)), json.dumps(dict.fromkeys(EXTRAS, ""))]
)
def test_a_connection_needs_no_more_than_host_key_and_secret(extra: str | None) -> None:
    read = settings(extra=extra)
    assert read == ConnectionSettings(
        conn_id="capillary_test",
        scheme="https",
        host="eu.api.capillarytech.com",
        port=443,
        client_key=KEY,
        client_secret=SECRET,
        auth_url="https://eu.api.capillarytech.com/v3/oauth/token/generate",
        auth_type="oauth",
        error_file_url=None,
        error_file_conn_id=None,
        cluster_timezone="UTC",
        requests_per_minute=100,
        timeout_seconds=30.0,
        verify=True,
        allow_http=False,
        headers={},
        auth_header_name="X-CAP-API-OAUTH-TOKEN",
        unknown_extras=(),
    )


@pytest.mark.parametrize("unset", [None, "", " ", "\t \n"], ids=repr)
@pytest.mark.parametrize("field", EXTRAS)
def test_a_field_that_is_null_or_blank_is_unset(field: str, unset: str | None) -> None:
    assert getattr(settings(extra={field: unset}), field) == EXTRAS[field][1]


def test_a_blank_field_does_not_switch_tls_verification_off() -> None:
    # An empty text is falsy, and an HTTP library would take it for "do not verify".
    assert settings(extra={"verify": "  "}).verify is True


def test_every_field_is_read() -> None:
    read = settings(
        port=8443,
        extra={
            "auth_url": "https://auth.example.com/v3/oauth/token/generate",
            "error_file_url": "s3://bucket/{handle}",
            "error_file_conn_id": " aws_lake ",
            "cluster_timezone": "Asia/Kolkata",
            "requests_per_minute": 1000,
            "timeout_seconds": 12.5,
            "verify": "/etc/ssl/brand.pem",
            "allow_http": True,
            "headers": {"X-CAP-API-AUTH-ORG-ID": 100458, "X-Other": HEADER_VALUE},
            "auth_header_name": "CAP-API-ACCESS-TOKEN",
            "colour": "red",
            "apple": 1,
        },
    )
    assert read == ConnectionSettings(
        conn_id="capillary_test",
        scheme="https",
        host=HOST,
        port=8443,
        client_key=KEY,
        client_secret=SECRET,
        auth_url="https://auth.example.com/v3/oauth/token/generate",
        error_file_url="s3://bucket/{handle}",
        error_file_conn_id="aws_lake",
        cluster_timezone="Asia/Kolkata",
        requests_per_minute=1000,
        timeout_seconds=12.5,
        verify="/etc/ssl/brand.pem",
        allow_http=True,
        headers={"X-CAP-API-AUTH-ORG-ID": "100458", "X-Other": HEADER_VALUE},
        auth_header_name="CAP-API-ACCESS-TOKEN",
        unknown_extras=("apple", "colour"),
    )


# --- host, port and scheme ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "base_url"),
    [
        ("eu.api.capillarytech.com", None, "https://eu.api.capillarytech.com"),
        (" EU.api.CapillaryTech.com ", None, "https://eu.api.capillarytech.com"),
        ("https://eu.api.capillarytech.com", None, "https://eu.api.capillarytech.com"),
        ("HTTPS://eu.api.capillarytech.com/", None, "https://eu.api.capillarytech.com"),
        ("https://eu.api.capillarytech.com///", None, "https://eu.api.capillarytech.com"),
        ("eu.api.capillarytech.com.", None, "https://eu.api.capillarytech.com"),
        ("eu.api.capillarytech.com:443", None, "https://eu.api.capillarytech.com"),
        ("eu.api.capillarytech.com:8443", None, "https://eu.api.capillarytech.com:8443"),
        ("eu.api.capillarytech.com", 8443, "https://eu.api.capillarytech.com:8443"),
        ("eu.api.capillarytech.com:8443", 8443, "https://eu.api.capillarytech.com:8443"),
        ("https://eu.api.capillarytech.com", 80, "https://eu.api.capillarytech.com:80"),
        ("localhost", None, "https://localhost"),
        ("http://localhost:8080", None, "http://localhost:8080"),
        ("http://localhost", 80, "http://localhost"),
        ("http://127.0.0.1", 8080, "http://127.0.0.1:8080"),
        ("[::1]:8443", None, "https://[::1]:8443"),
        ("http://[::1]", 8080, "http://[::1]:8080"),
        # As Airflow takes it from a connection's URI, without the brackets.
        ("::1", None, "https://[::1]"),
        ("FD00::17", 8443, "https://[fd00::17]:8443"),
        ("http://::1", 8080, "http://[::1]:8080"),
        # Ports as secrets backends store them.
        (HOST, 1, f"https://{HOST}:1"),
        (HOST, 65535, f"https://{HOST}:65535"),
        (HOST, "8443", f"https://{HOST}:8443"),
        (HOST, " 443 ", f"https://{HOST}"),
        (HOST, 8443.0, f"https://{HOST}:8443"),
        (HOST, Decimal(8443), f"https://{HOST}:8443"),
        (HOST, "", f"https://{HOST}"),
    ],
)
def test_a_host_comes_with_or_without_scheme_and_port(host: str, port: Any, base_url: str) -> None:
    read = settings(host=host, port=port)
    assert read.base_url == base_url
    assert read.auth_url == f"{base_url}/v3/oauth/token/generate"


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        (None, "it is not set; write the host of your cluster, such as eu.api.capillarytech.com"),
        ("  ", "it is not set; write the host of your cluster, such as eu.api.capillarytech.com"),
        ("ftp://h.example.com", "its scheme must be https or http"),
        ("https://h.example.com/coupon", "it must be a host without path or query, such as eu.api.capillarytech.com"),
        ("h.example.com/coupon", "it must be a host without path or query, such as eu.api.capillarytech.com"),
        ("h.example.com?x=y", "it must be a host without path or query, such as eu.api.capillarytech.com"),
        ("h.example.com#x", "it must be a host without path or query, such as eu.api.capillarytech.com"),
        ("https://", "it has no host; write a host such as eu.api.capillarytech.com"),
        ("//h.example.com", "it has no host; write a host such as eu.api.capillarytech.com"),
        ("h example.com", "it has a space, a control character or a backslash in it"),
        ("h.example.com\\x", "it has a space, a control character or a backslash in it"),
        ("h.example.com:0", "its port is 0"),
        ("h.example.com:x", "it is malformed"),
        ("h.example.com:70000", "it is malformed"),
        (":::1", "it is malformed"),
        ("fe80::1%eth0", "its host has an IPv6 zone, which means something on one machine only"),
        ("[fe80::1%25eth0]", "its host has an IPv6 zone, which means something on one machine only"),
        (["h.example.com"], "it must be text, but is a list"),
        ("1.2.3.4.5", "its host is a malformed address"),
        ("h..example.com", "its host"),
        ("eu.api.capillarytech.com..", "its host"),
        ("münchen.example", "its host is not ASCII; write it in punycode (xn--...)"),
        ("h$x", "its host has a character that no host has"),
        (f"https://{KEY}:{SECRET}@h.example.com", "it carries credentials"),
    ],
)
def test_a_host_that_cannot_be_used_is_refused_with_a_remedy(host: str | None, problem: str) -> None:
    message = refusal(host=host)
    assert message.startswith(f"Connection 'capillary_eu', field 'API host': {problem}")
    assert KEY not in message
    assert SECRET not in message


@pytest.mark.parametrize("port", [0, -1, 65536, 70000, "0", "70000", "https", 1.5, True, [443]])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    assert refusal(port=port) == "Connection 'capillary_eu', field 'Port': it must be between 1 and 65535"


def test_a_connection_id_that_is_no_text_is_refused_by_name_beside_an_object_storage_uri() -> None:
    extra = {"error_file_url": "s3://bucket/{handle}", "error_file_conn_id": 5}
    assert refusal(extra=extra).startswith("Connection 'capillary_eu', field 'Error file connection': it must be text")


def test_two_ports_that_differ_are_refused_by_name() -> None:
    assert refusal(host=f"{HOST}:8443", port=9443) == (
        "Connection 'capillary_eu', field 'Port': it is 9443, but the API host says 8443; leave one of them out"
    )


@pytest.mark.parametrize("schema", [None, "", " ", "https", " HTTPS "])
@pytest.mark.parametrize("host", [HOST, f"https://{HOST}"])
def test_the_schema_of_a_connection_may_say_https(host: str, schema: str | None) -> None:
    read = settings(host=host, schema=schema)
    assert (read.base_url, read.unknown_extras) == (f"https://{HOST}", ())


def test_a_schema_of_http_is_the_scheme_of_a_host_without_one() -> None:
    read = settings(host="gateway.internal", schema="http", extra={"allow_http": True})
    assert (read.base_url, read.is_plain_http) == ("http://gateway.internal", True)
    assert settings(host="::1", schema="HTTP", port="8080").base_url == "http://[::1]:8080"


def test_a_schema_of_http_is_held_to_the_rules_for_plain_http() -> None:
    assert refusal(schema="http").startswith("Connection 'capillary_eu', field 'Schema': plain http would send the")


def test_a_schema_that_contradicts_the_host_is_refused() -> None:
    assert refusal(host=f"https://{HOST}", schema="http") == (
        "Connection 'capillary_eu', field 'Schema': it is http, but the API host says https; leave one of them out"
    )


def test_a_schema_of_any_other_kind_is_named_as_a_field_without_meaning() -> None:
    # What Airflow makes of a path in a connection's URI.
    read = settings(schema="coupon", extra={"colour": "red"})
    assert (read.base_url, read.unknown_extras) == (f"https://{HOST}", ("colour", "schema"))


LOOPBACK = ["localhost", "LOCALHOST", "x.localhost", "127.0.0.1", "127.1", "127.8.9.10", "[::1]", "localhost."]
ELSEWHERE = ["capillary.internal", "10.1.2.3", "localhost.example.com", "notlocalhost", "169.254.169.254", "0.0.0.0"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_plain_http_is_fine_on_this_machine(host: str) -> None:
    read = settings(host=f"http://{host}:8080")
    assert (read.scheme, read.port, read.is_plain_http) == ("http", 8080, False)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_plain_http_elsewhere_is_refused_with_the_remedy(host: str) -> None:
    assert refusal(host=f"http://{host}") == (
        "Connection 'capillary_eu', field 'API host': plain http would send the client secret unencrypted; use https, "
        "or switch on 'Allow plain http' inside a private network"
    )


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize("allowed", [True, "true", " TRUE "])
def test_plain_http_elsewhere_can_be_allowed_and_is_then_marked(host: str, allowed: Any) -> None:
    read = settings(host=f"http://{host}:8080", extra={"allow_http": allowed})
    assert (read.base_url, read.is_plain_http, read.allow_http) == (f"http://{host}:8080", True, True)


def test_allowing_http_does_not_turn_https_off() -> None:
    read = settings(extra={"allow_http": True})
    assert (read.base_url, read.is_plain_http) == (f"https://{HOST}", False)


@pytest.mark.parametrize("host", ["localhost", "a.b.localhost", "127.0.0.1", "::1"])
def test_this_machine_is_known_without_a_resolver(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host", ["example.com", "localhost.example.com", "8.8.8.8", "10.0.0.1", "1.2.3.4.5", "::2", ":::"]
)
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert not is_loopback_host(host)


# --- key and secret ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "label"), [("login", "Client key"), ("password", "Client secret")])
class TestTheCredentials:
    @pytest.mark.parametrize("value", [None, "", "  "])
    def test_must_be_set(self, field: str, label: str, value: str | None) -> None:
        assert refusal(**{field: value}) == (
            f"Connection 'capillary_eu', field {label!r}: it is not set; Capillary gives it out with the API client"
        )

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\x00", "\x1b"])
    def test_must_be_copied_without_line_breaks(self, field: str, label: str, end: str) -> None:
        assert refusal(**{field: f"do-not-show{end}"}) == (
            f"Connection 'capillary_eu', field {label!r}: it has a control character in it, such as a line break; "
            "copy it once more"
        )

    def test_may_be_stored_as_a_number(self, field: str, label: str) -> None:
        read = settings(**{field: 4711})
        assert {"login": read.client_key, "password": read.client_secret}[field] == "4711"

    @pytest.mark.parametrize("value", [True, 1.5, ["do-not-show"], {"do-not-show": 1}])
    def test_are_refused_without_being_shown_where_they_are_anything_else(
        self, field: str, label: str, value: Any
    ) -> None:
        message = refusal(**{field: value})
        assert message.startswith(f"Connection 'capillary_eu', field {label!r}: it must be text, but is ")
        assert "do-not-show" not in message

    def test_may_hold_any_other_character(self, field: str, label: str) -> None:
        read = settings(**{field: 'ä"$%&/ ü\\{}'})
        assert {"login": read.client_key, "password": read.client_secret}[field] == 'ä"$%&/ ü\\{}'
        assert len(read.identity) == 64


# --- bad values of extra -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("{", "it is not valid JSON; write a JSON object"),
        ("text", "it is not valid JSON; write a JSON object"),
        ("[" * 100_000, "it is not valid JSON; write a JSON object"),
        ("[]", "it must be a JSON object, such as {}"),
        ("5", "it must be a JSON object, such as {}"),
        ('"text"', "it must be a JSON object, such as {}"),
        ("false", "it must be a JSON object, such as {}"),
    ],
    ids=short,
)
def test_an_extra_that_is_no_object_is_refused(extra: str, problem: str) -> None:
    assert refusal(extra=extra) == f"Connection 'capillary_eu', field 'Extra': {problem}"


@pytest.mark.parametrize(
    "field", ["auth_url", "error_file_url", "error_file_conn_id", "cluster_timezone", "auth_header_name"]
)
@pytest.mark.parametrize(
    ("value", "kind"), [(5, "a number"), (1.5, "a number"), (True, "true or false"), ([], "a list"), ({}, "an object")]
)
def test_a_text_field_must_be_text(field: str, value: Any, kind: str) -> None:
    assert refusal_of(field, value) == f"it must be text, but is {kind}"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("auth.example.com/token", "it has no host; write a URL such as https://host/v3/oauth/token/generate"),
        ("ftp://auth.example.com/token", "it must be an https URL"),
        ("https://user:password@auth.example.com/token", "it carries credentials; write a URL such as https://host/"),
        ("https://auth.example.com/a b", "it has a space, a control character or a backslash in it; write a URL"),
        ("https://[::1/token", "it is malformed; write a URL such as https://host/v3/oauth/token/generate"),
        (
            "http://auth.example.com/token",
            "plain http would send the client secret unencrypted; use https, or switch on 'Allow plain http'",
        ),
    ],
)
def test_an_authentication_url_that_cannot_be_used_is_refused(url: str, problem: str) -> None:
    assert refusal_of("auth_url", url).startswith(problem)


@pytest.mark.parametrize(
    ("extra", "url"),
    [
        ({}, "https://auth.example.com/token"),
        ({}, "http://localhost:8080/token"),
        ({"allow_http": True}, "http://auth.internal/token"),
    ],
)
def test_an_authentication_url_may_be_on_another_host(extra: dict[str, Any], url: str) -> None:
    assert settings(extra={**extra, "auth_url": url}).auth_url == url


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{handle}", "it must begin with a scheme, such as https://... or s3://bucket/{handle}"),
        ("files/{handle}", "it must begin with a scheme, such as https://... or s3://bucket/{handle}"),
        ("://x/{handle}", "it must begin with a scheme, such as https://... or s3://bucket/{handle}"),
        ("zip://x::s3://y/{handle}/{handle}", "it must have {handle} in it once, and no other braces"),
        ("https://files.example.com/", "it must have {handle} in it once, and no other braces"),
        ("https://files.example.com/{handle}/{handle}", "it must have {handle} in it once, and no other braces"),
        ("https://files.example.com/{file}", "it must have {handle} in it once, and no other braces"),
        ("https://files.example.com/{handle}{", "it must have {handle} in it once, and no other braces"),
        ("https://{handle}.example.com/", "{handle} must stand behind the host or bucket"),
        ("https://{handle}/", "{handle} must stand behind the host or bucket"),
        ("s3://{handle}", "{handle} must stand behind the host or bucket"),
        ("https://user:password@files.example.com/{handle}", "it carries credentials; write a URL such as"),
        ("https://[::1/{handle}", "it is malformed; write a URL such as https://host/path/{handle}"),
        ("https://files.example.com/a b/{handle}", "it has a space, a control character or a backslash in it"),
        ("s3://KEY:hunter2@bucket/{handle}", "it carries credentials or a port; store them in an Airflow connection"),
        ("s3://bucket/{handle}?versionId=hunter2", "it has '?' in its key"),
        ("s3://bucket/{handle}#", "it ends in '#' or '?'"),
        ("gs://bucket/{handle}::x", "it has '::' in it"),
        ("s3:///{handle}", "it names no object; write a bucket and a key"),
        ("s3://[bucket/{handle}", "it is a malformed URI"),
        ("file://server/share/{handle}", "it must have an absolute path"),
        ("adl://lake/{handle}", "it has the scheme of Azure Data Lake Storage Gen1"),
        ("s3://arn:aws:s3:::bucket/{handle}", "it has an ARN in it that is not that of an S3 access point"),
        ("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/{handle}", "it has an ARN in it"),
        ("abfss://acct.dfs.core.windows.net/{handle}/x", "{handle} must stand behind the host or bucket"),
    ],
)
def test_an_error_file_url_that_cannot_be_used_is_refused(template: str, problem: str) -> None:
    message = refusal_of("error_file_url", template)
    assert message.startswith(problem)
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "template",
    [
        "https://files.example.com/{handle}",
        "https://files.example.com/?file={handle}&sig=x",
        "s3://bucket/{handle}",
        "gs://bucket/a/{handle}.csv",
        "abfss://container@account.dfs.core.windows.net/{handle}",
        "file:///mnt/capillary/{handle}",
        "s3://aws_lake@bucket/{handle}",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ours/{handle}",
    ],
)
def test_an_error_file_url_may_be_http_or_any_object_storage(template: str) -> None:
    assert settings(extra={"error_file_url": template}).error_file_url == template


def test_a_connection_id_in_the_error_file_url_must_not_contradict_the_error_file_connection() -> None:
    template = "s3://other@bucket/{handle}"
    with pytest.raises(CapillaryConfigurationError) as caught:
        settings(extra={"error_file_url": template, "error_file_conn_id": "aws_lake"})
    assert str(caught.value).endswith(
        "field 'Error file URL': it names the connection 'other' before the @, but Error file connection is "
        "'aws_lake'; leave one of them out"
    )
    assert settings(extra={"error_file_url": template, "error_file_conn_id": "other"}).error_file_url == template


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "IST2", "America", "../../etc/passwd", "\x00", "x" * 5_000, "+05:30"], ids=short
)
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    assert refusal_of("cluster_timezone", name).endswith("is not a time zone; write an IANA name such as Asia/Kolkata")


WHOLE = "it must be a whole number from 1 to 1000000"
NUMBER = "it must be a number"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, WHOLE),
        (-5, WHOLE),
        (1.5, WHOLE),
        (1_000_001, WHOLE),
        (10**400, NUMBER),
        (float("nan"), "it must be a number, but is a number that is not finite"),
        (float("inf"), "it must be a number, but is a number that is not finite"),
        ("1e999", NUMBER),
        ("nan", NUMBER),
        ("many", NUMBER),
        (True, NUMBER),
        ([100], NUMBER),
        ({}, NUMBER),
    ],
    ids=short,
)
def test_a_request_limit_that_is_none_is_refused(value: Any, problem: str) -> None:
    assert refusal_of("requests_per_minute", value).startswith(problem)


@pytest.mark.parametrize(("value", "limit"), [(1, 1), (1000, 1000), ("60", 60), (60.0, 60), (1_000_000, 1_000_000)])
def test_a_request_limit_may_be_number_or_text(value: Any, limit: int) -> None:
    read = settings(extra={"requests_per_minute": value}).requests_per_minute
    assert (read, type(read)) == (limit, int)


SECONDS = "it must be above 0 and at most 3600 seconds"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, SECONDS),
        (-1, SECONDS),
        (3601, SECONDS),
        (10**400, NUMBER),
        (float("nan"), NUMBER),
        (float("inf"), NUMBER),
        ("inf", NUMBER),
        ("soon", NUMBER),
        (True, NUMBER),
        ([], NUMBER),
    ],
    ids=short,
)
def test_a_timeout_that_is_none_is_refused(value: Any, problem: str) -> None:
    assert refusal_of("timeout_seconds", value).startswith(problem)


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.5, 0.5), ("45", 45.0), (3600, 3600.0)])
def test_a_timeout_may_be_number_or_text(value: Any, seconds: float) -> None:
    read = settings(extra={"timeout_seconds": value}).timeout_seconds
    assert (read, type(read)) == (seconds, float)


@pytest.mark.parametrize(
    ("value", "verify"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("FALSE", False),
        (" False ", False),
        ("/etc/ssl/brand.pem", "/etc/ssl/brand.pem"),
        (" /etc/ssl/brand.pem ", "/etc/ssl/brand.pem"),
    ],
)
def test_verify_is_a_flag_or_a_path(value: Any, verify: bool | str) -> None:
    read = settings(extra={"verify": value}).verify
    assert (read, type(read)) == (verify, type(verify))


@pytest.mark.parametrize("value", [0, 1, 1.5, [], {}, ["/etc/ssl/brand.pem"]])
def test_verify_is_nothing_else(value: Any) -> None:
    assert refusal_of("verify", value) == "it must be true, false or the path of a CA bundle"


@pytest.mark.parametrize("value", [0, 1, "yes", "on", "1", [], {}])
def test_a_flag_is_true_or_false_and_nothing_like_it(value: Any) -> None:
    assert refusal_of("allow_http", value) == "it must be true or false"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "it must be a JSON object"),
        (5, "it must be a JSON object"),
        ("{", "it is not valid JSON; write a JSON object"),
        ("[" * 100_000, "it is not valid JSON; write a JSON object"),
        ("[]", "it must be a JSON object"),
        ({"X Org": HEADER_VALUE}, "'X Org' is not a header name"),
        ({"": HEADER_VALUE}, "'' is not a header name"),
        ({"X-Org:": HEADER_VALUE}, "'X-Org:' is not a header name"),
        ({"X-Org\n": HEADER_VALUE}, "'X-Org\\n' is not a header name"),
        ({"X-Ärg": HEADER_VALUE}, "'X-Ärg' is not a header name"),
        ({"X-Org": f"{HEADER_VALUE}\r\nX-Evil: 1"}, "the value of 'X-Org' must be printable ASCII"),
        ({"X-Org": f"{HEADER_VALUE}ä"}, "the value of 'X-Org' must be printable ASCII"),
        ({"X-Org": f"{HEADER_VALUE}\x00"}, "the value of 'X-Org' must be printable ASCII"),
        ({"X-Org": [HEADER_VALUE]}, "the value of 'X-Org' must be text"),
        ({"X-Org": {"a": HEADER_VALUE}}, "the value of 'X-Org' must be text"),
        ({"X-Org": True}, "the value of 'X-Org' must be text"),
    ],
    ids=short,
)
def test_headers_that_cannot_be_sent_are_refused_without_their_value(value: Any, problem: str) -> None:
    message = refusal_of("headers", value)
    assert message.startswith(problem)
    assert HEADER_VALUE not in message


@pytest.mark.parametrize("value", [{"X-Org": HEADER_VALUE, "X-No": 5}, json.dumps({"X-Org": HEADER_VALUE, "X-No": 5})])
def test_headers_come_as_an_object_or_its_text(value: Any) -> None:
    assert settings(extra={"headers": value}).headers == {"X-Org": HEADER_VALUE, "X-No": "5"}


@pytest.mark.parametrize("name", ["x-cap-api-oauth-token", "X-CAP-API-OAUTH-TOKEN"])
def test_the_header_of_the_token_is_not_for_other_values(name: str) -> None:
    message = refusal_of("headers", {name: HEADER_VALUE})
    assert message == f"{name!r} is for the token that key and secret are exchanged for; remove it"
    assert settings(extra={"headers": {name: HEADER_VALUE}, "auth_header_name": "X-Token"}).headers == {
        name: HEADER_VALUE
    }
    message = refusal_of("headers", {"x-token": HEADER_VALUE}, auth_header_name="X-Token")
    assert message.startswith("'x-token' is for the token")


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
def test_a_header_that_frames_the_message_is_refused(name: str) -> None:
    assert refusal_of("headers", {name: "5"}) == f"{name!r} is up to the HTTP library; remove it"


def test_two_headers_that_differ_in_case_only_are_refused() -> None:
    assert refusal_of("headers", {"X-Org": "1", "x-org": "2"}) == (
        "'X-Org' and 'x-org' are one header; leave one of them out"
    )


def test_the_extra_may_be_an_object_already() -> None:
    # A secrets backend that reads JSON may leave it so.
    connection = Connection(extra={"verify": False, "headers": {"X-Org": 5}})
    read = parse_connection("capillary_test", connection)
    assert (read.verify, read.headers) == (False, {"X-Org": "5"})


@pytest.mark.parametrize("value", [" padded", "padded "])
def test_a_header_value_is_sent_without_blanks_around_it(value: str) -> None:
    # HTTP libraries refuse such a header, and with it every request.
    assert settings(extra={"headers": {"X-Org": value}}).headers == {"X-Org": "padded"}


@pytest.mark.parametrize("name", ["X Token", "X-Token:", "ä", "a\nb"])
def test_an_auth_header_name_that_is_none_is_refused(name: str) -> None:
    assert refusal_of("auth_header_name", name) == f"{name!r} is not a header name"


@pytest.mark.parametrize("text", ["None", "null", " NULL ", "none"])
class TestTheTextForNothing:
    """What a backend makes of an unset field."""

    @pytest.mark.parametrize(
        ("field", "label"),
        [("host", "API host"), ("login", "Client key"), ("password", "Client secret"), ("schema", "Schema")],
    )
    def test_is_refused_in_a_standard_field(self, field: str, label: str, text: str) -> None:
        assert refusal(**{field: text}).startswith(f"Connection 'capillary_eu', field {label!r}: it is None or null as")

    @pytest.mark.parametrize("field", sorted(EXTRAS))
    def test_is_refused_in_an_extra_or_unset(self, field: str, text: str) -> None:
        if field == "headers" and text == "null":
            assert settings(extra={field: text}).headers == {}
        else:
            assert refusal_of(field, text).startswith("it ")


# --- what is hidden ----------------------------------------------------------------------------------------------


def test_neither_repr_nor_str_show_key_secret_or_headers() -> None:
    read = settings(extra={"headers": {"X-Org": HEADER_VALUE}})
    for shown in (repr(read), str(read), f"{read}"):
        assert [each for each in (KEY, SECRET, HEADER_VALUE) if each in shown] == []
        assert "eu.api.capillarytech.com" in shown


def test_the_secrets_are_the_client_secret_and_the_header_values() -> None:
    read = settings(extra={"headers": {"X-Org": HEADER_VALUE, "X-No": 5}})
    assert set(read.secrets) == {SECRET, HEADER_VALUE, "5"}


def test_connections_are_distinguished_by_a_digest() -> None:
    read = settings()
    assert len(read.identity) == 64
    assert set(read.identity) <= set("0123456789abcdef")
    assert read.identity == settings().identity


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "us.api.capillarytech.com"},
        {"port": 8443},
        {"login": "other"},
        {"password": "other"},
        {"extra": {"auth_url": "https://auth.example.com/token"}},
        {"extra": {"requests_per_minute": 5}},
        {"login": None, "extra": {"auth_type": "bearer"}},
    ],
)
def test_connections_that_must_not_share_a_token_or_limit_differ(fields: dict[str, Any]) -> None:
    assert settings(**fields).identity != settings().identity


def test_connections_of_different_ids_differ() -> None:
    assert settings("one").identity != settings("two").identity


# --- the API host ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"https://{HOST}/x",
        f"https://{HOST}:443/x",
        f"HTTPS://{HOST.upper()}/x",
        f"https://{HOST}./x",
        f"https://{HOST}",
        f"https://{HOST}?x",
    ],
)
def test_the_api_host_is_known_in_every_spelling(url: str) -> None:
    assert settings().is_api_host(url)


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/x",
        f"http://{HOST}:443/x",
        f"https://{HOST}:8443/x",
        f"https://{HOST}.evil.example.com/x",
        f"https://evil.example.com/{HOST}",
        f"https://evil.example.com#@{HOST}/",
        f"https://{HOST}@evil.example.com/",
        f"https://x.{HOST}/",
        f"//{HOST}/x",
        f"ftp://{HOST}/x",
        "",
    ],
)
def test_another_scheme_port_or_host_is_not_the_api_host(url: str) -> None:
    assert not settings().is_api_host(url)


@pytest.mark.parametrize(
    "host", ["[::1]:8443", "http://localhost:8080", "eu.api.capillarytech.com.", "EU.api.capillarytech.com"]
)
def test_every_host_is_its_own_api_host(host: str) -> None:
    read = settings(host=host)
    assert read.is_api_host(f"{read.base_url}/coupon/api")


# --- anything ----------------------------------------------------------------------------------------------------

hosts = (
    st.none()
    | any_text
    | st.lists(
        st.sampled_from(
            [
                "https://",
                "http://",
                HOST,
                ":",
                "8443",
                "/",
                "@",
                "[::1]",
                ".",
                "localhost",
                "\\",
                "?",
                "\uff11",
                "\u2100",
            ]
        ),
        max_size=5,
    ).map("".join)
)
extras = (
    any_text
    | json_values.map(json.dumps)
    | st.dictionaries(
        st.sampled_from(sorted(EXTRAS)),
        json_values
        | st.text(max_size=4)
        | st.sampled_from(
            [
                "https://{handle}",
                "https://h/{handle}",
                "s3://[/{handle}",
                "http://h/",
                "1e999",
                "[" * 100_000,
                "{}",
                "\ud800",
                "bearer",
            ]
        )
        | st.dictionaries(st.sampled_from(["X-Org", "X Org"]), st.sampled_from([HEADER_VALUE, f"{HEADER_VALUE}\n", 5])),
        max_size=4,
    ).map(json.dumps)
)
secret_fields = [KEY, SECRET, f"{SECRET}\ud800", f"{SECRET}\n", f"Bearer {SECRET}", None]


@examples(100)
@given(
    st.just(HOST) | st.just(f"http://{HOST}") | hosts,
    st.sampled_from([None, None, None, 8443]) | st.integers() | any_text | st.booleans(),
    st.sampled_from(secret_fields),
    st.sampled_from(secret_fields),
    st.none() | extras,
    st.none() | st.sampled_from(["http", "https", "coupon"]),
)
def test_any_connection_is_read_or_refused_and_no_secret_is_shown(
    host: str | None, port: Any, login: str | None, password: str | None, extra: str | None, schema: str | None
) -> None:
    connection = Connection(host, port, login, password, extra, schema)
    try:
        read = parse_connection("any", connection)
    except CapillaryConfigurationError as error:
        shown = str(error) + repr(error)
    else:
        shown = repr(read) + str(read) + read.identity + read.base_url
        assert read.is_api_host(f"{read.base_url}/x")
        assert 1 <= read.requests_per_minute <= 1_000_000
        assert 0 < read.timeout_seconds <= 3600
        assert read.verify is True or read.verify is False or read.verify.strip()
    assert [each for each in (KEY, SECRET, HEADER_VALUE) if each in shown] == []
