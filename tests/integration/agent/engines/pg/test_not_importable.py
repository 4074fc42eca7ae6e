"""What no import takes is named by an export and by `describe`, before somebody relies on the archive."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from common.errors import ArchiveIncompatibleError, ServiceError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp
from tests.integration.agent.engines.pg.test_export import options
from tools.servers import postgres

SUPERUSERS_OWN = {
    "operator family": (
        "CREATE OPERATOR FAMILY {s}.fam USING btree",
        "operator family {s}.fam for access method btree",
    ),
    "operator class": (
        "CREATE OPERATOR CLASS {s}.cls FOR TYPE int USING hash AS FUNCTION 1 hashint4(int)",
        "operator class {s}.cls for access method hash",
    ),
    "function in C": (
        "CREATE FUNCTION {s}.f() RETURNS trigger LANGUAGE internal AS 'suppress_redundant_updates_trigger'",
        "function {s}.f()",
    ),
    "leakproof function": (
        "CREATE FUNCTION {s}.f(int) RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'",
        "function {s}.f(integer)",
    ),
    "function with a superuser's setting": (
        "CREATE FUNCTION {s}.f(int) RETURNS int LANGUAGE sql SET log_statement = 'none' AS 'SELECT 1'",
        "function {s}.f(integer)",
    ),
    "function with a planner's support": (
        "CREATE FUNCTION {s}.f(int) RETURNS int LANGUAGE plpgsql SUPPORT generate_series_int4_support"
        " AS 'BEGIN RETURN 1; END'",
        "function {s}.f(integer)",
    ),
    "aggregate of the server's own state": (
        "CREATE AGGREGATE {s}.agg(int8) (SFUNC = int8_avg_accum, STYPE = internal, FINALFUNC = numeric_poly_avg)",
        "function {s}.agg(bigint)",
    ),
    "base type": (
        "CREATE TYPE {s}.base; CREATE FUNCTION {s}.base_in(cstring) RETURNS {s}.base IMMUTABLE STRICT LANGUAGE internal"
        " AS 'int4in'; CREATE FUNCTION {s}.base_out({s}.base) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS"
        " 'int4out'; CREATE TYPE {s}.base (INPUT = {s}.base_in, OUTPUT = {s}.base_out, LIKE = int)",
        "type {s}.base",
    ),
    "shell type": ("CREATE TYPE {s}.shell", "type {s}.shell"),
    "cast of types of the server": (
        "CREATE FUNCTION {s}.f(int) RETURNS date LANGUAGE sql AS 'SELECT date ''2000-01-01'' + $1';"
        " CREATE CAST (int AS date) WITH FUNCTION {s}.f(int)",
        "cast from integer to date",
    ),
    "cast without a function": (
        "CREATE CAST (bigint AS timestamp) WITHOUT FUNCTION",
        "cast from bigint to timestamp without time zone",
    ),
    "access method": (
        "CREATE ACCESS METHOD heap_{r} TYPE TABLE HANDLER heap_tableam_handler",
        "access method heap_{r}",
    ),
    "foreign data wrapper": ("CREATE FOREIGN DATA WRAPPER w_{r}", "foreign-data wrapper w_{r}"),
    "language": (
        "CREATE FUNCTION {s}.h() RETURNS language_handler AS '$libdir/plpgsql', 'plpgsql_call_handler' LANGUAGE c;"
        " CREATE LANGUAGE l_{r} HANDLER {s}.h",
        "language l_{r}",
    ),
    "text search parser": (
        "CREATE TEXT SEARCH PARSER {s}.prs (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end,"
        " LEXTYPES = prsd_lextype)",
        "text search parser {s}.prs",
    ),
    "text search template": (
        "CREATE TEXT SEARCH TEMPLATE {s}.tmpl (INIT = dsimple_init, LEXIZE = dsimple_lexize)",
        "text search template {s}.tmpl",
    ),
}


@variants(
    ("kind", "major"),
    [(kind, major) for kind in SUPERUSERS_OWN for major in (13, 17)],
    kept=[(kind, 17) for kind in SUPERUSERS_OWN],
)
async def test_an_export_names_what_no_import_takes(make_app: MakeApp, kind: str, major: int) -> None:
    app = make_app(major)
    making, name = (text.format(s="shop", r=app.role) for text in SUPERUSERS_OWN[kind])
    app.run("CREATE SCHEMA shop; CREATE TABLE shop.t (a int)", as_app=True)
    app.run(making)

    async with app.recipe.export_data(options(), app.progress) as export:
        archive = b"".join([chunk async for chunk in export.chunks])
    described = (await app.recipe.describe()).warnings

    [warning] = [one for one in export.warnings if one.startswith("No import takes an archive that makes")]
    assert f"{name}, " in warning or f"{name}. " in warning
    assert warning in described
    with pytest.raises(ServiceError) as refused:
        await app.stage(archive)
    assert isinstance(refused.value, ArchiveIncompatibleError)
    assert app.left_over() == []


async def test_what_an_import_takes_is_not_named(app: PostgresApp) -> None:
    app.fill()
    app.run(
        "CREATE EXTENSION hstore; CREATE TYPE public.span AS RANGE (subtype = date); CREATE DOMAIN public.d AS int;"
        " CREATE TYPE public.pair AS (a int, b public.d[]); CREATE CAST (public.pair AS text) WITH INOUT;"
        " CREATE AGGREGATE public.product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');"
        " CREATE OPERATOR public.=#= (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);"
        " CREATE FUNCTION public.g() RETURNS int LANGUAGE sql SET work_mem = '1MB' AS 'SELECT 1'",
        as_app=True,
    )

    async with app.recipe.export_data(options(), app.progress) as export:
        archive = b"".join([chunk async for chunk in export.chunks])

    assert export.warnings == []
    await app.bring_in(archive)


async def test_the_advice_of_a_refusal_leaves_what_cannot_be_made_out(app: PostgresApp, tmp_path: Path) -> None:
    app.run("CREATE TABLE public.t AS SELECT 1 AS a", as_app=True)
    app.run("CREATE OPERATOR FAMILY public.fam USING btree")
    dump = tmp_path / "shop.dump"
    dump.write_bytes(await app.export("custom"))
    with pytest.raises(ArchiveIncompatibleError, match="only a superuser may make") as refused:
        await app.stage(dump.read_bytes())

    pg_restore = postgres(17).program("pg_restore")
    listed = subprocess.run([pg_restore, "--list", dump], check=True, capture_output=True, text=True).stdout
    lines = [f";{line}" if " OPERATOR FAMILY " in line else line for line in listed.splitlines()]
    (tmp_path / "LIST").write_text("\n".join(lines) + "\n")
    subprocess.run(
        [pg_restore, f"--use-list={tmp_path}/LIST", f"--file={tmp_path}/NEW.sql", dump],
        check=True,
    )
    await app.bring_in((tmp_path / "NEW.sql").read_bytes())

    assert "pg_restore --list DUMP > LIST; put a semicolon before its line in LIST" in refused.value.next_step
    assert app.run("SELECT a FROM public.t") == [(1,)]
    assert app.run("SELECT FROM pg_opfamily WHERE opfname = 'fam'") == []
