"""The contract over the example of a recipe in docs/recipes/example, as other people would run it over theirs."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from tests.contract.agents import Agent
from tests.contract.app import AppUnderTest, Fill
from tests.contract.suite import ContractSuite

sys.path.append(str(Path(__file__).parents[2] / "docs" / "recipes" / "example"))
from note_file import NoteFileRecipe  # type: ignore[import-not-found]

_TEXTS = {Fill.EMPTY: "", Fill.OLD: "old\nand more\n", Fill.NEW: "new\nand more\n"}


class NoteFile(AppUnderTest):
    """A note in a directory of its own."""

    recipe = NoteFileRecipe
    new_counts: ClassVar[Mapping[str, int]] = {"lines": 2}
    big_bytes = 500_000
    """It takes a megabyte at most."""
    takes_fingerprints = False
    parses_in_a_child = False
    names_kinds = False
    right_files = frozenset({"nothing", "a text"})

    def __init__(self, directory: Path) -> None:
        self._file = directory / "note.txt"
        super().__init__({"file": str(self._file)})

    async def fill(self, what: Fill) -> None:
        text = _TEXTS.get(what) or random.Random(1).randbytes(300_000).hex() if what is Fill.BIG else _TEXTS[what]
        self._file.write_text(text)

    async def write_more(self) -> None:
        with self._file.open("a") as file:
            file.write("more\n")

    async def contents(self) -> object:
        return self._file.read_bytes()

    async def remove_kept(self, work_directory: Path) -> None:
        for name in self.leftovers():
            self._file.with_name(name).unlink()

    def leftovers(self) -> list[str]:
        return [path.name for path in self._file.parent.iterdir() if path != self._file]

    @asynccontextmanager
    async def unreadable(self) -> AsyncIterator[None]:
        directory = self._file.parent
        away = directory.rename(directory.with_name("away"))
        try:
            yield
        finally:
            away.rename(directory)

    @asynccontextmanager
    async def unswappable(self) -> AsyncIterator[None]:
        async with self.unreadable():
            yield


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> NoteFile:
    return NoteFile(tmp_path_factory.mktemp("note"))


class TestNoteFile(ContractSuite):
    """All of it, but that a text has no end of its own to be missed."""

    async def test_a_file_that_was_cut_is_refused(self, app: AppUnderTest, agent: Agent) -> None:
        file = (await agent.archive(app, Fill.NEW)).file

        await agent.import_("t-1", file[:-5])

        assert await app.contents() == file[:-5]
