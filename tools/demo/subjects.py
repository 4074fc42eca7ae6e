"""The demo's two apps as its story sees them: filled, looked at, wiped, written to."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Sequence
from typing import Protocol

from agent.engines.pg.connection import Login, connect
from agent.engines.pg.fingerprint import Fingerprint, fingerprint
from common.seals import RESERVED_DIRECTORY
from tools.demo import database_content, volume_content
from tools.demo.ledger import read_ledger
from tools.demo.tree_fingerprint import TreeFingerprint, tree_fingerprint
from tools.demo.volume_content import is_left_alone
from tools.deployment import DatabaseApp, VolumeApp


class Content(Protocol):
    """What an app holds, in short."""

    @property
    def sha256(self) -> str:
        """Of the content, in lower-case hex."""


class Subject(abc.ABC):
    """One app."""

    app_id: str
    compared: str
    """What is compared, for a person."""

    @abc.abstractmethod
    def load(self, size_megabytes: int) -> None:
        """Fill it with a realistic data set."""

    @abc.abstractmethod
    def look(self) -> Content:
        """Its content now. The volume's app goes on writing; what it writes to is left out and checked by `faults`."""

    @abc.abstractmethod
    def differences(self, before: Content, after: Content) -> Sequence[str]:
        """One sentence each; empty when both are the same."""

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

    compared = "rows of each table, sequences, large objects, object counts"

    def __init__(self, app: DatabaseApp) -> None:
        self.app_id = app.app_id
        self._app = app

    def load(self, size_megabytes: int) -> None:
        database_content.load(self._app.dsn, size_megabytes=size_megabytes)

    def look(self) -> Fingerprint:
        return asyncio.run(self._look())

    async def _look(self) -> Fingerprint:
        server = self._app.server
        login = Login(server.host, server.port, self._app.database, server.superuser, server.password)
        async with connect(login) as connection:
            return await fingerprint(connection)

    def differences(self, before: Content, after: Content) -> Sequence[str]:
        assert isinstance(before, Fingerprint)
        assert isinstance(after, Fingerprint)
        return before.differences(after)

    def wipe(self) -> None:
        database_content.wipe(self._app.dsn)

    def write_more(self) -> None:
        database_content.write_more(self._app.dsn)


class Volume(Subject):
    """The folder that the volume app writes to, all the time."""

    compared = "names, contents, modes, owners, times and links; the ledger's invariants"

    def __init__(self, app: VolumeApp) -> None:
        self.app_id = app.app_id
        self._app = app

    def load(self, size_megabytes: int) -> None:
        volume_content.fill(self._app.directory, size_megabytes=size_megabytes)

    def look(self) -> TreeFingerprint:
        return tree_fingerprint(self._app.directory, is_wanted=_is_still)

    def differences(self, before: Content, after: Content) -> Sequence[str]:
        assert isinstance(before, TreeFingerprint)
        assert isinstance(after, TreeFingerprint)
        return before.differences(after)

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
