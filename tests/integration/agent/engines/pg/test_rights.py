"""What an app's role may do decides how an import goes, and an obstacle says what is missing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agent.engines.pg.imports import green, outside, remains
from agent.engines.pg.imports.own_rights import require_same_after_crash
from agent.engines.pg.server.connection import connect
from agent.engines.pg.server.names import kept_name, new_name
from agent.journal import Entry, ImportPhase, Journal
from agent.recipes.base import Recovered
from common.errors import AppUnavailableError, ArchiveDamagedError, ArchiveRefusedError
from tests.contract.agents import APP_ID, Agent
from tests.fakes.imports import MemoryRecord, upload_of
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp, unsealed, until
from tests.integration.agent.engines.pg.conftest import MakeApp
from tests.integration.agent.engines.pg.traps import (
    END_SESSIONS,
    killed_while_loading,
    refused_and_put_back,
    with_trap,
)


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


@variants("major", [13, 15, 16, 18], kept=[18])
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


@variants("major", [13, 17], kept=[17])
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


HARMS = {
    "password of role {role}": "ALTER ROLE {role} PASSWORD 'mine'",
    "name of database {database}: {database} became mine": "ALTER DATABASE {database} RENAME TO mine",
    "setting search_path of role {role}: none became evil": "ALTER ROLE {role} SET search_path = evil",
    'setting search_path of role {role} in database {database}: "$user", public became none': (
        "ALTER ROLE {role} IN DATABASE {database} RESET ALL"
    ),
    "setting search_path of role {role} in database template1: none became evil": (
        "ALTER ROLE {role} IN DATABASE template1 SET search_path = evil"
    ),
    "setting work_mem of database {database}: 7MB became 3MB": "ALTER DATABASE {database} SET work_mem = '3MB'",
    "connection limit of database {database}: 17 became 0": "ALTER DATABASE {database} CONNECTION LIMIT 0",
    "allow connections of database {database}: true became false": "ALTER DATABASE {database} ALLOW_CONNECTIONS false",
    "is template of database {database}: false became true": "ALTER DATABASE {database} IS_TEMPLATE true",
    "CONNECT on database {database} for {role}: granted became none": (
        "REVOKE CONNECT ON DATABASE {database} FROM {role}, PUBLIC"
    ),
    "CREATE on database {database} for pg_monitor: none became with grant option": (
        "GRANT CREATE ON DATABASE {database} TO pg_monitor WITH GRANT OPTION"
    ),
    "comment of database {database}: shop became mine": "COMMENT ON DATABASE {database} IS 'mine'",
}


@variants("harm", HARMS.items(), ids=list(HARMS.values()), every=6)
async def test_what_a_function_of_the_file_changed_outside_is_put_back(
    make_app: MakeApp, harm: tuple[str, str]
) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)

    said = await refused_and_put_back(app, await with_trap(app, [harm[1]]))

    assert "was put back at once" in said
    assert harm[0].format(**vars(app)) in said
    assert len(said) < 400


@variants("major", [13, 18], kept=[18])
async def test_all_that_a_function_of_the_file_changed_at_once_is_put_back(make_app: MakeApp, major: int) -> None:
    other, app = (make_app(major, rights="CREATEDB", has_admin=False) for _ in range(2))
    app.run(f"ALTER DATABASE {other.database} OWNER TO {app.role}", on="postgres")
    exchange = [
        f"ALTER DATABASE {other.database} RENAME TO {{database}}",
        f"ALTER DATABASE mine RENAME TO {other.database}",
    ]
    members = ["GRANT {role} TO pg_monitor"] if major == 13 else []
    renaming = [one for one in HARMS.values() if "RENAME" in one]
    others = [one for one in HARMS.values() if "RENAME" not in one]

    said = await refused_and_put_back(app, await with_trap(app, [*members, *others, *renaming, *exchange]))

    assert f"name of database {app.database}: {app.database} became {other.database}" in said


@variants("major", [14, 18], kept=[18])
async def test_a_database_that_a_file_gives_away_is_taken_back(make_app: MakeApp, major: int) -> None:
    app = make_app(major, rights="CREATEDB", has_admin=False)

    said = await refused_and_put_back(
        app, await with_trap(app, ["ALTER DATABASE {database} OWNER TO pg_database_owner"])
    )

    assert f"owner of database {app.database}: {app.role} became pg_database_owner" in said


@variants("major", [14, 18], kept=[18])
async def test_a_file_that_gives_its_own_database_away_leaves_nothing(make_app: MakeApp, major: int) -> None:
    app = make_app(major, rights="CREATEDB", has_admin=False)
    give_away = (
        "DO $do$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO pg_database_owner', current_database()); END $do$;"
    )

    said = await refused_and_put_back(app, await with_trap(app, [give_away]))

    assert f"{app.role} became pg_database_owner" in said


async def test_a_file_that_ends_the_agents_session_does_not_keep_what_it_changed(make_app: MakeApp) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)

    said = await refused_and_put_back(
        app, await with_trap(app, [END_SESSIONS, "ALTER ROLE {role} SET search_path = evil"])
    )

    assert "search_path" in said


async def test_where_a_file_locks_the_agent_out_the_command_that_mends_it_is_told(make_app: MakeApp) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    hostile = await with_trap(app, [END_SESSIONS, "ALTER ROLE {role} PASSWORD 'mine'"])

    with pytest.raises(ArchiveRefusedError, match="session was ended") as refused:
        await app.recipe.stage(upload_of(hostile), MemoryRecord(), app.progress)

    assert f"ALTER ROLE \"{app.role}\" PASSWORD '…';" in refused.value.next_step
    assert refused.value.says_what_changed


TAKE_THE_KEPT_NAME = (
    "DO $do$ BEGIN EXECUTE format('ALTER DATABASE {database} RENAME TO %I', "
    "replace(current_database(), '_new_', '_kept_')); END $do$;"
)


async def test_a_file_cannot_keep_a_database_from_getting_its_name_back(make_app: MakeApp) -> None:
    app, other = (make_app(rights="CREATEDB", has_admin=False) for _ in range(2))
    app.run(f"ALTER DATABASE {other.database} OWNER TO {app.role}", on="postgres")
    query = "SELECT oid FROM pg_database WHERE datname = %s"
    [(number,)] = app.run(query, on="postgres", values=[app.database])
    take_the_way_back = f"ALTER DATABASE {other.database} RENAME TO mathison_back_{number}"

    said = await refused_and_put_back(app, await with_trap(app, [take_the_way_back, TAKE_THE_KEPT_NAME]))
    app.run(f"ALTER DATABASE {other.database} OWNER TO {other.role}", on="postgres")

    assert f"name of database {app.database}: {app.database} became mathison_kept_" in said
    assert other.run("SELECT 1 AS one") == [(1,)]


async def test_a_database_that_could_not_get_its_name_back_is_not_dropped(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    hostile = await with_trap(app, [TAKE_THE_KEPT_NAME])
    record = MemoryRecord()
    monkeypatch.setattr(outside, "_ROUNDS", 0)

    with pytest.raises(ArchiveRefusedError, match="could not be put back: name of database") as refused:
        await app.stage(hostile, record)

    kept = kept_name(record.key)
    assert f'Run: ALTER DATABASE "{kept}" RENAME TO "{app.database}";' in refused.value.next_step
    assert app.left_over() == [f"database {kept}"]
    app.run(f"ALTER DATABASE {kept} RENAME TO {app.database}", on="postgres")
    assert app.run("SELECT a FROM public.t", as_app=True) == [(1,)]


async def test_what_could_not_be_put_back_is_told_with_the_statement_that_does_it(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    hostile = await with_trap(app, ["ALTER ROLE {role} SET search_path = evil"])
    monkeypatch.setattr(outside, "_ROUNDS", 0)

    with pytest.raises(ArchiveRefusedError, match="could not be put back: setting search_path of role") as refused:
        await app.stage(hostile)

    assert refused.value.says_what_changed
    assert f'Run: ALTER ROLE "{app.role}" RESET "search_path";' in refused.value.next_step
    assert app.left_over() == []


def _only_entry(agent: Agent) -> Entry:
    """The line of the journal as it is on disk."""
    [entry] = Journal(agent.launch.state_directory / "journal", app_id=APP_ID, recipe="postgresql").read()
    return entry


@variants(
    "harm",
    [
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "ALTER ROLE {role} SET default_transaction_read_only = on",
        "ALTER DATABASE {database} RENAME TO mine",
        "ALTER DATABASE {database} OWNER TO pg_database_owner",
        "ALTER DATABASE {database} CONNECTION LIMIT 0",
    ],
    every=6,
)
async def test_what_a_file_changed_before_the_agent_was_killed_is_put_back_by_the_next(
    make_app: MakeApp, tmp_path: Path, harm: str
) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    hostile = await with_trap(app, [harm])
    before, held = app.outside(), await app.fingerprint()
    agent = await killed_while_loading(app, hostile, tmp_path)

    await agent.start()

    state = agent.state("t-1")
    assert state is not None
    assert state.failure is not None
    assert "was put back as soon as the agent could" in state.failure.message
    assert app.outside() == before
    assert held.differences(await app.fingerprint()) == []
    assert app.left_over() == []
    assert [*(agent.launch.state_directory / "journal").iterdir()] == []
    await agent.close()


async def test_after_a_kill_what_is_outside_is_looked_at_once(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    hostile = await with_trap(app, ["ALTER ROLE {role} SET search_path = evil"])
    agent, looks = await killed_while_loading(app, hostile, tmp_path), []

    async def counted(*arguments: Any, **options: Any) -> ArchiveRefusedError | None:
        looks.append(await require_same_after_crash(*arguments, **options))
        return looks[-1]

    monkeypatch.setattr(remains, "require_same_after_crash", counted)
    await agent.start()

    [found] = looks
    assert isinstance(found, ArchiveRefusedError)
    assert app.left_over() == []
    await agent.close()


async def test_what_is_found_after_a_kill_is_found_again_until_it_stands_in_the_journal(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    hostile = await with_trap(app, ["ALTER ROLE {role} SET search_path = evil"])
    agent = await killed_while_loading(app, hostile, tmp_path)
    monkeypatch.setattr(outside, "_ROUNDS", 0)

    first = await app.recipe.put_right(_only_entry(agent))
    entry = _only_entry(agent)
    second = await app.recipe.put_right(entry)
    entry.move(ImportPhase.DROPPING, entry.state)
    third = await app.recipe.put_right(_only_entry(agent))

    assert isinstance(first, ArchiveRefusedError)
    assert isinstance(second, ArchiveRefusedError)
    assert first.text == second.text
    assert "could not be put back: setting search_path" in first.text
    assert third is None


async def test_after_a_load_nothing_outside_is_put_back_any_more(make_app: MakeApp) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    app.run("CREATE TABLE t (a int)", as_app=True)
    record, _ = await app.stage(await app.export())
    app.run(f"ALTER DATABASE {app.database} CONNECTION LIMIT 7", on="postgres")
    before = app.outside()

    found = await app.new_recipe().put_right(record)
    await app.new_recipe().discard(record)

    assert found is None
    assert app.outside() == before


async def test_what_an_import_made_is_dropped_without_any_right_on_the_apps_database(make_app: MakeApp) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    app.run("CREATE TABLE t (a int)", as_app=True)
    record, _ = await app.stage(await app.export())
    app.run(f"ALTER DATABASE {app.database} OWNER TO postgres", on="postgres")

    found = await app.new_recipe().recover(record)
    await app.new_recipe().discard(record)

    assert found is Recovered.PREVIOUS
    assert app.left_over() == []


async def test_where_somebody_took_the_new_database_it_is_said_that_a_right_is_missing(make_app: MakeApp) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    app.run("CREATE TABLE t (a int)", as_app=True)
    record, _ = await app.stage(await app.export())
    app.run(f"ALTER DATABASE {new_name(record.key)} OWNER TO postgres", on="postgres")

    with pytest.raises(AppUnavailableError, match="must be owner of database mathison_new_") as refused:
        await app.new_recipe().discard(record)

    assert "Give the role the right" in refused.value.next_step
    app.run(f"ALTER DATABASE {new_name(record.key)} OWNER TO {app.role}", on="postgres")
    await app.new_recipe().discard(record)
    assert app.left_over() == []


@pytest.mark.parametrize("rights", ["", "CREATEDB CREATEROLE"])
async def test_a_role_that_owns_nothing_is_told_what_to_run(make_app: MakeApp, rights: str) -> None:
    app = make_app(rights=rights, has_admin=False)
    app.run(f"ALTER DATABASE {app.database} OWNER TO postgres", on="postgres")

    obstacle = (await app.recipe.describe()).can_import.obstacle

    assert f'ALTER DATABASE "{app.database}" OWNER TO "{app.role}";' in obstacle
    with pytest.raises(AppUnavailableError, match="may not exchange"):
        await app.stage(b"never read")
    assert app.left_over() == []


async def test_a_superusers_process_that_goes_by_itself_as_autovacuums_does_is_waited_for(make_app: MakeApp) -> None:
    app = make_app(13, rights="CREATEDB", has_admin=False)
    app.run(f"CREATE DATABASE mathison_new_0123456789ab OWNER {app.role}", on="postgres")
    login = replace(app.login("postgres"), user=app.role, password=app.password)
    unforced = "SELECT 1 FROM pg_stat_activity WHERE query ~ '^DROP DATABASE.*0123456789ab' AND query !~ 'FORCE'"

    async with connect(login) as connection:
        with psycopg.connect(app.server.dsn("mathison_new_0123456789ab")):
            dropping = asyncio.create_task(green.drop_database(connection, "mathison_new_0123456789ab"))
            await until(lambda: app.run(unforced, on="postgres") != [])
        await dropping

    assert app.left_over() == []


@variants("major", [13, 15, 17], kept=[13, 17])
@variants("rights", ["", "CREATEDB", "CREATEDB CREATEROLE"], kept=["", "CREATEDB"])
async def test_a_schema_public_that_was_made_anew_by_others_is_no_obstacle(
    make_app: MakeApp, major: int, rights: str
) -> None:
    """As people reset a database; pg_dump writes COMMENT ON SCHEMA public IS '' then."""
    app = make_app(major, rights=rights, has_admin=False)
    app.run(f"DROP SCHEMA public; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO {app.role}")
    app.run(f"GRANT CREATE ON DATABASE {app.database} TO {app.role}")
    app.run("CREATE TABLE public.t AS SELECT 1 AS a", as_app=True)
    archive = app.dump("--no-owner")
    assert b"COMMENT ON SCHEMA public IS '';" in archive
    app.run("UPDATE public.t SET a = 2", as_app=True)

    await app.bring_in(archive)

    assert app.run("SELECT a FROM public.t") == [(1,)]


async def test_a_comment_on_the_apps_own_schema_public_comes_along(make_app: MakeApp) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    app.run("COMMENT ON SCHEMA public IS 'the shop'", as_app=True)

    await app.bring_in(await app.export())

    assert app.run("SELECT obj_description('public'::regnamespace)") == [("the shop",)]


@pytest.mark.parametrize("rights", ["", "CREATEDB"], ids=["within", "beside"])
async def test_insert_statements_that_are_on_their_way_together_fail_with_their_own_line(
    make_app: MakeApp, rights: str
) -> None:
    app = make_app(rights=rights, has_admin=False)
    app.run("CREATE TABLE t AS SELECT i AS a FROM generate_series(1, 1000) AS i", as_app=True)
    app.run("ALTER TABLE t ADD CHECK (a <> 4567)", as_app=True)
    good = app.dump("--no-owner", "--inserts").replace(b"\nINSERT", b"\n\nINSERT")
    bad = good.replace(b"VALUES (333);", b"VALUES (4567);")
    line = 1 + bad[: bad.index(b"VALUES (4567);")].count(b"\n")
    app.run("UPDATE t SET a = 2", as_app=True)

    with pytest.raises(ArchiveDamagedError, match=f"Line {line} .*t_a_check"):
        await app.bring_in(bad)
    untouched = app.run("SELECT sum(a) FROM t")
    record = await app.bring_in(good)

    assert (untouched, app.run("SELECT sum(a) FROM t")) == ([(2000,)], [(500500,)])
    await app.recipe.discard(record)
    assert app.left_over() == []
