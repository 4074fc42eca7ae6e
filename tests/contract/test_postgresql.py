"""The contract over PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from agent.recipes.postgresql import PostgresqlRecipe
from tests.contract.app import Fill, ServerApp
from tests.contract.suite import ContractSuite
from tests.integration.agent.engines.pg.apps import PostgresApp
from tools.servers import PostgresServer

_SCHEMA = """
    CREATE TABLE shared (id int PRIMARY KEY, text text NOT NULL);
    CREATE TABLE "only {what}" (id serial PRIMARY KEY, shared_id int REFERENCES shared);
    CREATE VIEW seen AS SELECT text FROM shared;
    INSERT INTO shared SELECT n, '{what} ' || n FROM generate_series(1, 200) n;
    INSERT INTO "only {what}" (shared_id) SELECT id FROM shared;
"""
_BIG = """
    CREATE TABLE big (id int PRIMARY KEY, bytes bytea);
    INSERT INTO big SELECT n, (SELECT string_agg(sha256((n * 1000 + m)::text::bytea), ''::bytea)
        FROM generate_series(1, 250) m) FROM generate_series(1, {rows}) n;
"""
_ROW_BYTES = 32 * 250


class Postgresql(ServerApp[PostgresServer]):
    """A database in a server that may be killed."""

    recipe = PostgresqlRecipe
    new_counts: ClassVar[Mapping[str, int]] = {"tables": 2, "views": 1, "rows": 400}
    big_bytes = 16 << 20
    """In a dump it is twice as much, in hex."""
    wrong_files: ClassVar[Mapping[str, bytes]] = {
        "a text": b"something to read\n" * 100,
        "other SQL": b"-- MySQL dump 10.13\nCREATE TABLE `a` (b int);",
    }

    def __init__(self, database: PostgresApp) -> None:
        self._database = database
        super().__init__(database.server, database.settings)

    async def fill(self, what: Fill) -> None:
        statements = "DROP SCHEMA public CASCADE; CREATE SCHEMA public;"
        if what is not Fill.EMPTY:
            statements += _SCHEMA.format(what=what.value)
        if what is Fill.BIG:
            statements += _BIG.format(rows=self.big_bytes // _ROW_BYTES + 1)
        self._database.run(statements, as_app=True)
        # After a crash, sequences skip what their log had in advance.
        self._database.run("CHECKPOINT", on="postgres")

    async def write_more(self) -> None:
        self._database.run("UPDATE shared SET text = 'more'; CREATE TABLE more ()", as_app=True)

    async def contents(self) -> object:
        return await self._database.fingerprint()

    async def remove_kept(self, work_directory: Path) -> None:
        self._database.drop_kept()

    def leftovers(self) -> list[str]:
        return self._database.left_over()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, lone_postgres_server: PostgresServer) -> Iterator[Postgresql]:
    database = PostgresApp(lone_postgres_server, tmp_path_factory.mktemp("app"))
    yield Postgresql(database)
    asyncio.run(database.close())


class TestPostgresql(ContractSuite):
    """All of it."""
