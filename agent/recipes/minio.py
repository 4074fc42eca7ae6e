"""MinIO: the whole drive as of one moment out, and another exchanged for it, with the server running.

Export takes a snapshot by hard links and freezes the server for some milliseconds to finish it. Import unpacks beside
the data on the same drive, lets the server try some of it, exchanges directories under a freeze and has MinIO restart
itself, since it keeps users and settings in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from agent.engines import tree
from agent.engines.minio.directory import importing
from agent.engines.minio.directory.exporting import Dump, dumping
from agent.engines.minio.directory.options import of_export, of_import
from agent.engines.minio.drive.exchange import has_unfinished
from agent.engines.minio.drive.snapshot import remove_snapshots
from agent.engines.minio.portable import way as portable_way
from agent.engines.minio.server import site_replication
from agent.engines.minio.server.client import Client, connected
from agent.engines.minio.server.facts import (
    BY_HAND,
    ONLY_PORTABLE,
    OTHER_SERVER,
    PORTABLE_HINT,
    Facts,
    look_if_minio,
    obstacle_at,
)
from agent.engines.minio.server.freezing import thaw, thaw_if_there
from agent.engines.minio.server.settings import read_settings
from agent.engines.minio.trees.counting import count_in_jail
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
from agent.recipes.minio_drive import DriveImport, look
from agent.recipes.minio_portable import S3, PortableImport
from agent.unpacking import unpacked
from agent.unsettled import UnsettledError
from common.codecs import zstd_compressor
from common.errors import AppUnavailableError, ServiceError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader

TAR = Format("tar", "application/x-tar", ".tar", "the drive at one moment, as tar; an empty MinIO starts on it")
TAR_ZST = Format("tar.zst", "application/zstd", ".tar.zst", "the same, compressed with zstd")
_GLANCE_SECONDS = 1.0


class MinioRecipe(Recipe):
    """One MinIO server with one drive."""

    name = "minio"
    data_export_description = (
        "All buckets as of one moment: every version of every object with metadata, tags, locks and delete markers, "
        "the buckets' settings, users, policies, service accounts and the server's configuration, secret keys sealed. "
        "Not: unfinished uploads, sessions (STS), content in a remote tier, the drive's identity, usage counts."
    )
    export_formats = (TAR, TAR_ZST, S3)
    import_formats = ("tar", "tar.gz", "tar.zst", "tar.xz", S3.name)

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._settings = read_settings(surroundings.settings)
        self._drive = Path(self._settings.directory)

    async def describe(self) -> Description:
        try:
            async with self._connected() as client:
                facts = await look_if_minio(client)
                joined = await site_replication.obstacle(client) if facts else ""
        except ServiceError as error:
            return Description("minio", can_export=Capability(error.text), can_import=Capability(error.text))
        if facts is None:
            return Description("s3", can_import=Capability(OTHER_SERVER), warnings=(ONLY_PORTABLE,))
        obstacle = self._obstacle(facts)
        warnings: tuple[str, ...] = (f"{obstacle} The portable format works all the same.",) if obstacle else ()
        stored = 0
        if not obstacle:
            counted = await count_in_jail(self._drive, seconds=_GLANCE_SECONDS)
            stored = counted.counts()["bytes"] if counted.is_complete else 0
            if counted.encrypted and not self._settings.kms_key_file:
                warnings = (
                    "Objects are encrypted with a KMS key. With `kms_key_file` in the agent's settings an archive of "
                    "another key is noticed before anything is exchanged.",
                )
        return Description(
            engine="minio",
            engine_version=facts.version,
            can_import=Capability(joined),
            estimated_bytes=stored,
            warnings=warnings,
            details={"deployment_id": facts.deployment_id, "drives": str(facts.drives), "kms": facts.kms or "none"},
        )

    @asynccontextmanager
    async def export_data(self, options: ExportOptions, progress: Progress) -> AsyncIterator[Export]:
        chosen = of_export(options.options)
        progress.step(Step.PREPARING)
        async with (
            self._connected() as client,
            self._dumping(client, options, chosen["secrets"], progress) as dump,
        ):
            export = Export(dump.header, dump.chunks, dump.counts, dump.warnings)
            export.chunks = _noting(export, dump)
            async with aclosing(export.chunks):
                yield export

    @asynccontextmanager
    async def _dumping(
        self, client: Client, options: ExportOptions, secrets_go: str, progress: Progress
    ) -> AsyncIterator[Dump]:
        work_directory = self._surroundings.work_directory
        if options.format is S3:
            facts = await look_if_minio(client)
            if facts is not None:
                await thaw(client)
            drive = None if self._obstacle(facts) else self._drive
            async with portable_way.exporting(
                client, self._header(options), facts, drive, progress, work_directory=work_directory
            ) as dump:
                yield dump
            return
        async with dumping(
            client,
            self._settings,
            await look(client, self._settings.directory),
            progress,
            secrets_go=secrets_go,
            header=self._header(options),
            compressor=zstd_compressor() if options.format is TAR_ZST else None,
            work_directory=work_directory,
            free_bytes=self._surroundings.limits.free_bytes,
        ) as dump:
            yield dump

    async def fingerprint(self, progress: Progress) -> Fingerprint:
        async with self._connected() as client:
            facts = await look_if_minio(client)
            if self._obstacle(facts):
                progress.step(Step.TRANSFERRING, "reading all objects")
                return await portable_way.fingerprint(
                    client,
                    progress,
                    is_minio=facts is not None,
                    work_directory=self._surroundings.work_directory,
                )
        progress.step(Step.PREPARING, "looking through the drive")
        return (await count_in_jail(self._drive)).fingerprint()

    async def stage(self, upload: Upload, record: Record, progress: Progress) -> Preview:
        options = of_import(upload.options)
        progress.step(Step.PREPARING)
        limits = self._surroundings.limits
        async with self._connected() as client:
            facts = await look_if_minio(client)
            if facts is None:
                raise AppUnavailableError(OTHER_SERVER, next_step=BY_HAND)
            await thaw(client)
            await site_replication.require_alone(client)
            async with unpacked(upload.chunks, limits=limits, unpack_zip=False) as content:
                header, chunks = await portable_way.peek(content.chunks)
                is_portable = header is not None and header.format == S3.name
                obstacle = self._obstacle(facts)
                if obstacle and not is_portable:
                    raise AppUnavailableError(obstacle, next_step=PORTABLE_HINT)
                directory = self._surroundings.work_directory if obstacle else self._drive
                known = header.counts if header else upload.header.counts
                tree.require_room(directory, importing.needed_bytes(known.get("bytes", 0)), limits)
                area = tree.StagingArea(directory, record.key)
                record.save(directory=str(directory), is_portable=is_portable)
                await asyncio.to_thread(area.create)
                progress.step(Step.TRANSFERRING, "unpacking beside the present data")
                async with aclosing(chunks):
                    if (portable := PortableImport.of(record)) is not None:
                        return await portable.stage(client, facts, chunks, options, self._surroundings)
                    return await self._drive_import(record).stage(client, facts, chunks, options, progress)

    async def restore(self, record: Record, progress: Progress) -> str | None:
        async with self._connected() as client:
            await site_replication.require_alone(client)
            if (portable := PortableImport.of(record)) is not None:
                await portable.restore(client, progress)
                return None
            return await self._drive_import(record).restore(client, progress)

    async def undo(self, record: Record, progress: Progress) -> str | None:
        told: str | None = None
        async with self._connected() as client:
            if (portable := PortableImport.of(record)) is not None:
                await portable.undo(client)
            else:
                told = await self._drive_import(record).undo(client, progress)
        progress.step(Step.UNDOING, "removing the imported data; the server runs")
        try:
            await self.discard(record)
        except ServiceError as failure:
            # It is done but for this.
            raise UnsettledError from failure
        return told

    async def discard(self, record: Record) -> None:
        if "directory" not in record.facts:
            return
        if (portable := PortableImport.of(record)) is not None:
            await portable.discard(self._connected)
        else:
            await self._drive_import(record).discard(self._connected)

    async def put_right(self, record: Record) -> ServiceError | None:
        portable = PortableImport.of(record)
        return portable.put_right() if portable else None

    async def recover(self, record: Record) -> Recovered:
        if (portable := PortableImport.of(record)) is not None:
            async with self._connected() as client:
                await portable.recover(client)
            return Recovered.PREVIOUS
        if "directory" not in record.facts:
            return Recovered.PREVIOUS
        return await self._drive_import(record).recover(self._connected)

    async def tidy(self) -> None:
        if self._settings.directory:
            await asyncio.to_thread(remove_snapshots, self._drive)
            if await asyncio.to_thread(has_unfinished, self._drive):
                # Buckets are away: clients wait, so that nobody makes them anew.
                return
        async with self._connected() as client:
            await thaw_if_there(client)

    def _obstacle(self, facts: Facts | None) -> str:
        return obstacle_at(facts, self._settings.directory)

    def _drive_import(self, record: Record) -> DriveImport:
        return DriveImport(record, self._settings, self._surroundings)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        async with connected(self._settings.account(), self._settings.tls_context()) as client:
            yield client

    def _header(self, options: ExportOptions) -> ArchiveHeader:
        return replace(self._surroundings.header_of(options, recipe=self.name), engine="minio")


async def _noting(export: Export, dump: Dump) -> AsyncGenerator[bytes, None]:
    async for chunk in dump.chunks:
        yield chunk
        del chunk
    export.fingerprint = dump.fingerprint
