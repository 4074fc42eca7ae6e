"""A few staged objects shown to the running server before anything is exchanged: whether it can read them.

They are copied into the directory of a bucket made for the purpose, which clients may see for some moments. Objects
that are encrypted are sealed to their bucket and name, and cannot be tried so; nor can those in a tier, which comes
with the configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from agent.archives.members import printable
from agent.engines.filesystem import opened_directory
from agent.engines.minio.drive.layout import is_data_directory_name
from agent.engines.minio.server.client import Client, RefusedError
from agent.engines.minio.trees.tally import Sample
from agent.engines.subtrees import remove_tree
from common.errors import ArchiveIncompatibleError, ServiceError, ToolFailedError

PREFIX = "mathison-canary-"
_CANARY = "canary-"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
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
            await asyncio.to_thread(_copy, staged / sample.path, drive, f"{bucket}/{name}")
            try:
                answer = await client.call("GET", bucket, name)
                if len(answer.body) != sample.size:
                    raise ToolFailedError("it has another size")
            except ServiceError as failure:
                tried = printable(f"{sample.bucket}/{sample.key}")
                raise ArchiveIncompatibleError(
                    f"This server cannot read objects of the archive{made_by}, as {tried}: {failure.text}; nothing was "
                    "changed.",
                    next_step="Where the archive's server can read it, upgrade this one first, or export in the "
                    "portable format, `?format=s3`. Where that cannot either, as a compressed object that MinIO copied "
                    "onto itself, put the object there anew or delete it, then export again.",
                ) from failure
    finally:
        await remove(client, drive, bucket)


async def remove(client: Client, drive: Path, bucket: str) -> None:
    """Delete a canaries' bucket with the canaries in it; one that is not there is fine."""
    # Without objects first: it deletes a bucket that it can list, and perhaps it cannot list this one.
    await asyncio.to_thread(_remove_copies, drive, bucket)
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


def _remove_copies(drive: Path, bucket: str) -> None:
    with contextlib.suppress(OSError), opened_directory(drive / bucket) as opened:
        for name in os.listdir(opened):
            if name.startswith(_CANARY):
                remove_tree(name, parent=opened)


def _copy(source: Path, drive: Path, name: str) -> None:
    """One object's own files: what lies below it may be other objects.

    The server is the owner of all that it comes to, and may put a link in the place of any of it at any time.
    """
    with opened_directory(drive.resolve()) as top:
        owner = os.fstat(top)
        bucket, _, name = name.partition("/")
        with opened_directory(bucket, top) as parent, _made(name, parent, owner) as target:
            for entry in os.scandir(source):
                if entry.is_file(follow_symlinks=False):
                    _copy_file(entry.path, entry.name, target, owner)
                elif entry.is_dir(follow_symlinks=False) and is_data_directory_name(entry.name):
                    with _made(entry.name, target, owner) as below:
                        for part in os.scandir(entry.path):
                            if part.name.startswith("part.") and part.is_file(follow_symlinks=False):
                                _copy_file(part.path, part.name, below, owner)


@contextlib.contextmanager
def _made(name: str, parent: int, owner: os.stat_result) -> Iterator[int]:
    os.mkdir(name, 0o700, dir_fd=parent)
    with opened_directory(name, parent) as made:
        yield made
        _give(made, 0o755, owner)


def _copy_file(source: str, name: str, target: int, owner: os.stat_result) -> None:
    with (
        open(os.open(source, _READ), "rb", buffering=0) as read,
        open(os.open(name, _NEW, 0o600, dir_fd=target), "wb") as written,
    ):
        shutil.copyfileobj(read, written, 1 << 20)
        _give(written.fileno(), 0o644, owner)


def _give(descriptor: int, mode: int, owner: os.stat_result) -> None:
    os.fchmod(descriptor, mode)
    if os.geteuid() == 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
