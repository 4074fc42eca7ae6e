"""A key that is swapped in with the data and says from which import it came.

It stands in the very snapshot that is loaded, so it is there exactly when the load took effect: whatever died, and
whichever of its files the server came back from. It is removed when nobody has to ask any more, has a random name,
stands in the server's last database and goes by itself after a day. An app that swaps databases (SWAPDB) moves it to
another.
"""

from __future__ import annotations

import time

from agent.engines.redis.connection import Connection, ReplyError, encode
from agent.engines.redis.facts import look

LIFETIME_SECONDS = 24 * 3600
IN_BETWEEN = "previous, but for its last commands"
"""Its value when the snapshot was loaded and what follows it was not executed yet."""
_SELECT_DB, _EXPIRE_MS, _STRING = 0xFE, 0xFC, 0
_MOST_DATABASES = 1 << 14
_LOOKS = 3
"""It may be moved between two databases that are looked at."""


class Marker:
    """The marker of one import.

    Attributes:
        database: where it stands.
        name: of the key.
    """

    def __init__(self, key: str, database: int) -> None:
        """
        Args:
            key: the import's.
        """
        self.database = database
        self.name = f"mathison-data:import:{key}"
        self._name = self.name.encode()

    @classmethod
    async def on(cls, connection: Connection, key: str) -> Marker:
        """That of an import on the server of a connection."""
        return cls(key, await _last_database(connection))

    def in_snapshot(self, value: str) -> bytes:
        """It as a part of an RDB."""
        expires_at_ms = int((time.time() + LIFETIME_SECONDS) * 1000)
        return b"".join(
            (
                bytes([_SELECT_DB]),
                _length(self.database),
                bytes([_EXPIRE_MS]),
                expires_at_ms.to_bytes(8, "little"),
                bytes([_STRING]),
                _length(len(self._name)),
                self._name,
                _length(len(value)),
                value.encode(),
            )
        )

    def as_commands(self, value: str) -> bytes:
        """It as a part of a replication stream."""
        return encode("SELECT", self.database) + encode("SET", self._name, value, "EX", LIFETIME_SECONDS)

    def removal(self) -> bytes:
        """Its removal as a part of a replication stream."""
        return encode("SELECT", self.database) + encode("DEL", self._name)

    async def read(self, connection: Connection) -> str:
        """Its value; empty: it is not there."""
        found = await self._first(connection, "GET")
        return found.decode() if isinstance(found, bytes) else ""

    async def remove(self, connection: Connection) -> None:
        await self._first(connection, "DEL")

    async def _first(self, connection: Connection, command: str) -> object:
        """What a command answers where the key is; 0 or None: it is nowhere."""
        for _ in range(_LOOKS):
            if found := await self._call(connection, self.database, command):
                return found
            for database in (await look(connection)).keys:
                if found := await self._call(connection, database, command):
                    return found
        return None

    async def _call(self, connection: Connection, database: int, command: str) -> object:
        await connection.call("SELECT", database)
        try:
            return await connection.call(command, self._name)
        finally:
            await connection.call("SELECT", 0)


async def _last_database(connection: Connection) -> int:
    """The highest number that the server knows; asked by trying, since CONFIG may be renamed away."""
    low, high = 0, _MOST_DATABASES
    while high - low > 1:
        middle = (low + high) // 2
        try:
            await connection.call("SELECT", middle)
            low = middle
        except ReplyError as refusal:
            # -BUSY or -LOADING says nothing about the number, and may be over before the next one is asked for.
            if refusal.kind != "ERR":
                raise
            high = middle
    await connection.call("SELECT", 0)
    return low


def _length(number: int) -> bytes:
    return bytes([number]) if number < 0x40 else bytes([0x40 | number >> 8, number & 0xFF])
