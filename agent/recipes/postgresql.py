"""PostgreSQL: one logical dump of one database, loaded beside the live one and swapped in by renaming.

Export reads a single snapshot while the app goes on writing. Import changes nothing before the swap; the swap is one
transaction and can be undone. Who may not make databases imports within the app's own, see `same_database`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from agent.engines.pg.describing import describe
from agent.engines.pg.exports.exporting import DatabaseExport, export_database, find_reader
from agent.engines.pg.exports.fingerprint import fingerprint
from agent.engines.pg.imports.beside import Beside
from agent.engines.pg.imports.remains import Remains
from agent.engines.pg.imports.same_database import SameDatabase
from agent.engines.pg.imports.ways import Plan, Way, make_plan
from agent.engines.pg.loading.terms import LoadSurroundings
from agent.engines.pg.server.clients import Clients
from agent.engines.pg.server.connection import Login, connect
from agent.engines.pg.server.dump import DumpForm
from agent.engines.pg.server.settings import read_settings
from agent.engines.places import require_same_place
from agent.engines.swapping import Side
from agent.options import require_known
from agent.recipes.base import (
    Capability,
    Description,
    Export,
    ExportOptions,
    Format,
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
from agent.versions import not_read
from common.errors import AppUnavailableError, InvalidRequestError, ServiceError
from common.fingerprints import Fingerprint

SQL_GZIP = Format("sql.gz", "application/gzip", ".sql.gz", "SQL text, compressed; opens with gunzip and psql")
SQL = Format("sql", "application/sql", ".sql", "SQL text; opens with psql")
CUSTOM = Format("custom", "application/octet-stream", ".dump", "pg_dump's custom format; opens with pg_restore")


class PostgresqlRecipe(Recipe):
    """One database of a PostgreSQL server, versions 13 to 18."""

    name = "postgresql"
    data_export_description = (
        "One database: its tables, indexes, sequences, functions and large objects as of one moment. Not: roles and "
        "their passwords, owners and grants, subscriptions, tablespaces, settings of the server, other databases."
    )
    export_formats = (SQL_GZIP, SQL, CUSTOM)
    import_formats = ("sql", "custom", "tar", "directory")

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._settings = read_settings(surroundings.settings)
        self._clients = Clients(self._settings.client_paths())

    async def describe(self) -> Description:
        found = await describe(self._settings, self._clients)
        return Description(
            engine="postgresql",
            engine_version=found.version,
            can_export=Capability(found.export_obstacle),
            can_import=Capability(found.import_obstacle),
            estimated_bytes=found.estimated_bytes,
            warnings=found.warnings,
            details=found.details,
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        require_known(options.options, ("database", "fingerprint"), what="An export of PostgreSQL")
        _require_values(options.options)
        database = options.options.get("database") or self._settings.database
        async with export_database(
            self._readers(database),
            self._surroundings.header_of(options, recipe=self.name),
            progress,
            form=DumpForm(options.format.name),
            clients=self._clients,
            takes_fingerprint=wants_fingerprint(options.options),
        ) as found:
            export = Export(header=found.header, chunks=found.chunks, counts=dict(found.header.counts))
            export.chunks = _told(found, export)
            async with aclosing(export.chunks):
                yield export

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        login = await find_reader(self._readers(self._settings.database))
        async with connect(login) as connection:
            return (await fingerprint(connection)).comparable()

    def _readers(self, database: str) -> list[Login]:
        """The admin reads the app's own database only: another may be another app's, of another workspace."""
        admin = self._settings.admin_login() if database == self._settings.database else None
        return [login.to(database) for login in (self._settings.app_login(), admin) if login is not None]

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        require_known(upload.options, (), what="An import into PostgreSQL")
        progress.step(Step.PREPARING)
        plan = await make_plan(self._settings)
        if plan.loading_obstacle:
            raise AppUnavailableError(plan.loading_obstacle)
        record.save(way=plan.way.value, place=self._settings.place)
        way = self._go(plan, plan.way)
        if isinstance(way, Beside):
            remember = Remains(self._settings, record).remember
            found = await way.stage(upload.chunks, record.key, progress, remember=remember)
        else:
            found = await way.stage(upload.chunks, record.key, progress)
        return Preview(
            changes=found.changes,
            counts_now=found.counts_now,
            counts_after=found.counts_after,
            items=found.items,
            bridging=found.bridging,
            room_bytes=found.room_bytes,
            swap_seconds=found.swap_seconds,
            warnings=found.warnings,
            header=found.header,
        )

    async def restore(self, record: Record, progress: Progress) -> str | None:
        progress.step(Step.RESTORING)
        return await (await self._way_of(record)).restore(record.key, progress)

    async def undo(self, record: Record, progress: Progress) -> None:
        progress.step(Step.UNDOING)
        await (await self._way_of(record)).undo(record.key, progress)

    async def discard(self, record: Record) -> None:
        if remains := self._remains(record):
            await remains.discard()
        elif "way" in record.facts:
            await (await self._way_of(record)).discard(record.key)

    async def put_right(self, record: Record) -> ServiceError | None:
        remains = self._remains(record)
        return await remains.put_right() if remains else None

    async def recover(self, record: Record) -> Recovered:
        if remains := self._remains(record):
            is_imported = await remains.kept() is Side.PREVIOUS
        else:
            is_imported = await (await self._way_of(record)).is_imported(record.key)
        return Recovered.IMPORTED if is_imported else Recovered.PREVIOUS

    def _remains(self, record: Record) -> Remains | None:
        """Of an import beside the app's database; None for one within it, or one that has not come so far.

        Raises:
            AppUnavailableError: the settings name another database than when the file was staged.
        """
        require_same_place(record.facts, self._settings.place)
        is_beside = record.facts.get("way") == Way.BESIDE.value
        return Remains(self._settings, record) if is_beside else None

    async def _way_of(self, record: Record) -> Beside | SameDatabase:
        """The way that an import began; what it made is found by the import's key.

        Raises:
            UnknownVersionError: it is none of the ways that there are.
            As `_remains`.
        """
        require_same_place(record.facts, self._settings.place)
        try:
            way = Way(record.facts["way"])
        except ValueError as failure:
            raise not_read(f"Import {record.transfer_id}", "", str(failure)) from failure
        return self._go(await make_plan(self._settings), way)

    def _go(self, plan: Plan, way: Way) -> Beside | SameDatabase:
        ours = self._surroundings
        load = LoadSurroundings(self._clients, ours.work_directory, ours.limits, self._settings)
        if way is Way.SAME_DATABASE:
            own = replace(plan, login=self._settings.app_login())
            return SameDatabase(own, ours.app_id, load)
        if plan.way is not Way.BESIDE or plan.obstacle:
            raise AppUnavailableError(plan.obstacle or plan.warning)
        return Beside(plan, ours.app_id, load)


async def _told(found: DatabaseExport, export: Export) -> AsyncGenerator[bytes, None]:
    """The archive; at its end the export has its fingerprint, or says why not."""
    async with aclosing(found.chunks) as chunks:
        async for chunk in chunks:
            yield chunk
            del chunk
    export.warnings += found.warnings
    if found.proof is not None:
        export.fingerprint = await found.proof.fingerprint()
        export.warnings += found.proof.warnings


def _require_values(options: Mapping[str, str]) -> None:
    if empty := sorted(name for name, value in options.items() if not value):
        raise InvalidRequestError(f"The option {empty[0]} is empty; give it a value, or leave it out.")
