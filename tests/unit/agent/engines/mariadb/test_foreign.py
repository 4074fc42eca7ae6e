"""What is said of a file that is no dump of MariaDB or MySQL, from its first bytes."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.foreign import begins_as_dump, what_it_is

OTHERS = {
    "PostgreSQL": (b"--\n-- PostgreSQL database dump\n", "a PostgreSQL dump in SQL"),
    "web page": (b"\r\n<!DOCTYPE html>", "a web page or XML document"),
    "text": (b"Dear all,\nselect one; or two", "text"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0", "of an unknown kind"),
}
DUMPS = [
    b"-- MariaDB dump 10.19",
    b"/*M!999999\\- enable the sandbox mode */",
    b"/*!40101 SET NAMES utf8 */;",
    b"# phpMyAdmin SQL Dump",
    b'-- mathison-data archive: {"recipe":"mariadb"}',
]
OTHER_SQL = [
    b"\n\ncreate table t (a int);",
    b"\\! touch x",
    b"#\nINSERT INTO t VALUES (1);",
    b"-- written by hand",
    b"",
]


@pytest.mark.parametrize(("head", "kind"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_dump_is_called_by_its_name(head: bytes, kind: str) -> None:
    assert what_it_is(head) == kind


@pytest.mark.parametrize("head", DUMPS + OTHER_SQL)
def test_what_may_be_sql_is_left_to_who_reads_all_of_it(head: bytes) -> None:
    assert what_it_is(head) == ""
    assert begins_as_dump(head) == (head in DUMPS)
