"""MariaDB: one database dumped in one transaction, loaded beside the live one and swapped in by one RENAME TABLE.

Export reads while the app goes on writing. Import changes nothing before the swap, which the server does entirely or
not at all, and can be undone. Views, triggers, routines and events are made again around it, by the app's own account.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from msgspec.structs import replace

from agent.engines.mariadb import names
from agent.engines.mariadb.describing import (
    describe,
    history_obstacle,
    obstacle_in_rights,
    obstacle_with_programs,
    require_fitting_history,
    warning_of_programs,
    warnings_of,
    with_foreign_sequences,
    without_history,
)
from agent.engines.mariadb.dumps import packets
from agent.engines.mariadb.exports import lost_values
from agent.engines.mariadb.exports.content import Content
from agent.engines.mariadb.exports.dumping import dump, fingerprint_of
from agent.engines.mariadb.exports.table_watch import TableWatch
from agent.engines.mariadb.imports.comparing import bridging, compare
from agent.engines.mariadb.imports.exchange import Exchange
from agent.engines.mariadb.imports.loading import Loaded, drop_loader, load, make_beside
from agent.engines.mariadb.imports.switching import Switch, write_down_staged
from agent.engines.mariadb.server import foreign_keys, hidden_parts, programs, sequences
from agent.engines.mariadb.server.catalog import ESTIMATED_ROWS, Schema, look
from agent.engines.mariadb.server.kept_clients import keeping_clients
from agent.engines.mariadb.server.settings import Login, read_settings
from agent.engines.places import require_same_place
from agent.engines.swapping import Side
from agent.options import is_wanted, require_known
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
from agent.unsettled import UnsettledError
from common.errors import (
    AppUnavailableError,
    InvalidRequestError,
    NothingToUndoError,
    ServiceError,
    TransferNotFoundError,
)
from common.fingerprints import Fingerprint

SQL_GZIP = Format("sql.gz", "application/gzip", ".sql.gz", "SQL text, compressed; opens with gunzip and mariadb")
SQL = Format("sql", "application/sql", ".sql", "SQL text; opens with mariadb")


class MariadbRecipe(Recipe):
    """One database of a MariaDB server, or of MySQL's with its own clients."""

    name = "mariadb"
    data_export_description = (
        "One database: its tables, rows, sequences, views, triggers, routines and events as of one moment. Not: "
        "accounts and grants, settings of the server, other databases."
    )
    export_formats = (SQL_GZIP, SQL)
    import_formats = ("sql",)
    journal_versions = (1, 2)

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._settings = read_settings(surroundings.settings)

    @keeping_clients()
    async def describe(self) -> Description:
        found = await describe(self._settings)
        return Description(
            engine="mariadb" if "mariadb" in found.version.lower() or not found.version else "mysql",
            engine_version=found.version,
            can_export=Capability(found.export_obstacle),
            can_import=Capability(found.import_obstacle),
            estimated_bytes=found.estimated_bytes,
            warnings=found.warnings,
            details=found.details,
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        require_known(options.options, ("fingerprint", "history"), what="An export of MariaDB")
        progress.step(Step.PREPARING)
        login, database = self._settings.app_login(), self._settings.database
        has_history = is_wanted(options.options, "history", otherwise=False)
        async with keeping_clients():
            schema = await look(login, database)
            about_hidden = await hidden_parts.require_none(login, self._settings.admin_if_readable(), database)
            if has_history and (obstacle := history_obstacle(schema)):
                raise InvalidRequestError(obstacle, next_step="Leave out the option history.")
            lost = await lost_values.find_lost(login, database, schema, has_history=has_history)
            warnings = warnings_of(schema, has_history=has_history)
            if about_hidden:
                warnings.append(about_hidden)
            warnings += lost_values.warnings_of(lost)
            if schema.is_mariadb and (tables := await sequences.tables_with_foreign(login, database)):
                warnings.append(with_foreign_sequences(tables))
            if warning := await warning_of_programs(login, database, schema):
                warnings.append(warning)
            if warning := await foreign_keys.warning_of_parents(login, database):
                warnings.append(warning)
        # It is of present rows, as they are in any server.
        takes_fingerprint = wants_fingerprint(options.options) and not has_history
        content = Content(login, database, withheld=lost_values.withheld_for(lost)) if takes_fingerprint else None
        watch = TableWatch(login, database)
        progress.expect(schema.size_bytes)
        header = replace(
            self._surroundings.header_of(options, recipe=self.name),
            engine="mariadb" if schema.is_mariadb else "mysql",
            engine_version=schema.version,
            created_at=dt.datetime.now(dt.UTC),
            counts=schema.counts,
            details={
                "database": database,
                "charset": schema.charset,
                "collation": schema.collation,
                **({"history": "included" if has_history else "left out"} if schema.versioned else {}),
                **lost_values.details_of(lost),
            },
        )
        is_compressed = options.format.name == SQL_GZIP.name
        async with dump(
            login,
            database,
            header=header,
            is_compressed=is_compressed,
            has_history=has_history,
            content=content,
            watch=watch,
            on_read=progress.read,
        ) as chunks:
            progress.step(Step.TRANSFERRING)
            export = Export(header, chunks, dict(header.counts), warnings)
            export.chunks = _fingerprinted(export, chunks, content, schema, watch)
            yield export

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        require_known(upload.options, (), what="An import into MariaDB")
        progress.step(Step.PREPARING)
        schema, loader = await self._prepare(record)
        progress.step(Step.TRANSFERRING, "loading beside the present tables")
        loaded = await load(
            self._admin(),
            loader,
            upload.chunks,
            key=record.key,
            limits=self._surroundings.limits,
            takes_programs=True,
        )
        if loaded.has_history:
            require_fitting_history(loaded.server, schema)
        progress.step(Step.VERIFYING, "comparing with the present tables")
        return await self._compare(record, schema, loader, loaded)

    @keeping_clients()
    async def _prepare(self, record: Record) -> tuple[Schema, Login]:
        """The present database, and who loads beside it."""
        admin, app, database = self._admin(), self._settings.app_login(), self._settings.database
        schema = await look(admin, database)
        _require_none(await obstacle_with_programs(admin, app, database, schema))
        _require_none(await foreign_keys.obstacle_in_parents(admin, database))
        record.save(is_staged=True, place=self._settings.place)
        return schema, await make_beside(admin, schema, record.key)

    @keeping_clients()
    async def _compare(self, record: Record, schema: Schema, loader: Login, loaded: Loaded) -> Preview:
        """What was loaded, made ready for its place, with what is there."""
        admin, app, database = self._admin(), self._settings.app_login(), self._settings.database
        staged = await programs.take_out(loader, names.new_schema(record.key), put_into=database)
        await drop_loader(admin, record.key)
        _require_none(await obstacle_in_rights(app, database, {program.kind for program in staged}))
        must_lead_defaults = schema.is_mariadb and await sequences.lead_beforehand(
            admin, names.new_schema(record.key), put_into=database
        )
        write_down_staged(record, staged, must_lead_defaults=must_lead_defaults)
        present = await programs.read(app, database)
        found = await compare(admin, database, names.new_schema(record.key), present, staged)
        warnings = []
        if (over := loaded.events - sum(program.kind == "event" for program in staged)) > 0:
            warnings.append(f"{over} events are left out: their time has passed.")
        if loaded.modes_left_out:
            warnings.append(
                f"Triggers, routines and events are made without the sql_mode {loaded.modes_left_out}, which this kind "
                "of server does not have and goes by anyway."
            )
        if loaded.words_left_out:
            warnings.append(
                "Tables are made without what the file has for other servers than this one alone: "
                f"{loaded.words_left_out}."
            )
        staged_schema = await look(admin, names.new_schema(record.key))
        if staged_schema.versioned and not loaded.has_history:
            warnings.append(without_history(staged_schema, "file"))
        if loaded.header:
            warnings += lost_values.told_of(loaded.header.details)
        return Preview(
            found.changes,
            found.counts_now,
            found.counts_after,
            items={kind: ItemChanges.between(now, after) for kind, (now, after) in found.items.items()},
            bridging=bridging(loaded.server, schema),
            room_bytes=found.room_bytes,
            swap_seconds=found.swap_seconds,
            warnings=tuple(warnings),
            header=loaded.header,
        )

    @keeping_clients()
    async def restore(self, record: Record, progress: Progress) -> None:
        require_same_place(record.facts, self._settings.place)
        progress.step(Step.RESTORING)
        exchange = self._exchange(record)
        # What an earlier attempt did half or did entirely is no reason: bringing goes on from there.
        if await exchange.kept() is None and not await exchange.is_unfinished():
            raise TransferNotFoundError("What was staged is gone.", next_step="Import it again.")
        _require_none(await foreign_keys.obstacle_in_parents(self._admin(), self._settings.database))
        await self._bring(record, Side.IMPORTED)

    @keeping_clients()
    async def undo(self, record: Record, progress: Progress) -> None:
        require_same_place(record.facts, self._settings.place)
        progress.step(Step.UNDOING)
        if await self._exchange(record).kept() is not Side.PREVIOUS:
            raise NothingToUndoError("The schema with the previous tables is gone, or some of them.")
        await self._bring(record, Side.PREVIOUS)
        try:
            await self.discard(record)
        except ServiceError as obstacle:
            raise UnsettledError("What was imported could not be dropped yet.") from obstacle

    @keeping_clients()
    async def discard(self, record: Record) -> None:
        require_same_place(record.facts, self._settings.place)
        if record.facts.get("is_staged"):
            await self._exchange(record).drop()

    @keeping_clients()
    async def recover(self, record: Record) -> Recovered:
        require_same_place(record.facts, self._settings.place)
        return Recovered[(await self._switch(record).recover()).name]

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        progress.step(Step.TRANSFERRING)
        login, database = self._settings.app_login(), self._settings.database
        async with keeping_clients():
            await hidden_parts.require_none(login, self._settings.admin_if_readable(), database)
        return await fingerprint_of(login, database, on_read=progress.read)

    async def _bring(self, record: Record, side: Side) -> None:
        admin, app, database = self._admin(), self._settings.app_login(), self._settings.database
        _require_none(await obstacle_with_programs(admin, app, database, await look(admin, database)))
        await self._switch(record).bring(side)

    def _switch(self, record: Record) -> Switch:
        return Switch(self._settings.app_login(), self._settings.database, self._exchange(record), record)

    def _exchange(self, record: Record) -> Exchange:
        return Exchange(self._admin(), self._settings.database, record)

    def _admin(self) -> Login:
        admin = self._settings.admin_login()
        if admin is None:
            raise AppUnavailableError(
                "An import needs an account that may make a schema and an account.",
                next_step="Set `admin_user` and `admin_password_file` in the agent's settings.",
            )
        return admin


def _require_none(obstacle: str) -> None:
    if obstacle:
        raise AppUnavailableError(
            obstacle, next_step="Change that in the app's database or its server, then try again."
        )


async def _fingerprinted(
    export: Export,
    chunks: AsyncGenerator[bytes, None],
    content: Content | None,
    schema: Schema,
    watch: TableWatch,
) -> AsyncGenerator[bytes, None]:
    """The chunks; at their end the fingerprint of what was in them, and how many rows."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk
            del chunk
    if watch.doubt:
        export.warnings.append(watch.doubt + (" So the export has no fingerprint." if content else ""))
    if content is None:
        return
    export.fingerprint = content.fingerprint
    export.counts.pop(ESTIMATED_ROWS, None)
    export.counts["rows"] = content.rows
    size_bytes, table = content.longest_row
    if warning := packets.warning_of(table, size_bytes, schema.max_packet_bytes):
        export.warnings.append(warning)
    if content.fingerprint is None and (content.withheld or not watch.doubt):
        export.warnings.append(
            content.withheld
            or "Views, triggers, routines or events were altered during the export, so it has no fingerprint, and "
            "which of both it holds is not known."
        )
