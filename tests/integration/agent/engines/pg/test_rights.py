"""What an app's role may do decides how an import goes, and an obstacle says what is missing."""

from __future__ import annotations

import pytest

from common.errors import AppUnavailableError, ArchiveRefusedError
from tests.fakes.imports import MemoryRecord, upload_of
from tests.integration.agent.engines.pg.apps import PostgresApp, unsealed
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


@pytest.mark.parametrize("major", [13, 15, 16, 18])
async def test_an_owner_who_may_make_databases_and_roles_needs_no_admin(make_app: MakeApp, major: int) -> None:
    await _bring_in_and_undo(make_app(major, rights="CREATEDB CREATEROLE", has_admin=False))


@pytest.mark.parametrize("major", [14])
async def test_a_superuser_needs_no_admin(make_app: MakeApp, major: int) -> None:
    await _bring_in_and_undo(make_app(major, rights="SUPERUSER", has_admin=False))


async def test_a_superuser_is_warned_of_what_an_import_may_bring(make_app: MakeApp) -> None:
    description = await make_app(rights="SUPERUSER", has_admin=False).recipe.describe()

    assert any("is a superuser" in warning for warning in description.warnings)


async def test_the_description_has_what_a_person_wants_to_know(app: PostgresApp) -> None:
    app.fill()

    description = await app.recipe.describe()

    assert description.engine_version == app.server.install.version
    assert description.can_export.is_possible
    assert description.can_import.is_possible
    assert description.details["database"] == app.database
    assert description.estimated_bytes > 100_000
    # Other tests have their databases on the same server.
    assert [warning for warning in description.warnings if "other databases" not in warning] == []


async def test_other_databases_with_tables_are_named_and_empty_ones_are_not(make_app: MakeApp) -> None:
    app, other, empty = make_app(), make_app(), make_app()
    other.run("CREATE TABLE t (a int)", as_app=True)

    [warning] = (await app.recipe.describe()).warnings

    assert other.database in warning
    assert empty.database not in warning


@pytest.mark.parametrize("major", [13, 17])
async def test_an_owner_who_may_make_databases_but_no_roles_imports_with_its_own_rights(
    make_app: MakeApp, major: int
) -> None:
    app = make_app(major, rights="CREATEDB", has_admin=False)
    description = await app.recipe.describe()
    assert description.can_import.is_possible
    assert any(f'ALTER ROLE "{app.role}" CREATEROLE;' in warning for warning in description.warnings)

    await _bring_in_and_undo(app)


@pytest.mark.parametrize(
    "harm",
    [
        "DROP DATABASE {database} WITH (FORCE);",
        "DO $$ BEGIN EXECUTE 'ALTER ROLE {role} PASSWORD ''mine'''; END $$;",
    ],
)
async def test_with_the_apps_own_rights_only_what_pg_dump_writes_is_run(make_app: MakeApp, harm: str) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    app.fill()
    before = await app.fingerprint()
    archive = await app.export("sql")
    statement = harm.format(database=app.database, role=app.role).encode()
    hostile = unsealed(archive).replace(b"\nCREATE TABLE shop.files", b"\n" + statement + b"\nCREATE TABLE shop.files")

    with pytest.raises(ArchiveRefusedError, match="a statement that pg_dump does not write"):
        await app.stage(hostile)

    assert before.differences(await app.fingerprint()) == []
    assert app.run("SELECT 1 AS one", as_app=True) == [(1,)]
    assert app.left_over() == []


@pytest.mark.parametrize(
    "harm",
    [
        "ALTER ROLE {role} PASSWORD ''mine''",
        "ALTER DATABASE {database} RENAME TO mine",
        "ALTER DATABASE {database} SET default_transaction_read_only TO on",
    ],
)
async def test_what_a_function_of_the_file_changed_outside_is_noticed(make_app: MakeApp, harm: str) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    app.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", as_app=True)
    archive = unsealed(await app.export("sql"))
    statement = harm.format(database=app.database, role=app.role)
    trap = (
        "CREATE FUNCTION public.trap(integer) RETURNS boolean LANGUAGE plpgsql AS $$"
        f" BEGIN EXECUTE '{statement}'; RETURN true; END $$;\n"
        "CREATE TABLE public.trapped (a integer CHECK (public.trap(a)));\n"
        "COPY public.trapped (a) FROM stdin;\n1\n\\.\n\n"
    )
    try:
        with pytest.raises(ArchiveRefusedError, match=r"outside of its database|not let in"):
            await app.recipe.stage(
                upload_of(archive.replace(b"\nCREATE TABLE public.t ", trap.encode() + b"\nCREATE TABLE public.t ")),
                MemoryRecord(),
                app.progress,
            )
        assert app.run("SELECT a FROM t", on="mine" if "RENAME" in harm else None) == [(1,)]
    finally:
        for (name,) in app.run("SELECT datname FROM pg_database WHERE datname = 'mine'", on="postgres"):
            app.run(f"ALTER DATABASE {name} RENAME TO {app.database}", on="postgres")


@pytest.mark.parametrize("rights", ["", "CREATEDB CREATEROLE"])
async def test_a_role_that_owns_nothing_is_told_what_to_run(make_app: MakeApp, rights: str) -> None:
    app = make_app(rights=rights, has_admin=False)
    app.run(f"ALTER DATABASE {app.database} OWNER TO postgres", on="postgres")

    obstacle = (await app.recipe.describe()).can_import.obstacle

    assert f'ALTER DATABASE "{app.database}" OWNER TO "{app.role}";' in obstacle
    with pytest.raises(AppUnavailableError, match="may not exchange"):
        await app.stage(b"never read")
    assert app.left_over() == []
