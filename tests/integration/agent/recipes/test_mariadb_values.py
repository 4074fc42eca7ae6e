"""MariaDB: each value comes back as it was, or the import says which does not and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engines.mariadb.names import quoted
from common.errors import ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.mariadb_apps import ODD_VALUES, MariadbApp
from tests.fixtures.variants import variants
from tools.servers import MariadbServer, mariadb

BEGINNING = (
    "-- MariaDB dump 10.19\n\n/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n"
    "/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;\n"
)
END = "/*!40101 SET SQL_MODE=@OLD_SQL_MODE */;\n\n-- Dump completed on 2026-11-29  8:35:57\n"


def all_of(app: MariadbApp, table: str) -> str:
    """What the server says of a table's values, its checksum, and how it is made."""
    columns = [line.split("\t")[0] for line in app.sql(f"SHOW COLUMNS FROM {quoted(table)}").splitlines()]
    listed = ", ".join(f"HEX(CONCAT({quoted(column)}))" for column in columns)
    return app.sql(
        f"SELECT {listed}, e + 0 FROM {quoted(table)} ORDER BY id; CHECKSUM TABLE {quoted(table)} EXTENDED;"
        f" SHOW CREATE TABLE {quoted(table)}"
    )


async def test_what_no_strict_server_would_take_comes_back_as_it_was(shop: MariadbApp) -> None:
    shop.sql(ODD_VALUES)
    others = "SELECT * FROM counted; SELECT id FROM periods"
    tables = ["odd", "enum`s", "loose"]
    before = [all_of(shop, table) for table in tables], shop.sql(others)
    exported = await shop.export()
    shop.sql("DELETE FROM odd; DROP TABLE `enum``s`, counted, loose; DELETE FROM periods")

    record = await shop.import_(exported.content)

    assert ([all_of(shop, table) for table in tables], shop.sql(others)) == before
    assert before[1] == "0\n7\n2"
    await shop.recipe.discard(record)


CUT = [
    ("int", "1.7"),
    ("bigint", "'1.7'"),
    ("int", "17e-1"),
    ("bit(3)", "1.7"),
    ("decimal(5,2)", "1.239"),
    ("float(7,3)", "1.23456"),
    ("double(5,1)", "1.26"),
    ("date", "'2026-02-03 04:05:06'"),
    ("date", "20260203040506"),
    ("time", "'10:00:00.9'"),
    ("time(1)", "'10:00:00.98'"),
    ("datetime", "'2026-02-03 04:05:06.999'"),
    ("timestamp(3) NULL", "20260203040506.9999"),
    ("varchar(3)", "'abc   '"),
    ("varchar(3)", "0x61626320"),
    ("time", "'2026-01-01 10:00:00'"),
    ("datetime", "'2026-01-01 10.11.12.9'"),
    ("datetime", "'20260101T101112.9'"),
    ("datetime", f"0x{b'2026-01-01 10:11:12.9'.hex()}"),
    ("int", r"'1\.7'"),
    ("tinytext", f"'{'x' * 255}   '"),
    ("enum('a','b')", "'2'"),
    ("set('a','b')", "'3'"),
]
"""Of which the server cuts something off and at most notes it."""
CHANGED = [
    ("timestamp NULL", "'2050-01-01 00:00:00'", "Out of range value for column 'v'|Incorrect datetime value"),
    ("timestamp NULL", "'2026-02-31 00:00:00'", "Incorrect datetime value: '2026-02-31 00:00:00'"),
    ("date", "'2026-02-32'", "Incorrect date value: '2026-02-32'"),
    ("time", "'900:00:00'", "Out of range value for column 'v'|Incorrect time value"),
    ("tinyint", "128", "Out of range value for column 'v'"),
    ("int unsigned", "-1", "Out of range value for column 'v'"),
    ("int", "'1x'", "Data truncated for column 'v'"),
    ("varchar(2)", "'abc'", "Data too long for column 'v'"),
    ("varchar(9) CHARACTER SET latin1", "'東'", "Incorrect string value"),
    ("varchar(9) CHARACTER SET utf8mb4", "'\udcff'", "Incorrect string value"),
    ("enum('a','b')", "'c'", "Data truncated for column 'v'"),
    ("set('a','b')", "'a,c'", "Data truncated for column 'v'"),
    ("binary(2)", "0x010203", "Data too long for column 'v'"),
    *((column, value, "Data truncated for column 'v'") for column, value in CUT),
]
"""What a server makes something else of, and what it says of it."""
NOTED = ("decimal(5,2)", "date", "time", "varchar(3)", "tinytext", "set('a','b')")


@variants(("column", "value", "words"), CHANGED, every=9)
async def test_a_value_that_the_server_would_change_is_told_by_table_and_line(
    column: str, value: str, words: str, shop: MariadbApp
) -> None:
    dump = f"{BEGINNING}CREATE TABLE `it's` (\n  `id` int,\n  `v` {column}\n);\n"
    line = dump.count("\n") + 1
    dump += f"INSERT INTO `it's` VALUES (1,NULL),(2,{value});\n{END}"

    await _refused(dump, rf"^Line {line} and after, rows of it's: .*(?:{words})", shop)


@variants(
    "mode",
    ["SET sql_mode = ''", "/*!50003 SET @@SESSION.sql_mode = 'ALLOW_INVALID_DATES' */"],
    kept=["/*!50003 SET @@SESSION.sql_mode = 'ALLOW_INVALID_DATES' */"],
)
async def test_no_sql_mode_that_a_dump_sets_lets_the_server_change_a_value(mode: str, shop: MariadbApp) -> None:
    table = "CREATE TABLE `t` (`v` tinyint);\nINSERT INTO `t` VALUES (1);\n"

    await _refused(f"{BEGINNING}{table}{mode};\nINSERT INTO `t` VALUES (128);\n{END}", "Out of range", shop)


@variants(
    "rows",
    [
        "INSERT INTO `t` VALUES (1,'','a',1,DEFAULT),(2,'a','',300,5)",
        "INSERT INTO `t` VALUES (1,'','c',1,1),(2,'a','a',3,5)",
        "INSERT INTO `t` (`n`, `f`, `e`) VALUES (300,'','a')",
        "INSERT IGNORE INTO `t` VALUES (1,'a','b',300,2)",
        "REPLACE DELAYED INTO `t` VALUES (1,'a','b',300,2)",
    ],
    every=3,
)
async def test_a_value_that_no_enum_lists_and_none_that_the_server_works_out_lets_another_through(
    rows: str, shop: MariadbApp
) -> None:
    table = (
        "CREATE TABLE `t` (`id` int, `e` enum('a','b'), `f` enum('a','b'), `n` tinyint, `g` int AS (`id` + 1) STORED)"
        " ENGINE=MyISAM;\n"
    )

    await _refused(f"{BEGINNING}{table}{rows};\n{END}", "rows of t: this server would change a value", shop)


async def test_a_blank_that_an_enum_lists_lets_no_other_value_through(shop: MariadbApp) -> None:
    table = "CREATE TABLE `t` (`id` tinyint, `e` enum('a',' '));\nINSERT INTO `t` VALUES (9999,'');\n"

    await _refused(BEGINNING + table + END, "rows of t: .*Out of range", shop)


@variants(("column", "value"), [found for found in CUT if found[0] in NOTED], every=4)
@variants("beside", ["`b` enum('a')", "`b` int AS (`id` + 1) STORED"])
async def test_what_the_server_would_cut_off_is_told_beside_what_it_is_not_asked_about(
    column: str, value: str, beside: str, shop: MariadbApp
) -> None:
    table = f"CREATE TABLE `t` (`id` int, {beside}, `v` {column});\nINSERT INTO `t` VALUES (1,'',{value});\n"

    await _refused(BEGINNING + table + END, "rows of t: .* Data truncated for column 'v'", shop)


async def test_decimals_that_say_nothing_are_taken(shop: MariadbApp) -> None:
    number = "12345678901234567890123456789012345678901234567890.25"
    table = (
        "CREATE TABLE `t` (`i` int, `n` decimal(65,2), `d` date, `at` datetime, `ms` time(3), `f` float(7,3),"
        " `s` varchar(3), `r` double, `y` year, `b` bit(8), `x` float);\n"
        "INSERT INTO `t` VALUES (10e1,'1.2300','2026-02-31 00:00:00.0','2026-02-03 04:05:06.000','10:00:00.120','1.5',"
        "'äöü','1.5e-300','2026',0x07,1e-3),(-1.0,-.5,20260203,20260203040506,NULL,NULL,'a  ',1e300,0,b'1',DEFAULT),"
        f"(TRUE,{number},NULL,NULL,NULL,2,'1''',-0.5,1901,'.',7);\n"
    )

    record = await shop.import_((BEGINNING + table + END).encode())

    assert shop.sql("SELECT i, n, d, at, ms, f, s, r, y, HEX(b), x FROM t").splitlines() == [
        "100\t1.23\t2026-02-31\t2026-02-03 04:05:06\t10:00:00.120\t1.500\täöü\t1.5e-300\t2026\t7\t0.001",
        "-1\t-0.50\t2026-02-03\t2026-02-03 04:05:06\tNULL\tNULL\ta  \t1e300\t0000\t1\tNULL",
        f"1\t{number}\tNULL\tNULL\tNULL\t2.000\t1'\t-0.5\t1901\t2E\t7",
    ]
    await shop.recipe.discard(record)


@variants(
    "setting",
    ["SET character_set_connection=latin1", "SET collation_connection='latin1_swedish_ci'", "SET NAMES utf8mb4"],
)
async def test_texts_do_not_go_through_a_character_set_that_a_file_sets(setting: str, shop: MariadbApp) -> None:
    table = "CREATE TABLE `t` (`a` varchar(9) DEFAULT '東', `b` varchar(9)) CHARSET utf8mb4;\n"
    rows = "INSERT INTO `t` (`b`) VALUES ('京');\n"

    record = await shop.import_(f"{BEGINNING}{setting};\n{table}{setting};\n{rows}{END}".encode())

    assert shop.sql("SELECT a, b FROM t") == "東\t京"
    await shop.recipe.discard(record)


async def test_a_server_that_notes_nothing_by_itself_does_for_an_import(tmp_path: Path) -> None:
    table = "CREATE TABLE `t` (`v` time);\nINSERT INTO `t` VALUES ('2026-02-03 04:05:06');\n"
    with MariadbServer(mariadb(), settings={"max-error-count": "0", "note-verbosity": ""}) as server:
        shop = MariadbApp(server, tmp_path / "work")

        await _refused(BEGINNING + table + END, "rows of t: .*'v'", shop)


async def test_routines_and_triggers_keep_the_sql_mode_that_they_were_made_under(shop: MariadbApp) -> None:
    modes = "SELECT SQL_MODE FROM information_schema.{} WHERE {}_SCHEMA = DATABASE()"
    shop.sql(
        "CREATE TABLE t (a int, d date); SET sql_mode = 'PIPES_AS_CONCAT,ALLOW_INVALID_DATES';"
        " CREATE FUNCTION joined() RETURNS text RETURN 'a' || 'b'; SET sql_mode = '';"
        " CREATE TRIGGER lax BEFORE INSERT ON t FOR EACH ROW SET NEW.d = '2026-02-31';"
    )
    exported = await shop.export()
    shop.sql("DROP TABLE t; DROP FUNCTION joined")

    record = await shop.import_(exported.content)

    assert shop.sql(modes.format("ROUTINES", "ROUTINE")) == "PIPES_AS_CONCAT,INVALID_DATES"
    assert shop.sql(modes.format("TRIGGERS", "TRIGGER")) == ""
    shop.sql("INSERT INTO t VALUES (1, NULL)")
    assert shop.sql("SELECT d FROM t; SELECT joined()") == "0000-00-00\nab"
    await shop.recipe.discard(record)


async def _refused(dump: str, words: str, shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE own (a int); INSERT INTO own VALUES (1)")
    before, record = shop.dumped(), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=words):
        await shop.stage(dump.encode(errors="surrogateescape"), record)
    await shop.recipe.discard(record)

    assert shop.dumped() == before
    assert shop.leftovers(record) == []
