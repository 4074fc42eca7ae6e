"""The contract over n8n on PostgreSQL, a variant of those over n8n and PostgreSQL: both change together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psycopg
import pytest

from tests.contract.app import Fill
from tests.contract.n8n_app import N8nOnSqlite
from tests.contract.suite import ContractSuite
from tests.fixtures.n8n_data import N8n, copy_to_postgres
from tests.integration.agent.engines.pg.apps import PostgresApp
from tools.servers import PostgresServer

pytestmark = pytest.mark.variant


class N8nOnPostgresql(N8nOnSqlite):
    """A folder, and a database in a server."""

    def __init__(self, directory: Path, database: PostgresApp) -> None:
        super().__init__(directory)
        self._database = database
        self.settings["postgresql"] = database.settings

    @property
    def formats(self) -> Sequence[str]:
        # The others differ in what is around the same files, and are those of the row on SQLite.
        return super().formats[:1]

    def make(self, what: Fill) -> N8n:
        n8n = super().make(what)
        self._database.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public", as_app=True)
        with closing(self._connected()) as connection:
            copy_to_postgres(n8n, connection)
        for path in self.folder.glob("database.sqlite*"):
            path.unlink()
        return n8n

    def query(self, text: str) -> list[tuple[object, ...]]:
        return self._database.run(text, as_app=True)

    async def remove_kept(self, work_directory: Path) -> None:
        self._database.drop_kept()

    def leftovers(self) -> list[str]:
        return super().leftovers() + self._database.left_over()

    async def crash(self) -> None:
        self._database.server.kill()
        await asyncio.to_thread(self._database.server.start)

    @asynccontextmanager
    async def unreadable(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self._database.server.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(self._database.server.start)

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        app = self._database
        return psycopg.connect(app.server.dsn(app.database, app.role, password=app.password), autocommit=True)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, lone_postgres_server: PostgresServer) -> Iterator[N8nOnPostgresql]:
    directory = tmp_path_factory.mktemp("app")
    database = PostgresApp(lone_postgres_server, directory)
    yield N8nOnPostgresql(directory, database)
    asyncio.run(database.close())


class TestN8nOnPostgresql(ContractSuite):
    """All of it."""
