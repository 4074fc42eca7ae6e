"""MariaDB: a small file does not make the app's server take much memory, imported or previewed."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ArchiveRefusedError, LimitExceededError, ServiceError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.mariadb_apps import MariadbApp
from tests.fixtures.variants import variants
from tools.servers import MariadbServer, mariadb

BEGINNING = "-- MariaDB dump 10.19\n\n"
END = "\n-- Dump completed on 2026-11-29  8:35:57\n"
LONG = "x" * 4_000_000


def columns(text: str, count: int = 100) -> str:
    return ", ".join(text.format(number) for number in range(count))


def peak_mib(server: MariadbServer) -> int:
    """The most memory that the server's process had so far."""
    [line] = [line for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) >> 10


DEFAULT = "`c{}` longtext DEFAULT (repeat('x',4000000))"
CALLS = f"CREATE TABLE t (i int, {columns(DEFAULT)}) ENGINE=MyISAM;\nINSERT INTO t (i) VALUES (1);\n"
COPIES = (
    f"CREATE TABLE t (a longtext, {columns('c{} longtext DEFAULT a')}) ENGINE=MyISAM;\n"
    f"INSERT INTO t (a) VALUES ('{LONG}');\n"
)
NAMES = (
    f"CREATE TABLE t (a longtext, {columns('c{} longtext')}) ENGINE=MyISAM;\n"
    f"INSERT INTO t VALUES ('{LONG}',{','.join(['a'] * 100)});\n"
)
CHECKS = f"CREATE TABLE t (i int, {columns('CHECK (length(lpad(i,4000000,{})))')});\nINSERT INTO t VALUES (1);\n"
HEAPS = "".join(
    f"CREATE TABLE t{number} (i int, c varchar(16000)) ENGINE=MEMORY;\n"
    f"INSERT INTO t{number} (i) VALUES {','.join(['(1)'] * 250)};\n"
    for number in range(60)
)

ZEROS = HEAPS.replace("c varchar(16000)", columns("c{} char(0000000255)", 60))
CONVERTED = (
    f"CREATE TABLE t (l longtext CHARSET latin1, u text, {columns('CHECK (l = u OR {} = length(u))')});\n"
    f"INSERT INTO t VALUES ('{LONG}','x');\n"
)


@variants(
    ("tables", "error", "most_mib"),
    [
        (CALLS, LimitExceededError, 50),
        (COPIES, LimitExceededError, 50),
        (NAMES, ArchiveRefusedError, 50),
        (CHECKS, LimitExceededError, 50),
        # Until the bound is reached, rows are loaded.
        (HEAPS, LimitExceededError, 350),
        (ZEROS, LimitExceededError, 350),
        (CONVERTED, LimitExceededError, 50),
    ],
    ids=["calls", "copies", "names in rows", "checks", "tables in memory", "zeros", "character sets"],
    every=4,
)
async def test_a_small_file_cannot_take_much_of_the_servers_memory(
    tables: str, error: type[ServiceError], most_mib: int, tmp_path: Path
) -> None:
    with MariadbServer(mariadb()) as server:
        shop, record = MariadbApp(server, tmp_path / "work"), MemoryRecord()
        before_mib = peak_mib(server)

        with pytest.raises(error):
            await shop.stage((BEGINNING + tables + END).encode(), record)

        assert peak_mib(server) - before_mib < most_mib
        await shop.recipe.discard(record)
        assert shop.leftovers(record) == []


async def test_a_few_lines_cannot_take_all_files_that_the_server_may_open(tmp_path: Path) -> None:
    table = (
        "CREATE TABLE p{0} (i int) ENGINE=MyISAM PARTITION BY HASH (i) PARTITIONS {1};\nINSERT INTO p{0} VALUES (1);\n"
    )
    with MariadbServer(mariadb()) as server:
        shop, record = MariadbApp(server, tmp_path / "work"), MemoryRecord()

        tables = table.format(1, 100) + table.format(2, 100) + table.format(3, 8000)
        with pytest.raises(LimitExceededError, match=r"^Line 7: .* 2,000 partitions"):
            await shop.stage((BEGINNING + tables + END).encode(), record)

        assert len(list(Path(f"/proc/{server.pid}/fd").iterdir())) < 1000
        await shop.recipe.discard(record)
        assert shop.leftovers(record) == []


async def test_definitions_that_make_long_values_go_up_to_a_bound(shop: MariadbApp) -> None:
    tables = f"CREATE TABLE t (i int, {columns(DEFAULT, 25)});\nINSERT INTO t (i) VALUES (1);\n"

    record = await shop.import_((BEGINNING + tables + END).encode())

    assert shop.sql("SELECT LENGTH(c0), LENGTH(c24) FROM t") == "4000000\t4000000"
    await shop.recipe.discard(record)
