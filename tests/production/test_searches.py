# SPDX-License-Identifier: Apache-2.0
"""The search for leaks finds what was put into PostgreSQL and Redis to be found."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from tests.system.leaks import search_database, search_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.production.servers import PostgreSQL, Redis

VALUES = {"secret": "b2d81c60f2aa", "another": "77f0aa1e5c3d"}
SECRET = f'sé"cr\\et/{VALUES["secret"]}+&'


@pytest.fixture
def database(postgresql: PostgreSQL) -> Iterator[str]:
    """The URL of a database of the test's own."""
    url = sqlalchemy.make_url(postgresql.endpoint_url)
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE searched"))
        yield url.set(database="searched").render_as_string(hide_password=False)
        connection.execute(sqlalchemy.text("DROP DATABASE searched"))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text", SECRET),
        ("bytea", SECRET.encode()),
        ("bytea", zlib.compress(SECRET.encode())),
        ("json", json.dumps({"password": SECRET})),
        ("jsonb", json.dumps([{"password": SECRET}])),
    ],
)
def test_a_value_in_postgresql_is_found(database: str, kind: str, content: Any) -> None:
    engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE clean (id integer, body text)")
        connection.exec_driver_sql("INSERT INTO clean VALUES (1, NULL), (2, 'nothing of that kind')")
        connection.exec_driver_sql(f'CREATE TABLE "xcom" (id integer, "value" {kind})')
        connection.exec_driver_sql("INSERT INTO xcom VALUES (1, NULL), (2, %s)", (content,))

    assert search_database(database, VALUES) == {("xcom.value", "secret")}


def test_a_value_in_redis_is_found_in_every_type_of_key_and_in_the_body_of_a_message(redis: Redis) -> None:
    import redis as library

    body = base64.b64encode(json.dumps([["token"], {"token": SECRET}]).encode()).decode()
    message = json.dumps({"body": body, "properties": {"body_encoding": "base64"}})
    client = library.Redis.from_url(redis.endpoint_url)
    try:
        client.set("searched:clean", "nothing of that kind")
        client.set("searched:string", SECRET)
        client.set(f"searched:{VALUES['another']}", "a key")
        client.rpush("searched:list", "first", message)
        client.sadd("searched:set", SECRET)
        client.zadd("searched:zset", {SECRET: 1})
        client.hset("searched:hash", "field", json.dumps([message, "", "queue"]))
        found = search_redis(redis.endpoint_url, VALUES)
    finally:
        client.delete(*client.keys("searched:*"))

    names = ("string", "list", "set", "zset", "hash")
    assert found == {(f"searched:{name}", "secret") for name in names} | {("searched:77f0aa1e5c3d", "another")}
