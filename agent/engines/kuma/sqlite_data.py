"""The data directory of an Uptime Kuma on SQLite: looked at, archived while the app runs, checked when it comes in."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.archives.members import SQLITE_MAGIC
from agent.archives.walking import walk
from agent.archives.writing import Substitute, TreeWriter
from agent.engines import tree, verifying
from agent.engines.filesystem import usual_owner
from agent.engines.kuma import layout
from agent.engines.kuma.version import KumaFacts, check_upload, facts_of, queries, require_kuma
from agent.engines.sqlite import Answers, Questions, Snapshots, absorb_changes, ask_database, check_database
from agent.limits import Limits
from agent.unpacking import peeked, unpacked
from common.codecs import codec_of
from common.errors import (
    ArchiveWrongKindError,
    LimitExceededError,
    SourceUnreadableError,
    ToolFailedError,
)
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader

SCHEME = "uptime-kuma/1"
_CHECK_SECONDS = 600.0
"""For all that SQLite has to look at in an upload: a hostile one could keep it busy for ever."""
_HEAD_BYTES = 64
_SQL_BEGINNINGS = (b"/*M!999999", b"-- MariaDB dump", b"-- MySQL dump")


@dataclass(frozen=True)
class Archived:
    """An archive that is about to flow: the writer of its members, and what the database in it says."""

    writer: TreeWriter
    snapshots: Snapshots
    facts: KumaFacts
    fingerprint: Fingerprint


@dataclass(frozen=True)
class Unpacked:
    """An upload as it lies beside the app's data.

    Attributes:
        names: what of it takes part in the exchange.
        files: number of files besides the database.
    """

    names: tuple[str, ...]
    header: ArchiveHeader | None
    files: int
    warnings: tuple[str, ...]


async def look(directory: Path) -> KumaFacts | None:
    """What the app's database says; None when there is none.

    Raises:
        SourceUnreadableError: it cannot be read.
    """
    if not (directory / layout.DATABASE).exists():
        return None
    return facts_of((await ask_database(directory / layout.DATABASE, Questions(queries()))).rows)


async def fingerprint(directory: Path) -> Fingerprint:
    """The content of the app's database and files as they are now."""
    answers = await ask_database(directory / layout.DATABASE, Questions(with_content=True))
    return await _fingerprint(directory, answers)


@asynccontextmanager
async def archived(directory: Path, *, work_directory: Path, limits: Limits) -> AsyncIterator[Archived]:
    """Copy the database as of one moment, and say what is to be archived.

    Raises:
        SourceUnreadableError: there is no database, it is damaged, or half-way through a migration.
    """
    questions = Questions(queries(), with_content=True)
    async with Snapshots(directory, work_directory=work_directory, limits=limits, questions=questions) as snapshots:
        copy, answers = await _copied(directory, snapshots)
        facts = facts_of(answers.rows)
        if facts.is_migrating:
            raise SourceUnreadableError(
                "Uptime Kuma is migrating its database, or was interrupted at it: an export of it could not be used.",
                next_step="Wait until its log says that the migration is done. If it was interrupted, the app's "
                "extra/reset-migrate-aggregate-table-state.js repairs it.",
            )
        writer = TreeWriter(
            directory,
            work_directory=work_directory,
            substitute=lambda path, status: copy if path == layout.DATABASE else snapshots.substitute(path, status),
            is_left_out=layout.is_left_out,
        )
        writer.counts.update(facts.counts)
        yield Archived(writer, snapshots, facts, await _fingerprint(directory, answers))


async def unpack(
    area: tree.StagingArea,
    upload: AsyncIterator[bytes],
    *,
    recipe: str,
    directory: Path,
    work_directory: Path,
    limits: Limits,
) -> Unpacked:
    """Put an upload beside the app's data: an archive of a data directory, or a database alone.

    Raises:
        ArchiveError: by class.
        NoSpaceError, LimitExceededError: it is too much.
        Whatever the upload raises.
    """
    owner = usual_owner(directory)
    async with unpacked(upload, limits=limits, unpack_zip=False) as content:
        head, chunks = await peeked(content.chunks, least_bytes=_HEAD_BYTES)
        async with aclosing(chunks):
            _refuse_others(head)
            if head.startswith(SQLITE_MAGIC):
                await _store_database(area, chunks, directory=directory, owner=owner, limits=limits)
                return Unpacked(layout.DATABASE_FILES, None, 0, (_alone("file"),))
            orders = tree.Orders(
                recipe=recipe,
                limits=limits,
                owner=owner,
                default_owner=owner,
                inside=directory,
                work_directory=work_directory,
            )
            report = await tree.unpack(area, chunks, orders, is_zip=codec_of(head) == "zip")
    warnings = verifying.check_links(report.extracted, present=directory, keep=False)
    descriptor = area.open_new()
    try:
        await asyncio.to_thread(layout.settle, descriptor)
        has_folders = report.header is not None or bool(set(layout.FOLDERS) & set(os.listdir(descriptor)))
    finally:
        os.close(descriptor)
    return Unpacked(
        layout.MOVED if has_folders else layout.DATABASE_FILES,
        report.header,
        report.extracted.files - 1,
        (*warnings, *(() if has_folders else (_alone("archive"),))),
    )


async def verify(new: Path, target: KumaFacts | None) -> tuple[KumaFacts, list[str]]:
    """Look at an unpacked database and judge whether the app can take it; what it says, and what to warn of.

    Raises:
        ArchiveError: by class.
    """
    database = new / layout.DATABASE
    warnings: list[str] = []
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            if any(_has_content(new / name) for name in layout.DATABASE_FILES[1:]):
                await absorb_changes(database)
                warnings.append(
                    "The archive holds the database in several files, as they lie on disk. If they were copied while "
                    "the app wrote to them, the newest of its rows may be missing or mixed up."
                )
            await asyncio.to_thread(layout.remove_sidecars, new)
            found = await check_database(database, questions=Questions(queries()))
    except TimeoutError:
        raise LimitExceededError(f"SQLite did not get through the database in {_CHECK_SECONDS:.0f} seconds.") from None
    require_kuma(found.tables)
    facts = facts_of(found.answers.rows)
    return facts, [*warnings, *check_upload(facts, target)]


async def _copied(directory: Path, snapshots: Snapshots) -> tuple[Substitute, Answers]:
    path = directory / layout.DATABASE
    try:
        status = os.lstat(path)
    except OSError as failure:
        raise SourceUnreadableError(
            f"There is no {layout.DATABASE} in {directory} to be exported.",
            next_step="See that the setting `directory` is the app's data directory and that the app was set up.",
        ) from failure
    copy = await snapshots.take(layout.DATABASE, status) if stat.S_ISREG(status.st_mode) else None
    answers = snapshots.answers.get(layout.DATABASE)
    if copy is None or answers is None or not answers.rows:
        raise SourceUnreadableError(
            f"SQLite finds {layout.DATABASE} damaged, so that nothing an import could take would come of it.",
            next_step="Repair it with `sqlite3 kuma.db .recover`; the recipe `volume` exports it as it is.",
        )
    return copy, answers


async def _store_database(
    area: tree.StagingArea,
    chunks: AsyncIterator[bytes],
    *,
    directory: Path,
    owner: tuple[int, int],
    limits: Limits,
) -> None:
    new = area.open_new()
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        database = os.open(layout.DATABASE, flags, 0o600, dir_fd=new)
    finally:
        os.close(new)
    try:
        await tree.spool(database, chunks, area, limits)
        if os.geteuid() == 0:
            os.fchown(database, *owner)
        present = directory / layout.DATABASE
        os.fchmod(database, stat.S_IMODE(present.stat().st_mode) & 0o666 if present.exists() else 0o600)
    except OSError as failure:
        raise ToolFailedError(f"The database could not be given to the app's user: {failure.strerror}.") from failure
    finally:
        os.close(database)


def _refuse_others(head: bytes) -> None:
    """Say what it is where the tar reader could only say that it is no archive."""
    if head.startswith(_SQL_BEGINNINGS):
        raise ArchiveWrongKindError(
            "The file is a dump of MariaDB or MySQL; this Uptime Kuma keeps its data in SQLite, and one cannot be made "
            "of the other.",
            next_step="Import it into an Uptime Kuma 2 that was set up with MariaDB.",
        )
    if head.lstrip().startswith(b"{"):
        raise ArchiveWrongKindError(
            "The file is JSON, perhaps a backup that Uptime Kuma 1 made in its settings: those hold monitors and "
            "notifications only, no history and no status pages.",
            next_step="Import it in the settings of an Uptime Kuma 1, or export that app's data directory.",
        )


def _alone(what: str) -> str:
    return (
        f"The {what} holds the database alone: logos, screenshots and keys for Docker hosts stay as they are in this "
        "app, whether they belong to it or not."
    )


async def _fingerprint(directory: Path, answers: Answers) -> Fingerprint:
    parts = {f"table {name}": said for name, said in answers.content.items()}
    return Fingerprint(scheme=SCHEME, parts={**parts, **await files_fingerprint(directory)})


async def files_fingerprint(directory: Path) -> dict[str, str]:
    """Parts of a fingerprint for the files beside the database, one for each folder."""
    return await asyncio.to_thread(_hash_folders, directory)


def _hash_folders(directory: Path) -> dict[str, str]:
    digests = {folder: hashlib.sha256() for folder in layout.FOLDERS}
    counts = dict.fromkeys(layout.FOLDERS, 0)
    start = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = walk(start, is_left_out=lambda path, name: layout.is_left_out(path, name, wanted=layout.FOLDERS))
        for entry in found:
            if stat.S_ISREG(entry.status.st_mode):
                folder = entry.path.partition("/")[0]
                counts[folder] += 1
                digests[folder].update(os.fsencode(entry.path) + b"\0" + _hash_file(entry.name, entry.parent))
    except OSError as failure:
        raise SourceUnreadableError(f"The app's files cannot be read: {failure.strerror}.") from failure
    finally:
        os.close(start)
    return {
        f"files {folder}": f"{counts[folder]} files, {digest.hexdigest()}"
        for folder, digest in digests.items()
        if counts[folder]
    }


def _hash_file(name: str, parent: int) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent), "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _has_content(path: Path) -> bool:
    try:
        return path.lstat().st_size > 0
    except OSError:
        return False
