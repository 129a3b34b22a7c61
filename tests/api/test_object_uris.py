# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_capillary.api.object_uris import ObjectUri, parse_object_uri
from tests.api.flows import any_text, examples

ACCOUNT = "acct.dfs.core.windows.net"
ACCESS_POINTS = [
    "arn:aws:s3:eu-west-1:123456789012:accesspoint/ours",
    "arn:aws:s3:eu-west-1:123456789012:accesspoint:ours",
    "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/ours",
    "arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/ours",
    "arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint/ours",
    "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01ac5d28a6a232904/accesspoint/ours",
    "arn:aws:s3-outposts:us-west-2:123456789012:outpost:op-01ac5d28a6a232904:accesspoint:ours",
]


def refusal(uri: str, conn_id: str | None = None) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers check the message
        parse_object_uri(uri, conn_id=conn_id, conn_field="object_storage_conn_id")
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("s3://lake/a/b.csv", ObjectUri("s3", "lake", "a/b.csv")),
        ("S3A://lake/a/", ObjectUri("s3a", "lake", "a/")),
        ("s3://lake/", ObjectUri("s3", "lake", "")),
        ("s3://my.bucket/a:b@c", ObjectUri("s3", "my.bucket", "a:b@c")),
        ("gs://lake/part#1", ObjectUri("gs", "lake", "part#1")),
        ("abfs://lake/50%25", ObjectUri("abfs", "lake", "50%25")),
        ("hdfs://lake/a", ObjectUri("hdfs", "lake", "a")),
        ("file:///data/a b?c", ObjectUri("file", "", "/data/a b?c")),
        ("local:///data/a", ObjectUri("file", "", "/data/a")),
    ],
)
def test_a_uri_is_taken_apart_without_unquoting_it(uri: str, parsed: ObjectUri) -> None:
    assert parse_object_uri(uri) == parsed


def test_the_connection_id_is_not_in_the_uri_that_is_handed_on() -> None:
    parsed = parse_object_uri("s3://aws_lake@lake/a")

    assert (parsed.uri, parsed.conn_id) == ("s3://lake/a", "aws_lake")


@pytest.mark.parametrize(
    "uri", ["s3://lake/a", "s3://aws_lake@lake/a", "abfss://lake@acct.dfs.core.windows.net/a", "file:///a"]
)
def test_a_connection_id_that_is_given_counts_and_may_be_repeated_in_the_uri(uri: str) -> None:
    assert parse_object_uri(uri, conn_id="aws_lake").conn_id == "aws_lake"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://other@lake/a",
        f"s3://other@{ACCESS_POINTS[0]}/a",
        "gs://other@lake/a",
        "abfss://other@lake/a",
        f"abfss://other@lake@{ACCOUNT}/a",
        "file://other@/a",
        "sftp://other@host/a",
    ],
)
def test_a_connection_id_in_the_uri_that_contradicts_the_one_given_is_refused(uri: str) -> None:
    assert refusal(uri, "aws_lake") == (
        "names the connection 'other' before the @, but object_storage_conn_id is 'aws_lake'; leave one of them out"
    )


# --- storage accounts of Azure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["abfs", "abfss", "az", "wasb", "wasbs"])
@pytest.mark.parametrize(
    ("authority", "container", "account_host", "conn_id"),
    [
        (f"lake@{ACCOUNT}", "lake", ACCOUNT, None),
        ("lake@ACCT.blob.core.windows.net.", "lake", "acct.blob.core.windows.net", None),
        ("lake@acct.z01.blob.storage.azure.net", "lake", "acct.z01.blob.storage.azure.net", None),
        ("sales@onelake.dfs.fabric.microsoft.com", "sales", "onelake.dfs.fabric.microsoft.com", None),
        (f"$web@{ACCOUNT}", "$web", ACCOUNT, None),
        (f"wasb_lake@lake@{ACCOUNT}", "lake", ACCOUNT, "wasb_lake"),
        (f"{ACCOUNT}/lake", "lake", ACCOUNT, None),
        ("wasb_lake@lake", "lake", None, "wasb_lake"),
        ("lake", "lake", None, None),
    ],
)
def test_before_the_account_of_azure_stands_a_container_and_no_connection_id(
    scheme: str, authority: str, container: str, account_host: str | None, conn_id: str | None
) -> None:
    parsed = parse_object_uri(f"{scheme}://{authority}/errors/a.csv")

    assert parsed == ObjectUri(scheme, container, "errors/a.csv", account_host, conn_id)
    assert parsed.uri == f"{scheme}://{container}/errors/a.csv"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        (f"abfss://{ACCOUNT}", "names no object"),
        (f"abfss://{ACCOUNT}/", "names no object"),
        (f"abfss://{ACCOUNT}/lake", "names no object"),
        (f"abfss://@{ACCOUNT}/", "names no object"),
        (f"abfss://lake@{ACCOUNT}", "names no object"),
        ("abfss://lake@127.0.0.1:10000/devstoreaccount1/a", "carries credentials or a port"),
        (f"abfss://user:hunter2@lake@{ACCOUNT}/a", "carries credentials or a port"),
        (f"abfss://user:hunter2@{ACCOUNT}/a", "carries credentials or a port"),
        ("adl://lake/a", "has the scheme of Azure Data Lake Storage Gen1, which is retired; write abfss://"),
    ],
)
def test_an_azure_uri_that_cannot_be_meant_is_refused(uri: str, problem: str) -> None:
    message = refusal(uri)
    assert message.startswith(problem)
    assert "hunter2" not in message


# --- access points of S3 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["s3", "s3a", "s3n"])
@pytest.mark.parametrize("arn", ACCESS_POINTS)
@pytest.mark.parametrize("key", ["", "errors/", "a/b@c:d.csv"])
def test_the_arn_of_an_access_point_is_a_bucket(scheme: str, arn: str, key: str) -> None:
    assert parse_object_uri(f"{scheme}://{arn}/{key}") == ObjectUri(scheme, arn, key)
    assert parse_object_uri(f"{scheme}://aws_lake@{arn}/{key}") == ObjectUri(scheme, arn, key, None, "aws_lake")


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:s3:::lake",
        "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
        "arn:aws:s3:eu-west-1:123456789012:accesspoint",
        "arn:aws:s3:eu-west-1:123456789012:accesspoint/a.b",
        "arn:aws:s3:eu-west-1:1234:accesspoint/ours",
        "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-1/bucket/ours",
        "arn:aws:iam::123456789012:role/hunter2",
        "arn:",
    ],
)
def test_another_arn_is_refused_as_what_it_is(arn: str) -> None:
    message = refusal(f"s3://{arn}/a.csv")
    assert message.startswith(
        ("has an ARN in it that is not that of an S3 access point", "names a multi-region access")
    )
    assert "hunter2" not in message


@pytest.mark.parametrize("arn", ACCESS_POINTS)
def test_an_access_point_without_a_key_or_folder_is_refused(arn: str) -> None:
    assert "a slash and a key behind it" in refusal(f"s3://{arn}")


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("", "must be an absolute path or begin with the scheme of a store"),
        ("lake/a", "must be an absolute path or begin with the scheme of a store"),
        ("file:/data/a", "must be an absolute path or begin with the scheme of a store"),
        ("simplecache::s3://lake/a", "must be an absolute path or begin with the scheme of a store"),
        ("s3://[lake/a", "is a malformed URI"),
        ("s3://lake/a\n", "has a control character in it"),
        ("s3://lake", "names no object"),
        ("s3:///a", "names no object"),
        ("s3://aws_lake@/a", "names no object"),
        ("s3://KEY:hunter2@lake/a", "carries credentials or a port"),
        ("s3://KEY:hunter2/x@lake/a", "carries credentials or a port"),
        ("s3://KEY%3Ahunter2@lake/a", "carries credentials or a port"),
        ("file://user:hunter2@/a", "carries credentials or a port"),
        ("file://server/a", "must have an absolute path"),
        ("local://lake/a", "must have an absolute path"),
        ("s3://lake/a?X-Amz-Signature=hunter2", "has '?' in its key"),
        ("s3://lake/a::b", "has '::' in it"),
        ("file:///a::b", "has '::' in it"),
        ("s3://lake/a#", "ends in '#' or '?'"),
        ("file:///a#", "ends in '#' or '?'"),
        ("file:///a?", "ends in '#' or '?'"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_without_showing_it(uri: str, problem: str) -> None:
    message = refusal(uri)
    assert message.startswith(problem)
    assert "hunter2" not in message


def test_credentials_are_refused_with_the_field_that_is_for_them() -> None:
    assert refusal("s3://KEY:secret@lake/a").endswith("give its id as object_storage_conn_id")


pieces = st.sampled_from(
    ["s3://", "abfss://", "file://", "gs://", *"/:@.#?[]", "::", "arn:aws:s3:", "lake", ACCOUNT, *ACCESS_POINTS]
)


@examples(300)
@given(any_text | st.lists(pieces, max_size=9).map("".join))
def test_any_uri_is_parsed_to_one_that_airflow_s_path_leaves_as_it_is_or_is_refused(uri: str) -> None:
    try:
        parsed = parse_object_uri(uri)
    except ValueError:
        return
    assert urlsplit(parsed.uri).geturl() == parsed.uri
    assert "@" not in parsed.uri.partition("://")[2].partition("/")[0]
    again = parse_object_uri(parsed.uri)
    assert (again.scheme, again.container, again.key) == (parsed.scheme, parsed.container, parsed.key)
