"""Partitions of the tables of a file, for which a server keeps files open."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.partitions import Partitions
from common.errors import LimitExceededError

NAMED = ", ".join(f"PARTITION `p{number}` VALUES LESS THAN ({number}) ENGINE = MyISAM" for number in range(1001))
FEWER = ", ".join(["PARTITION a VALUES LESS THAN (1) (SUBPARTITION b, SUBPARTITION c)"] * 999)
WITHIN = NAMED.replace("= MyISAM", "= MyISAM (SUBPARTITION a, SUBPARTITION b)")


def check(*tables: str) -> None:
    partitions = Partitions()
    for line, table in enumerate(tables, 1):
        partitions.check(table.encode(), line)


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE t (id int) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 1001",
        "CREATE TABLE t (id int) PARTITION BY HASH (id) PARTITIONS 1001",
        "CREATE TABLE `t` (\n  `id` int\n) ENGINE=Aria\n /*!50100 PARTITION BY KEY (`id`)\nPARTITIONS 1001 */",
        "CREATE TABLE t (id int) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 0x3E9",
        "CREATE TABLE t (id int) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 00000001001",
        f"CREATE TABLE t (id int) ENGINE=MyISAM PARTITION BY RANGE (id) ({NAMED})",
        f"CREATE TABLE t (id int) ENGINE=MyISAM PARTITION BY RANGE (id) SUBPARTITION BY HASH (id) ({WITHIN})",
        "CREATE TABLE t (id int) ENGINE=MyISAM PARTITION BY RANGE (id) SUBPARTITION BY HASH (id) SUBPARTITIONS 1001 "
        "(PARTITION a VALUES LESS THAN MAXVALUE)",
    ],
)
def test_too_many_partitions_of_all_tables_together_are_told(table: str) -> None:
    check("CREATE TABLE u (id int) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 900")

    with pytest.raises(LimitExceededError, match=r"^Line [12]: .*more than 2,000 partitions"):
        check(table, table)


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE t (id int, KEY (id)) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 1600",
        "CREATE TABLE t (id int COMMENT 'PARTITION BY HASH (id) PARTITIONS 8000') ENGINE=MyISAM",
        "CREATE TABLE t (`partition by` int, partitions int) ENGINE=MyISAM",
        "INSERT INTO t VALUES ('PARTITION BY'),('PARTITIONS 8000')",
    ],
)
def test_what_opens_few_files_is_taken(table: str) -> None:
    check(*[table] * 9)


def test_tables_of_a_usual_number_of_partitions_are_taken() -> None:
    check(*["CREATE TABLE t (id int) ENGINE=MyISAM PARTITION BY HASH (id) PARTITIONS 366"] * 5)
    check(f"CREATE TABLE t (id int) ENGINE=MyISAM PARTITION BY RANGE (id) SUBPARTITION BY HASH (id) ({FEWER})")


@pytest.mark.parametrize(
    "key", ["KEY `a` (`id`)", "UNIQUE KEY a (id)", "UNIQUE INDEX (id)", "index a (id)", "UNIQUE (id)"]
)
def test_too_many_keys_in_the_partitions_of_innodb_are_told(key: str) -> None:
    keys = ", ".join([key] * 40)
    table = f"CREATE TABLE `p` (`id` int NOT NULL,\n  {keys}) ENGINE=InnoDB PARTITION BY HASH (id)\nPARTITIONS "

    check(f"{table}300", f"{table}300")
    with pytest.raises(LimitExceededError, match=r"^Line 2: .*more than 30,000 keys"):
        check(f"{table}300", f"{table}500")
