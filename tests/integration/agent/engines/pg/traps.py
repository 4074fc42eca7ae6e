"""Files whose code does harm to what is outside of their database, while they are loaded with the app's own rights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from agent.recipes.postgresql import PostgresqlRecipe
from common.errors import ArchiveRefusedError
from tests.contract import crashing
from tests.contract.agents import Agent, Launch
from tests.integration.agent.engines.pg.apps import PostgresApp, unsealed

END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
)


async def with_trap(app: PostgresApp, statements: Iterable[str]) -> bytes:
    """An app with a table and settings, and a file whose trigger does harm to it."""
    app.run("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", as_app=True)
    for statement in (
        "COMMENT ON DATABASE {database} IS 'shop'",
        "ALTER DATABASE {database} CONNECTION LIMIT 17",
        "ALTER DATABASE {database} SET work_mem = '7MB'",
        "GRANT CONNECT ON DATABASE {database} TO {role}",
        'ALTER ROLE {role} IN DATABASE {database} SET search_path = "$user", public',
    ):
        app.run(statement.format(**vars(app)), on="postgres")
    harm = " ".join(f"EXECUTE $harm${one.format(**vars(app))}$harm$;" for one in statements)
    trap = (
        f"CREATE FUNCTION public.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {harm} RETURN NEW; END $$;\n"
        "CREATE TABLE public.trapped (a integer);\n"
        "CREATE TRIGGER trap BEFORE INSERT ON public.trapped FOR EACH ROW EXECUTE FUNCTION public.trap();\n"
        "INSERT INTO public.trapped VALUES (1);\n"
    )
    archive = unsealed(await app.export("sql"))
    return archive.replace(b"\nCREATE TABLE public.t ", b"\n" + trap.encode() + b"\nCREATE TABLE public.t ")


async def refused_and_put_back(app: PostgresApp, hostile: bytes) -> str:
    """What is said of a hostile file that leaves nothing behind."""
    before = app.outside()
    with pytest.raises(ArchiveRefusedError) as refused:
        await app.stage(hostile)

    assert not refused.value.says_what_changed
    assert app.outside() == before
    assert app.run("SELECT a FROM public.t", as_app=True) == [(1,)]
    assert app.left_over() == []
    return refused.value.text


WAIT = (
    b"CREATE FUNCTION public.waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(86400); END $$;\n"
    b"CREATE TABLE public.waiting (a integer);\n"
    b"CREATE TRIGGER waits BEFORE INSERT ON public.waiting FOR EACH ROW EXECUTE FUNCTION public.waits();\n"
    b"INSERT INTO public.waiting VALUES (1);\n"
)


async def killed_while_loading(app: PostgresApp, hostile: bytes, directory: Path) -> Agent:
    """The agent, not started again, that was killed once a file had done harm and went on."""
    file, launch = directory / "hostile.sql", Launch(PostgresqlRecipe, app.settings, None, directory / "state")
    file.write_bytes(hostile.replace(b"\nCREATE TABLE public.t ", b"\n" + WAIT + b"\nCREATE TABLE public.t "))
    before = app.outside()
    death = await crashing.killed_once(lambda: app.outside() != before, launch, "stage", "t-1", str(file))
    await death.children_ended()
    return Agent(launch)
