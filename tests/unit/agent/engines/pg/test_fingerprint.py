"""What a fingerprint asks a server for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import psycopg
import pytest

from agent.engines.pg.exports.fingerprint import read_small_tables
from agent.engines.pg.server.connection import Connection


class OneUnreadableTable:
    """A connection to a database whose only table has content that the server cannot show."""

    def __init__(self, *, broken: bool) -> None:
        self.broken = broken
        self._rows: list[tuple[object, ...]] = []

    @asynccontextmanager
    async def transaction(self, *, force_rollback: bool = False) -> AsyncIterator[None]:
        yield

    async def execute(self, query: Any, _params: object = None) -> OneUnreadableTable:
        text = query if isinstance(query, str) else query.as_string(None)
        if "count(*)" in text:
            raise psycopg.errors.DataCorrupted("invalid page")
        if "pg_partitioned_table" in text:
            self._rows = []
        else:
            self._rows = [("id", "int4")] if "pg_attribute" in text else [("public.t", "public", "t", 12, 8192)]
        return self

    async def fetchall(self) -> list[tuple[object, ...]]:
        return self._rows


async def test_a_table_that_cannot_be_read_is_told_by_the_statistics_in_a_preview() -> None:
    connection = cast(Connection, OneUnreadableTable(broken=False))

    assert await read_small_tables(connection, most_bytes=1 << 20, within_seconds=10) == {"public.t": (12, None)}


async def test_a_connection_that_broke_is_no_table_that_cannot_be_read() -> None:
    connection = cast(Connection, OneUnreadableTable(broken=True))

    with pytest.raises(psycopg.Error):
        await read_small_tables(connection, most_bytes=1 << 20, within_seconds=10)
