"""What rows can take of a server's memory, reckoned from the definition of their table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.engines.mariadb.dumps import inserts, row_memory
from agent.engines.mariadb.dumps.row_memory import RowMemory
from common.errors import ArchiveRefusedError, LimitExceededError

MIB = 1 << 20
LONG_ROW = b"('" + b"x" * (4 * MIB) + b"')"


def look(*statements: str | bytes, most_bytes: int = 16 * MIB) -> None:
    memory = RowMemory(most_bytes)
    for line, statement in enumerate(statements, 1):
        memory.check(statement.encode() if isinstance(statement, str) else statement, line)


def many(column: str, count: int = 100) -> str:
    return ", ".join(column.replace("{}", str(number)) for number in range(count))


@pytest.mark.parametrize(
    "columns",
    [
        many("`c{}` longtext DEFAULT repeat('x',4000000)"),
        many("`c{}` longtext DEFAULT (repeat('x',4000000))"),
        many("`c{}` longtext DEFAULT (`repeat` ('x',4000000))"),
        many("`c{}` int DEFAULT CASE WHEN 1 THEN length(lpad('x',4000000,'y')) END"),
        many("`c{}` binary(9) DEFAULT cast('x' as binary(4000000))"),
        many("`c{}` int GENERATED ALWAYS AS (length(space(4000000))) VIRTUAL"),
        many("CHECK (length(repeat('x', 4000000)) > 0)"),
        many("CONSTRAINT `k{}` CHECK (length(repeat('x', 4000000)) > 0)"),
        many("`c{}` longtext DEFAULT (repeat('x', 1e6))", 9),
        many("`c{}` longtext AS (uncompress('')) PERSISTENT", 9),
        many("`c{}` longtext DEFAULT (concat_ws('x', " + ",".join(["''"] * 99) + ", 1))", 1)
        + "," + many("`d{}` longtext DEFAULT (concat(`c0`,`c0`))", 9),
        many("KEY `k{}` ((repeat(`i`, 4000000)))"),
        many("KEY `k{}` (`i`, (repeat(`i`, 4000000)) DESC)"),
        many("`c{}` text DEFAULT (replace('" + "x" * 4000 + "', 'x', '" + "y" * 4000 + "'))"),
        many("`c{}` text DEFAULT (json_extract('[" + "0," * 4000 + "0]', " + ", ".join(["'$[*]'"] * 400) + "))"),
    ],
)  # fmt: skip
def test_definitions_by_which_a_server_makes_long_values_are_told(columns: str) -> None:
    table = f"CREATE TABLE `t` (`i` int, {columns})"

    with pytest.raises(LimitExceededError, match=r"^Line 1, table t: .*256 MiB"):
        look(table)


@pytest.mark.parametrize(
    "column",
    [
        "`c{}` longtext DEFAULT (`a`)",
        "`c{}` longtext DEFAULT a",
        "`c{}` longtext AS (lower(`A`))",
        "CHECK (upper(`a`))",
        "CHECK (`a` = `b` OR `i` = {})",
        "CHECK (`a` LIKE `b` OR `i` = {})",
        "CHECK (`a` IN (`b`, 'x') OR `i` = {})",
        "CHECK (`a` NOT REGEXP `b`)",
        "CHECK (`a` BETWEEN 'a' AND concat('x'))",
        "CHECK (`a` = 'x' COLLATE utf32_bin)",
        "`c{}` int AS (CASE `a` WHEN `b` THEN 1 END)",
    ],
)
def test_a_long_value_that_definitions_repeat_is_told_and_a_short_one_goes(column: str) -> None:
    table = f"CREATE TABLE `t` (`i` int, `a` longtext, `b` text, {many(column)})"

    look(table, b"INSERT INTO `t` (`a`) VALUES ('x')" + b",('y')" * 100_000)
    with pytest.raises(LimitExceededError):
        look(table, b"INSERT INTO `t` (`a`) VALUES ('x')," + LONG_ROW)


def test_columns_of_json_that_values_are_taken_out_of_go_with_rows_of_some_size() -> None:
    column = "`c{}` varchar(99) AS (json_unquote(json_extract(`a`,'$.x{}'))) VIRTUAL"
    table = f"CREATE TABLE `t` (`a` longtext CHECK (json_valid(`a`)), {many(column, 20)})"

    look(table, b"INSERT INTO `t` (`a`) VALUES " + LONG_ROW)


def test_keys_of_formulas_go_with_rows_of_some_size() -> None:
    keys = "KEY `f{}` ((lower(`n`))), KEY `g{}` (`i`,(json_length(`j`)) DESC), KEY `h{}` (`n`(10)), " + (
        "KEY `m{}` ((cast(json_extract(`j`,_utf8mb4'$.a') as unsigned array)))"
    )
    table = f"CREATE TABLE `t` (`i` int, `n` varchar(50), `j` json, {many(keys, 10)})"

    look(table, b"INSERT INTO `t` (`j`) VALUES " + LONG_ROW, most_bytes=64 * MIB)


def test_what_tables_take_counts_together() -> None:
    columns = many("`c{}` longtext DEFAULT (repeat('x',4000000))", 15)
    tables = [f"CREATE TABLE `t{n}` (`i` int, {columns})" for n in range(3)]

    look(*tables[:2], "INSERT INTO `t0` (`i`) VALUES (1)")
    with pytest.raises(LimitExceededError):
        look(*tables)


@pytest.mark.parametrize(
    ("made", "filled"),
    [("`t`", "`u`"), ("`É`", "`é`"), ("`t`", "`T`"), ("IF NOT EXISTS `t`", "t")],
)
def test_a_table_that_the_server_may_know_by_the_name_counts(made: str, filled: str) -> None:
    with pytest.raises(LimitExceededError):
        look(
            f"CREATE TABLE {made} (`a` longtext, {many('CHECK (upper(`a`))')})",
            f"INSERT INTO {filled} VALUES ".encode() + LONG_ROW,
        )


def test_rows_of_memory_tables_count_as_long_as_their_columns() -> None:
    table = "CREATE TABLE `t` (`i` int, `c` varchar(16000)) ENGINE=MEMORY"

    look(table, b"INSERT INTO `t` (`i`) VALUES (1)" + b",(1)" * 3000)
    with pytest.raises(LimitExceededError):
        look(table, *(b"INSERT INTO `t` (`i`) VALUES (1)" + b",(1)" * 300 for _ in range(20)))
    look(table.replace("MEMORY", "InnoDB"), b"INSERT INTO `t` (`i`) VALUES (1)" + b",(1)" * 9000)


@pytest.mark.parametrize(
    "type_",
    [
        *("national varchar(16000)", "NCHAR VARCHAR(16000)", "national character varying(16000)"),
        *("varchar(0000016000)", f"varchar({'0' * 5000}16000)", "char (99999999999)", f"binary({'9' * 5000})"),
    ],
)
def test_rows_of_memory_tables_count_as_long_whatever_their_type_is_called(type_: str) -> None:
    table = f"CREATE TABLE `t` (`i` int, `c` {type_}) ENGINE=MEMORY"

    with pytest.raises(LimitExceededError):
        look(table, b"INSERT INTO `t` (`i`) VALUES (1)" + b",(1)" * 6000)


def test_rows_of_memory_tables_count_beside_what_is_worked_out_of_them() -> None:
    table = f"CREATE TABLE `t` (`a` longtext, {many('CHECK (upper(`a`))', 30)}) ENGINE=MEMORY"
    rows = b"INSERT INTO `t` (`a`) VALUES ('x')" + b",('y')" * 3000

    look(table, rows)
    look(table, b"INSERT INTO `t` (`a`) VALUES " + LONG_ROW)
    with pytest.raises(LimitExceededError):
        look(table, rows + b"," + LONG_ROW)


def test_rows_are_gone_through_once_for_all_tables_that_they_may_be_of(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def row_lengths(text: bytes, at: int) -> Iterator[int]:
        if text:
            passes.append(at)
        return inserts.row_lengths(text, at)

    monkeypatch.setattr(row_memory, "row_lengths", row_lengths)
    columns = "(`a` longtext DEFAULT lower(`b`), `b` longtext)"
    tables = [f"CREATE TABLE `t{number}` {columns} ENGINE=MEMORY" for number in range(50)]

    look(*tables, "INSERT INTO `u` (`b`) VALUES ('x'),('y')")
    assert len(passes) == 1
    look("CREATE TABLE `t` (`a` int)", "INSERT INTO `u` VALUES (1),(2)")
    assert len(passes) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE `t` LIKE `u`",
        "CREATE TABLE `t` (LIKE `u`)",
        "CREATE TABLE `s`.`t` (`i` int)",
    ],
)
def test_a_table_in_words_that_no_dump_has_is_refused(statement: str) -> None:
    with pytest.raises(ArchiveRefusedError, match=r"^Line 1: the file makes a table in other words than a dump"):
        look(statement)


@pytest.mark.parametrize(
    ("definition", "longest"),
    [
        ("`s{}` varchar(255) AS (lower(trim(concat(ifnull(`a`,''),' ',coalesce(`b`,`c`))))) STORED, KEY (`s{}`)", MIB),
        ("`j{}` varchar(99) AS (json_unquote(json_extract(`doc`,'$.a{}'))) VIRTUAL", MIB),
        ("`d{}` longtext DEFAULT NULL CHECK (json_valid(`d{}`))", 15 * MIB),
        ("`u{}` varchar(36) DEFAULT (replace(uuid(),'-','')), `h{}` char(32) AS (lower(hex(`a`)))", 15 * MIB),
        ("`at{}` timestamp(3) NOT NULL DEFAULT current_timestamp(3) ON UPDATE current_timestamp(3)", 15 * MIB),
        ("`n{}` bigint DEFAULT nextval(`s`.`q`) COMMENT 'repeat(', CONSTRAINT `k{}` FOREIGN KEY (`a`) "
         "REFERENCES `u` (`repeat`), KEY `i{}` (`b`(20),`c`(3))", 15 * MIB),
        ("`b{}` longtext AS (repeat(`e`, 2)) STORED INVISIBLE, CHECK (1) NOT ENFORCED", MIB),
    ],
    ids=["joined", "parts of a document", "checked documents", "uuids", "moments", "keys", "twice"],
)  # fmt: skip
def test_definitions_as_apps_have_them_go(definition: str, longest: int) -> None:
    table = (
        "CREATE TABLE `t` (`a` varchar(255) DEFAULT 'repeat(', `b` text, `c` char(9), `e` enum('a','b'),"
        f" `doc` longtext, {many(definition, 50)}) ENGINE=InnoDB COMMENT='ENGINE=InnoDB'"
        " PARTITION BY RANGE (to_days(`at`)) (PARTITION `p` VALUES LESS THAN (1))"
    )
    row = b"('a','b','c','a','" + b"x" * longest + b"')"

    for most_bytes in (16 * MIB, 1024 * MIB):
        look(table, b"INSERT INTO `t` (`a`,`b`,`c`,`e`,`doc`) VALUES " + row, most_bytes=most_bytes)
