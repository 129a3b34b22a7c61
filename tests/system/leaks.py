# SPDX-License-Identifier: Apache-2.0
"""Searches for values that must be nowhere: the files of an Airflow home, its metadata database, and its broker.

A value should be letters and digits only: then no escaping, be it of JSON, of a URL or of a repr, can hide it.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import re
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def unpacked(content: bytes) -> bytes:
    """Return a content with what it says once it is decompressed, if it is compressed."""
    with contextlib.suppress(OSError, EOFError, zlib.error):
        if content.startswith(b"\x1f\x8b"):
            return content + gzip.decompress(content)
        # Airflow compresses columns without a header of gzip's.
        return content + zlib.decompress(content)
    return content


def found_in(content: bytes, values: Mapping[str, str]) -> set[str]:
    """Return the names of the values that a content holds.

    :param content: What to search.
    :param values: The values by names that may be shown.
    """
    return {name for name, value in values.items() if value.encode() in content}


def search_files(folder: Path, values: Mapping[str, str], counts: Counter[str] | None = None) -> set[tuple[str, str]]:
    """Search all files under a folder.

    :param folder: The folder.
    :param values: The values by names that may be shown.
    :param counts: Counts `files`.
    :return: Path below the folder, and the name of the value found there.
    """
    files = [file for file in folder.rglob("*") if file.is_file()]
    if counts is not None:
        counts["files"] += len(files)
    return {
        (str(file.relative_to(folder)), name)
        for file in files
        for name in found_in(unpacked(file.read_bytes()), values)
    }


def search_database(
    database: str, values: Mapping[str, str], counts: Counter[str] | None = None
) -> set[tuple[str, str]]:
    """Search every column of every table of a database, of any type.

    :param database: Its URL.
    :param values: The values by names that may be shown.
    :param counts: Counts `cells`.
    :return: `table.column`, and the name of the value found there.
    """
    found = set()
    for column, cells in _columns(database):
        found |= {(column, name) for name in found_in(b"\0".join(cells), values)}
        if counts is not None:
            counts["cells"] += len(cells)
    return found


def _columns(database: str) -> Iterable[tuple[str, list[bytes]]]:
    engine = sqlalchemy.create_engine(database, poolclass=NullPool)
    tables = sqlalchemy.inspect(engine).get_table_names()
    # Not SQLAlchemy's own, which would convert what it reads; and not read-only: the files beside a SQLite database in
    # WAL mode may have to be created again.
    with contextlib.closing(engine.raw_connection()) as connection:
        if engine.dialect.name == "sqlite":
            # Text that is not UTF-8 must not end the search.
            connection.driver_connection.text_factory = bytes
        for table in tables:
            cursor = connection.cursor()
            cursor.execute(f'SELECT * FROM "{table}"')
            contents: dict[str, list[bytes]] = defaultdict(list)
            for row in cursor:
                for description, cell in zip(cursor.description, row, strict=True):
                    contents[description[0]].append(_as_bytes(cell))
            for column, cells in contents.items():
                yield f"{table}.{column}", cells


def _as_bytes(cell: Any) -> bytes:
    return unpacked(bytes(cell)) if isinstance(cell, bytes | memoryview) else str(cell).encode()


def search_redis(url: str, values: Mapping[str, str]) -> set[tuple[str, str]]:
    """Search every key of a Redis, of any type, and what is packed into the messages of Celery.

    :param url: Its URL.
    :param values: The values by names that may be shown.
    :return: The key, and the name of the value found there.
    """
    return {(key, name) for key, content in redis_contents(url) for name in found_in(content, values)}


def redis_contents(url: str) -> Iterable[tuple[str, bytes]]:
    """Return all keys of a Redis, each with what it holds; a message of Celery is followed by its body."""
    import redis

    with contextlib.closing(redis.Redis.from_url(url)) as client:
        keys = client.keys()
        for key in keys:
            read = {
                b"string": lambda key: [client.get(key)],
                b"list": lambda key: client.lrange(key, 0, -1),
                b"set": client.smembers,
                b"zset": lambda key: client.zrange(key, 0, -1),
                b"hash": lambda key: [cell for item in client.hgetall(key).items() for cell in item],
                # Gone in the meantime.
                b"none": lambda key: [],
            }[client.type(key)]
            cells = [cell for cell in read(key) if cell is not None]
            yield key.decode(errors="replace"), b"\0".join([key, *map(_with_body, cells)])


def _with_body(message: bytes) -> bytes:
    bodies = re.findall(rb'"body\\*": \\*"([A-Za-z0-9+/=]+)', message)
    return b"\0".join([message, *(base64.b64decode(body) for body in bodies)])
