"""The contract over volumes."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import ClassVar

import pytest

from agent.recipes.volume import VolumeRecipe
from tests.contract.app import AppSwitch, AppUnderTest, Fill
from tests.contract.suite import ContractSuite
from tests.fixtures.archives import described


class Volume(AppUnderTest):
    """A directory with files and a SQLite database in it, of an app that is stopped by a command."""

    recipe = VolumeRecipe
    new_counts: ClassVar[Mapping[str, int]] = {"files": 2, "databases": 1}

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "volume"
        self._directory.mkdir()
        self._switch = AppSwitch(directory)
        super().__init__({"directory": str(self._directory)}, self._switch.settings)

    async def fill(self, what: Fill) -> None:
        for path in self._directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if what is not Fill.EMPTY:
            (self._directory / "both").write_text(what.value)
            (self._directory / f"only {what.value}").mkdir()
            (self._directory / f"only {what.value}" / "link").symlink_to("../both")
            with closing(sqlite3.connect(self._directory / "app.db")) as database, database:
                database.execute("CREATE TABLE t (v)")
                database.execute("INSERT INTO t VALUES (?)", (what.value,))
        if what is Fill.BIG:
            (self._directory / "big").write_bytes(random.Random(1).randbytes(self.big_bytes))

    async def write_more(self) -> None:
        (self._directory / "both").write_text("more")
        (self._directory / "more").write_text("more")

    async def contents(self) -> object:
        # A database's file is not the same after a snapshot; its rows are.
        files = described(self._directory, is_wanted=lambda path: not path.startswith(("app.db", ".mathison-data")))
        database = self._directory / "app.db"
        if not database.exists():
            return files, []
        with closing(sqlite3.connect(database)) as connection:
            return files, connection.execute("SELECT * FROM t").fetchall()

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
def app(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return Volume(tmp_path_factory.mktemp("app"))


class TestVolume(ContractSuite):
    """All of it."""
