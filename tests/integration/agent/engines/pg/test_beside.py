"""Imports into a database of its own beside the app's: what arrives, what is carried over, what a failure leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import re
from collections.abc import AsyncIterator

import psycopg
import pytest

from agent.engines.pg.belongings import carry_over
from agent.engines.pg.belongings import read as belongings
from agent.engines.pg.imports import preview as previewing
from agent.item_changes import ItemChanges
from agent.recipes.base import Limits, Step, Upload
from common.errors import (
    AppUnavailableError,
    ArchiveRefusedError,
    InvalidRequestError,
    NoSpaceError,
    NothingToUndoError,
    ServiceError,
    TransferNotFoundError,
    UploadIncompleteError,
)
from common.headers import ArchiveHeader
from tests.fakes.imports import MemoryRecord, upload_of
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp, unsealed, until
from tests.integration.agent.engines.pg.conftest import MakeApp
from tools.servers import MAJORS, PostgresServer, postgres

NAME_OF_63_BYTES = "Datenbank " + "ä" * 26 + "!"


@variants(
    ("major", "form"), [*((major, "sql.gz") for major in MAJORS), (14, "custom"), (18, "custom")], kept=[(18, "custom")]
)
async def test_a_round_trip_brings_back_the_same(make_app: MakeApp, major: int, form: str) -> None:
    app = make_app(major)
    app.fill()
    exported = await app.fingerprint()
    archive = await app.export(form)
    app.run("DROP SCHEMA shop CASCADE; CREATE TABLE public.added (a int)", as_app=True)

    record = await app.bring_in(archive)

    assert exported.differences(await app.fingerprint()) == []
    await app.recipe.discard(record)
    assert app.left_over() == []


async def test_a_preview_says_which_versions_are_bridged_and_how(make_app: MakeApp) -> None:
    newer, older = make_app(18), make_app(15)
    newer.run("CREATE TABLE t (a int)", as_app=True)

    _, preview = await older.stage(await newer.export("sql"))

    assert re.fullmatch(
        r"Written by PostgreSQL 18\.\d+, goes into 15\.\d+: the setting transaction_timeout, which it does not know, "
        r"was left out\.",
        preview.bridging,
    )


async def test_staging_changes_nothing_and_says_what_an_import_would_change(app: PostgresApp) -> None:
    app.run("CREATE TABLE kept (a int); CREATE TABLE gone (a int); INSERT INTO kept VALUES (1), (2)", as_app=True)
    app.run("CREATE TABLE changed AS SELECT 3 AS b, 'three' AS c", as_app=True)
    archive = await app.export()
    app.run("DROP TABLE gone; CREATE TABLE added (a int); UPDATE changed SET c = 'drei'; ANALYZE", as_app=True)
    before = await app.fingerprint()

    record, preview = await app.stage(archive)

    assert before.differences(await app.fingerprint()) == []
    assert preview.counts_now["tables"] == preview.counts_after["tables"] == 3
    assert preview.counts_after["rows"] == 3
    assert preview.items["tables"] == ItemChanges(added=1, removed=1, changed=1, same=1)
    assert preview.items["rows"] == ItemChanges(same=2, not_compared=1)
    assert preview.bridging == ""
    assert preview.room_bytes > 1_000_000
    assert 0 < preview.swap_seconds < 1
    assert "New tables: public.gone." in preview.changes
    assert "Tables that will be gone: public.added." in preview.changes
    assert preview.header is not None
    assert preview.header.app_id == "shop.db"
    assert app.progress.steps[-1] is Step.VERIFYING
    await app.recipe.discard(record)
    assert app.left_over() == []


async def test_rows_that_are_gone_since_the_last_analyze_are_not_told_of(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previewing, "_COMPARED_BYTES", 0)
    app.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a; ANALYZE t", as_app=True)
    archive = await app.export()
    app.run("DELETE FROM t WHERE a > 10", as_app=True)

    _, preview = await app.stage(archive)

    assert preview.changes[0].startswith("Now 1 table with about 10 rows; after the import 1 table with 1,000 rows")
    assert preview.items["rows"] == ItemChanges(added=990, not_compared=10)


@variants("has_admin", [True, False], kept=[False])
async def test_rows_of_materialized_views_count_neither_in_the_sentence_nor_in_the_items(
    make_app: MakeApp, has_admin: bool
) -> None:
    app = make_app(has_admin=has_admin)
    app.run("CREATE TABLE t AS SELECT generate_series(1, 5) AS a; ANALYZE t", as_app=True)
    app.run("CREATE MATERIALIZED VIEW seen AS SELECT * FROM t WHERE a > 2", as_app=True)

    _, preview = await app.stage(await app.export())

    assert preview.changes[0].startswith("Now 1 table with 5 rows; ")
    assert preview.items["tables"] == ItemChanges(same=2)
    assert preview.items["rows"] == ItemChanges(same=5)


async def test_names_are_the_same_where_the_database_has_all_of_them_quoted(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int); CREATE TABLE granted (b int); INSERT INTO t VALUES (1)", as_app=True)
    app.run("GRANT SELECT ON granted TO pg_monitor", as_app=True)
    before = await app.fingerprint()
    app.run(f"ALTER DATABASE {app.database} SET quote_all_identifiers = on", on="postgres")

    record, preview = await app.stage(await app.export())
    await app.recipe.restore(record, app.progress)

    assert before.differences(await app.fingerprint()) == []
    assert preview.items["tables"] == ItemChanges(same=2)
    assert preview.items["rows"] == ItemChanges(same=1)
    assert app.run("SELECT has_table_privilege('pg_monitor', 'granted', 'SELECT')") == [(True,)]


async def test_rows_of_partitions_by_the_hash_of_an_enum_are_compared_by_the_whole_table(app: PostgresApp) -> None:
    app.run(
        """
        CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l');
        CREATE TABLE felt (m mood, n int) PARTITION BY HASH (m);
        CREATE TABLE felt_0 PARTITION OF felt FOR VALUES WITH (modulus 2, remainder 0);
        CREATE TABLE felt_1 PARTITION OF felt FOR VALUES WITH (modulus 2, remainder 1);
        INSERT INTO felt SELECT (enum_range(NULL::mood))[1 + n % 12], n FROM generate_series(1, 60) AS n
        """,
        as_app=True,
    )
    before = await app.fingerprint()

    record, preview = await app.stage(await app.export())
    await app.recipe.restore(record, app.progress)

    assert preview.items["tables"] == ItemChanges(same=1)
    assert preview.items["rows"] == ItemChanges(same=60)
    assert preview.changes == ("Now 3 tables with 60 rows; after the import 3 tables with 60 rows.",)
    assert before.differences(await app.fingerprint()) == []
    assert before.tables["public.felt"].rows == 60


async def test_undo_brings_the_previous_data_back_and_drops_what_came_since(app: PostgresApp) -> None:
    app.fill()
    app.run(f"COMMENT ON DATABASE {app.database} IS 'the shop''s own'", on="postgres")
    archive = await app.export()
    app.run("DELETE FROM shop.products WHERE id NOT IN (SELECT product_id FROM shop.order_lines)", as_app=True)
    app.run("CREATE TABLE public.previous AS SELECT 42 AS answer", as_app=True)
    previous = await app.fingerprint()
    record = await app.bring_in(archive)
    app.run("CREATE TABLE public.written_since (a int)", as_app=True)

    await app.recipe.undo(record, app.progress)

    assert previous.differences(await app.fingerprint()) == []
    assert app.run(_COMMENT, on="postgres", values=[app.database]) == [("the shop's own",)]
    assert app.left_over() == []


async def test_an_undo_drops_no_database_that_the_import_did_not_bring(app: PostgresApp) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    record = await app.bring_in(archive)
    app.run(f"DROP DATABASE {app.database} WITH (FORCE)", on="postgres")
    app.run(f"CREATE DATABASE {app.database} OWNER {app.role}", on="postgres")
    app.run("CREATE TABLE since (a int)", as_app=True)

    with pytest.raises(AppUnavailableError, match="not the one that the import brought") as refused:
        await app.recipe.undo(record, app.progress)

    assert f"mathison_kept_{record.key} the name {app.database}" in refused.value.next_step
    assert app.run("SELECT * FROM since") == []
    app.run(f"DROP DATABASE {app.database}", on="postgres")
    app.run(f"ALTER DATABASE mathison_kept_{record.key} RENAME TO {app.database}", on="postgres")
    await app.recipe.discard(record)
    assert app.run("SELECT a FROM t") == [(2,)]


async def test_what_hangs_on_the_database_is_carried_over(app: PostgresApp) -> None:
    other = f"reader_{app.role}"
    database, role = app.database, app.role
    app.run("CREATE TABLE t (a int)", as_app=True)
    archive = await app.export()
    app.run(
        f"""
        CREATE ROLE {other};
        COMMENT ON DATABASE {database} IS 'it''s "here"';
        ALTER DATABASE {database} CONNECTION LIMIT 17;
        ALTER DATABASE {database} SET search_path TO "$user", 'o''dd "one"', public;
        ALTER DATABASE {database} SET datestyle TO 'German, DMY';
        ALTER DATABASE {database} SET "app.tenant" TO 'a=b, "c"';
        ALTER ROLE {role} IN DATABASE {database} SET work_mem TO '7MB';
        ALTER ROLE ALL IN DATABASE {database} SET statement_timeout TO '71s';
        REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC;
        GRANT CONNECT ON DATABASE {database} TO {other} WITH GRANT OPTION
        """,
        on="postgres",
    )
    try:
        before = _hangs_on(app)

        await app.bring_in(archive)

        assert _hangs_on(app) == before
        assert app.run("SHOW search_path", as_app=True) == [('"$user", "o\'dd ""one""", public',)]
    finally:
        await app.close()
        app.run(f"DROP ROLE {other}", on="postgres")


_CHANGES = {
    "the database's owner": "ALTER DATABASE {database} OWNER TO postgres",
    "its connection limit": "ALTER DATABASE {database} CONNECTION LIMIT 11",
    "grants on it": "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
    "settings of it": "ALTER DATABASE {database} SET work_mem = '7MB'",
    "roles in it": "ALTER ROLE {role} IN DATABASE {database} SET work_mem = '8MB'",
    "default grants": "ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT SELECT ON TABLES TO PUBLIC",
    "grants of what is in it": "GRANT SELECT ON t TO pg_monitor",
    "owners or grants of what": "ALTER TABLE t OWNER TO postgres",
    "owners of collations": "ALTER COLLATION public.c OWNER TO postgres",
}


@variants(
    ("said", "change"),
    _CHANGES.items(),
    kept=[
        ("the database's owner", _CHANGES["the database's owner"]),
        ("grants of what is in it", _CHANGES["grants of what is in it"]),
    ],
)
async def test_a_restore_that_would_lose_what_changed_since_the_import_was_staged_is_refused(
    app: PostgresApp, said: str, change: str
) -> None:
    app.run("CREATE TABLE t (a int); GRANT SELECT ON t TO pg_read_all_data; CREATE TABLE gone (a int)", as_app=True)
    app.run("CREATE COLLATION public.c (locale = 'C')", as_app=True)
    archive = await app.export()
    record, _ = await app.stage(archive)
    app.run(change.format(database=app.database, role=app.role))
    before = app.outside(), _owners_and_grants(app)

    with pytest.raises(AppUnavailableError, match=re.escape(said)) as refused:
        await app.recipe.restore(record, app.progress)

    assert (app.outside(), _owners_and_grants(app)) == before
    assert "Import the file again" in refused.value.next_step
    await app.recipe.discard(record)
    assert app.left_over() == []
    await app.bring_in(archive)


async def test_a_database_that_was_closed_since_the_import_was_staged_is_not_exchanged(app: PostgresApp) -> None:
    record, _ = await app.stage(await app.export())
    app.run(f"ALTER DATABASE {app.database} ALLOW_CONNECTIONS false", on="postgres")

    with pytest.raises(AppUnavailableError, match="not currently accepting connections"):
        await app.recipe.restore(record, app.progress)

    await app.recipe.discard(record)
    assert app.left_over() == []


async def test_a_restore_is_not_refused_for_what_the_app_does_meanwhile(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int); GRANT SELECT ON t TO pg_read_all_data", as_app=True)
    app.run(f"COMMENT ON DATABASE {app.database} IS 'before'", on="postgres")
    record, _ = await app.stage(await app.export())

    app.run("CREATE TABLE other (a int); GRANT SELECT ON other TO PUBLIC; INSERT INTO t VALUES (1)", as_app=True)
    app.run(f"COMMENT ON DATABASE {app.database} IS 'after'", on="postgres")
    await app.recipe.restore(record, app.progress)

    assert app.run("SELECT * FROM t") == []
    assert app.run(_COMMENT, on="postgres", values=[app.database]) == [("after",)]


@variants("rights", [None, "CREATEDB"], kept=["CREATEDB"])
async def test_owners_and_grants_of_large_objects_in_both_are_carried_over(
    make_app: MakeApp, rights: str | None
) -> None:
    app = make_app(rights=rights or "", has_admin=rights is None)
    app.run("SELECT lo_create(1001), lo_create(1002), lo_create(1003), lo_create(1004)", as_app=True)
    app.run("GRANT SELECT ON LARGE OBJECT 1001 TO PUBLIC; GRANT UPDATE ON LARGE OBJECT 1002 TO pg_monitor", as_app=True)
    archive = await app.export()
    if rights is None:
        app.run("ALTER LARGE OBJECT 1003 OWNER TO postgres")
    app.run("SELECT lo_unlink(1004); SELECT lo_create(1005); GRANT SELECT ON LARGE OBJECT 1005 TO PUBLIC", as_app=True)
    held = (
        "SELECT oid, lomowner::regrole::text, (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(lomacl) AS x)"
        " FROM pg_largeobject_metadata WHERE oid < 1004 ORDER BY oid"
    )
    before = app.run(held)

    record, preview = await app.stage(archive)
    await app.recipe.restore(record, app.progress)

    assert preview.warnings == ()
    assert app.run(held) == before
    assert len(before[0][2]) == 2


async def test_too_many_large_objects_with_grants_of_their_own_are_a_warning(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(belongings, "MOST_LARGE_OBJECTS", 2)
    monkeypatch.setattr(carry_over, "MOST_LARGE_OBJECTS", 2)
    app.run("SELECT lo_create(n) FROM generate_series(1001, 1003) AS n", as_app=True)
    for number in range(1001, 1004):
        app.run(f"GRANT SELECT ON LARGE OBJECT {number} TO PUBLIC", as_app=True)

    _, preview = await app.stage(await app.export())

    assert [one for one in preview.warnings if "large objects" in one] == [
        "Owners and grants of large objects were not carried over: more than 2 have some of their own. All belong to "
        f"{app.role}."
    ]


async def test_an_undo_keeps_the_comment_where_our_label_was_taken_off_the_kept_database(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int)", as_app=True)
    app.run(f"COMMENT ON DATABASE {app.database} IS 'the shop''s own'", on="postgres")
    record = await app.bring_in(await app.export())
    app.run(f"COMMENT ON DATABASE mathison_kept_{record.key} IS NULL", on="postgres")

    await app.recipe.undo(record, app.progress)

    assert app.run(_COMMENT, on="postgres", values=[app.database]) == [("the shop's own",)]
    assert app.left_over() == []


_COMMENT = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"


@pytest.mark.parametrize("rights", ["CREATEDB", "CREATEDB CREATEROLE"])
async def test_an_import_is_undone_where_the_apps_sessions_are_all_that_its_database_lets_in(
    make_app: MakeApp, rights: str
) -> None:
    app = make_app(rights=rights, has_admin=False)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)
    record = await app.bring_in(archive)
    app.run(f"ALTER DATABASE {app.database} CONNECTION LIMIT 1", on="postgres")

    with psycopg.connect(app.server.dsn(app.database, app.role, password=app.password)):
        with pytest.raises(AppUnavailableError, match="too many connections for database") as refused:
            await app.recipe.fingerprint(app.progress)
        await app.recipe.undo(record, app.progress)

    assert f'the limit of the database (ALTER DATABASE "{app.database}" CONNECTION LIMIT' in refused.value.next_step
    assert app.run("SELECT a FROM t") == [(2,)]
    assert app.left_over() == []


async def test_a_role_whose_sessions_are_all_taken_is_told_so_with_the_limit(make_app: MakeApp) -> None:
    app = make_app(rights="CREATEDB CONNECTION LIMIT 1", has_admin=False)

    with (
        psycopg.connect(app.server.dsn(app.database, app.role, password=app.password)),
        pytest.raises(AppUnavailableError, match="too many connections for role") as refused,
    ):
        await app.recipe.fingerprint(app.progress)

    assert f'the limit of the role (ALTER ROLE "{app.role}" CONNECTION LIMIT' in refused.value.next_step


def _hangs_on(app: PostgresApp) -> list[object]:
    return [
        *app.run(
            "SELECT pg_get_userbyid(datdba), datconnlimit, datacl::text, shobj_description(oid, 'pg_database'),"
            " pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname = %s",
            values=[app.database],
        ),
        *app.run(
            "SELECT coalesce(setrole::regrole::text, ''), setconfig FROM pg_db_role_setting s"
            " JOIN pg_database d ON d.oid = setdatabase WHERE datname = %s ORDER BY 1",
            values=[app.database],
        ),
    ]


@variants("major", [14, 17], kept=[17])
async def test_owners_and_grants_of_what_is_in_both_are_carried_over(make_app: MakeApp, major: int) -> None:
    app = make_app(major)
    other = f"reader_{app.role}"
    app.fill()
    app.run("CREATE TABLE public.only_now (a int); CREATE SEQUENCE shop.other_number", as_app=True)
    archive = await app.export()
    app.run(f"CREATE ROLE {other}; GRANT {other} TO {app.role}", on="postgres")
    app.run(
        f"""
        GRANT USAGE ON SCHEMA shop TO {other};
        GRANT SELECT, INSERT ON shop.products TO {other};
        GRANT UPDATE (note), SELECT (id) ON shop.customers TO {other};
        GRANT USAGE ON SEQUENCE shop.invoice_number TO {other} WITH GRANT OPTION;
        REVOKE EXECUTE ON FUNCTION shop.total(numeric, integer) FROM PUBLIC;
        REVOKE USAGE ON TYPE shop.state FROM PUBLIC;
        GRANT SELECT ON public.only_now TO {other};
        DROP TABLE public.only_now;
        ALTER TABLE shop.cache OWNER TO {other};
        ALTER VIEW shop.order_totals OWNER TO {other};
        ALTER MATERIALIZED VIEW shop.z_first OWNER TO {other};
        ALTER FUNCTION shop.noted() OWNER TO {other};
        ALTER TYPE shop.span OWNER TO {other};
        ALTER SEQUENCE shop.other_number OWNER TO {other};
        ALTER SCHEMA "Größe und Maß" OWNER TO {other};
        ALTER DEFAULT PRIVILEGES FOR ROLE {app.role} IN SCHEMA shop GRANT SELECT ON TABLES TO {other};
        ALTER DEFAULT PRIVILEGES FOR ROLE {app.role} REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
        """
    )
    try:
        before = _owners_and_grants(app)

        _, preview = await app.stage(archive, record := MemoryRecord())
        await app.recipe.restore(record, app.progress)

        assert preview.warnings == ()
        after = _owners_and_grants(app)
        assert set(before) - set(after) == set()
        assert {name for name, *_ in set(after) - set(before)} == {"only_now"}
    finally:
        await app.close()
        app.run(f"DROP ROLE {other}", on="postgres")


async def test_who_may_use_a_foreign_data_wrapper_may_do_so_afterwards(app: PostgresApp) -> None:
    app.run("CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw; CREATE FOREIGN DATA WRAPPER gone")
    app.run(f"GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {app.role} WITH GRANT OPTION")
    app.run(
        "GRANT USAGE ON FOREIGN DATA WRAPPER file_fdw TO PUBLIC; GRANT USAGE ON FOREIGN DATA WRAPPER gone TO PUBLIC"
    )
    archive = app.dump("--schema=public", "--extension=*_fdw")
    grants = (
        "SELECT fdwname, x.grantee::regrole::text, x.is_grantable FROM pg_foreign_data_wrapper,"
        " aclexplode(fdwacl) AS x WHERE x.grantee <> fdwowner AND fdwname <> 'gone' ORDER BY 1"
    )
    before = app.run(grants)

    _, preview = await app.stage(archive, record := MemoryRecord())
    await app.recipe.restore(record, app.progress)

    assert before == [("file_fdw", "-", False), ("postgres_fdw", app.role, True)]
    assert app.run(grants) == before
    assert [one for one in preview.warnings if "wrapper" in one.lower()] == []


def _owners_and_grants(app: PostgresApp) -> list[tuple[object, ...]]:
    return app.run(r"""
        SELECT c.oid::regclass::text, c.relowner::regrole::text,
               (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(c.relacl) AS x)::text
          FROM pg_class c WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)' AND relkind <> 'i'
        UNION ALL SELECT a.attrelid::regclass::text || a.attname, '', a.attacl::text FROM pg_attribute a
         WHERE attacl IS NOT NULL AND attrelid >= 16384
        UNION ALL SELECT 'schema ' || nspname, nspowner::regrole::text,
                         (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(nspacl) AS x)::text
          FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'
        UNION ALL SELECT oid::regprocedure::text, proowner::regrole::text, proacl::text FROM pg_proc
         WHERE pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
        UNION ALL SELECT 'type ' || oid::regtype::text, typowner::regrole::text, typacl::text FROM pg_type
         WHERE typnamespace::regnamespace::text !~ '^(pg_|information_schema)' AND typtype IN ('e', 'd', 'r')
        UNION ALL SELECT 'default ' || defaclrole::regrole || defaclnamespace::regnamespace || defaclobjtype::text, '',
                         (SELECT array_agg(x::text ORDER BY x::text) FROM unnest(defaclacl) AS x)::text
          FROM pg_default_acl
    """)


async def test_a_database_that_a_superuser_owns_stays_so_and_the_app_can_write(app: PostgresApp) -> None:
    app.run(f"ALTER DATABASE {app.database} OWNER TO postgres", on="postgres")
    app.run(f"GRANT ALL ON SCHEMA public TO {app.role}")
    app.run("CREATE TABLE t (a serial)", as_app=True)
    archive = await app.export()

    await app.bring_in(archive)

    app.run("INSERT INTO t DEFAULT VALUES; ALTER TABLE t ADD b int; CREATE TABLE more (a int)", as_app=True)
    assert app.run("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()") == [
        ("postgres",)
    ]


async def test_a_failed_import_leaves_the_app_and_the_server_as_they_were(app: PostgresApp) -> None:
    app.fill()
    before = await app.fingerprint()
    archive = (await app.export("sql")).replace(b"CREATE TABLE shop.files", b"CREATE TABLE shop.customers")

    with pytest.raises(ServiceError):
        await app.stage(archive)

    assert before.differences(await app.fingerprint()) == []
    assert app.left_over() == []


@variants("major", [15, 17], kept=[17])
async def test_an_extension_that_only_a_superuser_may_create_is_there_before_the_archive(
    make_app: MakeApp, major: int
) -> None:
    app = make_app(major)
    app.run("CREATE SCHEMA stats; CREATE EXTENSION pg_stat_statements SCHEMA stats; CREATE EXTENSION pg_buffercache")
    app.run("CREATE TABLE t (a int)", as_app=True)
    archive = await app.export()
    before = await app.fingerprint()

    await app.bring_in(archive)

    assert before.differences(await app.fingerprint()) == []


async def test_an_import_that_is_cancelled_while_it_loads_leaves_nothing(app: PostgresApp) -> None:
    app.run("CREATE TABLE t AS SELECT n AS a, md5(n::text) AS b FROM generate_series(1, 300000) AS n", as_app=True)
    before = await app.fingerprint()
    staging = asyncio.create_task(app.stage(await app.export()))
    loading = "SELECT pid FROM pg_stat_activity WHERE application_name = 'mathison-load' AND query ^@ 'COPY'"
    await until(lambda: bool(app.run(loading, on="postgres")))

    staging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staging

    assert before.differences(await app.fingerprint()) == []
    assert app.left_over() == []


async def test_an_upload_that_breaks_off_leaves_nothing(app: PostgresApp) -> None:
    app.fill()
    archive = await app.export()
    record = MemoryRecord()

    async def broken() -> AsyncIterator[bytes]:
        yield archive[: len(archive) // 2]
        raise UploadIncompleteError("the caller went away")

    with pytest.raises(UploadIncompleteError):
        await app.recipe.stage(Upload(ArchiveHeader(), broken()), record, app.progress)
    await app.recipe.discard(record)

    assert app.left_over() == []


async def test_everything_goes_through_a_unix_socket_as_well(app: PostgresApp) -> None:
    app.fill()
    before = await app.fingerprint()
    app.recipe = app.new_recipe(host=str(app.server.socket_directory))
    archive = await app.export()
    app.run("DROP SCHEMA shop CASCADE", as_app=True)

    await app.bring_in(archive)

    assert before.differences(await app.fingerprint()) == []


async def test_the_role_of_an_import_reaches_nothing_but_its_database(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int)", as_app=True)
    hostile = unsealed(await app.export("sql")).replace(
        b"\nCREATE TABLE public.t ", f"\nALTER ROLE {app.role} PASSWORD 'mine';\nCREATE TABLE public.t ".encode()
    )

    with pytest.raises(ArchiveRefusedError):
        await app.stage(hostile)

    assert app.run("SELECT 1 AS one", as_app=True) == [(1,)]
    assert app.left_over() == []


async def test_settings_that_the_file_gave_to_its_database_apply_to_nobody(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int)", as_app=True)
    trap = (
        "CREATE FUNCTION public.trap(integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN EXECUTE format("
        "'ALTER DATABASE %I SET search_path TO mine', current_database()); RETURN true; END $$;\n"
        "CREATE TABLE public.trapped (a integer CHECK (public.trap(a)));\nINSERT INTO public.trapped VALUES (1);\n"
    )
    hostile = unsealed(await app.export("sql")).replace(
        b"\nCREATE TABLE public.t ", b"\n" + trap.encode() + b"CREATE TABLE public.t "
    )

    await app.bring_in(hostile)

    assert app.run("SELECT count(*) FROM trapped") == [(1,)]
    assert app.run("SHOW search_path") == [('"$user", public',)]


async def test_an_extension_that_the_archive_does_not_know_is_not_brought_back(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int)", as_app=True)
    archive = await app.export()
    app.run("CREATE EXTENSION pg_stat_statements")

    await app.bring_in(archive)

    assert app.run("SELECT extname FROM pg_extension ORDER BY 1") == [("plpgsql",)]


@variants(
    ("major", "create_options"),
    [
        (17, "ENCODING 'LATIN1' LOCALE 'C'"),
        (13, "ENCODING 'SQL_ASCII' LOCALE 'C'"),
        (15, "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LOCALE 'C'"),
        (17, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"),
        (18, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST' LOCALE 'C'"),
    ],
    every=3,
)
async def test_encoding_and_locale_are_those_of_the_old_database(
    make_app: MakeApp, major: int, create_options: str
) -> None:
    app = make_app(major, create_options=f"TEMPLATE template0 {create_options}")
    app.run("CREATE TABLE \"größe\" AS SELECT 'Ärger' AS text", as_app=True)
    before = await app.fingerprint()
    wanted = _locale(app)
    archive = await app.export()

    await app.bring_in(archive)

    assert before.differences(await app.fingerprint()) == []
    assert _locale(app) == wanted


def _locale(app: PostgresApp) -> dict[str, object]:
    [(row,)] = app.run("SELECT to_jsonb(d) FROM pg_database d WHERE datname = current_database()")
    return {
        name: value for name, value in row.items() if "loc" in name or name in ("encoding", "datcollate", "datctype")
    }


@pytest.mark.parametrize("database", [NAME_OF_63_BYTES, "we\"ird 'name'"])
async def test_any_name_of_a_database_can_be_imported_and_undone(make_app: MakeApp, database: str) -> None:
    app = make_app(database=database)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 2", as_app=True)

    record = await app.bring_in(archive)
    imported = app.run("SELECT a FROM t")
    await app.recipe.undo(record, app.progress)

    assert (imported, app.run("SELECT a FROM t")) == ([(1,)], [(2,)])
    assert app.left_over() == []


async def test_an_app_in_the_database_postgres_can_be_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    with PostgresServer(postgres(17)) as server:
        server.psql("CREATE TABLE t AS SELECT 1 AS a")
        app = PostgresApp(server, tmp_path_factory.mktemp("app"))
        app.database = "postgres"
        app.recipe = app.new_recipe(database="postgres", maintenance_database="postgres")
        archive = await app.export()
        server.psql("UPDATE t SET a = 2")

        record = await app.bring_in(archive)
        imported = app.run("SELECT a FROM t")
        await app.recipe.undo(record, app.progress)

        assert (imported, app.run("SELECT a FROM t")) == ([(1,)], [(2,)])


async def test_what_a_lost_journal_left_is_dropped_by_the_next_import_and_what_is_kept_is_reported(
    app: PostgresApp,
) -> None:
    app.run("CREATE TABLE t (a int)", as_app=True)
    archive = await app.export()
    await app.stage(archive, forgotten := MemoryRecord())
    await app.bring_in(archive)
    await app.bring_in(archive)

    record, preview = await app.stage(archive)

    assert f"database mathison_new_{forgotten.key}" not in app.left_over()
    assert any("Databases of earlier imports are still there" in warning for warning in preview.warnings)
    assert len([one for one in app.left_over() if "mathison_kept_" in one]) == 2
    await app.recipe.discard(record)


async def test_what_another_app_staged_in_the_same_server_is_left_alone(make_app: MakeApp) -> None:
    app, other = make_app(), make_app()
    for one in (app, other):
        one.run("CREATE TABLE t (a int)", as_app=True)
    staged, _ = await other.stage(await other.export())

    await app.stage(await app.export())

    await other.recipe.restore(staged, other.progress)


async def test_restoring_what_is_not_staged_and_undoing_what_is_not_kept_are_refused(app: PostgresApp) -> None:
    record = MemoryRecord(facts={"way": "beside"})

    with pytest.raises(TransferNotFoundError):
        await app.recipe.restore(record, app.progress)
    with pytest.raises(NothingToUndoError):
        await app.recipe.undo(record, app.progress)


async def test_discarding_is_repeatable_and_needs_nothing_to_be_there(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int)", as_app=True)
    record, _ = await app.stage(await app.export())

    await app.recipe.discard(record)
    await app.recipe.discard(record)
    await app.recipe.discard(MemoryRecord())

    assert app.left_over() == []


async def test_an_import_stops_before_it_fills_the_disk(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int)", as_app=True)
    archive = await app.export()
    app.limits = dataclasses.replace(Limits(), free_bytes=1 << 60)
    app.recipe = app.new_recipe()

    with pytest.raises(NoSpaceError, match="MiB left at"):
        await app.stage(archive)

    assert app.left_over() == []


async def test_an_unknown_option_is_refused(app: PostgresApp) -> None:
    with pytest.raises(InvalidRequestError, match="mode"):
        await app.recipe.stage(upload_of(b"", {"mode": "x"}), MemoryRecord(), app.progress)


async def test_a_role_that_pg_hba_does_not_let_in_is_noticed_before_the_upload_is_read(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with PostgresServer(postgres(17)) as server:
        hba = server.data_directory / "pg_hba.conf"
        app = PostgresApp(server, tmp_path_factory.mktemp("app"))
        hba.write_text("host all postgres 127.0.0.1/32 scram-sha-256\n")
        server.psql("SELECT pg_reload_conf()")

        with pytest.raises(AppUnavailableError, match=r"mathison_restore_.*pg_hba"):
            await app.stage(b"never read")

        assert app.left_over() == []


RIGHTS = ["SUPERUSER", "CREATEDB CREATEROLE", "CREATEDB"]
SETTINGS_OF = ["DATABASE {database}", "ROLE {role}", "ROLE {role} IN DATABASE {database}"]


@variants(
    ("rights", "setting"),
    list(itertools.product(RIGHTS, SETTINGS_OF)),
    kept=list(zip(RIGHTS, SETTINGS_OF, strict=True)),
)
async def test_money_is_read_as_the_apps_sessions_write_it(make_app: MakeApp, rights: str, setting: str) -> None:
    """With a locale of its own for them, as de_DE's 12,50; here one that differs in name alone."""
    has_admin = rights == "SUPERUSER"
    app = make_app(rights="" if has_admin else rights, has_admin=has_admin)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    name = app.run("SELECT CASE current_setting('lc_monetary') WHEN 'C' THEN 'POSIX' ELSE 'C' END")[0][0]
    app.run(f"ALTER {setting.format(role=app.role, database=app.database)} SET lc_monetary TO '{name}'")
    settings = app.outside()
    there = b"\n    a integer\n"
    archive = app.dump("--no-owner").replace(there, there + b", s text DEFAULT current_setting('lc_monetary')")

    record = await app.bring_in(archive)

    assert app.run("SELECT s FROM t") == [(name,)]
    assert app.outside() == settings
    await app.recipe.discard(record)
    assert app.left_over() == []


@pytest.mark.parametrize(("options", "is_said"), [(["--schema-only"], True), (["--inserts"], False), ([], False)])
async def test_a_dump_without_rows_is_a_warning_where_there_are_some(
    app: PostgresApp, options: list[str], is_said: bool
) -> None:
    app.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)", as_app=True)

    _, preview = await app.stage(app.dump(*options))

    said = [one for one in preview.warnings if "brings no row at all" in one]
    assert [one.endswith("the 2 rows of now will be gone.") for one in said] == [True] * is_said
