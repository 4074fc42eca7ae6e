"""The contract over volumes."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from agent.recipes.volume import VolumeRecipe
from tests.contract.app import Fill, FolderApp
from tests.contract.suite import ContractSuite
from tests.fixtures.archives import described


class Volume(FolderApp):
    """A directory with files and a SQLite database in it, of an app that is stopped by a command."""

    recipe = VolumeRecipe
    new_counts: ClassVar[Mapping[str, int]] = {"files": 2, "databases": 1}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "volume")
        self.folder.mkdir()

    async def fill(self, what: Fill) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if what is not Fill.EMPTY:
            (self.folder / "both").write_text(what.value)
            (self.folder / f"only {what.value}").mkdir()
            (self.folder / f"only {what.value}" / "link").symlink_to("../both")
            with closing(sqlite3.connect(self.folder / "app.db")) as database, database:
                database.execute("CREATE TABLE t (v)")
                database.execute("INSERT INTO t VALUES (?)", (what.value,))
        if what is Fill.BIG:
            (self.folder / "big").write_bytes(random.Random(1).randbytes(self.big_bytes))

    async def write_more(self) -> None:
        (self.folder / "both").write_text("more")
        (self.folder / "more").write_text("more")

    async def contents(self) -> object:
        # A database's file is not the same after a snapshot; its rows are.
        files = described(self.folder, is_wanted=lambda path: not path.startswith(("app.db", ".mathison-data")))
        database = self.folder / "app.db"
        if not database.exists():
            return files, []
        with closing(sqlite3.connect(database)) as connection:
            return files, connection.execute("SELECT * FROM t").fetchall()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return Volume(tmp_path_factory.mktemp("app"))


class TestVolume(ContractSuite):
    """All of it."""
