"""Settings that a file gives to its role or database do not keep the agent from putting them right."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.recipes.postgresql import PostgresqlRecipe
from common.errors import AppUnavailableError, ArchiveRefusedError
from tests.contract.agents import Agent, Launch
from tests.fakes.imports import MemoryRecord, upload_of
from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.apps import PostgresApp, until
from tests.integration.agent.engines.pg.conftest import MakeApp
from tests.integration.agent.engines.pg.traps import (
    END_SESSIONS,
    WAIT,
    killed_while_loading,
    refused_and_put_back,
    with_trap,
)
from tools.servers import PostgresServer, postgres

MAJORS = range(13, 19)
CUTTING_SHORT = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
CUTTING_SHORT_SINCE = {"idle_session_timeout": 14, "transaction_timeout": 17}
OTHERS = [
    "default_transaction_isolation = serializable",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "exit_on_error = on",
    "local_preload_libraries = nothing",
    "standard_conforming_strings = off",
    "role = pg_database_owner",
    "search_path = evil",
    "tcp_user_timeout = 1",
]


def _defaults(major: int) -> list[str]:
    names = [*CUTTING_SHORT, *(name for name, since in CUTTING_SHORT_SINCE.items() if major >= since)]
    settings = [*OTHERS, *(f"{name} = 1" for name in names)]
    return [f"ALTER ROLE {{role}} SET {one}" for one in settings if major > 13 or "pg_database_owner" not in one]


@variants("major", MAJORS, kept=[18])
async def test_no_default_of_a_file_keeps_the_agents_next_session_from_putting_it_back(
    make_app: MakeApp, major: int
) -> None:
    app = make_app(major, rights="CREATEDB", has_admin=False)
    closing = "ALTER DATABASE {database} CONNECTION LIMIT 0"

    said = await refused_and_put_back(app, await with_trap(app, [END_SESSIONS, closing, *_defaults(major)]))

    assert "was put back at once" in said
    assert f"connection limit of database {app.database}: 17 became 0" in said


@variants("major", [13, 17], kept=[17])
async def test_no_default_of_a_file_keeps_the_next_agent_from_putting_it_back(
    make_app: MakeApp, tmp_path: Path, major: int
) -> None:
    app = make_app(major, rights="CREATEDB", has_admin=False)
    hostile = await with_trap(app, _defaults(major))
    before = app.outside()
    agent = await killed_while_loading(app, hostile, tmp_path)

    await agent.start()

    state = agent.state("t-1")
    assert state is not None
    assert state.failure is not None
    assert "was put back as soon as the agent could" in state.failure.message
    assert app.outside() == before
    assert app.left_over() == []
    assert [*(agent.launch.state_directory / "journal").iterdir()] == []
    await agent.close()


async def test_what_else_a_file_changed_is_put_back_once_a_superuser_lets_the_role_in_again(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(rights="CREATEDB", has_admin=False)
    harms = [END_SESSIONS, "ALTER ROLE {role} PASSWORD 'mine'", "ALTER DATABASE {database} CONNECTION LIMIT 0"]
    hostile = await with_trap(app, harms)
    before = app.outside()
    agent = Agent(Launch(PostgresqlRecipe, app.settings, None, tmp_path / "state"))
    await agent.start()

    with pytest.raises(ArchiveRefusedError, match="refuses role") as refused:
        await agent.stage("t-1", hostile)
    app.run(f"ALTER ROLE {app.role} PASSWORD '{app.password}'", on="postgres")
    await agent.transfers.housekeeping.tidy()

    assert "Nothing was changed" not in refused.value.text
    assert "The agent looks again by itself" in refused.value.next_step
    state = agent.state("t-1")
    assert state is not None
    assert state.failure is not None
    assert f"connection limit of database {app.database}: 17 became 0" in state.failure.message
    assert app.outside() == before
    assert app.left_over() == []
    await agent.close()


async def test_where_a_file_closes_the_database_that_the_agent_enters_by_its_opening_is_told(make_app: MakeApp) -> None:
    app, other = (make_app(rights="CREATEDB", has_admin=False) for _ in range(2))
    app.run(f"ALTER DATABASE {other.database} OWNER TO {app.role}", on="postgres")
    app.recipe = app.new_recipe(maintenance_database=other.database)
    hostile = await with_trap(app, [END_SESSIONS, f"ALTER DATABASE {other.database} ALLOW_CONNECTIONS false"])
    record = MemoryRecord()

    with pytest.raises(ArchiveRefusedError, match="refuses role") as refused:
        await app.recipe.stage(upload_of(hostile), record, app.progress)

    statement = f'ALTER DATABASE "{other.database}" ALLOW_CONNECTIONS true CONNECTION LIMIT -1;'
    assert statement in refused.value.next_step
    assert refused.value.says_what_changed
    app.run(statement, on="postgres")
    await app.recipe.discard(record)
    app.run(f"ALTER DATABASE {other.database} OWNER TO {other.role}", on="postgres")
    assert app.left_over() == []


async def test_where_the_server_went_away_it_is_said_that_nobody_could_see_what_a_file_changed(tmp_path: Path) -> None:
    harm = ["ALTER DATABASE {database} CONNECTION LIMIT 0"]
    with PostgresServer(postgres(17)) as server:
        app = PostgresApp(server, tmp_path, rights="CREATEDB", has_admin=False)
        hostile = (await with_trap(app, harm)).replace(
            b"\nCREATE TABLE public.t ", b"\n" + WAIT + b"\nCREATE TABLE public.t "
        )
        before, record = app.outside(), MemoryRecord()
        staging = asyncio.create_task(app.recipe.stage(upload_of(hostile), record, app.progress))
        await until(lambda: app.outside() != before)
        await asyncio.to_thread(server.kill)
        with pytest.raises(AppUnavailableError, match="does not answer") as refused:
            await staging
        await asyncio.to_thread(server.start)
        await app.new_recipe().discard(record)

        assert "could not be seen" in refused.value.text
        assert refused.value.says_what_changed
        assert app.outside() == before
        assert app.left_over() == []


@variants("rights", ["", "CREATEDB"])
@variants("scope", ["DATABASE {database}", "ROLE {role}"])
async def test_values_are_loaded_as_they_are_whatever_settings_say(make_app: MakeApp, rights: str, scope: str) -> None:
    app = make_app(rights=rights, has_admin=False)
    app.run(
        """CREATE TABLE t (a text[] DEFAULT '{NULL}', b text); INSERT INTO t VALUES ('{NULL,"NULL",x}');"""
        " ALTER TABLE t ADD CHECK ((b = NULL::text) IS NULL)",
        as_app=True,
    )
    archive = await app.export()
    for setting in ("array_nulls = off", "transform_null_equals = on"):
        app.run(f"ALTER {scope.format(**vars(app))} SET {setting}", on="postgres")

    await app.bring_in(archive)

    assert app.run("SELECT a[1] IS NULL, a[2] FROM public.t") == [(True, "NULL")]
    app.run("SET array_nulls = on; INSERT INTO public.t (b) VALUES ('x')")
    assert app.run("SELECT a[1] IS NULL FROM public.t WHERE b = 'x'") == [(True,)]
