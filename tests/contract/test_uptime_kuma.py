"""The contract over Uptime Kuma 2 on SQLite, with data that it wrote itself."""

from __future__ import annotations

import random
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from agent.recipes.uptime_kuma import UptimeKumaRecipe
from tests.contract.app import Fill, FolderApp
from tests.contract.suite import ContractSuite
from tests.fixtures.archives import digest_of
from tests.fixtures.kuma_apps import DATA, KUMA_2, execute

_CHANGES = {
    Fill.EMPTY: ("DELETE FROM heartbeat", "DELETE FROM monitor"),
    Fill.OLD: ("DELETE FROM heartbeat WHERE monitor_id > 3",),
    Fill.NEW: ("UPDATE monitor SET name = 'new ' || name",),
    Fill.BIG: (),
}


class UptimeKuma(FolderApp):
    """Its data directory, while the app is at rest."""

    recipe = UptimeKumaRecipe
    kills_apart = 3
    new_counts: ClassVar[Mapping[str, int]] = {"monitors": 12, "heartbeats": 143, "files": 5}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "data")
        self.folder.mkdir()

    async def fill(self, what: Fill) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with tarfile.open(DATA / f"{KUMA_2}.tar.gz") as archive:
            archive.extractall(self.folder)  # noqa: S202  # our own file
        for change in _CHANGES[what]:
            execute(self.folder / "kuma.db", change)
        (self.folder / "upload" / f"{what.value}.png").write_bytes(what.value.encode())
        if what is Fill.BIG:
            (self.folder / "upload" / "big.png").write_bytes(random.Random(1).randbytes(self.big_bytes))

    async def write_more(self) -> None:
        execute(self.folder / "kuma.db", "DELETE FROM heartbeat")
        (self.folder / "upload" / "more.png").write_bytes(b"more")

    async def contents(self) -> object:
        database = self.folder / "kuma.db"
        tables = [str(name) for (name,) in execute(database, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = {table: execute(database, f'SELECT * FROM "{table}" ORDER BY 1, 2') for table in tables}
        files = {
            str(path.relative_to(self.folder)): digest_of(path)
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.startswith("kuma.db") and ".mathison-data" not in path.parts
        }
        return rows, files


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> UptimeKuma:
    return UptimeKuma(tmp_path_factory.mktemp("app"))


class TestUptimeKuma(ContractSuite):
    """All of it."""
