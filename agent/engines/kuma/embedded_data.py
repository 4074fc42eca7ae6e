"""An Uptime Kuma 2 that runs a MariaDB itself, on a data directory beside its files (its server/embedded-mariadb.js).

Export asks that server, over its socket, while the app runs. For an import a new data directory is built beside it, by
a server of ours of the same release; it changes places with the old one while the app is down, like any other folder.
The one fact to know: the account is named after the user of the operating system that the app, and so the agent, runs
as, which can only be `node` or `root`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.engines import tree
from agent.engines.kuma import layout
from agent.engines.kuma.configuration import Storage
from agent.engines.kuma.data import Place, Verified
from agent.engines.kuma.foreign_tables import warnings_of_import
from agent.engines.kuma.mariadb_data import Database, MariadbData, facts_of_upload, load_beside
from agent.engines.kuma.version import KINDS, KumaFacts, check_upload
from agent.engines.mariadb.imports.exchange import Exchange
from agent.engines.mariadb.own.mariadb import BASE_BYTES, OwnServer, find_server
from agent.engines.mariadb.server.catalog import SYSTEM_SCHEMAS, Schema, look, table_names
from agent.engines.mariadb.server.client import literal, query
from agent.engines.mariadb.server.parts import parts_of
from agent.engines.mariadb.server.settings import Login
from agent.engines.swapping import Side
from common.errors import AppBusyError, AppUnavailableError
from common.fingerprints import Fingerprint

DATABASE = "kuma"
APP_USER = "node"
_OWN_ACCOUNTS = ("root", APP_USER, "mariadb.sys", "PUBLIC", "")
_RELEASE_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_LOCKED_FILE = "ibdata1"


class EmbeddedData(MariadbData):
    """Implements data.Data."""

    storage = Storage.EMBEDDED_MARIADB
    _tables_in = (layout.SERVER_DATA,)

    def __init__(self, place: Place, clients: Path) -> None:
        user = "root" if os.geteuid() == 0 else APP_USER
        login = Login(str(place.directory / layout.SERVER_SOCKET), 0, user, "", clients)
        super().__init__(place, Database(login, login, DATABASE))
        self._clients = clients
        self._data = place.directory / layout.SERVER_DATA

    async def look(self) -> KumaFacts | None:
        with self._told_if_down():
            return await super().look()

    async def fingerprint(self) -> Fingerprint:
        with self._told_if_down():
            return await super().fingerprint()

    async def obstacle(self) -> str:
        with self._told_if_down():
            schema = await look(self._at.login, DATABASE)
        owner = self._data.stat().st_uid
        if os.geteuid() not in (0, owner):
            return f"{self._data} belongs to uid {owner} and the agent is uid {os.geteuid()}, so it cannot exchange it."
        programs = await find_server(self._clients)
        if programs.release != schema.release:
            ours, theirs = (".".join(map(str, release)) for release in (programs.release, schema.release))
            return (
                f"The app's own MariaDB is {schema.version} and the agent's mariadbd is {ours}: the data directory for "
                f"it has to be made by a {theirs}."
            )
        if others := await self._others():
            return (
                f"The app's own MariaDB holds what is not Uptime Kuma's ({', '.join(others)}); an import makes its "
                "data directory anew, without that."
            )
        return ""

    async def verify(self, area: tree.StagingArea, key: str, target: KumaFacts | None) -> Verified:
        async with (await self._server(area)).running() as admin:
            facts = await facts_of_upload(admin, DATABASE)
            parts = await parts_of(admin, DATABASE, KINDS)
            staged = await table_names(admin, DATABASE) or ()
        gone = warnings_of_import(await table_names(self._at.login, DATABASE) or (), staged)
        return Verified(facts, [*gone, *check_upload(facts, target)], parts)

    async def _load(self, area: tree.StagingArea, chunks: AsyncIterator[bytes], key: str) -> None:
        schema = await look(self._at.login, DATABASE)
        tree.require_room(area.new, BASE_BYTES, self._place.limits)
        await asyncio.to_thread(_let_through, area)
        server = await self._server(area)
        await server.make(socket_user=APP_USER)
        async with server.running() as admin:
            await load_beside(admin, schema, self._watched(chunks, area), key, self._place.limits)
            await _name_after_the_apps(admin, schema, key)

    @contextmanager
    def _told_if_down(self) -> Iterator[None]:
        """Name the app where it is its absence that keeps the server from answering."""
        try:
            yield
        except AppUnavailableError as error:
            if _is_served(self._at.login.host):
                raise
            raise AppUnavailableError(
                "This Uptime Kuma runs a MariaDB of its own (embedded-mariadb), which is there only while the app is, "
                "and it is not running now.",
                next_step="Start the app; an import stops it when everything is ready.",
            ) from error

    async def _server(self, area: tree.StagingArea) -> OwnServer:
        return OwnServer(
            await find_server(self._clients),
            area.new / layout.SERVER_DATA,
            uid=self._data.stat().st_uid,
            # Goes with the area, even if the agent is killed.
            folder=area.new.parent,
        )

    async def _watched(self, chunks: AsyncIterator[bytes], area: tree.StagingArea) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            tree.require_room(area.new, len(chunk), self._place.limits)
            yield chunk

    async def _others(self) -> list[str]:
        """Databases and accounts that somebody has added."""
        schemas = ", ".join(map(literal, (*SYSTEM_SCHEMAS, DATABASE, "test")))
        accounts = ", ".join(map(literal, _OWN_ACCOUNTS))
        rows = await query(
            self._at.login,
            "SELECT CONCAT('database ', SCHEMA_NAME) FROM information_schema.SCHEMATA"  # noqa: S608  # names of ours
            f" WHERE SCHEMA_NAME NOT IN ({schemas});"
            f" SELECT CONCAT('account ', User) FROM mysql.global_priv WHERE User NOT IN ({accounts});",
        )
        return [row[0] for row in rows]


@dataclass
class _Unnoted:
    """Notes on what is gone with the server if anything ends it. Implements engines.mariadb.notes.Notes."""

    key: str
    facts: dict[str, object] = field(default_factory=dict)

    def save(self, **facts: bool | list[str]) -> None:
        self.facts.update(facts)


async def _name_after_the_apps(admin: Login, schema: Schema, key: str) -> None:
    await query(admin, f"CREATE DATABASE {DATABASE} CHARACTER SET {schema.charset} COLLATE {schema.collation};")
    tables = Exchange(admin, DATABASE, _Unnoted(key))
    await tables.bring(Side.IMPORTED)
    await tables.drop()


def _let_through(area: tree.StagingArea) -> None:
    """Root's server is of another user, who has to come to its data directory, and sees nothing on the way."""
    if os.geteuid() == 0:
        area.let_others_through()


def _is_served(path: str) -> bool:
    """Whether anybody listens on a socket; one that was killed, as the app's is with its container, leaves the file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


async def until_released(directory: Path) -> None:
    """Return once the app's server has ended: it may outlive the app by what it takes to write its memory down.

    Raises:
        AppBusyError: it does not end.
    """
    for _ in range(int(_RELEASE_SECONDS / _LOOK_SECONDS)):
        if not _is_locked(directory / layout.SERVER_DATA / _LOCKED_FILE):
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise AppBusyError(
        f"The app was stopped, but the MariaDB that it runs still has its files open after {_RELEASE_SECONDS:.0f} "
        "seconds.",
        next_step="See that the app's stop command ends its MariaDB too, then try again.",
    )


def _is_locked(file: Path) -> bool:
    """Whether another process holds InnoDB's lock."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    else:
        return False
    finally:
        os.close(descriptor)
