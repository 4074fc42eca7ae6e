"""A volume: the files of a directory as a tar, SQLite databases among them as snapshots of one moment.

Export reads beside the running app. Import unpacks into a hidden directory on the same mount; the swap exchanges the
directory's content while the app is stopped, since a running one would keep writing to the files that it has open.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec.structs import replace

from agent.archives.contents import ContentSum
from agent.archives.extractor_child import Report
from agent.archives.surveying import Survey, survey
from agent.archives.walking import left_out_by
from agent.archives.writing import TreeWriter
from agent.engines import tar_stream, tree, verifying
from agent.engines.comparing import Compared, compare_trees
from agent.engines.configured import checked, data_directory
from agent.engines.filesystem import usual_owner
from agent.engines.mounts import filesystem_type, mounts_below
from agent.engines.sqlite.snapshots import Snapshots, remove_snapshots
from agent.engines.swapping import obstacle_to
from agent.options import choices_of, require_known
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
from agent.recipes.exchanges import note_staged
from agent.recipes.stopped_app import NO_APP_CONTROL, StoppedExchange, expected_swap_seconds
from agent.unpacking import peeked, unpacked
from common.codecs import codec_of
from common.errors import (
    AppMustStopError,
    AppUnavailableError,
    ArchiveWrongKindError,
    ServiceError,
)
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader

TAR_ZST = Format("tar.zst", "application/zstd", ".tar.zst", "tar archive, compressed with zstd; opens with tar")
TAR_GZ = Format("tar.gz", "application/gzip", ".tar.gz", "tar archive, compressed with gzip; opens with tar")
TAR = Format("tar", "application/x-tar", ".tar", "tar archive; opens with tar")
_SURVEY_SECONDS = 5.0
"""Before an export: enough for a million files; an archive has counts of its own at its end."""
_GLANCE_SECONDS = 1.0
_SCHEME = "volume/2"
_IMPORT_OPTIONS = {
    "outside_links": ("refuse", "keep"),
    "damaged_databases": ("refuse", "keep"),
    "ownership": ("archive", "app"),
}
"""The first is the default."""


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    directory: str
    """The volume, absolute."""
    exclude: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] = ()
    """Patterns of what is not exported."""


class VolumeRecipe(Recipe):
    """Any app that keeps its data as files below one directory."""

    name = "volume"
    data_export_description = (
        "All files, directories and links of the volume with owners, modes, times and extended attributes; SQLite "
        "databases as consistent snapshots. Not in it: sockets, fifos, devices, lost+found and .snapshot."
    )
    export_formats = (TAR_ZST, TAR_GZ, TAR)
    import_formats = ("tar", "tar.gz", "tar.zst", "tar.xz", "zip")

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._app = surroundings.app_control
        settings = checked(surroundings.settings, _Settings, recipe="volume")
        self._directory = data_directory(settings.directory, of="the volume")
        self._exclude = settings.exclude
        self._exchange = StoppedExchange(self._app, self._directory)
        self._is_left_out = left_out_by(self._exclude)

    async def describe(self) -> Description:
        try:
            counted = await asyncio.to_thread(self._survey, seconds=_GLANCE_SECONDS)
            counted.unreadable.raise_if_any()
        except ServiceError as error:
            return Description("files", can_export=Capability(error.text), can_import=await self._can_import())
        return Description(
            engine="files",
            can_import=await self._can_import(),
            estimated_bytes=counted.bytes if counted.is_complete else 0,
            import_needs_app_stop=True,
            details={"directory": str(self._directory), "filesystem": filesystem_type(self._directory)},
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        require_known(options.options, ("fingerprint",), what="An export of a volume")
        content = ContentSum(_SCHEME) if wants_fingerprint(options.options) else None
        progress.step(Step.PREPARING, "counting files")
        counted = await asyncio.to_thread(self._survey, seconds=_SURVEY_SECONDS)
        counted.unreadable.raise_if_any()
        progress.expect(counted.bytes if counted.is_complete else 0)
        header = self._header(options, counted)
        async with self._snapshots() as snapshots:
            writer = self._writer(snapshots, content)
            blocks = tar_stream.sealed(writer.blocks(), header, content.fingerprint if content else lambda: None)
            blocks = tar_stream.compressed_as(blocks, options.format.name)
            chunks = tar_stream.from_thread(blocks, name="archive a volume", interrupt=snapshots.interrupt)
            export = Export(header, chunks, writer.counts)
            read = tar_stream.measured(chunks, read_bytes=lambda: writer.read_bytes, on_read=progress.read)
            export.chunks = _told(read, writer, snapshots, export, content)
            async with aclosing(chunks):
                yield export

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        content = ContentSum(_SCHEME)
        async with self._snapshots() as snapshots:
            writer = self._writer(snapshots, content)
            blocks = tar_stream.from_thread(writer.blocks(), name="read a volume", interrupt=snapshots.interrupt)
            async with aclosing(blocks):
                async for block in blocks:
                    progress.read(len(block))
        return content.fingerprint()

    def _snapshots(self) -> Snapshots:
        surroundings = self._surroundings
        return Snapshots(self._directory, work_directory=surroundings.work_directory, limits=surroundings.limits)

    def _writer(self, snapshots: Snapshots, content: ContentSum | None) -> TreeWriter:
        return TreeWriter(
            self._directory,
            work_directory=self._surroundings.work_directory,
            substitute=snapshots.substitute,
            is_left_out=self._is_left_out,
            content=content,
        )

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        options = choices_of(upload.options, _IMPORT_OPTIONS, what="An import into a volume")
        if obstacle := (await self._can_import()).obstacle:
            raise AppMustStopError(obstacle) if not self._app.is_possible else AppUnavailableError(obstacle)
        limits = self._surroundings.limits
        tree.require_room(self._directory, upload.header.counts.get("bytes", 0), limits)
        area = tree.StagingArea(self._directory, record.key)
        record.save(directory=str(self._directory))
        await asyncio.to_thread(area.create)
        progress.step(Step.TRANSFERRING, "unpacking beside the present data")
        owner = usual_owner(self._directory)
        orders = tree.Orders(
            recipe=self.name,
            limits=limits,
            owner=owner if options["ownership"] == "app" else None,
            default_owner=owner,
            inside=self._directory,
            work_directory=self._surroundings.work_directory,
        )
        async with unpacked(upload.chunks, limits=limits, unpack_zip=False) as content:
            head, chunks = await peeked(content.chunks)
            async with aclosing(chunks):
                report = await tree.unpack(area, chunks, orders, is_zip=codec_of(head) == "zip")
        progress.step(Step.VERIFYING, "looking at what was unpacked")
        preview = await self._verified(area.new, report, options)
        await note_staged(record, self._directory)
        return preview

    async def restore(self, record: Record, progress: Progress) -> None:
        await self._exchange.restore(record, progress)

    async def undo(self, record: Record, progress: Progress) -> None:
        await self._exchange.undo(record, progress)

    async def discard(self, record: Record) -> None:
        await self._exchange.discard(record)

    async def recover(self, record: Record) -> Recovered:
        return await self._exchange.recover(record)

    async def tidy(self) -> None:
        await asyncio.to_thread(remove_snapshots, self._directory)

    async def _verified(self, new: Path, report: Report, options: Mapping[str, str]) -> Preview:
        extracted = report.extracted
        if report.header is None and not extracted.entries:
            raise ArchiveWrongKindError("The archive holds no files; an import would leave the app without data.")
        warnings = verifying.check_links(
            extracted,
            present=self._directory,
            way_out="If that is right for this app, import with the option outside_links=keep.",
            keep=options["outside_links"] == "keep",
        ) + await verifying.check_databases(
            new,
            extracted,
            is_sealed=report.header is not None,
            keep_damaged=options["damaged_databases"] == "keep",
        )
        if report.header is None and not (extracted.files or extracted.symlinks):
            warnings.append("The archive holds directories but no files; an import leaves the app without data.")
        compared = await self._compared(new)
        now, after = compared.now, compared.after
        return Preview(
            changes=verifying.changes(now, after),
            counts_now=verifying.counts(now) if now.is_complete else {},
            counts_after=verifying.counts(after)
            if after.is_complete
            else {
                "files": extracted.files + extracted.hard_links,
                "bytes": extracted.bytes,
                "databases": extracted.databases,
            },
            items=compared.items,
            room_bytes=after.bytes if after.is_complete else extracted.bytes,
            swap_seconds=expected_swap_seconds(len(now.tops) + len(after.tops)),
            warnings=(
                *report.warnings,
                *warnings,
                *verifying.dropped(extracted, acls_skipped=report.acls_skipped),
                *(verifying.of_macos(extracted) if report.header is None else ()),
                *verifying.owners_differ(extracted, now),
            ),
            header=report.header,
        )

    async def _compared(self, new: Path) -> Compared:
        try:
            # What an export leaves out is gone after its import, so it counts here.
            return await compare_trees(self._directory, new)
        except OSError as failure:
            raise self._not_readable(failure) from failure

    def _survey(self, *, seconds: float) -> Survey:
        try:
            return survey(self._directory, seconds=seconds, is_left_out=self._is_left_out)
        except OSError as failure:
            raise self._not_readable(failure) from failure

    def _not_readable(self, failure: OSError) -> AppUnavailableError:
        return AppUnavailableError(
            f"The volume {self._directory} cannot be read: {failure.strerror}.",
            next_step="See that it is mounted, and readable for the agent.",
        )

    async def _can_import(self) -> Capability:
        return Capability(await asyncio.to_thread(self._obstacle))

    def _obstacle(self) -> str:
        """What stands against any import; empty when nothing does."""
        if not self._app.is_possible:
            return NO_APP_CONTROL
        if mounts := mounts_below(self._directory):
            return (
                f"{mounts[0]} is a mount of its own inside the volume, so the volume's content cannot be exchanged "
                "as a whole."
            )
        if not os.access(self._directory, os.W_OK | os.X_OK):
            return f"The agent (uid {os.geteuid()}) may not write to the volume {self._directory}."
        return obstacle_to(self._directory)

    def _header(self, options: ExportOptions, counted: Survey) -> ArchiveHeader:
        counts = {"entries": counted.entries, "files": counted.files, "bytes": counted.bytes}
        details = {
            "filesystem": filesystem_type(self._directory),
            "owners": " ".join(counted.owners),
            "excluded": ", ".join(self._exclude)[:1000],
        }
        return replace(
            self._surroundings.header_of(options, recipe=self.name),
            engine="files",
            created_at=dt.datetime.now(dt.UTC),
            counts=counts if counted.is_complete else {},
            details={name: text for name, text in details.items() if text},
        )


async def _told(
    chunks: AsyncGenerator[bytes, None],
    writer: TreeWriter,
    snapshots: Snapshots,
    export: Export,
    content: ContentSum | None,
) -> AsyncGenerator[bytes, None]:
    """The chunks; at the end the export says what there is to be warned of."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk
            del chunk
    export.warnings += writer.warnings() + snapshots.warnings
    export.fingerprint = content.fingerprint() if content else None
