"""The other half of the recipe `minio`: an import of a drive, which is exchanged for the server's own data and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from agent.archives.extractor_child import Report
from agent.engines import tree
from agent.engines.minio.directory import importing, previewing, swap
from agent.engines.minio.drive import call_logs, event_targets, replication_sites, root_access
from agent.engines.minio.drive.exchange import Exchange
from agent.engines.minio.server import accounts, canary, tier_reading
from agent.engines.minio.server.client import Client, RootDeniedError
from agent.engines.minio.server.facts import PORTABLE_HINT, Facts, look_if_minio, obstacle_at
from agent.engines.minio.server.freezing import thaw
from agent.engines.minio.server.settings import MinioSettings
from agent.engines.minio.trees.counting import count_in_jail
from agent.engines.minio.trees.tally import Sample, Tally
from agent.engines.swapping import Side
from agent.recipes import in_place
from agent.recipes.base import (
    ItemChanges,
    Preview,
    Progress,
    Record,
    Recovered,
    Step,
    Surroundings,
    names_in,
    note_done,
)
from agent.unsettled import UnsettledError
from common.errors import AppUnavailableError, NothingToUndoError, ServiceError, TransferNotFoundError

Connected = Callable[[], AbstractAsyncContextManager[Client]]
_SURVEY_SECONDS = 20.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class DriveImport:
    """One whose archive is a drive's; its record holds what `in_place` notes."""

    record: Record
    settings: MinioSettings
    surroundings: Surroundings

    @property
    def _drive(self) -> Path:
        return Path(self.settings.directory)

    @property
    def _area(self) -> tree.StagingArea:
        return tree.StagingArea(self._drive, self.record.key)

    @property
    def _exchange(self) -> Exchange:
        return Exchange(self._drive, self.record.key, only=str(self.record.facts.get("only", "")))

    @property
    def _keeps_users(self) -> bool:
        return bool(self.record.facts.get("keeps_users"))

    async def stage(
        self,
        client: Client,
        facts: Facts,
        chunks: AsyncIterator[bytes],
        options: Mapping[str, str],
        progress: Progress,
    ) -> Preview:
        """Unpack into the area, which is there, and check; as `Recipe.stage`."""
        report, tally = await importing.unpack(
            chunks,
            self._area,
            self.settings,
            limits=self.surroundings.limits,
            work_directory=self.surroundings.work_directory,
            keep_users=options["users"] == "keep",
            shares_tiers=options["tiered"] == "share",
            only=options["bucket"],
        )
        previous_root = accounts.root_of(report.header, options["root"], self._area.new)
        await asyncio.to_thread(
            accounts.require_one_root,
            self._area.new,
            root=self.settings.account().user,
            previous_root=previous_root,
            parents=tally.parents,
        )
        own = await asyncio.to_thread(root_access.deciding_on, self._drive)
        root_access.require_kept(tally.deciding, own)
        progress.step(Step.VERIFYING, "having the server read some of it")
        await importing.require_readable(
            client,
            report.header,
            tally,
            facts,
            self.settings,
            staged=self._area.new,
            canary=canary.bucket_of(self.record.key),
        )
        keeps_users = not tally.has_config
        self.record.save(
            samples=[json.dumps(msgspec.to_builtins(sample)) for sample in tally.samples],
            buckets=sorted(tally.buckets),
            previous_root=previous_root,
            keeps_users=keeps_users,
            has_unread_configuration=root_access.UNREAD in tally.deciding,
            only=options["bucket"],
            shares_tiers=bool(tally.tiered.versions or tally.tiered.freed),
        )
        await asyncio.to_thread(self._exchange.note_kept)
        return await self._preview(
            report,
            tally,
            facts,
            keeps_users=keeps_users,
            only=options["bucket"],
            previous_root=previous_root,
        )

    async def restore(self, client: Client, progress: Progress) -> str:
        """As `Recipe.restore`."""
        exchange = self._exchange
        if not exchange.tells() or not await asyncio.to_thread(exchange.has_all):
            raise TransferNotFoundError("What was staged is gone, or some of it.", next_step="Import it again.")
        in_place.begin(self.record, Side.IMPORTED)
        await look(client, self.settings.directory)
        progress.step(Step.RESTORING, "making the new data durable")
        await asyncio.to_thread(exchange.prepare)
        progress.step(Step.RESTORING, "exchanging the data")
        await self._carry_out(client, Side.IMPORTED)
        progress.step(Step.RESTORING, "counting what is kept; the server runs")
        await self._note_kept()
        return await self._look_in_tiers(client, Step.RESTORING, progress)

    async def undo(self, client: Client, progress: Progress) -> str:
        """As `Recipe.undo`; what was imported is still there."""
        if not await asyncio.to_thread(self._exchange.keeps_previous):
            raise NothingToUndoError("The previous data is gone from the drive, or some of it.")
        in_place.begin(self.record, Side.PREVIOUS)
        await look(client, self.settings.directory)
        progress.step(Step.UNDOING, "exchanging the data")
        await self._carry_out(client, Side.PREVIOUS)
        return await self._look_in_tiers(client, Step.UNDOING, progress)

    async def discard(self, connected: Connected) -> None:
        """As `Recipe.discard`."""
        if self._exchange.is_unfinished():
            await self.recover(connected)
        bucket = canary.bucket_of(self.record.key)
        if (self._drive / bucket).exists():
            async with connected() as client:
                await canary.remove(client, self._drive, bucket)
        await asyncio.to_thread(self._area.remove)

    async def recover(self, connected: Connected) -> Recovered:
        """As `Recipe.recover`."""
        exchange, record = self._exchange, self.record
        if not exchange.tells():
            return Recovered[in_place.noted(record).name]
        async with connected() as client:
            side = await swap.finish(client, self.settings, exchange)
            if record.facts.get("is_settled") is False:
                await self._look_for_recovery(client, side)
                try:
                    if side is Side.IMPORTED:
                        await self._settle_imported(client)
                    else:
                        # There is nothing else to go back to.
                        await swap.settle(client, exchange, [], [], keeps_users=True)
                except ServiceError as failure:
                    if side is Side.PREVIOUS:
                        raise
                    _log.warning("The server cannot use the imported data.", action="recover", error=failure.text)
                    await self._put_back(client)
                    side = Side.PREVIOUS
                note_done(record, is_settled=True)
        if side is Side.IMPORTED:
            await self._note_kept()
        return Recovered[side.name]

    async def _look_for_recovery(self, client: Client, side: Side) -> None:
        """As `look`; where what was imported keeps root out, with the previous data on the drive."""
        try:
            await look(client, self.settings.directory)
        except RootDeniedError as refusal:
            if side is Side.IMPORTED:
                await self._put_back(client)
            raise swap.denied(refusal) from refusal

    async def _put_back(self, client: Client) -> None:
        """In a recovery; raises why it cannot be done now."""
        try:
            await swap.put_back(client, self.settings, self._exchange, Side.PREVIOUS)
        except UnsettledError as unsettled:
            if isinstance(unsettled.__cause__, ServiceError):
                raise unsettled.__cause__ from unsettled
            raise

    async def _carry_out(self, client: Client, target: Side) -> None:
        async def settle(needs_restart: bool) -> None:
            if target is Side.IMPORTED:
                await self._settle_imported(client, needs_restart=needs_restart)
            else:
                await swap.settle(
                    client, self._exchange, [], [], needs_restart=needs_restart, keeps_users=self._keeps_users
                )

        in_place.leave_open(self.record, is_settled=False)
        failure = await swap.carry_out(client, self.settings, self._exchange, target, settle)
        in_place.settle(self.record, target.other if failure else target, is_settled=True)
        if failure is not None:
            raise failure

    async def _look_in_tiers(self, client: Client, step: Step, progress: Progress) -> str:
        """What a person should know of what is in place: others may have deleted its content in a tier that it shares
        with them. Never fails: the data is in place, whatever there is to say of it."""
        if not self.record.facts.get("shares_tiers"):
            return ""
        progress.step(step, "looking for content in its tier; the server runs")
        try:
            found = await count_in_jail(self._drive, seconds=_SURVEY_SECONDS, only=self._exchange.only)
            told = await tier_reading.look(client, found.tiered)
        except ServiceError as failure:
            return f"Whether content that lies in a tier is there was not looked at: {failure.text}"
        if not found.is_complete:
            told = f"{told} Not all of the drive was looked through for content that lies in a tier.".lstrip()
        if told:
            _log.warning("Content is not in its tier, or was not looked for.", action="look_in_tiers", told=told)
        return told

    async def _settle_imported(self, client: Client, *, needs_restart: bool = True) -> None:
        record = self.record
        if record.facts.get("has_unread_configuration"):
            await accounts.keep_root_access(client)
        samples = [msgspec.json.decode(sample, type=Sample) for sample in names_in(record, "samples")]
        await swap.settle(
            client,
            self._exchange,
            samples,
            names_in(record, "buckets"),
            needs_restart=needs_restart,
            keeps_users=self._keeps_users,
        )
        previous_root = "" if self._keeps_users else record.facts.get("previous_root")
        if isinstance(previous_root, str) and previous_root not in ("", client.account.user):
            taken = [
                msgspec.json.decode(account, type=accounts.TakenOver) for account in names_in(record, "taken_over")
            ]
            if not taken:
                taken = await accounts.roots_own(client, previous_root=previous_root)
                # A recovery can tell neither whose they were nor what has been enabled.
                record.save(taken_over=[json.dumps(msgspec.to_builtins(account)) for account in taken])
            await accounts.take_over(client, taken, previous_root=previous_root)

    async def _note_kept(self) -> None:
        """Without it, an undo misses only what is gone from the top."""
        try:
            await asyncio.to_thread(self._exchange.note_kept)
        except ServiceError as failure:
            _log.warning("What is kept was not counted.", action="note_kept", error=failure.text)

    async def _preview(
        self,
        report: Report,
        tally: Tally,
        facts: Facts,
        *,
        keeps_users: bool,
        only: str,
        previous_root: str,
    ) -> Preview:
        header = report.header
        now = await count_in_jail(self._drive, seconds=_SURVEY_SECONDS, only=only, beside=self._area.new)
        is_own = previewing.is_of(header, facts)
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
                *root_access.about_unread(tally.deciding),
                *previewing.replicating(header, tally, facts),
                *replication_sites.about([] if is_own else tally.sites),
                *call_logs.about([] if is_own else tally.collectors),
                *event_targets.about_unknown(
                    tally.events,
                    known=facts.event_targets,
                    configured=() if keeps_users or only else tally.event_targets,
                ),
                *previewing.about_root(now, root=self.settings.account().user, previous_root=previous_root),
            ),
            header=header,
        )


async def look(client: Client, directory: str) -> Facts:
    """The server, which has to be there, to serve, and to have the drive in a directory for its own.

    Raises:
        AppUnavailableError: it is not so.
    """
    facts = await look_if_minio(client)
    obstacle = obstacle_at(facts, directory)
    if facts is None or obstacle:
        raise AppUnavailableError(obstacle, next_step=PORTABLE_HINT)
    await thaw(client)
    return facts
