"""Uptime Kuma: its SQLite database as of one moment, uploaded files and keys for Docker hosts.

Export reads beside the running app. Import needs the app down: a running one writes heartbeats and statistics that it
remembers of its old monitors over rows of the imported ones, without a word (measured with 1.23 and 2.5).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from agent.archives.surveying import survey
from agent.engines import tree
from agent.engines.filesystem import mounts_below
from agent.engines.kuma import layout, sqlite_data
from agent.engines.kuma.configuration import Storage, storage_of
from agent.engines.kuma.version import KumaFacts, compared
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
from common.codecs import gzip_compressor, zstd_compressor
from common.errors import AppBusyError, AppMustStopError, AppUnavailableError, InvalidRequestError, ServiceError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.seals import FORMAT_VERSION

TAR_ZST = Format("tar.zst", "application/zstd", ".tar.zst", "the data directory as a tar, compressed; opens with tar")
TAR_GZ = Format("tar.gz", "application/gzip", ".tar.gz", "the data directory as a tar, compressed; opens with tar")
TAR = Format("tar", "application/x-tar", ".tar", "the data directory as a tar; opens with tar")
_COMPRESSORS = {TAR_ZST.name: zstd_compressor, TAR_GZ.name: gzip_compressor}
_SURVEY_SECONDS = 2.0


class UptimeKumaRecipe(Recipe):
    """Uptime Kuma 1 and 2 on SQLite."""

    name = "uptime-kuma"
    data_export_description = (
        "Monitors, their history, notifications, status pages, users and settings, with uploaded logos, screenshots "
        "and keys for Docker hosts, as of one moment. Passwords and tokens of notifications are in it as the app keeps "
        "them: readable. Not: db-config.json and older copies of the database."
    )
    export_formats = (TAR_ZST, TAR_GZ, TAR)
    import_formats = ("tar", "tar.gz", "tar.zst", "tar.xz", "zip", "sqlite")

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._app = surroundings.app_control
        self._exchange = StoppedExchange(self._app)
        self._directory = _checked_directory(surroundings.settings)

    async def describe(self) -> Description:
        try:
            self._require_sqlite()
            facts = await sqlite_data.look(self._directory)
        except ServiceError as error:
            return Description(
                "sqlite",
                can_export=Capability(error.text),
                can_import=Capability(error.text),
                import_needs_app_stop=True,
            )
        return Description(
            engine="sqlite",
            engine_version=facts.version if facts else "",
            can_export=Capability("" if facts else f"There is no {layout.DATABASE} in {self._directory}."),
            can_import=Capability(self._obstacle() or _busy_text(facts)),
            estimated_bytes=(await self._counted()).get("bytes", 0),
            import_needs_app_stop=True,
            warnings=(_busy_text(facts),) if facts and facts.is_migrating else (),
            details={"directory": str(self._directory), **_known(facts.details if facts else {})},
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        _refuse_options(options.options)
        self._require_sqlite()
        progress.step(Step.PREPARING, "copying the database")
        ours = self._surroundings
        async with sqlite_data.archived(
            self._directory, work_directory=ours.work_directory, limits=ours.limits
        ) as archived:
            counted = await self._counted()
            progress.expect(counted.get("bytes", 0))
            header = self._header(options, archived.facts, counted)
            blocks = tree.sealed(archived.writer.blocks(), header)
            if make_compressor := _COMPRESSORS.get(options.format.name):
                blocks = tree.compressed(blocks, make_compressor())
            chunks = tree.from_thread(blocks, name="archive uptime-kuma", interrupt=archived.snapshots.interrupt)
            warnings: list[str] = []
            async with aclosing(chunks):
                told = _told(chunks, archived, progress, warnings)
                yield Export(header, told, archived.writer.counts, warnings, archived.fingerprint)

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        _refuse_options(upload.options)
        self._require_sqlite()
        if obstacle := self._obstacle():
            raise AppMustStopError(obstacle) if not self._app.is_possible else AppUnavailableError(obstacle)
        now = await self._look_settled()
        limits = self._surroundings.limits
        tree.require_room(self._directory, upload.header.counts.get("bytes", 0), limits)
        area = tree.StagingArea(self._directory, record.key)
        record.save(directory=str(self._directory))
        await asyncio.to_thread(area.create)
        progress.step(Step.TRANSFERRING, "unpacking beside the present data")
        unpacked = await sqlite_data.unpack(
            area,
            upload.chunks,
            recipe=self.name,
            directory=self._directory,
            work_directory=self._surroundings.work_directory,
            limits=limits,
        )
        record.save(names=list(unpacked.names))
        progress.step(Step.VERIFYING, "checking the database")
        after, warnings = await sqlite_data.verify(area.new, now)
        files = (await self._counted()).get("files", 0)
        return Preview(
            changes=compared(now, after),
            counts_now={**(now.counts if now else {}), "files": max(files - 1, 0)},
            counts_after={
                **after.counts,
                "files": unpacked.files if layout.FOLDERS[0] in unpacked.names else files - 1,
            },
            warnings=(*unpacked.warnings, *warnings),
            header=unpacked.header or ArchiveHeader(engine="sqlite", engine_version=after.version),
        )

    async def restore(self, record: Record, progress: Progress) -> None:
        # Stopped in the middle of a migration, the previous data would be of no use to an undo.
        await self._look_settled()
        await self._exchange.restore(record, progress)

    async def undo(self, record: Record, progress: Progress) -> None:
        await self._exchange.undo(record, progress)

    async def discard(self, record: Record) -> None:
        await self._exchange.discard(record)

    async def recover(self, record: Record) -> Recovered:
        return await self._exchange.recover(record)

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        self._require_sqlite()
        return await sqlite_data.fingerprint(self._directory)

    async def _look_settled(self) -> KumaFacts | None:
        """What is there now; AppBusyError while the app migrates it."""
        facts = await sqlite_data.look(self._directory)
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
        return {"files": counted.files, "bytes": counted.bytes} if counted.is_complete else {}

    def _require_sqlite(self) -> None:
        storage = storage_of(self._directory)
        if storage is not Storage.SQLITE:
            raise AppUnavailableError(
                f"This Uptime Kuma keeps its data in MariaDB ({layout.CONFIGURATION}: {storage.value}), which this "
                "recipe does not move.",
                next_step="Use the recipe `mariadb` for the database and `volume` for the directory.",
            )

    def _obstacle(self) -> str:
        """What stands against any import; empty when nothing does."""
        if not self._app.is_possible:
            return NO_APP_CONTROL
        if mounts := [path for path in mounts_below(self._directory) if _is_moved(path, self._directory)]:
            return f"{mounts[0]} is a mount of its own, so it cannot be exchanged with the rest of the data."
        if not os.access(self._directory, os.W_OK | os.X_OK):
            return f"The agent (uid {os.geteuid()}) may not write to the directory {self._directory}."
        return ""

    def _header(self, options: ExportOptions, facts: KumaFacts, counted: Mapping[str, int]) -> ArchiveHeader:
        return ArchiveHeader(
            recipe=self.name,
            format=options.format.name,
            format_version=FORMAT_VERSION,
            engine="sqlite",
            engine_version=facts.version,
            made_by=self._surroundings.made_by,
            created_at=dt.datetime.now(dt.UTC),
            app_id=options.app_id,
            counts={**facts.counts, **counted},
            details=_known(facts.details),
            media_type=options.format.media_type,
            file_name=options.file_name,
        )


async def _told(
    chunks: AsyncGenerator[bytes, None], archived: sqlite_data.Archived, progress: Progress, warnings: list[str]
) -> AsyncGenerator[bytes, None]:
    """The chunks; says how much was read, and at the end what there is to be warned of."""
    told = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            read = archived.writer.read_bytes
            progress.read(read - told)
            told = read
            yield chunk
    if archived.writer.counts["databases"] < 1:
        raise AppBusyError("The app's database was exchanged while it was archived.", next_step="Export again.")
    warnings += archived.writer.warnings() + archived.snapshots.warnings


def _busy_text(facts: KumaFacts | None) -> str:
    return "Uptime Kuma is migrating its database, or was interrupted at it." if facts and facts.is_migrating else ""


def _known(details: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in details.items() if text}


def _is_moved(path: str, directory: Path) -> bool:
    return Path(path).relative_to(directory.resolve()).parts[0] in layout.MOVED


def _checked_directory(settings: Mapping[str, object]) -> Path:
    try:
        found = msgspec.convert(settings, _Settings)
    except msgspec.ValidationError as failure:
        raise InvalidRequestError(f"The settings of recipe uptime-kuma are wrong: {failure}.") from failure
    if not found.directory.startswith("/") or Path(found.directory) == Path("/"):
        raise InvalidRequestError("The setting `directory` has to be the absolute path of the app's data directory.")
    return Path(found.directory)


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    directory: str


def _refuse_options(options: Mapping[str, str]) -> None:
    if options:
        raise InvalidRequestError(f"The recipe uptime-kuma has no option {next(iter(options))!r}.")
