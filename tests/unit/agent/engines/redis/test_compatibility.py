"""Which server reads which file, without any server; tests/matrix asks real ones."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agent.engines.redis.compatibility import require_readable
from common.errors import ArchiveIncompatibleError
from common.rdb import RdbHeader


@dataclass(frozen=True)
class Release:
    kind: str
    major: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.major[0]}.{self.major[1]}"


SERVERS = {
    "redis-6.2": Release("redis", (6, 2)),
    "redis-7.0": Release("redis", (7, 0)),
    "redis-7.2": Release("redis", (7, 2)),
    "redis-8.2": Release("redis", (8, 2)),
    "valkey-8.1": Release("valkey", (8, 1)),
    "valkey-9.1": Release("valkey", (9, 1)),
}
READABLE = {
    ("redis", 9): {*SERVERS},
    ("redis", 10): {*SERVERS} - {"redis-6.2"},
    ("redis", 11): {*SERVERS} - {"redis-6.2", "redis-7.0"},
    ("redis", 12): {"redis-8.2"},
    ("valkey", 80): {"valkey-9.1"},
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("flavour", "version"), READABLE)
def test_a_file_is_read_by_servers_of_its_version_and_newer_ones_of_its_kind(
    flavour: str, version: int, server: str
) -> None:
    header = RdbHeader(flavour, version)

    if server in READABLE[flavour, version]:
        require_readable(header, SERVERS[server])
        return
    with pytest.raises(ArchiveIncompatibleError) as refused:
        require_readable(header, SERVERS[server])

    assert SERVERS[server].name in refused.value.text or "no Redis reads" in refused.value.text
    assert "Import it into" in refused.value.next_step
