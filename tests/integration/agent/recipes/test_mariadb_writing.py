"""An app that goes on writing while its tables change places: of each row there is what its triggers note."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from subprocess import Popen
from typing import IO

import pytest

from agent.engines.swapping import Side
from common.errors import AppBusyError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import MariadbApp
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until

TABLES = ("aa", "ff", "zz")
AUDITED = "CREATE TABLE log (t varchar(9), id int, KEY (t, id));" + "".join(
    f"CREATE TABLE {table} (id int AUTO_INCREMENT PRIMARY KEY, n int, p int, CONSTRAINT own_{table} FOREIGN KEY (p)"
    f" REFERENCES {table} (id));"
    f"CREATE TRIGGER noted_{table} AFTER INSERT ON {table} FOR EACH ROW INSERT INTO log VALUES ('{table}', NEW.id);"
    for table in TABLES
)


@pytest.fixture
def shop(shop_of_either: MariadbApp) -> MariadbApp:
    return shop_of_either


@contextmanager
def session(shop: MariadbApp, stdin: int | IO[str], *, stdout: int = subprocess.DEVNULL) -> Iterator[Popen[str]]:
    """One of the app's that goes on after errors, and ends with the block."""
    argv = [
        *(str(shop.server.install.client), "--no-defaults", "--protocol=tcp", "--force", "--batch", "--unbuffered"),
        *(f"--user={shop.user}", f"--host={shop.server.host}", f"--port={shop.server.port}", shop.database),
    ]
    environment = {"MYSQL_PWD": shop.password, "PATH": "/usr/bin:/bin"}
    with Popen(argv, env=environment, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def written_to(shop: MariadbApp, table: str) -> Iterator[None]:
    """Rows go into a table one after the other, each on its own."""
    endless = ["yes", f"INSERT INTO {table} (n) VALUES (1);"]
    with Popen(endless, stdout=subprocess.PIPE, text=True) as rows:
        assert rows.stdout is not None
        try:
            with session(shop, rows.stdout):
                yield
        finally:
            rows.kill()


@contextmanager
def in_use(shop: MariadbApp, table: str) -> Iterator[None]:
    """A transaction that has read a table goes on for the time of the block."""
    with session(shop, subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdin is not None
        assert busy.stdout is not None
        busy.stdin.write(f"BEGIN; SELECT COUNT(*) FROM {table};\n")
        busy.stdin.flush()
        assert busy.stdout.readline() == "COUNT(*)\n"
        yield


def unnoted(shop: MariadbApp, schema: str) -> dict[str, tuple[int, int]]:
    """Rows of each table, and how many of them the log does not have."""
    counted = {}
    for table in TABLES:
        rows, without = shop.server.sql(
            f"SELECT COUNT(*), SUM(id NOT IN (SELECT id FROM {schema}.log WHERE t = '{table}')) FROM {schema}.{table}"
        ).split("\t")
        counted[table] = int(rows), int(without)
    return counted


@variants("holds", ["zz", "aa"])
async def test_each_row_that_an_app_writes_during_an_exchange_has_what_its_triggers_make_of_it(
    holds: str, shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engines.mariadb.server.client.LOCK_SECONDS", 1)
    monkeypatch.setattr("agent.engines.mariadb.server.client.ATTEMPTS", 2)
    monkeypatch.setattr("agent.engines.mariadb.server.client.PAUSE_SECONDS", 0)
    shop.sql(AUDITED + "".join(f"INSERT INTO {table} (n) VALUES (1);" for table in TABLES))
    exported, record = (await shop.export("sql")).content, MemoryRecord()
    await shop.stage(exported, record)

    with ExitStack() as writing:
        for table in TABLES:
            writing.enter_context(written_to(shop, table))
        await until(lambda: all(int(shop.sql(f"SELECT COUNT(*) FROM {table}")) > 50 for table in TABLES))
        with in_use(shop, holds), pytest.raises(AppBusyError):
            await shop.recipe.restore(record, NotedProgress())
        refused = unnoted(shop, shop.database)
        monkeypatch.setattr("agent.engines.mariadb.server.client.LOCK_SECONDS", 10)
        await shop.recipe.restore(record, NotedProgress())
        await until(lambda: all(int(shop.sql(f"SELECT COUNT(*) FROM {table}")) > 50 for table in TABLES))
        previous = unnoted(shop, f"mathison_old_{record.key}")
        await shop.recipe._switch(record).bring(Side.PREVIOUS)
        imported = unnoted(shop, f"mathison_new_{record.key}")
    undone = unnoted(shop, shop.database)
    await shop.recipe.discard(record)

    for rows in (refused, previous, imported, undone):
        assert {table: without for table, (_, without) in rows.items()} == dict.fromkeys(TABLES, 0), rows
    assert all(previous[table][0] < undone[table][0] for table in TABLES)
    assert shop.leftovers(record) == []


async def test_a_table_that_the_app_makes_while_the_rename_waits_stays_on_either_side(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE own (id int)")
    exported, record = (await shop.export("sql")).content, MemoryRecord()
    await shop.stage(exported, record)
    with in_use(shop, "own"):
        restoring = asyncio.create_task(shop.recipe.restore(record, NotedProgress()), name="a restore")
        processes = "SELECT INFO FROM information_schema.PROCESSLIST"
        await until(lambda: "RENAME TABLE" in shop.server.sql(processes))
        shop.sql("CREATE TABLE meanwhile (id int); INSERT INTO meanwhile VALUES (7)")
    await restoring
    shop.sql("CREATE TABLE later (id int); INSERT INTO meanwhile VALUES (8)")

    imported = shop.sql("SHOW TABLES")
    await shop.recipe.undo(record, NotedProgress())

    assert imported.split() == ["later", "meanwhile", "own"]
    assert shop.sql("SHOW TABLES; SELECT * FROM meanwhile").split() == ["meanwhile", "own", "7", "8"]
    assert shop.leftovers(record) == []
