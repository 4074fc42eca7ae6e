"""The portable half of the recipe `minio`: an import that comes into new buckets, and goes by deleting them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.engines import tree
from agent.engines.minio.directory import previewing
from agent.engines.minio.portable import form, made_buckets, way
from agent.engines.minio.portable.made_buckets import MadeBuckets
from agent.engines.minio.portable.settings_trial import Trial
from agent.engines.minio.server import canary
from agent.engines.minio.server.client import Client
from agent.engines.minio.server.facts import Facts
from agent.recipes.base import Format, ItemChanges, Preview, Progress, Record, Surroundings, names_in, note_done
from common.errors import ServiceError

S3 = Format(form.FORMAT, "application/x-tar", ".s3.tar", "portable: objects as files, for any S3 server; without users")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class PortableImport:
    """One whose archive is a portable one.

    Attributes:
        area: where it is unpacked.
    """

    record: Record
    area: tree.StagingArea

    @classmethod
    def of(cls, record: Record) -> PortableImport | None:
        """None: the import is of another kind, or has not come so far."""
        directory = record.facts.get("directory")
        if not record.facts.get("is_portable") or not isinstance(directory, str):
            return None
        return cls(record, tree.StagingArea(Path(directory), record.key))

    async def stage(
        self,
        client: Client,
        facts: Facts,
        chunks: AsyncIterator[bytes],
        options: Mapping[str, str],
        surroundings: Surroundings,
    ) -> Preview:
        """Unpack and check; refused are buckets that are there already, and settings that the server does not take."""
        report, inventory = await way.unpack(
            chunks,
            self.area,
            limits=surroundings.limits,
            work_directory=surroundings.work_directory,
            only=options["bucket"],
            drops_locks=options["locks"] == "drop",
            has_kms=bool(facts.kms),
        )
        changes, stay = await way.changes(client, inventory, only=options["bucket"])
        trial = await self._try_settings(client, inventory.wanted)
        if options["settings"] == "refuse":
            trial.require_taken()
        self.record.save(buckets=inventory.wanted, settings_left_out=[*trial.refused])
        counts = inventory.wanted_counts
        expiring = [name for name in inventory.expiring if f"{name}/lifecycle.xml" not in trial.refused]
        return Preview(
            changes=changes,
            counts_after=counts,
            items={
                "buckets": ItemChanges(added=len(inventory.wanted), same=stay),
                **{kind: ItemChanges(added=counts[kind]) for kind in ("objects", "versions")},
            },
            warnings=(
                *trial.warnings(),
                *([previewing.expiring(expiring)] if expiring else []),
                *([previewing.hidden(inventory.hidden, inventory.hidden_names)] if inventory.hidden else []),
            ),
            bridging=way.bridging(report.header, facts),
            room_bytes=report.extracted.bytes + counts["bytes"],
            swap_seconds=way.swap_seconds(counts),
            header=report.header,
        )

    async def _try_settings(self, client: Client, names: list[str]) -> Trial:
        bucket = canary.bucket_of(self.record.key)
        self.record.save(trying=[bucket])
        trial = await way.try_settings(client, self.area, names, canary=bucket)
        self.record.save(trying=[])
        return trial

    async def restore(self, client: Client, progress: Progress) -> None:
        """Make and fill the buckets; on failure they are gone again."""
        names = names_in(self.record, "buckets")
        await way.restore(
            client,
            self.area,
            names,
            progress,
            left_out=names_in(self.record, "settings_left_out"),
            made=self._made(),
        )
        note_done(self.record, is_whole=True)

    async def undo(self, client: Client) -> None:
        """Delete the buckets that were made; raises as `way.undo`."""
        _log_left(await way.undo(client, self._made()))

    async def recover(self, client: Client) -> None:
        """Delete the buckets that an agent made that was killed."""
        left = await self._made().take_back(client)
        _log_left(left)
        if not self.record.facts.get("is_whole"):
            self.record.save(left=left)

    def put_right(self) -> ServiceError | None:
        """As `Recipe.put_right`: what `recover` left, since it may be a client's."""
        left = names_in(self.record, "left")
        return made_buckets.broken_off(left) if left else None

    async def discard(self, connected: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        """Drop what was unpacked, and the bucket of a trial that was broken off."""
        if names_in(self.record, "trying"):
            async with connected() as client:
                for bucket in names_in(self.record, "trying"):
                    await canary.delete_if_empty(client, bucket)
            self.record.save(trying=[])
        await asyncio.to_thread(self.area.remove)

    def _made(self) -> MadeBuckets:
        return MadeBuckets(
            names_in(self.record, "made"),
            str(self.record.facts.get("making") or ""),
            lambda made, making: self.record.save(made=made, making=making),
        )


def _log_left(names: list[str]) -> None:
    if names:
        _log.warning("Buckets were left that a client may have made.", action="take_back", buckets=names)
