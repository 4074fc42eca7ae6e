"""A drive out as a tar: a snapshot of one moment, written at leisure, removed afterwards."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.engines import tar_stream
from agent.engines.minio.directory.writing import DriveWriter, about_own, warnings_of
from agent.engines.minio.drive.layout import CONFIG, SESSIONS, SYSTEM
from agent.engines.minio.drive.snapshot import Snapshot, remove_snapshots
from agent.engines.minio.server.client import Client
from agent.engines.minio.server.facts import Facts
from agent.engines.minio.server.freezing import frozen
from agent.engines.minio.server.settings import MinioSettings
from agent.engines.minio.trees.counting import count_in_jail
from agent.engines.minio.trees.sealing_below import close_below
from agent.engines.minio.trees.sealing_child import Work
from agent.steps import Progress, Step
from common.codecs import Compressor
from common.fingerprints import Fingerprint
from common.frames import LEAN_CHUNK_BYTES
from common.headers import ArchiveHeader

MOST_FROZEN_SECONDS = 60.0
"""Clients wait that long at most; a drive of some million objects may need it."""
SECRETS = {"sealed": Work.SEAL, "clear": Work.LOOK, "left-out": Work.LEAVE_OUT}
"""What an export does with users' keys and those of other servers; the first is the default."""


@dataclass
class Dump:
    """An archive that is about to flow; see Export in agent.recipes.base."""

    header: ArchiveHeader
    chunks: AsyncGenerator[bytes, None]
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fingerprint: Fingerprint | None = None


@asynccontextmanager
async def dumping(
    client: Client,
    settings: MinioSettings,
    facts: Facts,
    progress: Progress,
    *,
    secrets_go: str,
    header: ArchiveHeader,
    compressor: Compressor | None,
    work_directory: Path,
    free_bytes: int,
) -> AsyncIterator[Dump]:
    """Take a snapshot and write it out.

    Args:
        secrets_go: one of SECRETS.
        header: what the caller knows; counts and details are added.
        free_bytes: room to leave on the drive.
    """
    drive = Path(settings.directory)
    await asyncio.to_thread(remove_snapshots, drive)
    snapshot = Snapshot(drive, secrets.token_hex(6), work_directory=work_directory, free_bytes=free_bytes)
    try:
        progress.step(Step.PREPARING, "looking through the drive")
        await _in_thread(snapshot, snapshot.first_pass)
        await _in_thread(snapshot, snapshot.catch_up)
        progress.step(Step.PREPARING, "holding the server still for a moment")
        async with frozen(client, settings, most_seconds=MOST_FROZEN_SECONDS) as freeze:
            taken_at = dt.datetime.now(dt.UTC)
            await _in_thread(snapshot, snapshot.second_pass)
        await asyncio.to_thread(snapshot.drop, CONFIG if secrets_go == "left-out" else SESSIONS)
        # Before it is sealed; what lies there is a few hundred files of a kilobyte as a rule.
        own = await count_in_jail(snapshot.directory, only=SYSTEM, proves=True)
        passphrase = settings.seal_passphrase() if secrets_go == "sealed" else ""
        with_keys = await close_below(snapshot.directory, SECRETS[secrets_go], passphrase)
        progress.expect(snapshot.bytes)
        writer = DriveWriter(snapshot.directory)
        header = _completed(header, facts, settings, snapshot, frozen_seconds=freeze.seconds, taken_at=taken_at)
        without = (", ".join(with_keys) or "no bucket") if secrets_go == "left-out" else ""
        header = _with_details(header, secrets=secrets_go, root_user=client.account.user, without_replication=without)
        blocks = tar_stream.sealed(writer.blocks(), header, lambda: writer.tally.fingerprint())
        if compressor is not None:
            blocks = tar_stream.compressed(blocks, compressor)
        dump = Dump(
            header,
            tar_stream.from_thread(blocks, name="archive a drive", size_bytes=LEAN_CHUNK_BYTES),
            warnings=_about_keys(secrets_go, with_keys) + about_own(own),
        )
        dump.chunks = _told(dump.chunks, writer, progress, dump)
        async with aclosing(dump.chunks):
            yield dump
    finally:
        await asyncio.shield(asyncio.create_task(asyncio.to_thread(snapshot.remove), name="remove a snapshot"))


def kms_fingerprint(key: str) -> str:
    """Something by which a KMS key is recognised, and from which it cannot be found out; empty for none.

    Args:
        key: as in MINIO_KMS_SECRET_KEY, "name:base64".
    """
    secret = key.partition(":")[2].strip()
    return hmac.digest(secret.encode(), b"mathison-data kms", hashlib.sha256).hex()[:32] if secret else ""


async def _in_thread(snapshot: Snapshot, work: Callable[[], None]) -> None:
    task = asyncio.create_task(asyncio.to_thread(work), name="snapshot a drive")
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        snapshot.stop()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _told(
    chunks: AsyncGenerator[bytes, None], writer: DriveWriter, progress: Progress, dump: Dump
) -> AsyncGenerator[bytes, None]:
    progress.step(Step.TRANSFERRING)
    told = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            read = writer.read_bytes
            progress.read(read - told)
            told = read
            yield chunk
    tally = writer.tally
    dump.counts |= tally.counts() | {"files": writer.files}
    dump.warnings += warnings_of(tally)
    dump.fingerprint = tally.fingerprint()


def _completed(
    header: ArchiveHeader,
    facts: Facts,
    settings: MinioSettings,
    snapshot: Snapshot,
    *,
    frozen_seconds: float,
    taken_at: dt.datetime,
) -> ArchiveHeader:
    details = {
        "deployment_id": facts.deployment_id,
        "frozen_milliseconds": f"{frozen_seconds * 1000:.0f}",
        "directories_seen_again": str(snapshot.seen),
        "kms": facts.kms,
        "kms_fingerprint": kms_fingerprint(settings.kms_key()) if facts.kms else "",
    }
    return _with_details(
        ArchiveHeader(
            recipe=header.recipe,
            format=header.format,
            format_version=header.format_version,
            engine="minio",
            engine_version=facts.version,
            made_by=header.made_by,
            created_at=taken_at,
            app_id=header.app_id,
            counts={"files": snapshot.files, "bytes": snapshot.bytes},
            media_type=header.media_type,
            file_name=header.file_name,
        ),
        **details,
    )


def _with_details(header: ArchiveHeader, **details: str) -> ArchiveHeader:
    known = {name: text for name, text in details.items() if text}
    return msgspec.structs.replace(header, details={**header.details, **known})


def _about_keys(secrets_go: str, with_keys: list[str]) -> list[str]:
    buckets = ", ".join(with_keys)
    if secrets_go == "clear":
        remote = f", and the keys of remote targets in the settings of {buckets}" if with_keys else ""
        return [f"The archive holds the secret keys of users and service accounts in clear{remote}."]
    if secrets_go == "left-out":
        remote = f", nor are the remote targets and replication rules of {buckets}" if with_keys else ""
        return [f"Users, policies, service accounts and the server's configuration are not in the archive{remote}."]
    return []
