"""An n8n's folder with an app that notes when it is stopped and started, and its recipe."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from agent.recipes.base import ExportOptions, Limits, Preview, Surroundings
from agent.recipes.n8n import N8nRecipe
from common.fingerprints import Fingerprint
from tests.fakes.imports import MemoryRecord, NotedProgress, upload_of
from tests.fixtures.n8n_data import NEW_KEY, N8n
from tests.integration.agent.recipes.conftest import Exported, NotedApp


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
