r"""Which texts go through a client program as they are. What is sent, and what is not, was found with random texts and
MySQL's general_log: clients of 8.0.33, 9.7.4, MariaDB 10.11 and 11.8."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.client_reads import ReadOtherwiseError, require_as_it_is

SENT = [
    b"CREATE PROCEDURE p() SELECT 1",
    b"CREATE PROCEDURE p() BEGIN SELECT 'it''s \\' ; \\\\', \"\\\"\", `a``\\`, a$b; END",
    b"CREATE PROCEDURE p() /* it's ; ** / */ BEGIN -- it's\n#\"\n--\n SELECT 5--3, 5 - -3; END -- it's",
    b"CREATE PROCEDURE p() SELECT /*+ SET_VAR(sql_mode='') INDEX(`t` a) */ 1 /*!50000 + '2' */",
    b"CREATE PROCEDURE p() SELECT '\xe9\x5c\x5c', '\xe6\x9d\xb1' AS \xe6\x9d\xb1 /* \xe6\x9d\xb1 */;",
    b"CREATE PROCEDURE p() SELECT '\0', '\ndelimited'",
    b"CREATE FUNCTION f(\n  delimiter text) BEGIN -- the delimiter to use\n SELECT 1;\n/* x\n*/ DELIMITER zz\n; END",
    b"CREATE PROCEDURE p() SELECT 'No delimiter found',\n 1 AS delimiter ",
    b"CREATE PROCEDURE p()\r\nSELECT 1 -- a\r\n",
]
NOT_SENT = {
    "a command": b"SELECT 1 \\C gbk",
    "a command in a hint": b"SELECT /*+ \\C gbk */ 1",
    "a command in code for later servers": b"SELECT 1 /*!99999 \\C gbk */",
    "a command in MariaDB's code": b"SELECT 1 /*M! \\C gbk */",
    "a string in a hint that does not end": b"SELECT /*+ ' */ 1",
    "a string in a hint that ends in another line": b"SELECT /*+ '\n' */ 1",
    "a string in code for others that does not end": b"SELECT 1 /*!99999 ' */",
    "several statements on later servers": b"SELECT 1 /*!99999 ; DROP TABLE t */",
    "a comment in a comment": b"SELECT 1 /* /*! */",
    "a comment whose end begins one": b"SELECT 1 /* a/*/ + 2 /* */",
    "a comment that begins with the end of code": b"SELECT 2 /*!50000 */* 3",
    "a letter behind a comment": b"SELECT 1 /**/\xe6\x9d\xb1END",
    "a dollar quote": b"SELECT $$ ' $$ ; ' $$",
    "a dollar quote behind a name": b"SELECT a$$ ' $$ ; ' $$",
    "a delimiter": b"SELECT 1 AS\nDELIMITER zz\n;",
    "a line that loses its end": b"SELECT\ndelimiter_a -\n- 1 + '\n; DROP TABLE t; -- '",
    "a line from a string that loses its end": b"SELECT '\ndelimiter' -\n- 1 + '\n; DROP TABLE t; -- '",
    "a comment for the server alone": b"SELECT 1 --\xa0'\n, '; DROP TABLE t'",
    "a control character behind dashes": b"SELECT 1 --\x01'\n, '; DROP TABLE t'",
    "a zero byte in a comment": b"SELECT 1 -- \0'\n",
    "a zero byte behind a backslash": b"SELECT '\\\0', 1",
    "a backslash before the end of a line": b"SELECT '\\\n'",
    "a string without an end": b"SELECT 'a",
    "a comment without an end": b"SELECT 1 /* a",
}


@pytest.mark.parametrize("text", SENT)
def test_what_each_client_reads_as_the_server_does_is_sent(text: bytes) -> None:
    require_as_it_is(text)


@pytest.mark.parametrize("text", NOT_SENT.values(), ids=NOT_SENT)
def test_what_a_client_may_read_otherwise_is_not_sent(text: bytes) -> None:
    with pytest.raises(ReadOtherwiseError, match=r"^has "):
        require_as_it_is(text)


def test_a_blank_arrives_after_each_comment_and_nothing_more_when_it_is_sent_again() -> None:
    arriving = b"CREATE PROCEDURE p() /* a */ BEGIN /* b */ SELECT '/*c*/', 1 /* d */ ; END /* e */"

    assert require_as_it_is(arriving.replace(b"b */ ", b"b */").replace(b"d */ ", b"d */")) == arriving
    assert require_as_it_is(arriving) == arriving


def test_a_backslash_escapes_nothing_where_the_sql_mode_says_so() -> None:
    require_as_it_is(b"SELECT '\\'", "NO_BACKSLASH_ESCAPES")

    with pytest.raises(ReadOtherwiseError, match="a backslash outside of strings in its line 2"):
        require_as_it_is(b"SELECT\n'\\' \\C gbk ''", "NO_BACKSLASH_ESCAPES")
