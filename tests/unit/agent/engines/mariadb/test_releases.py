"""What is code in comments for one server and none for another is read as the server that it goes to reads it."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.releases import Release
from agent.engines.mariadb.dumps.sqltext import Statement
from agent.engines.mariadb.dumps.statements import RefusedError, Way, decide

MARIADB, MYSQL = Release.of("10.11.19-MariaDB-deb12"), Release.of("9.7.0")
OLD_MYSQL = Release.of("8.0.33")


@pytest.mark.parametrize(
    ("text", "in_mariadb", "in_mysql"),
    [
        (b"/*!40101 SET NAMES utf8mb4 */", b"SET NAMES utf8mb4", b"SET NAMES utf8mb4"),
        (b"/*! SET NAMES utf8mb4 */", b"SET NAMES utf8mb4", b"SET NAMES utf8mb4"),
        (b"/*!80002 ANALYZE TABLE `t` */", b"", b"ANALYZE TABLE `t`"),
        (b"/*!50700 a */ b", b"b", b"a   b"),
        (b"/*!99999 a */ b", b"b", b"b"),
        (b"/*M!100616 a*/b", b"a b", b"b"),
        (b"/*M!110401 a*/b", b"b", b"b"),
        (b"/*!100301 COMPRESSED*/ a", b"COMPRESSED  a", b"a"),
        (b"a/*!50000 `*/` '*/' \"*/\" */b", b"a  `*/` '*/' \"*/\"  b", b"a  `*/` '*/' \"*/\"  b"),
        (b"a '/*!99999 ' b '*/'", b"a '/*!99999 ' b '*/'", b"a '/*!99999 ' b '*/'"),
        (b"`/*!99999 x*/`", b"`/*!99999 x*/`", b"`/*!99999 x*/`"),
    ],
)
def test_code_for_the_server_is_laid_open_and_all_else_is_left_out(
    text: bytes, in_mariadb: bytes, in_mysql: bytes
) -> None:
    assert (MARIADB.read(text), MYSQL.read(text)) == (in_mariadb, in_mysql)


def test_each_release_has_its_own_number() -> None:
    assert OLD_MYSQL.read(b"/*!80034 a*/ /*!80033 b*/") == b"b"
    assert Release.of("11.8.3-MariaDB").read(b"/*!110803 a*/ /*!110804 b*/") == b"a"


@pytest.mark.parametrize(
    "text",
    [
        b"CREATE TABLE t (a int) ENGINE=InnoDB DATA /*!99999 x */ DIRECTORY='/tmp'",
        b"CREATE TABLE t (a int) ENGINE /*!99999 InnoDB */ =CSV",
        b"CREATE TABLE t (a int) ENGINE=/*!99999 InnoDB */BLACKHOLE",
        b"CREATE /*!99999 SEQUENCE " + b"a" * 2100 + b" */ TRIGGER g AFTER INSERT ON k FOR EACH ROW DELETE FROM l",
        b"CREATE /*!99999 SEQUENCE " + b"a" * 2100 + b" */ EVENT e ON SCHEDULE EVERY 1 SECOND DO DELETE FROM l",
        b"CREATE /*!99999 TABLE */ TEMPORARY TABLE t (a int)",
        b"CREATE /*!99999 SEQUENCE */ USER u",
        b"/*M!999999 SET */ GRANT ALL ON *.* TO x",
    ],
)
@pytest.mark.parametrize("release", [MARIADB, MYSQL], ids=["mariadb", "mysql"])
def test_words_that_the_server_does_not_read_hide_none_that_it_reads(text: bytes, release: Release) -> None:
    with pytest.raises(RefusedError):
        decide(Statement(text, 1), release)


def test_what_is_sent_has_no_comment_that_another_could_read_otherwise() -> None:
    text = b"CREATE /*!99999 SEQUENCE `a` */ TABLE t (a int /*!80023 INVISIBLE */)"

    assert decide(Statement(text, 1), MARIADB) == (Way.RUN, b"CREATE   TABLE t (a int  )")
    assert decide(Statement(b"/*!99999 GRANT ALL ON *.* TO x */", 1), MARIADB) == (Way.SKIP, b"")
