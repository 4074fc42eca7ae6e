"""Owners and rights of what an import brings, where somebody made them other than they come about by themselves."""

from __future__ import annotations

import psycopg
import pytest

from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.conftest import MakeApp

SCHEMA_PUBLIC = """
    SELECT nspowner::regrole::text, ARRAY(SELECT format('%s %s', nullif(grantee, 0)::regrole, privilege_type)
                                            FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner))) ORDER BY 1)
      FROM pg_namespace WHERE nspname = 'public'
"""


@variants("major", [14, 17], kept=[17])
@pytest.mark.parametrize("has_admin", [True, False], ids=["superuser", "createdb"])
async def test_a_schema_public_that_the_app_made_again_has_its_owner_and_no_grants(
    make_app: MakeApp, major: int, has_admin: bool
) -> None:
    app = make_app(major, has_admin=has_admin, rights="CREATEDB")
    app.run("DROP SCHEMA public; CREATE SCHEMA public; CREATE TABLE public.t (a int)", as_app=True)
    if has_admin:
        app.run(
            f"ALTER DATABASE {app.database} OWNER TO postgres; GRANT CREATE ON DATABASE {app.database} TO {app.role}"
        )
    before = app.run(SCHEMA_PUBLIC)
    archive = await app.export()

    record, preview = await app.stage(archive)
    await app.recipe.restore(record, app.progress)

    assert before == [(app.role, [f"{app.role} CREATE", f"{app.role} USAGE"])]
    if major < 15 and not has_admin:
        assert [one for one in preview.warnings if "Schema public has not the owner and grants" in one]
    else:
        assert (app.run(SCHEMA_PUBLIC), preview.warnings) == (before, ())
        app.run("CREATE TABLE public.more (a int)", as_app=True)


OF_OWNERS = """
    REVOKE ALL ON audit, shut.audit FROM {role}; GRANT INSERT, SELECT ON audit, shut.audit TO {role};
    REVOKE INSERT, UPDATE ON narrow FROM {role}; GRANT INSERT (a), UPDATE (b) ON narrow TO {role};
    REVOKE USAGE ON SEQUENCE narrow_c_seq, counter FROM {role};
    REVOKE EXECUTE ON FUNCTION fee() FROM {role};
    REVOKE USAGE ON TYPE mood FROM {role};
    REVOKE UPDATE ON LARGE OBJECT 900001 FROM {role};
    ALTER DEFAULT PRIVILEGES REVOKE DELETE ON TABLES FROM {role};
    REVOKE CREATE ON SCHEMA shut FROM {role};
    REVOKE CREATE ON SCHEMA public FROM pg_database_owner;
    REVOKE TEMPORARY ON DATABASE {database} FROM {role}
"""
ALL_RIGHTS = """
    SELECT one.what, ARRAY(SELECT format('%s %s', nullif(grantee, 0)::regrole, privilege_type)
                             FROM aclexplode(coalesce(one.acl, acldefault(one.kind, one.owner))) ORDER BY 1)
      FROM (SELECT oid::regclass::text AS what, relacl AS acl,
                   CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" AS kind, relowner AS owner
              FROM pg_class WHERE relkind IN ('r', 'S') AND oid >= 16384
            UNION ALL SELECT attrelid::regclass || '.' || attname, attacl, 'c', 0
              FROM pg_attribute WHERE attrelid >= 16384 AND attacl IS NOT NULL
            UNION ALL SELECT oid::regprocedure::text, proacl, 'f', proowner FROM pg_proc WHERE oid >= 16384
            UNION ALL SELECT oid::regtype::text, typacl, 'T', typowner FROM pg_type WHERE typname = 'mood'
            UNION ALL SELECT oid::text, lomacl, 'L', lomowner FROM pg_largeobject_metadata
            UNION ALL SELECT 'default ' || defaclobjtype::text, defaclacl, 'r', 0 FROM pg_default_acl
            UNION ALL SELECT nspname, nspacl, 'n', nspowner FROM pg_namespace WHERE nspname IN ('public', 'shut')
            UNION ALL SELECT 'database', datacl, 'd', datdba FROM pg_database WHERE datname = current_database()
           ) AS one ORDER BY 1
"""


@variants("major", [14, 17], kept=[17])
@pytest.mark.parametrize(
    ("has_admin", "rights"), [(True, ""), (False, "CREATEDB"), (False, "")], ids=["superuser", "createdb", "within"]
)
async def test_what_an_owner_took_from_itself_it_has_not_after_an_import_either(
    make_app: MakeApp, major: int, has_admin: bool, rights: str
) -> None:
    app = make_app(major, has_admin=has_admin, rights=rights)
    within = not has_admin and not rights
    app.run(
        "CREATE TABLE audit AS SELECT 1 AS a; CREATE TABLE narrow (a int, b int, c serial); CREATE SEQUENCE counter;"
        " CREATE FUNCTION fee() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE mood AS ENUM ('sad');"
        " CREATE SCHEMA shut; CREATE TABLE shut.audit (a int)" + ("" if within else "; SELECT lo_create(900001)"),
        as_app=True,
    )
    archive = app.dump("--no-owner", "--no-privileges")
    left_out = ["LARGE OBJECT"] * within + ["SCHEMA public"] * (within or major < 15)
    for statement in OF_OWNERS.format(role=app.role, database=app.database).split(";"):
        if not any(words in statement for words in left_out):
            app.run(statement, as_app=True)
    before = app.run(ALL_RIGHTS)

    record, preview = await app.stage(archive)
    await app.recipe.restore(record, app.progress)

    assert [one for one in preview.warnings if "carried over" in one] == []
    imported = [
        one for one in app.run(ALL_RIGHTS) if "mathison_kept" not in one[0] and (major > 14 or one[0] != "public")
    ]
    assert [one for one in imported if one not in before] == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.run("DELETE FROM audit", as_app=True)
    await app.recipe.undo(record, app.progress)
    assert app.run(ALL_RIGHTS) == before


OWNERS = """
    SELECT oid::regclass::text, relowner::regrole::text FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'v', 'S')
    UNION ALL SELECT oid::regprocedure::text, proowner::regrole::text FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT oid::regtype::text, typowner::regrole::text FROM pg_type WHERE typname IN ('mood', 'other')
    UNION ALL SELECT n.oid::regnamespace::text, nspowner::regrole::text FROM pg_namespace n WHERE nspname = 'We"i.rd'
"""
OF_A_GROUP = """
    CREATE SCHEMA "We""i.rd"; CREATE TABLE public.own (a int); CREATE TABLE "We""i.rd".own (a int);
    CREATE TABLE public."t""." (a serial); CREATE TABLE "We""i.rd".t (a int); CREATE VIEW public.v AS SELECT 1 AS a;
    CREATE FUNCTION public.fee(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE public.mood AS ENUM ('sad');
    CREATE TYPE "We""i.rd".other AS ENUM ('sad')
"""
TO_A_GROUP = """
    ALTER TABLE public."t""." OWNER TO {group}; ALTER TABLE "We""i.rd".t OWNER TO {group};
    ALTER VIEW public.v OWNER TO {group}; ALTER FUNCTION public.fee(int) OWNER TO {group};
    ALTER TYPE public.mood OWNER TO {group}; ALTER TYPE "We""i.rd".other OWNER TO {group}
"""


@variants("major", [14, 17], kept=[17])
@pytest.mark.parametrize("rights", ["", "CREATEDB CREATEROLE"], ids=["within", "beside"])
async def test_what_belongs_to_a_group_that_may_make_nothing_there_belongs_to_it_afterwards(
    make_app: MakeApp, major: int, rights: str
) -> None:
    app = make_app(major, has_admin=False, rights=rights)
    group = f"group_{app.role}"
    app.run(f"CREATE ROLE {group}; GRANT {group} TO {app.role}", on="postgres")
    try:
        app.run(f"{OF_A_GROUP}; REVOKE CREATE ON SCHEMA public FROM PUBLIC", as_app=True)
        app.run(TO_A_GROUP.format(group=group))
        grants, owners = app.run(SCHEMA_PUBLIC), sorted(app.run(OWNERS))
        archive = await app.export()

        record, preview = await app.stage(archive)
        await app.recipe.restore(record, app.progress)

        assert [one for one in preview.warnings if group in one] == []
        assert sorted(one for one in app.run(OWNERS) if "mathison_kept" not in one[0]) == owners
        assert app.run(SCHEMA_PUBLIC) == grants or (major < 15 and rights)
        assert app.run("SELECT has_schema_privilege(%s, %s, 'CREATE')", values=[group, 'We"i.rd']) == [(False,)]
    finally:
        await app.close()
        app.run(f"DROP ROLE {group}", on="postgres")


OWNERS_ALONE = """
    SELECT 'collation', collname, collnamespace::regnamespace::text, collowner::regrole::text FROM pg_collation
     WHERE oid >= 16384
    UNION ALL SELECT 'conversion', conname, connamespace::regnamespace::text, conowner::regrole::text
      FROM pg_conversion WHERE oid >= 16384
    UNION ALL SELECT 'operator', oprname, oprnamespace::regnamespace::text, oprowner::regrole::text
      FROM pg_operator WHERE oid >= 16384
    UNION ALL SELECT 'dictionary', dictname, dictnamespace::regnamespace::text, dictowner::regrole::text
      FROM pg_ts_dict WHERE oid >= 16384
    UNION ALL SELECT 'configuration', cfgname, cfgnamespace::regnamespace::text, cfgowner::regrole::text
      FROM pg_ts_config WHERE oid >= 16384
    UNION ALL SELECT 'statistics', stxname, stxnamespace::regnamespace::text, stxowner::regrole::text
      FROM pg_statistic_ext
    UNION ALL SELECT 'publication', pubname, '', pubowner::regrole::text FROM pg_publication
     ORDER BY 1, 2, 3
"""
MADE_ALONE = """
    CREATE COLLATION {schema}."c %s" (locale = 'C');
    CREATE CONVERSION {schema}."v;" FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;
    CREATE OPERATOR {schema}.=== (leftarg = public.mood, rightarg = int, function = public.fee);
    CREATE TEXT SEARCH DICTIONARY {schema}."d." (template = simple);
    CREATE TEXT SEARCH CONFIGURATION {schema}.t (copy = english);
    CREATE STATISTICS {schema}.s ON a, b FROM public.own
"""
GIVEN_ALONE = """
    ALTER COLLATION {schema}."c %s" OWNER TO {group}; ALTER CONVERSION {schema}."v;" OWNER TO {group};
    ALTER OPERATOR {schema}.=== (public.mood, int) OWNER TO {group};
    ALTER TEXT SEARCH DICTIONARY {schema}."d." OWNER TO {group};
    ALTER TEXT SEARCH CONFIGURATION {schema}.t OWNER TO {group};
    ALTER STATISTICS {schema}.s OWNER TO {group}
"""


@variants("major", [13, 18], kept=[18])
@pytest.mark.parametrize(
    ("has_admin", "rights"),
    [(True, ""), (False, "CREATEDB CREATEROLE"), (False, "")],
    ids=["superuser", "createrole", "within"],
)
async def test_what_has_an_owner_and_no_privileges_has_the_same_owner_afterwards(
    make_app: MakeApp, major: int, has_admin: bool, rights: str
) -> None:
    app = make_app(major, has_admin=has_admin, rights=rights)
    group = f"group_{app.role}"
    app.run(f"CREATE ROLE {group}; GRANT {group} TO {app.role}", on="postgres")
    try:
        app.run(
            'CREATE SCHEMA "We""i.rd"; CREATE TABLE public.own (a int, b int);'
            " CREATE TYPE public.mood AS ENUM ('sad'); CREATE FUNCTION public.fee(public.mood, int) RETURNS bool"
            " LANGUAGE sql AS 'SELECT true'",
            as_app=True,
        )
        for schema in ("public", '"We""i.rd"'):
            app.run(MADE_ALONE.replace("{schema}", schema), as_app=True)
        app.run(f"GRANT CREATE ON DATABASE {app.database} TO {app.role}, {group}")
        app.run('CREATE PUBLICATION "p.q" FOR TABLE public.own')
        app.run(f'ALTER PUBLICATION "p.q" OWNER TO {app.role}')
        archive = await app.export()
        app.run(GIVEN_ALONE.replace("{schema}", '"We""i.rd"').replace("{group}", group))
        app.run(f'ALTER PUBLICATION "p.q" OWNER TO {group}')
        before = app.run(OWNERS_ALONE)

        record, preview = await app.stage(archive)
        await app.recipe.restore(record, app.progress)

        assert [one for one in preview.warnings if group in one] == []
        imported = [one for one in app.run(OWNERS_ALONE) if "mathison_kept" not in one[2]]
        assert imported == before
        assert {owner for *_, owner in before} == {app.role, group}
        await app.recipe.undo(record, app.progress)
        assert app.run(OWNERS_ALONE) == before
    finally:
        await app.close()
        app.run(f"DROP ROLE {group}", on="postgres")


@pytest.mark.parametrize("has_admin", [True, False], ids=["superuser", "within"])
async def test_grants_that_a_holder_of_a_grant_option_made_are_the_owners_with_a_warning(
    make_app: MakeApp, has_admin: bool
) -> None:
    app = make_app(has_admin=has_admin)
    holder = f"holder_{app.role}"
    app.run(f"CREATE ROLE {holder}", on="postgres")
    try:
        app.run("CREATE TABLE public.t (a int, b int); CREATE FUNCTION fee() RETURNS int RETURN 1", as_app=True)
        app.run(
            f"GRANT SELECT, UPDATE (b) ON t TO {holder} WITH GRANT OPTION; SET ROLE {holder};"
            " GRANT SELECT ON t TO PUBLIC; GRANT UPDATE (b) ON t TO pg_monitor"
        )
        archive = await app.export()

        record, preview = await app.stage(archive)
        await app.recipe.restore(record, app.progress)

        [warning] = [one for one in preview.warnings if "made by others" in one]
        assert warning.endswith(
            f"they are the owner's: SELECT on table public.t for PUBLIC by {holder}, UPDATE on column public.t.b for "
            f"pg_monitor by {holder}."
        )
        assert app.run("SELECT has_table_privilege('pg_monitor', 'public.t', 'SELECT')") == [(True,)]
    finally:
        await app.close()
        app.run(f"DROP ROLE {holder}", on="postgres")


async def test_what_cannot_be_given_back_to_a_group_within_the_database_is_a_warning(make_app: MakeApp) -> None:
    app = make_app(has_admin=False)
    group = f"group_{app.role}"
    app.run(f"CREATE ROLE {group}; GRANT {group} TO {app.role}", on="postgres")
    try:
        app.run("CREATE TABLE public.own (a int); CREATE TABLE public.t (a int)", as_app=True)
        app.run(f"ALTER TABLE t OWNER TO {group}; ALTER SCHEMA public OWNER TO postgres")
        app.run(f"GRANT CREATE ON SCHEMA public TO {app.role}")
        archive = await app.export()

        record, preview = await app.stage(archive)
        await app.recipe.restore(record, app.progress)

        [warning] = [one for one in preview.warnings if group in one]
        assert f"will belong to {app.role}, not to {group} as before" in warning
        assert "table public.t." in warning
    finally:
        await app.close()
        app.run(f"DROP ROLE {group}", on="postgres")
