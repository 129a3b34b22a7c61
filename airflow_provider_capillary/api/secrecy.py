# SPDX-License-Identifier: Apache-2.0
"""Keeps secrets out of messages and logs, and makes text of other origin safe to show in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, unquote_plus, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Characters at the end of a secret that are masked in logs. The end is the signature; without it the rest is useless.
#: Airflow keeps masked values for the life of the process, and compiles all of them again for each new one.
TAIL_LENGTH = 32
#: Shorter values are not blanked, like in Airflow's own masker: a header ``1`` would blank every number.
LEAST_LENGTH = 5
#: Names of parameters whose value is a secret of any length.
_SECRET_NAME = re.compile("sig|token|key|secret|pass|pwd|auth|cred", re.IGNORECASE)
#: Any other value of the second length or more is treated as a secret; from the first length on, if it is not a word, a
#: number or a date, which would be asterisks in every log line.
_LEAST_PARAMETER, _LONG_PARAMETER = 8, 16
_DATE = re.compile(r"\d{4}-?\d\d-?\d\d(T[\d:.Zz%A-Fa-f+-]*)?\Z", re.ASCII)
#: Parameters of signed URLs that are the same for everybody, or a time.
_HARMLESS = frozenset(
    {
        *(
            f"x-{vendor}-{name}"
            for vendor in ("amz", "goog")
            for name in ("algorithm", "date", "expires", "signedheaders")
        ),
        *("expires", "se", "st", "sv", "ske", "skt", "skv"),
        *("response-content-disposition", "response-content-type"),
    }
)
_LONGEST_LINE = 300
_LONGEST_ID = 100
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#'\"<>@]*@)?([^\s?#'\"<>]*)([?#][^\s'\"<>]*)?")
# What ``requests`` leaves as it stands in a URL, and what needs no escape (RFC 3986, 2.2 and 2.3).
_LEFT_ALONE = "!#$%&'()*+,/:;=?@[]~"
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def tail(secret: str) -> str:
    """Return the part of a secret to mask in logs.

    :param secret: A token, or the value of a query parameter.
    """
    return secret[-TAIL_LENGTH:]


def query_secrets(url: str) -> list[str]:
    """Return the values in a URL's query that may be a signature or a key, each in all spellings that a log may have.

    HTTP libraries log the URL as they send it: ``requests`` and ``urllib3`` make ``%2B`` of ``%2b`` and ``~`` of
    ``%7E``. Others log it as it came, or decoded.

    :param url: Any URL; a malformed one has no query.
    """
    try:
        query = urlsplit(url).query
    except ValueError:
        return []
    found: dict[str, None] = {}
    for parameter in query.split("&"):
        name, separator, value = parameter.partition("=")
        value = value if separator else name
        if _may_be_secret(name if separator else "", value):
            found |= dict.fromkeys(each for each in _spellings(value) if len(each) >= LEAST_LENGTH)
    return list(found)


def blank(text: str, secrets: Iterable[str]) -> str:
    """Replace secrets in a text by asterisks.

    :param text: The text.
    :param secrets: Values to blank. Those shorter than 5 characters are kept.
    """
    # The longest first: one may be the beginning of another.
    for secret in sorted((each for each in secrets if len(each) >= LEAST_LENGTH), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def shown(text: str, *, secrets: Iterable[str] = (), most: int = _LONGEST_LINE) -> str:
    """Return text of other origin as one short printable line without secrets.

    Credentials, query and fragment of each URL in it are removed.

    :param text: Text of a server or a library.
    :param secrets: Values to blank.
    :param most: Longest line, in characters.
    """
    # Before the line is cut: a cut secret would not be found.
    text = _URL.sub(lambda url: f"{url[1]}{url[2]}{'?***' if url[3] else ''}", blank(text, secrets))
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def shown_id(value: str | None, *, secrets: Iterable[str] = ()) -> str | None:
    """Return an id that a server sent, safe to show in a message; None for none.

    :param value: The id.
    :param secrets: Values to blank.
    """
    return shown(value, secrets=secrets, most=_LONGEST_ID) or None if value else None


def _may_be_secret(name: str, value: str) -> bool:
    if name.lower() in _HARMLESS:
        return False
    if _SECRET_NAME.search(name):
        return len(value) >= LEAST_LENGTH
    if _DATE.match(value):
        return False
    return len(value) >= (_LONG_PARAMETER if value.isalpha() or value.isdigit() else _LEAST_PARAMETER)


def _spellings(value: str) -> Iterator[str]:
    yield value
    normal = _ESCAPE.sub(lambda escape: _unescaped(escape[0]), value)
    yield quote(normal, safe=_LEFT_ALONE)
    yield _ESCAPE.sub(lambda escape: escape[0].upper(), value)
    yield _ESCAPE.sub(lambda escape: escape[0].lower(), value)
    decoded = unquote(value)
    yield decoded
    yield unquote_plus(value)
    yield quote(decoded, safe="")


def _unescaped(escape: str) -> str:
    character = chr(int(escape[1:], 16))
    return character if character in _UNRESERVED else escape.upper()


def without_query(url: str) -> str:
    """Return a URL fit for a log: no credentials, query or fragment (a signed URL's signature is in its query)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(malformed URL)"
    if not parts.scheme:
        return parts.path
    # Without a host, what stands in place of a path may be anything, credentials too.
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else "(malformed URL)"
