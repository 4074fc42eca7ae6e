"""What publications have of an app's tables, over imports within its database."""

from __future__ import annotations

import re

import pytest

from agent.recipes.base import Recovered
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp

TABLES = (
    'CREATE TABLE public.t (a int PRIMARY KEY, b text); CREATE SCHEMA ub; CREATE TABLE ub."Od d" (a int PRIMARY KEY);'
    " CREATE TABLE public.whole (a int PRIMARY KEY) PARTITION BY RANGE (a);"
    " CREATE TABLE public.part PARTITION OF public.whole DEFAULT; CREATE TABLE public.still (a int)"
)
PUBLICATIONS = (
    'CREATE PUBLICATION "Pub" FOR TABLE public.t, ub."Od d" WITH (publish = \'insert, delete\');'
    " CREATE PUBLICATION of_whole FOR TABLE public.whole WITH (publish_via_partition_root);"
    " CREATE PUBLICATION empty"
)
NARROW = (
    'CREATE PUBLICATION narrow FOR TABLE public.t (a) WHERE (a > 5 AND a <> 7), ub."Od d" WHERE (true),'
    " public.still (a)"
)
"""From PostgreSQL 15 on."""


@pytest.fixture
def modest(make_app: MakeApp) -> PostgresApp:
    """An app whose role owns its database and has no right besides."""
    return make_app(has_admin=False)


def _published(app: PostgresApp) -> list[tuple[object, ...]]:
    """All that publications are, and what they have, by the names of now."""
    parts = "r.prattrs::text, pg_get_expr(r.prqual, r.prrelid)" if app.server.install.major >= 15 else "NULL, NULL"
    found = app.run(
        f"SELECT p.pubname, to_jsonb(p) - 'oid', r.prrelid::regclass::text, {parts}"
        "  FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid ORDER BY 1, 3"
    )
    if app.server.install.major >= 15:
        found += app.run("SELECT pnpubid, pnnspid::regnamespace::text FROM pg_publication_namespace ORDER BY 1, 2")
    return found


@variants("major", [13, 15, 17, 18], kept=[13, 17])
async def test_publications_have_the_tables_of_the_same_names_after_an_import_and_its_undo(
    make_app: MakeApp, major: int
) -> None:
    app = make_app(major, has_admin=False)
    app.run(TABLES, as_app=True)
    app.run(PUBLICATIONS, as_app=True)
    if major >= 15:
        app.run(NARROW, as_app=True)
    before = _published(app)
    archive = await app.export()
    app.run('ALTER PUBLICATION "Pub" DROP TABLE public.t', as_app=True)
    changed = _published(app)
    app.run('ALTER PUBLICATION "Pub" ADD TABLE public.t', as_app=True)

    record, preview = await app.stage(archive)
    told = await app.recipe.restore(record, app.progress)
    imported = _published(app)
    app.run('ALTER PUBLICATION "Pub" DROP TABLE public.t', as_app=True)
    another = await app.bring_in(archive)
    await app.recipe.undo(another, app.progress)
    undone = _published(app)
    await app.recipe.undo(record, app.progress)

    [warning] = [one for one in preview.warnings if "ublication" in one]
    assert "after the import, those that the file has" in warning
    assert 'public.t (in "Pub"), ub."Od d" (in "Pub")' in warning
    assert not told
    assert imported == before
    assert undone == changed
    assert _published(app) == before
    assert app.left_over() == []


async def test_publications_are_whole_once_an_import_is_confirmed(modest: PostgresApp) -> None:
    modest.run(TABLES, as_app=True)
    modest.run(PUBLICATIONS, as_app=True)
    before = _published(modest)

    record = await modest.bring_in(await modest.export())
    await modest.recipe.discard(record)

    assert _published(modest) == before
    assert await modest.recipe.recover(record) is Recovered.PREVIOUS


async def test_what_cannot_be_published_any_more_is_named_and_an_undo_publishes_it_again(modest: PostgresApp) -> None:
    modest.run("CREATE TABLE public.t (a int PRIMARY KEY, b int)", as_app=True)
    archive = await modest.export()
    modest.run(
        "CREATE TABLE public.added (a int); ALTER TABLE public.t ADD c int, ALTER b TYPE text;"
        " CREATE PUBLICATION pub FOR TABLE public.t, public.added;"
        " CREATE PUBLICATION columns FOR TABLE public.t (a, c);"
        " CREATE PUBLICATION rows FOR TABLE public.t WHERE (b = 'x')",
        as_app=True,
    )
    before = _published(modest)

    record, preview = await modest.stage(archive)
    told = await modest.recipe.restore(record, modest.progress)
    after = _published(modest)
    await modest.recipe.undo(record, modest.progress)

    assert "Published now, and not in the file: public.added (in pub)." in preview.warnings
    assert told == (
        "Published no more, since the file does not have it as it was: public.t (in columns), public.added (in pub),"
        " public.t (in rows)."
    )
    assert [(name, table) for name, _, table, *_ in after] == [("columns", None), ("pub", "t"), ("rows", None)]
    assert _published(modest) == before


async def test_publications_of_others_are_named_with_what_a_superuser_runs(modest: PostgresApp) -> None:
    modest.run(TABLES, as_app=True)
    modest.run(
        "CREATE PUBLICATION theirs FOR TABLE public.t WHERE (a > 5), TABLES IN SCHEMA ub, TABLES IN SCHEMA public;"
        " CREATE PUBLICATION everything FOR ALL TABLES"
    )
    before = _published(modest)

    record, preview = await modest.stage(await modest.export())
    told = await modest.recipe.restore(record, modest.progress)
    [warning] = [one for one in preview.warnings if "Publications" in one]
    for statement in re.findall(r"ALTER PUBLICATION [^;]+;", told or ""):
        modest.run(statement)
    repaired = modest.run(
        "SELECT pubname, schemaname, tablename FROM pg_publication_tables WHERE schemaname !~ '^math'"
    )
    await modest.recipe.undo(record, modest.progress)

    statements = (
        "ALTER PUBLICATION theirs ADD TABLES IN SCHEMA ub;, "
        "ALTER PUBLICATION theirs ADD TABLE ONLY public.t WHERE ((a > 5));"
    )
    assert "may not alter go on with the previous data" in warning
    assert warning.endswith(statements)
    assert told is not None
    assert told.endswith(statements)
    assert {("theirs", "public", "t"), ("theirs", "ub", "Od d")} <= set(repaired)
    assert _published(modest) == before
