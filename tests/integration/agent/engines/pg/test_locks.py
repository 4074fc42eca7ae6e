"""Imports within the app's database where there is more than the server's lock table has room for at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from agent.engines.pg.aside import dropping
from agent.engines.pg.imports import same_database
from agent.recipes.base import Recovered
from agent.unsettled import UnsettledError
from common.errors import AppBusyError, AppUnavailableError, NothingToUndoError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tools.servers import PostgresServer, postgres

MANY = "DO $$ BEGIN FOR i IN 1..{number} LOOP EXECUTE format('{statement}', i); COMMIT; END LOOP; END $$"
COLUMNS = ", ".join(f"c{number} int DEFAULT 1" for number in range(20))


@pytest.fixture(scope="module")
def narrow_server() -> Iterator[PostgresServer]:
    """By its settings it has room for 1,000 locks; it takes about twice as many."""
    settings = {"max_locks_per_transaction": "10", "max_connections": "100", "max_wal_senders": "0"}
    with PostgresServer(postgres(17), settings=settings) as server:
        yield server


@pytest.fixture
def modest(narrow_server: PostgresServer, tmp_path: Path) -> Iterator[PostgresApp]:
    """An app whose role owns its database and has no right besides."""
    app = PostgresApp(narrow_server, tmp_path, has_admin=False)
    yield app
    for (name,) in app.run("SELECT datname FROM pg_database WHERE datname ^@ 'app_'", on="postgres"):
        app.run(f"DROP DATABASE {name} WITH (FORCE)", on="postgres")


def _make(app: PostgresApp, number: int, statement: str) -> None:
    """Many of something, each in a transaction of its own."""
    app.run(MANY.format(number=number, statement=statement), as_app=True)


def _schemas(app: PostgresApp) -> list[str]:
    return [name for (name,) in app.run("SELECT nspname FROM pg_namespace WHERE nspname ~ '^mathison_' ORDER BY 1")]


def _is_refused_for_locks(refused: pytest.ExceptionInfo[AppUnavailableError]) -> bool:
    return "max_locks_per_transaction" in refused.value.next_step


async def test_what_is_kept_of_many_tables_is_dropped_however_many_there_are(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE public.t AS SELECT 1 AS a", as_app=True)
    archive = await modest.export()
    modest.run("CREATE SCHEMA shop", as_app=True)
    for schema in ("public", "shop"):
        _make(modest, 200, f"CREATE TABLE {schema}.t%s (id int PRIMARY KEY, name text, {COLUMNS})")
    _make(modest, 100, "CREATE FUNCTION public.f%s() RETURNS int LANGUAGE sql AS ''SELECT 1''")
    _make(modest, 100, "CREATE VIEW public.v%1$s AS SELECT * FROM public.t%1$s")
    record = await modest.bring_in(archive)

    await modest.recipe.discard(record)

    assert _schemas(modest) == []
    assert modest.run("SELECT a FROM public.t") == [(1,)]


async def test_an_import_of_many_tables_is_undone_and_what_it_brought_dropped(modest: PostgresApp) -> None:
    modest.run("CREATE SCHEMA shop", as_app=True)
    for schema in ("public", "shop"):
        _make(modest, 70, f"CREATE TABLE {schema}.t%s (id int, name text, {COLUMNS})")
    archive = await modest.export()
    modest.run("DROP SCHEMA shop CASCADE", as_app=True)
    before = await modest.fingerprint()
    record = await modest.bring_in(archive)

    await modest.recipe.undo(record, modest.progress)

    assert before.differences(await modest.fingerprint()) == []
    assert _schemas(modest) == []


async def test_a_file_with_more_than_there_are_locks_for_is_refused_before_anything_is_changed(
    modest: PostgresApp,
) -> None:
    _make(modest, 350, "CREATE TABLE public.t%s (id int, name text)")
    archive = await modest.export()

    with pytest.raises(AppUnavailableError) as refused:
        await modest.stage(archive)

    assert _is_refused_for_locks(refused)
    assert modest.left_over() == []


@variants("is_present", [True, False], ids=["of now", "of the file"], kept=[False])
async def test_more_large_objects_than_there_are_locks_for_are_refused_before_anything_is_changed(
    modest: PostgresApp, is_present: bool
) -> None:
    few = await modest.export()
    modest.run("SELECT lo_from_bytea(0, 'a') FROM generate_series(1, 1100)", as_app=True)
    many = await modest.export()
    if not is_present:
        for _ in range(3):
            modest.run("SELECT lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata LIMIT 400) AS few")

    with pytest.raises(AppUnavailableError) as refused:
        await modest.stage(few if is_present else many)

    assert _is_refused_for_locks(refused)
    assert modest.left_over() == []


async def test_an_undo_that_could_not_drop_what_was_brought_is_done_and_the_rest_dropped_later(
    modest: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    modest.run("CREATE SCHEMA shop; CREATE TABLE shop.t AS SELECT 1 AS a", as_app=True)
    archive = await modest.export()
    modest.run("UPDATE shop.t SET a = 2", as_app=True)
    record = await modest.bring_in(archive)

    async def fail(*_: object) -> None:
        raise psycopg.errors.OutOfMemory("out of shared memory")

    with monkeypatch.context() as patch:
        patch.setattr(same_database, "drop_schemas", fail)
        with pytest.raises(UnsettledError):
            await modest.recipe.undo(record, modest.progress)

    assert modest.run("SELECT a FROM shop.t") == [(2,)]
    assert _schemas(modest) != []
    assert await modest.recipe.recover(record) is Recovered.PREVIOUS
    await modest.recipe.discard(record)
    assert _schemas(modest) == []


async def test_what_was_dropped_in_part_is_not_brought_back_and_is_dropped_to_its_end(
    modest: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    modest.run("CREATE TABLE public.t AS SELECT 1 AS a", as_app=True)
    archive = await modest.export()
    _make(modest, 300, "CREATE TABLE public.t%s (id int)")
    record = await modest.bring_in(archive)
    dropped = "SELECT count(*) < 300 FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'"
    with psycopg.connect(modest.server.dsn(modest.database)) as holder:
        holder.execute(f"LOCK TABLE mathison_kept_{record.key}_1.t7")
        monkeypatch.setattr(dropping, "LOCK_WAIT_SECONDS", 1)
        with pytest.raises(AppBusyError, match="is in use"):
            await modest.recipe.discard(record)

    assert modest.run(dropped, values=[f"mathison_kept_{record.key}_1"]) == [(True,)]
    with pytest.raises(NothingToUndoError):
        await modest.recipe.undo(record, modest.progress)
    await modest.recipe.discard(record)
    assert _schemas(modest) == []
