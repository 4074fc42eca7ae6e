"""Uptime Kuma: its database as of one moment, in SQLite or MariaDB, with uploaded files and keys for Docker hosts.

Export reads beside the running app. Import needs the app down: a running one writes heartbeats and statistics that it
remembers of its old monitors over rows of the imported ones, without a word (measured with 1.23 and 2.5).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from agent.archives.surveying import survey
from agent.engines import tar_stream, tree
from agent.engines.comparing import Compared, compare_trees
from agent.engines.configured import checked, data_directory, read_secret
from agent.engines.kuma import layout
from agent.engines.kuma.configuration import Storage, configuration_of
from agent.engines.kuma.data import Archived, Data, Place, Verified
from agent.engines.kuma.embedded_data import EmbeddedData, until_released
from agent.engines.kuma.mariadb_data import Database, MariadbData, database_of
from agent.engines.kuma.sqlite_data import SqliteData
from agent.engines.kuma.version import KumaFacts, bridging, compared, migration_seconds
from agent.engines.mariadb.imports.exchange import Exchange as TableExchange
from agent.engines.mounts import mounts_below
from agent.engines.places import require_same_place
from agent.engines.sqlite.snapshots import remove_snapshots
from agent.engines.swapping import obstacle_to
from agent.engines.table_parts import compare_all
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
from agent.recipes.exchanges import Exchange, Together, note_staged, volume_exchange
from agent.recipes.stopped_app import NO_APP_CONTROL, StoppedExchange, expected_swap_seconds
from common.errors import AppBusyError, AppMustStopError, AppUnavailableError, ServiceError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader

TAR_ZST = Format("tar.zst", "application/zstd", ".tar.zst", "the data directory as a tar, compressed; opens with tar")
TAR_GZ = Format("tar.gz", "application/gzip", ".tar.gz", "the data directory as a tar, compressed; opens with tar")
TAR = Format("tar", "application/x-tar", ".tar", "the data directory as a tar; opens with tar")
_SURVEY_SECONDS = 2.0
_MOVED = (*layout.MOVED, layout.SERVER_DATA)


class UptimeKumaRecipe(Recipe):
    """Uptime Kuma 1 and 2 on SQLite, and 2 on MariaDB, be it a server of its own or the app's child."""

    name = "uptime-kuma"
    data_export_description = (
        "Monitors, their history, notifications, status pages, users and settings, with uploaded logos, screenshots "
        "and keys for Docker hosts, as of one moment. Passwords and tokens of notifications are in it as the app keeps "
        "them: readable. Not: db-config.json and older copies of the database."
    )
    export_formats = (TAR_ZST, TAR_GZ, TAR)
    import_formats = ("tar", "tar.gz", "tar.zst", "tar.xz", "zip", "sqlite", "sql")

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._app = surroundings.app_control
        self._settings = checked(surroundings.settings, _Settings, recipe="uptime-kuma")
        self._directory = data_directory(self._settings.directory, of="the app's data directory")
        self._exchange = StoppedExchange(self._app, self._directory, self._exchange_of)

    async def describe(self) -> Description:
        engine = ""
        try:
            data = self._data()
            engine = data.engine
            facts = await data.look()
        except ServiceError as error:
            obstacle = Capability(error.text)
            return Description(engine, can_export=obstacle, can_import=obstacle, import_needs_app_stop=True)
        return Description(
            engine=engine,
            engine_version=facts.version if facts else "",
            can_export=Capability("" if facts else f"There is no data of Uptime Kuma in {self._directory}."),
            can_import=Capability(await self._obstacle(data) or _busy_text(facts)),
            estimated_bytes=(await self._counted()).get("bytes", 0) + (facts.bytes_beside if facts else 0),
            import_needs_app_stop=True,
            warnings=(_busy_text(facts),) if facts and facts.is_migrating else (),
            details={"directory": str(self._directory), **_known(facts.details if facts else {})},
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        require_known(options.options, ("fingerprint",), what="An export of Uptime Kuma")
        data = self._data()
        progress.step(Step.PREPARING, "copying the database")
        async with data.archived(takes_fingerprint=wants_fingerprint(options.options)) as archived:
            counted = await self._counted()
            progress.expect(counted.get("bytes", 0) + archived.facts.bytes_beside)
            header = self._header(options, data.engine, archived.facts, counted)
            blocks = tar_stream.sealed(archived.blocks, header, archived.fingerprint)
            blocks = tar_stream.compressed_as(blocks, options.format.name)
            chunks = tar_stream.from_thread(blocks, name="archive uptime-kuma", interrupt=archived.interrupt)
            counts = archived.writer.counts
            counts.update(archived.facts.counts)
            async with aclosing(chunks):
                export = Export(header, chunks, counts)
                read = tar_stream.measured(chunks, read_bytes=lambda: archived.writer.read_bytes, on_read=progress.read)
                export.chunks = _told(read, archived, export)
                yield export

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        require_known(upload.options, (), what="An import into Uptime Kuma")
        data = self._data()
        if obstacle := await self._obstacle(data):
            raise AppMustStopError(obstacle) if not self._app.is_possible else AppUnavailableError(obstacle)
        now = await self._look_settled(data)
        tree.require_room(self._directory, upload.header.counts.get("bytes", 0), self._surroundings.limits)
        area = tree.StagingArea(self._directory, record.key)
        place = configuration_of(self._directory).place
        record.save(directory=str(self._directory), storage=data.storage.value, place=place, schema=_schema_of(now))
        await asyncio.to_thread(area.create)
        progress.step(Step.TRANSFERRING, "unpacking beside the present data")
        staged = await data.stage(area, upload.chunks, record.key)
        await asyncio.to_thread(self._require_inside, area)
        record.save(names=list(staged.names))
        progress.step(Step.VERIFYING, "checking the database")
        verified = await data.verify(area, record.key, now)
        after = verified.facts
        files = await self._compared_files(area, staged.has_files)
        await note_staged(record, self._directory)
        return Preview(
            changes=compared(now, after),
            counts_now={**(now.counts if now else {}), **files.now.told("files")},
            counts_after={**after.counts, **files.after.told("files")},
            items={**await self._compared_items(data, now, verified), **files.items},
            bridging=bridging(after, now),
            room_bytes=verified.size_bytes + (await asyncio.to_thread(survey, area.new, seconds=_SURVEY_SECONDS)).bytes,
            swap_seconds=expected_swap_seconds(len(staged.names)) + migration_seconds(after, now),
            warnings=(*staged.warnings, *verified.warnings),
            header=staged.header or ArchiveHeader(engine=data.engine, engine_version=after.version),
        )

    def _require_inside(self, area: tree.StagingArea) -> None:
        descriptor = area.open_new()
        try:
            layout.require_inside(descriptor, self._directory)
        finally:
            os.close(descriptor)

    async def _compared_items(self, data: Data, now: KumaFacts | None, verified: Verified) -> dict[str, ItemChanges]:
        if now is None:
            present = {kind: replace(parts, parts={}) for kind, parts in verified.parts.items()}
        else:
            present = dict(await data.parts())
        return compare_all(present, verified.parts)

    async def _compared_files(self, area: tree.StagingArea, is_exchanged: bool) -> Compared:
        """The folders beside the database; with a database alone they stay as they are."""
        staged = area.new if is_exchanged else self._directory
        compared = await compare_trees(self._directory, staged, is_left_out=layout.is_no_folder)
        return compared if is_exchanged else replace(compared, items={})

    async def restore(self, record: Record, progress: Progress) -> None:
        self._require_same_place(record, way_out="Import the file again")
        # Stopped in the middle of a migration, the previous data would be of no use to an undo.
        data = self._data()
        _require_same_schema(record, await self._look_settled(data))
        # What somebody has put beside the app's data since staging would go with the swap.
        if obstacle := await data.obstacle():
            raise AppUnavailableError(f"{obstacle} Nothing was changed.")
        await self._exchange.restore(record, progress)

    async def undo(self, record: Record, progress: Progress) -> None:
        self._require_same_place(record)
        await self._exchange.undo(record, progress)

    def _require_same_place(self, record: Record, *, way_out: str = "") -> None:
        """See that the app uses the database beside which the import was staged: another would not change.

        Args:
            way_out: what else helps than its configuration of before.
        """
        put_back = f"put {layout.CONFIGURATION} back as it was."
        require_same_place(
            record.facts,
            configuration_of(self._directory).place,
            told_by=f"its {layout.CONFIGURATION}",
            next_step=f"{way_out}; or {put_back}" if way_out else put_back.capitalize(),
        )

    async def discard(self, record: Record) -> None:
        await self._exchange.discard(record)

    async def recover(self, record: Record) -> Recovered:
        return await self._exchange.recover(record)

    async def tidy(self) -> None:
        await asyncio.to_thread(remove_snapshots, self._directory)

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        return await self._data().fingerprint()

    def _data(self) -> Data:
        """Where the app has its data now."""
        surroundings = self._surroundings
        place = Place(self._directory, surroundings.work_directory, surroundings.limits, self.name)
        match configuration_of(self._directory).type:
            case Storage.SQLITE:
                return SqliteData(place)
            case Storage.MARIADB:
                return MariadbData(place, self._database())
            case Storage.EMBEDDED_MARIADB:
                return EmbeddedData(place, Path(self._settings.client_directory))

    def _database(self) -> Database:
        ours = self._settings
        return database_of(
            configuration_of(self._directory),
            Path(ours.client_directory),
            ours.admin_user,
            read_secret(ours.admin_password_file),
        )

    async def _exchange_of(self, record: Record) -> Exchange | None:
        """What an import staged: entries of the directory, and on a MariaDB server the tables beside the app's."""
        storage = record.facts.get("storage")
        if storage == Storage.EMBEDDED_MARIADB.value:
            return await volume_exchange(
                record, self._directory, until_released=lambda: until_released(self._directory)
            )
        files = await volume_exchange(record, self._directory)
        if files is None or storage != Storage.MARIADB.value:
            return files
        # Also of what is dropped or recovered: it is in that server alone.
        self._require_same_place(record)
        database = self._database()
        return Together(TableExchange(database.require_admin(), database.name, record), files)

    async def _look_settled(self, data: Data) -> KumaFacts | None:
        """What is there now; AppBusyError while the app migrates it."""
        facts = await data.look()
        if facts and facts.is_migrating:
            raise AppBusyError(
                _busy_text(facts), next_step="Wait until the app's log says that the migration is done, then try again."
            )
        return facts

    async def _counted(self) -> dict[str, int]:
        """Files and bytes of what an export reads; empty when they are too many to be counted quickly."""
        counted = await asyncio.to_thread(
            survey, self._directory, seconds=_SURVEY_SECONDS, is_left_out=layout.is_left_out
        )
        return counted.told("files", "bytes")

    async def _obstacle(self, data: Data) -> str:
        """What stands against any import; empty when nothing does."""
        if not self._app.is_possible:
            return NO_APP_CONTROL
        if mounts := [path for path in mounts_below(self._directory) if _is_moved(path, self._directory)]:
            return f"{mounts[0]} is a mount of its own, so it cannot be exchanged with the rest of the data."
        if not os.access(self._directory, os.W_OK | os.X_OK):
            return f"The agent (uid {os.geteuid()}) may not write to the directory {self._directory}."
        if obstacle := obstacle_to(self._directory, _MOVED):
            return obstacle
        try:
            return await data.obstacle()
        except ServiceError as error:
            return error.text

    def _header(
        self, options: ExportOptions, engine: str, facts: KumaFacts, counted: Mapping[str, int]
    ) -> ArchiveHeader:
        return msgspec.structs.replace(
            self._surroundings.header_of(options, recipe=self.name),
            engine=engine,
            engine_version=facts.version,
            created_at=dt.datetime.now(dt.UTC),
            counts={**facts.counts, **counted},
            details=_known(facts.details),
        )


async def _told(chunks: AsyncGenerator[bytes, None], archived: Archived, export: Export) -> AsyncGenerator[bytes, None]:
    """The chunks; at the end the export says what there is to be warned of."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk
            del chunk
    export.fingerprint = archived.fingerprint()
    export.warnings += [*archived.facts.warnings, *archived.writer.warnings(), *archived.warnings]


def _busy_text(facts: KumaFacts | None) -> str:
    return "Uptime Kuma is migrating its database, or was interrupted at it." if facts and facts.is_migrating else ""


def _schema_of(facts: KumaFacts | None) -> str:
    """What tells that another release of the app has begun to use the data."""
    return f"{facts.generation} {len(facts.steps)} {facts.last_step}" if facts else "none"


def _require_same_schema(record: Record, facts: KumaFacts | None) -> None:
    """AppUnavailableError where what was staged was checked against another release's data than is there now."""
    if record.facts.get("schema", _schema_of(facts)) != _schema_of(facts):
        raise AppUnavailableError(
            "The app has another release's database than when this import was staged, which was checked against that "
            "one. Nothing was changed.",
            next_step="Import the file again.",
        )


def _known(details: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in details.items() if text}


def _is_moved(path: str, directory: Path) -> bool:
    return Path(path).relative_to(directory.resolve()).parts[0] in _MOVED


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    directory: str
    """The app's data directory, absolute. Where its database is stands in its `db-config.json`."""
    admin_user: str = ""
    """For an app on MariaDB: an account that may make schemas and accounts there; empty: exports only."""
    admin_password_file: str = ""
    client_directory: str = "/usr/bin"
    """Where `mariadb` and `mariadb-dump` are, and `mariadbd` for an app with a MariaDB of its own, unless that is where
    Debian has it."""
