"""What the contract suite wants of an app, whatever its kind: to fill it, to look at it, to break it.

A row of the suite is one subclass, beside the real app or server that it drives. To know when writing one: `contents`
looks at the app by its own means (a client, a directory listing) where that is possible, not by the recipe's.
"""

from __future__ import annotations

import abc
import asyncio
import enum
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from agent.recipes.base import Recipe
from agent.settings import AppSettings
from common.headers import Receipt
from tools.servers.local_server import LocalServer

Server = TypeVar("Server", bound=LocalServer)


class Fill(enum.Enum):
    """What an app is filled with; `OLD` and `NEW` have names in common with other content, and names of their own."""

    EMPTY = "empty"
    OLD = "old"
    NEW = "new"
    BIG = "big"


@dataclass
class Archive:
    """An export with its end frame, and what the app held when it was made."""

    file: bytes
    contents: object
    receipt: Receipt


class AppUnderTest(abc.ABC):
    """One app that stays for all tests of a module.

    Attributes:
        settings: of the recipe.
        app: the commands that stop and start the app, for recipes that need it down.
        archives: made so far; see `Agent.archive`.
    """

    recipe: ClassVar[type[Recipe]]
    big_bytes: ClassVar[int] = 24 << 20
    """Of incompressible content in `Fill.BIG`: more than any buffer on the way."""
    new_counts: ClassVar[Mapping[str, int]]
    """What a preview has to count in `Fill.NEW`; it may count more."""
    export_options: ClassVar[Mapping[str, str]] = {}
    takes_fingerprints: ClassVar[bool] = True
    """Exports have one with `export_options`, and the recipe takes one of the app."""
    parses_in_a_child: ClassVar[bool] = True
    """Uploads are read by a child process while they arrive."""
    kills_apart: ClassVar[int] = 1
    """An agent is killed at every so many-th moment, and in `make test` at each third of those; more than 1 where each
    takes a second or two and the mechanism is killed elsewhere too. Not 2: moments come in pairs, before and after a
    line of the journal."""
    wrong_files: ClassVar[Mapping[str, bytes]] = {}
    """What the recipe has to refuse beside `suite.WRONG_FILES`, by what it is."""
    names_kinds: ClassVar[bool] = True
    """It says of any file of a known kind what it is; see common/kinds.py."""
    right_files: ClassVar[frozenset[str]] = frozenset()
    """Those of `suite.WRONG_FILES` that it takes."""

    def __init__(self, settings: dict[str, object], app: AppSettings | None = None) -> None:
        self.settings = settings
        self.app = app
        self.archives: dict[Fill, Archive] = {}

    @property
    def formats(self) -> Sequence[str]:
        """Those of the recipe's exports whose import replaces all that the app holds."""
        return [found.name for found in self.recipe.export_formats]

    @abc.abstractmethod
    async def fill(self, what: Fill) -> None:
        """Have the app hold this and nothing else."""

    @abc.abstractmethod
    async def write_more(self) -> None:
        """Write into the app what was not there before, and change what was."""

    @abc.abstractmethod
    async def contents(self) -> object:
        """All that the app holds, comparable by `==`."""

    @abc.abstractmethod
    def leftovers(self) -> list[str]:
        """What is of ours in the app, or near it, and whatever else an import must not leave, such as a stopped app."""

    @abc.abstractmethod
    async def remove_kept(self, work_directory: Path) -> None:
        """Remove by hand what an import keeps of the previous data.

        Args:
            work_directory: the agent's.
        """

    async def crash(self) -> None:  # noqa: B027  # an app of files alone has no server
        """Kill the app's server with SIGKILL, and start it again."""

    @abc.abstractmethod
    @asynccontextmanager
    async def unreadable(self) -> AsyncIterator[None]:
        """Exports cannot be made in the block."""
        yield

    @abc.abstractmethod
    @asynccontextmanager
    async def unswappable(self) -> AsyncIterator[None]:
        """What is staged cannot be swapped in, in the block."""
        yield


class AppSwitch:
    """The commands of an app that is stopped for a swap: it runs as long as a file is there.

    Real commands, so that an agent in another process stops the same app.
    """

    def __init__(self, directory: Path) -> None:
        self._running = directory / "app runs"
        self._stuck = directory / "app cannot be stopped"
        self._running.touch()

    @property
    def settings(self) -> AppSettings:
        stop = f'test ! -e "{self._stuck}" && rm -f "{self._running}"'
        return AppSettings(stop=("/bin/sh", "-c", stop), start=("/usr/bin/touch", str(self._running)))

    @asynccontextmanager
    async def stuck(self) -> AsyncIterator[None]:
        """The app does not stop in the block."""
        self._stuck.touch()
        try:
            yield
        finally:
            self._stuck.unlink()

    def leftovers(self) -> list[str]:
        return [] if self._running.exists() else ["the app is stopped"]


class FolderApp(AppUnderTest):
    """An app of a folder, that is stopped for a swap.

    Attributes:
        folder: its data; filled by the subclass.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._switch = AppSwitch(folder.parent)
        super().__init__({"directory": str(folder)}, self._switch.settings)

    async def remove_kept(self, work_directory: Path) -> None:
        shutil.rmtree(self.folder / ".mathison-data")

    def leftovers(self) -> list[str]:
        return [".mathison-data"] * os.path.lexists(self.folder / ".mathison-data") + self._switch.leftovers()

    @asynccontextmanager
    async def unreadable(self) -> AsyncIterator[None]:
        away = self.folder.rename(self.folder.with_name("away"))
        try:
            yield
        finally:
            away.rename(self.folder)

    @asynccontextmanager
    async def unswappable(self) -> AsyncIterator[None]:
        async with self._switch.stuck():
            yield


class ServerApp(AppUnderTest, Generic[Server]):
    """An app whose data is in a server of ours, which can neither be read nor changed while it is down."""

    def __init__(self, server: Server, settings: dict[str, object]) -> None:
        self.server = server
        super().__init__(settings)

    async def crash(self) -> None:
        async with self.unreadable():
            pass

    @asynccontextmanager
    async def unreadable(self) -> AsyncIterator[None]:
        self.server.kill()
        try:
            yield
        finally:
            await asyncio.to_thread(self.server.start)

    @asynccontextmanager
    async def unswappable(self) -> AsyncIterator[None]:
        async with self.unreadable():
            yield
