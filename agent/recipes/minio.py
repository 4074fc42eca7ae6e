"""MinIO: the whole drive as of one moment out, and another exchanged for it, with the server running.

Export takes a snapshot by hard links and freezes the server for some milliseconds to finish it. Import unpacks beside
the data on the same drive, lets the server try some of it, exchanges directories under a freeze and has MinIO restart
itself, since it keeps users and settings in memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from agent.archives.extractor_child import Report
from agent.engines import tree
from agent.engines.minio import accounts, canary, importing, portable_way, previewing, swap, tier_reading
from agent.engines.minio.client import Client, connected
from agent.engines.minio.counting import count_in_jail
from agent.engines.minio.exchange import Exchange
from agent.engines.minio.exporting import Dump, dumping
from agent.engines.minio.facts import (
    BY_HAND,
    ONLY_PORTABLE,
    OTHER_SERVER,
    PORTABLE_HINT,
    Facts,
    drive_obstacle,
    look_if_minio,
)
from agent.engines.minio.freezing import thaw, thaw_if_there
from agent.engines.minio.options import of_export, of_import
from agent.engines.minio.settings import read_settings
from agent.engines.minio.snapshot import remove_snapshots
from agent.engines.minio.tally import Sample, Tally
from agent.engines.swapping import Side
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
    note_done,
)
from agent.recipes.minio_portable import S3, PortableImport, names_in
from agent.unpacking import unpacked
from agent.unsettled import UnsettledError
from common.codecs import zstd_compressor
from common.errors import AppUnavailableError, NothingToUndoError, ServiceError, TransferNotFoundError
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.seals import FORMAT_VERSION

TAR = Format("tar", "application/x-tar", ".tar", "the drive at one moment, as tar; an empty MinIO starts on it")
TAR_ZST = Format("tar.zst", "application/zstd", ".tar.zst", "the same, compressed with zstd")
_GLANCE_SECONDS = 1.0
_SURVEY_SECONDS = 20.0
_log = structlog.get_logger(__name__)


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
            await self._look(client),
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
                    return await self._stage_drive(client, facts, area, chunks, record, options, progress)

    async def _stage_drive(
        self,
        client: Client,
        facts: Facts,
        area: tree.StagingArea,
        chunks: AsyncIterator[bytes],
        record: Record,
        options: Mapping[str, str],
        progress: Progress,
    ) -> Preview:
        report, tally = await importing.unpack(
            chunks,
            area,
            self._settings,
            limits=self._surroundings.limits,
            work_directory=self._surroundings.work_directory,
            keep_users=options["users"] == "keep",
            shares_tiers=options["tiered"] == "share",
            only=options["bucket"],
        )
        previous_root = accounts.root_of(report.header, options["root"], area.new)
        await asyncio.to_thread(
            accounts.require_one_root,
            area.new,
            root=self._settings.account().user,
            previous_root=previous_root,
            parents=tally.parents,
        )
        progress.step(Step.VERIFYING, "having the server read some of it")
        await importing.require_readable(
            client, report.header, tally, facts, self._settings, staged=area.new, canary=canary.bucket_of(record.key)
        )
        keeps_users = not tally.has_config
        record.save(
            samples=[json.dumps(msgspec.to_builtins(sample)) for sample in tally.samples],
            buckets=sorted(tally.buckets),
            previous_root=previous_root,
            keeps_users=keeps_users,
            only=options["bucket"],
            shares_tiers=bool(tally.tiered.versions),
        )
        await asyncio.to_thread(self._exchange(record).note_kept)
        return await self._preview(
            report,
            tally,
            facts,
            area.new,
            keeps_users=keeps_users,
            only=options["bucket"],
            previous_root=previous_root,
        )

    async def restore(self, record: Record, progress: Progress) -> str | None:
        if (portable := PortableImport.of(record)) is not None:
            async with self._connected() as client:
                await portable.restore(client, progress)
            return None
        exchange = self._exchange(record)
        if not exchange.is_prepared() or not await asyncio.to_thread(exchange.has_all):
            raise TransferNotFoundError("What was staged is gone, or some of it.", next_step="Import it again.")
        async with self._connected() as client:
            await self._look(client)
            progress.step(Step.RESTORING, "making the new data durable")
            await asyncio.to_thread(exchange.prepare)
            progress.step(Step.RESTORING, "exchanging the data")
            await self._carry_out(client, exchange, Side.IMPORTED, record)
            progress.step(Step.RESTORING, "counting what is kept; the server runs")
            await _note_kept(exchange)
            if record.facts.get("shares_tiers"):
                progress.step(Step.RESTORING, "looking for content in its tier; the server runs")
                return await self._look_in_tiers(client, exchange)
        return None

    async def undo(self, record: Record, progress: Progress) -> str | None:
        if (portable := PortableImport.of(record)) is not None:
            async with self._connected() as client:
                await portable.undo(client)
            await self._drop(record)
            return None
        exchange = self._exchange(record)
        if not await asyncio.to_thread(exchange.keeps_previous):
            raise NothingToUndoError("The previous data is gone from the drive, or some of it.")
        async with self._connected() as client:
            await self._look(client)
            progress.step(Step.UNDOING, "exchanging the data")
            await self._carry_out(client, exchange, Side.PREVIOUS, record)
            told = ""
            if record.facts.get("shares_tiers"):
                progress.step(Step.UNDOING, "looking for content in its tier; the server runs")
                told = await self._look_in_tiers(client, exchange)
        progress.step(Step.UNDOING, "removing the imported data; the server runs")
        await self._drop(record)
        return told

    async def discard(self, record: Record) -> None:
        if "directory" not in record.facts:
            return
        if (portable := PortableImport.of(record)) is not None:
            await portable.discard(self._connected)
            return
        exchange = self._exchange(record)
        if exchange.is_unfinished():
            await self.recover(record)
        bucket = canary.bucket_of(record.key)
        if (self._drive / bucket).exists():
            async with self._connected() as client:
                await canary.remove(client, self._drive, bucket)
        await asyncio.to_thread(tree.StagingArea(self._drive, record.key).remove)

    async def put_right(self, record: Record) -> ServiceError | None:
        portable = PortableImport.of(record)
        return portable.put_right() if portable else None

    async def recover(self, record: Record) -> Recovered:
        if (portable := PortableImport.of(record)) is not None:
            async with self._connected() as client:
                await portable.recover(client)
            return Recovered.PREVIOUS
        exchange = self._exchange(record)
        if "directory" not in record.facts or not exchange.is_prepared():
            return Recovered.PREVIOUS
        async with self._connected() as client:
            side = await swap.finish(client, self._settings, exchange)
            if record.facts.get("is_settled") is False:
                await self._look(client)
                try:
                    if side is Side.IMPORTED:
                        await self._settle_imported(client, exchange, record)
                    else:
                        # There is nothing else to go back to.
                        await swap.settle(client, exchange, [], [], keeps_users=True)
                except ServiceError as failure:
                    if side is Side.PREVIOUS:
                        raise
                    _log.warning("The server cannot use the imported data.", action="recover", error=failure.text)
                    await swap.put_back(client, self._settings, exchange, Side.PREVIOUS)
                    side = Side.PREVIOUS
                note_done(record, is_settled=True)
        if side is Side.IMPORTED:
            await _note_kept(exchange)
        return Recovered[side.name]

    async def tidy(self) -> None:
        if self._settings.directory:
            await asyncio.to_thread(remove_snapshots, self._drive)
        async with self._connected() as client:
            await thaw_if_there(client)

    async def _drop(self, record: Record) -> None:
        """After an undo: it is done but for this, so a failure is settled later."""
        try:
            await self.discard(record)
        except ServiceError as failure:
            raise UnsettledError from failure

    def _exchange(self, record: Record) -> Exchange:
        return Exchange(self._drive, record.key, only=str(record.facts.get("only", "")))

    async def _carry_out(self, client: Client, exchange: Exchange, target: Side, record: Record) -> None:
        async def settle(needs_restart: bool) -> None:
            if target is Side.IMPORTED:
                await self._settle_imported(client, exchange, record, needs_restart=needs_restart)
            else:
                await swap.settle(
                    client, exchange, [], [], needs_restart=needs_restart, keeps_users=_keeps_users(record)
                )

        record.save(is_settled=False)
        failure = await swap.carry_out(client, self._settings, exchange, target, settle)
        note_done(record, is_settled=True)
        if failure is not None:
            raise failure

    async def _look_in_tiers(self, client: Client, exchange: Exchange) -> str:
        """What a person should know of what is in place: others may have deleted its content in a tier that it shares
        with them. Never fails: the data is in place, whatever there is to say of it."""
        try:
            found = await count_in_jail(self._drive, seconds=_SURVEY_SECONDS, only=exchange.only)
            told = await tier_reading.look(client, found.tiered)
        except ServiceError as failure:
            return f"Whether content that lies in a tier is there was not looked at: {failure.text}"
        if not found.is_complete:
            told = f"{told} Not all of the drive was looked through for content that lies in a tier.".lstrip()
        if told:
            _log.warning("Content is not in its tier, or was not looked for.", action="look_in_tiers", told=told)
        return told

    async def _settle_imported(
        self, client: Client, exchange: Exchange, record: Record, *, needs_restart: bool = True
    ) -> None:
        samples = [msgspec.json.decode(sample, type=Sample) for sample in names_in(record, "samples")]
        await swap.settle(
            client,
            exchange,
            samples,
            names_in(record, "buckets"),
            needs_restart=needs_restart,
            keeps_users=_keeps_users(record),
        )
        previous_root = "" if _keeps_users(record) else record.facts.get("previous_root")
        if isinstance(previous_root, str) and previous_root not in ("", client.account.user):
            taken = [
                msgspec.json.decode(account, type=accounts.TakenOver) for account in names_in(record, "taken_over")
            ]
            if not taken:
                taken = await accounts.roots_own(client, previous_root=previous_root)
                # A recovery can tell neither whose they were nor what has been enabled.
                record.save(taken_over=[json.dumps(msgspec.to_builtins(account)) for account in taken])
            await accounts.take_over(client, taken, previous_root=previous_root)

    async def _preview(
        self,
        report: Report,
        tally: Tally,
        facts: Facts,
        staged: Path,
        *,
        keeps_users: bool,
        only: str,
        previous_root: str,
    ) -> Preview:
        header = report.header
        now = await count_in_jail(self._drive, seconds=_SURVEY_SECONDS, only=only, beside=staged)
        found = previewing.items(now, tally, keeps_users=keeps_users, has_kms=bool(facts.kms))
        return Preview(
            changes=previewing.changes(now, tally, keeps_users=keeps_users),
            counts_now=now.counts() if now.is_complete else {},
            counts_after=tally.counts(),
            items={kind: ItemChanges(**msgspec.structs.asdict(changes)) for kind, changes in found.items()},
            bridging=previewing.bridging(
                header,
                facts,
                archive_version=tally.header_version,
                server_version=await asyncio.to_thread(importing.written_header_version, self._drive),
            ),
            room_bytes=report.extracted.bytes,
            swap_seconds=previewing.swap_seconds(now, tally, only=only),
            warnings=(
                *previewing.warnings(header, tally, only=only),
                *previewing.replicating(header, tally, facts),
                *previewing.about_root(now, root=self._settings.account().user, previous_root=previous_root),
            ),
            header=header,
        )

    async def _look(self, client: Client) -> Facts:
        """The server, which has to be there, to serve, and to have the drive for its own."""
        facts = await look_if_minio(client)
        if facts is None or (obstacle := self._obstacle(facts)):
            raise AppUnavailableError(ONLY_PORTABLE if facts is None else obstacle, next_step=PORTABLE_HINT)
        await thaw(client)
        return facts

    def _obstacle(self, facts: Facts | None) -> str:
        """What stands against reading and exchanging the drive; empty when nothing does."""
        if facts is None:
            return ONLY_PORTABLE
        if not self._settings.directory:
            return "The agent does not see the server's drive: its settings have no `directory`."
        return drive_obstacle(facts, self._drive)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        async with connected(self._settings.account(), self._settings.tls_context()) as client:
            yield client

    def _header(self, options: ExportOptions) -> ArchiveHeader:
        return ArchiveHeader(
            recipe=self.name,
            engine="minio",
            format=options.format.name,
            format_version=FORMAT_VERSION,
            made_by=self._surroundings.made_by,
            app_id=options.app_id,
            media_type=options.format.media_type,
            file_name=options.file_name,
        )


def _keeps_users(record: Record) -> bool:
    return bool(record.facts.get("keeps_users"))


async def _note_kept(exchange: Exchange) -> None:
    """Without it, an undo misses only what is gone from the top."""
    try:
        await asyncio.to_thread(exchange.note_kept)
    except ServiceError as failure:
        _log.warning("What is kept was not counted.", action="note_kept", error=failure.text)


async def _noting(export: Export, dump: Dump) -> AsyncGenerator[bytes, None]:
    async for chunk in dump.chunks:
        yield chunk
    export.fingerprint = dump.fingerprint
