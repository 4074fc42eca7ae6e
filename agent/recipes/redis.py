"""Redis and Valkey: the server's own snapshot out, and one swapped in while it runs.

Export is a replication client: the server forks, serves on, and sends an RDB. Import checks an RDB to its last byte
first, then has the server copy it from us as its replica beside the old data; clients that write wait for that time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from agent.engines.rdb.child import Look
from agent.engines.rdb.content import RdbContent
from agent.engines.redis.comparing import KeyDigests, compare_keys
from agent.engines.redis.connection import connect
from agent.engines.redis.describing import describe
from agent.engines.redis.durable import Keeping, find_keeping, why_by_file
from agent.engines.redis.exporting import Dump, dumping, fingerprint, has_leftovers, put_back_leftovers
from agent.engines.redis.facts import ServerFacts
from agent.engines.redis.facts import look as look_at
from agent.engines.redis.obstacles import renamed_warnings, require_importable, require_rights
from agent.engines.redis.preview import compare, counts_of
from agent.engines.redis.settings import read_settings
from agent.engines.redis.staging import receive
from agent.engines.redis.swap import Swap
from agent.engines.redis.swap_record import Aim, SwapRecord
from agent.options import require_known
from agent.recipes.base import (
    Capability,
    Description,
    Export,
    ExportOptions,
    Format,
    ItemChanges,
    Preview,
    Progress,
    Recipe,
    Record,
    Recovered,
    Step,
    Surroundings,
    Upload,
    wants_fingerprint,
)
from agent.steps import Unwatched
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader

RDB = Format("rdb", "application/octet-stream", ".rdb", "snapshot; opens with redis-server, as its dump.rdb")
RDB_GZIP = Format("rdb.gz", "application/gzip", ".rdb.gz", "snapshot, compressed; opens with gunzip and redis-server")
_RECOVERED = {Aim.IMPORTED: Recovered.IMPORTED, Aim.PREVIOUS: Recovered.PREVIOUS}


class RedisRecipe(Recipe):
    """One Redis (6.2 to 8.2) or Valkey (8 and 9) server with all its databases."""

    name = "redis"
    data_export_description = (
        "All databases of the server as of one moment: keys of every type with their times to live, streams with their "
        "consumer groups, functions, data of modules. Not: users and passwords (ACL), settings, scripts loaded with "
        "SCRIPT LOAD, messages of pub/sub."
    )
    export_formats = (RDB, RDB_GZIP)
    import_formats = ("rdb",)
    journal_versions = (1, 2)

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._settings = read_settings(surroundings.settings)

    async def describe(self) -> Description:
        found = await describe(self._settings, self._surroundings.work_directory)
        return Description(
            engine=found.engine,
            engine_version=found.engine_version,
            can_export=Capability(found.export_obstacle),
            can_import=Capability(found.import_obstacle),
            estimated_bytes=found.estimated_bytes,
            warnings=found.warnings,
            details=found.details,
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        require_known(options.options, ("fingerprint",), what="An export of Redis")
        look = None
        if options.options.get("fingerprint"):
            look = Look.SUM if wants_fingerprint(options.options) else Look.COUNT
        async with dumping(
            self._settings,
            progress,
            work_directory=self._surroundings.work_directory,
            is_compressed=options.format is RDB_GZIP,
            look=look,
        ) as dump:
            export = Export(header=dump.header, chunks=dump.chunks, counts=dump.counts, warnings=dump.warnings)
            export.chunks = _proven(dump, export)
            yield export

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        return await fingerprint(self._settings, progress, work_directory=self._surroundings.work_directory)

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        require_known(upload.options, (), what="An import into Redis")
        progress.step(Step.PREPARING)
        async with connect(self._settings.login()) as connection:
            server = await look_at(connection)
            await put_back_leftovers(connection, self._surroundings.work_directory, run_id=server.run_id)
            await require_importable(connection, server)
            keeping = await find_keeping(connection, server, work_directory=self._surroundings.work_directory)
            by_file = await why_by_file(connection, server)
            await require_rights(connection, record.key, saves=bool(by_file) or keeping is Keeping.SNAPSHOTS)
        staged = self._swap_record(record)
        content = await receive(upload.chunks, staged, server, self._settings, self._surroundings.limits)
        async with connect(self._settings.login()) as connection:
            server = await look_at(connection)
            renamed = await renamed_warnings(connection, server)
        found = compare(server, content, keeping=keeping, by_file=by_file)
        keys = await compare_keys(
            server,
            content,
            staged.staged_path,
            self._settings,
            work_directory=self._surroundings.work_directory,
        )
        return Preview(
            changes=found.changes,
            counts_now=found.counts_now,
            counts_after=found.counts_after,
            items=_items(server, content, keys),
            bridging=found.bridging,
            room_bytes=found.room_bytes,
            swap_seconds=found.swap_seconds,
            warnings=(*found.warnings, *renamed),
            header=_header_of(content),
        )

    async def restore(self, record: Record, progress: Progress) -> None:
        await self._swap(record, progress).restore()
        self._swap_record(record).remove_files(previous=False)

    async def undo(self, record: Record, progress: Progress) -> None:
        await self._swap(record, progress).undo()
        self._swap_record(record).remove_files()

    async def discard(self, record: Record) -> None:
        self._swap_record(record).remove_files()

    async def recover(self, record: Record) -> Recovered:
        return _RECOVERED[await self._swap(record, Unwatched()).recover()]

    async def tidy(self) -> None:
        if not has_leftovers(self._surroundings.work_directory):
            return
        async with connect(self._settings.login()) as connection:
            server = await look_at(connection)
            await put_back_leftovers(connection, self._surroundings.work_directory, run_id=server.run_id)

    def _swap(self, record: Record, progress: Progress) -> Swap:
        free_bytes = self._surroundings.limits.free_bytes
        return Swap(self._settings, self._swap_record(record), progress, free_bytes=free_bytes)

    def _swap_record(self, record: Record) -> SwapRecord:
        return SwapRecord(record, self._surroundings.work_directory)


async def _proven(dump: Dump, export: Export) -> AsyncGenerator[bytes, None]:
    """The archive; at its end the export has its fingerprint."""
    async with aclosing(dump.chunks):
        async for chunk in dump.chunks:
            yield chunk
            del chunk
    export.fingerprint = dump.fingerprint


def _items(
    server: ServerFacts, content: RdbContent, compared: tuple[KeyDigests, KeyDigests] | None
) -> dict[str, ItemChanges]:
    """Keys by database; where they were not compared, those databases that are empty on one side."""
    items, keys_after = {}, content.staying
    for number in sorted({*server.keys, *keys_after}):
        if compared is not None:
            now, after = (digests.get(number, {}) for digests in compared)
            items[f"keys of database {number}"] = ItemChanges.between(now, after)
        elif number not in keys_after or number not in server.keys:
            items[f"keys of database {number}"] = ItemChanges(
                added=keys_after.get(number, 0), removed=server.keys.get(number, 0)
            )
    return items


def _header_of(content: RdbContent) -> ArchiveHeader:
    """What is known of a file, whoever made it."""
    return ArchiveHeader(
        format=RDB.name,
        engine="valkey" if content.header.writer.startswith("Valkey") else "redis",
        engine_version=content.header.writer.partition(" ")[2],
        created_at=_moment(content.fields.get("ctime", "")),
        counts=counts_of(content),
        details={"rdb_version": content.header.magic},
    )


def _moment(seconds: str) -> dt.datetime | None:
    """Of seconds since 1970 as a file says them; None for what no calendar has."""
    try:
        return dt.datetime.fromtimestamp(int(seconds), dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None
