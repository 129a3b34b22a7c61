# SPDX-License-Identifier: Apache-2.0
"""The search for leaks finds what was put there to be found."""

from __future__ import annotations

import gzip
import json
import sqlite3
import urllib.parse
import zlib
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.system.leaks import search_database, search_files

if TYPE_CHECKING:
    from pathlib import Path

VALUES = {"secret": "b2d81c60f2aa", "another": "77f0aa1e5c3d"}
#: A secret as people have them: only its core survives being written down.
SECRET = f'sé"cr\\et/{VALUES["secret"]}+&'

WRITTEN = {
    "plain": SECRET.encode(),
    "JSON": json.dumps({"password": SECRET}).encode(),
    "JSON in JSON": json.dumps(json.dumps({"password": SECRET})).encode(),
    "URL": urllib.parse.quote(SECRET, safe="").encode(),
    "repr": repr(SECRET.encode()).encode(),
    "not UTF-8": b"\xff\xfe" + SECRET.encode("latin-1"),
    "gzip": gzip.compress(SECRET.encode()),
    "zlib": zlib.compress(SECRET.encode()),
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_a_value_in_a_file_is_found(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "logs" / "dag_id=waits" / "attempt=1.log"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"first line\n" + content if content.isascii() else content)
    (tmp_path / "clean.log").write_text("nothing of that kind")

    counts: Counter[str] = Counter()
    assert search_files(tmp_path, VALUES, counts) == {("logs/dag_id=waits/attempt=1.log", "secret")}
    assert counts == {"files": 2}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("kind", ["blob", "text"])
def test_a_value_in_a_database_is_found(tmp_path: Path, content: bytes, kind: str) -> None:
    with closing(sqlite3.connect(tmp_path / "test.db")) as database:
        database.execute("CREATE TABLE clean (id INTEGER, body TEXT)")
        database.execute("INSERT INTO clean VALUES (1, NULL), (2, 'nothing of that kind')")
        database.execute("CREATE TABLE xcom (id INTEGER, value BLOB)")
        database.execute("INSERT INTO xcom VALUES (1, 'nothing'), (2, NULL)")
        database.execute(f"INSERT INTO xcom VALUES (3, {'CAST(? AS TEXT)' if kind == 'text' else '?'})", (content,))
        database.commit()

    counts: Counter[str] = Counter()
    assert search_database(f"sqlite:///{tmp_path}/test.db", VALUES, counts) == {("xcom.value", "secret")}
    assert counts == {"cells": 10}


def test_a_value_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "test.db")) as database:
        database.execute("CREATE TABLE xcom (value TEXT)")
        database.execute("INSERT INTO xcom VALUES ('b2d81c60f2a')")
        database.commit()

    assert search_database(f"sqlite:///{tmp_path}/test.db", VALUES) == set()
    assert search_files(tmp_path, VALUES) == set()
