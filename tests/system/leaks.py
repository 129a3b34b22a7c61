# SPDX-License-Identifier: Apache-2.0
"""Searches for values that must be nowhere: in the files of an Airflow home, and in its metadata database.

A value should be letters and digits only: then no escaping, be it of JSON, of a URL or of a repr, can hide it.
"""

from __future__ import annotations

import contextlib
import gzip
import sqlite3
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def search_files(folder: Path, values: Mapping[str, str]) -> set[tuple[str, str]]:
    """Search all files under a folder.

    :return: Path below the folder, and the name of the value found there.
    """
    return {
        (str(file.relative_to(folder)), name)
        for file in folder.rglob("*")
        if file.is_file()
        for name in found_in(unpacked(file.read_bytes()), values)
    }


def search_database(database: Path, values: Mapping[str, str]) -> set[tuple[str, str]]:
    """Search every column of every table of a SQLite database, of any type.

    :return: `table.column`, and the name of the value found there.
    """
    return {(column, name) for column, content in _columns(database) for name in found_in(content, values)}


def _columns(database: Path) -> Iterable[tuple[str, bytes]]:
    # Not read-only: the files beside a database in WAL mode may have to be created again.
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        # Text that is not UTF-8 must not end the search.
        connection.text_factory = bytes
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            name = table.decode()
            cursor = connection.execute(f'SELECT * FROM "{name}"')
            contents: dict[str, list[bytes]] = defaultdict(list)
            for row in cursor:
                for description, cell in zip(cursor.description, row, strict=True):
                    contents[description[0]].append(unpacked(cell) if isinstance(cell, bytes) else str(cell).encode())
            for column, cells in contents.items():
                yield f"{name}.{column}", b"\0".join(cells)
