"""What of an sql_mode is left out for the other kind of server."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.sql_modes import without_granted


@pytest.mark.parametrize(
    ("text", "is_mysql", "sent", "left_out"),
    [
        (
            b"/*!50003 SET sql_mode              = 'STRICT_ALL_TABLES,NO_AUTO_CREATE_USER,ANSI_QUOTES' */",
            True,
            b"/*!50003 SET sql_mode              = 'STRICT_ALL_TABLES,ANSI_QUOTES' */",
            {b"NO_AUTO_CREATE_USER"},
        ),
        (
            b'SET @a = @@sql_mode, SQL_MODE="no_auto_create_user,TIME_ROUND_FRACTIONAL"',
            True,
            b'SET @a = @@sql_mode, SQL_MODE=""',
            {b"NO_AUTO_CREATE_USER", b"TIME_ROUND_FRACTIONAL"},
        ),
        (b"SET sql_mode = 'NO_AUTO_CREATE_USER'", False, b"SET sql_mode = 'NO_AUTO_CREATE_USER'", set()),
        (b"SET sql_mode = 'TIME_TRUNCATE_FRACTIONAL'", False, b"SET sql_mode = ''", {b"TIME_TRUNCATE_FRACTIONAL"}),
        (b"SET sql_mode = 'EMPTY_STRING_IS_NULL'", True, b"SET sql_mode = 'EMPTY_STRING_IS_NULL'", set()),
        (b"SET @saved_sql_mode = @@sql_mode", True, b"SET @saved_sql_mode = @@sql_mode", set()),
    ],
)
def test_modes_by_which_a_server_goes_anyway_are_left_out_and_no_others(
    text: bytes, is_mysql: bool, sent: bytes, left_out: set[bytes]
) -> None:
    found, modes = without_granted(text, is_mysql=is_mysql)

    assert (found, set(modes)) == (sent, left_out)
