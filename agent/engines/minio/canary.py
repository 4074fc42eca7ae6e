"""A few staged objects shown to the running server before anything is exchanged: whether it can read them.

They are copied into the directory of a bucket made for the purpose, which clients may see for some moments. Objects
that are encrypted are sealed to their bucket and name, and cannot be tried so; nor can those in a tier, which comes
with the configuration.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog

from agent.engines.minio.client import Client, RefusedError
from agent.engines.minio.layout import is_data_directory_name
from agent.engines.minio.tally import Sample
from common.errors import ArchiveIncompatibleError, ServiceError, ToolFailedError

PREFIX = "mathison-canary-"
_CANARY = "canary-"
_log = structlog.get_logger(__name__)


def bucket_of(key: str) -> str:
    """The bucket of an import's canaries."""
    return f"{PREFIX}{key}"


async def try_reading(
    client: Client, drive: Path, staged: Path, samples: Sequence[Sample], *, bucket: str, made_by: str
) -> None:
    """Have the server read them to their ends.

    Args:
        made_by: the release that the archive is of, for the text.
    Raises:
        ArchiveIncompatibleError: it cannot.
    """
    samples = [sample for sample in samples if not sample.is_encrypted and not sample.is_tiered]
    if not samples:
        return
    await client.call("PUT", bucket)
    try:
        for number, sample in enumerate(samples):
            name = f"{_CANARY}{number}"
            await asyncio.to_thread(_copy, staged / sample.path, drive / bucket / name, drive)
            try:
                answer = await client.call("GET", bucket, name)
                if len(answer.body) != sample.size:
                    raise ToolFailedError("it has another size")
            except ServiceError as failure:
                raise ArchiveIncompatibleError(
                    f"This server cannot read objects of the archive{made_by}: {failure.text}; nothing was changed.",
                    next_step="Upgrade this server first, or export in the portable format, `?format=s3`.",
                ) from failure
    finally:
        await remove(client, drive, bucket)


async def remove(client: Client, drive: Path, bucket: str) -> None:
    """Delete a canaries' bucket with the canaries in it; one that is not there is fine."""
    # Without objects first: it deletes a bucket that it can list, and perhaps it cannot list this one.
    if (drive / bucket).is_dir():
        for name in os.listdir(drive / bucket):
            if name.startswith(_CANARY):
                await asyncio.to_thread(shutil.rmtree, drive / bucket / name, ignore_errors=True)
    await delete_if_empty(client, bucket)


async def delete_if_empty(client: Client, bucket: str) -> None:
    """Delete it; one that is not there is fine, and what a client has put something into is left to it."""
    try:
        await client.call("DELETE", bucket)
    except RefusedError as failure:
        if failure.s3_code == "BucketNotEmpty":
            _log.warning("A client uses a bucket of ours, so it was left.", action="remove_canary", bucket=bucket)
        elif failure.s3_code != "NoSuchBucket":
            raise


def _copy(source: Path, target: Path, drive: Path) -> None:
    """One object's own files: what lies below it may be other objects."""
    owner = drive.stat()
    target.mkdir()
    for entry in os.scandir(source):
        if entry.is_file(follow_symlinks=False):
            shutil.copyfile(entry.path, target / entry.name, follow_symlinks=False)
        elif entry.is_dir(follow_symlinks=False) and is_data_directory_name(entry.name):
            (target / entry.name).mkdir()
            for part in os.scandir(entry.path):
                if part.name.startswith("part.") and part.is_file(follow_symlinks=False):
                    shutil.copyfile(part.path, target / entry.name / part.name, follow_symlinks=False)
    for path in (target, *target.rglob("*")):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
