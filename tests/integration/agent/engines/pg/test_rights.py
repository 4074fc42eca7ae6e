"""What an app's role may do decides how an import goes, and an obstacle says what is missing."""

from __future__ import annotations

import pytest

from agent.recipes.base import Description
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.engines.pg.conftest import MakeApp


async def _bring_in_and_undo(app: PostgresApp) -> None:
    app.fill()
    exported = await app.fingerprint()
    archive = await app.export()
    app.run("CREATE TABLE public.added AS SELECT 1 AS a", as_app=True)
    changed = await app.fingerprint()

    record = await app.bring_in(archive)
    imported = await app.fingerprint()
    app.run("INSERT INTO shop.cache VALUES ('since', ''); ALTER TABLE shop.cache ADD more int", as_app=True)
    await app.recipe.undo(record, app.progress)

    assert exported.differences(imported) == []
    assert changed.differences(await app.fingerprint()) == []
    assert app.left_over() == []


@pytest.mark.parametrize("major", [13, 15, 16, 17, 18])
async def test_an_owner_who_may_make_databases_and_roles_needs_no_admin(make_app: MakeApp, major: int) -> None:
    await _bring_in_and_undo(make_app(major, rights="CREATEDB CREATEROLE", has_admin=False))


@pytest.mark.parametrize("major", [14, 17])
async def test_a_superuser_needs_no_admin(make_app: MakeApp, major: int) -> None:
    await _bring_in_and_undo(make_app(major, rights="SUPERUSER", has_admin=False))


async def test_a_superuser_is_warned_of_what_an_import_may_bring(make_app: MakeApp) -> None:
    description = await make_app(rights="SUPERUSER", has_admin=False).recipe.describe()

    assert any("is a superuser" in warning for warning in description.warnings)


async def _describe_as(make_app: MakeApp, rights: str) -> Description:
    return await make_app(rights=rights, has_admin=False).recipe.describe()


async def test_the_description_has_what_a_person_wants_to_know(app: PostgresApp) -> None:
    app.fill()

    description = await app.recipe.describe()

    assert description.engine_version == app.server.install.version
    assert description.can_export.is_possible
    assert description.can_import.is_possible
    assert description.details["database"] == app.database
    assert description.estimated_bytes > 100_000
    assert description.warnings == ()


async def test_other_databases_with_tables_are_named_and_empty_ones_are_not(make_app: MakeApp) -> None:
    app, other, empty = make_app(), make_app(), make_app()
    other.run("CREATE TABLE t (a int)", as_app=True)

    [warning] = (await app.recipe.describe()).warnings

    assert other.database in warning
    assert empty.database not in warning
