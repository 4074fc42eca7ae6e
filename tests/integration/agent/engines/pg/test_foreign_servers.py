"""Foreign servers of an app's database are there after an import, and nothing of a file reaches one before."""

from __future__ import annotations

import asyncio
import re

import psycopg
import pytest

from agent.recipes.base import ExportOptions
from common.errors import ArchiveIncompatibleError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp
from tests.integration.agent.engines.pg.test_hostile_files import dump

ALL_ABOUT_THEM = """
    SELECT s.srvname, s.srvtype, s.srvversion, s.srvowner::regrole::text, s.srvoptions, obj_description(s.oid),
           ARRAY(SELECT format('%s %s', grantee::regrole, is_grantable) FROM aclexplode(s.srvacl)
                  WHERE grantee <> s.srvowner ORDER BY 1),
           (SELECT array_agg(u.umuser::regrole || ' ' || u.umoptions::text ORDER BY u.umuser)
              FROM pg_user_mapping u WHERE u.umserver = s.oid),
           w.fdwhandler::regproc::text
      FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw ORDER BY 1
"""
CONTENT = """
    CREATE FOREIGN TABLE public.goods (n int) SERVER "Far 'away";
    CREATE VIEW public.good AS SELECT n FROM public.goods WHERE n > 1;
    CREATE TABLE public.days (day int, n int) PARTITION BY RANGE (day);
    CREATE TABLE public.days_here PARTITION OF public.days FOR VALUES FROM (0) TO (10);
    CREATE FOREIGN TABLE public.days_far PARTITION OF public.days FOR VALUES FROM (10) TO (20) SERVER "Far 'away"
        OPTIONS (table_name 'days');
    INSERT INTO public.days SELECT 1, n FROM generate_series(1, 500) AS n;
"""


def with_server(app: PostgresApp, far: PostgresApp, *, port: int | None = None) -> PostgresApp:
    """An app whose database has a foreign server that leads to another app's."""
    app.run(f"""
        CREATE EXTENSION IF NOT EXISTS postgres_fdw;
        CREATE SERVER "Far 'away" TYPE 'a "type"' VERSION '1''2' FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host '{far.server.host}', port '{port or far.server.port}', dbname '{far.database}');
        COMMENT ON SERVER "Far 'away" IS 'the shop''s';
        CREATE SERVER plain FOREIGN DATA WRAPPER postgres_fdw;
        GRANT USAGE ON FOREIGN SERVER "Far 'away" TO {app.role} WITH GRANT OPTION;
        GRANT USAGE ON FOREIGN SERVER plain TO PUBLIC;
        ALTER SERVER plain OWNER TO {app.role};
        CREATE USER MAPPING FOR {app.role} SERVER "Far 'away"
            OPTIONS (user '{far.role}', password '{far.password}');
        CREATE USER MAPPING FOR PUBLIC SERVER "Far 'away" OPTIONS (user 'nobody', password '''"\\');
        CREATE USER MAPPING FOR postgres SERVER plain
    """)
    return app


async def warnings_of_export(app: PostgresApp) -> list[str]:
    """What the end of an export says."""
    form = app.recipe.export_formats[0]
    async with app.recipe.export_data(ExportOptions(form, "shop.db", "shop.sql.gz", {}), app.progress) as export:
        async for _ in export.chunks:
            pass
    return list(export.warnings)


@variants(("major", "form"), [(13, "custom"), (18, "sql")], kept=[(18, "sql")])
async def test_an_import_and_its_undo_keep_them_with_their_user_mappings(
    make_app: MakeApp, major: int, form: str
) -> None:
    far = make_app(major)
    far.run("CREATE TABLE public.goods AS SELECT generate_series(1, 3) AS n", as_app=True)
    far.run("CREATE TABLE public.days AS SELECT 11 AS day, 7 AS n", as_app=True)
    app = with_server(make_app(major), far)
    app.run(CONTENT, as_app=True)
    before, exported = app.run(ALL_ABOUT_THEM), await app.fingerprint()
    archive = await app.export(form)
    app.run("DROP FOREIGN TABLE public.goods CASCADE; DROP TABLE public.days", as_app=True)

    record, preview = await app.stage(archive)
    await app.recipe.restore(record, app.progress)

    assert exported.differences(await app.fingerprint()) == []
    assert app.run(ALL_ABOUT_THEM) == before
    assert app.run("SELECT sum(n) FROM public.good", as_app=True) == [(5,)]
    assert app.run("SELECT count(*), sum(n) FROM public.days", as_app=True) == [(501, 125_257)]
    assert app.run("SELECT reltuples FROM pg_class WHERE relname = 'days_here'") == [(500.0,)]
    [warning] = preview.warnings
    assert warning.endswith("and their user mappings were left out; those of the app's database are carried over.")
    await app.recipe.undo(record, app.progress)
    assert app.run(ALL_ABOUT_THEM) == before
    assert app.left_over() == []


async def test_an_export_names_them(make_app: MakeApp) -> None:
    app = with_server(make_app(), make_app())

    [warning] = await warnings_of_export(app)

    assert "made there by a superuser: Far 'away, plain." in warning
    assert await warnings_of_export(make_app()) == []


async def test_a_file_reaches_none_while_it_is_loaded_and_leaves_no_way_in(make_app: MakeApp) -> None:
    met: list[bytes] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(await reader.read(8))
        writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1") as listener:
        app = with_server(make_app(), make_app(), port=listener.sockets[0].getsockname()[1])
        before = app.run(ALL_ABOUT_THEM)
        tries = "PERFORM n FROM public.goods; EXCEPTION WHEN OTHERS THEN RAISE INFO '%', SQLERRM"
        own = """CREATE USER MAPPING FOR CURRENT_USER SERVER "Far ''away" OPTIONS (user ''a'', password ''b'')"""

        await app.bring_in(
            dump(
                f"""CREATE FOREIGN TABLE public.goods (n int) SERVER "Far 'away";
                CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN {tries}; RETURN 1; END $$;
                DO $$ BEGIN EXECUTE '{own}'; END $$;
                DO $$ BEGIN {tries}; END $$;
                CREATE TABLE public.t (a int); INSERT INTO public.t VALUES (1);
                CREATE MATERIALIZED VIEW public.m AS SELECT public.f() WITH NO DATA;
                REFRESH MATERIALIZED VIEW public.m;"""
            )
        )

        assert app.run("SELECT * FROM public.m") == [(1,)]
        assert met == []
        assert app.run(ALL_ABOUT_THEM) == before
        with pytest.raises(psycopg.OperationalError, match="could not connect"):
            await asyncio.to_thread(app.run, "SELECT * FROM public.goods", as_app=True)
        assert len(met) == 1


async def test_a_function_that_connects_by_itself_reaches_one_while_a_file_is_loaded_without_the_apps_password(
    make_app: MakeApp,
) -> None:
    met: list[bytes] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(await reader.read(8))
        writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1") as listener:
        app = with_server(make_app(), make_app(), port=listener.sockets[0].getsockname()[1])
        app.run("CREATE EXTENSION dblink")
        own = """CREATE USER MAPPING FOR CURRENT_USER SERVER "Far ''away" OPTIONS (user ''a'', password ''b'')"""

        await app.bring_in(
            dump(
                f"""CREATE TABLE public.seen AS SELECT count(*) FROM pg_catalog.pg_user_mappings;
                DO $$ BEGIN EXECUTE '{own}'; PERFORM public.dblink_connect('Far ''away');
                EXCEPTION WHEN OTHERS THEN RAISE INFO '%', SQLERRM; END $$;"""
            )
        )

    assert app.run("SELECT count FROM public.seen") == [(0,)]
    assert len(met) == 1


async def test_one_that_the_app_does_not_have_is_refused_and_can_be_made_there_first(make_app: MakeApp) -> None:
    app = with_server(make_app(), make_app())
    app.run('CREATE FOREIGN TABLE public.goods (n int) SERVER "Far \'away"', as_app=True)
    archive = await app.export()
    other = make_app()
    other.run("CREATE EXTENSION postgres_fdw")

    with pytest.raises(ArchiveIncompatibleError, match="makes a server, which an import may not") as refusal:
        await other.stage(archive)
    assert "an administrator may make it there first" in refusal.value.next_step
    with_server(other, make_app())
    await other.bring_in(archive)

    assert other.run("SELECT relkind::text FROM pg_class WHERE relname = 'goods'") == [("f",)]


async def test_no_password_of_a_user_mapping_is_in_the_servers_log(make_app: MakeApp) -> None:
    app = with_server(make_app(), make_app())
    app.run(f"ALTER USER MAPPING FOR {app.role} SERVER \"Far 'away\" OPTIONS (SET password 'open-{app.role}')")
    archive = await app.export()
    written_before = app.server.log_path.stat().st_size
    app.run("ALTER ROLE postgres SET log_statement TO 'all'", on="postgres")
    try:
        await app.bring_in(archive)
    finally:
        app.run("ALTER ROLE postgres RESET log_statement", on="postgres")

    log = app.server.log_path.read_text()[written_before:]
    assert "ALTER FOREIGN DATA WRAPPER" in log
    assert f"open-{app.role}" not in log


async def test_within_the_apps_database_they_stay(make_app: MakeApp) -> None:
    app = with_server(make_app(has_admin=False), make_app())
    app.run('CREATE FOREIGN TABLE public.goods (n int) SERVER "Far \'away"', as_app=True)
    before, exported = app.run(ALL_ABOUT_THEM), await app.fingerprint()
    archive = await app.export()
    app.run("DROP FOREIGN TABLE public.goods", as_app=True)

    record = await app.bring_in(archive)

    assert exported.differences(await app.fingerprint()) == []
    await app.recipe.undo(record, app.progress)
    assert app.run(ALL_ABOUT_THEM) == before


async def test_a_file_with_a_foreign_table_of_a_file_is_refused_with_the_way_to_leave_it_out(make_app: MakeApp) -> None:
    app = make_app()
    app.run("""
        CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
        CREATE FOREIGN TABLE public."the lines" (line text) SERVER files OPTIONS (filename '/etc/hostname')
    """)
    app.run("CREATE TABLE t (a int)", as_app=True)

    with pytest.raises(ArchiveIncompatibleError, match=r'makes the foreign table public\."the lines"') as refused:
        await app.stage(app.dump())

    [option] = re.findall(r"--exclude-table='([^']*)'", refused.value.next_step)
    await app.bring_in(app.dump(f"--exclude-table={option}"))
    assert app.run("SELECT relname FROM pg_class WHERE relname IN ('t', 'the lines')") == [("t",)]
