"""The agent or the server is killed in the middle of an import into MariaDB."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from agent.engines.mariadb.imports import exchange
from agent.engines.mariadb.imports.exchange import Exchange
from agent.engines.mariadb.server.client import query
from agent.engines.mariadb.server.settings import Login
from agent.engines.swapping import Side
from agent.journal import Entry, Journal
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, InternalError, ServiceError
from tests.fakes.imports import FullRecord, MemoryRecord, NotedProgress
from tests.fixtures.mariadb_apps import KUMA_DUMP, MariadbApp
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tools.servers import MariadbServer, mariadb

CHECKOUT = Path(__file__).parents[4]
PROCESSES = "SELECT INFO FROM information_schema.PROCESSLIST"


def dump_of(statements: str) -> bytes:
    """A dump's beginning and end around statements."""
    return f"-- MariaDB dump 10.19\n\n{statements}\n\n-- Dump completed on 2026-11-23  8:35:57\n".encode()


def journal_of(shop: MariadbApp) -> Path:
    return shop.work_directory.parent / "journal"


def opened(shop: MariadbApp) -> Entry:
    """An import in a journal on disk."""
    state = TransferState(transfer_id="t-1", kind=Kind.IMPORT, started_at=dt.datetime.now(dt.UTC))
    return Journal(journal_of(shop), app_id="shop.db", recipe="mariadb").open(state)


def read(shop: MariadbApp) -> Entry:
    """What the journal says of it."""
    [entry] = Journal(journal_of(shop), app_id="shop.db", recipe="mariadb").read()
    return entry


@contextmanager
def running(shop: MariadbApp, action: str) -> Iterator[subprocess.Popen[str]]:
    """An agent at work; killed at the end of the block."""
    arguments = [action, str(journal_of(shop)), str(shop.work_directory), json.dumps(shop.settings)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.agent.recipes.mariadb_program", *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def losing_the_answer(then: Callable[[], None]) -> Callable[[Login, str], Awaitable[list[list[str]]]]:
    """A `query` that has the server carry out a RENAME, does something and knows nothing of it."""

    async def lost(login: Login, sql: str) -> list[list[str]]:
        rows = await query(login, sql)
        if not sql.startswith("RENAME TABLE"):
            return rows
        then()
        raise AppUnavailableError("Lost connection to server during query.")

    return lost


async def test_an_agent_killed_while_it_loads_leaves_nothing_that_the_next_does_not_drop(shop: MariadbApp) -> None:
    shop.fill()
    before, entry = shop.dumped(), opened(shop)
    with running(shop, "stage") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "loading\n"
        # The loader is connected: some of the dump is in.
        new = f"mathison_new_{entry.key}"
        tables = f"SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{new}'"
        await until(lambda: int(shop.server.sql(tables)) > 3)

    entry = read(shop)
    side = await shop.recipe.recover(entry)
    await shop.recipe.discard(entry)

    assert side is Recovered.PREVIOUS
    assert shop.dumped() == before
    assert shop.leftovers(entry) == []


async def test_an_agent_killed_while_its_rename_waits_is_recovered_from(shop: MariadbApp) -> None:
    shop.fill()
    before, entry = shop.dumped(), opened(shop)
    await shop.stage(KUMA_DUMP.read_bytes(), entry)
    async with shop.lock_held():
        with running(shop, "restore"):
            await until(lambda: "RENAME TABLE" in shop.server.sql(PROCESSES))
        side = await shop.recipe.recover(read(shop))
        pending = shop.server.sql(PROCESSES)

    assert side is Recovered.PREVIOUS
    assert "RENAME TABLE" not in pending
    await shop.recipe.discard(read(shop))
    assert shop.dumped() == before
    assert shop.leftovers(entry) == []


@variants("step", ["restore", "undo"])
async def test_an_exchange_whose_answer_is_lost_is_done(
    step: str, shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql("CREATE TABLE own (id int PRIMARY KEY); INSERT INTO own VALUES (1)")
    record = opened(shop)
    await shop.stage(KUMA_DUMP.read_bytes(), record)
    if step == "undo":
        await shop.recipe.restore(record, NotedProgress())

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "query", losing_the_answer(lambda: None))
        await (shop.recipe.undo if step == "undo" else shop.recipe.restore)(record, NotedProgress())

    assert ("heartbeat" in shop.sql("SHOW TABLES")) == (step == "restore")
    if step == "restore":
        await shop.recipe.undo(record, NotedProgress())
    assert shop.sql("SHOW TABLES; SELECT * FROM own") == "own\n1"
    assert shop.leftovers(record) == []


async def test_an_exchange_of_which_nobody_can_say_what_came_of_it_is_settled_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engines.mariadb.server.client.BACK_WITHIN_SECONDS", 0)
    with MariadbServer(mariadb(), fsync=True) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql("CREATE TABLE own (id int PRIMARY KEY); INSERT INTO own VALUES (1)")
        entry = opened(shop)
        await shop.stage(KUMA_DUMP.read_bytes(), entry)

        with monkeypatch.context() as patch:
            patch.setattr(exchange, "query", losing_the_answer(server.kill))
            with pytest.raises(UnsettledError, match="What came of it is not known"):
                await shop.recipe.restore(entry, NotedProgress())
        server.start()
        side = await shop.recipe.recover(read(shop))

        assert side is Recovered.IMPORTED
        await shop.recipe.undo(read(shop), NotedProgress())
        assert shop.sql("SHOW TABLES; SELECT * FROM own") == "own\n1"


async def test_a_restore_whose_client_was_killed_has_done_what_it_says(shop: MariadbApp) -> None:
    shop.sql("CREATE TABLE tag (id int PRIMARY KEY); INSERT INTO tag VALUES (1)")
    record = opened(shop)
    await shop.stage(dump_of("CREATE TABLE `brought` (`id` int);"), record)

    async with shop.lock_held():
        restoring = asyncio.create_task(shop.recipe.restore(record, NotedProgress()), name="a restore")
        await until(lambda: "RENAME TABLE" in shop.server.sql(PROCESSES))
        for child in psutil.Process().children(recursive=True):
            if f"--user={shop.admin}" in child.cmdline():
                child.kill()
    [failure] = await asyncio.gather(restoring, return_exceptions=True)

    assert failure is None or isinstance(failure, ServiceError)
    assert shop.sql("SHOW TABLES") == ("tag" if failure else "brought")
    await shop.recipe.restore(record, NotedProgress())
    await shop.recipe.undo(record, NotedProgress())
    assert shop.sql("SHOW TABLES; SELECT * FROM tag") == "tag\n1"


@variants("made", ["CREATE TRIGGER t AFTER INSERT ON own FOR EACH ROW SET @a = 1", ""])
async def test_an_agent_whose_disk_is_full_right_after_an_exchange_has_done_it(
    made: str, shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.sql(f"CREATE TABLE own (id int PRIMARY KEY); INSERT INTO own VALUES (1); {made}")
    before, record = shop.dumped(), FullRecord()
    await shop.stage(dump_of("CREATE TABLE `brought` (`id` int);"), record)
    real = Exchange._rename

    async def filling(exchange: Exchange, moves: Sequence[str]) -> None:
        await real(exchange, moves)
        record.is_full = bool(moves)

    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "_rename", filling)
        await shop.recipe.restore(record, NotedProgress())
    imported = shop.sql("SHOW TABLES")
    record.is_full = False
    await shop.recipe.undo(record, NotedProgress())

    assert imported == "brought"
    assert shop.dumped() == before
    assert shop.leftovers(record) == []


@variants("in_place", ["imported", "previous"])
async def test_nothing_is_dropped_when_others_are_in_place_than_the_agent_has_put_there(
    in_place: str, shop: MariadbApp
) -> None:
    shop.sql("CREATE TABLE own (id int PRIMARY KEY); INSERT INTO own VALUES (1)")
    record = MemoryRecord()
    await shop.stage(dump_of("CREATE TABLE `brought` (`id` int);"), record)
    await shop.recipe.restore(record, NotedProgress())
    if in_place == "imported":
        # As an agent that was told that nothing had come of it.
        record.save(imported_is_in_place=False)
    else:
        away = f"RENAME TABLE {shop.database}.brought TO mathison_new_{record.key}.brought"
        shop.server.sql(f"{away}, mathison_old_{record.key}.own TO {shop.database}.own")

    with pytest.raises(InternalError, match="Nothing is dropped"):
        await shop.recipe.discard(record)

    there = shop.server.sql(
        "SELECT TABLE_NAME FROM information_schema.TABLES"
        f" WHERE TABLE_SCHEMA LIKE '%{record.key}' OR TABLE_SCHEMA = '{shop.database}' ORDER BY 1"
    )
    assert there.split() == ["brought", "own"]


@variants("dropped", [0, 1])
async def test_an_undo_into_an_empty_database_is_done_however_many_of_the_schemas_were_dropped(
    dropped: int, shop: MariadbApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await shop.import_(KUMA_DUMP.read_bytes())

    async def killed(login: Login, batch: str) -> list[list[str]]:
        if "DROP DATABASE" not in batch:
            return await query(login, batch)
        await query(login, ";".join(batch.split(";")[: 1 + dropped]) + ";")
        raise AppUnavailableError("The server ended.")

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "query", killed)
        with pytest.raises(UnsettledError):
            await shop.recipe.undo(record, NotedProgress())

    assert await shop.recipe.recover(record) is Recovered.PREVIOUS
    assert shop.sql("SHOW TABLES") == ""
    await shop.recipe.discard(record)
    assert shop.sql("SHOW TABLES") == ""
    assert shop.leftovers(record) == []


@variants("moment", ["staged", "restored"], kept=["restored"])
async def test_a_server_that_was_killed_has_one_side_afterwards(moment: str, tmp_path: Path) -> None:
    with MariadbServer(mariadb(), fsync=True) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql("CREATE TABLE own (id int PRIMARY KEY); INSERT INTO own VALUES (1)")
        entry = opened(shop)
        await shop.stage(KUMA_DUMP.read_bytes(), entry)
        if moment == "restored":
            await shop.recipe.restore(entry, NotedProgress())
        server.kill()

        with pytest.raises(ServiceError):
            await shop.recipe.recover(entry)
        server.start()
        side = await shop.recipe.recover(read(shop))

        assert side is (Recovered.IMPORTED if moment == "restored" else Recovered.PREVIOUS)
        assert ("heartbeat" in shop.sql("SHOW TABLES")) == (moment == "restored")
        if moment == "restored":
            await shop.recipe.undo(read(shop), NotedProgress())
        await shop.recipe.discard(read(shop))
        assert shop.sql("SHOW TABLES; SELECT * FROM own") == "own\n1"
        assert shop.leftovers(entry) == []


async def test_a_server_that_is_killed_before_the_rename_has_its_triggers_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MariadbServer(mariadb(), fsync=True) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql(
            "CREATE TABLE own (id int PRIMARY KEY); CREATE TABLE log (id int);"
            "CREATE TRIGGER noted AFTER INSERT ON own FOR EACH ROW INSERT INTO log VALUES (NEW.id)"
        )
        before, entry = shop.dumped(), opened(shop)
        await shop.stage(KUMA_DUMP.read_bytes(), entry)
        starting: list[asyncio.Task[None]] = []

        def restart() -> None:
            server.kill()
            server.start()

        async def killed(self: Exchange, moves: Sequence[str], target: Side) -> None:
            """The server is, instead of renaming; somebody starts it again."""
            assert "noted" in shop.sql("SHOW TRIGGERS")
            # In one step, since this task is cancelled when another notices first that the server is gone.
            starting.append(asyncio.create_task(asyncio.to_thread(restart)))
            await asyncio.shield(starting[0])
            raise AppUnavailableError("It is gone.")

        monkeypatch.setattr(Exchange, "rename", killed)

        with pytest.raises(AppUnavailableError):
            await shop.recipe.restore(entry, NotedProgress())

        assert shop.dumped() == before
        await asyncio.gather(*starting)
