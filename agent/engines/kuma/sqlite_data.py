"""The data directory of an Uptime Kuma on SQLite: looked at, archived while the app runs, checked when it comes in."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from agent.archives.contents import ContentSum
from agent.archives.writing import Substitute, TreeWriter
from agent.engines import tree
from agent.engines.filesystem import usual_owner
from agent.engines.kuma import layout
from agent.engines.kuma.configuration import Storage
from agent.engines.kuma.data import Archived, Place, Unpacked, Verified, sum_files
from agent.engines.kuma.version import ASKED, KINDS, KumaFacts, check_upload, facts_of, queries, require_kuma
from agent.engines.sqlite.bounds import size_of
from agent.engines.sqlite.programs import PROGRAMS, require_known
from agent.engines.sqlite.questions import Answers, Questions
from agent.engines.sqlite.snapshots import Snapshots, ask_database
from agent.engines.sqlite.uploads import absorb_changes, check_database
from agent.engines.table_parts import Parts
from agent.unpacking import peeked, unpacked
from common.codecs import codec_of
from common.errors import (
    AppBusyError,
    ArchiveWrongKindError,
    SourceUnreadableError,
    ToolFailedError,
)
from common.fingerprints import Fingerprint
from common.kinds import HEAD_BYTES, JSON, MARIADB_SQL, MYSQL_SQL, SQLITE, kind_of

SCHEME = "uptime-kuma/3"


class SqliteData:
    """Implements data.Data."""

    engine = "sqlite"
    storage = Storage.SQLITE

    def __init__(self, place: Place) -> None:
        self._place = place
        self._directory = place.directory
        self._database = place.directory / layout.DATABASE

    async def look(self) -> KumaFacts | None:
        try:
            _require_file(self._database, os.lstat(self._database))
        except FileNotFoundError:
            return None
        return facts_of(
            (await ask_database(self._directory, layout.DATABASE, Questions({**queries(), **PROGRAMS}))).rows
        )

    async def obstacle(self) -> str:
        return ""

    async def fingerprint(self) -> Fingerprint:
        place, content = self._place, ContentSum(SCHEME)
        answers = await ask_database(self._directory, layout.DATABASE, Questions(with_content=True))
        async with Snapshots(place.directory, work_directory=place.work_directory, limits=place.limits) as snapshots:
            await sum_files(
                place.directory,
                content,
                work_directory=place.work_directory,
                substitute=snapshots.substitute,
                interrupt=snapshots.interrupt,
            )
        return _together(answers.content, content)

    @asynccontextmanager
    async def archived(self, *, takes_fingerprint: bool) -> AsyncIterator[Archived]:
        place = self._place
        content = ContentSum(SCHEME, without=layout.DATABASE) if takes_fingerprint else None
        questions = Questions({**queries(), **PROGRAMS}, with_content=takes_fingerprint)
        async with Snapshots(place.directory, work_directory=place.work_directory, limits=place.limits) as snapshots:
            copy, answers = await _copied(place.directory, snapshots, questions)
            facts = facts_of(answers.rows)
            facts.require_settled()
            writer = TreeWriter(
                place.directory,
                work_directory=place.work_directory,
                substitute=lambda path, status: copy if path == layout.DATABASE else snapshots.substitute(path, status),
                is_left_out=layout.is_left_out,
                content=content,
                warns_of_link=lambda path, target: layout.leaves_its_folder(path, target, place.directory),
            )
            tables: dict[str, str] = {}

            def blocks() -> Generator[bytes, None, None]:
                yield from _with_database(writer)
                if takes_fingerprint:
                    tables.update(snapshots.content(layout.DATABASE))

            yield Archived(
                writer,
                blocks(),
                facts,
                lambda: _together(tables, content) if content else None,
                snapshots.warnings,
                snapshots.interrupt,
            )

    async def stage(self, area: tree.StagingArea, upload: AsyncIterator[bytes], key: str) -> Unpacked:
        limits = self._place.limits
        async with unpacked(upload, limits=limits, unpack_zip=False) as content:
            head, chunks = await peeked(content.chunks, head_bytes=HEAD_BYTES)
            async with aclosing(chunks):
                kind = kind_of(head)
                _refuse_others(kind)
                if kind == SQLITE:
                    await _store_database(area, chunks, self._place)
                    return Unpacked(layout.DATABASE_FILES, None, has_files=False, warnings=(_alone("file"),))
                report = await tree.unpack(area, chunks, self._place.orders(), is_zip=codec_of(head) == "zip")
        descriptor = area.open_new()
        try:
            await asyncio.to_thread(layout.settle, descriptor)
            has_folders = report.header is not None or bool(set(layout.FOLDERS) & set(os.listdir(descriptor)))
        finally:
            os.close(descriptor)
        if not has_folders:
            return Unpacked(
                layout.DATABASE_FILES, report.header, has_files=False, warnings=(*report.warnings, _alone("archive"))
            )
        return Unpacked(layout.MOVED, report.header, has_files=True, warnings=tuple(report.warnings))

    async def parts(self) -> Mapping[str, Parts]:
        try:
            return (await ask_database(self._directory, layout.DATABASE, Questions(kinds=KINDS))).parts
        except SourceUnreadableError:
            return {}

    async def verify(self, area: tree.StagingArea, key: str, target: KumaFacts | None) -> Verified:
        database = area.new / layout.DATABASE
        warnings: list[str] = []
        if any(size_of(area.new / name) for name in layout.DATABASE_FILES[1:]):
            await absorb_changes(database)
            warnings.append(
                "The archive holds the database in several files, as they lie on disk. If they were copied while the "
                "app wrote to them, the newest of its rows may be missing or mixed up."
            )
        await asyncio.to_thread(layout.remove_sidecars, area.new)
        questions = Questions({**queries(), **PROGRAMS}, tables=frozenset(ASKED.values()), kinds=KINDS)
        found = await check_database(database, questions=questions)
        require_kuma(found.tables)
        facts = facts_of(found.answers.rows)
        require_known(facts.programs, target.programs if target else {}, "Uptime Kuma")
        return Verified(facts, [*warnings, *check_upload(facts, target)], found.answers.parts)


async def fingerprint_of_staged(new: Path, *, work_directory: Path) -> Fingerprint:
    """The content of an unpacked archive that was verified; its database is read in a jail."""
    found = await check_database(new / layout.DATABASE, questions=Questions(with_content=True))
    content = ContentSum(SCHEME)
    await sum_files(new, content, work_directory=work_directory)
    return _together(found.answers.content, content)


def _with_database(writer: TreeWriter) -> Generator[bytes, None, None]:
    yield from writer.blocks()
    if writer.counts["databases"] < 1:
        raise AppBusyError("The app's database was exchanged while it was archived.", next_step="Export again.")


def _require_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SourceUnreadableError(
            f"{path.name} in {path.parent} is a link or something else that is no file, and so no database of the app.",
            next_step="Put the file itself in its place.",
        )


async def _copied(directory: Path, snapshots: Snapshots, questions: Questions) -> tuple[Substitute, Answers]:
    path = directory / layout.DATABASE
    try:
        status = os.lstat(path)
    except OSError as failure:
        raise SourceUnreadableError(
            f"There is no {layout.DATABASE} in {directory} to be exported.",
            next_step="See that the setting `directory` is the app's data directory and that the app was set up.",
        ) from failure
    _require_file(path, status)
    copy = await snapshots.take(layout.DATABASE, status, questions)
    answers = snapshots.answers.get(layout.DATABASE)
    if copy is None or answers is None or not answers.rows:
        raise SourceUnreadableError(
            f"SQLite finds {layout.DATABASE} damaged, so that nothing an import could take would come of it.",
            next_step="Repair it with `sqlite3 kuma.db .recover`; the recipe `volume` exports it as it is.",
        )
    return copy, answers


async def _store_database(area: tree.StagingArea, chunks: AsyncIterator[bytes], place: Place) -> None:
    new = area.open_new()
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        database = os.open(layout.DATABASE, flags, 0o600, dir_fd=new)
    finally:
        os.close(new)
    try:
        await tree.spool(database, chunks, area, place.limits)
        if os.geteuid() == 0:
            os.fchown(database, *usual_owner(place.directory))
        present = place.directory / layout.DATABASE
        os.fchmod(database, stat.S_IMODE(present.stat().st_mode) & 0o666 if present.exists() else 0o600)
    except OSError as failure:
        raise ToolFailedError(f"The database could not be given to the app's user: {failure.strerror}.") from failure
    finally:
        os.close(database)


def _refuse_others(kind: str) -> None:
    """Say what it is where the tar reader could only say that it is no archive."""
    if kind in (MARIADB_SQL, MYSQL_SQL):
        raise layout.dump_for_sqlite(f"The file is {kind}")
    if kind == JSON:
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


def _together(tables: Mapping[str, str], files: ContentSum) -> Fingerprint:
    parts = {f"table {name}": said for name, said in tables.items()}
    return Fingerprint.of(SCHEME, {**parts, **files.fingerprint().parts})
