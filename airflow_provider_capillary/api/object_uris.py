# SPDX-License-Identifier: Apache-2.0
"""Parse URIs of objects: the destination of a transfer, the connection's Error file URL, and the URIs in responses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*", re.ASCII)
_CONN_ID = re.compile(r"[\w.-]+")
_S3 = ("s3", "s3a", "s3n")
_AZURE = ("abfs", "abfss", "az", "wasb", "wasbs")
#: The forms that botocore takes for a bucket. The name of an access point ends at the next slash.
_ACCESS_POINT = re.compile(
    r"arn:aws[a-z-]*:(?:s3|s3-object-lambda):[a-z0-9-]+:\d{12}:accesspoint[:/][A-Za-z0-9-]+"
    r"|arn:aws[a-z-]*:s3-outposts:[a-z0-9-]+:\d{12}:outpost[:/][A-Za-z0-9-]+[:/]accesspoint[:/][A-Za-z0-9-]+",
    re.ASCII,
)


@dataclass(frozen=True)
class ObjectUri:
    """A parsed object URI.

    :param scheme: In lower case; ``file`` for ``local`` too.
    :param container: Bucket, container or ARN of an access point; empty for ``file``.
    :param key: Name of the object within the container, or the absolute path of a file. Not unquoted, as fsspec does
        not either. Ends in a slash where the URI names a folder.
    :param account_host: Host of the Azure storage account, where the URI names one.
    :param conn_id: Airflow connection of the store; None where neither the URI nor the field names one.
    """

    scheme: str
    container: str
    key: str
    account_host: str | None = None
    conn_id: str | None = None

    @property
    def uri(self) -> str:
        """The URI without connection id and storage account, as ``ObjectStoragePath`` opens it with the connection."""
        return f"file://{self.key}" if self.scheme == "file" else f"{self.scheme}://{self.container}/{self.key}"


def parse_object_uri(uri: str, *, conn_id: str | None = None, conn_field: str = "the connection") -> ObjectUri:
    """Parse an object URI, and refuse one that Airflow or fsspec would read as another object.

    The part before an ``@`` is a connection id, as in Airflow, unless a storage account of Azure follows: then it is
    the container.

    :param uri: ``s3://bucket/key``, ``abfss://container@account.dfs.core.windows.net/name``, ``file:///path``, ...
    :param conn_id: Airflow connection that is given beside the URI.
    :param conn_field: Field or argument that gives it, for messages.
    :raises ValueError: The problem with its remedy, to be put behind the name of the field or "it". Never quotes the
        URI, whose rest may be the signature of a URL that was copied.
    """
    if not uri.isprintable():
        raise ValueError("has a control character in it, such as a line break")
    scheme, separator, rest = uri.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise ValueError(
            "must be an absolute path or begin with the scheme of a store, such as s3://, gs://, abfs:// or file://"
        )
    scheme = scheme.lower()
    try:
        urlsplit(f"{scheme}://{rest}")
    except ValueError:
        raise ValueError("is a malformed URI") from None
    if scheme == "adl":
        raise ValueError("has the scheme of Azure Data Lake Storage Gen1, which is retired; write abfss://")
    authority, slash, key = rest.partition("/")
    named_conn_id, container, account_host = _split_authority(scheme, authority)
    if account_host is not None and not container:
        # adlfs takes such a host for the account, and the container from the path.
        container, slash, key = key.partition("/")
    if scheme in _S3 and container.startswith("arn:"):
        container, key = _split_access_point(rest[len(authority) - len(container) :])
    elif ":" in container or (named_conn_id and not _CONN_ID.fullmatch(named_conn_id)):
        raise ValueError(
            f"carries credentials or a port; store them in an Airflow connection and give its id as {conn_field}"
        )
    if scheme in ("file", "local"):
        if container or not slash:
            raise ValueError("must have an absolute path, such as file:///data/errors/")
        scheme, key = "file", f"/{key}"
    elif not container or not slash:
        raise ValueError(f"names no object; write a bucket and a key or folder, such as {scheme}://bucket/folder/")
    if conn_id and named_conn_id and named_conn_id != conn_id:
        raise ValueError(
            f"names the connection {named_conn_id!r} before the @, but {conn_field} is {conn_id!r}; "
            "leave one of them out"
        )
    parsed = ObjectUri(scheme, container, key, account_host, conn_id or named_conn_id or None)
    _check_opens(parsed)
    return parsed


def _split_authority(scheme: str, authority: str) -> tuple[str, str, str | None]:
    """Return connection id, container, and host of the storage account: ``[conn_id@][container@]host`` with Azure."""
    before, _, last = authority.rpartition("@")
    # No container of Azure has a dot in its name.
    if scheme not in _AZURE or "." not in last or ":" in last:
        return before, last, None
    conn_id, _, container = before.rpartition("@")
    return conn_id, container, last.lower().removesuffix(".")


def _split_access_point(rest: str) -> tuple[str, str]:
    """Return ARN and key."""
    if re.match(r"arn:aws[a-z-]*:s3::\d", rest, re.ASCII):
        raise ValueError(
            "names a multi-region access point, whose '::' fsspec takes for a chain of file systems; name the access "
            "point of one region, or a bucket"
        )
    arn = _ACCESS_POINT.match(rest)
    if arn is None or not rest.startswith("/", arn.end()):
        raise ValueError(
            "has an ARN in it that is not that of an S3 access point with a slash and a key behind it, such as "
            "s3://arn:aws:s3:eu-central-1:123456789012:accesspoint/name/folder/"
        )
    return arn.group(), rest[arn.end() + 1 :]


def _check_opens(parsed: ObjectUri) -> None:
    """Refuse a name that Airflow's path would truncate to that of another object."""
    if "::" in parsed.key or "::" in parsed.container:
        raise ValueError("has '::' in it, which fsspec takes for a chain of file systems")
    if parsed.scheme != "file" and "?" in parsed.key:
        raise ValueError("has '?' in its key, which fsspec takes for the version of an object")
    if urlsplit(parsed.uri).geturl() != parsed.uri:
        raise ValueError("ends in '#' or '?', or begins with '//', which Airflow's ObjectStoragePath cuts off")
