"""Rows sent so that a strict server takes what it held itself, and nothing else."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.columns import table_made_by
from agent.engines.mariadb.dumps.exact_rows import ExactRows

TABLE = (
    b"CREATE TABLE `a``b` (\n  `id` int(11) NOT NULL COMMENT ') AS (',\n  `),(` enum('x',')','it''s') DEFAULT NULL,\n"
    b"  `g` varchar(9) CHARACTER SET utf8mb4 GENERATED ALWAYS AS (concat(`id`,' AS ')) VIRTUAL,\n"
    b"  `z` longtext COMPRESSED DEFAULT NULL,\n  `e` enum('','b') DEFAULT '',\n"
    b"  `s` timestamp(6) GENERATED ALWAYS AS ROW START,\n  PRIMARY KEY (`id`),\n  KEY `AS` (`z`(9)),\n"
    b"  CONSTRAINT `c` CHECK (`id` in (1,2))\n) ENGINE=InnoDB"
)


def sent(*statements: bytes) -> list[bytes]:
    """What goes to the server for them, without what sets modes and says what comes."""
    exact = ExactRows()
    texts = [text for statement in statements for text in exact.of(statement, 7)]
    return [text for text in texts if not text.startswith((b"SET", b"SELECT 'mathison", b"CREATE", b"DROP"))]


def test_columns_are_told_from_keys_and_from_what_is_in_strings() -> None:
    table = table_made_by(TABLE)

    assert table is not None
    assert table.name == b"a`b"
    assert [found.name for found in table.columns] == [b"id", b"),(", b"g", b"z", b"e", b"s"]
    assert [found.name for found in table.columns if found.is_computed] == [b"g"]
    assert [found.name for found in table.columns if found.is_period] == [b"s"]
    assert [found.name for found in table.columns if found.is_enum] == [b"),("]


def test_values_of_generated_columns_are_left_to_the_server() -> None:
    rows = b"INSERT INTO `a``b` VALUES\n(1,'x','),(',NULL,'','2026-01-01'),\n(-2,NULL,0xFF, 'it''s \\'','b','x')"

    assert sent(TABLE, rows) == [
        b"INSERT INTO `a``b` VALUES\n(1,'x',DEFAULT,NULL,'',DEFAULT),\n(-2,NULL,DEFAULT, 'it''s \\'','b',DEFAULT)"
    ]


def test_values_that_no_enum_lists_are_counted() -> None:
    rows = b"INSERT INTO `a``b` (`),(`,`id`, `e`) VALUES ('',1,''),('x',2,''),('',3,'b')"

    assert sent(TABLE, rows) == [rows, b"SELECT IF(@@warning_count = 2, 1, (SELECT 1 UNION SELECT 2))"]


@pytest.mark.parametrize(
    "between",
    [
        [b"CREATE TABLE `a``b` (`id` int, `f` int, `g` int)"],
        [b"CREATE OR REPLACE TABLE `a``b` LIKE `other`"],
    ],
)
def test_nothing_is_left_out_where_it_is_not_sure_what_the_table_is(between: list[bytes]) -> None:
    rows = b"INSERT INTO `a``b` (`id`, `f`, `g`) VALUES (1,2,3)"

    assert sent(TABLE, *between, rows) == [rows]


def test_periods_are_kept_where_the_file_brings_its_history() -> None:
    exact = ExactRows()
    rows = b"INSERT INTO `a``b` (`id`, `s`) VALUES (1,'2026-01-01')"
    list(exact.of(TABLE, 1))
    list(exact.set(b"SET @@session.system_versioning_insert_history=1"))

    assert rows in list(exact.of(rows, 2))
