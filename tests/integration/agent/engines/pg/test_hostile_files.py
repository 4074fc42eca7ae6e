"""What a hostile file leaves behind in a server when its import was done by a superuser: nothing but its content.

Its code never gets more rights than the app's role has, and databases and roles are afterwards as they were.
"""

from __future__ import annotations

import pytest

from common.errors import ArchiveRefusedError, ServiceError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp


def dump(text: str) -> bytes:
    """What a file of pg_dump looks like from outside."""
    return f"--\n-- PostgreSQL database dump\n--\n{text}\n--\n-- PostgreSQL database dump complete\n--\n".encode()


def with_block(statement: str) -> bytes:
    """A dump of a table t with a DO block; %I is the database that the file is loaded into."""
    block = f"DO $do$ BEGIN EXECUTE format($f${statement}$f$, current_database()); END $do$;"
    return dump(
        f"CREATE TABLE public.t (a int);\nCREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';\n{block}"
    )


ATTRIBUTES = [
    "ALTER DATABASE %I IS_TEMPLATE true",
    "ALTER DATABASE %I CONNECTION LIMIT 0",
    "ALTER DATABASE %I SET search_path TO mine",
    "ALTER ROLE ALL IN DATABASE %I SET default_transaction_read_only TO on",
    "COMMENT ON DATABASE %I IS ''mine''".replace("''", "'"),
    "ALTER ROLE CURRENT_USER IN DATABASE %I SET default_transaction_read_only TO on",
    "ALTER ROLE CURRENT_USER SET statement_timeout TO 1",
    "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
]


@variants(("major", "statements"), [(13, ATTRIBUTES[::3]), (17, ATTRIBUTES)], ids=["13", "17"], kept=[(17, ATTRIBUTES)])
async def test_what_a_file_makes_of_its_database_as_a_whole_is_undone(
    make_app: MakeApp, major: int, statements: list[str]
) -> None:
    app = make_app(major)
    app.run(f"ALTER DATABASE {app.database} CONNECTION LIMIT 17", on="postgres")
    before = app.outside()

    for statement in statements:
        record = await app.bring_in(with_block(statement))
        assert app.outside() == before, statement
        await app.recipe.undo(record, app.progress)

    assert app.outside() == before
    assert app.left_over() == []


@variants("statement", ATTRIBUTES, every=4)
async def test_a_file_that_fails_leaves_nothing_that_hinders_the_next_import(app: PostgresApp, statement: str) -> None:
    before = app.outside()
    failing = with_block(statement).replace(
        b"\n--\n-- PostgreSQL database dump c", b"\nSELECT 1/0;\n--\n-- PostgreSQL database dump c"
    )

    with pytest.raises(ServiceError, match=r"division by zero|read-only"):
        await app.stage(failing)

    assert app.outside() == before
    assert app.left_over() == []
    await app.bring_in(with_block("SELECT '%I'"))


async def test_an_apps_database_that_is_a_template_stays_one_and_can_be_dropped_when_it_is_kept(
    app: PostgresApp,
) -> None:
    app.run(f"ALTER DATABASE {app.database} IS_TEMPLATE true", on="postgres")
    before = app.outside()
    try:
        record = await app.bring_in(with_block("SELECT '%I'"))

        assert app.outside() == before
        await app.recipe.discard(record)
        assert app.left_over() == []
    finally:
        app.run(f"ALTER DATABASE {app.database} IS_TEMPLATE false", on="postgres")


@variants(
    ("statement", "what"),
    [
        ("GRANT ALL ON DATABASE %I TO PUBLIC", "the database"),
        ("REVOKE CONNECT ON DATABASE %I FROM PUBLIC", "the database"),
        (
            "GRANT CREATE ON DATABASE %I TO postgres WITH GRANT OPTION; GRANT TEMP ON DATABASE %1$I TO pg_monitor",
            "the database",
        ),
        ("GRANT ALL ON public.t TO PUBLIC", "table public.t"),
        ("GRANT UPDATE (a) ON public.t TO pg_monitor", "table public.t"),
        ("REVOKE ALL ON public.t FROM CURRENT_USER", "table public.t"),
        ("GRANT CREATE ON SCHEMA public TO pg_monitor", "schema public"),
        ("REVOKE EXECUTE ON FUNCTION public.f() FROM PUBLIC", "routine public.f()"),
        ("CREATE TYPE public.e AS ENUM (); REVOKE USAGE ON TYPE public.e FROM PUBLIC", "type public.e"),
        ("CREATE SEQUENCE public.s; GRANT ALL ON public.s TO PUBLIC", "sequence public.s"),
        ("PERFORM lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC", "large object 4711"),
        ("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; CREATE TABLE public.u (a int)", "table public.u"),
    ],
    every=6,
)
async def test_privileges_that_a_file_gives_itself_are_left_out_with_a_warning(
    app: PostgresApp, statement: str, what: str
) -> None:
    before = app.outside()
    blocks = [one.strip() for one in statement.split(";")]
    content = with_block(blocks[0].replace("PERFORM", "SELECT"))
    for one in blocks[1:]:
        block = with_block(one).decode().split("\n")[5]
        content = content.replace(
            b"\n--\n-- PostgreSQL database dump c", f"\n{block}\n--\n-- PostgreSQL database dump c".encode()
        )

    record, preview = await app.stage(content)
    await app.recipe.restore(record, app.progress)

    assert [warning for warning in preview.warnings if what in warning] != []
    assert _unusual(app) == []
    after = app.outside()
    assert after[1:] == before[1:]


def _unusual(app: PostgresApp) -> list[object]:
    """Privileges that new things would not have; written another way than the agent's own query."""
    return app.run(
        """
        SELECT c.relname, x.* FROM pg_class c, aclexplode(c.relacl) x
         WHERE c.oid >= 16384 AND x.grantee <> c.relowner
        UNION ALL SELECT a.attname, x.* FROM pg_attribute a, aclexplode(a.attacl) x WHERE a.attrelid >= 16384
        UNION ALL SELECT proname, x.* FROM pg_proc, aclexplode(proacl) x
         WHERE oid >= 16384 AND x.grantee NOT IN (0, proowner)
        UNION ALL SELECT proname, 0, 0, 'EXECUTE is missing', false FROM pg_proc
         WHERE oid >= 16384 AND NOT has_function_privilege('pg_monitor', oid, 'EXECUTE')
        UNION ALL SELECT typname, 0, 0, 'USAGE is missing', false FROM pg_type
         WHERE oid >= 16384 AND NOT has_type_privilege('pg_monitor', oid, 'USAGE')
        UNION ALL SELECT c.relname, 0, 0, 'the owner may not read', false FROM pg_class c
         WHERE c.oid >= 16384 AND c.relkind = 'r' AND NOT has_table_privilege(c.relowner, c.oid, 'SELECT')
        UNION ALL SELECT lo.oid::text, x.* FROM pg_largeobject_metadata lo, aclexplode(lomacl) x
         WHERE grantee <> lomowner
        UNION ALL SELECT 'public', 0, 0, 'CREATE for a stranger', false
         WHERE has_schema_privilege('pg_monitor', 'public', 'CREATE')
        UNION ALL SELECT 'database', x.* FROM pg_database, aclexplode(datacl) x
         WHERE datname = current_database() AND grantee <> datdba
           AND NOT (grantee = 0 AND privilege_type IN ('CONNECT', 'TEMPORARY') AND NOT is_grantable)
        UNION ALL SELECT 'database', 0, 0, 'CONNECT is missing', false
         WHERE NOT has_database_privilege('pg_monitor', current_database(), 'CONNECT')
        UNION ALL SELECT 'defaults', 0, 0, defaclacl::text, false FROM pg_default_acl
        """
    )


TAKEN_OVER = """
CREATE SCHEMA pgbouncer;
CREATE FUNCTION pgbouncer.get_auth(p text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    AS $$ BEGIN RETURN current_user; END $$;
CREATE VIEW public.monitoring AS SELECT rolname FROM pg_catalog.pg_authid;
CREATE MATERIALIZED VIEW public.summary AS SELECT 1 AS a;
CREATE TABLE public.t (a int);
CREATE TABLE public.mine (a int);
CREATE TYPE public.pair AS (a int, b int);
CREATE SEQUENCE public.numbers;
"""


@variants("major", [14, 17], kept=[17])
async def test_code_of_a_file_never_belongs_to_who_may_do_more_than_the_app(make_app: MakeApp, major: int) -> None:
    app = make_app(major)
    group, strong = f"group_{app.role}", f"strong_{app.role}"
    app.run(f"CREATE ROLE {group}; GRANT {group} TO {app.role}; CREATE ROLE {strong}", on="postgres")
    app.run("CREATE TABLE public.own (a int); CREATE TABLE public.other (a int)", as_app=True)
    app.run(
        TAKEN_OVER
        + f"""
        ALTER TABLE public.t OWNER TO {strong};
        ALTER TABLE public.mine OWNER TO {group};
        GRANT USAGE ON SCHEMA pgbouncer TO {app.role};
        GRANT SELECT ON public.monitoring, public.summary TO {app.role}
        """
    )
    try:
        record, preview = await app.stage(dump(TAKEN_OVER))
        await app.recipe.restore(record, app.progress)

        owners = dict(
            app.run(
                "SELECT relname::text, relowner::regrole::text FROM pg_class"
                " WHERE oid >= 16384 AND relkind IN ('r', 'v', 'm', 'S') AND relnamespace = 'public'::regnamespace"
                " UNION ALL SELECT proname::text, proowner::regrole::text FROM pg_proc WHERE oid >= 16384"
                " UNION ALL SELECT 'type ' || typname, typowner::regrole::text FROM pg_type WHERE typname = 'pair'"
            )
        )
        assert owners == {
            **dict.fromkeys(["get_auth", "monitoring", "summary", "t", "type pair"], app.role),
            "mine": group,
            "numbers": "postgres",
        }
        [of_superuser] = [one for one in preview.warnings if "not to postgres as before" in one]
        for name in ("routine pgbouncer.get_auth(text)", "table public.monitoring", "table public.summary"):
            assert name in of_superuser
        assert any(f"not to {strong} as before" in one and "table public.t" in one for one in preview.warnings)
        assert app.run("SELECT pgbouncer.get_auth('x')", as_app=True) == [(app.role,)]
    finally:
        await app.close()
        app.run(f"DROP ROLE {group}; DROP ROLE {strong}", on="postgres")


async def test_where_a_superuser_owns_all_tables_the_files_belong_to_the_app(app: PostgresApp) -> None:
    app.run(
        f"CREATE TABLE public.t (a int); CREATE TABLE public.u (a int); ALTER DATABASE {app.database} OWNER TO postgres"
    )

    record, preview = await app.stage(dump("CREATE TABLE public.t (a int); CREATE TABLE public.v (a int);"))
    await app.recipe.restore(record, app.progress)

    assert app.run("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'") == [(app.role,)]
    assert any("table public.t" in warning for warning in preview.warnings)


@variants(
    "statement",
    [
        "ALTER TABLE public.t OWNER TO pg_database_owner",
        "ALTER FUNCTION public.f() OWNER TO pg_database_owner",
        "CREATE SCHEMA x AUTHORIZATION pg_database_owner",
        "ALTER DEFAULT PRIVILEGES FOR ROLE pg_database_owner GRANT ALL ON TABLES TO PUBLIC",
    ],
    every=2,
)
async def test_a_file_that_gives_things_to_other_roles_is_refused(app: PostgresApp, statement: str) -> None:
    before = app.outside()

    with pytest.raises(ArchiveRefusedError, match="to pg_database_owner"):
        await app.stage(with_block(statement))

    assert app.outside() == before
    assert app.left_over() == []


@pytest.mark.parametrize(
    "statement",
    ["CREATE SCHEMA mathison_kept_0123456789ab_1", "DO $$ BEGIN CREATE SCHEMA mathison_drop_0123456789ab_1; END $$"],
)
async def test_a_schema_that_would_pass_for_one_with_previous_data_is_refused(app: PostgresApp, statement: str) -> None:
    with pytest.raises(ArchiveRefusedError, match="keeps previous data"):
        await app.stage(dump(f"{statement};"))

    assert app.left_over() == []


@variants("major", [13, 17], kept=[17])
async def test_no_function_of_a_file_runs_while_its_content_is_compared(make_app: MakeApp, major: int) -> None:
    """A cast from a table's row to text is not used, though rows are hashed as text; policies keep the app from it."""
    app = make_app(major)
    trap = """
    CREATE TABLE public.t (a int);
    INSERT INTO public.t VALUES (1);
    CREATE FUNCTION public.trap(public.t) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
    CREATE CAST (public.t AS text) WITH FUNCTION public.trap(public.t) AS IMPLICIT;
    ALTER TABLE public.t ENABLE ROW LEVEL SECURITY;
    ALTER TABLE public.t FORCE ROW LEVEL SECURITY;
    """
    await app.bring_in(dump(trap))

    assert (await app.fingerprint()).tables["public.t"].rows == 1
    assert await app.export()


async def test_statistics_are_gathered_with_the_files_own_rights(app: PostgresApp) -> None:
    trap = """
    CREATE TABLE public.t (a int, b int);
    INSERT INTO public.t SELECT n, n FROM generate_series(1, 100) AS n;
    CREATE TABLE public.seen (name text);
    CREATE FUNCTION public.trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
        IF (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN RAISE EXCEPTION 'a superuser'; END IF;
        RETURN $1; END $$;
    CREATE INDEX ON public.t (public.trap(a));
    CREATE STATISTICS public.s ON public.trap(a), public.trap(b) FROM public.t;
    CREATE DOMAIN public.d AS int CHECK (public.trap(VALUE) > 0);
    CREATE TABLE public.u (a public.d, b int GENERATED ALWAYS AS (public.trap(1)) STORED);
    INSERT INTO public.u (a) VALUES (1);
    CREATE MATERIALIZED VIEW public.m AS SELECT public.trap(a) AS a FROM public.t;
    """
    before = app.outside()

    await app.bring_in(dump(trap))

    assert app.outside() == before
    assert (await app.fingerprint()).tables["public.m"].rows == 100


async def test_what_a_file_of_a_newer_server_tries_is_not_blamed_on_its_version(app: PostgresApp) -> None:
    newer = "-- Dumped from database version 99.1\n-- Dumped by pg_dump version 99.1\n"
    table = "CREATE TABLE public.t (a int);\n"
    trap = (
        "CREATE FUNCTION public.trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN ALTER ROLE CURRENT_USER PASSWORD 'mine'; RETURN 1; END $$;\n"
        "INSERT INTO public.t VALUES (1);\nCREATE INDEX i ON public.t (public.trap(a));\n"
    )

    with pytest.raises(ArchiveRefusedError, match=r"a function of its own .* ALTER ROLE is not allowed"):
        await app.stage(dump(newer + table + trap))
    with pytest.raises(ServiceError, match=r"^PostgreSQL \d+ does not take the dump.* relation .t. already exists"):
        await app.stage(dump(newer + table + table))
    with pytest.raises(ServiceError, match=r"^The dump was made from PostgreSQL 99"):
        await app.stage(dump(newer + table + "ALTER TABLE public.t ADD b int WITH FUTURE;\n"))
