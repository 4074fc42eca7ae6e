"""An Uptime Kuma 2 on a MariaDB server: its database as a dump, with the files of its data directory."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from agent.archives import tarblocks
from agent.archives.contents import ContentSum
from agent.archives.members import Kind, Member
from agent.archives.writing import TreeWriter
from agent.engines import tree
from agent.engines.kuma import layout
from agent.engines.kuma.configuration import Configuration, Storage
from agent.engines.kuma.data import Archived, Place, Unpacked, Verified, sum_files
from agent.engines.kuma.foreign_tables import warnings_of_export, warnings_of_import
from agent.engines.kuma.version import ASKED, COUNTED, KINDS, KumaFacts, check_upload, facts_of, queries, require_kuma
from agent.engines.mariadb import names
from agent.engines.mariadb.describing import obstacle_in
from agent.engines.mariadb.dumps.foreign import what_it_is
from agent.engines.mariadb.exports.content import TableHasher
from agent.engines.mariadb.exports.dumping import raw_dump
from agent.engines.mariadb.exports.table_watch import TableWatch
from agent.engines.mariadb.imports import loading
from agent.engines.mariadb.server.catalog import Schema, look, table_names
from agent.engines.mariadb.server.client import literal, query
from agent.engines.mariadb.server.foreign_keys import obstacle_in_referrers
from agent.engines.mariadb.server.parts import parts_of
from agent.engines.mariadb.server.settings import Login
from agent.engines.table_parts import Parts
from agent.limits import Limits
from agent.unpacking import peeked, unpacked
from common.codecs import codec_of
from common.errors import (
    AppBusyError,
    AppUnavailableError,
    ArchiveIncompatibleError,
    ArchiveWrongKindError,
    SourceUnreadableError,
)
from common.fingerprints import Fingerprint
from common.frames import CHUNK_BYTES
from common.kinds import HEAD_BYTES, SQLITE, kind_of

SCHEME = "uptime-kuma-mariadb/3"
_ALONE = "The file holds the database alone: the app's other files stay as they are, whether they belong to it or not."
_OTHER_ENGINE = "this Uptime Kuma keeps its data in MariaDB: one cannot be made of the other."


@dataclass(frozen=True)
class Database:
    """Where the app's database is: its own account, and one that may import."""

    login: Login
    admin: Login | None
    name: str

    def require_admin(self) -> Login:
        """
        Raises:
            AppUnavailableError: there is none.
        """
        if self.admin is None:
            raise AppUnavailableError(
                "This Uptime Kuma keeps its data in MariaDB; an import needs an account that may make a schema there.",
                next_step="Set `admin_user` and `admin_password_file` in the agent's settings.",
            )
        return self.admin


def database_of(found: Configuration, programs: Path, admin_user: str, admin_password: str) -> Database:
    """What the app's configuration says, and the agent's settings."""
    host = found.socket_path or found.hostname
    login = Login(host, int(found.port), found.username, found.password, programs)
    admin = Login(host, int(found.port), admin_user, admin_password, programs) if admin_user else None
    return Database(login, admin, found.db_name)


async def look_at(login: Login, name: str) -> KumaFacts | None:
    """What a database says; None when there is nothing of the app in it.

    Raises:
        SourceUnreadableError: it notes no migration, so it was restored in part; only version 2 runs on MariaDB.
    """
    tables = set(await table_names(login, name) or ())
    if "setting" not in tables:
        return None
    asked = {what: sql for what, sql in queries("`").items() if ASKED[what] in tables}
    batch = f"SELECT SUM(data_length) FROM information_schema.tables WHERE table_schema = {literal(name)};"  # noqa: S608
    batch += "".join(f"SELECT {literal('#' + what)};{sql};" for what, sql in asked.items())
    rows: dict[str, list[list[str]] | None] = dict.fromkeys(ASKED)
    current: list[list[str]] = []
    [size_bytes], *told = await query(login, batch, database=name)
    for row in told:
        if row[0].startswith("#") and row[0][1:] in asked:
            current = rows[row[0][1:]] = []
        else:
            current.append(row)
    facts = facts_of(rows)
    if facts.generation == 1:
        raise SourceUnreadableError(
            f"The database {name} notes none of Uptime Kuma's migrations: knex_migrations is empty or gone, and the "
            "app would begin them anew on tables that are there.",
            next_step="Bring that table back from where the others came from.",
        )
    return replace(facts, bytes_beside=int(size_bytes))


async def facts_of_upload(login: Login, name: str) -> KumaFacts:
    """What a loaded database says.

    Raises:
        ArchiveWrongKindError: it is not the app's.
        ArchiveIncompatibleError: the app would not start on it.
    """
    require_kuma(await table_names(login, name) or ())
    try:
        facts = await look_at(login, name)
    except SourceUnreadableError as error:
        raise ArchiveIncompatibleError(
            "The dump notes none of Uptime Kuma's migrations: knex_migrations is empty or missing in it, and the app "
            "would begin them anew on tables that are there.",
            next_step="Dump that table with its rows too.",
        ) from error
    if facts is None:
        raise ArchiveWrongKindError("The database in the file is not one of Uptime Kuma.")
    return facts


class MariadbData:
    """Implements data.Data."""

    engine = "mariadb"
    storage = Storage.MARIADB
    _tables_in: tuple[str, ...] = ()
    """Entries of the directory that hold the tables; none: they are in the server."""

    def __init__(self, place: Place, database: Database) -> None:
        self._place = place
        self._at = database

    async def look(self) -> KumaFacts | None:
        return await look_at(self._at.login, self._at.name)

    async def obstacle(self) -> str:
        admin = self._at.require_admin()
        found = obstacle_in(await look(admin, self._at.name))
        return found or await obstacle_in_referrers(admin, self._at.name)

    async def fingerprint(self) -> Fingerprint:
        tables, watch = TableHasher(), TableWatch(self._at.login, self._at.name)
        async with aclosing(self._dump(watch)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(tables.add, piece)
        if watch.doubt:
            raise AppBusyError(watch.doubt, next_step="Try again when nothing alters tables.")
        return await fingerprint_with_files(tables, self._place.directory, work_directory=self._place.work_directory)

    @asynccontextmanager
    async def archived(self, *, takes_fingerprint: bool) -> AsyncIterator[Archived]:
        place = self._place
        tables, files = (TableHasher(), ContentSum(SCHEME)) if takes_fingerprint else (None, None)
        with tempfile.TemporaryFile(dir=place.work_directory) as dump:
            await self._look_settled()
            watch = TableWatch(self._at.login, self._at.name)
            async with aclosing(self._dump(watch)) as pieces:
                async for piece in pieces:
                    if tables:
                        await asyncio.to_thread(tables.add, piece)
                    tree.require_room(place.work_directory, len(piece), place.limits)
                    await asyncio.to_thread(dump.write, piece)
            # It may have begun to migrate meanwhile.
            facts = await self._look_settled()
            if tables:
                # The app has gone on writing.
                rows = tables.rows
                facts = replace(facts, counts={name: rows.get(table, 0) for name, table in COUNTED.items()})
            warnings = warnings_of_export(await look(self._at.login, self._at.name))
            if watch.doubt:
                warnings.append(watch.doubt + (" So the export has no fingerprint." if tables else ""))
                tables = files = None
            dump.flush()
            writer = TreeWriter(
                place.directory,
                work_directory=place.work_directory,
                substitute=lambda path, status: None,
                is_left_out=layout.is_no_folder,
                content=files,
                warns_of_link=lambda path, target: layout.leaves_its_folder(path, target, place.directory),
            )
            yield Archived(
                writer,
                _blocks(dump, writer),
                facts,
                lambda: _together(tables, files) if tables and files else None,
                warnings,
            )

    async def _dump(self, watch: TableWatch) -> AsyncGenerator[bytes, None]:
        """The dump's text; ends normally only when it is whole, and of tables that kept their places.

        Raises:
            AppBusyError: at the end, some took each other's.
        """
        await watch.begin()
        async with aclosing(raw_dump(self._at.login, self._at.name)) as pieces:
            async for piece in pieces:
                yield piece
        await watch.finish({})

    async def stage(self, area: tree.StagingArea, upload: AsyncIterator[bytes], key: str) -> Unpacked:
        limits = self._place.limits
        async with unpacked(upload, limits=limits, unpack_zip=False) as content:
            head, chunks = await peeked(content.chunks, head_bytes=HEAD_BYTES)
            async with aclosing(chunks):
                if kind_of(head) == SQLITE:
                    raise ArchiveWrongKindError(f"The file is a SQLite database, and {_OTHER_ENGINE}")
                if head.strip() and not what_it_is(head):
                    await self._load(area, chunks, key)
                    return Unpacked(self._tables_in, None, has_files=False, warnings=(_ALONE,))
                report = await tree.unpack(area, chunks, self._place.orders(), is_zip=codec_of(head) == "zip")
        with opened_dump(area) as dump:
            await self._load(area, chunks_of_dump(dump), key)
        names = (*layout.FOLDERS, *self._tables_in)
        return Unpacked(names, report.header, has_files=True, warnings=tuple(report.warnings))

    async def _load(self, area: tree.StagingArea, chunks: AsyncIterator[bytes], key: str) -> None:
        """A dump into tables that the app does not see."""
        admin = self._at.require_admin()
        await load_beside(admin, await look(admin, self._at.name), chunks, key, self._place.limits)

    async def verify(self, area: tree.StagingArea, key: str, target: KumaFacts | None) -> Verified:
        admin, new = self._at.require_admin(), names.new_schema(key)
        facts = await facts_of_upload(admin, new)
        staged = await look(admin, new)
        gone = warnings_of_import(await table_names(admin, self._at.name) or (), staged.tables)
        return Verified(
            facts, [*gone, *check_upload(facts, target)], await parts_of(admin, new, KINDS), staged.size_bytes
        )

    async def parts(self) -> Mapping[str, Parts]:
        return await parts_of(self._at.login, self._at.name, KINDS)

    async def _look_settled(self) -> KumaFacts:
        facts = await self.look()
        if facts is None:
            raise SourceUnreadableError(f"There is no data of Uptime Kuma in the database {self._at.name}.")
        facts.require_settled()
        return facts


async def fingerprint_with_files(tables: TableHasher, directory: Path, *, work_directory: Path) -> Fingerprint:
    """Of tables that were read, and of the folders in the directory."""
    files = ContentSum(SCHEME)
    await sum_files(directory, files, work_directory=work_directory)
    return _together(tables, files)


def _together(tables: TableHasher, files: ContentSum) -> Fingerprint:
    return Fingerprint.of(SCHEME, {**tables.parts, **files.fingerprint().parts})


def _blocks(dump: BinaryIO, writer: TreeWriter) -> Generator[bytes, None, None]:
    """The dump, then the folders; whole blocks in sum."""
    size = os.fstat(dump.fileno()).st_size
    member = Member(name=layout.DUMP, kind=Kind.FILE, size=size, mode=0o600, mtime_ns=time.time_ns())
    yield tarblocks.header_of(member, stored_bytes=size)
    offset = 0
    while piece := os.pread(dump.fileno(), CHUNK_BYTES, offset):
        offset += len(piece)
        yield piece
    yield tarblocks.padding(size)
    yield from writer.blocks()


async def load_beside(admin: Login, schema: Schema, chunks: AsyncIterator[bytes], key: str, limits: Limits) -> None:
    """Load a dump into a schema of the import's own, made like the app's."""
    loader = await loading.make_beside(admin, schema, key)
    await loading.load(admin, loader, chunks, key=key, limits=limits)
    await loading.drop_loader(admin, key)


def opened_dump(area: tree.StagingArea) -> BinaryIO:
    """The dump of an unpacked archive; without a name from then on, since it is loaded once."""
    new = area.open_new()
    try:
        if layout.SERVER_DATA in os.listdir(new):
            raise ArchiveWrongKindError(
                f"The archive holds a MariaDB server's own files ({layout.SERVER_DATA}/): copied beside a running "
                "server they are of no one moment, and only a server of the same release reads them.",
                next_step="Export the app with this program, or archive its folders with a dump named "
                f"{layout.DUMP}, made by mariadb-dump.",
            )
        layout.require_plain(new)
        if not stat.S_ISREG(os.stat(layout.DUMP, dir_fd=new, follow_symlinks=False).st_mode):
            raise ArchiveWrongKindError(f"{layout.DUMP} in the archive is no file.")
        descriptor = os.open(layout.DUMP, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=new)
        os.unlink(layout.DUMP, dir_fd=new)
    except OSError as failure:
        raise ArchiveWrongKindError(
            f"The archive holds no {layout.DUMP}, and {_OTHER_ENGINE}",
            next_step="SQLite data goes into an app on SQLite.",
        ) from failure
    finally:
        os.close(new)
    return open(descriptor, "rb", buffering=0)


async def chunks_of_dump(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    """What `opened_dump` opened, to its end."""
    while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield piece
