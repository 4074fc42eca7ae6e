"""Databases that are loaded into and dumps that are loaded, as tests need them."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from agent.engines.pg.exports.fingerprint import Fingerprint, fingerprint
from agent.engines.pg.loading.load import Loaded, load
from agent.engines.pg.server.clients import Clients
from agent.engines.pg.server.connection import Login, connect
from agent.limits import Limits
from tools.servers import PostgresServer, postgres

DATA = Path(__file__).parents[5] / "data" / "postgresql"
CLIENT_MAJORS = (16, 17, 18)
MAJORS_WITHOUT_CONTRIB = (16,)
OPENING = b"--\n-- PostgreSQL database dump\n--\n\n"
CLOSING = b"\n--\n-- PostgreSQL database dump complete\n--\n\n"


@dataclass
class NotedProgress:
    """What `load` said."""

    read_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def read(self, size_bytes: int) -> None:
        self.read_bytes += size_bytes

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


async def until(is_so: Callable[[], bool], *, within_seconds: float = 20.0) -> None:
    """Wait for something that a server or process does."""
    deadline = time.monotonic() + within_seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


async def pieces(content: bytes, size_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
    """Bytes as an upload brings them."""
    for start in range(0, len(content), size_bytes):
        yield content[start : start + size_bytes]


class Target:
    """An empty database and the throw-away role that owns it."""

    def __init__(self, server: PostgresServer, folder: Path, *, options: str = "") -> None:
        """
        Args:
            options: of CREATE DATABASE.
        """
        self.server = server
        self.name = f"load_{secrets.token_hex(4)}"
        self.login = Login(server.host, server.port, self.name, self.name, f"secret-{self.name}")
        self.spool_directory = folder / self.name
        self.spool_directory.mkdir(mode=0o700)
        self.progress = NotedProgress()
        self.version_num = int(server.run("SHOW server_version_num")[0][0])
        server.run(f"CREATE ROLE {self.name} LOGIN PASSWORD '{self.login.password}'")
        server.run(f"CREATE DATABASE {self.name} TEMPLATE template0 OWNER {self.name} {options}")
        if server.install.major < 15:
            self.run(f"ALTER SCHEMA public OWNER TO {self.name}")

    async def load(
        self,
        content: bytes | AsyncIterator[bytes],
        *,
        extensions: frozenset[str] = frozenset(),
        limits: Limits | None = None,
    ) -> Loaded:
        """Load an upload as an import does."""
        return await load(
            pieces(content) if isinstance(content, bytes) else content,
            self.login,
            server_version_num=self.version_num,
            clients=Clients([postgres(major).bin_directory for major in CLIENT_MAJORS]),
            spool_directory=self.spool_directory,
            limits=limits or Limits(),
            pre_created_extensions=extensions,
            progress=self.progress,
        )

    async def load_sql(self, statements: str | bytes) -> Loaded:
        """Load statements within what pg_dump writes around them."""
        text = statements.encode() if isinstance(statements, str) else statements
        return await self.load(OPENING + text + CLOSING)

    async def fingerprint(self) -> Fingerprint:
        server = self.server
        login = Login(server.host, server.port, self.name, server.superuser, server.password)
        async with connect(login) as connection:
            return await fingerprint(connection)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Execute something in the database as the superuser."""
        with psycopg.connect(self.server.dsn(self.name), autocommit=True, client_encoding="utf8") as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str) -> object:
        """The only value of the only row."""
        return self.run(query)[0][0]

    def sessions(self, condition: str = "true") -> int:
        """How many the role has."""
        of_role = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{self.name}' AND {condition}"
        return int(self.server.run(of_role)[0][0])

    def left_over(self) -> list[str]:
        """What `load` must not leave behind: files, processes, open files of the spool."""
        found = [f"file {path}" for path in self.spool_directory.rglob("*")]
        found += [f"process {' '.join(child.cmdline())}" for child in children_of_load()]
        for number in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if str(self.spool_directory) in (target := os.readlink(f"/proc/self/fd/{number}")):
                    found.append(f"descriptor of {target}")
        return found

    def close(self) -> None:
        self.server.run(f"DROP DATABASE {self.name} WITH (FORCE)")
        self.server.run(f"DROP ROLE {self.name}")


def children_of_load() -> list[psutil.Process]:
    """The processes that `load` has started and that still run."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            is_ours = any(part.startswith(("agent.engines.pg", "agent.unpacking")) for part in child.cmdline())
            if is_ours or child.name() == "pg_restore":
                found.append(child)
    return found


class Source:
    """A database with content, and dumps of it by real pg_dumps."""

    def __init__(self, server: PostgresServer, folder: Path, *files: str, options: str = "") -> None:
        """
        Args:
            files: SQL of tests/data/postgresql; those named "…superuser…" are run by the superuser.
            options: of CREATE DATABASE.
        """
        self.server = server
        self.name = f"source_{secrets.token_hex(4)}"
        self._folder = folder / self.name
        self._folder.mkdir()
        self._dumps: dict[tuple[object, ...], bytes] = {}
        server.run(f"CREATE ROLE {self.name} LOGIN PASSWORD 'secret'")
        server.run(f"CREATE DATABASE {self.name} TEMPLATE template0 OWNER {self.name} {options}")
        for file in files:
            self.run((DATA / file).read_text(), as_owner="superuser" not in file)

    def run(self, statements: str, *, as_owner: bool = True) -> None:
        dsn = self.server.dsn(self.name, self.name, password="secret") if as_owner else self.server.dsn(self.name)
        with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as connection:
            connection.execute(statements.encode())

    async def fingerprint(self) -> Fingerprint:
        server = self.server
        login = Login(server.host, server.port, self.name, server.superuser, server.password)
        async with connect(login) as connection:
            return await fingerprint(connection)

    def dump(self, form: str = "plain", *options: str, client: int | None = None) -> bytes:
        """A dump; made once.

        Args:
            form: of pg_dump's, "directory" within a tar.
            client: major of pg_dump; None: the server's, or the oldest there is for it.
        """
        key = (form, options, client)
        if key not in self._dumps:
            self._dumps[key] = self._dump(form, options, client or max(self.server.install.major, CLIENT_MAJORS[0]))
        return self._dumps[key]

    def _dump(self, form: str, options: tuple[str, ...], client: int) -> bytes:
        path = self._folder / f"dump{len(self._dumps)}"
        argv = [str(postgres(client).program("pg_dump")), f"--format={form}", *options]
        environment = self.server.environment(self.name)
        if form == "custom":
            # As people do it, which since pg_dump 16 gives another file than --file: see common.pg_archives.
            with path.open("wb") as file:
                subprocess.run(argv, env=environment, check=True, stdout=file, stderr=subprocess.PIPE)
        else:
            subprocess.run([*argv, f"--file={path}"], env=environment, check=True, capture_output=True)
        if form == "directory":
            subprocess.run(["tar", "cf", f"{path}.tar", "-C", str(path.parent), path.name], check=True)
            path = path.with_suffix(".tar")
        return path.read_bytes()

    def close(self) -> None:
        self.server.run(f"DROP DATABASE {self.name} WITH (FORCE)")
        self.server.run(f"DROP ROLE {self.name}")
