"""Materialized views over tables whose policies apply to their owner too come back with all their rows."""

from __future__ import annotations

import pytest

from common.errors import ServiceError
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp
from tests.integration.agent.engines.pg.test_hostile_files import dump

TABLES = """
    CREATE TABLE public.visits (n int PRIMARY KEY, tenant int);
    INSERT INTO public.visits SELECT n, n % 3 FROM generate_series(1, 90) AS n;
    CREATE SCHEMA "Own";
    CREATE TABLE "Own"."Sales 'n" (n int REFERENCES public.visits, tenant int);
    INSERT INTO "Own"."Sales 'n" SELECT n, n % 3 FROM generate_series(1, 30) AS n;
    CREATE TABLE public.lenient (n int);
    INSERT INTO public.lenient VALUES (1);
    CREATE VIEW public.both_kinds AS SELECT n, tenant FROM public.visits UNION ALL SELECT * FROM "Own"."Sales 'n";
    CREATE MATERIALIZED VIEW public.by_tenant AS SELECT tenant, count(*) FROM public.both_kinds GROUP BY 1;
    CREATE UNIQUE INDEX ON public.by_tenant (tenant);
    CREATE MATERIALIZED VIEW public.a_total AS SELECT sum(count) FROM public.by_tenant, public.lenient;
    CREATE MATERIALIZED VIEW public.never_filled AS SELECT n FROM public.visits WITH NO DATA;
"""
POLICIES = """
    CREATE POLICY one_tenant ON public.visits USING (tenant = 1);
    CREATE POLICY one_tenant ON "Own"."Sales 'n" USING (tenant = current_setting('app.tenant')::int);
    CREATE POLICY none ON public.lenient USING (false);
    ALTER TABLE public.visits ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    ALTER TABLE "Own"."Sales 'n" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    ALTER TABLE public.lenient ENABLE ROW LEVEL SECURITY;
"""
SECURITY = (
    "SELECT oid::regclass::text, relrowsecurity, relforcerowsecurity FROM pg_class"
    " WHERE relrowsecurity OR relforcerowsecurity ORDER BY 1"
)
AS_IT_WAS = [('"Own"."Sales \'n"', True, True), ("lenient", True, False), ("visits", True, True)]


def filled(app: PostgresApp) -> PostgresApp:
    """As an app has it that filled its views before it forced policies on itself."""
    app.run(TABLES + POLICIES, as_app=True)
    return app


@variants(("major", "form"), [(13, "custom"), (15, "sql.gz"), (18, "sql")], kept=[(18, "sql")])
async def test_an_import_and_its_undo_bring_back_filled_views(make_app: MakeApp, major: int, form: str) -> None:
    app = filled(make_app(major))
    exported = await app.fingerprint()
    archive = await app.export(form)
    app.run("DROP MATERIALIZED VIEW public.by_tenant CASCADE; ALTER TABLE public.visits DISABLE ROW LEVEL SECURITY")
    changed = await app.fingerprint()

    record, preview = await app.stage(archive)
    await app.recipe.restore(record, app.progress)

    assert preview.warnings == ()
    assert exported.differences(await app.fingerprint()) == []
    assert (exported.tables["public.by_tenant"].rows, "public.never_filled" in exported.tables) == (3, False)
    assert app.run(SECURITY) == AS_IT_WAS
    await app.recipe.undo(record, app.progress)
    assert changed.differences(await app.fingerprint()) == []
    assert app.left_over() == []


@variants(
    ("major", "options"),
    [(13, []), (15, ["--format=custom"]), (18, ["--enable-row-security", "--clean"]), (17, ["--inserts"])],
    every=2,
)
async def test_a_dump_of_pg_dump_itself_fills_them_too(make_app: MakeApp, major: int, options: list[str]) -> None:
    app = filled(make_app(major))
    dumped = await app.fingerprint()
    content = app.dump(*options)

    await app.bring_in(content)

    assert dumped.differences(await app.fingerprint()) == []
    assert app.run(SECURITY) == AS_IT_WAS


NESTED = """
    CREATE TABLE public.days (day int, n int) PARTITION BY RANGE (day);
    CREATE TABLE public.d1 PARTITION OF public.days FOR VALUES FROM (0) TO (10);
    CREATE TABLE public.d2 PARTITION OF public.days FOR VALUES FROM (10) TO (20) PARTITION BY LIST (n);
    CREATE TABLE public.d2a PARTITION OF public.d2 FOR VALUES IN (1);
    CREATE TABLE public.parent (a int);
    CREATE TABLE public.child (b int) INHERITS (public.parent);
    INSERT INTO public.days VALUES (1, 1), (11, 1);
    INSERT INTO public.parent VALUES (1);
    INSERT INTO public.child VALUES (2, 3);
    CREATE FUNCTION public.allowed(int) RETURNS bool LANGUAGE plpgsql
        AS 'BEGIN RETURN current_setting(''app.x'')::int = $1; END';
    CREATE VIEW public.v1 WITH (security_invoker) AS SELECT day FROM public.days;
    CREATE VIEW public.v2 AS SELECT * FROM public.v1 UNION ALL SELECT a FROM public.parent UNION ALL
        SELECT a FROM public.child UNION ALL SELECT day FROM public.d2a;
    CREATE MATERIALIZED VIEW public.m1 AS SELECT * FROM public.v2;
    CREATE MATERIALIZED VIEW public.a_m2 AS SELECT count(*) FROM public.m1;
    CREATE MATERIALIZED VIEW public.m3 AS SELECT * FROM public.a_m2, public.d1;
    CREATE FUNCTION public.reads() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM public.parent';
    CREATE MATERIALIZED VIEW public.m4 AS SELECT public.reads() AS n;
    CREATE POLICY p ON public.days USING (public.allowed(day));
    CREATE POLICY p ON public.d1 USING (false);
    CREATE POLICY p ON public.parent USING (public.allowed(a));
    CREATE POLICY p ON public.d2a USING (false);
    ALTER TABLE public.days ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    ALTER TABLE public.d1 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    ALTER TABLE public.parent ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    ALTER TABLE public.d2a ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    ALTER TABLE public.child FORCE ROW LEVEL SECURITY;
"""


@variants("rights", ["CREATEDB CREATEROLE", ""], ids=["beside", "within"], kept=[""])
async def test_views_on_views_on_partitions_and_heirs_come_back_full(make_app: MakeApp, rights: str) -> None:
    source = make_app()
    source.run(NESTED, as_app=True)
    app = make_app(rights=rights, has_admin=False)

    await app.bring_in(source.dump("--enable-row-security"))

    assert (await source.fingerprint()).differences(await app.fingerprint()) == []
    assert app.run(SECURITY) == source.run(SECURITY)


async def test_a_view_that_shows_more_than_its_owner_may_see_is_named(app: PostgresApp) -> None:
    filled(app)
    by_people = app.dump()
    app.run(
        "CREATE MATERIALIZED VIEW public.one AS SELECT n FROM public.visits;"
        "CREATE MATERIALIZED VIEW public.free AS SELECT n FROM public.lenient",
        as_app=True,
    )
    assert app.run("SELECT count(*) FROM public.one") == [(30,)]
    own = await app.export()

    by_people_record, of_people = await app.stage(by_people)
    await app.recipe.discard(by_people_record)
    await app.bring_in(own)
    _, of_own = await app.stage(own)

    hidden = "also those that row security hides from the views' owner: "
    assert [hidden + "public.a_total, public.by_tenant." in one for one in of_people.warnings].count(True) == 1
    assert len([one for one in of_own.warnings if "materialized views" in one]) == 2
    assert [one for one in of_own.warnings if one.endswith("anew, from all rows of their tables: public.one.")] != []
    assert [one for one in of_own.warnings if hidden + "public.one." in one] != []
    assert app.run("SELECT count(*) FROM public.one") == [(90,)]


async def test_tables_that_hid_rows_from_the_app_and_now_belong_to_it_are_named(app: PostgresApp) -> None:
    filled(app)
    app.run("CREATE TABLE public.secret (n int); ALTER TABLE public.secret ENABLE ROW LEVEL SECURITY")
    app.run("GRANT SELECT ON public.secret TO PUBLIC; INSERT INTO public.secret VALUES (1)")
    app.run("ALTER TABLE public.visits OWNER TO postgres; CREATE TABLE public.open_to_all ()")
    archive = await app.export()

    _, preview = await app.stage(archive)

    [warning] = [one for one in preview.warnings if one.startswith("Row security hides no rows")]
    assert warning.endswith("FORCE ROW LEVEL SECURITY: public.secret.")
    assert app.role in warning


@variants("rights", ["CREATEDB CREATEROLE", "CREATEDB", ""], kept=[""])
async def test_an_agent_without_a_superuser_fills_them_too(make_app: MakeApp, rights: str) -> None:
    source = filled(make_app())
    dumped = await source.fingerprint()
    app = make_app(rights=rights, has_admin=False)
    before = app.outside()

    record = await app.bring_in(await source.export())

    assert dumped.differences(await app.fingerprint()) == []
    assert app.run(SECURITY) == AS_IT_WAS
    assert app.outside() == before
    await app.recipe.undo(record, app.progress)
    assert app.run(SECURITY) == []
    assert app.left_over() == []


async def test_a_file_gets_no_role_that_policies_do_not_apply_to(app: PostgresApp) -> None:
    """What fills a view is code of the file."""
    rights = "SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"

    await app.bring_in(
        dump(
            f"{TABLES}{POLICIES} CREATE MATERIALIZED VIEW public.rights AS {rights} WITH NO DATA;\n"
            "REFRESH MATERIALIZED VIEW public.rights;"
        )
    )

    assert app.run("SELECT * FROM public.rights") == [(False, False)]


async def test_code_that_hides_a_table_while_a_view_is_filled_ends_the_import(app: PostgresApp) -> None:
    hides = """
    CREATE FUNCTION public.hide() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN ALTER TABLE public.visits RENAME TO hidden; RETURN 1; END $$;
    CREATE MATERIALIZED VIEW public.m AS SELECT public.hide() WITH NO DATA;
    REFRESH MATERIALIZED VIEW public.m;
    """
    before = app.outside()

    with pytest.raises(ServiceError, match="does not exist"):
        await app.stage(dump(TABLES + POLICIES + hides))

    assert app.outside() == before
    assert app.left_over() == []
