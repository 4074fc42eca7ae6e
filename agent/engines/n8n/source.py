"""An n8n that is read: its database as of one moment, then the files beside it, with a fingerprint of both."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.archives.contents import ContentSum
from agent.archives.links import gives_away
from agent.archives.walking import left_out_by
from agent.archives.writing import Substitute, TreeWriter
from agent.engines.n8n.exporting import member_blocks
from agent.engines.n8n.facts import (
    EXPORTED,
    EXPORTED_IN_FILE,
    OWN_PROGRAMS,
    PROVEN,
    SCHEME,
    Facts,
    facts_of,
    tables_of,
)
from agent.engines.n8n.folder import LEFT_OUT
from agent.engines.n8n.importing import DUMP
from agent.engines.n8n.settings import N8nSettings
from agent.engines.sqlite.programs import warnings_of
from agent.engines.sqlite.questions import Questions
from agent.engines.sqlite.snapshots import Snapshots
from agent.limits import Limits
from agent.steps import Progress
from common.errors import AppUnavailableError, SourceUnreadableError
from common.fingerprints import Fingerprint

if TYPE_CHECKING:
    from agent.engines.n8n.postgres import Dump, PostgresHome


@dataclass
class Opened:
    """Ready to be read, once. With a fingerprint it is taken while `blocks` are.

    Attributes:
        details: of the database, for an archive's header.
        tables: the database's part of a fingerprint; of a SQLite file once all `blocks` were taken.
        read_beside: the SQLite file that is read for it meanwhile.
    """

    facts: Facts
    details: dict[str, str]
    content: ContentSum | None = None
    tables: dict[str, str] | None = None
    dump: Dump | None = None
    writer: TreeWriter | None = None
    snapshots: Snapshots | None = None
    read_beside: str = ""

    def blocks(self) -> Iterator[bytes]:
        """The database's dump, where it has one, and the files as members of a tar."""
        if self.dump is not None:
            yield from member_blocks(DUMP, self.dump.file)
        if self.writer is not None:
            yield from self.writer.blocks()
        if self.read_beside and self.snapshots is not None:
            self.tables = tables_of(self.snapshots.content(self.read_beside))

    def interrupt(self) -> None:
        """Let the thread go that reads the blocks."""
        if self.snapshots is not None:
            self.snapshots.interrupt()

    def fingerprint(self) -> Fingerprint | None:
        """Of all that was read; None where none is taken."""
        if self.content is None or self.tables is None:
            return None
        return Fingerprint.of(SCHEME, {**self.content.fingerprint().parts, **self.tables})

    @property
    def read_bytes(self) -> int:
        return self.writer.read_bytes if self.writer else 0

    @property
    def counts(self) -> dict[str, int]:
        return {**self.facts.counts, **(self.writer.counts if self.writer else {})}

    @property
    def warnings(self) -> list[str]:
        """All that is known so far."""
        return [
            *warnings_of(self.facts.programs, OWN_PROGRAMS, "n8n"),
            *(self.dump.warnings if self.dump else ()),
            *(self.writer.warnings() if self.writer else ()),
            *(self.snapshots.warnings if self.snapshots else ()),
        ]


@dataclass(frozen=True)
class Source:
    """An n8n, running or not."""

    settings: N8nSettings
    postgres: PostgresHome | None
    work_directory: Path
    limits: Limits

    def database(self) -> Path:
        """The SQLite file; AppUnavailableError when it is not there."""
        database = (self.settings.folder or Path()) / self.settings.database_file
        if not database.is_file():
            raise AppUnavailableError(
                f"There is no database {database}.",
                next_step="Start n8n once, so that it makes one; see that directory and database_file name it.",
            )
        return database

    @asynccontextmanager
    async def opened(
        self, progress: Progress, key: str = "", *, takes_fingerprint: bool, dumps: bool = True
    ) -> AsyncIterator[Opened]:
        """Take the database as it is now: all files are read after it.

        Args:
            key: the instance's, tried on what is secret.
            dumps: False: a database in a server is fingerprinted only.
        """
        content = ContentSum(SCHEME, without=self.settings.database_file) if takes_fingerprint else None
        async with AsyncExitStack() as stack:
            snapshots = None
            if self.settings.folder is not None:
                snapshots = await stack.enter_async_context(
                    Snapshots(self.settings.folder, work_directory=self.work_directory, limits=self.limits)
                )
            if self.postgres is None:
                database, opened = await self._copied(snapshots, key, PROVEN if takes_fingerprint else EXPORTED_IN_FILE)
            else:
                database, opened = None, Opened(await self.postgres.ask(EXPORTED, key), {"database": DUMP})
                if dumps:
                    opened.dump = await stack.enter_async_context(
                        self.postgres.dumped(progress, takes_fingerprint=takes_fingerprint)
                    )
                    opened.details |= opened.dump.details
                    opened.tables = opened.dump.tables
                else:
                    opened.tables = await self.postgres.tables()
            opened.content, opened.snapshots = content, snapshots
            opened.writer = self._writer(snapshots, database, content)
            yield opened

    async def _copied(self, snapshots: Snapshots | None, key: str, questions: Questions) -> tuple[Substitute, Opened]:
        """The SQLite database as of now, and what is in it."""
        database = self.database()
        copy = await snapshots.take(database.name, database.lstat(), questions) if snapshots else None
        if copy is None or snapshots is None:
            raise SourceUnreadableError(f"SQLite cannot read n8n's database {database}.")
        answers = snapshots.answers[database.name]
        read_beside = database.name if questions.with_content else ""
        return copy, Opened(await facts_of(answers, key), {"database": database.name}, read_beside=read_beside)

    def _writer(
        self, snapshots: Snapshots | None, database: Substitute | None, content: ContentSum | None
    ) -> TreeWriter | None:
        """Of the files in n8n's folder."""
        if self.settings.folder is None or snapshots is None:
            return None

        def substitute(path: str, status: os.stat_result) -> Substitute | None:
            is_database = database is not None and path == self.settings.database_file
            return database if is_database else snapshots.substitute(path, status)

        return TreeWriter(
            self.settings.folder,
            work_directory=self.work_directory,
            substitute=substitute,
            is_left_out=left_out_by((*LEFT_OUT, *self.settings.exclude)),
            content=content,
            warns_of_link=lambda path, target: gives_away(path, target, inside=str(self.settings.folder)),
        )
