"""Imports within the app's own database, for a role that may not make another."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

import psutil
import psycopg
import pytest
from psycopg import sql

from agent.engines.pg.aside import moving
from agent.engines.pg.imports import same_database, transaction
from agent.engines.pg.loading import load as loading
from agent.engines.pg.loading.load import Loaded
from agent.item_changes import ItemChanges
from agent.recipes.base import Recovered
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveError,
    ArchiveRefusedError,
    NothingToUndoError,
    ServiceError,
    ToolFailedError,
    TransferNotFoundError,
)
from tests.fakes.imports import MemoryRecord
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp, unsealed, until
from tests.integration.agent.engines.pg.conftest import MakeApp


@pytest.fixture
def modest(make_app: MakeApp) -> PostgresApp:
    """An app whose role owns its database and has no right besides."""
    return make_app(has_admin=False)


def with_trap(archive: bytes, trap: str) -> bytes:
    """A dump of a table t, with something before it."""
    return unsealed(archive).replace(b"\nCREATE TABLE public.t ", trap.encode() + b"\nCREATE TABLE public.t ")


@variants(("major", "form"), [(13, "sql.gz"), (14, "custom"), (15, "sql.gz"), (18, "custom")], kept=[(13, "sql.gz")])
async def test_an_import_and_its_undo_bring_back_the_same(make_app: MakeApp, major: int, form: str) -> None:
    app = make_app(major, has_admin=False)
    app.fill()
    app.run("DROP PUBLICATION some_tables", as_app=True)
    exported = await app.fingerprint()
    archive = await app.export(form)
    app.run(
        "CREATE TABLE public.added AS SELECT 1 AS a; CREATE SCHEMA more; CREATE TABLE more.t (a int);"
        " DELETE FROM shop.order_lines WHERE line = 1; SELECT lo_unlink(900001), lo_from_bytea(900005, 'five');"
        " COMMENT ON LARGE OBJECT 900005 IS 'the fifth'; CREATE TYPE public.pair AS (a int, b public.added[])",
        as_app=True,
    )
    changed = await app.fingerprint()
    warnings = (await app.recipe.describe()).warnings

    record = await app.bring_in(archive)
    imported = await app.fingerprint()
    app.run("CREATE TABLE public.since (a int); CREATE SCHEMA later; DROP TABLE shop.files", as_app=True)
    await app.recipe.undo(record, app.progress)

    assert any("may not make databases" in warning for warning in warnings)
    assert exported.differences(imported) == []
    assert changed.differences(await app.fingerprint()) == []
    assert app.left_over() == []
    assert _kept(app) == []


async def test_statistics_are_gathered_of_what_was_imported_alone(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE public.t AS SELECT 1 AS a", as_app=True)
    archive = await modest.export()
    others = "SELECT max(xmin::text::bigint) FROM pg_statistic WHERE starelid < 16384"
    before = modest.run(others)

    await modest.bring_in(archive)

    counted = "SELECT relnamespace::regnamespace::text, reltuples FROM pg_class WHERE relname = 't' ORDER BY 2"
    [(kept, never), imported] = modest.run(counted)
    assert (kept.startswith("mathison_kept_"), never, imported) == (True, -1, ("public", 1))
    assert modest.run(others) == before


@variants("dropped", [0, 1, 2], kept=[1])
async def test_an_undo_of_which_a_schema_was_dropped_says_so_and_changes_nothing(
    dropped: int, modest: PostgresApp
) -> None:
    modest.run("CREATE TABLE public.t AS SELECT 1 AS a; CREATE SCHEMA shop; CREATE TABLE shop.u (a int)", as_app=True)
    archive = await modest.export()
    modest.run("UPDATE public.t SET a = 2", as_app=True)
    record = await modest.bring_in(archive)
    modest.run(f"DROP SCHEMA mathison_kept_{record.key}_{dropped} CASCADE")
    imported = await modest.fingerprint()

    with pytest.raises(NothingToUndoError, match="or some of them"):
        await modest.recipe.undo(record, modest.progress)

    assert imported.differences(await modest.fingerprint()) == []
    await modest.recipe.discard(record)
    assert modest.run("SELECT a FROM public.t") == [(1,)]
    assert _kept(modest) == []


def _kept(app: PostgresApp) -> list[str]:
    return [name for (name,) in app.run("SELECT nspname FROM pg_namespace WHERE nspname ~ '^mathison_' ORDER BY 1")]


async def _goes_and_comes_back(app: PostgresApp, change: str, *, imported: Callable[[], bool] = lambda: True) -> None:
    """An export, a change, an import, its undo: the content is each time what it should be.

    Args:
        imported: what holds besides once the import is done.
    """
    exported = await app.fingerprint()
    archive = await app.export()
    app.run(change, as_app=True)
    changed = await app.fingerprint()

    record = await app.bring_in(archive)

    assert exported.differences(await app.fingerprint()) == []
    assert imported()
    await app.recipe.undo(record, app.progress)
    assert changed.differences(await app.fingerprint()) == []


@variants(
    "change",
    [
        "DROP EXTENSION pg_trgm; CREATE TABLE public.added (name citext); DROP TABLE shop.t",
        "DROP EXTENSION hstore CASCADE; CREATE TABLE shop.more (name citext)",
        "DROP SCHEMA shop CASCADE; DROP EXTENSION citext CASCADE",
    ],
)
async def test_extensions_and_what_is_beside_them_come_and_go(modest: PostgresApp, change: str) -> None:
    modest.run(
        "CREATE EXTENSION citext; CREATE SCHEMA shop; CREATE EXTENSION hstore SCHEMA shop; CREATE EXTENSION pg_trgm;"
        " CREATE TABLE shop.t (a shop.hstore, b citext); INSERT INTO shop.t VALUES ('a=>1', 'B');"
        " CREATE TABLE public.u AS SELECT n AS a, n AS b FROM generate_series(1, 5) AS n;"
        " CREATE STATISTICS public.s ON a, b FROM public.u; CREATE DOMAIN public.d AS citext;"
        " CREATE AGGREGATE public.product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');"
        " CREATE OPERATOR public.=#= (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);"
        " CREATE TEXT SEARCH CONFIGURATION public.search (COPY = pg_catalog.simple);"
        " CREATE COLLATION public.plain (provider = libc, locale = 'C')",
        as_app=True,
    )
    await _goes_and_comes_back(modest, change)


NAMED_BY_TYPES = """
    CREATE SCHEMA another; CREATE TABLE another.things (a int); CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
    CREATE TABLE public.people (first text, last text); INSERT INTO public.people VALUES ('Ada', 'Lovelace');
    CREATE TYPE public.pair AS (a int, b public.people);
    CREATE FUNCTION public.full_name(public.people) RETURNS text LANGUAGE sql AS 'SELECT $1.first || '' '' || $1.last';
    CREATE FUNCTION public.size(another.things) RETURNS int LANGUAGE sql AS 'SELECT $1.a';
    CREATE FUNCTION another.twice(public.positive, public.pair[]) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
    CREATE FUNCTION public.same(public.people, public.people) RETURNS bool LANGUAGE sql AS 'SELECT $1.last = $2.last';
    CREATE OPERATOR public.~~~ (LEFTARG = public.people, RIGHTARG = public.people, FUNCTION = public.same);
    CREATE AGGREGATE public.largest(public.positive) (SFUNC = int4larger, STYPE = int);
    CREATE VIEW public.seen AS SELECT a, public.size(t) FROM another.things t;
    CREATE VIEW another.names AS SELECT public.full_name(p) FROM public.people p
"""
"""Things whose names are made of those of other things, in both schemas: one that is moved, one that is renamed."""


@variants("change", ["DROP SCHEMA another CASCADE", "DROP TABLE people CASCADE", "SELECT 1"])
async def test_what_is_named_by_types_comes_and_goes(modest: PostgresApp, change: str) -> None:
    modest.run(NAMED_BY_TYPES, as_app=True)
    await _goes_and_comes_back(
        modest, change, imported=lambda: modest.run("SELECT * FROM another.names") == [("Ada Lovelace",)]
    )

    assert _kept(modest) == []


async def test_what_is_kept_is_not_exported_and_dropped_when_confirmed(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await modest.export()
    modest.run("UPDATE t SET a = 2", as_app=True)
    record = await modest.bring_in(archive)
    kept = _kept(modest)

    again = await modest.export("sql")
    await modest.recipe.discard(record)

    assert kept
    assert b"mathison_kept" not in again
    assert _kept(modest) == []
    assert modest.run("SELECT a FROM t") == [(1,)]
    with pytest.raises(NothingToUndoError):
        await modest.recipe.undo(record, modest.progress)


@variants("form", ["sql", "custom"])
async def test_a_schema_that_is_only_called_nearly_like_those_is_the_apps(modest: PostgresApp, form: str) -> None:
    modest.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    await modest.bring_in(await modest.export())
    own = ["mathison_kept_x", "mathison_kept_0123456789ab_x", '"mathison_kept_0123456789ab_1 "']
    for schema in own:
        modest.run(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.secret AS SELECT 7 AS a", as_app=True)
    before = await modest.fingerprint()

    archive = await modest.export(form)
    for schema in own:
        modest.run(f"DROP SCHEMA {schema} CASCADE", as_app=True)
    record, preview = await modest.stage(archive)
    await modest.recipe.restore(record, modest.progress)

    assert preview.counts_after["tables"] == 4
    assert before.differences(await modest.fingerprint()) == []
    assert [modest.run(f"SELECT a FROM {schema}.secret") for schema in own] == [[(7,)]] * 3


async def test_grants_are_carried_over_in_the_same_transaction(modest: PostgresApp) -> None:
    reader = f"reader_{modest.role}"
    modest.fill()
    archive = await modest.export()
    modest.run(f"CREATE ROLE {reader}", on="postgres")
    try:
        modest.run(
            f"GRANT USAGE ON SCHEMA shop, public TO {reader}; GRANT SELECT ON shop.products, shop.gone TO {reader}"
            if modest.run("CREATE TABLE shop.gone (a int)", as_app=True) == []
            else ""
        )

        await modest.bring_in(archive)

        modest.run(f"SET ROLE {reader}; SELECT count(*) FROM shop.products")
    finally:
        await modest.close()
        modest.run(f"DROP ROLE {reader}", on="postgres")


DEFAULT_GRANTS = """
    CREATE SCHEMA shop; CREATE TABLE public.secrets (id int); CREATE TABLE shop.secrets (id int);
    CREATE SEQUENCE public.counter; CREATE TYPE public.mood AS ENUM ('sad');
    CREATE FUNCTION public.fee() RETURNS int LANGUAGE sql AS 'SELECT 1';
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {reader};
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {reader};
    ALTER DEFAULT PRIVILEGES GRANT ALL ON ROUTINES TO {reader};
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO {reader};
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO {reader};
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;
    CREATE TABLE public.closed (id int); REVOKE ALL ON public.closed FROM {reader}, PUBLIC;
    CREATE TABLE public.open (id int); REVOKE INSERT ON public.open FROM {reader}
"""
GRANTED = """
    SELECT 'relation', c.oid::regclass::text, has_table_privilege(%(role)s, c.oid, 'SELECT'),
           CASE WHEN c.relkind <> 'S' THEN has_table_privilege(%(role)s, c.oid, 'INSERT') END
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('public', 'shop') AND c.relkind IN ('r', 'S')
    UNION ALL SELECT 'type', t.oid::regtype::text, has_type_privilege(%(role)s, t.oid, 'USAGE'), NULL
      FROM pg_type t WHERE typname = 'mood' AND typnamespace = 'public'::regnamespace
    UNION ALL SELECT 'grants', proname, coalesce(proacl::text ~ %(role)s, false), NULL FROM pg_proc
      WHERE proname = 'fee' AND pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'schema', nspname, has_schema_privilege(%(role)s, oid, 'USAGE'), NULL
      FROM pg_namespace WHERE nspname IN ('public', 'shop')
    ORDER BY 1, 2
"""


@variants("major", [13, 17], kept=[17])
async def test_default_privileges_give_nothing_that_the_apps_database_does_not(make_app: MakeApp, major: int) -> None:
    app = make_app(major, has_admin=False)
    reader = f"reader_{app.role}"
    app.run(f"CREATE ROLE {reader}", on="postgres")
    try:
        app.run(DEFAULT_GRANTS.format(reader=reader), as_app=True)
        app.run("CREATE TABLE public.dropped (id int)", as_app=True)
        before = app.run(GRANTED, values={"role": reader})
        archive = await app.export()
        app.run("DROP TABLE public.dropped", as_app=True)

        record = await app.bring_in(archive)
        imported = app.run(GRANTED, values={"role": reader})
        kept = [app.run("SELECT has_schema_privilege(%s, %s, 'USAGE')", values=[reader, name]) for name in _kept(app)]
        app.run("CREATE TABLE public.later (id int)", as_app=True)
        later = app.run("SELECT has_table_privilege(%s, 'public.later', 'INSERT')", values=[reader])
        await app.recipe.undo(record, app.progress)

        dropped = ("relation", "dropped")
        assert [one for one in imported if one[:2] != dropped] == [one for one in before if one[:2] != dropped]
        assert (*dropped, False, False) in imported
        assert later == [(True,)]
        assert kept == [[(False,)]] * 3
        assert app.run(GRANTED, values={"role": reader}) == [one for one in before if one[:2] != dropped]
    finally:
        await app.close()
        app.run(f"DROP ROLE {reader}", on="postgres")


async def test_grants_on_what_has_a_name_of_other_letters_are_there_after_a_dump_in_another_encoding(
    modest: PostgresApp,
) -> None:
    modest.run(
        'CREATE TABLE "é" (a int); GRANT SELECT ON "é" TO pg_monitor; CREATE FUNCTION "fé"() RETURNS int'
        ' LANGUAGE sql AS $$SELECT 1$$; REVOKE ALL ON FUNCTION "fé"() FROM PUBLIC; CREATE SEQUENCE "zähler"',
        as_app=True,
    )

    await modest.bring_in(modest.dump("--encoding=LATIN1", modest.database))

    granted = (
        "SELECT has_table_privilege(%(who)s, '\"é\"', 'SELECT'), has_function_privilege(%(who)s, '\"fé\"()', 'EXECUTE')"
    )
    assert modest.run(granted, values={"who": "pg_monitor"}) == [(True, False)]


async def test_names_of_other_letters_survive_in_a_database_of_another_encoding(make_app: MakeApp) -> None:
    app = make_app(has_admin=False, create_options="TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    app.run('CREATE SCHEMA "schön"; CREATE TABLE "schön"."é" AS SELECT 1 AS a; CREATE TABLE "ü" (a int)', as_app=True)
    app.run('CREATE SEQUENCE "schön"."zähler"', as_app=True)

    await _goes_and_comes_back(app, 'UPDATE "schön"."é" SET a = 2; CREATE TABLE "ö" (a int)')


@variants("of_an_earlier_agent", [False, True])
async def test_large_objects_of_several_pieces_come_back_as_they_were(
    modest: PostgresApp, monkeypatch: pytest.MonkeyPatch, of_an_earlier_agent: bool
) -> None:
    monkeypatch.setattr(moving, "LARGE_OBJECT_PIECE_BYTES", 1000)
    modest.run("CREATE TABLE t (a int)", as_app=True)
    archive = await modest.export()
    modest.run(
        "SELECT lo_from_bytea(0, ''), lo_from_bytea(0, 'a'), lo_from_bytea(0, convert_to(repeat('b', 1000), 'UTF8')),"
        " lo_from_bytea(70, convert_to(string_agg(n::text, ' '), 'UTF8')) FROM generate_series(1, 2000) AS n;"
        " COMMENT ON LARGE OBJECT 70 IS 'long'",
        as_app=True,
    )
    query = "SELECT oid, lo_get(oid), obj_description(oid, 'pg_largeobject') FROM pg_largeobject_metadata"
    before = modest.run(query)

    record = await modest.bring_in(archive)
    imported = modest.run("SELECT FROM pg_largeobject_metadata")
    if of_an_earlier_agent:
        table = f"mathison_kept_{record.key}_0.large_objects"
        modest.run(f"ALTER TABLE {table} DROP COLUMN owner, DROP COLUMN rights", as_app=True)
    await modest.recipe.undo(record, modest.progress)

    assert imported == []
    assert sorted(modest.run(query)) == sorted(before)


@variants("major", [13, 18], kept=[18])
async def test_large_objects_have_their_owners_and_grants_after_an_import_and_after_its_undo(
    make_app: MakeApp, major: int
) -> None:
    app = make_app(major, has_admin=False)
    group = f"group_{app.role}"
    app.run(f"CREATE ROLE {group}; GRANT {group} TO {app.role}", on="postgres")
    try:
        app.run(
            "CREATE TABLE t (a int); SELECT lo_create(n) FROM generate_series(1001, 1005) AS n;"
            " GRANT UPDATE ON LARGE OBJECT 1001 TO PUBLIC;"
            " GRANT SELECT ON LARGE OBJECT 1003 TO pg_monitor WITH GRANT OPTION;"
            f" REVOKE UPDATE ON LARGE OBJECT 1005 FROM {app.role}",
            as_app=True,
        )
        app.run(f"ALTER LARGE OBJECT 1002 OWNER TO {group}; ALTER LARGE OBJECT 1003 OWNER TO {group}")
        archive = app.dump("--no-owner", "--no-privileges")
        held = "SELECT oid, lomowner::regrole::text, lomacl::text FROM pg_largeobject_metadata ORDER BY oid"
        before = app.run(held)

        record, preview = await app.stage(archive)
        await app.recipe.restore(record, app.progress)
        imported = app.run(held)
        await app.recipe.undo(record, app.progress)

        assert [one for one in preview.warnings if group in one] == []
        assert imported == before
        assert app.run(held) == before
        assert {owner for _, owner, _ in before} == {app.role, group}
    finally:
        await app.close()
        app.run(f"DROP ROLE {group}", on="postgres")


async def test_large_objects_that_only_a_superuser_may_give_back_are_named(make_app: MakeApp) -> None:
    app = make_app(18, has_admin=False)
    group = f"group_{app.role}"
    app.run(f"CREATE ROLE {group}; GRANT {group} TO {app.role} WITH SET FALSE", on="postgres")
    try:
        app.run("CREATE TABLE t (a int); SELECT lo_create(1001)", as_app=True)
        app.run(f"ALTER LARGE OBJECT 1001 OWNER TO {group}")
        archive = app.dump("--no-owner", "--no-privileges")

        record, preview = await app.stage(archive)
        await app.recipe.restore(record, app.progress)
        await app.recipe.undo(record, app.progress)

        [warning] = [one for one in preview.warnings if group in one]
        assert f"will belong to {app.role}, not to {group} as before" in warning
        assert "large object 1001." in warning
        assert app.run("SELECT lomowner::regrole::text FROM pg_largeobject_metadata") == [(app.role,)]
    finally:
        await app.close()
        app.run(f"DROP ROLE {group}", on="postgres")


async def test_staging_reads_the_file_to_its_end_and_changes_nothing(modest: PostgresApp) -> None:
    modest.fill()
    archive = await modest.export()
    before = await modest.fingerprint()

    record, preview = await modest.stage(archive)

    assert before.differences(await modest.fingerprint()) == []
    assert preview.counts_after["tables"] == preview.counts_now["tables"]
    assert preview.items["tables"] == ItemChanges(same=len(before.tables))
    views = modest.run("SELECT format('%I.%I', schemaname, matviewname) FROM pg_matviews")
    rows = sum(table.rows for name, table in before.tables.items() if (name,) not in views)
    assert preview.items["rows"] == ItemChanges(same=rows)
    assert preview.room_bytes == len(archive)
    assert preview.swap_seconds > 1
    assert [path.name for path in modest.work_directory.iterdir()] == [f"import-{record.key}.upload"]
    await modest.recipe.discard(record)
    assert modest.left_over() == []


async def test_an_event_trigger_is_left_out_with_a_warning(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    trigger = (
        "\nCREATE FUNCTION public.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "\nCREATE EVENT TRIGGER watches ON ddl_command_start EXECUTE FUNCTION public.e();\n"
    )

    _, preview = await modest.stage(with_trap(await modest.export("sql"), trigger))

    assert any("event trigger watches" in warning for warning in preview.warnings), preview.warnings


@variants("cut_bytes", [200, 20_000], kept=[20_000])
async def test_a_cut_file_is_refused_while_staging(modest: PostgresApp, cut_bytes: int) -> None:
    modest.fill()
    archive = unsealed(await modest.export("sql"))

    with pytest.raises(ArchiveError):
        await modest.stage(archive[:-cut_bytes])

    assert modest.left_over() == []


@pytest.mark.parametrize(
    "harm",
    [
        "COMMIT AND CHAIN;",
        "DO $$ BEGIN EXECUTE 'COMMIT'; END $$;",
    ],
)
async def test_a_statement_that_pg_dump_does_not_write_is_refused_while_staging(modest: PostgresApp, harm: str) -> None:
    modest.fill()
    before = b"\nCREATE TABLE shop.files"
    hostile = unsealed(await modest.export("sql")).replace(before, b"\n" + harm.encode() + before)

    with pytest.raises(ArchiveRefusedError):
        await modest.stage(hostile)

    assert modest.left_over() == []


TRAP = (
    "CREATE FUNCTION public.trap(integer) RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE kept text;"
    " BEGIN SELECT min(nspname) INTO kept FROM pg_catalog.pg_namespace WHERE nspname ~ 'mathison_kept.*[1-9]$';"
    " {harm}; RETURN true; END $$;\n"
    "CREATE TABLE public.trapped (a integer CHECK (public.trap(a)));\n"
    "COPY public.trapped (a) FROM stdin;\n1\n\\.\n\n"
)


@variants(
    ("harm", "said"),
    [
        ("EXECUTE format('DROP SCHEMA %I CASCADE', kept)", "touched the previous data"),
        ("EXECUTE format('DELETE FROM %I.t', kept)", "touched the previous data"),
        ("EXECUTE format('DROP FUNCTION %I.f()', kept)", "touched the previous data"),
        ("EXECUTE 'ALTER ROLE CURRENT_USER PASSWORD ''mine'''", "changed roles or databases"),
        ("EXECUTE 'ALTER DATABASE ' || current_database() || ' CONNECTION LIMIT 0'", "changed roles or databases"),
        ("COMMIT", "invalid transaction termination"),
    ],
    every=3,
)
async def test_a_function_of_the_file_that_does_harm_ends_the_import(modest: PostgresApp, harm: str, said: str) -> None:
    modest.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)", as_app=True)
    modest.run("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", as_app=True)
    before = await modest.fingerprint()
    hostile = with_trap(await modest.export("sql"), TRAP.format(harm=harm))
    record, _ = await modest.stage(hostile)

    with pytest.raises(ServiceError, match=rf"{said}.*\. Nothing was changed\.$") as refused:
        await modest.recipe.restore(record, modest.progress)

    if isinstance(refused.value, ArchiveRefusedError):
        assert "do not import this file" in refused.value.next_step

    assert before.differences(await modest.fingerprint()) == []
    assert modest.run("SELECT 1 AS one", as_app=True) == [(1,)]
    await modest.recipe.discard(record)
    assert modest.left_over() == []


HIDDEN = "ALTER TABLE public.t ENABLE ROW LEVEL SECURITY; ALTER TABLE public.t FORCE ROW LEVEL SECURITY"


async def test_row_security_that_hides_the_previous_data_is_an_obstacle_with_its_remedy(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE public.t (a int); INSERT INTO t VALUES (1)", as_app=True)
    archive = await modest.export()
    modest.run(HIDDEN, as_app=True)

    obstacle = (await modest.recipe.describe()).can_import.obstacle
    with pytest.raises(AppUnavailableError, match="row security") as refused:
        await modest.stage(b"never read")

    remedy = "ALTER TABLE public.t NO FORCE ROW LEVEL SECURITY;"
    assert remedy in obstacle
    assert f'ALTER ROLE "{modest.role}" BYPASSRLS;' in obstacle
    assert refused.value.text.startswith(obstacle)
    modest.run(remedy, as_app=True)
    await modest.bring_in(archive)


async def test_row_security_that_came_after_staging_is_told_before_the_app_waits(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE public.t (a int); INSERT INTO t VALUES (1)", as_app=True)
    record, _ = await modest.stage(await modest.export())
    modest.run(HIDDEN, as_app=True)

    with pytest.raises(AppUnavailableError, match=r"ALTER TABLE public\.t NO FORCE ROW LEVEL SECURITY;"):
        await modest.recipe.restore(record, modest.progress)

    modest.run("ALTER TABLE public.t NO FORCE ROW LEVEL SECURITY", as_app=True)
    await modest.recipe.restore(record, modest.progress)


async def test_a_trigger_that_waits_for_the_commit_is_seen_through(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", as_app=True)
    before = await modest.fingerprint()
    trap = (
        "CREATE FUNCTION public.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('DELETE FROM %I.t',"
        " (SELECT min(nspname) FROM pg_catalog.pg_namespace WHERE nspname ~ 'mathison_kept.*[1-9]$')); RETURN NULL;"
        " END $$;\nCREATE TABLE public.trapped (a integer);\n"
        "CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON public.trapped DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION public.trap();\nCOPY public.trapped (a) FROM stdin;\n1\n\\.\n\n"
    )
    hostile = with_trap(await modest.export("sql"), trap)
    record, _ = await modest.stage(hostile)

    with pytest.raises(ArchiveRefusedError, match="touched the previous data"):
        await modest.recipe.restore(record, modest.progress)

    assert before.differences(await modest.fingerprint()) == []


async def test_rows_that_do_not_fit_leave_everything_as_it_was(modest: PostgresApp) -> None:
    modest.fill()
    before = await modest.fingerprint()
    archive = unsealed(await modest.export("sql")).replace(b"\n2\t\\N\t1\t\\N\n", b"\nno number\t\\N\t1\t\\N\n")
    record, _ = await modest.stage(archive)

    with pytest.raises(ArchiveDamagedError, match=r"Nothing was changed\.$"):
        await modest.recipe.restore(record, modest.progress)

    assert before.differences(await modest.fingerprint()) == []
    await modest.recipe.discard(record)
    assert modest.left_over() == []


async def test_an_app_that_holds_its_tables_is_busy_and_the_step_can_be_repeated(
    modest: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "LOCK_WAIT_SECONDS", 1)
    monkeypatch.setattr(same_database, "LOCK_WAIT_SECONDS", 1)
    modest.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await modest.export()
    modest.run("UPDATE t SET a = 2", as_app=True)
    record, _ = await modest.stage(archive)

    with psycopg.connect(modest.server.dsn(modest.database)) as holder:
        holder.execute("SELECT * FROM t")
        with pytest.raises(AppBusyError):
            await modest.recipe.restore(record, modest.progress)
    assert modest.run("SELECT a FROM t") == [(2,)]
    await modest.recipe.restore(record, modest.progress)
    assert modest.run("SELECT a FROM t") == [(1,)]
    with psycopg.connect(modest.server.dsn(modest.database)) as holder:
        holder.execute("SELECT * FROM t")
        with pytest.raises(AppBusyError):
            await modest.recipe.undo(record, modest.progress)
    await modest.recipe.undo(record, modest.progress)
    assert modest.run("SELECT a FROM t") == [(2,)]


async def test_an_app_waits_with_what_it_writes_into_any_of_its_schemas(modest: PostgresApp) -> None:
    modest.run("CREATE SCHEMA shop; CREATE TABLE shop.t (a int); CREATE TABLE public.t (a int)", as_app=True)
    harm = (
        "PERFORM set_config('application_name', 'trapped', false);"
        " WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.01); END LOOP"
    )
    record, _ = await modest.stage(with_trap(await modest.export("sql"), TRAP.format(harm=harm)))

    restoring = asyncio.create_task(modest.recipe.restore(record, modest.progress))
    await until(lambda: modest.run("SELECT 1 FROM pg_stat_activity WHERE application_name = 'trapped'") == [(1,)])
    writing = asyncio.create_task(asyncio.to_thread(modest.run, "INSERT INTO shop.t VALUES (1)", as_app=True))
    async with asyncio.timeout(20):
        await restoring
    with suppress(psycopg.errors.UndefinedTable):
        await writing

    assert modest.run(f"SELECT a FROM mathison_kept_{record.key}_2.t") == []
    await modest.recipe.discard(record)


async def test_a_loader_killed_in_the_transaction_leaves_everything_as_it_was(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE t AS SELECT n AS a FROM generate_series(1, 400000) AS n", as_app=True)
    before = await modest.fingerprint()
    record, _ = await modest.stage(await modest.export())
    restoring = asyncio.create_task(modest.recipe.restore(record, modest.progress))
    loading = "SELECT pid FROM pg_stat_activity WHERE application_name = 'mathison-load' AND query ^@ 'COPY'"
    await until(lambda: bool(modest.run(loading, on="postgres")))

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "loader_child" in " ".join(child.cmdline()):
                child.send_signal(signal.SIGKILL)
    with pytest.raises(ToolFailedError):
        await restoring

    assert before.differences(await modest.fingerprint()) == []
    assert await modest.new_recipe().recover(record) is Recovered.PREVIOUS
    await modest.recipe.discard(record)
    assert modest.left_over() == []


class AgentKilledError(BaseException):
    """Nothing of the agent runs on after this."""


@pytest.mark.parametrize("is_done", [False, True], ids=["before the transaction", "after it"])
async def test_an_agent_killed_while_restoring_or_undoing_learns_from_the_schemas(
    modest: PostgresApp, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    modest.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await modest.export()
    modest.run("UPDATE t SET a = 2", as_app=True)
    record, _ = await modest.stage(archive)
    load, bring_back = loading.load, same_database._bring_back

    async def load_and_die(*args: object, **options: object) -> Loaded:
        if is_done:
            await load(*args, **options)  # type: ignore[arg-type]
        raise AgentKilledError

    async def bring_back_and_die(*args: object) -> None:
        if is_done:
            await bring_back(*args)  # type: ignore[arg-type]
        raise AgentKilledError

    with monkeypatch.context() as patch:
        patch.setattr(same_database, "load", load_and_die)
        with pytest.raises(AgentKilledError):
            await modest.recipe.restore(record, modest.progress)
    after_restore = await modest.new_recipe().recover(record)
    if not is_done:
        await modest.recipe.restore(record, modest.progress)
    with monkeypatch.context() as patch:
        patch.setattr(same_database, "_bring_back", bring_back_and_die)
        with pytest.raises(AgentKilledError):
            await modest.recipe.undo(record, modest.progress)
    after_undo = await modest.new_recipe().recover(record)

    assert after_restore is (Recovered.IMPORTED if is_done else Recovered.PREVIOUS)
    assert after_undo is (Recovered.PREVIOUS if is_done else Recovered.IMPORTED)
    assert modest.run("SELECT a FROM t") == [(2 if is_done else 1,)]
    await modest.new_recipe().discard(record)
    assert modest.left_over() == []
    assert _kept(modest) == []


async def test_a_transaction_that_left_something_is_taken_back(
    modest: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    modest.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    before = await modest.fingerprint()
    record, _ = await modest.stage(await modest.export())
    load = loading.load

    async def load_and_fail(*args: object, **options: object) -> Loaded:
        await load(*args, **options)  # type: ignore[arg-type]
        raise ToolFailedError("the loader's answer was lost")

    monkeypatch.setattr(same_database, "load", load_and_fail)
    with pytest.raises(ToolFailedError, match=r"answer was lost.* was taken back") as failure:
        await modest.recipe.restore(record, modest.progress)

    assert failure.value.says_what_changed
    assert "Nothing was changed" not in failure.value.text
    dump = modest.work_directory / f"previous-{record.key}.dump"
    assert str(dump) in failure.value.text
    assert dump.read_bytes().startswith(b"PGDMP")
    assert before.differences(await modest.fingerprint()) == []
    assert _kept(modest) == []


async def test_data_that_is_gone_after_a_failure_is_in_a_dump_that_is_named(
    modest: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    modest.run("CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE u (a int)", as_app=True)
    record, _ = await modest.stage(await modest.export())

    async def drop_and_fail(*_: object, **__: object) -> Loaded:
        modest.run("DROP TABLE t")
        raise ToolFailedError("the loader broke")

    monkeypatch.setattr(same_database, "load", drop_and_fail)
    with pytest.raises(ToolFailedError, match=f"previous-{record.key}.dump"):
        await modest.recipe.restore(record, modest.progress)

    dump = modest.work_directory / f"previous-{record.key}.dump"
    assert dump.read_bytes().startswith(b"PGDMP")
    await modest.recipe.discard(record)
    assert dump.exists()


async def test_a_staged_file_that_is_gone_is_told(modest: PostgresApp) -> None:
    with pytest.raises(TransferNotFoundError):
        await modest.recipe.restore(MemoryRecord(facts={"way": "same_database"}), modest.progress)


async def test_a_staged_file_stays_when_the_previous_data_of_an_earlier_import_is_dropped(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await modest.export()
    kept = await modest.bring_in(archive)
    modest.run("UPDATE t SET a = 2", as_app=True)
    staged, _ = await modest.stage(archive)

    await modest.recipe.discard(kept)
    await modest.recipe.restore(staged, modest.progress)

    assert modest.run("SELECT a FROM t") == [(1,)]
    await modest.recipe.discard(staged)
    assert modest.left_over() == []


CASTS = """
CREATE SCHEMA other;
CREATE TYPE public.pair AS (a int, b int);
CREATE TYPE other.mood AS ENUM ('sad', 'ok');
CREATE TABLE public.t AS SELECT '(1,2)'::public.pair AS pair, 'ok'::other.mood AS mood;
CREATE FUNCTION other.of_pair(public.pair) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.a || '':'' || $1.b';
CREATE CAST (public.pair AS text) WITH FUNCTION other.of_pair(public.pair) AS ASSIGNMENT;
COMMENT ON CAST (public.pair AS text) IS 'it''s ours';
CREATE CAST (text AS other.mood) WITH INOUT AS IMPLICIT;
"""
"""What needs them is made after them."""
CASTS_OF_NOW = (
    "SELECT castsource::regtype::text, casttarget::regtype::text, castmethod::text, castcontext::text,"
    " castfunc::regprocedure::text, obj_description(oid, 'pg_cast') FROM pg_cast WHERE oid >= 16384 ORDER BY 1"
)


@variants("major", [13, 17], kept=[17])
async def test_casts_come_and_go_and_no_export_has_those_of_what_is_kept(make_app: MakeApp, major: int) -> None:
    app = make_app(major, has_admin=False)
    app.run(CASTS, as_app=True)
    before, casts = await app.fingerprint(), app.run(CASTS_OF_NOW)
    archive = await app.export()

    first = await app.bring_in(archive)
    second = await app.export("sql")
    kept = app.run("SELECT nspname FROM pg_namespace WHERE nspname ~ '^mathison_kept'")
    app.run("DROP CAST (public.pair AS text); CREATE CAST (public.pair AS varchar) WITH INOUT", as_app=True)
    record = await app.bring_in(second)
    imported = app.run(CASTS_OF_NOW)
    await app.recipe.undo(record, app.progress)
    changed = app.run(CASTS_OF_NOW)
    await app.recipe.undo(first, app.progress)

    assert len(kept) == 3
    assert b"mathison_kept" not in second
    assert len(casts) == 2
    assert imported == casts
    assert [row[:2] for row in changed] == [("pair", "character varying"), ("text", "other.mood")]
    assert app.run(CASTS_OF_NOW) == casts
    assert before.differences(await app.fingerprint()) == []
    assert _kept(app) == []


async def test_an_export_names_nothing_of_what_is_kept(modest: PostgresApp) -> None:
    modest.fill()
    modest.run(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO pg_monitor; CREATE TABLE public.st (a int,"
        " b int); CREATE STATISTICS shop.st ON a, b FROM public.st; CREATE CONVERSION shop.co FOR 'LATIN1' TO 'UTF8'"
        " FROM iso8859_1_to_utf8",
        as_app=True,
    )
    await modest.bring_in(await modest.export())

    exported = await modest.export("sql")

    assert b"mathison_kept" not in exported
    await modest.bring_in(exported)


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (
            "CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
            " CREATE EVENT TRIGGER watch_{role} ON sql_drop EXECUTE FUNCTION public.f()",
            "event trigger watch_{role}",
        ),
        (
            "CREATE FUNCTION public.f(oid) RETURNS bool LANGUAGE sql AS 'SELECT true';"
            " CREATE CAST (oid AS bool) WITH FUNCTION public.f(oid)",
            "cast (oid AS boolean)",
        ),
    ],
)
async def test_what_a_superuser_made_of_things_of_the_app_is_named_as_the_obstacle(
    modest: PostgresApp, thing: str, name: str
) -> None:
    function, other = thing.format(role=modest.role).split("; ")
    modest.run(function, as_app=True)
    modest.run(other)

    obstacle = (await modest.recipe.describe()).can_import.obstacle

    assert f"not everything there can be moved by it ({name.format(role=modest.role)})" in obstacle


async def test_a_range_type_in_public_is_named_as_the_obstacle(modest: PostgresApp) -> None:
    modest.run("CREATE TYPE public.span AS RANGE (subtype = date)", as_app=True)

    description = await modest.recipe.describe()

    assert "range type public.span" in description.can_import.obstacle


async def test_tables_of_others_are_named_as_the_obstacle(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE public.foreign_to_it (a int); GRANT SELECT ON public.foreign_to_it TO PUBLIC")

    description = await modest.recipe.describe()

    assert "public.foreign_to_it" in description.can_import.obstacle
    assert f'ALTER ROLE "{modest.role}" CREATEDB CREATEROLE;' in description.can_import.obstacle


async def test_what_earlier_imports_keep_is_reported(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE t (a int)", as_app=True)
    archive = await modest.export()
    first = await modest.bring_in(archive)
    await modest.bring_in(archive)

    _, preview = await modest.stage(archive)

    assert any(f"mathison_kept_{first.key}_*" in warning for warning in preview.warnings)


async def test_odd_names_of_schemas_survive(modest: PostgresApp) -> None:
    name = 'we"ird; --' + "ä" * 25
    modest.run(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)), as_app=True)
    modest.run(sql.SQL("CREATE TABLE {} AS SELECT 1 AS a").format(sql.Identifier(name, name)), as_app=True)
    before = await modest.fingerprint()

    record = await modest.bring_in(await modest.export())
    imported = await modest.fingerprint()
    await modest.recipe.undo(record, modest.progress)

    assert before.differences(imported) == []
    assert before.differences(await modest.fingerprint()) == []
