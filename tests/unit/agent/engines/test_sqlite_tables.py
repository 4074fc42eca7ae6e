"""What is said of tables, where SQLite says something that is not so."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from agent.engines.sqlite_tables import NULL_FOUND, nulls_not_there


def test_a_null_that_is_there_is_not_called_unfounded() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript("""
            CREATE TABLE t (a, b, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
            INSERT INTO t VALUES (1, 2, NULL);
            PRAGMA writable_schema=ON;
            UPDATE sqlite_schema SET sql = replace(sql, 'c,', 'c NOT NULL,');
            PRAGMA writable_schema=RESET;
        """)

        assert nulls_not_there(connection) == {f"{NULL_FOUND}t.a", f"{NULL_FOUND}t.b"}
