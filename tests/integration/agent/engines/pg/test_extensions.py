"""Dumps with extensions: in schemas that hosters keep for them, and with tables whose rows pg_dump writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.errors import ArchiveIncompatibleError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp
from tests.integration.agent.engines.pg.test_hostile_files import dump
from tools.servers import PostgresServer

SCRIPT = """
    CREATE TABLE srs (n int PRIMARY KEY);
    INSERT INTO srs VALUES (1);
    GRANT SELECT ON srs TO PUBLIC;
    SELECT pg_extension_config_dump('srs', 'WHERE n > 1');
"""
"""As PostGIS has spatial_ref_sys."""


@pytest.fixture
def server_with_places(postgres_servers: object) -> Iterator[None]:
    """The server of version 18 has the extension "places", which only a superuser may create."""
    server: PostgresServer = postgres_servers(18)  # type: ignore[operator]
    folder = server.directory / "more" / "extension"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "places.control").write_text("default_version = '1'\nsuperuser = true\nrelocatable = false\n")
    (folder / "places--1.sql").write_text(SCRIPT)
    server.psql(f"ALTER ROLE postgres SET extension_control_path TO '$system:{folder.parent}'")
    yield
    server.psql("ALTER ROLE postgres RESET extension_control_path")


def app_with_places(make_app: MakeApp, *, has_admin: bool) -> PostgresApp:
    app = make_app(18, has_admin=has_admin)
    app.run("CREATE EXTENSION places SCHEMA public")
    app.run("CREATE TABLE public.t AS SELECT 1 AS a", as_app=True)
    return app


@pytest.mark.usefixtures("server_with_places")
@variants("has_admin", [True, False], ids=["beside", "within"], kept=[False])
async def test_a_table_of_an_extension_without_rows_of_the_apps_own_comes_back(
    make_app: MakeApp, has_admin: bool
) -> None:
    app = app_with_places(make_app, has_admin=has_admin)
    exported, archive = await app.fingerprint(), await app.export()
    app.run("DROP TABLE public.t", as_app=True)

    await app.bring_in(archive)

    assert exported.differences(await app.fingerprint()) == []
    assert app.run("SELECT n FROM public.srs") == [(1,)]


@pytest.mark.usefixtures("server_with_places")
@variants("has_admin", [True, False], ids=["beside", "within"], kept=[False])
async def test_rows_for_a_table_of_an_extension_are_refused_with_a_way_out_before_anything_is_changed(
    make_app: MakeApp, has_admin: bool
) -> None:
    app = app_with_places(make_app, has_admin=has_admin)
    app.run("INSERT INTO public.srs VALUES (7)")

    with pytest.raises(ArchiveIncompatibleError, match=r"rows for public\.srs, which is a table of an ext") as refusal:
        await app.stage(await app.export())

    option = refusal.value.next_step.partition("(pg_dump ")[2].partition(")")[0]
    await app.bring_in(app.dump(option))
    assert app.run("SELECT a FROM public.t") == [(1,)]
    assert app.left_over() == [one for one in app.left_over() if has_admin]


@pytest.mark.parametrize("cleaning", ["DROP SCHEMA IF EXISTS kept", "DROP SCHEMA kept"])
async def test_a_dump_with_clean_may_drop_the_schema_of_an_extension_that_is_there_before_it(
    app: PostgresApp, cleaning: str
) -> None:
    app.run("CREATE SCHEMA kept; CREATE EXTENSION pg_stat_statements SCHEMA kept")
    text = f"DROP EXTENSION IF EXISTS pg_stat_statements;\n{cleaning};\nCREATE SCHEMA kept;\n"

    await app.bring_in(dump(text + "CREATE EXTENSION pg_stat_statements WITH SCHEMA kept;\nCREATE TABLE kept.t ();"))

    assert app.run("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname ~ '^pg_'") == [("kept",)]
    assert app.run("SELECT count(*) FROM kept.t") == [(0,)]


async def test_an_extension_in_a_schema_that_the_dump_does_not_make_comes_in(app: PostgresApp) -> None:
    text = "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA heroku_ext;\nCREATE TABLE public.t (a heroku_ext.citext);"

    await app.bring_in(dump(text))

    assert app.run("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'citext'") == [
        ("heroku_ext",)
    ]


@pytest.mark.parametrize("rights", [None, "CREATEDB"], ids=["superuser", "createdb"])
async def test_extensions_that_are_made_anew_in_another_version_or_for_another_owner_are_named(
    make_app: MakeApp, rights: str | None
) -> None:
    app = make_app(rights=rights or "", has_admin=rights is None)
    app.run("CREATE EXTENSION hstore VERSION '1.4'; CREATE EXTENSION citext")
    app.run("CREATE EXTENSION pg_trgm; CREATE TABLE t (a hstore, b citext)", as_app=True)
    archive = app.dump("--no-owner", "--no-comments")

    record, preview = await app.stage(archive)
    await app.recipe.restore(record, app.progress)

    [(version,)] = app.run("SELECT extversion FROM pg_extension WHERE extname = 'hstore'")
    assert version != "1.4"
    assert [one for one in preview.warnings if "extension" in one] == [
        "These extensions are made anew, and not as they are in the app's database now: citext (belongs to "
        f"{app.role}, not to postgres), hstore (version {version}, not 1.4; belongs to {app.role}, not to postgres)."
    ]


async def test_an_extension_with_one_that_it_needs_comes_back_and_goes_where_the_file_has_neither(
    app: PostgresApp,
) -> None:
    app.run("CREATE TABLE t (a float8)", as_app=True)
    without = await app.export()
    app.run("CREATE EXTENSION earthdistance CASCADE")
    app.run("CREATE INDEX ON t (sec_to_gc(a))", as_app=True)
    exported, archive = await app.fingerprint(), await app.export()

    await app.bring_in(archive)
    imported = await app.fingerprint()
    app.drop_kept()
    await app.bring_in(without)

    assert exported.differences(imported) == []
    assert app.run("SELECT extname FROM pg_extension") == [("plpgsql",)]
