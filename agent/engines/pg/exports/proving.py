"""The fingerprint of the very snapshot that pg_dump reads, taken beside it.

A failure here is a warning, never a failed export: the dump has proofs of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from agent.engines.pg.exports.fingerprint import EVERYTHING, Scope, hold_tables, one_moment, read_content
from agent.engines.pg.server.connection import Connection, Login, server_errors
from common.errors import ServiceError
from common.fingerprints import Fingerprint


class SnapshotProof:
    """A snapshot and its fingerprint.

    Attributes:
        snapshot: its name, for `pg_dump --snapshot`, as long as the block of `proving` lasts.
        warnings: why there is no fingerprint; complete when `fingerprint` has answered.
    """

    def __init__(
        self,
        connection: Connection,
        login: Login,
        snapshot: str,
        *,
        first: Callable[[], Awaitable[None]],
        scope: Scope = EVERYTHING,
    ) -> None:
        self.snapshot = snapshot
        self.warnings: list[str] = []
        self._connection = connection
        self._login = login
        self._first = first
        self._scope = scope
        self._may_read = asyncio.Event()
        self._taking = asyncio.create_task(self._take(), name="take a fingerprint")

    def begin(self) -> None:
        """Read from now on; before, it would keep the server from what the dump has to know for its first byte."""
        self._may_read.set()

    async def fingerprint(self) -> Fingerprint | None:
        """Waits until it is taken; None when that failed."""
        self.begin()
        return await self._taking

    async def close(self) -> None:
        self._taking.cancel()
        await asyncio.gather(self._taking, return_exceptions=True)

    async def _take(self) -> Fingerprint | None:
        try:
            with server_errors(self._login):
                await self._first()
                await self._may_read.wait()
                return (await read_content(self._connection, self._scope)).comparable(self._scope.scheme)
        except ServiceError as failure:
            self.warnings.append(f"No fingerprint could be taken: {failure.text}")
            return None


@asynccontextmanager
async def proving(
    connection: Connection, login: Login, *, first: Callable[[], Awaitable[None]], scope: Scope = EVERYTHING
) -> AsyncIterator[SnapshotProof]:
    """A snapshot that others can read as well, and its fingerprint, which is taken once that was `begin`.

    Args:
        connection: from `connect(login)`; for the time of the block it is in a transaction.
        first: done in that transaction before the reading, beside the caller.
    Raises:
        ServiceError: there is no such snapshot.
    """
    async with one_moment(connection):
        with server_errors(login):
            await hold_tables(connection)
            [snapshot] = await (await connection.execute("SELECT pg_export_snapshot()")).fetchone() or ("",)
        proof = SnapshotProof(connection, login, snapshot, first=first, scope=scope)
        try:
            yield proof
        finally:
            await proof.close()
