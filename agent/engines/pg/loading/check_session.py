"""Stands where a session would and does nothing, so that a dump is read and judged to its end without a server.

Imports little: it runs in a child that has to stay small.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Sequence

import psycopg

from agent.engines.pg.loading.sessions import Session, Settings
from agent.engines.pg.loading.sqltext import Statement

_STRINGS = re.compile(rb"SET\s+standard_conforming_strings\s*(?:=|TO)\s*'?(\w+)", re.IGNORECASE)


class CheckSession(Session):
    """Takes everything."""

    def __init__(self) -> None:
        self.rows = 0
        self._has_standard_strings = True

    @property
    def is_idle(self) -> bool:
        return True

    @property
    def has_standard_strings(self) -> bool:
        return self._has_standard_strings

    async def run(self, text: bytes, line: int) -> None:
        """Only one setting matters: how strings are read."""
        if found := _STRINGS.match(text):
            self._has_standard_strings = found[1].lower() in (b"on", b"true", b"yes", b"1")

    async def names(self, query: bytes, line: int) -> list[bytes]:
        """There is nothing."""
        return []

    async def insert(self, statements: Sequence[Statement], *, has_standard_strings: bool) -> None:
        """Rows are not looked at."""

    @contextlib.asynccontextmanager
    async def copy(self, text: bytes, line: int) -> AsyncIterator[psycopg.AsyncCopy]:
        """Rows are not looked at."""
        yield _Nowhere()  # type: ignore[misc]  # all that is used of a copy

    async def catch_up(self, settings: Settings) -> None:
        """There is nothing to catch up with."""

    async def close(self) -> None:
        """There is nothing to close."""


class _Nowhere:
    async def write(self, rows: bytes) -> None:
        """Rows are not looked at."""
