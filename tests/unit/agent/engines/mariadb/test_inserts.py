"""Rows in as many statements as a server can be stopped between."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.inserts import Batches

SIXTEEN_MIB = 16 << 20
ROWS = b",".join(b"(%d,'it''s (%d),(')" % (number, number) for number in range(40))
INSERT = b"INSERT INTO `t` (`a`, `b`) VALUES " + ROWS


def batches_after(definition: str) -> list[bytes]:
    batches = Batches(SIXTEEN_MIB)
    assert list(batches.of(definition.encode())) == [definition.encode()]
    return list(batches.of(INSERT))


@pytest.mark.parametrize(
    "column",
    [
        "`b` longtext DEFAULT repeat('x',4000000)",
        "`b` longtext DEFAULT (repeat('x',4000000))",
        "`b` longtext DEFAULT BINARY REPEAT ('x',4000000)",
        "`b` longtext DEFAULT CASE WHEN 1 THEN lpad('x',4000000,'y') END",
        "`b` longtext DEFAULT cast('x' as binary(4000000))",
        "`b` longtext GENERATED ALWAYS AS (`a`) STORED",
        "`b` longtext AS(`a`) PERSISTENT",
        "`b` longtext DEFAULT/*!50001 repeat('x',4000000)*/",
        "`b` longtext DEFAULT `a`",
        "`b` longtext DEFAULT\n`a`",
        "`b` longtext DEFAULT a",
    ],
)
def test_rows_of_a_table_whose_server_works_values_out_come_a_few_at_a_time(column: str) -> None:
    sent = batches_after(f"CREATE TABLE `t` (`a` int, {column})")

    assert (sent[0], sent[-1]) == (b"BEGIN", b"COMMIT")
    rows = [part.removeprefix(b"INSERT INTO `t` (`a`, `b`) VALUES") for part in sent[1:-1]]
    assert [part.count(b"it''s") for part in rows] == [16, 16, 8]
    assert b",".join(rows).strip() == ROWS


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE `t` (\n  `a` int(11) NOT NULL AUTO_INCREMENT,\n  `b` varchar(200) DEFAULT 'repeat(',\n"
        "  `c` timestamp(3) NOT NULL DEFAULT current_timestamp(3) ON UPDATE current_timestamp(3),\n"
        "  `d` longtext CHECK (json_valid(`d`)),\n  `e` uuid NOT NULL DEFAULT uuid(),\n"
        "  `f` bigint DEFAULT nextval(`s`.`q`),\n  PRIMARY KEY (`a`),\n  KEY `i` (`b`(20)),\n"
        "  CONSTRAINT `k` FOREIGN KEY (`a`) REFERENCES `u` (`repeat`)\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4\n"
        " PARTITION BY RANGE (to_days(`c`)) (PARTITION `p` VALUES LESS THAN (1) ENGINE = InnoDB)",
        "SET NAMES utf8mb4",
        "DO SETVAL(`s`, 1, 0)",
        "/*!40000 ALTER TABLE `t` DISABLE KEYS */",
    ],
)
def test_rows_of_other_tables_stay_as_they_are(definition: str) -> None:
    assert batches_after(definition) == [INSERT]


def test_a_great_many_short_rows_are_parted_for_any_table() -> None:
    text = b"REPLACE INTO t VALUES (),()" + b",(1)" * 25_000

    sent = list(Batches(SIXTEEN_MIB).of(text))

    assert [part.count(b"(") for part in sent] == [0, 10_000, 10_000, 5_002, 0]
    assert all(part.startswith(b"REPLACE INTO t VALUES") for part in sent[1:-1])
