# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.error_files import (
    DownloadSource,
    ObjectSource,
    UrlSource,
    check_peer,
    check_url,
    follow_redirect,
    locate_error_file,
)
from airflow_provider_capillary.api.errors import CapillaryErrorFileError
from airflow_provider_capillary.api.settings import CONN_FIELD
from tests.api.flows import API, HOST, any_text, attempt, examples, settings

if TYPE_CHECKING:
    from airflow_provider_capillary.api.settings import ConnectionSettings

HANDLE = "error_redemption_upload_1619_2532342020_10_20_14_17_00"
PLAIN = settings()
BY_HTTP = settings(extra={"error_file_url": "https://files.example.com/errors/{handle}?sig=sig-secret"})
BY_S3 = settings(extra={"error_file_url": "s3://bucket/errors/{handle}.csv", "error_file_conn_id": "aws_lake"})
SANDBOX = settings(host="http://localhost:8080")
GATEWAY = settings(host="http://capillary.internal:8080", extra={"allow_http": True})
BY_PLAIN_HTTP = settings(
    extra={"error_file_url": "http://files.internal:8081/{handle}", "allow_http": True},
)


def refusal(reference: str, connection: ConnectionSettings = PLAIN) -> str:
    with pytest.raises(CapillaryErrorFileError) as caught:
        locate_error_file(reference, connection)
    assert caught.value.is_transient is False
    return str(caught.value)


# --- the four ways -----------------------------------------------------------------------------------------------


def test_a_bare_handle_is_asked_for_at_the_api_where_nothing_else_is_said() -> None:
    assert locate_error_file(HANDLE, PLAIN) == DownloadSource(HANDLE)


def test_a_bare_handle_goes_into_the_url_of_the_connection() -> None:
    assert locate_error_file(HANDLE, BY_HTTP) == UrlSource(f"https://files.example.com/errors/{HANDLE}?sig=sig-secret")


def test_a_bare_handle_goes_into_the_object_storage_uri_of_the_connection() -> None:
    assert locate_error_file(HANDLE, BY_S3) == ObjectSource(f"s3://bucket/errors/{HANDLE}.csv", "aws_lake")


@pytest.mark.parametrize("connection", [PLAIN, BY_HTTP, BY_S3])
def test_an_absolute_url_is_taken_as_it_stands_with_any_connection(connection: ConnectionSettings) -> None:
    url = "https://bucket.s3.eu-west-1.amazonaws.com/a%20b.csv?X-Amz-Signature=abc&X-Amz-Expires=60"
    assert locate_error_file(url, connection) == UrlSource(url)


@pytest.mark.parametrize(
    ("template", "conn_id", "source"),
    [
        ("s3://aws_lake@bucket/{handle}", None, ObjectSource("s3://bucket/x", "aws_lake")),
        ("s3://aws_lake@bucket/{handle}", "aws_lake", ObjectSource("s3://bucket/x", "aws_lake")),
        (
            "abfss://lake@acct.dfs.core.windows.net/{handle}",
            "wasb_lake",
            ObjectSource("abfss://lake/x", "wasb_lake", account_host="acct.dfs.core.windows.net"),
        ),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ours/{handle}",
            None,
            ObjectSource("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ours/x", None),
        ),
        ("local:///mnt/{handle}", None, ObjectSource("file:///mnt/x", None)),
    ],
)
def test_the_error_file_url_is_read_as_a_destination_is(
    template: str, conn_id: str | None, source: ObjectSource
) -> None:
    connection = settings(extra={"error_file_url": template, "error_file_conn_id": conn_id})
    assert locate_error_file("x", connection) == source


def test_the_container_of_a_named_account_is_no_connection_id_in_an_answer_either() -> None:
    source = locate_error_file("abfss://lake@acct.dfs.core.windows.net/a/x.csv", BY_S3)
    assert source == ObjectSource("abfss://lake/a/x.csv", "aws_lake", account_host="acct.dfs.core.windows.net")


@pytest.mark.parametrize(
    "uri", ["abfss://conn_id@lake@acct.dfs.core.windows.net/x", "s3://aws_lake@bucket/x", "gs://conn_id@bucket/x"]
)
def test_an_answer_never_chooses_the_connection(uri: str) -> None:
    assert refusal(uri, BY_S3).endswith("is not fetched, because it carries credentials")


@pytest.mark.parametrize("scheme", ["s3", "s3a", "gs", "gcs", "abfs", "abfss", "S3"])
def test_an_object_storage_uri_is_read_with_the_connection_for_error_files(scheme: str) -> None:
    written, uri = f"{scheme}://bucket/errors/a.csv", f"{scheme.lower()}://bucket/errors/a.csv"
    assert locate_error_file(written, BY_S3) == ObjectSource(uri, "aws_lake")
    assert locate_error_file(written, PLAIN) == ObjectSource(uri, None)


@pytest.mark.parametrize(
    ("handle", "quoted"),
    [
        ("a b", "a%20b"),
        ("a?b=c", "a%3Fb%3Dc"),
        ("a#b", "a%23b"),
        ("a&b;c", "a%26b%3Bc"),
        ("ä", "%C3%A4"),
        ("folder/a.csv", "folder/a.csv"),
        ("a:b@c", "a%3Ab%40c"),
        ("a..b", "a..b"),
    ],
)
def test_a_handle_is_quoted_into_a_url(handle: str, quoted: str) -> None:
    assert locate_error_file(handle, BY_HTTP) == UrlSource(f"https://files.example.com/errors/{quoted}?sig=sig-secret")


# --- handles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connection", [PLAIN, BY_HTTP, BY_S3], ids=["download", "http", "s3"])
@pytest.mark.parametrize(
    ("handle", "rule"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("..", "the handle has a '..' segment"),
        ("../x", "the handle has a '..' segment"),
        ("a/../../b", "the handle has a '..' segment"),
        ("a/..", "the handle has a '..' segment"),
        ("%2e%2e%2f", "the handle has a backslash or a percent sign in it"),
        ("a%00b", "the handle has a backslash or a percent sign in it"),
        ("..\\..\\x", "the handle has a backslash or a percent sign in it"),
        ("a\\b", "the handle has a backslash or a percent sign in it"),
        ("/etc/passwd", "the handle begins with a slash"),
        ("//evil.example.com/x", "the handle begins with a slash"),
        ("a\nb", "the handle has a control character in it"),
        ("a\r\nHost: evil", "the handle has a control character in it"),
        ("a\x00b", "the handle has a control character in it"),
        ("a\x7fb", "the handle has a control character in it"),
        ("a\x1b[31mb", "the handle has a control character in it"),
        ("a::b", "the handle has '::' in it, which chains file systems"),
        ("::", "the handle has '::' in it, which chains file systems"),
        ("a" * 4097, "it is longer than 4096 characters"),
    ],
)
def test_a_hostile_handle_is_refused_by_the_rule_it_breaks(
    handle: str, rule: str, connection: ConnectionSettings
) -> None:
    assert refusal(handle, connection) == f"the error file is not fetched, because {rule}"


@pytest.mark.parametrize("character", ["\x85", "\x9b", "\ud800"])
def test_characters_that_control_beyond_ascii_are_refused_too(character: str) -> None:
    for connection in (PLAIN, BY_HTTP, BY_S3):
        assert refusal(f"a{character}b", connection).startswith("the error file is not fetched, because the handle has")


# --- URLs that must not be fetched -------------------------------------------------------------------------------

NOT_OUTSIDE = "its address is private, loopback or link-local"


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ("2852039166", NOT_OUTSIDE),
        ("0xa9fea9fe", NOT_OUTSIDE),
        ("0251.0376.0251.0376", NOT_OUTSIDE),
        ("169.254.43518", NOT_OUTSIDE),
        ("0xa9.254.43518", NOT_OUTSIDE),
        ("0xa9.0xfe.0xa9.0xfe", NOT_OUTSIDE),
        ("224.0.0.1", NOT_OUTSIDE),
        ("255.255.255.255", NOT_OUTSIDE),
        ("169.254.169.254", NOT_OUTSIDE),
        ("169.254.169.254.", NOT_OUTSIDE),
        ("127.1", NOT_OUTSIDE),
        ("127.0.0.1", NOT_OUTSIDE),
        ("0", NOT_OUTSIDE),
        ("0.0.0.0", NOT_OUTSIDE),
        ("10.1.2.3", NOT_OUTSIDE),
        ("172.16.0.1", NOT_OUTSIDE),
        ("192.168.1.1", NOT_OUTSIDE),
        ("100.64.0.1", NOT_OUTSIDE),
        ("[::1]", NOT_OUTSIDE),
        ("[::]", NOT_OUTSIDE),
        ("[fd00::1]", NOT_OUTSIDE),
        ("[fec0::1]", NOT_OUTSIDE),
        ("[fe80::1]", NOT_OUTSIDE),
        ("[fe80::1%25eth0]", "its host has an IPv6 zone, which means something on one machine only"),
        ("[::ffff:169.254.169.254]", NOT_OUTSIDE),
        ("[::ffff:a9fe:a9fe]", NOT_OUTSIDE),
        ("[::169.254.169.254]", NOT_OUTSIDE),
        ("[64:ff9b::a9fe:a9fe]", NOT_OUTSIDE),
        ("[64:ff9b:1::a9fe:a9fe]", NOT_OUTSIDE),
        ("[2002:a9fe:a9fe::]", NOT_OUTSIDE),
        ("localhost", "its host is this machine"),
        ("LOCALHOST", "its host is this machine"),
        ("localhost.", "its host is this machine"),
        ("x.localhost", "its host is this machine"),
        ("x.localhost.", "its host is this machine"),
    ],
)
def test_an_address_that_is_not_out_on_the_internet_is_refused_in_every_spelling(host: str, rule: str) -> None:
    for port in ("", ":443", ":8443"):
        assert refusal(f"https://{host}{port}/latest?x=sig-secret").endswith(f"/latest is not fetched, because {rule}")


@pytest.mark.parametrize(
    "host",
    [
        "\uff11\uff16\uff19.254.169.254",
        "\uff11\uff12\uff17.\uff11",
        "169。254。169。254",
        "ⓛocalhost",
        "①②⑦.⓪.⓪.①",
        "münchen.example",
    ],
)
def test_a_host_that_another_parser_would_rewrite_is_refused(host: str) -> None:
    message = refusal(f"https://{host}/")
    assert message.endswith(
        ("because its host is not ASCII; write it in punycode (xn--...)", "because it is malformed")
    )


@pytest.mark.parametrize(
    "host", ["1.2.3.4.5", "256.1.1.1", "256.256.256.256", "a.1", "08", "[::1", "[::g]", "[1.2.3.4]"]
)
def test_a_malformed_address_is_refused(host: str) -> None:
    assert refusal(f"https://{host}/").endswith(("its host is a malformed address", "it is malformed"))


@pytest.mark.parametrize("host", ["1.2.3.4.5..", "127.0.0.1..", "0xzz..", "files..example.com", "..", "[v1.a]"])
def test_a_host_that_no_resolver_takes_is_refused(host: str) -> None:
    assert "is not fetched, because" in refusal(f"https://{host}/")


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://files.example.com/x", "it is not https"),
        ("http://[::ffff:169.254.169.254]/", "it is not https"),
        ("http://2852039166/", "it is not https"),
        ("http://169.254.169.254/", "it is not https"),
        ("HTTP://files.example.com/x", "it is not https"),
        (f"http://{HOST}/x", "it is not https"),
        ("https://user:password@files.example.com/x", "it carries credentials"),
        ("https://user@files.example.com/x", "it carries credentials"),
        ("https://@files.example.com/x", "it carries credentials"),
        (f"https://{HOST}@evil.example.com/x", "it carries credentials"),
        ("https:///x", "it has no host"),
        ("https://", "it has no host"),
        ("https://files.example.com:0/x", "its port is 0"),
        ("https://files.example.com:99999/x", "it is malformed"),
        ("https://files.example.com:x/x", "it is malformed"),
        ("https://files.example.com\\@evil.example.com/", "it has a space, a control character or a backslash in it"),
        ("https://files.example.com/a b", "it has a space, a control character or a backslash in it"),
        ("https://files.example.com/\r\nHost: evil", "it has a space, a control character or a backslash in it"),
        ("https://files.example.com/\x00", "it has a space, a control character or a backslash in it"),
        ("https://files.exa$mple.com/", "its host has a character that no host has"),
        ("https://a%2eb.example.com/", "its host has a character that no host has"),
        ("https://files.example.com%2f@x/", "it carries credentials"),
    ],
)
def test_a_url_that_breaks_a_rule_is_refused_by_that_rule(url: str, rule: str) -> None:
    assert refusal(url).endswith(f" is not fetched, because {rule}")


@pytest.mark.parametrize(
    "reference",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://files.example.com/x",
        "sftp://h/x",
        "gopher://h/x",
        "data://x",
        "local://etc/passwd",
        "memory://x/y",
        "hdfs://h/x",
        "smb://h/x",
        "github://org:repo@/x",
        "simplecache::s3://bucket/x",
        "zip://x::s3://bucket/x",
        "jar:file:///x!/y://z",
        "https+unix://x/y",
    ],
)
def test_other_schemes_are_refused_with_those_that_are_taken(reference: str) -> None:
    assert refusal(reference).endswith("because its scheme is not one of https, abfs, abfss, gcs, gs, s3, s3a")


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("s3://conn_id@bucket/x", "it carries credentials"),
        (
            "s3://key:password@bucket/x",
            "it carries credentials or a port; store them in an Airflow connection and give its id as " + CONN_FIELD,
        ),
        ("s3://bucket", "it names no object; write a bucket and a key or folder, such as s3://bucket/folder/"),
        ("s3://bucket/", "it names no object"),
        ("s3:///x", "it names no object; write a bucket and a key or folder, such as s3://bucket/folder/"),
        ("s3://bucket/../other/x", "the handle has a '..' segment"),
        ("s3://bucket/a%2e%2e/x", "the handle has a backslash or a percent sign in it"),
        ("s3://bucket/x::file:///etc/passwd", "the handle has '::' in it, which chains file systems"),
        ("s3://bucket/\x00", "the handle has a control character in it"),
    ],
)
def test_an_object_storage_uri_that_breaks_a_rule_is_refused(uri: str, rule: str) -> None:
    message = refusal(uri, BY_S3)
    assert message.endswith(f" is not fetched, because {rule}")
    assert "password" not in message
    assert "conn_id" not in message


@pytest.mark.parametrize("uri", ["s3://[/x", "s3://a]/x", "s3://a℀b/x", "abfs://[::1/x"])
def test_a_malformed_object_storage_uri_is_refused_like_any_other(uri: str) -> None:
    assert "is not fetched, because" in refusal(uri)


@pytest.mark.parametrize("url", ["https://files.example.com/\ud800", "s3://bucket/\ud800"])
def test_what_no_request_can_carry_is_refused_here_and_not_by_the_http_library(url: str) -> None:
    assert "is not fetched, because" in refusal(url)


@pytest.mark.parametrize(
    ("reference", "hidden"),
    [
        ("https://user:password@files.example.com/x?sig=sig-secret#sig-secret", ["user", "password", "sig-secret"]),
        ("http://files.example.com/x?sig=sig-secret", ["sig-secret"]),
        ("ftp://user:password@files.example.com/x?sig=sig-secret", ["user", "password", "sig-secret"]),
        ("https://10.0.0.1/x?sig=sig-secret", ["sig-secret"]),
        ("https:///user:password@files.example.com/x?sig=sig-secret", ["password", "sig-secret"]),
        ("https://user:password@[::1/x?sig=sig-secret", ["user", "password", "sig-secret"]),
        ("https://files.example.com:x/y?sig=sig-secret", ["sig-secret"]),
        ("https://files.example.com/ ?sig=sig-secret", ["sig-secret"]),
        ("https://user:password@files.example.com\\/x?sig=sig-secret", ["user", "password", "sig-secret"]),
        ("s3://user:password@bucket/x?sig=sig-secret", ["user", "password", "sig-secret"]),
    ],
)
def test_no_refusal_shows_credentials_or_a_query(reference: str, hidden: list[str]) -> None:
    message = refusal(reference)
    assert [word for word in hidden if word in message] == []


def test_a_refusal_is_printable_for_any_reference() -> None:
    assert refusal("ftp://h/\x1b[31m\u202e\ud800").isprintable()


# --- what is accepted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example.com/x",
        "HTTPS://Files.Example.com/x",
        "https://files.example.com:8443/x?y=z#f",
        "https://files.example.com./x",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]/x",
        "https://xn--mnchen-3ya.example/x",
        "https://my_bucket.s3.amazonaws.com/x",
        "https://files.example.com/a/../b",
        f"{API}/files/x",
    ],
)
def test_a_public_https_url_is_fetched(url: str) -> None:
    assert locate_error_file(url, PLAIN) == UrlSource(url)


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        (SANDBOX, "http://localhost:8080/files/x"),
        (GATEWAY, "http://capillary.internal:8080/files/x"),
        (GATEWAY, "http://CAPILLARY.internal.:8080/files/x"),
        (settings(host="https://10.1.2.3"), "https://10.1.2.3/x"),
        (settings(host="https://[fd00::1]:8443"), "https://[fd00::1]:8443/x"),
        (settings(host="https://localhost:8443"), "https://localhost:8443/x"),
    ],
)
def test_the_api_host_is_trusted_with_its_own_scheme_and_address(connection: ConnectionSettings, url: str) -> None:
    assert locate_error_file(url, connection) == UrlSource(url)


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        (SANDBOX, "http://localhost:9090/x"),
        (SANDBOX, "http://localhost/x"),
        (SANDBOX, "http://127.0.0.1:8080/x"),
        (GATEWAY, "http://capillary.internal/x"),
        (GATEWAY, "http://other.internal:8080/x"),
        (GATEWAY, "http://169.254.169.254/x"),
        (PLAIN, f"http://{HOST}/x"),
        (PLAIN, f"http://{HOST}:443/x"),
    ],
)
def test_plain_http_to_anything_but_the_very_api_host_is_refused(connection: ConnectionSettings, url: str) -> None:
    assert refusal(url, connection).endswith("because it is not https")


def test_plain_http_is_fetched_where_the_connection_itself_says_so() -> None:
    assert locate_error_file("x.csv", BY_PLAIN_HTTP) == UrlSource("http://files.internal:8081/x.csv")


@pytest.mark.parametrize(
    "template", ["https://10.1.2.3/{handle}", "https://localhost:8443/{handle}", "http://127.0.0.1:8081/{handle}"]
)
def test_the_host_of_the_error_file_url_is_trusted_for_the_user_wrote_it(template: str) -> None:
    connection = settings(extra={"error_file_url": template})
    assert locate_error_file("x.csv", connection) == UrlSource(template.replace("{handle}", "x.csv"))


def test_plain_http_in_the_error_file_url_is_refused_unless_allowed() -> None:
    connection = settings(extra={"error_file_url": "http://files.internal/{handle}"})
    assert refusal("x.csv", connection) == (
        "the error file http://files.internal/x.csv is not fetched, because it is not https"
    )


# --- what a name turns out to be ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:127.0.0.1", "0.0.0.0"]
)
def test_a_name_that_resolves_to_this_machine_or_its_link_is_refused(address: str) -> None:
    with pytest.raises(CapillaryErrorFileError, match="resolves to a loopback or link-local address"):
        check_peer("files.example.com", address, PLAIN)


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.1.1", "fd00::1", "8.8.8.8"])
def test_a_name_may_resolve_into_a_private_network(address: str) -> None:
    check_peer("files.example.com", address, PLAIN)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost."])
def test_a_host_of_the_connection_may_resolve_to_anything(host: str) -> None:
    check_peer(host, "127.0.0.1", SANDBOX)


# --- redirects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.example.com/y", "https://cdn.example.com/y"),
        ("//cdn.example.com/y", "https://cdn.example.com/y"),
        ("/y?z", "https://files.example.com/y?z"),
        ("y", "https://files.example.com/a/y"),
        ("?z", "https://files.example.com/a/x?z"),
    ],
)
def test_a_redirect_leads_where_its_location_says(location: str, target: str) -> None:
    assert follow_redirect("https://files.example.com/a/x?sig=sig-secret", location, PLAIN) == target


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "http://files.example.com/x",
        "https://169.254.169.254/latest",
        "//127.1/x",
        "file:///etc/passwd",
        "s3://bucket/x",
        "https://user:password@files.example.com/x",
        "//[",
        "https://[::1",
        "javascript:alert(1)",
    ],
)
def test_a_redirect_is_checked_like_the_first_url(location: str | None) -> None:
    with pytest.raises(CapillaryErrorFileError) as caught:
        follow_redirect("https://files.example.com/x?sig=sig-secret", location, PLAIN)
    assert "sig-secret" not in str(caught.value)
    assert "password" not in str(caught.value)


# --- messages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "connection", "where"),
    [
        ("x" * 4097, PLAIN, ""),
        ("", PLAIN, ""),
        ("a\nb", PLAIN, ""),
        ("a%b", PLAIN, ""),
        ("a::b", PLAIN, ""),
        ("/a", PLAIN, ""),
        ("a/../b", PLAIN, ""),
        ("a?b", BY_S3, ""),
        ("a#", BY_S3, ""),
        ("https://[::1/x", PLAIN, "(malformed URL)"),
        ("http://files.example.com/x", PLAIN, "http://files.example.com/x"),
        ("x.csv", settings(extra={"error_file_url": "http://f.example/{handle}"}), "http://f.example/x.csv"),
        ("https://10.0.0.1/x", PLAIN, "https://10.0.0.1/x"),
        ("https://localhost/x", PLAIN, "https://localhost/x"),
        ("ftp://files.example.com/x", PLAIN, "ftp://files.example.com/x"),
        ("s3://bucket/a%b", PLAIN, ""),
        ("s3://bucket/a#", PLAIN, ""),
        ("s3://aws_lake@bucket/x", PLAIN, "s3://bucket/x"),
        ("s3://bucket/x/", PLAIN, "s3://bucket/x/"),
        ("s3://", PLAIN, "(malformed URL)"),
    ],
)
def test_every_refusal_names_the_file_and_its_place(reference: str, connection: ConnectionSettings, where: str) -> None:
    with pytest.raises(CapillaryErrorFileError) as caught:
        locate_error_file(reference, connection, name="success file")
    place = f" {where}" if where else ""
    assert re.match(rf"the success file{re.escape(place)} is not fetched, because (it|its|the) \w+", str(caught.value))


@pytest.mark.parametrize(
    ("location", "where"),
    [
        (None, "https://files.example.com/a"),
        ("//[", "https://files.example.com/a"),
        ("https://10.0.0.1/x", "https://10.0.0.1/x"),
        ("ftp://files.example.com/x", "ftp://files.example.com/x"),
    ],
)
def test_the_refusal_of_a_redirect_names_the_file_and_its_place(location: str | None, where: str) -> None:
    with pytest.raises(CapillaryErrorFileError) as caught:
        follow_redirect("https://files.example.com/a", location, PLAIN, name="success file")
    assert str(caught.value).startswith(f"the success file {where} is not fetched, because it")


@pytest.mark.parametrize("connection", [PLAIN, BY_HTTP, BY_S3], ids=["download", "http", "s3"])
def test_what_is_located_keeps_the_name_of_the_file(connection: ConnectionSettings) -> None:
    for reference in (HANDLE, "https://files.example.com/x", "s3://bucket/x"):
        assert locate_error_file(reference, connection, name="success file").name == "success file"


def test_a_reference_of_4096_characters_is_not_too_long() -> None:
    assert locate_error_file("x" * 4096, PLAIN) == DownloadSource("x" * 4096)


# --- anything ----------------------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        *"/:@.%\\?#[]",
        "::",
        "..",
        "https://",
        "http://",
        "s3://",
        "file://",
        "files.example.com",
        HOST,
        "localhost",
        "127.0.0.1",
        "0x7f",
        "1.2.3.4.5",
        "169.254.169.254",
        "[::1]",
        "::ffff:1.2.3.4",
        "fe80::1%25",
        ":443",
        "\u2100",
        "\uff11",
        "\ud800",
        "\x00",
    ]
)
hostile = any_text | st.lists(pieces | st.text(max_size=3), max_size=8).map("".join)
connections = st.sampled_from([PLAIN, BY_HTTP, BY_S3, SANDBOX, GATEWAY, BY_PLAIN_HTTP])


@examples(100)
@given(hostile, connections)
def test_any_reference_is_located_or_refused(reference: str, connection: ConnectionSettings) -> None:
    source, error = attempt(lambda: locate_error_file(reference, connection))
    if error is not None:
        assert type(error) is CapillaryErrorFileError
        assert str(error).isprintable()
        return
    assert isinstance(source, UrlSource | DownloadSource | ObjectSource)
    if isinstance(source, UrlSource):
        source.url.encode()
        assert urlsplit(source.url).hostname
        assert "@" not in urlsplit(source.url).netloc


@examples(100)
@given(st.sampled_from(["https://", "http://", ""]), hostile, hostile, connections)
def test_any_url_is_fine_or_refused_as_is_any_redirect(
    scheme: str, rest: str, location: str, connection: ConnectionSettings
) -> None:
    def follow() -> None:
        check_url(scheme + rest, connection)
        check_url(follow_redirect(scheme + rest, location, connection), connection)

    _, error = attempt(follow)
    assert error is None or (type(error) is CapillaryErrorFileError and str(error).isprintable())


@examples(100)
@given(hostile)
def test_no_refusal_ever_shows_the_query_of_a_signed_url(path: str) -> None:
    for prefix in ("https://files.example.com/", "https://", "http://u:sig-secret@h/", "ftp://h/"):
        url = f"{prefix}{path}?X-Amz-Signature=sig-secret"
        _, error = attempt(lambda url=url: locate_error_file(url, PLAIN))
        assert "sig-secret" not in str(error)
