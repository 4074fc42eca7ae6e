"""n8n as the contract suite meets it, its database in SQLite."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from agent.recipes.n8n import N8nRecipe
from tests.contract.app import Fill, FolderApp
from tests.fixtures.archives import digest_of
from tests.fixtures.n8n_data import N8n

_COUNTS = {Fill.EMPTY: 0, Fill.OLD: 1, Fill.NEW: 3, Fill.BIG: 1}
_OF_THE_INSTANCE = ("config", "n8nEventLog.log", "crash.journal", "database.sqlite", ".mathison-data")


class N8nOnSqlite(FolderApp):
    """n8n's folder with its database in it, while n8n is at rest."""

    recipe = N8nRecipe
    new_counts: ClassVar[Mapping[str, int]] = {"workflows": 3, "active_workflows": 2, "credentials": 3}
    export_options: ClassVar[Mapping[str, str]] = {"key": "clear"}
    # Each import starts six children; the folder's exchange is the volume's, which is killed at every moment.
    kills_apart = 3

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / ".n8n")

    async def fill(self, what: Fill) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.make(what)
        (self.folder / "storage" / what.value).write_text(what.value)
        if what is Fill.BIG:
            (self.folder / "storage" / "big").write_bytes(random.Random(1).randbytes(self.big_bytes))

    def make(self, what: Fill) -> N8n:
        """Write n8n's folder."""
        return N8n(self.folder, mark=what.value, workflows=_COUNTS[what], credentials=_COUNTS[what]).make()

    async def write_more(self) -> None:
        self.query("UPDATE \"workflow_entity\" SET name = 'more'")
        (self.folder / "storage" / "more").write_text("more")

    async def contents(self) -> object:
        # Secrets are another text each time that they are encrypted.
        rows = self.query('SELECT id, name, nodes, active FROM "workflow_entity" ORDER BY id')
        credentials = self.query('SELECT id, name, type FROM "credentials_entity" ORDER BY id')
        files = {
            str(path.relative_to(self.folder)): digest_of(path)
            for path in self.folder.rglob("*")
            if path.is_file() and not path.relative_to(self.folder).parts[0].startswith(_OF_THE_INSTANCE)
        }
        return rows, credentials, files

    def query(self, text: str) -> list[tuple[object, ...]]:
        """Run SQL in n8n's database."""
        with N8n(self.folder).opened() as database:
            return database.execute(text).fetchall()
