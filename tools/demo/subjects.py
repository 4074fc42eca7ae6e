"""The demo's apps as its story sees them: filled, looked at, wiped, written to."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Sequence
from typing import Protocol, Self

from agent.engines.pg.exports.fingerprint import fingerprint
from agent.engines.pg.server.connection import Login, connect
from agent.engines.redis import connection as redis_connection
from common.seals import RESERVED_DIRECTORY
from tools.demo import cache_content, cache_fingerprint, database_content, object_content, volume_content
from tools.demo.ledger import read_ledger
from tools.demo.tree_fingerprint import tree_fingerprint
from tools.demo.volume_content import is_left_alone
from tools.deployment import CacheApp, DatabaseApp, ObjectStoreApp, VolumeApp


class Content(Protocol):
    """What an app holds, in short."""

    @property
    def sha256(self) -> str:
        """Of the content, in lower-case hex."""

    def differences(self, other: Self, /) -> Sequence[str]:
        """One sentence each; empty when both are the same."""


class Subject(abc.ABC):
    """One app."""

    app_id: str

    @abc.abstractmethod
    def load(self, size_megabytes: int) -> None:
        """Fill it with a realistic data set."""

    @abc.abstractmethod
    def look(self) -> Content:
        """Its content now. The volume's app goes on writing; what it writes to is left out and checked by `faults`."""

    def faults(self) -> Sequence[str]:
        """What is wrong with the content by itself, one sentence each."""
        return ()

    @abc.abstractmethod
    def wipe(self) -> None:
        """Lose everything."""

    @abc.abstractmethod
    def write_more(self) -> None:
        """Change something, as a day's work does."""


class Database(Subject):
    """The shop in PostgreSQL."""

    def __init__(self, app: DatabaseApp) -> None:
        self.app_id = app.app_id
        self._app = app

    def load(self, size_megabytes: int) -> None:
        database_content.load(self._app.dsn, size_megabytes=size_megabytes)

    def look(self) -> Content:
        return asyncio.run(self._look())

    async def _look(self) -> Content:
        server = self._app.server
        login = Login(server.host, server.port, self._app.database, server.superuser, server.password)
        async with connect(login) as connection:
            return await fingerprint(connection)

    def wipe(self) -> None:
        database_content.wipe(self._app.dsn)

    def write_more(self) -> None:
        database_content.write_more(self._app.dsn)


class Cache(Subject):
    """The shop's sessions, queue and counters."""

    def __init__(self, app: CacheApp) -> None:
        self.app_id = app.app_id
        self._app = app

    def load(self, size_megabytes: int) -> None:
        cache_content.load(self._app.url, size_megabytes=size_megabytes)

    def look(self) -> Content:
        return asyncio.run(self._look())

    async def _look(self) -> Content:
        server = self._app.server
        async with redis_connection.connect(
            redis_connection.Login(server.host, server.port, password=server.password)
        ) as connection:
            return await cache_fingerprint.fingerprint(connection)

    def wipe(self) -> None:
        cache_content.wipe(self._app.url)

    def write_more(self) -> None:
        cache_content.write_more(self._app.url)


class Objects(Subject):
    """The shop's uploads and documents."""

    def __init__(self, app: ObjectStoreApp) -> None:
        self.app_id = app.app_id
        self._app = app

    def load(self, size_megabytes: int) -> None:
        object_content.load(self._app.server, size_megabytes=size_megabytes)

    def look(self) -> Content:
        return object_content.look(self._app.server)

    def wipe(self) -> None:
        object_content.wipe(self._app.server)

    def write_more(self) -> None:
        object_content.write_more(self._app.server)


class Volume(Subject):
    """The folder that the volume app writes to, all the time."""

    def __init__(self, app: VolumeApp) -> None:
        self.app_id = app.app_id
        self._app = app

    def load(self, size_megabytes: int) -> None:
        volume_content.fill(self._app.directory, size_megabytes=size_megabytes)

    def look(self) -> Content:
        return tree_fingerprint(self._app.directory, is_wanted=_is_still)

    def faults(self) -> Sequence[str]:
        return [f"ledger: {fault}" for fault in read_ledger(self._app.directory).faults]

    def wipe(self) -> None:
        self._app.stop_program()
        volume_content.wipe(self._app.directory)
        self._app.start_program()

    def write_more(self) -> None:
        volume_content.write_more(self._app.directory)


def _is_still(path: str) -> bool:
    """Neither what the app writes to nor the agent's own folder."""
    return is_left_alone(path) and path != RESERVED_DIRECTORY
