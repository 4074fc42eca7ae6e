"""Where an import's marker stands."""

from __future__ import annotations

from typing import cast

import pytest

from agent.engines.redis.connection import Connection, ReplyError
from agent.engines.redis.marker import Marker


class Busy:
    """A server of so many databases whose first answers are refusals of everything."""

    def __init__(self, databases: int, *, refusals: int) -> None:
        self._databases = databases
        self._refusals = refusals

    async def call(self, _command: str, number: int) -> bytes:
        if self._refusals:
            self._refusals -= 1
            raise ReplyError("BUSY Redis is busy running a script.")
        if number >= self._databases:
            raise ReplyError("ERR DB index is out of range")
        return b"OK"


@pytest.mark.parametrize("databases", [1, 2, 16, 1000])
async def test_a_marker_stands_in_the_last_database(databases: int) -> None:
    marker = await Marker.on(cast(Connection, Busy(databases, refusals=0)), "key")

    assert marker.database == databases - 1


async def test_a_server_that_is_busy_for_a_moment_is_not_taken_for_one_of_few_databases() -> None:
    with pytest.raises(ReplyError, match="BUSY"):
        await Marker.on(cast(Connection, Busy(16, refusals=12)), "key")
