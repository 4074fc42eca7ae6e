"""A Redis or Valkey app as its agent sees it: the recipe, on a real server, with nothing between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.recipes.base import ExportOptions, Format, Limits, Preview, Record, Recovered
from agent.recipes.redis import RDB, RedisRecipe
from common.fingerprints import Fingerprint
from tests.fakes.imports import MemoryRecord, NotedProgress, surroundings, upload_of
from tests.fixtures.redis_servers import client_of
from tools.servers import RedisServer

LAST_DATABASE = 15


@dataclass
class Exported:
    """An export that ended."""

    file: bytes
    counts: Mapping[str, int]
    warnings: list[str]
    details: Mapping[str, str]
    engine: str
    fingerprint: Fingerprint | None


@dataclass
class RedisApp:
    """One server and its recipe.

    Attributes:
        work_directory: the agent's.
    """

    server: RedisServer
    work_directory: Path
    settings: dict[str, object] = field(default_factory=dict)
    limits: Limits | None = None

    def __post_init__(self) -> None:
        if self.server.password and "password_file" not in self.settings:
            secret = self.work_directory.parent / f"{self.work_directory.name}.password"
            secret.write_text(self.server.password + "\n")
            self.settings["password_file"] = str(secret)
        self.work_directory.mkdir(exist_ok=True, mode=0o700)
        self.recipe = RedisRecipe(
            surroundings(
                self.work_directory,
                {"port": self.server.port, **self.settings},
                app_id="shop.cache",
                limits=self.limits,
            )
        )
        self.progress = NotedProgress()

    async def export(self, format: Format = RDB, options: Mapping[str, str] | None = None) -> Exported:
        """Everything that an export yields."""
        wanted = ExportOptions(format=format, app_id="shop.cache", file_name="cache.rdb", options=options or {})
        async with self.recipe.export_data(wanted, self.progress) as export:
            file = b"".join([chunk async for chunk in export.chunks])
        return Exported(
            file, export.counts, export.warnings, export.header.details, export.header.engine, export.fingerprint
        )

    async def stage(self, file: bytes, record: Record | None = None) -> tuple[Record, Preview]:
        """A file, received."""
        record = record or MemoryRecord()
        return record, await self.recipe.stage(upload_of(file), record, self.progress)

    async def import_file(self, file: bytes) -> Record:
        """A file, received and swapped in."""
        record, _ = await self.stage(file)
        await self.recipe.restore(record, self.progress)
        return record

    async def recover(self, record: Record) -> Recovered:
        """As the agent does it when it starts: a new recipe that knows nothing but the record."""
        return await RedisApp(self.server, self.work_directory, self.settings, self.limits).recipe.recover(record)

    def server_settings(self) -> dict[str, str]:
        """All of the server's, but for those that change by themselves."""
        with client_of(self.server) as client:
            settings: dict[str, str] = client.config_get("*")
        return {name: value for name, value in settings.items() if name != "oom-score-adj-values"}

    def files(self) -> list[str]:
        """What transfers have in the agent's directory. What it knows of the server (copied.py) stays there."""
        return sorted(path.name for path in self.work_directory.iterdir() if path.name != "copied-by-server.json")

    def require_released(self, settings: Mapping[str, str]) -> None:
        """Nothing of an import is left in the server: it is a master with its own settings, takes writes at once, and
        holds no marker."""
        assert self.server_settings() == settings
        with client_of(self.server, database=LAST_DATABASE) as client:
            assert client.info("replication")["role"] == "master"
            assert client.keys("mathison-data:*") == []
            client.set("probe", "1")
            client.delete("probe")
