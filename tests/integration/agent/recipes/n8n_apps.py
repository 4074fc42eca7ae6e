"""An n8n with an app that notes when it is stopped and started, and its recipe; its database a file or in a server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from agent.recipes.base import ExportOptions, Limits, Preview, Surroundings
from agent.recipes.n8n import N8nRecipe
from common.fingerprints import Fingerprint
from tests.fakes.imports import MemoryRecord, NotedProgress, upload_of
from tests.fixtures.n8n_data import NEW_KEY, N8n, copy_to_postgres
from tests.integration.agent.engines.pg.apps import PostgresApp
from tests.integration.agent.recipes.conftest import Exported, NotedApp
from tools.servers import PostgresServer


@dataclass
class N8nApp:
    """One n8n and what the agent does with it."""

    n8n: N8n
    settings: dict[str, object] = field(default_factory=dict)
    app: NotedApp = field(default_factory=NotedApp)

    def __post_init__(self) -> None:
        self.work_directory = self.n8n.folder.parent / f"work of {self.n8n.folder.name}"
        self.work_directory.mkdir(exist_ok=True)
        self.recipe = N8nRecipe(
            Surroundings(
                app_id="shop.n8n",
                work_directory=self.work_directory,
                limits=Limits(free_bytes=1),
                app_control=self.app,
                settings={"directory": str(self.n8n.folder), **self.settings},
                made_by="mathison-data test",
            )
        )

    async def export(self, format_name: str = "tar", **options: str) -> Exported:
        (format,) = [found for found in self.recipe.export_formats if found.name == format_name]
        progress = NotedProgress()
        asked = ExportOptions(format=format, app_id="shop.n8n", file_name="n8n.tar", options=options)
        async with self.recipe.export_data(asked, progress) as export:
            content = b"".join([chunk async for chunk in export.chunks])
        return Exported(content, export.header, export.counts, export.warnings, progress, export.fingerprint)

    async def fingerprint(self) -> Fingerprint:
        return await self.recipe.fingerprint(NotedProgress())

    async def stage(self, content: bytes, record: MemoryRecord, **options: str) -> Preview:
        return await self.recipe.stage(upload_of(content, options), record, NotedProgress())

    async def import_(self, content: bytes, **options: str) -> MemoryRecord:
        """Stage and restore."""
        record = MemoryRecord()
        await self.stage(content, record, **options)
        await self.recipe.restore(record, NotedProgress())
        return record

    @property
    def has_leftovers(self) -> bool:
        """Whether anything of ours is in the folder or in the work directory."""
        return os.path.lexists(self.n8n.folder / ".mathison-data") or bool(os.listdir(self.work_directory))


def new_app(directory: Path) -> N8nApp:
    """Another n8n, with another key and other workflows."""
    return N8nApp(N8n(directory, key=NEW_KEY, mark="present", workflows=1, credentials=1).make())


@dataclass
class OnPostgres(N8n):
    """An n8n whose database is in a server; its folder holds only files."""

    database_app: PostgresApp | None = field(default=None, kw_only=True)

    def make(self) -> OnPostgres:
        super().make()
        with self._connected() as connection:
            copy_to_postgres(self, connection)
        for path in self.folder.glob("database.sqlite*"):
            path.unlink()
        return self

    def rows(self, query: str) -> list[tuple[object, ...]]:
        if self.database.exists():
            return super().rows(query)
        with self._connected() as connection:
            return connection.execute(query.encode()).fetchall()

    def has_keys(self) -> bool:
        return self.rows("SELECT to_regclass('deployment_key')") != [(None,)]

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        assert self.database_app is not None
        app = self.database_app
        return psycopg.connect(app.server.dsn(app.database, app.role, password=app.password), autocommit=True)


@dataclass
class Pair:
    """An n8n and its database."""

    app: N8nApp
    database: PostgresApp

    @property
    def n8n(self) -> N8n:
        return self.app.n8n

    def require_no_leftovers(self) -> None:
        assert self.database.left_over() == []
        assert not self.app.has_leftovers


MakePair = Callable[..., Pair]


@pytest.fixture
async def make_pair(postgres_servers: Callable[[int], PostgresServer], tmp_path: Path) -> AsyncIterator[MakePair]:
    made: list[PostgresApp] = []

    def make(name: str, *, has_folder: bool = True, has_admin: bool = True, rights: str = "", **facts: object) -> Pair:
        (tmp_path / name).mkdir()
        database = PostgresApp(postgres_servers(17), tmp_path / name, has_admin=has_admin, rights=rights)
        made.append(database)
        n8n = OnPostgres(tmp_path / name / ".n8n", database_app=database, **facts).make()  # type: ignore[arg-type]
        key = tmp_path / f"key of {name}"
        key.write_text(n8n.key)
        settings: dict[str, object] = {"postgresql": database.settings, "encryption_key_file": str(key)}
        app = N8nApp(n8n, settings if has_folder else {**settings, "directory": ""})
        return Pair(app, database)

    yield make
    for database in made:
        await database.close()
