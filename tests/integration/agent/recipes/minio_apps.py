"""A MinIO app as its agent sees it: the recipe, on a real server, with nothing between them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.recipes.base import ExportOptions, Limits, Preview, Record, Recovered
from agent.recipes.minio import MinioRecipe
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from tests.fakes.imports import MemoryRecord, NotedProgress, surroundings, upload_of
from tools.servers import MinioServer, RcloneServer

RESERVED = ".mathison-data"


@dataclass
class Exported:
    """An export that ended."""

    file: bytes
    header: ArchiveHeader
    counts: Mapping[str, int]
    warnings: list[str]
    fingerprint: Fingerprint | None


@dataclass
class MinioApp:
    """One server and its recipe.

    Attributes:
        directory: of the agent.
    """

    server: MinioServer | RcloneServer
    directory: Path
    settings: dict[str, object] = field(default_factory=dict)
    limits: Limits = field(default_factory=lambda: Limits(free_bytes=1))

    def __post_init__(self) -> None:
        self.work_directory = self.directory / "work"
        self.work_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        password_file = self.directory / "password"
        password_file.write_text(self.server.password + "\n")
        self.recipe = MinioRecipe(
            surroundings(
                self.work_directory,
                {
                    "url": self.server.url,
                    "user": self.server.user,
                    "password_file": str(password_file),
                    "directory": str(self.server.drive),
                    **self.settings,
                },
                app_id="shop.files",
                limits=self.limits,
            )
        )
        self.progress = NotedProgress()

    async def export(self, format_name: str = "tar", **options: str) -> Exported:
        """Everything that an export yields."""
        [format] = [found for found in self.recipe.export_formats if found.name == format_name]
        wanted = ExportOptions(format=format, app_id="shop.files", file_name="files.tar", options=options)
        async with self.recipe.export_data(wanted, self.progress) as export:
            file = b"".join([chunk async for chunk in export.chunks])
        return Exported(file, export.header, export.counts, export.warnings, export.fingerprint)

    async def stage(self, file: bytes, record: Record | None = None, **options: str) -> tuple[Record, Preview]:
        """A file, received."""
        record = record or MemoryRecord()
        return record, await self.recipe.stage(upload_of(file, options), record, self.progress)

    async def import_file(self, file: bytes, **options: str) -> Record:
        """A file, received and exchanged."""
        record, _ = await self.stage(file, None, **options)
        await self.recipe.restore(record, self.progress)
        return record

    async def recover(self, record: Record) -> Recovered:
        """As the agent does it when it starts: a new recipe that knows nothing but the record."""
        return await MinioApp(self.server, self.directory, self.settings, self.limits).recipe.recover(record)

    def leftovers(self) -> list[str]:
        """What is of ours on the drive, and in the agent's directory."""
        drive = self.server.drive
        reserved = sorted(os.listdir(drive / RESERVED)) if (drive / RESERVED).exists() else []
        canaries = [name for name in os.listdir(drive) if name.startswith("mathison-")]
        return [*reserved, *canaries, *os.listdir(self.work_directory)]
