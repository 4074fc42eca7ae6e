"""What the recipe does with an app's data, whichever database it is in; `sqlite_data` and `mariadb_data` do it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.archives.contents import ContentSum
from agent.archives.writing import Substitution, TreeWriter
from agent.engines import tar_stream, tree
from agent.engines.filesystem import usual_owner
from agent.engines.kuma import layout
from agent.engines.kuma.configuration import Storage
from agent.engines.kuma.version import KumaFacts
from agent.engines.table_parts import Parts
from agent.limits import Limits
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader


@dataclass(frozen=True)
class Place:
    """Where the app's files are, and what may be used to move them."""

    directory: Path
    work_directory: Path
    limits: Limits
    recipe: str

    def orders(self) -> tree.Orders:
        """How an archive is unpacked: everything belongs to the app's user, whoever made it."""
        owner = usual_owner(self.directory)
        return tree.Orders(
            recipe=self.recipe,
            limits=self.limits,
            owner=owner,
            default_owner=owner,
            inside=self.directory,
            work_directory=self.work_directory,
        )


@dataclass(frozen=True)
class Archived:
    """An archive that is about to flow.

    Attributes:
        blocks: of a tar, without its end; taken once.
        fingerprint: of what is in them, once all were taken; None: none is taken.
        interrupt: frees the thread that takes them from what it may be waiting for.
        warnings: complete once all blocks were taken; those of `writer` come on top.
    """

    writer: TreeWriter
    blocks: Generator[bytes, None, None]
    facts: KumaFacts
    fingerprint: Callable[[], Fingerprint | None]
    warnings: Sequence[str] = ()
    interrupt: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Unpacked:
    """An upload as it lies beside the app's data.

    Attributes:
        names: which entries of the directory take part in the exchange.
        has_files: whether the folders take part; otherwise they stay as they are.
    """

    names: tuple[str, ...]
    header: ArchiveHeader | None
    has_files: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """What a staged database turned out to be.

    Attributes:
        parts: by kind, to be compared with the app's.
        size_bytes: of a database that is not among the staged files.
    """

    facts: KumaFacts
    warnings: Sequence[str]
    parts: Mapping[str, Parts]
    size_bytes: int = 0


class Data(Protocol):
    """An app's data in one kind of database. All of it raises errors of `common.errors` only."""

    engine: str
    storage: Storage

    async def look(self) -> KumaFacts | None:
        """What the app's database says; None when there is none yet."""

    async def obstacle(self) -> str:
        """What in the database stands against an import; empty when nothing does."""

    def archived(self, *, takes_fingerprint: bool) -> AbstractAsyncContextManager[Archived]:
        """A copy of the database as of one moment, and the files; SourceUnreadableError when there is none, or one that
        is damaged or half-way through a migration.
        """

    async def stage(self, area: tree.StagingArea, upload: AsyncIterator[bytes], key: str) -> Unpacked:
        """Put an upload beside the app's data. Whatever the upload raises goes through."""

    async def verify(self, area: tree.StagingArea, key: str, target: KumaFacts | None) -> Verified:
        """Judge whether the app can take what was staged."""

    async def parts(self) -> Mapping[str, Parts]:
        """What the app has now, by kind; without what cannot be told within seconds."""

    async def fingerprint(self) -> Fingerprint:
        """The content of the app's database and files as they are now."""


async def sum_files(
    directory: Path,
    content: ContentSum,
    *,
    work_directory: Path,
    substitute: Substitution = lambda path, status: None,
    interrupt: Callable[[], None] = lambda: None,
) -> None:
    """Tell `content` of all that is in the folders beside the database."""
    writer = TreeWriter(
        directory,
        work_directory=work_directory,
        substitute=substitute,
        is_left_out=layout.is_no_folder,
        content=content,
    )
    async with aclosing(
        tar_stream.from_thread(writer.blocks(), name="read uptime-kuma", interrupt=interrupt)
    ) as blocks:
        async for _ in blocks:
            pass
