"""n8n in a PostgreSQL database that others use too: an import exchanges all of it, and harms nobody unless asked to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.engines.n8n.sharing import Shared, look_beside
from agent.engines.pg.server.connection import connect
from common.errors import AppUnavailableError, ArchiveIncompatibleError
from tests.fakes.imports import MemoryRecord, NotedProgress
from tests.fixtures.n8n_data import MIGRATIONS, NEW_KEY
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.recipes.n8n_apps import MakePair, Pair, make_pair
from tools.servers import PostgresServer

__all__ = ["make_pair"]
OTHERS = {
    "another n8n's schema": ("CREATE SCHEMA other; CREATE TABLE other.workflow_entity (id int)", "schema 'other'"),
    "functions alone": (
        "CREATE SCHEMA other; CREATE FUNCTION other.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "schema 'other'",
    ),
    "another n8n's prefix": (
        "CREATE TABLE p_workflow_entity (id int); CREATE TABLE p_credentials_entity (id int);"
        "CREATE TABLE p_migrations (id int); CREATE TABLE p_anything (id int)",
        "tables with the prefix 'p_', of another n8n",
    ),
    "a table that a workflow fills": ("CREATE TABLE n8n_chat_histories (id int)", "table 'n8n_chat_histories'"),
    "a view": ("CREATE VIEW report AS SELECT name FROM workflow_entity", "view 'report'"),
    "what has no rows": (
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SEQUENCE s; CREATE DOMAIN d AS int;"
        "CREATE TYPE e AS ENUM ('a')",
        "function 'f', sequence 's', type 'd', type 'e'",
    ),
    "operators and their like": (
        "CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq); CREATE COLLATION c (locale = 'C');"
        "CREATE CONVERSION v FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;"
        "CREATE TEXT SEARCH DICTIONARY d (template = simple); CREATE TEXT SEARCH CONFIGURATION t (copy = english)",
        "collation 'c', conversion 'v', operator '===', text search configuration 't', text search dictionary 'd'",
    ),
    "a schema with a collation alone": (
        "CREATE SCHEMA other; CREATE COLLATION other.c (locale = 'C')",
        "schema 'other'",
    ),
    "a schema with an operator alone": (
        "CREATE SCHEMA other; CREATE OPERATOR other.=== (leftarg = int, rightarg = int, function = int4eq)",
        "schema 'other'",
    ),
    "large objects": ("SELECT lo_from_bytea(0, 'x')", "large objects"),
}


@pytest.fixture
def source(make_pair: MakePair) -> Pair:
    return make_pair("source")


@pytest.fixture
def target(make_pair: MakePair) -> Pair:
    return make_pair("target", key=NEW_KEY, mark="present", workflows=1, credentials=1)


@variants("what", OTHERS, kept=["another n8n's schema", "another n8n's prefix", "a table that a workflow fills"])
async def test_an_import_beside_others_is_refused_by_their_names_before_it_begins(
    what: str, source: Pair, target: Pair
) -> None:
    statements, name = OTHERS[what]
    exported = await source.app.export(key="clear")
    target.database.run(statements, as_app=True)

    with pytest.raises(AppUnavailableError) as refused:
        await target.app.stage(exported.content, MemoryRecord())

    assert refused.value.text == f"n8n's database also holds {name}, and an import exchanges the whole database."
    assert "whole_database=true" in refused.value.next_step
    assert f"database also holds {name}, so the archive does" in str((await target.app.export()).warnings)
    [warning] = (await target.app.recipe.describe()).warnings
    assert name in warning
    target.require_no_leftovers()


async def test_what_n8n_makes_itself_is_not_taken_for_others(source: Pair, target: Pair) -> None:
    target.database.run("CREATE SCHEMA extensions; CREATE EXTENSION pgcrypto SCHEMA extensions; CREATE SCHEMA empty")
    target.database.run("CREATE TABLE data_store_user_old (id int)", as_app=True)
    target.database.run('CREATE TABLE "data_table_user_aBc" (id int); CREATE TABLE insights_raw (id int)', as_app=True)

    await target.app.import_((await source.app.export(key="clear")).content)

    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    assert (await target.app.recipe.describe()).warnings == ()


async def test_schemas_that_hold_extensions_alone_are_nobodys(
    postgres_servers: Callable[[int], PostgresServer], tmp_path: Path
) -> None:
    database = PostgresApp(postgres_servers(15), tmp_path)
    database.run("CREATE SCHEMA views; CREATE EXTENSION pg_stat_statements SCHEMA views")
    database.run("CREATE SCHEMA types; CREATE EXTENSION hstore SCHEMA types; CREATE EXTENSION citext SCHEMA types")
    database.run("CREATE SCHEMA mine; CREATE TYPE mine.row AS (a int); CREATE SCHEMA yours; CREATE SEQUENCE yours.s")

    async with connect(database.login()) as connection:
        shared = await look_beside(connection, "public", MIGRATIONS)

    assert shared == Shared(others=("schema 'mine'", "schema 'yours'"))
    await database.close()


async def test_others_are_exchanged_where_that_is_asked_for_and_go_back_with_an_undo(
    source: Pair, target: Pair
) -> None:
    source.database.run("CREATE TABLE n8n_chat_histories (id int)", as_app=True)
    target.database.run("CREATE SCHEMA other; CREATE TABLE other.t (id int)", as_app=True)
    record = MemoryRecord()

    preview = await target.app.stage((await source.app.export(key="clear")).content, record, whole_database="true")
    await target.app.recipe.restore(record, NotedProgress())

    assert target.n8n.rows("SELECT to_regclass('other.t'), to_regclass('n8n_chat_histories')::text") == [
        (None, "n8n_chat_histories")
    ]
    assert [warning for warning in preview.warnings if "along" in warning or "also holds" in warning] == [
        "Exchanged along with n8n's data: schema 'other'. What is written to it after the import goes with an undo, "
        "and what is there now with a confirmation.",
        "The file also holds table 'n8n_chat_histories', which comes into the database as it is: nothing is encrypted "
        "again of another n8n's.",
    ]
    await target.app.recipe.undo(record, NotedProgress())
    assert target.n8n.rows("SELECT to_regclass('other.t')::text") == [("other.t",)]
    target.require_no_leftovers()


async def test_who_comes_into_the_database_later_is_not_harmed_by_what_was_staged_or_by_an_undo(
    source: Pair, target: Pair
) -> None:
    source.database.run("CREATE TABLE n8n_chat_histories (id int)", as_app=True)
    record = MemoryRecord()
    await target.app.stage((await source.app.export(key="clear")).content, record)
    target.database.run("CREATE SCHEMA other; CREATE TABLE other.t (id int)", as_app=True)
    with pytest.raises(AppUnavailableError, match="also holds schema 'other'"):
        await target.app.recipe.restore(record, NotedProgress())
    target.database.run("DROP SCHEMA other CASCADE", as_app=True)
    await target.app.recipe.restore(record, NotedProgress())
    target.database.run("CREATE SCHEMA other; CREATE TABLE other.t (id int)", as_app=True)

    with pytest.raises(AppUnavailableError, match="Since the import n8n's database also holds schema 'other', and"):
        await target.app.recipe.undo(record, NotedProgress())

    assert target.n8n.workflow_names() == ["first 0", "first 1", "first 2"]
    assert target.app.app.calls == ["stop", "start"]
    target.database.run("DROP SCHEMA other CASCADE", as_app=True)
    await target.app.recipe.undo(record, NotedProgress())
    assert target.n8n.workflow_names() == ["present 0"]


@variants(
    "newer",
    [("FromTheFuture1999999999999",), tuple(f"More{1700000000000 + number}" for number in range(280))],
    ids=["a higher number", "more of them"],
)
async def test_tables_of_a_newer_n8n_are_told_and_stand_against_nothing(
    newer: tuple[str, ...], source: Pair, make_pair: MakePair
) -> None:
    target = make_pair("newer", key=NEW_KEY, migrations=(*MIGRATIONS, *newer))
    target.database.run("CREATE TABLE of_the_future (id int)", as_app=True)

    preview = await target.app.stage((await source.app.export(key="clear")).content, MemoryRecord())

    [warning] = [warning for warning in preview.warnings if "of_the_future" in warning]
    assert "Where it is not n8n's own, it goes with the previous data." in warning


async def test_an_n8n_that_is_elsewhere_is_named_by_its_schema_or_prefix(source: Pair, target: Pair) -> None:
    exported = await source.app.export(key="clear")
    target.database.run("ALTER SCHEMA public RENAME TO other; CREATE SCHEMA public", as_app=False)

    with pytest.raises(AppUnavailableError, match=r"tables are in schema 'other', .* looks for them in public\."):
        await target.app.stage(exported.content, MemoryRecord())

    assert "schema 'other'" in (await target.app.recipe.describe()).can_import.obstacle


PREFIX = (
    "ALTER TABLE workflow_entity RENAME TO p_workflow_entity; ALTER TABLE credentials_entity RENAME TO "
    "p_credentials_entity; ALTER TABLE migrations RENAME TO p_migrations"
)


@variants(
    ("statements", "match"),
    [
        (
            "ALTER SCHEMA public RENAME TO other",
            "keeps its tables in schema 'other' .*, and this one keeps them in public",
        ),
        (PREFIX, "the prefix 'p_' .*, and this one has none"),
    ],
    ids=["another schema", "a prefix"],
)
async def test_an_archive_of_an_n8n_in_another_schema_or_with_a_prefix_is_refused_by_name(
    statements: str, match: str, source: Pair, target: Pair
) -> None:
    source.database.run(statements)
    record = MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match=match):
        await target.app.stage(source.database.dump(), record, encryption_key=source.n8n.key)

    await target.app.recipe.discard(record)
    assert target.n8n.workflow_names() == ["present 0"]
    target.require_no_leftovers()
