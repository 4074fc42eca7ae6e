"""Redis 6.2 to 8 and Valkey 8 and 9, each into each: newer snapshots are refused by older servers' names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ArchiveIncompatibleError
from tests.fixtures.redis_data import content_of, fill, fill_otherwise
from tests.fixtures.redis_servers import client_of
from tests.integration.agent.recipes.redis_apps import RedisApp
from tests.matrix.cells import Cell, Note
from tools.servers import REDIS_NAMES, RedisServer

TITLE = "Redis and Valkey"
REFUSED = {
    ("redis-7.0", "redis-6.2"),
    ("redis-8.2", "redis-6.2"),
    ("redis-8.2", "redis-7.0"),
    ("redis-8.2", "valkey-8.1"),
    ("redis-8.2", "valkey-9.1"),
    ("valkey-8.1", "redis-6.2"),
    ("valkey-8.1", "redis-7.0"),
    ("valkey-9.1", "redis-6.2"),
    ("valkey-9.1", "redis-7.0"),
    ("valkey-9.1", "redis-8.2"),
    ("valkey-9.1", "valkey-8.1"),
}
"""From, into: the target does not know the snapshot's version, which has grown since, or is the other project's."""


@pytest.mark.parametrize("target_name", REDIS_NAMES)
@pytest.mark.parametrize("source_name", REDIS_NAMES)
async def test_content_is_equal_or_refused_before_anything_changed(
    source_name: str,
    target_name: str,
    redis_servers: Callable[[str], RedisServer],
    tmp_path: Path,
    note: Note,
) -> None:
    source = RedisApp(redis_servers(source_name), tmp_path / "source")
    target = RedisApp(redis_servers(target_name), tmp_path / "target")
    with client_of(source.server) as client:
        client.flushall()
    fill(source.server)
    content = await content_of(source.server)
    exported = await source.export()
    fill_otherwise(target.server)
    before = await content_of(target.server)

    if (source_name, target_name) in REFUSED:
        with pytest.raises(ArchiveIncompatibleError) as refusal:
            await target.stage(exported.file)

        assert (await content_of(target.server)).differences(before) == []
        outcome = refusal.value.reason
    else:
        await target.import_file(exported.file)

        assert content.differences(await content_of(target.server)) == []
        assert exported.fingerprint is not None
        assert exported.fingerprint.differences(await target.recipe.fingerprint(target.progress)) == []
        outcome = "equal"
    note(Cell(TITLE, source_name, target_name, outcome))
