"""Transactions that somebody prepared and nobody ended: they are named wherever they are in the way, and none is waited
for without an end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from agent.engines.pg.aside import dropping
from agent.engines.pg.imports import beside, same_database, statistics, transaction
from agent.engines.pg.server import connection as connections
from agent.engines.pg.server.connection import Login
from agent.engines.pg.server.names import new_name
from common.errors import AppBusyError
from tests.fakes.imports import MemoryRecord
from tests.integration.agent.engines.pg.apps import PostgresApp
from tools.servers import PostgresServer, postgres

PREPARED = "BEGIN; {}; PREPARE TRANSACTION 'left ''behind'''"
ROLLBACK = "ROLLBACK PREPARED 'left ''behind'''"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(postgres(17), settings={"max_prepared_transactions": "5"}) as server:
        yield server


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are not waited for so long."""
    for module in (dropping, transaction, same_database):
        monkeypatch.setattr(module, "LOCK_WAIT_SECONDS", 1)
    monkeypatch.setitem(connections._CALM, "lock_timeout", "1s")


def says(failure: pytest.ExceptionInfo[AppBusyError]) -> str:
    return failure.value.next_step.replace("\n", " ")


async def test_within_the_database_it_is_named(server: PostgresServer, tmp_path: Path) -> None:
    app = PostgresApp(server, tmp_path, has_admin=False)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    record, _ = await app.stage(await app.export())
    app.run("UPDATE t SET a = 2", as_app=True)

    app.run(PREPARED.format("UPDATE t SET a = 3"), as_app=True)
    with pytest.raises(AppBusyError) as restoring:
        await app.recipe.restore(record, app.progress)
    app.run(ROLLBACK, as_app=True)
    await app.recipe.restore(record, app.progress)
    app.run(PREPARED.format("UPDATE t SET a = 4"), as_app=True)
    with pytest.raises(AppBusyError) as undoing:
        await app.recipe.undo(record, app.progress)
    app.run(ROLLBACK, as_app=True)
    kept = sql.Identifier(f"mathison_kept_{record.key}_1", "t").as_string()
    app.run(PREPARED.format(f"SELECT FROM {kept}"), as_app=True)
    with pytest.raises(AppBusyError) as confirming:
        await app.recipe.discard(record)
    app.run(ROLLBACK, as_app=True)

    for failure in (restoring, undoing, confirming):
        failure.match("holds its tables|is in use")
        assert f"Database {app.database} has prepared transactions" in says(failure)
        assert f"by COMMIT PREPARED or {ROLLBACK}." in says(failure)
    await app.recipe.discard(record)
    assert (app.run("SELECT a FROM t"), app.left_over()) == ([(1,)], [])
    await app.close()


async def test_one_in_the_new_database_is_named_and_not_waited_for(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = PostgresApp(server, tmp_path)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    analyze = statistics.analyze

    async def prepare_first(login: Login, *, sessions: int) -> None:
        await analyze(login, sessions=sessions)
        app.run(PREPARED.format("ALTER TABLE t ADD b int"), on=login.database)

    record = MemoryRecord()
    with monkeypatch.context() as patch:
        patch.setattr(beside, "analyze", prepare_first)
        with pytest.raises(AppBusyError) as staging:
            await app.stage(archive, record)
    with pytest.raises(AppBusyError) as next_one:
        await app.stage(archive)
    app.run(ROLLBACK, on=new_name(record.key))
    again = await app.bring_in(archive)

    for failure in (staging, next_one):
        failure.match(f"The database {new_name(record.key)} cannot be dropped")
        assert f"by COMMIT PREPARED or {ROLLBACK}." in says(failure)
    assert app.run("SELECT * FROM t") == [(1,)]
    await app.recipe.discard(again)
    assert app.left_over() == []
    await app.close()
