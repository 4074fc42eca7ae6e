"""Exports of real databases: whole or visibly not, and nothing left behind."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import psycopg
import pytest

from agent.engines.pg.exports import exporting, proving
from agent.engines.pg.exports.fingerprint import Fingerprint, Scope, one_moment, read_content
from agent.engines.pg.server.connection import Connection, connect
from agent.engines.pg.server.dump import session_prefix
from agent.recipes.base import ExportOptions
from agent.recipes.postgresql import CUSTOM, SQL, SQL_GZIP
from common.errors import AppUnavailableError, InvalidRequestError, SourceUnreadableError, ToolFailedError
from common.seals import FingerprintFinder, SealReader
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp, until
from tests.integration.agent.engines.pg.conftest import MakeApp
from tools.servers import PostgresServer, postgres

MANY_ROWS = "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 60000) AS n"


async def drain(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


def options(form: str = "sql.gz") -> ExportOptions:
    found = {one.name: one for one in (SQL, SQL_GZIP, CUSTOM)}[form]
    return ExportOptions(found, "shop.db", "shop" + found.suffix)


async def test_exported_text_opens_with_psql_and_holds_the_same(app: PostgresApp) -> None:
    app.fill()
    before = await app.fingerprint()
    archive = await app.export("sql.gz")
    app.run(f"CREATE DATABASE mathison_new_0123456789ab OWNER {app.role}", on="postgres")

    subprocess.run(
        [postgres(17).psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", app.server.dsn("mathison_new_0123456789ab")],
        input=gzip.decompress(archive),
        check=True,
        stdout=subprocess.DEVNULL,
    )

    assert before.differences(await app.fingerprint("mathison_new_0123456789ab")) == []


async def test_exported_text_names_itself_and_proves_its_wholeness(app: PostgresApp) -> None:
    app.fill()

    text = await app.export("sql")

    seal = SealReader()
    seal.add(text)
    seal.finish()
    assert seal.header is not None
    assert (seal.header.recipe, seal.header.format, seal.header.app_id) == ("postgresql", "sql", "shop.db")
    assert seal.header.engine_version == app.server.install.version
    [(tables,)] = app.run("SELECT count(*) FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'")
    assert seal.header.counts["tables"] == tables > 0
    assert seal.header.counts["large_objects"] == 3
    assert seal.header.details["database"] == app.database


async def test_exported_custom_archive_is_listed_and_read_by_pg_restore(app: PostgresApp, tmp_path: Path) -> None:
    app.fill()
    pg_restore = postgres(17).program("pg_restore")

    (tmp_path / "shop.dump").write_bytes(await app.export("custom"))

    listed = subprocess.run([pg_restore, "--list", tmp_path / "shop.dump"], check=True, capture_output=True)
    assert b"TABLE DATA shop customers" in listed.stdout
    with (tmp_path / "shop.dump").open("rb") as file:
        read = [
            subprocess.run([pg_restore, "--file=-", *named], stdin=file, check=True, capture_output=True)
            for named in ([tmp_path / "shop.dump"], [])
        ]
    for one in read:
        assert b"PostgreSQL database dump complete" in one.stdout
        assert one.stderr == b""


async def test_what_a_dump_leaves_out_is_left_out(app: PostgresApp) -> None:
    app.fill()
    app.run(f"GRANT SELECT ON shop.products TO PUBLIC; ALTER SCHEMA shop OWNER TO {app.role}")

    text = await app.export("sql")

    assert b"\nGRANT " not in text
    assert b"OWNER TO" not in text


async def test_an_estimate_comes_while_the_dump_runs(app: PostgresApp) -> None:
    app.run(MANY_ROWS, as_app=True)

    text = await app.export("sql")

    assert app.progress.read_bytes == pytest.approx(len(text), rel=0.01)
    assert app.progress.expected_bytes == pytest.approx(len(text), rel=0.3)


@variants("form", ["sql.gz", "custom"])
async def test_cancelling_halfway_leaves_neither_process_nor_session(app: PostgresApp, form: str) -> None:
    app.run(MANY_ROWS, as_app=True)

    async with app.recipe.export_data(options(form), app.progress) as export, aclosing(export.chunks) as chunks:
        await anext(chunks)

    assert app.left_over() == []


async def test_cancelling_while_the_dump_waits_for_a_lock_ends_the_session(app: PostgresApp) -> None:
    app.run("CREATE TABLE locked (a int)", as_app=True)
    with psycopg.connect(app.server.dsn(app.database)) as holder:
        holder.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(app.export())
        waiting = "SELECT pid FROM pg_stat_activity WHERE application_name ^@ 'mathison-' AND wait_event_type = 'Lock'"
        await until(lambda: bool(app.run(waiting, on="postgres")))

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert app.left_over() == []


async def test_a_locked_table_does_not_hold_up_the_description(app: PostgresApp) -> None:
    app.run("CREATE TABLE locked AS SELECT 1 AS a; ANALYZE locked", as_app=True)
    with psycopg.connect(app.server.dsn(app.database)) as holder:
        holder.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")

        description = await app.recipe.describe()

    assert description.can_export.is_possible
    assert description.estimated_bytes == 8192


async def test_a_killed_dump_is_an_error_and_not_an_end(app: PostgresApp) -> None:
    app.run(MANY_ROWS, as_app=True)

    async with app.recipe.export_data(options("sql"), app.progress) as export:
        await anext(export.chunks)
        [dumper] = [one for one in psutil.Process().children(recursive=True) if one.name() == "pg_dump"]
        os.kill(dumper.pid, signal.SIGKILL)

        with pytest.raises(ToolFailedError, match="pg_dump was ended by SIGKILL"):
            await drain(export.chunks)

    assert app.left_over() == []


async def test_a_session_that_a_killed_agent_left_is_ended_by_the_next_export(app: PostgresApp) -> None:
    app.run("CREATE TABLE t (a int)", as_app=True)
    name = session_prefix("shop.db") + "0123456789ab"
    dsn = app.server.dsn(app.database, app.role, password=app.password)
    with psycopg.connect(dsn, application_name=name) as left:
        left.execute("SELECT 1")

        await app.export()

        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")


async def test_a_wrong_password_is_told_apart_from_a_server_that_is_down(app: PostgresApp) -> None:
    (app.folder / "app.password").write_text("wrong")

    with pytest.raises(AppUnavailableError, match="password authentication failed"):
        await app.export()


async def test_a_server_that_is_down_is_told_by_its_address(app: PostgresApp) -> None:
    app.recipe = app.new_recipe(port=1)

    with pytest.raises(AppUnavailableError, match=r"PostgreSQL at 127\.0\.0\.1:1 does not answer"):
        await app.export()
    description = await app.recipe.describe()
    assert "does not answer" in description.can_export.obstacle


async def test_a_missing_database_is_told_by_its_name(app: PostgresApp) -> None:
    with pytest.raises(AppUnavailableError, match="no_such"):
        await app.export(options={"database": "no_such"})


async def test_a_server_that_stops_in_the_middle_is_an_error_and_not_an_end(tmp_path: Path) -> None:
    with PostgresServer(postgres(17)) as server:
        app = PostgresApp(server, tmp_path)
        app.run(MANY_ROWS, as_app=True)

        async with app.recipe.export_data(options("sql"), app.progress) as export:
            await anext(export.chunks)
            await asyncio.to_thread(server.stop)

            with pytest.raises(AppUnavailableError, match=r"does not answer|went away"):
                await drain(export.chunks)


async def test_a_session_that_the_server_lost_is_told_in_one_line(tmp_path: Path) -> None:
    with PostgresServer(postgres(17)) as server:
        app = PostgresApp(server, tmp_path)
        asleep = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"

        async def lose_a_session() -> None:
            async with connect(app.login()) as connection:
                sleeping = asyncio.ensure_future(connection.execute("SELECT pg_sleep(600)"))
                await until(lambda: app.run(asleep, on="postgres") != [])
                os.kill(connection.info.backend_pid, signal.SIGKILL)
                await sleeping

        with pytest.raises(AppUnavailableError) as lost:
            await lose_a_session()

    assert lost.value.text.endswith(
        "server closed the connection unexpectedly. This probably means the server terminated abnormally before or "
        "while processing the request."
    )


async def test_an_export_of_each_major_is_made_by_its_own_programs(make_app: MakeApp) -> None:
    directories = [str(postgres(major).bin_directory) for major in (15, 16, 17, 18)]
    made_by = []
    for major in (13, 15, 16, 17, 18):
        app = make_app(major)
        app.recipe = app.new_recipe(client_directories=directories)

        async with app.recipe.export_data(options("sql"), app.progress) as export:
            made_by.append(export.header.details["dumped_by"].partition(".")[0])

    assert made_by == ["pg_dump 15", "pg_dump 15", "pg_dump 16", "pg_dump 17", "pg_dump 18"]


async def test_programs_that_are_too_old_are_named_before_anything_flows(make_app: MakeApp) -> None:
    app = make_app(17)
    app.recipe = app.new_recipe(client_directories=[str(postgres(15).bin_directory)])

    with pytest.raises(ToolFailedError, match=r"version 17 or newer is needed, found: 15\.20"):
        await app.export()
    assert "version 17 or newer" in (await app.recipe.describe()).can_export.obstacle


async def test_the_password_is_in_no_ones_argv(app: PostgresApp) -> None:
    app.run(MANY_ROWS, as_app=True)

    async with app.recipe.export_data(options("custom"), app.progress) as export:
        await anext(export.chunks)
        argvs = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]

    assert any("pg_dump" in argv for argv in argvs)
    assert not any(app.password in argv for argv in argvs)


async def test_another_database_of_the_app_is_exported_by_option(make_app: MakeApp) -> None:
    app, other = make_app(), make_app()
    other.run("CREATE TABLE elsewhere (a int)", as_app=True)
    other.run(f"GRANT {other.role} TO {app.role}")

    text = await app.export("sql", options={"database": other.database})

    assert b"CREATE TABLE public.elsewhere" in text


async def test_the_admin_reads_no_other_apps_database(make_app: MakeApp) -> None:
    app, other = make_app(), make_app()
    other.run("CREATE TABLE secrets (a int)", as_app=True)

    with pytest.raises(SourceUnreadableError, match=rf"{app.role} may not read .*public\.secrets"):
        await app.export("sql", options={"database": other.database})


async def test_an_unknown_option_is_refused(app: PostgresApp) -> None:
    with pytest.raises(InvalidRequestError, match="colour"):
        await app.export(options={"colour": "red"})


@pytest.mark.parametrize(
    "hide",
    [
        "CREATE TABLE hidden (a int)",
        "CREATE SCHEMA closed; CREATE TABLE closed.hidden (a int); GRANT SELECT ON closed.hidden TO PUBLIC",
        "CREATE TABLE hidden (a int); GRANT SELECT ON hidden TO PUBLIC; ALTER TABLE hidden ENABLE ROW LEVEL SECURITY",
    ],
    ids=["no right on the table", "no right on the schema", "rows hidden by policies"],
)
async def test_a_table_that_cannot_be_read_whole_is_named_before_anything_flows(make_app: MakeApp, hide: str) -> None:
    app = make_app(has_admin=False)
    app.run(hide)

    with pytest.raises(SourceUnreadableError, match="hidden"):
        await app.export()
    assert "hidden" in (await app.recipe.describe()).can_export.obstacle


async def test_the_admin_reads_what_the_app_may_not(app: PostgresApp) -> None:
    app.run("CREATE TABLE hidden (a int)")

    assert b"CREATE TABLE public.hidden" in await app.export("sql")


@variants("major", [13, 18], kept=[18])
async def test_large_objects_that_cannot_be_read_are_counted_before_anything_flows(
    make_app: MakeApp, major: int
) -> None:
    app = make_app(major, has_admin=False)
    app.run("SELECT lo_create(1001)", as_app=True)
    app.run("SELECT lo_create(n) FROM generate_series(1002, 1005) AS n; GRANT SELECT ON LARGE OBJECT 1002 TO PUBLIC")
    app.run(f"GRANT SELECT ON LARGE OBJECT 1003 TO {app.role}; GRANT UPDATE ON LARGE OBJECT 1004 TO {app.role}")

    with pytest.raises(SourceUnreadableError, match=r": 2 large objects of role postgres\.$") as refused:
        await app.export()

    assert "give the agent an admin_user" in refused.value.next_step
    assert "2 large objects" in (await app.recipe.describe()).can_export.obstacle
    app.run("SELECT lo_unlink(n) FROM generate_series(1004, 1005) AS n")
    assert b"1003" in await app.export("sql")
    assert (await app.recipe.describe()).can_export.obstacle == ""


async def test_the_admin_reads_large_objects_that_the_app_may_not(app: PostgresApp) -> None:
    app.run("SELECT lo_from_bytea(1001, 'hidden')")

    assert b"hidden".hex().encode() in await app.export("sql")
    assert (await app.recipe.describe()).can_export.obstacle == ""
    assert (await app.recipe.fingerprint(app.progress)).parts["large objects"].startswith("1 rows")


async def test_the_admin_reads_where_the_app_may_not_read_a_materialized_view(app: PostgresApp) -> None:
    app.run("CREATE MATERIALIZED VIEW hidden AS SELECT 1 AS a")

    async with app.recipe.export_data(options("sql"), app.progress) as found:
        await drain(found.chunks)

    assert found.warnings == []
    assert found.fingerprint is not None
    assert "table public.hidden" in found.fingerprint.parts


async def test_a_materialized_view_that_nobody_may_read_costs_the_fingerprint_alone(make_app: MakeApp) -> None:
    app = make_app(has_admin=False)
    app.run("CREATE MATERIALIZED VIEW hidden AS SELECT 1 AS a")

    async with app.recipe.export_data(options("sql"), app.progress) as found:
        await drain(found.chunks)

    assert "permission denied for materialized view hidden" in " ".join(found.warnings)


async def test_a_dump_of_a_database_in_latin1_is_latin1(make_app: MakeApp) -> None:
    app = make_app(create_options="TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    app.run("CREATE TABLE \"größe\" AS SELECT 'Ärger' AS text", as_app=True)

    text = await app.export("sql")

    assert "Ärger".encode("latin1") in text
    assert b"SET client_encoding = 'LATIN1'" in text


@variants("form", ["sql", "custom"], kept=["sql"])
@variants(
    ("has_admin", "encoding"),
    [(True, "SJIS"), (True, "LATIN1"), (False, "SJIS"), (False, "LATIN1")],
    kept=[(True, "SJIS"), (False, "LATIN1")],
    ids=["beside-SJIS", "beside-LATIN1", "within-SJIS", "within-LATIN1"],
)
async def test_an_encoding_that_is_set_for_clients_is_not_the_dumps(
    make_app: MakeApp, encoding: str, has_admin: bool, form: str
) -> None:
    app = make_app(has_admin=has_admin)
    app.run("CREATE TABLE t AS SELECT '日本語 ÄЖ' AS a", as_app=True)
    app.run(f"ALTER DATABASE {app.database} SET client_encoding TO '{encoding}'")
    app.run(f"ALTER ROLE {app.role} IN DATABASE {app.database} SET client_encoding TO '{encoding}'")
    exported, archive = await app.fingerprint(), await app.export(form)
    app.run("UPDATE t SET a = ''", as_app=True)

    await app.bring_in(archive)

    assert exported.differences(await app.fingerprint()) == []


@pytest.mark.parametrize(
    "database",
    ["we\"ird 'name'", "postgresql://host/x?a=b", "日本語" * 7, "dbname=x host=y", "-x"],
)
async def test_any_name_of_a_database_works(make_app: MakeApp, database: str) -> None:
    app = make_app(database=database)
    app.run("CREATE TABLE t (a int)", as_app=True)

    assert b"CREATE TABLE public.t" in await app.export("sql")


@variants("form", ["sql", "custom"], kept=["custom"])
async def test_an_exports_fingerprint_is_of_its_own_moment(app: PostgresApp, form: str) -> None:
    app.fill()
    app.run(MANY_ROWS)
    before = await app.recipe.fingerprint(app.progress)
    finder = FingerprintFinder()
    archive = bytearray()
    async with app.recipe.export_data(options(form), app.progress) as export:
        async for chunk in export.chunks:
            if not archive:
                app.run("CREATE TABLE later (n int); INSERT INTO later SELECT 1; DELETE FROM big WHERE n % 2 = 0")
            archive += chunk
            finder.add(chunk)

    await app.bring_in(bytes(archive))

    assert export.fingerprint is not None
    assert export.fingerprint.differences(before) == []
    assert export.fingerprint.differences(await app.recipe.fingerprint(app.progress)) == []
    assert finder.fingerprint() == export.fingerprint


async def test_an_export_can_go_without_a_fingerprint(app: PostgresApp) -> None:
    app.fill()
    wanted = ExportOptions(SQL, "shop.db", "shop.sql", {"fingerprint": "no"})

    async with app.recipe.export_data(wanted, app.progress) as export:
        archive = b"".join([chunk async for chunk in export.chunks])

    assert export.fingerprint is None
    assert b"mathison-data fingerprint" not in archive


async def test_a_fingerprint_that_cannot_be_taken_is_a_warning(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(connection: Connection, scope: Scope) -> Fingerprint:
        raise ToolFailedError("The server reports something odd.")

    app.fill()
    monkeypatch.setattr(proving, "read_content", fail)

    async with app.recipe.export_data(options("sql"), app.progress) as export:
        await drain(export.chunks)

    assert export.fingerprint is None
    assert export.warnings == ["No fingerprint could be taken: The server reports something odd."]


async def test_the_server_compiles_nothing_for_a_fingerprint(app: PostgresApp) -> None:
    async with connect(app.login()) as connection, one_moment(connection):
        await connection.execute("SET jit = on")
        await read_content(connection)
        cursor = await connection.execute("SHOW jit")

        assert await cursor.fetchone() == ("off",)


async def test_a_fingerprint_takes_no_session_more(make_app: MakeApp) -> None:
    app = make_app(rights="CONNECTION LIMIT 2", has_admin=False)
    app.fill()

    async with app.recipe.export_data(options("sql"), app.progress) as export:
        await drain(export.chunks)

    assert export.warnings == []
    assert export.fingerprint is not None


async def test_an_export_without_a_snapshot_to_share_goes_on_without_a_fingerprint(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ToolFailedError("The server shares no snapshot.")

    app.fill()
    monkeypatch.setattr(exporting, "proving", fail)

    async with app.recipe.export_data(options("sql"), app.progress) as export:
        await drain(export.chunks)

    assert export.fingerprint is None
    assert export.warnings == ["No fingerprint could be taken: The server shares no snapshot."]


async def test_what_is_emptied_right_after_the_dump_is_in_its_fingerprint(
    app: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.run(MANY_ROWS)
    before = await app.recipe.fingerprint(app.progress)
    is_dumped = asyncio.Event()

    async def read_late(connection: Connection, scope: Scope) -> Fingerprint:
        await is_dumped.wait()
        return await read_content(connection, scope)

    monkeypatch.setattr(proving, "read_content", read_late)

    async with app.recipe.export_data(options("sql"), app.progress) as export, aclosing(export.chunks) as chunks:
        await anext(chunks)
        emptying = asyncio.create_task(asyncio.to_thread(app.run, "TRUNCATE big"))
        await until(lambda: bool(app.run("SELECT 1 FROM pg_locks WHERE NOT granted")))
        is_dumped.set()
        await drain(chunks)
    await emptying

    assert export.fingerprint == before
