"""n8n: its database, the files beside it, and the key to its credentials, sealed.

Export reads beside the running app. An import is built beside the present data and encrypted again for the key of the
n8n that takes it; it is exchanged while the app is stopped, since n8n remembers keys and workflows.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from agent.archives.extractor_child import Report
from agent.archives.members import SQLITE_MAGIC
from agent.archives.surveying import Survey, survey
from agent.archives.walking import left_out_by
from agent.archives.writing import Substitute, TreeWriter
from agent.engines import tree, verifying
from agent.engines.filesystem import mounts_below, usual_owner
from agent.engines.n8n import importing
from agent.engines.n8n.exporting import TravellingKey, make_travelling
from agent.engines.n8n.facts import EXPORTED, PRESENT, Facts, facts_of
from agent.engines.n8n.folder import LEFT_OUT, instance_key
from agent.engines.n8n.settings import read_settings
from agent.engines.n8n.wishes import read_export_wishes, read_import_wishes
from agent.engines.sqlite import Snapshots, ask_database
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
)
from agent.recipes.stopped_app import NO_APP_CONTROL, StoppedExchange
from agent.unpacking import peeked, unpacked
from common.codecs import codec_of, gzip_compressor, zstd_compressor
from common.errors import AppMustStopError, AppUnavailableError, ServiceError, SourceUnreadableError
from common.headers import ArchiveHeader
from common.seals import FORMAT_VERSION

TAR_ZST = Format("tar.zst", "application/zstd", ".tar.zst", "tar archive, compressed with zstd; opens with tar")
TAR_GZ = Format("tar.gz", "application/gzip", ".tar.gz", "tar archive, compressed with gzip; opens with tar")
TAR = Format("tar", "application/x-tar", ".tar", "tar archive; opens with tar")
_COMPRESSORS = {TAR_ZST.name: zstd_compressor, TAR_GZ.name: gzip_compressor}
_SURVEY_SECONDS = 5.0


class N8nRecipe(Recipe):
    """n8n 1 and 2 that keep their data in SQLite."""

    name = "n8n"
    data_export_description = (
        "Workflows, credentials, executions, users and settings as of one moment, binary data, community nodes, and "
        "the encryption key, sealed. Not in it: the file config, event logs."
    )
    export_formats = (TAR_ZST, TAR_GZ, TAR)
    import_formats = ("tar", "tar.gz", "tar.zst", "tar.xz", "zip", "sqlite")

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._settings = read_settings(surroundings.settings)
        self._folder = self._settings.folder
        self._app = surroundings.app_control
        self._exchange = StoppedExchange(self._app)
        self._is_left_out = left_out_by((*LEFT_OUT, *self._settings.exclude))

    async def describe(self) -> Description:
        try:
            counted = await asyncio.to_thread(self._survey)
            counted.unreadable.raise_if_any()
            facts = await self._present()
        except ServiceError as error:
            return Description("n8n", can_export=Capability(error.text), can_import=Capability(error.text))
        return Description(
            engine="n8n",
            can_import=Capability(self._obstacle()),
            estimated_bytes=counted.bytes if counted.is_complete else 0,
            import_needs_app_stop=True,
            details={
                "database": "sqlite",
                "directory": str(self._folder),
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
        work_directory, limits = self._surroundings.work_directory, self._surroundings.limits
        async with Snapshots(
            self._folder, work_directory=work_directory, limits=limits, questions=EXPORTED
        ) as snapshots:
            # Before all files: what it says goes into the header.
            database = await self._copied(snapshots)
            facts = facts_of(snapshots.answers[self._settings.database_file], key)
            travelling = await make_travelling(key, facts, wishes)
            writer = TreeWriter(
                self._folder,
                work_directory=work_directory,
                substitute=lambda path, status: (
                    database if path == self._settings.database_file else snapshots.substitute(path, status)
                ),
                is_left_out=self._is_left_out,
            )
            blocks = tree.sealed(
                (block for block in itertools.chain(writer.blocks(), travelling.blocks())),
                self._header(options, facts, travelling),
            )
            if make_compressor := _COMPRESSORS.get(options.format.name):
                blocks = tree.compressed(blocks, make_compressor())
            chunks = tree.from_thread(blocks, name="archive n8n", interrupt=snapshots.interrupt)
            counts, warnings = dict(facts.counts), list(travelling.warnings)
            async with aclosing(chunks):
                told = _told(chunks, writer, snapshots, progress, counts, warnings)
                yield Export(self._header(options, facts, travelling), told, counts, warnings)

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        wishes = read_import_wishes(upload.options, self._settings)
        if obstacle := self._obstacle():
            raise AppMustStopError(obstacle) if not self._app.is_possible else AppUnavailableError(obstacle)
        limits = self._surroundings.limits
        facts = await self._present()
        target = importing.Target(await asyncio.to_thread(self._required_key), facts)
        tree.require_room(self._folder, upload.header.counts.get("bytes", 0), limits)
        area = tree.StagingArea(self._folder, record.key)
        record.save(directory=str(self._folder))
        await asyncio.to_thread(area.create)
        progress.step(Step.TRANSFERRING, "unpacking beside the present data")
        report = await self._unpacked(area, upload)
        links = verifying.check_links(report.extracted, present=self._folder, keep=False)
        progress.step(Step.VERIFYING, "encrypting the secrets again")
        prepared = await importing.make_ready(
            area.new, report.header, target, settings=self._settings, wishes=wishes, limits=limits
        )
        now, after = await asyncio.gather(
            asyncio.to_thread(self._survey), asyncio.to_thread(survey, area.new, seconds=_SURVEY_SECONDS)
        )
        return Preview(
            changes=importing.changes(target.facts.counts, prepared),
            counts_now={**target.facts.counts, "files": now.files},
            counts_after={**prepared.counts, "files": after.files},
            warnings=(
                *importing.warnings(prepared, target.facts.migrations, wishes),
                *links,
                *verifying.dropped(report.extracted, acls_skipped=report.acls_skipped),
            ),
            header=report.header,
        )

    async def restore(self, record: Record, progress: Progress) -> None:
        await self._exchange.restore(record, progress)

    async def undo(self, record: Record, progress: Progress) -> None:
        await self._exchange.undo(record, progress)

    async def discard(self, record: Record) -> None:
        await self._exchange.discard(record)

    async def recover(self, record: Record) -> Recovered:
        return await self._exchange.recover(record)

    async def _present(self) -> Facts:
        """What n8n has now; AppUnavailableError or SourceUnreadableError where that cannot be told."""
        if not self._settings.database.is_file():
            raise AppUnavailableError(
                f"There is no database {self._settings.database}.",
                next_step="Start n8n once, so that it makes one; see that directory and database_file name it.",
            )
        return facts_of(await ask_database(self._settings.database, PRESENT))

    def _required_key(self) -> str:
        if key := instance_key(self._settings):
            return key
        raise AppUnavailableError(
            f"n8n's encryption key is neither in {self._folder / 'config'} nor in a file that the agent knows of.",
            next_step="Set encryption_key_file to a file with what n8n has as N8N_ENCRYPTION_KEY.",
        )

    async def _copied(self, snapshots: Snapshots) -> Substitute:
        name = self._settings.database_file
        try:
            copy = await snapshots.take(name, os.stat(self._settings.database, follow_symlinks=False))
        except FileNotFoundError as failure:
            raise SourceUnreadableError(f"There is no database {self._settings.database}.") from failure
        if copy is None:
            raise SourceUnreadableError(f"SQLite cannot read n8n's database {self._settings.database}.")
        return copy

    async def _unpacked(self, area: tree.StagingArea, upload: Upload) -> Report:
        limits = self._surroundings.limits
        owner = usual_owner(self._folder)
        orders = tree.Orders(
            recipe=self.name,
            limits=limits,
            owner=owner,
            default_owner=owner,
            inside=self._folder,
            work_directory=self._surroundings.work_directory,
        )
        async with unpacked(upload.chunks, limits=limits, unpack_zip=False) as content:
            head, chunks = await peeked(content.chunks)
            async with aclosing(chunks):
                if head.startswith(SQLITE_MAGIC):
                    await importing.place_database(area, chunks, self._settings.database_file, owner, limits)
                    return Report()
                return await tree.unpack(area, chunks, orders, is_zip=codec_of(head) == "zip")

    def _survey(self) -> Survey:
        try:
            return survey(self._folder, seconds=_SURVEY_SECONDS, is_left_out=self._is_left_out)
        except OSError as failure:
            raise AppUnavailableError(
                f"n8n's folder {self._folder} cannot be read: {failure.strerror}.",
                next_step="See that it is mounted, and readable for the agent.",
            ) from failure

    def _obstacle(self) -> str:
        """What stands against any import; empty when nothing does."""
        if not self._app.is_possible:
            return NO_APP_CONTROL
        if mounts := mounts_below(self._folder):
            return f"{mounts[0]} is a mount of its own inside n8n's folder, so that cannot be exchanged as a whole."
        if not os.access(self._folder, os.W_OK | os.X_OK):
            return f"The agent (uid {os.geteuid()}) may not write to n8n's folder {self._folder}."
        return ""

    def _header(self, options: ExportOptions, facts: Facts, travelling: TravellingKey) -> ArchiveHeader:
        return ArchiveHeader(
            recipe=self.name,
            format=options.format.name,
            format_version=FORMAT_VERSION,
            engine="n8n",
            made_by=self._surroundings.made_by,
            created_at=dt.datetime.now(dt.UTC),
            app_id=options.app_id,
            counts=facts.counts,
            details={
                "database_type": "sqlite",
                "database": self._settings.database_file,
                "last_migration": facts.last_migration,
                **travelling.details,
            },
            media_type=options.format.media_type,
            file_name=options.file_name,
        )


async def _told(
    chunks: AsyncGenerator[bytes, None],
    writer: TreeWriter,
    snapshots: Snapshots,
    progress: Progress,
    counts: dict[str, int],
    warnings: list[str],
) -> AsyncGenerator[bytes, None]:
    """The chunks; says how much was read, and at the end what was in them and what there is to be warned of."""
    said = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            read = writer.read_bytes
            progress.read(read - said)
            said = read
            yield chunk
    counts |= writer.counts
    warnings += writer.warnings() + snapshots.warnings
