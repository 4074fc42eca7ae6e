"""What is said of tables, where SQLite says something that is not so."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from common.sqlite_tables import quick_check


@pytest.mark.parametrize(("value", "verdict"), [("3", "ok"), ("NULL", "NULL value in t.c")])
def test_a_null_is_told_that_is_there_and_no_other(value: str, verdict: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(f"""
            CREATE TABLE t (a, b, c, d, PRIMARY KEY (b, a)) WITHOUT ROWID;
            INSERT INTO t VALUES (1, 2, {value}, NULL);
            PRAGMA writable_schema=ON;
            UPDATE sqlite_schema SET sql = replace(sql, 'c,', 'c NOT NULL,');
            PRAGMA writable_schema=RESET;
        """)

        assert quick_check(connection) == verdict
