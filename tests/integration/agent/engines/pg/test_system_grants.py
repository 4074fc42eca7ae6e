"""Grants on members of extensions and on what is the server's own: an import beside leaves them as they are."""

from __future__ import annotations

import pytest

from common.errors import AppUnavailableError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp

GIVEN = """
    REVOKE EXECUTE ON FUNCTION public.dblink(text), public.dblink_connect(text) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION public.dblink(text) TO {role} WITH GRANT OPTION;
    GRANT EXECUTE ON FUNCTION public.dblink_connect_u(text) TO {role};
    REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
    GRANT USAGE ON LANGUAGE plpgsql TO {role};
    REVOKE EXECUTE ON FUNCTION lo_create(oid), pg_sleep(double precision) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO {role};
    REVOKE EXECUTE ON FUNCTION pg_ls_waldir() FROM pg_monitor;
    REVOKE SELECT ON pg_stat_statements FROM PUBLIC;
    REVOKE USAGE ON TYPE public.dblink_pkey_results FROM PUBLIC;
    REVOKE USAGE ON TYPE pg_catalog.timestamptz, pg_catalog.varchar FROM PUBLIC;
    REVOKE SELECT ON pg_matviews FROM PUBLIC;
    GRANT SELECT (rolname, rolpassword) ON pg_authid TO {role};
    REVOKE USAGE ON SCHEMA information_schema FROM PUBLIC;
"""
GRANTS = """
    SELECT what, array_agg(acl::text ORDER BY acl::text) FROM (
        SELECT p.oid::regprocedure::text AS what, unnest(p.proacl) AS acl FROM pg_proc p
        UNION ALL SELECT relname, unnest(relacl) FROM pg_class
        UNION ALL SELECT attrelid::regclass || '.' || attname, unnest(attacl) FROM pg_attribute
        UNION ALL SELECT typname, unnest(typacl) FROM pg_type
        UNION ALL SELECT nspname, unnest(nspacl) FROM pg_namespace WHERE nspname <> 'public'
        UNION ALL SELECT lanname, unnest(lanacl) FROM pg_language
    ) AS found GROUP BY what ORDER BY what
"""
WARNING = "Grants on these are not those of the app's database"


def give(app: PostgresApp) -> None:
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    app.run("CREATE EXTENSION dblink; CREATE EXTENSION pg_stat_statements")
    app.run(GIVEN.format(role=app.role).replace("ON pg_stat_statements", "ON public.pg_stat_statements"))


@variants("major", [13, 15, 17, 18], kept=[13, 17])
async def test_an_import_beside_leaves_them_as_they_are(make_app: MakeApp, major: int) -> None:
    app = make_app(major)
    give(app)
    before = app.run(GRANTS)
    record, preview = await app.stage(await app.export())

    await app.recipe.restore(record, app.progress)

    assert app.run(GRANTS) == before
    assert [one for one in preview.warnings if one.startswith(WARNING)] == []


async def test_a_file_that_makes_such_an_extension_itself_gets_its_grants_too(app: PostgresApp) -> None:
    app.run("CREATE EXTENSION hstore", as_app=True)
    app.run("REVOKE EXECUTE ON FUNCTION public.hstore(text, text) FROM PUBLIC")
    before = app.run(GRANTS)

    await app.bring_in(await app.export())

    assert app.run(GRANTS) == before


async def test_who_may_not_change_them_says_which_are_others(make_app: MakeApp) -> None:
    app = make_app(rights="CREATEDB CREATEROLE", has_admin=False)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    app.run(
        f"REVOKE EXECUTE ON FUNCTION pg_sleep(float) FROM PUBLIC;"
        f" GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO {app.role}"
    )

    record, preview = await app.stage(await app.export())

    [warning] = [one for one in preview.warnings if one.startswith(WARNING)]
    assert "only a superuser may change them: routine pg_ls_dir(text), routine pg_sleep(double precision)." in warning
    await app.recipe.discard(record)


async def test_what_somebody_takes_away_after_staging_is_not_lost(app: PostgresApp) -> None:
    give(app)
    record, _ = await app.stage(await app.export())
    app.run("REVOKE EXECUTE ON FUNCTION public.dblink_connect(text, text) FROM PUBLIC")

    with pytest.raises(AppUnavailableError, match="grants on what is an extension's"):
        await app.recipe.restore(record, app.progress)

    await app.recipe.discard(record)


PUBLIC = """
    SELECT pg_get_userbyid(nspowner), ARRAY(SELECT a::text FROM unnest(nspacl) AS a ORDER BY 1)
      FROM pg_namespace WHERE nspname = 'public'
"""


@variants("major", [13, 15, 17], kept=[13, 17])
@pytest.mark.parametrize("owner", ["{role}", "postgres"])
async def test_schema_public_has_its_owner_and_grants_again(make_app: MakeApp, major: int, owner: str) -> None:
    """As is often done since PostgreSQL 15, where the app does not own its database and could make no tables else."""
    app = make_app(major)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    app.run(f"ALTER DATABASE {app.database} OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    app.run(f"ALTER SCHEMA public OWNER TO {owner.format(role=app.role)}; GRANT ALL ON SCHEMA public TO {app.role}")
    before = app.run(PUBLIC)

    await app.bring_in(await app.export())

    assert app.run(PUBLIC) == before
    app.run("CREATE TABLE another (a int)", as_app=True)


@pytest.mark.parametrize("rights", ["CREATEDB", "CREATEDB CREATEROLE"])
async def test_a_schema_public_that_cannot_be_as_before_is_told_with_what_makes_it_so(
    make_app: MakeApp, rights: str
) -> None:
    app = make_app(13, rights=rights, has_admin=False)
    app.run("CREATE TABLE t AS SELECT 1 AS a", as_app=True)
    app.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    before = app.run(PUBLIC)

    record, preview = await app.stage(await app.export())
    await app.recipe.restore(record, app.progress)

    [warning] = [one for one in preview.warnings if one.startswith("Schema public has not the owner and grants")]
    app.run(warning.rpartition(": ")[2].rstrip("."))
    assert app.run(PUBLIC) == before
