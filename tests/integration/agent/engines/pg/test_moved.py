"""Settings that name another database than when a file was staged: what is in that one stays what it is."""

from __future__ import annotations

import pytest

from agent.recipes.postgresql import PostgresqlRecipe
from agent.versions import UnknownVersionError
from common.errors import AppUnavailableError
from tests.fakes.imports import MemoryRecord
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp

NAMES = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1"


async def _moved(make_app: MakeApp, *, has_admin: bool, is_restored: bool) -> tuple[PostgresApp, MemoryRecord, str]:
    """An app with an import, and another database of its role."""
    other = make_app()
    app = make_app(has_admin=has_admin)
    other.run(f"ALTER DATABASE {other.database} OWNER TO {app.role}")
    other.run("CREATE TABLE t AS SELECT 'live' AS a; ALTER TABLE t OWNER TO " + app.role)
    app.run("CREATE TABLE t AS SELECT 'imported' AS a", as_app=True)
    archive = await app.export()
    app.run("UPDATE t SET a = 'previous'", as_app=True)
    record, _ = await app.stage(archive)
    if is_restored:
        await app.recipe.restore(record, app.progress)
    return app, record, other.database


@variants("has_admin", [True, False], ids=["beside", "within"], kept=[False])
@variants("is_restored", [True, False], ids=["kept", "staged"])
async def test_an_app_that_moved_to_another_database_takes_nothing_that_was_staged_before(
    make_app: MakeApp, has_admin: bool, is_restored: bool
) -> None:
    app, record, other = await _moved(make_app, has_admin=has_admin, is_restored=is_restored)
    moved, names = app.new_recipe(database=other), app.run(NAMES)

    for step in (_restore_or_undo(app, moved, record, is_restored), moved.recover(record), moved.discard(record)):
        with pytest.raises(AppUnavailableError, match=f"database {other} on .* now; .* {app.database} on") as refused:
            await step
        assert "settings back as they were" in refused.value.next_step

    assert app.run(NAMES) == names
    assert app.run("SELECT a FROM t", on=other) == [("live",)]
    assert app.run("SELECT a FROM t") == [("imported" if is_restored else "previous",)]
    await (app.recipe.undo(record, app.progress) if is_restored else app.recipe.restore(record, app.progress))
    assert app.run("SELECT a FROM t") == [("previous" if is_restored else "imported",)]
    await app.recipe.discard(record)
    assert app.left_over() == []


@variants("is_restored", [True, False], ids=["kept", "staged"])
async def test_of_an_older_agents_import_the_databases_themselves_say_whose_they_are(
    make_app: MakeApp, is_restored: bool
) -> None:
    app, record, other = await _moved(make_app, has_admin=True, is_restored=is_restored)
    moved, names = app.new_recipe(database=other), app.run(NAMES)
    record.facts.pop("place", None)

    with pytest.raises(AppUnavailableError, match=f"in database {other} now; .* it was database {app.database}"):
        await _restore_or_undo(app, moved, record, is_restored)

    assert app.run(NAMES) == names
    assert app.run("SELECT a FROM t", on=other) == [("live",)]
    await (app.recipe.undo(record, app.progress) if is_restored else app.recipe.restore(record, app.progress))
    assert app.run("SELECT a FROM t") == [("previous" if is_restored else "imported",)]


async def test_an_import_that_went_another_way_than_is_known_is_left_to_the_agent_that_noted_it(
    make_app: MakeApp,
) -> None:
    app, record, _ = await _moved(make_app, has_admin=False, is_restored=True)
    way = record.facts["way"]
    record.save(way="sideways")

    for step in (app.recipe.undo(record, app.progress), app.recipe.recover(record), app.recipe.discard(record)):
        with pytest.raises(UnknownVersionError, match="does not read: 'sideways' is not a valid"):
            await step

    assert app.run("SELECT a FROM t") == [("imported",)]
    record.save(way=way)
    await app.recipe.undo(record, app.progress)
    assert app.run("SELECT a FROM t") == [("previous",)]


async def _restore_or_undo(app: PostgresApp, recipe: PostgresqlRecipe, record: MemoryRecord, is_restored: bool) -> None:
    await (recipe.undo(record, app.progress) if is_restored else recipe.restore(record, app.progress))
