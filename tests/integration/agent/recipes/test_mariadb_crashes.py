"""The agent or the server is killed in the middle of an import into MariaDB."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.engines.mariadb import exchange
from agent.engines.mariadb.client import query
from agent.engines.mariadb.exchange import Exchange
from agent.engines.mariadb.settings import Login
from agent.journal import Entry, Journal
from agent.recipes.base import Recovered
from agent.states import Kind, TransferState
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, ServiceError
from tests.fakes.imports import NotedProgress
from tests.fixtures.mariadb_apps import KUMA_DUMP, MariadbApp
from tests.fixtures.variants import variants
from tests.fixtures.waiting import until
from tools.servers import MariadbServer, mariadb

CHECKOUT = Path(__file__).parents[4]
PROCESSES = "SELECT INFO FROM information_schema.PROCESSLIST"


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


async def test_an_agent_killed_while_it_loads_leaves_nothing_that_the_next_does_not_drop(shop: MariadbApp) -> None:
    shop.fill()
    before, entry = await shop.fingerprint(), opened(shop)
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
    assert (await shop.fingerprint()).differences(before) == []
    assert shop.leftovers(entry) == []


async def test_an_agent_killed_while_its_rename_waits_is_recovered_from(shop: MariadbApp) -> None:
    shop.fill()
    before, entry = await shop.fingerprint(), opened(shop)
    await shop.stage(KUMA_DUMP.read_bytes(), entry)
    async with shop.lock_held():
        with running(shop, "restore"):
            await until(lambda: "RENAME TABLE" in shop.server.sql(PROCESSES))
        side = await shop.recipe.recover(read(shop))
        pending = shop.server.sql(PROCESSES)

    assert side is Recovered.PREVIOUS
    assert "RENAME TABLE" not in pending
    await shop.recipe.discard(read(shop))
    assert (await shop.fingerprint()).differences(before) == []
    assert shop.leftovers(entry) == []


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


async def test_after_a_server_was_killed_between_dropped_triggers_and_rename_the_triggers_are_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MariadbServer(mariadb(), fsync=True) as server:
        shop = MariadbApp(server, tmp_path / "work")
        shop.sql(
            "CREATE TABLE own (id int PRIMARY KEY); CREATE TABLE log (id int);"
            "CREATE TRIGGER noted AFTER INSERT ON own FOR EACH ROW INSERT INTO log VALUES (NEW.id)"
        )
        before, entry = await shop.fingerprint(), opened(shop)
        await shop.stage(KUMA_DUMP.read_bytes(), entry)
        starting: list[asyncio.Task[None]] = []

        def restart() -> None:
            server.kill()
            server.start()

        async def killed(self: Exchange, moves: Sequence[str]) -> None:
            """The server is, instead of renaming; somebody starts it again."""
            assert shop.sql("SHOW TRIGGERS") == ""
            # In one step, since this task is cancelled when another notices first that the server is gone.
            starting.append(asyncio.create_task(asyncio.to_thread(restart)))
            await asyncio.shield(starting[0])
            raise AppUnavailableError("It is gone.")

        monkeypatch.setattr(Exchange, "rename", killed)

        with pytest.raises(AppUnavailableError):
            await shop.recipe.restore(entry, NotedProgress())

        assert (await shop.fingerprint()).differences(before) == []
        await asyncio.gather(*starting)
