"""The contract over Uptime Kuma 2 on SQLite, with data that it wrote itself."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from agent.recipes.uptime_kuma import UptimeKumaRecipe
from tests.contract.app import AppSwitch, AppUnderTest, Fill
from tests.contract.suite import ContractSuite
from tests.fixtures.archives import digest_of
from tests.fixtures.kuma_apps import DATA, KUMA_2, execute

_CHANGES = {
    Fill.EMPTY: ("DELETE FROM heartbeat", "DELETE FROM monitor"),
    Fill.OLD: ("DELETE FROM heartbeat WHERE monitor_id > 3",),
    Fill.NEW: ("UPDATE monitor SET name = 'new ' || name",),
    Fill.BIG: (),
}


class UptimeKuma(AppUnderTest):
    """Its data directory, while the app is at rest."""

    recipe = UptimeKumaRecipe
    new_counts: ClassVar[Mapping[str, int]] = {"monitors": 12, "heartbeats": 143, "files": 5}

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "data"
        self._directory.mkdir()
        self._switch = AppSwitch(directory)
        super().__init__({"directory": str(self._directory)}, self._switch.settings)

    async def fill(self, what: Fill) -> None:
        for path in self._directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with tarfile.open(DATA / f"{KUMA_2}.tar.gz") as archive:
            archive.extractall(self._directory)  # noqa: S202  # our own file
        for change in _CHANGES[what]:
            execute(self._directory / "kuma.db", change)
        (self._directory / "upload" / f"{what.value}.png").write_bytes(what.value.encode())
        if what is Fill.BIG:
            (self._directory / "upload" / "big.png").write_bytes(random.Random(1).randbytes(self.big_bytes))

    async def write_more(self) -> None:
        execute(self._directory / "kuma.db", "DELETE FROM heartbeat")
        (self._directory / "upload" / "more.png").write_bytes(b"more")

    async def contents(self) -> object:
        database = self._directory / "kuma.db"
        tables = [str(name) for (name,) in execute(database, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = {table: execute(database, f'SELECT * FROM "{table}" ORDER BY 1, 2') for table in tables}
        files = {
            str(path.relative_to(self._directory)): digest_of(path)
            for path in self._directory.rglob("*")
            if path.is_file() and not path.name.startswith("kuma.db") and ".mathison-data" not in path.parts
        }
        return rows, files

    def leftovers(self) -> list[str]:
        return [".mathison-data"] * os.path.lexists(self._directory / ".mathison-data") + self._switch.leftovers()

    @asynccontextmanager
    async def unreadable(self) -> AsyncIterator[None]:
        away = self._directory.rename(self._directory.with_name("away"))
        try:
            yield
        finally:
            away.rename(self._directory)

    @asynccontextmanager
    async def unswappable(self) -> AsyncIterator[None]:
        async with self._switch.stuck():
            yield


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> UptimeKuma:
    return UptimeKuma(tmp_path_factory.mktemp("app"))


class TestUptimeKuma(ContractSuite):
    """All of it."""
