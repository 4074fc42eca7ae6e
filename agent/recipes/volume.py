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

import structlog

from agent.archives.extractor_child import Report
from agent.archives.surveying import Survey, survey
from agent.archives.walking import left_out_by
from agent.archives.writing import TreeWriter
from agent.engines import tree, verifying
from agent.engines.filesystem import filesystem_type, mounts_below, usual_owner
from agent.engines.sqlite import Snapshots
from agent.engines.swapping import Side, Swap
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
from agent.unpacking import unpacked
from common.codecs import HEAD_BYTES, codec_of, gzip_compressor, zstd_compressor
from common.errors import (
    AppMustStopError,
    AppUnavailableError,
    ArchiveWrongKindError,
    InvalidRequestError,
    ServiceError,
    ToolFailedError,
)
from common.headers import ArchiveHeader
from common.seals import FORMAT_VERSION

_log = structlog.get_logger(__name__)

TAR_ZST = Format("tar.zst", "application/zstd", ".tar.zst", "tar archive, compressed with zstd; opens with tar")
TAR_GZ = Format("tar.gz", "application/gzip", ".tar.gz", "tar archive, compressed with gzip; opens with tar")
TAR = Format("tar", "application/x-tar", ".tar", "tar archive; opens with tar")
_COMPRESSORS = {TAR_ZST.name: zstd_compressor, TAR_GZ.name: gzip_compressor}
_SURVEY_SECONDS = 5.0
"""Before an export and for a preview: enough for a million files; an archive has counts of its own at its end."""
_GLANCE_SECONDS = 1.0
_SETTINGS = ("directory", "exclude")
_IMPORT_OPTIONS = {
    "outside_links": ("refuse", "keep"),
    "damaged_databases": ("refuse", "keep"),
    "ownership": ("archive", "app"),
}
"""The first is the default."""


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
        self._directory, self._exclude = _checked_settings(surroundings.settings)
        self._is_left_out = left_out_by(self._exclude)

    async def describe(self) -> Description:
        try:
            counted = await asyncio.to_thread(self._survey, seconds=_GLANCE_SECONDS)
            counted.unreadable.raise_if_any()
        except ServiceError as error:
            return Description("files", can_export=Capability(error.text), can_import=Capability(self._obstacle()))
        return Description(
            engine="files",
            can_import=Capability(self._obstacle()),
            estimated_bytes=counted.bytes if counted.is_complete else 0,
            import_needs_app_stop=True,
            details={"directory": str(self._directory), "filesystem": filesystem_type(self._directory)},
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        if options.options:
            raise InvalidRequestError(f"An export of a volume has no option {next(iter(options.options))!r}.")
        progress.step(Step.PREPARING, "counting files")
        counted = await asyncio.to_thread(self._survey, seconds=_SURVEY_SECONDS)
        counted.unreadable.raise_if_any()
        progress.expect(counted.bytes if counted.is_complete else 0)
        header = self._header(options, counted)
        work_directory, limits = self._surroundings.work_directory, self._surroundings.limits
        async with Snapshots(self._directory, work_directory=work_directory, limits=limits) as snapshots:
            writer = TreeWriter(
                self._directory,
                work_directory=work_directory,
                substitute=snapshots.substitute,
                is_left_out=self._is_left_out,
            )
            blocks = tree.sealed(writer.blocks(), header)
            if make_compressor := _COMPRESSORS.get(options.format.name):
                blocks = tree.compressed(blocks, make_compressor())
            chunks = tree.from_thread(blocks, name="archive a volume", interrupt=snapshots.interrupt)
            warnings: list[str] = []
            async with aclosing(chunks):
                yield Export(header, _told(chunks, writer, snapshots, progress, warnings), writer.counts, warnings)

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        options = _checked_options(upload.options)
        if obstacle := self._obstacle():
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
            head, chunks = await _peeked(content.chunks)
            async with aclosing(chunks):
                report = await tree.unpack(area, chunks, orders, is_zip=codec_of(head) == "zip")
        progress.step(Step.VERIFYING, "looking at what was unpacked")
        return await self._verified(area.new, report, options)

    async def restore(self, record: Record, progress: Progress) -> None:
        await self._exchange(record, Side.IMPORTED, progress)

    async def undo(self, record: Record, progress: Progress) -> None:
        await self._exchange(record, Side.PREVIOUS, progress)
        try:
            await self.discard(record)
        except ServiceError as failure:
            raise UnsettledError from failure

    async def discard(self, record: Record) -> None:
        if (directory := _directory_of(record)) is None:
            return
        swap = Swap(directory, record.key)
        if swap.is_unfinished():
            await asyncio.to_thread(swap.recover)
        await asyncio.to_thread(tree.StagingArea(directory, record.key).remove)

    async def recover(self, record: Record) -> Recovered:
        if (directory := _directory_of(record)) is None:
            return Recovered.PREVIOUS
        swap = Swap(directory, record.key)
        if not swap.is_prepared():
            return Recovered.PREVIOUS
        if swap.is_unfinished() and self._app.is_possible:
            await self._app.stop()
        side = await asyncio.to_thread(swap.recover)
        if record.facts.get("app_is_stopped"):
            try:
                await self._app.start()
            except ServiceError as failure:
                _log.warning("The app did not start.", action="recover", side=side.name, error=failure.text)
                if side is Side.IMPORTED:
                    await self._app.stop()
                    await asyncio.to_thread(swap.bring, Side.PREVIOUS)
                    side = Side.PREVIOUS
                    await self._app.start()
            record.save(app_is_stopped=False)
        return Recovered[side.name]

    async def _verified(self, new: Path, report: Report, options: Mapping[str, str]) -> Preview:
        extracted = report.extracted
        if report.header is None and not extracted.entries:
            raise ArchiveWrongKindError("The archive holds no files; an import would leave the app without data.")
        warnings = verifying.check_links(
            extracted, present=self._directory, keep=options["outside_links"] == "keep"
        ) + await verifying.check_databases(
            new,
            extracted,
            is_sealed=report.header is not None,
            keep_damaged=options["damaged_databases"] == "keep",
        )
        now, after = await asyncio.gather(
            asyncio.to_thread(self._survey, seconds=_SURVEY_SECONDS, find_databases=True),
            asyncio.to_thread(survey, new, seconds=_SURVEY_SECONDS),
        )
        return Preview(
            changes=verifying.changes(now, after),
            counts_now={"files": now.files, "bytes": now.bytes, "databases": now.databases} if now.is_complete else {},
            counts_after={"files": extracted.files, "bytes": extracted.bytes, "databases": extracted.databases},
            warnings=(
                *warnings,
                *verifying.dropped(extracted, acls_skipped=report.acls_skipped),
                *verifying.owners_differ(extracted, now),
            ),
            header=report.header,
        )

    async def _exchange(self, record: Record, target: Side, progress: Progress) -> None:
        """Bring a side's data in place around a stop and a start of the app, or leave everything as it was."""
        if not self._app.is_possible:
            raise AppMustStopError(self._obstacle())
        if (directory := _directory_of(record)) is None:
            raise ToolFailedError("Nothing is staged on the volume.")
        swap = Swap(directory, record.key)
        step = Step.RESTORING if target is Side.IMPORTED else Step.UNDOING
        record.save(app_is_stopped=True)
        progress.step(step, "stopping the app")
        try:
            await self._app.stop()
            progress.step(step, "exchanging the data")
            await asyncio.to_thread(swap.bring, target)
        except ServiceError as failure:
            if swap.is_unfinished():
                raise UnsettledError from failure
            await self._start_again(record)
            raise
        progress.step(step, "starting the app")
        try:
            await self._app.start()
        except ServiceError as failure:
            try:
                await self._app.stop()
                await asyncio.to_thread(swap.bring, target.other)
            except ServiceError as second_failure:
                raise UnsettledError from second_failure
            ended = await self._start_again(record)
            data = "imported" if target is Side.IMPORTED else "previous"
            raise ToolFailedError(
                f"The app did not start with the {data} data, so the other is back in place{ended}: {failure.text}",
                next_step="See the app's own log for what it has against the data.",
            ) from failure
        record.save(app_is_stopped=False)

    async def _start_again(self, record: Record) -> str:
        """Start the app on the data that it had; what to add to an error's text."""
        try:
            await self._app.start()
        except ServiceError as failure:
            _log.warning("The app did not start again.", action="start_app", error=failure.text)
            return ", and it did not start with that either"
        record.save(app_is_stopped=False)
        return " and it was started again"

    def _survey(self, *, seconds: float, find_databases: bool = False) -> Survey:
        try:
            return survey(
                self._directory, seconds=seconds, is_left_out=self._is_left_out, find_databases=find_databases
            )
        except OSError as failure:
            raise AppUnavailableError(
                f"The volume {self._directory} cannot be read: {failure.strerror}.",
                next_step="See that it is mounted, and readable for the agent.",
            ) from failure

    def _obstacle(self) -> str:
        """What stands against any import; empty when nothing does."""
        if not self._app.is_possible:
            return (
                "The app has to be stopped for an import, and the agent has no way to do that: its settings need "
                "`stop` and `start` in the table [app]."
            )
        if mounts := mounts_below(self._directory):
            return (
                f"{mounts[0]} is a mount of its own inside the volume, so the volume's content cannot be exchanged "
                "as a whole."
            )
        if not os.access(self._directory, os.W_OK | os.X_OK):
            return f"The agent (uid {os.geteuid()}) may not write to the volume {self._directory}."
        return ""

    def _header(self, options: ExportOptions, counted: Survey) -> ArchiveHeader:
        counts = {"entries": counted.entries, "files": counted.files, "bytes": counted.bytes}
        details = {
            "filesystem": filesystem_type(self._directory),
            "owners": " ".join(counted.owners),
            "excluded": ", ".join(self._exclude)[:1000],
        }
        return ArchiveHeader(
            recipe=self.name,
            format=options.format.name,
            format_version=FORMAT_VERSION,
            engine="files",
            made_by=self._surroundings.made_by,
            created_at=dt.datetime.now(dt.UTC),
            app_id=options.app_id,
            counts=counts if counted.is_complete else {},
            details={name: text for name, text in details.items() if text},
            media_type=options.format.media_type,
            file_name=options.file_name,
        )


class UnsettledError(Exception):
    """A step failed half-way, or is done but for some clearing up. No answer but a fault: the agent then settles it by
    `recover` and `discard`, now and, where that is not possible yet, later."""


async def _told(
    chunks: AsyncGenerator[bytes, None],
    writer: TreeWriter,
    snapshots: Snapshots,
    progress: Progress,
    warnings: list[str],
) -> AsyncGenerator[bytes, None]:
    """The chunks; says how much was read, and at the end what there is to be warned of."""
    told = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            read = writer.read_bytes
            progress.read(read - told)
            told = read
            yield chunk
    warnings += writer.warnings() + snapshots.warnings


async def _peeked(chunks: AsyncGenerator[bytes, None]) -> tuple[bytes, AsyncGenerator[bytes, None]]:
    """The first bytes of a stream, and all of it."""
    head = b""
    while len(head) < HEAD_BYTES and (chunk := await anext(chunks, b"")):
        head += chunk

    async def whole() -> AsyncGenerator[bytes, None]:
        if head:
            yield head
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    return head, whole()


def _directory_of(record: Record) -> Path | None:
    """Where the import has its staging area; None when it has not come so far."""
    directory = record.facts.get("directory")
    return Path(directory) if isinstance(directory, str) else None


def _checked_settings(settings: Mapping[str, object]) -> tuple[Path, tuple[str, ...]]:
    for name in settings:
        if name not in _SETTINGS:
            raise InvalidRequestError(f"A volume has no setting {name!r}; there are {', '.join(_SETTINGS)}.")
    directory = settings.get("directory")
    if not isinstance(directory, str) or not directory.startswith("/") or Path(directory) == Path("/"):
        raise InvalidRequestError("The setting `directory` has to be the absolute path of the volume.")
    exclude = settings.get("exclude", [])
    if not isinstance(exclude, list) or not all(isinstance(pattern, str) and pattern for pattern in exclude):
        raise InvalidRequestError("The setting `exclude` has to be a list of patterns.")
    return Path(directory), tuple(exclude)


def _checked_options(options: Mapping[str, str]) -> dict[str, str]:
    for name, value in options.items():
        if value not in _IMPORT_OPTIONS.get(name, ()):
            known = "; ".join(f"{known}: {' or '.join(values)}" for known, values in _IMPORT_OPTIONS.items())
            raise InvalidRequestError(f"An import into a volume has no option {name}={value}. There are {known}.")
    return {name: options.get(name, values[0]) for name, values in _IMPORT_OPTIONS.items()}
