"""Which keys an import would add, take away or change: both sides read key by key, where that is little to read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from agent.engines.rdb.child import Look
from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.examination import examining
from agent.engines.rdb.sums import pairs
from agent.engines.redis.exporting import SMALL_BYTES, dumping
from agent.engines.redis.facts import ServerFacts
from agent.engines.redis.settings import RedisSettings
from agent.steps import Unwatched
from common.errors import ServiceError
from common.frames import CHUNK_BYTES

MOST_KEYS = 20_000
"""On each side; two digests of each are in memory for a moment, below 10 MiB for both sides."""
MOST_SECONDS = 10.0

KeyDigests = Mapping[int, Mapping[str, bytes]]
"""By database: the digest of a key's content by the digest of its name."""


async def compare_keys(
    server: ServerFacts, content: RdbContent, staged: Path, settings: RedisSettings, *, work_directory: Path
) -> tuple[KeyDigests, KeyDigests] | None:
    """What the server holds and what the staged file does, but for expired keys; None: too much, it cannot be read, or
    empty keys are in it, which servers leave out.

    Args:
        server: as it is now.
        content: of the file, which was checked.
    """
    is_little = server.data_bytes <= SMALL_BYTES and content.size_bytes <= SMALL_BYTES
    if content.empty or not is_little or max(server.key_count, content.key_count) > MOST_KEYS:
        return None
    try:
        async with asyncio.timeout(MOST_SECONDS):
            after = await _of_file(staged, work_directory)
            now = await _of_server(settings, work_directory)
    except (ServiceError, TimeoutError):
        return None
    if now is None or now.sums is None or after.sums is None:
        return None
    return _digests(now), _digests(after)


async def _of_file(staged: Path, work_directory: Path) -> RdbContent:
    async with examining(work_directory, Look.SUM_KEYS) as examination:
        with staged.open("rb", buffering=0) as file:
            while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await examination.add(piece)
        return await examination.finish()


async def _of_server(settings: RedisSettings, work_directory: Path) -> RdbContent | None:
    async with dumping(settings, Unwatched(), work_directory=work_directory, look=Look.SUM_KEYS) as dump:
        async for _ in dump.chunks:
            pass
    return dump.content


def _digests(content: RdbContent) -> KeyDigests:
    return {database: pairs(digests) for database, digests in content.key_digests.items()}
