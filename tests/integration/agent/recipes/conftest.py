"""A volume with an app that notes when it is stopped and started, and its recipe."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.recipes.base import ExportOptions, Limits, Preview, Surroundings
from agent.recipes.volume import VolumeRecipe
from common.errors import ServiceError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from tests.fakes.imports import MemoryRecord, NotedProgress, upload_of


@dataclass
class NotedApp:
    """Implements recipes.base.AppControl; `failures` are raised by the next calls of that name, in order."""

    is_possible: bool = True
    is_running: bool = True
    calls: list[str] = field(default_factory=list)
    failures: dict[str, list[ServiceError]] = field(default_factory=dict)

    async def stop(self) -> None:
        self._call("stop")
        self.is_running = False

    async def start(self) -> None:
        self._call("start")
        self.is_running = True

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.failures.get(name):
            raise self.failures[name].pop(0)


@dataclass
class Exported:
    """What an export gave."""

    content: bytes
    header: ArchiveHeader
    counts: dict[str, int]
    warnings: list[str]
    progress: NotedProgress
    fingerprint: Fingerprint | None = None


class Volume:
    """A directory with an app's data and the recipe that moves it."""

    def __init__(self, directory: Path, *, limits: Limits | None = None, settings: dict[str, object] | None = None):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.work_directory = directory.parent / f"work of {directory.name}"
        self.work_directory.mkdir(exist_ok=True)
        self.app = NotedApp()
        self.recipe = VolumeRecipe(
            Surroundings(
                app_id="shop.files",
                work_directory=self.work_directory,
                limits=limits or Limits(free_bytes=1),
                app_control=self.app,
                settings={"directory": str(directory), **(settings or {})},
                made_by="mathison-data test",
            )
        )

    async def export(self, format_name: str = "tar", **wishes: str) -> Exported:
        (format,) = [found for found in self.recipe.export_formats if found.name == format_name]
        progress = NotedProgress()
        options = ExportOptions(format=format, app_id="shop.files", file_name="files.tar", options=wishes)
        async with self.recipe.export_data(options, progress) as export:
            content = b"".join([chunk async for chunk in export.chunks])
        return Exported(content, export.header, export.counts, export.warnings, progress, export.fingerprint)

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
        """Whether anything of ours is on the volume or in the work directory."""
        return os.path.lexists(self.directory / ".mathison-data") or bool(os.listdir(self.work_directory))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume")
