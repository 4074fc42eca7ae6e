"""PostgreSQL: one logical dump of one database, loaded beside the live one and swapped in by renaming.

Export reads a single snapshot while the app goes on writing. Import changes nothing before the swap; the swap is one
transaction and can be undone. Who may not make databases imports within the app's own, see `same_database`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from agent.engines.pg.beside import Beside, LoadSurroundings
from agent.engines.pg.clients import Clients
from agent.engines.pg.describing import describe
from agent.engines.pg.dump import DumpForm
from agent.engines.pg.exporting import export_database
from agent.engines.pg.settings import read_settings
from agent.engines.pg.ways import Plan, Way, make_plan
from agent.recipes.base import (
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
)
from common.errors import AppUnavailableError, InvalidRequestError

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
        return await describe(self._settings, self._clients)

    def export_data(self, options: ExportOptions, progress: Progress) -> AbstractAsyncContextManager[Export]:
        database = _only_option(options.options, "database") or self._settings.database
        admin = self._settings.admin_login()
        readers = [self._settings.app_login(), *([admin] if admin else [])]
        return export_database(
            [reader.to(database) for reader in readers],
            options,
            progress,
            form=DumpForm(options.format.name),
            clients=self._clients,
            made_by=self._surroundings.made_by,
        )

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        _only_option(upload.options, None)
        progress.step(Step.PREPARING)
        plan = await make_plan(self._settings)
        if plan.obstacle:
            raise AppUnavailableError(plan.obstacle)
        record.save(way=plan.way.value)
        return await self._beside(plan).stage(upload, record.key, progress, self._load_surroundings())

    async def restore(self, record: Record, progress: Progress) -> None:
        progress.step(Step.RESTORING)
        await (await self._way_of(record)).restore(record.key)

    async def undo(self, record: Record, progress: Progress) -> None:
        progress.step(Step.UNDOING)
        await (await self._way_of(record)).undo(record.key)

    async def discard(self, record: Record) -> None:
        if "way" in record.facts:
            await (await self._way_of(record)).discard(record.key)

    async def recover(self, record: Record) -> Recovered:
        return await (await self._way_of(record)).recover(record.key)

    async def _way_of(self, record: Record) -> Beside:
        """The way that an import began; what it made is found by the import's key."""
        plan = await make_plan(self._settings)
        if plan.way is not Way.BESIDE:
            raise AppUnavailableError(plan.obstacle)
        return self._beside(plan)

    def _beside(self, plan: Plan) -> Beside:
        return Beside(plan, self._surroundings.app_id)

    def _load_surroundings(self) -> LoadSurroundings:
        ours = self._surroundings
        return LoadSurroundings(self._clients, ours.work_directory, ours.limits, self._settings.load_sessions)


def _only_option(options: Mapping[str, str], name: str | None) -> str | None:
    """The one option that there is; InvalidRequestError for any other."""
    if unknown := sorted(options.keys() - {name}):
        raise InvalidRequestError(f"Recipe postgresql has no option {unknown[0]!r} here.")
    return options.get(name) if name else None
