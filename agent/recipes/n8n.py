"""n8n: its database, the files beside it, and the key to its credentials, sealed.

Export reads beside the running app. An import is built beside the present data and encrypted again for the key of the
n8n that takes it; it is exchanged while the app is stopped, since n8n remembers keys and workflows.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import glob
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agent.archives.extractor_child import Report
from agent.archives.surveying import Survey, survey
from agent.archives.walking import left_out_by
from agent.engines import tar_stream, tree, verifying
from agent.engines.comparing import Compared, compare_trees
from agent.engines.filesystem import usual_owner
from agent.engines.mounts import mounts_below
from agent.engines.n8n import importing, key_notes, previewing
from agent.engines.n8n.exporting import TravellingKey, make_travelling
from agent.engines.n8n.facts import EXPORTED, EXPORTED_IN_FILE, PRESENT, PRESENT_IN_FILE, Facts, facts_of
from agent.engines.n8n.folder import LEFT_OUT, instance_key, required_key, write_config
from agent.engines.n8n.preparations import Items, Prepared, Request
from agent.engines.n8n.preparing import look_at_file
from agent.engines.n8n.settings import read_settings
from agent.engines.n8n.source import Opened, Source
from agent.engines.n8n.wishes import read_export_wishes, read_import_wishes
from agent.engines.places import require_same_place
from agent.engines.sqlite.snapshots import ask_database, remove_snapshots
from agent.engines.swapping import obstacle_to
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
from agent.recipes.exchanges import Exchange, Together, note_staged, volume_exchange
from agent.recipes.stopped_app import NO_APP_CONTROL, StoppedExchange, expected_swap_seconds
from agent.unpacking import peeked, unpacked
from common.codecs import codec_of
from common.errors import (
    AppMustStopError,
    AppUnavailableError,
    InvalidRequestError,
    ServiceError,
)
from common.fingerprints import Fingerprint
from common.frames import LEAN_CHUNK_BYTES
from common.headers import ArchiveHeader
from common.kinds import HEAD_BYTES

if TYPE_CHECKING:
    from agent.engines.n8n.postgres import PostgresHome

TAR_ZST = Format("tar.zst", "application/zstd", ".tar.zst", "tar archive, compressed with zstd; opens with tar")
TAR_GZ = Format("tar.gz", "application/gzip", ".tar.gz", "tar archive, compressed with gzip; opens with tar")
TAR = Format("tar", "application/x-tar", ".tar", "tar archive; opens with tar")
_SURVEY_SECONDS = 5.0


class N8nRecipe(Recipe):
    """n8n 1 and 2, on SQLite or PostgreSQL."""

    name = "n8n"
    data_export_description = (
        "Workflows, credentials, executions, users and settings as of one moment, binary data, community nodes, and "
        "the encryption key, sealed. Not in it: the file config, event logs."
    )
    export_formats = (TAR_ZST, TAR_GZ, TAR)
    import_formats = ("tar", "tar.gz", "tar.zst", "tar.xz", "zip", "sqlite", "sql", "custom")

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._settings = read_settings(surroundings.settings)
        self._folder = self._settings.folder
        self._postgres = self._make_postgres()
        self._app = surroundings.app_control
        self._exchange = StoppedExchange(self._app, self._volume, self._exchange_of)
        self._source = Source(
            self._settings, self._postgres, work_directory=surroundings.work_directory, limits=surroundings.limits
        )
        self._is_left_out = left_out_by((*LEFT_OUT, *self._settings.exclude))

    async def describe(self) -> Description:
        engine = "postgresql" if self._postgres else "sqlite"
        try:
            counted = await asyncio.to_thread(self._survey)
            counted.unreadable.raise_if_any()
            facts = await self._present()
            warnings = await self._postgres.warnings() if self._postgres else []
        except ServiceError as error:
            return Description("n8n", can_export=Capability(error.text), can_import=Capability(error.text))
        return Description(
            engine="n8n",
            can_import=Capability(await self._obstacle()),
            estimated_bytes=counted.bytes if counted.is_complete and not self._postgres else 0,
            import_needs_app_stop=True,
            warnings=tuple(warnings),
            details={
                "database": engine,
                "directory": str(self._folder or ""),
                "last_migration": facts.last_migration,
                **{name: str(number) for name, number in facts.counts.items()},
            },
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        wishes = read_export_wishes(options.options, self._settings)
        progress.step(Step.PREPARING, "copying the database")
        counted = await asyncio.to_thread(self._survey)
        counted.unreadable.raise_if_any()
        progress.expect(counted.bytes if counted.is_complete else 0)
        key = await asyncio.to_thread(instance_key, self._settings)
        opening = self._source.opened(progress, key, takes_fingerprint=wants_fingerprint(options.options))
        async with opening as opened:
            travelling = await make_travelling(key, opened.facts, wishes)
            header = self._header(options, opened, travelling, counted)
            members = (block for block in chain(opened.blocks(), travelling.blocks()))
            blocks = tar_stream.sealed(members, header, opened.fingerprint)
            blocks = tar_stream.compressed_as(blocks, options.format.name)
            chunks = tar_stream.from_thread(
                blocks, name="archive n8n", size_bytes=LEAN_CHUNK_BYTES, interrupt=opened.interrupt
            )
            async with aclosing(chunks):
                export = Export(header, chunks, dict(opened.facts.counts), list(travelling.warnings))
                read = tar_stream.measured(chunks, read_bytes=lambda: opened.read_bytes, on_read=progress.read)
                export.chunks = _told(read, export, opened)
                yield export

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        async with self._source.opened(progress, takes_fingerprint=True, dumps=False) as opened:
            files = (block for block in opened.blocks())
            async with aclosing(tar_stream.from_thread(files, name="read n8n", interrupt=opened.interrupt)) as blocks:
                async for block in blocks:
                    progress.read(len(block))
            found = opened.fingerprint()
        if found is None:
            raise InvalidRequestError("This n8n has no fingerprint.")
        return found

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        wishes = read_import_wishes(upload.options, self._settings)
        if obstacle := await self._obstacle():
            raise AppMustStopError(obstacle) if not self._app.is_possible else AppUnavailableError(obstacle)
        facts = await self._present(await asyncio.to_thread(instance_key, self._settings))
        if self._postgres and not wishes.whole_database:
            await self._postgres.require_alone()
        target = importing.Target(await asyncio.to_thread(required_key, self._settings, facts.fit), facts)
        volume = self._volume
        tree.require_room(volume, upload.header.counts.get("bytes", 0), self._surroundings.limits)
        area = tree.StagingArea(volume, record.key)
        record.save(
            directory=str(volume),
            on_postgresql=self._postgres is not None,
            has_folder=self._folder is not None,
            place=self._place,
            whole_database=wishes.whole_database,
            **key_notes.notes_of(target.key, facts.fit),
        )
        await asyncio.to_thread(area.create)
        progress.step(Step.TRANSFERRING, "unpacking beside the present data")
        report = await self._unpacked(area, volume, upload)
        links = verifying.check_links(report.extracted, present=volume, way_out=verifying.LINK_WAY_OUT)
        request = await importing.request_of(area.new, report.header, target, wishes)
        prepared = await self._prepared(area, report, request, target, record, progress)
        compared = await self._compared(area.new)
        now, after = compared.now, compared.after
        files = after if self._folder else await asyncio.to_thread(self._survey_of, area.new)
        if self._folder:
            await asyncio.to_thread(_write_config, self._folder, area)
            await note_staged(record, self._volume)
        files_bytes = after.bytes if after.is_complete else report.extracted.bytes
        return Preview(
            changes=previewing.changes(facts.counts, prepared),
            counts_now={**facts.counts, **now.told("files")},
            counts_after={**prepared.counts, **after.told("files")},
            items={**previewing.items(await self._present_items(request), prepared.items), **compared.items},
            bridging=previewing.bridging(prepared.migrations, facts.migrations),
            room_bytes=files_bytes + importing.size_of(area.new / self._settings.database_file) + prepared.size_bytes,
            swap_seconds=expected_swap_seconds(len(now.tops) + len(after.tops)),
            warnings=(
                *report.warnings,
                *previewing.warnings(prepared, wishes),
                *previewing.about_files(now, files, has_folder=self._folder is not None),
                *links,
                *verifying.dropped(report.extracted, acls_skipped=report.acls_skipped),
                *(verifying.of_macos(report.extracted) if report.header is None else ()),
            ),
            header=report.header,
        )

    async def _present_items(self, request: Request) -> Items:
        """What is in the database now; nothing where that cannot be told soon, which is no reason against an import."""
        look = importing.look_of(request)
        with contextlib.suppress(ServiceError):
            return await (self._postgres.items(look) if self._postgres else look_at_file(self._source.database(), look))
        return {}

    async def _compared(self, new: Path) -> Compared:
        """The files beside the database."""
        if self._folder is None:
            return Compared()
        database = f"/{glob.escape(self._settings.database_file)}"
        ours = left_out_by((*LEFT_OUT, *self._settings.exclude, database, f"{database}-*"))
        try:
            return await compare_trees(self._folder, new, is_left_out=ours)
        except OSError as failure:
            raise self._not_readable(failure) from failure

    async def _prepared(
        self,
        area: tree.StagingArea,
        report: Report,
        request: Request,
        target: importing.Target,
        record: Record,
        progress: Progress,
    ) -> Prepared:
        """The database loaded beside the present one or ready in the area, its secrets encrypted again."""
        name = self._settings.database_file
        if self._postgres is not None:
            with await asyncio.to_thread(importing.take_dump, area.new, report.header, name) as dump:
                return await self._postgres.stage(dump, record, progress, request)
        database = await asyncio.to_thread(importing.find_database, area.new, report.header, name)
        progress.step(Step.VERIFYING, "encrypting the secrets again")
        return await importing.make_file_ready(database, request, target, limits=self._surroundings.limits)

    async def restore(self, record: Record, progress: Progress) -> None:
        await self._require_ready(record, way_out="Import the file again; or put")
        await asyncio.to_thread(key_notes.require_key_of_staged, record.facts, self._settings)
        if self._postgres and not record.facts.get("whole_database"):
            await self._postgres.require_alone()
        await self._exchange.restore(record, progress)

    async def undo(self, record: Record, progress: Progress) -> str | None:
        await self._require_ready(record, way_out="Put")
        told = await asyncio.to_thread(key_notes.check_key_of_previous, record.facts, self._settings)
        if self._postgres and not record.facts.get("whole_database"):
            await self._postgres.require_nothing_new(record)
        await self._exchange.undo(record, progress)
        return told or None

    async def _require_ready(self, record: Record, *, way_out: str) -> None:
        """See that there are the rights, before n8n is stopped for nothing, and that it is the same database still."""
        if self._home_of(record) is None and self._postgres is not None:
            raise AppUnavailableError(
                "The import was staged in SQLite, and by its settings n8n keeps its data in PostgreSQL now.",
                next_step=f"{way_out} the agent's settings back as they were.",
            )
        if self._postgres is not None:
            await self._postgres.plan()
        else:
            require_same_place(record.facts, self._place)

    async def discard(self, record: Record) -> None:
        await self._exchange.discard(record)

    async def put_right(self, record: Record) -> ServiceError | None:
        home = self._home_of(record)
        return await home.remains(record).put_right() if home else None

    async def recover(self, record: Record) -> Recovered:
        return await self._exchange.recover(record)

    async def tidy(self) -> None:
        if self._folder:
            await asyncio.to_thread(remove_snapshots, self._folder)

    def _make_postgres(self) -> PostgresHome | None:
        if self._settings.postgresql is None:
            return None
        # 10 MiB of a database driver, which an n8n on SQLite does without.
        from agent.engines.n8n.postgres import PostgresHome, read_postgres_settings

        return PostgresHome(
            self._settings,
            read_postgres_settings(self._settings.postgresql),
            app_id=self._surroundings.app_id,
            work_directory=self._surroundings.work_directory,
            limits=self._surroundings.limits,
        )

    @property
    def _volume(self) -> Path:
        """Where an upload is unpacked."""
        return self._folder or self._surroundings.work_directory

    @property
    def _place(self) -> str:
        """Where n8n has its database, for a person."""
        return self._postgres.postgresql.place if self._postgres else f"the file {self._settings.database_file}"

    async def _exchange_of(self, record: Record) -> Exchange | None:
        """What an import staged: the folder's content, the database, or both."""
        volume, home = await volume_exchange(record, self._volume), self._home_of(record)
        if volume is None or home is None:
            return volume
        if record.facts.get("has_folder"):
            return Together(home.exchange(record), volume)
        return home.exchange(record, area=tree.StagingArea(self._volume, record.key))

    def _home_of(self, record: Record) -> PostgresHome | None:
        """The database beside which an import was staged; None for one in a file, or that has not come so far."""
        if not record.facts.get("on_postgresql"):
            return None
        if self._postgres is None:
            raise AppUnavailableError("The import was staged in PostgreSQL, and the settings do not name it any more.")
        require_same_place(record.facts, self._postgres.postgresql.place)
        return self._postgres

    async def _present(self, key: str = "") -> Facts:
        """What n8n has now; AppUnavailableError or SourceUnreadableError where that cannot be told.

        Args:
            key: tried on what is secret; empty: none is.
        """
        if self._postgres is not None:
            return await self._postgres.ask(EXPORTED if key else PRESENT, key)
        database, questions = self._source.database(), EXPORTED_IN_FILE if key else PRESENT_IN_FILE
        return await facts_of(await ask_database(database.parent, database.name, questions), key)

    async def _unpacked(self, area: tree.StagingArea, volume: Path, upload: Upload) -> Report:
        limits = self._surroundings.limits
        owner = usual_owner(volume)
        orders = tree.Orders(
            recipe=self.name,
            limits=limits,
            owner=owner,
            default_owner=owner,
            inside=volume,
            work_directory=self._surroundings.work_directory,
        )
        async with unpacked(upload.chunks, limits=limits, unpack_zip=False) as content:
            head, chunks = await peeked(content.chunks, head_bytes=HEAD_BYTES)
            async with aclosing(chunks):
                if name := importing.bare_name(head, self._settings):
                    await importing.place_file(area, chunks, name, owner, limits)
                    return Report()
                return await tree.unpack(area, chunks, orders, is_zip=codec_of(head) == "zip")

    def _survey_of(self, folder: Path) -> Survey:
        return survey(folder, seconds=_SURVEY_SECONDS, is_left_out=self._is_left_out)

    def _survey(self) -> Survey:
        if self._folder is None:
            return Survey()
        try:
            return self._survey_of(self._folder)
        except OSError as failure:
            raise self._not_readable(failure) from failure

    def _not_readable(self, failure: OSError) -> AppUnavailableError:
        return AppUnavailableError(
            f"n8n's folder {self._folder} cannot be read: {failure.strerror}.",
            next_step="See that it is mounted, and readable for the agent.",
        )

    async def _obstacle(self) -> str:
        """What stands against any import; empty when nothing does."""
        if not self._app.is_possible:
            return NO_APP_CONTROL
        if self._postgres is not None:
            try:
                await self._postgres.plan(loads=True)
            except ServiceError as error:
                return error.text
        if self._folder is None:
            return ""
        if mounts := mounts_below(self._folder):
            return f"{mounts[0]} is a mount of its own inside n8n's folder, so that cannot be exchanged as a whole."
        if not os.access(self._folder, os.W_OK | os.X_OK):
            return f"The agent (uid {os.geteuid()}) may not write to n8n's folder {self._folder}."
        return obstacle_to(self._folder)

    def _header(
        self, options: ExportOptions, opened: Opened, travelling: TravellingKey, counted: Survey
    ) -> ArchiveHeader:
        return replace(
            self._surroundings.header_of(options, recipe=self.name),
            engine="n8n",
            created_at=dt.datetime.now(dt.UTC),
            counts={**opened.facts.counts, **counted.told("files", "bytes")},
            details={
                "database_type": "postgresql" if self._postgres else "sqlite",
                "last_migration": opened.facts.last_migration,
                **opened.details,
                **travelling.details,
            },
        )


def _write_config(folder: Path, area: tree.StagingArea) -> None:
    new = area.open_new()
    try:
        write_config(folder, new)
    finally:
        os.close(new)


async def _told(chunks: AsyncGenerator[bytes, None], export: Export, opened: Opened) -> AsyncGenerator[bytes, None]:
    """The chunks; at the end the export says what was in them and what there is to be warned of."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk
            del chunk
    export.counts |= opened.counts
    export.warnings += opened.warnings
    export.fingerprint = opened.fingerprint()
