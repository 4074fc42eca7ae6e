"""What the judge of a dump says of client commands, wherever they stand."""

from __future__ import annotations

import datetime as dt
import io

import pytest

from agent.engines.mariadb.dumps.filter_child import judged
from agent.engines.mariadb.dumps.releases import Release
from common.headers import ArchiveHeader
from common.seals import SqlSealWriter

TABLE = "CREATE TABLE `t` (\n  `a` int\n);\n"
MARIADB = Release.of("10.11.19-MariaDB")
END = "-- Dump completed on 2026-11-23  8:35:57\n"


class Pieces(io.BytesIO):
    """A file that comes in pieces."""

    def __init__(self, text: str, piece_bytes: int) -> None:
        super().__init__(text.encode())
        self._piece_bytes = piece_bytes

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(self._piece_bytes)


def report_on(text: str, *, piece_bytes: int = 1 << 20) -> dict[str, str | int]:
    return judged(
        Pieces(f"-- MariaDB dump 10.19\n\n{text}", piece_bytes),
        io.BytesIO(),
        most_bytes=1 << 24,
        new_schema="new",
        release=MARIADB,
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (r"\! touch X", r"\! touch X"),
        (r"\. /etc/passwd", r"\. /etc/passwd"),
        (r"\r other", r"\r other"),
        (r"\P less", r"\P less"),
        (r"\T /tmp/x", r"\T /tmp/x"),
        (r"\g", r"\g"),
        ("system touch X", "system touch X"),
        ("source /etc/passwd", "source /etc/passwd"),
        ("go", "go"),
    ],
)
@pytest.mark.parametrize("after", ["", "\n-- comment\n", TABLE], ids=["last", "before a comment", "before a table"])
@pytest.mark.parametrize("piece_bytes", [7, 1 << 20])
def test_a_client_command_is_refused_with_its_line_and_first_words(
    command: str, words: str, after: str, piece_bytes: int
) -> None:
    found = report_on(f"{TABLE}\n\n{command}\n{after}{END}", piece_bytes=piece_bytes)

    assert found["reason"] == "ARCHIVE_REFUSED", found
    assert "ine 8: " in str(found["text"]), found
    assert words in str(found["text"]), found


def test_the_use_of_another_database_is_told_without_a_semicolon_too() -> None:
    found = report_on(f"{TABLE}\n\nuse `other`\n{END}")

    assert (found["reason"], str(found["text"])[:8]) == ("ARCHIVE_WRONG_KIND", "Line 8: ")


@pytest.mark.parametrize("text", [f"{TABLE}system touch X\n", f"{TABLE}INSERT INTO `t` VALUES (1)\n{END}"])
def test_what_ends_early_is_cut_off_and_the_line_is_that_of_its_statement(text: str) -> None:
    found = report_on(text)

    assert found["reason"] == "ARCHIVE_TRUNCATED"
    assert "begins in line 6" in str(found["text"])


def test_an_export_of_ours_that_ends_within_a_statement_is_cut_off() -> None:
    header = ArchiveHeader(
        recipe="mariadb",
        format="sql",
        format_version=1,
        engine="mariadb",
        engine_version="10.11.19-MariaDB",
        made_by="test",
        created_at=dt.datetime(2026, 11, 29, tzinfo=dt.UTC),
    )
    opening = SqlSealWriter().opening(header).decode()

    found = judged(
        Pieces(f"{opening}{TABLE}INSERT INTO `t` VAL", 1 << 20),
        io.BytesIO(),
        most_bytes=1 << 24,
        new_schema="new",
        release=MARIADB,
    )

    assert found["reason"] == "ARCHIVE_TRUNCATED", found


@pytest.mark.parametrize("piece_bytes", [5, 1 << 20])
def test_defaults_from_the_dumps_own_sequences_are_led_to_where_it_is_loaded(piece_bytes: int) -> None:
    target = io.BytesIO()
    text = (
        "-- Host: localhost    Database: my shop\n\nCREATE SEQUENCE `sq`;\n"
        "CREATE TABLE `t` (`a` int DEFAULT nextval(`my shop`.`sq`), `b` text DEFAULT '`my shop`.');\n" + END
    )

    found = judged(Pieces(text, piece_bytes), target, most_bytes=1 << 24, new_schema="new", release=MARIADB)

    assert found.get("reason") is None, found
    assert b"nextval(`new`.`sq`), `b` text DEFAULT '`my shop`.')" in target.getvalue()


def test_a_statement_longer_than_the_server_takes_is_told_by_its_line_and_the_setting() -> None:
    text = f"{TABLE}\nINSERT INTO `t` VALUES\n(1),\n('{'x' * (17 << 20)}');\n{END}"

    found = report_on(text)

    assert found["reason"] == "ARCHIVE_INCOMPATIBLE", found
    assert found["text"] == (
        "Line 7: a statement of 17.0 MiB is longer than this server takes: its max_allowed_packet is 16.0 MiB."
    )
    assert "max_allowed_packet of the server to 19M or more" in str(found["next_step"])


ROUTINE = (
    "/*!50003 SET @saved_sql_mode       = @@sql_mode */ ;\n/*!50003 SET sql_mode              = '{mode}' */ ;\n"
    "DELIMITER ;;\nCREATE FUNCTION `f`() RETURNS text RETURN 'a' || 'b' ;;\nDELIMITER ;\n"
    "/*!50003 SET sql_mode              = @saved_sql_mode */ ;\n"
)
MODES = [
    *("PIPES_AS_CONCAT", "HIGH_NOT_PRECEDENCE", "NO_UNSIGNED_SUBTRACTION", "REAL_AS_FLOAT", "EMPTY_STRING_IS_NULL"),
    "TIME_ROUND_FRACTIONAL",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", [TABLE, "INSERT INTO `t` VALUES ('');\n"], ids=["table", "rows"])
@pytest.mark.parametrize(
    "setting",
    [
        "SET sql_mode='{mode}'",
        "SET @OLD_SQL_MODE=@@SQL_MODE, SESSION sql_mode='ignore_space,{mode}'",
        "SET sql_mode='{mode}';\nSET @a_sql_mode=@@session.SQL_MODE, sql_mode='';\nSET sql_mode=@A_SQL_MODE",
    ],
)
def test_what_would_mean_something_else_under_the_sql_mode_of_the_file_is_refused_by_its_name(
    mode: str, text: str, setting: str
) -> None:
    found = report_on(f"{setting.format(mode=mode)};\n{text}{END}")

    assert found["reason"] == "ARCHIVE_INCOMPATIBLE", found
    assert f"under the sql_mode {mode}, by which" in str(found["text"])


def test_a_sql_mode_of_routines_that_is_taken_back_or_changes_no_table_is_taken() -> None:
    around = "/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO,IGNORE_SPACE' */;\n{}"
    routines = "".join(TABLE + ROUTINE.format(mode=mode) for mode in ("PIPES_AS_CONCAT", "", "REAL_AS_FLOAT"))

    found = report_on(around.format(routines) + TABLE + END)

    assert "reason" not in found, found


def test_what_a_file_has_of_tables_for_other_servers_alone_is_named_with_its_first_line() -> None:
    columns = "`a` int DEFAULT '3' /*!80023 INVISIBLE */,\n  `b` text /*M!100301 COMPRESSED*/,\n"
    columns += "  `c` int /*!99999 \u202e\x1b[0m */,\n"
    table = f"CREATE TABLE `{{}}` (\n  {columns}  CONSTRAINT `c` CHECK ((`a` > 0)) /*!80016 NOT\n ENFORCED */\n);\n"

    found = report_on(f"/*!80000 SET @x = 1 */;\n{table.format('t')}{table.format('u')}{END}")

    assert found["words_left_out"] == r"'INVISIBLE' (line 4), '\u202e\x1b[0m' (line 4), 'NOT ENFORCED' (line 4)"
