"""The steps of portable exports and imports; an import is put into new buckets, and taken back by deleting them.

Restoring takes as long as uploading does, and clients see the buckets fill. Until all of it is there and after any
failure, what was made is deleted again, by the next agent where this one was killed.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from agent.archives.extractor_child import Report
from agent.archives.members import printable
from agent.engines import tree
from agent.engines.minio.directory.exporting import Dump
from agent.engines.minio.drive.sums import require_as_exported
from agent.engines.minio.portable import checks, importing, settings_trial
from agent.engines.minio.portable.child import Request
from agent.engines.minio.portable.exporting import Found, chunks_of
from agent.engines.minio.portable.listing import buckets_of
from agent.engines.minio.portable.made_buckets import MadeBuckets, tell_left
from agent.engines.minio.portable.settings import WITHOUT_ADMIN_API
from agent.engines.minio.portable.settings_trial import Trial
from agent.engines.minio.portable.tree import Inventory, locked_buckets
from agent.engines.minio.server.canary import delete_if_empty
from agent.engines.minio.server.client import Client
from agent.engines.minio.server.facts import Facts
from agent.engines.minio.trees.counting import count_in_jail
from agent.engines.minio.trees.questions import ask
from agent.engines.minio.trees.tally import Tally
from agent.limits import Limits
from agent.steps import Progress, Step
from agent.unpacking import rejoined
from agent.unsettled import UnsettledError
from common.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveWrongKindError,
    ServiceError,
)
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.seals import SealReader
from common.wording import counted

_PEEKED_BYTES = 2 << 20
_VERSIONS_A_SECOND = 500
_BYTES_A_SECOND = 50_000_000
"""As slow as two busy cores were."""


async def peek(chunks: AsyncGenerator[bytes, None]) -> tuple[ArchiveHeader | None, AsyncGenerator[bytes, None]]:
    """What an archive says of itself at its beginning, and all of it."""
    seal = SealReader()
    head: deque[bytes] = deque()
    async for chunk in chunks:
        head.append(chunk)
        try:
            seal.add(chunk)
        except ArchiveError:
            # Whoever reads it will say so.
            break
        if seal.header is not None or sum(map(len, head)) > _PEEKED_BYTES:
            break
    return seal.header, rejoined(head, chunks)


async def unpack(
    chunks: AsyncIterator[bytes],
    area: tree.StagingArea,
    *,
    limits: Limits,
    work_directory: Path,
    only: str,
    drops_locks: bool,
    has_kms: bool,
) -> tuple[Report, Inventory]:
    """Unpack and check; the report and what is in it.

    Args:
        only: the bucket that is wanted, so that what others need does not count; empty: all.
    Raises:
        ArchiveError: the archive's fault, by class.
        LimitExceededError, NoSpaceError, ToolFailedError: as `tree.unpack`.
    """
    owner = (os.geteuid(), os.getegid())
    orders = tree.Orders(
        recipe="minio",
        limits=limits,
        owner=owner,
        default_owner=owner,
        inside=area.new,
        work_directory=work_directory,
    )
    report = await tree.unpack(area, chunks, orders, is_zip=False)
    if report.extracted.symlinks or report.extracted.hard_links:
        raise ArchiveRefusedError(checks.LINKS)
    inventory = await ask("agent.engines.minio.portable.child", area.new, Request(only=only), Inventory)
    _require_as_told(report, inventory)
    locked = await asyncio.to_thread(locked_buckets, area.new, inventory.wanted)
    if locked and not drops_locks:
        raise ArchiveIncompatibleError(
            f"The bucket {locked[0]} has object lock: what is locked could not be deleted, so the import could not be "
            "taken back.",
            next_step="Import it with `locks=drop`, which leaves locks out, or an archive in the default format.",
        )
    if not has_kms and inventory.encrypted:
        raise ArchiveIncompatibleError(
            f"The bucket {inventory.encrypted[0]} has objects that are to be encrypted by the server, and this one has "
            "no KMS; nothing was changed.",
            next_step="Start this server with a MINIO_KMS_SECRET_KEY; it may be another than the archive's server had.",
        )
    return report, inventory


def bridging(header: ArchiveHeader | None, facts: Facts) -> str:
    """One sentence when the archive is of another server or release."""
    if header is not None and header.engine == "s3":
        return f"Written by another S3 server, goes into MinIO {facts.version}: versions get ids of MinIO's kind."
    if header is not None and header.engine_version not in ("", facts.version):
        return f"Written by MinIO {header.engine_version}, goes into {facts.version}: through S3, as every release can."
    return ""


def swap_seconds(counts: Mapping[str, int]) -> float:
    """How long the new buckets take to fill; nobody waits for it."""
    return counts["versions"] / _VERSIONS_A_SECOND + counts["bytes"] / _BYTES_A_SECOND


async def changes(client: Client, inventory: Inventory, *, only: str) -> tuple[tuple[str, ...], int]:
    """What an import would change, and how many buckets stay.

    Args:
        only: the bucket that is wanted; empty: all.
    Raises:
        ArchiveIncompatibleError: a bucket is there already.
        ArchiveWrongKindError: the one is not in the archive.
    """
    if only and not inventory.wanted:
        raise ArchiveWrongKindError(f"The archive holds no bucket {printable(only)}.")
    await importing.require_absent(client, inventory.wanted)
    stay = len(await buckets_of(client))
    sentences = [f"Bucket {name} comes." for name in inventory.wanted]
    return (*sentences, f"The {stay} buckets that are there stay as they are."), stay


async def try_settings(client: Client, area: tree.StagingArea, names: list[str], *, canary: str) -> Trial:
    """Have the server take the buckets' settings, on a bucket that is there for some moments.

    Raises:
        ToolFailedError, AppUnavailableError: the server does not answer as MinIO does.
    """
    await client.call("PUT", canary)
    try:
        return await settings_trial.try_out(client, area.new, names, canary=canary)
    finally:
        await delete_if_empty(client, canary)


async def restore(
    client: Client,
    area: tree.StagingArea,
    names: list[str],
    progress: Progress,
    *,
    left_out: Collection[str],
    made: MadeBuckets,
) -> None:
    """Make the buckets; on failure they are gone again.

    Args:
        left_out: paths below `settings/` of what the server is not given.
    Raises:
        ArchiveError, ToolFailedError, AppUnavailableError: it says so where a bucket was left that may be a client's.
        UnsettledError: what was made could not be deleted now.
    """
    await importing.require_absent(client, names)
    try:
        for name in names:
            progress.step(Step.RESTORING, f"filling bucket {name}")
            await made.make(client, name)
            await importing.fill(client, area.new, name)
        await made.require_ours(client)
        await importing.apply_settings(client, area.new, names, left_out=left_out)
    except ServiceError as failure:
        try:
            left = await made.take_back(client)
        except ServiceError as second_failure:
            raise UnsettledError from second_failure
        made.forget()
        tell_left(failure, left)
        raise


async def undo(client: Client, made: MadeBuckets) -> list[str]:
    """Delete the buckets that were made.

    Returns:
        Names of those that are there and may be a client's.
    Raises:
        ToolFailedError, AppUnavailableError: all of them are still there.
        UnsettledError: some may be gone.
    """
    try:
        return await made.take_back(client)
    except ServiceError as failure:
        if made.is_deleting:
            raise UnsettledError from failure
        raise


@asynccontextmanager
async def exporting(
    client: Client,
    header: ArchiveHeader,
    facts: Facts | None,
    drive: Path | None,
    progress: Progress,
    *,
    work_directory: Path,
) -> AsyncIterator[Dump]:
    """A portable archive that is about to flow.

    Args:
        facts: None: of another S3 server than MinIO.
        drive: the server's, to look for what a listing hides; None: it cannot be seen.
    """
    found = Found()
    if facts is None:
        found.warnings.append(WITHOUT_ADMIN_API)
    elif drive is None:
        found.warnings.append("A listing hides objects below other objects; whether there are any cannot be seen.")
    else:
        found.warnings += _not_listed(await count_in_jail(drive))
    header = msgspec.structs.replace(
        header,
        engine="s3" if facts is None else header.engine,
        engine_version="" if facts is None else facts.version,
        created_at=dt.datetime.now(dt.UTC),
        details={"secrets": "left-out"},
    )
    dump = Dump(
        header,
        chunks_of(client, header, found, progress, work_directory=work_directory, is_minio=facts is not None),
        found.counts,
        found.warnings,
    )
    dump.chunks = _told(dump.chunks, dump, found)
    progress.step(Step.TRANSFERRING)
    async with aclosing(dump.chunks):
        yield dump


def _not_listed(tally: Tally) -> list[str]:
    """Warnings about objects on a drive that S3 does not show."""
    found = []
    if nested := tally.total("nested"):
        told = counted(nested, "objects lie", "object lies")
        found.append(
            f"{told} below other objects: a listing hides them, so they are not in this archive. "
            "They are in one of the default format."
        )
    if tally.unlisted:
        told = counted(tally.unlisted, "objects have", "object has")
        found.append(
            f"{told} `__XLDIR__` within the key, which is MinIO's own mark: no listing shows them, so they are not in "
            "this archive. They are in one of the default format."
        )
    if tally.damaged:
        told = counted(tally.damaged, "versions on the drive are", "version on the drive is")
        found.append(
            f"{told} damaged: {', '.join(tally.damaged_names)}. A listing leaves out what the server cannot read, so "
            "this archive may be without them."
        )
    return found


async def fingerprint(client: Client, progress: Progress, *, is_minio: bool, work_directory: Path) -> Fingerprint:
    """Of what a portable export would hold: everything is read once."""
    found = Found()
    chunks = chunks_of(client, ArchiveHeader(), found, progress, work_directory=work_directory, is_minio=is_minio)
    async with aclosing(chunks):
        async for _ in chunks:
            pass
    return found.sums.fingerprint()


async def _told(chunks: AsyncGenerator[bytes, None], dump: Dump, found: Found) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk
            del chunk
    dump.fingerprint = found.sums.fingerprint()


def _require_as_told(report: Report, inventory: Inventory) -> None:
    """Raises ArchiveDamagedError when the archive says of itself what it does not hold."""
    require_as_exported(report.fingerprint, inventory.fingerprint)
    for name, told in (report.header.counts if report.header else {}).items():
        if told != (found := inventory.counts.get(name, told)):
            raise ArchiveDamagedError(
                f"The archive is damaged: its header counts {told} {name}, and there are {found}; nothing was changed."
            )
