"""FULLTEXT keys of the tables of a file, each of which takes many times its text on disk."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps import fulltext
from common.errors import LimitExceededError

TABLE = "CREATE TABLE `p` (\n  `id` int NOT NULL,\n  `t` longtext COMMENT 'FULLTEXT KEY (t)',\n  `u` text,\n  {}\n)"
KEYS = [
    *("FULLTEXT KEY `a` (`t`)", "FULLTEXT KEY `b` (`u`,`t`)", "fulltext index (T)", "FULLTEXT (`t`) COMMENT ') (`u`)'"),
    "FULLTEXT KEY `e` (`t`)",
]


def test_a_column_in_too_many_is_told_with_its_table_and_line() -> None:
    fulltext.check(TABLE.format(", ".join(KEYS[:-1])).encode(), 3)

    for text in (TABLE.format(", ".join(KEYS)), TABLE.format(", ".join(KEYS[:-1] * 2))):
        with pytest.raises(LimitExceededError, match=r"^Line 3, table p: its column t is in more than 4"):
            fulltext.check(text.encode(), 3)


def test_one_with_a_parser_counts_twice() -> None:
    key = "FULLTEXT KEY `a` (`t`) WITH PARSER `ngram` "
    fulltext.check(TABLE.format(f"{key}, {key}").encode(), 1)

    with pytest.raises(LimitExceededError):
        fulltext.check(TABLE.format(f"{key}, {key}, {key}").encode(), 1)


def test_what_makes_no_such_table_is_taken() -> None:
    fulltext.check(b"INSERT INTO t VALUES ('FULLTEXT KEY (t)')", 1)
    fulltext.check(b"CREATE SEQUENCE `fulltext`", 1)
