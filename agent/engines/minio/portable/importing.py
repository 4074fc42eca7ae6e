"""A portable archive into a server: into buckets that are not there yet, so that taking it back is deleting them.

Nothing is asked of the server's drives. The buckets fill while they are visible, and only when all of them are whole
are their settings applied, rules that delete and quotas among them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from agent.archives.members import path_of
from agent.engines.minio.portable.form import ENCRYPTED, Line, stored_key, version_id
from agent.engines.minio.portable.headers import given
from agent.engines.minio.portable.listing import buckets_of
from agent.engines.minio.portable.settings_trial import give, not_taken
from agent.engines.minio.portable.tree import OPEN_FLAGS, is_versioned, lines_of, settings_of
from agent.engines.minio.server.client import Client, NotReadyError, RefusedError
from common.errors import ArchiveIncompatibleError, ServiceError, ToolFailedError

_TOGETHER = 8
_PIECE_BYTES = 256 << 10
_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
"""At most, before a version is put again, as clients of S3 do; each is as long as chance has it, so that not all that
were refused come back at once."""
_IS_THERE = 412
_VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


async def require_absent(client: Client, names: Sequence[str]) -> None:
    """Refuse buckets that are there already and hold something.

    Raises:
        ArchiveIncompatibleError: naming the first.
    """
    for name in sorted(set(names) & set(await buckets_of(client))):
        raise ArchiveIncompatibleError(
            f"The bucket {name} is there already; a portable archive comes into new buckets only, so that it can be "
            "taken back.",
            next_step="Delete or rename that bucket, or import an archive in the default format, which replaces all.",
        )


async def fill(client: Client, tree: Path, bucket: str) -> None:
    """Put all versions into a bucket that was just made.

    Raises:
        ToolFailedError, AppUnavailableError: the server did not take something.
    """
    has_versions = is_versioned(settings_of(tree, bucket))
    if has_versions:
        await client.call("PUT", bucket, query={"versioning": ""}, body=_VERSIONING)
    running: set[asyncio.Task[None]] = set()
    try:
        for line in lines_of(tree, bucket):
            if len(running) >= _TOGETHER:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            put = _put(client, tree, bucket, line, has_versions=has_versions)
            running.add(asyncio.create_task(put, name="put an object"))
        for task in running:
            await task
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def apply_settings(client: Client, tree: Path, names: Sequence[str], *, left_out: Collection[str]) -> None:
    """Give buckets the settings of the archive, where there is an admin API to do it with.

    Args:
        left_out: paths below `settings/` of those that the server is not given.
    Raises:
        ArchiveIncompatibleError: the server refused one.
    """
    files = {
        path: content
        for bucket in names
        for name, content in settings_of(tree, bucket).items()
        if (path := f"{bucket}/{name}") not in left_out
    }
    if not files:
        return
    refused = {f"{told.bucket}/{told.name}": told.said for told in await give(client, files) if told.said}
    if refused:
        raise not_taken(refused)


async def _put(client: Client, tree: Path, bucket: str, line: Line, *, has_versions: bool) -> None:
    put = partial(_put_once, client, tree, bucket, line, has_versions=has_versions)
    try:
        # A delete marker that is put a second time takes away the first.
        await (put() if line.is_marker else _patiently(put))
    except ServiceError as failure:
        raise ToolFailedError(f"{bucket}/{line.key} could not be stored: {failure.text}") from failure


async def _patiently(put: Callable[[], Awaitable[None]]) -> None:
    """Put an object's version, which is the same however often that is done, again where a server is too busy."""
    for tries, pause in enumerate((*_PAUSES_SECONDS, None)):
        try:
            return await put()
        except NotReadyError:
            if pause is None:
                raise
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # nothing secret
        except RefusedError as refusal:
            # It stored that version all the same, and does not take it twice.
            if tries and refusal.status == _IS_THERE:
                return None
            raise


async def _put_once(client: Client, tree: Path, bucket: str, line: Line, *, has_versions: bool) -> None:
    source = {"x-minio-source-mtime": line.modified}
    query = {"versionId": version_id(line.version)} if has_versions else {}
    key = stored_key(line.key)
    if line.is_marker:
        marks = {"x-minio-source-deletemarker": "true", "x-minio-source-replication-request": "true"}
        await client.call("DELETE", bucket, key, query=query, headers=source | marks)
        return
    headers, as_query = given(line)
    headers |= source
    query |= as_query
    if ENCRYPTED not in headers:
        headers["x-minio-source-etag"] = line.etag
    path = tree.joinpath(*path_of(line.file))
    async with client.open(
        "PUT",
        bucket,
        key,
        query=query,
        headers=headers,
        body=_pieces(path) if line.size else b"",
        body_bytes=line.size,
        body_sha256=line.sha256,
    ) as response:
        await response.read()


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    descriptor = os.open(path, OPEN_FLAGS)
    try:
        while piece := await asyncio.to_thread(os.read, descriptor, _PIECE_BYTES):
            yield piece
    finally:
        os.close(descriptor)
