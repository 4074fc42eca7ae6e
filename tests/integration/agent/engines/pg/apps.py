"""A database as an app has it, and the recipe that serves it, on a real server."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from agent.engines.pg.exports.fingerprint import Fingerprint, fingerprint
from agent.engines.pg.server.connection import Login, connect
from agent.recipes.base import ExportOptions, Limits, Preview
from agent.recipes.postgresql import PostgresqlRecipe
from tests.fakes.imports import MemoryRecord, NotedProgress, surroundings, upload_of
from tools.servers import PostgresServer, postgres

OLDEST_CLIENT_MAJOR = 15
"""The installs of older servers bring no client programs."""
RICH = Path(__file__).parents[4] / "data" / "postgresql" / "rich.sql"


def unsealed(archive: bytes) -> bytes:
    """SQL text without our seal, which a changed file would break."""
    return b"\n".join(line for line in archive.split(b"\n") if not line.startswith(b"-- mathison-data"))


async def until(is_so: Callable[[], bool], *, within_seconds: float = 20.0) -> None:
    """Wait for something that the server does."""
    deadline = time.monotonic() + within_seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


class PostgresApp:
    """One app. Names of database and role are unique; everything is dropped by `close`."""

    def __init__(
        self,
        server: PostgresServer,
        folder: Path,
        *,
        rights: str = "",
        has_admin: bool = True,
        database: str | None = None,
        create_options: str = "TEMPLATE template0",
        limits: Limits | None = None,
    ) -> None:
        """
        Args:
            rights: of the app's role, as CREATE ROLE has them.
            has_admin: the agent knows the superuser.
        """
        tag = secrets.token_hex(4)
        self.server = server
        self.database = database or f"app_{tag}"
        self.role = f"role_{tag}"
        self.password = f"secret-{tag}"
        self.limits = limits
        self.folder = folder / tag
        self.work_directory = self.folder / "work"
        self.work_directory.mkdir(parents=True, mode=0o700)
        self.settings: dict[str, object] = {
            "host": server.host,
            "port": server.port,
            "database": self.database,
            "user": self.role,
            "password_file": self._secret("app", self.password),
            "client_directories": [str(postgres(max(server.install.major, OLDEST_CLIENT_MAJOR)).bin_directory)],
        }
        if has_admin:
            self.settings["admin_user"] = server.superuser
            self.settings["admin_password_file"] = self._secret("admin", server.password)
        role, name = sql.Identifier(self.role), sql.Identifier(self.database)
        self.run(sql.SQL(f"CREATE ROLE {{}} LOGIN {rights} PASSWORD {{}}").format(role, self.password), on="postgres")
        if server.install.major >= 15:
            # With fsync off that costs a third of the default.
            create_options += " STRATEGY FILE_COPY"
        self.run(sql.SQL(f"CREATE DATABASE {{}} OWNER {{}} {create_options}").format(name, role), on="postgres")
        if server.install.major < 15:
            self.run(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(role))
        self.recipe = self.new_recipe()
        self.progress = NotedProgress()

    def new_recipe(self, **settings: object) -> PostgresqlRecipe:
        """As the agent has one after a restart."""
        return PostgresqlRecipe(surroundings(self.work_directory, {**self.settings, **settings}, limits=self.limits))

    def _secret(self, name: str, text: str) -> str:
        file = self.folder / f"{name}.password"
        file.write_text(text + "\n")
        return str(file)

    def run(
        self,
        statement: str | sql.Composable,
        *,
        on: str | None = None,
        as_app: bool = False,
        values: Sequence[object] | Mapping[str, object] | None = None,
    ) -> list[Any]:
        """Execute something; its rows. As the superuser, unless the app does it."""
        if on == "postgres" and not as_app:
            return self.server.run(statement, values)
        user, password = (self.role, self.password) if as_app else (None, None)
        dsn = self.server.dsn(on or self.database, user, password=password)
        with psycopg.connect(dsn, autocommit=True, client_encoding="utf8") as connection:
            cursor = connection.execute(statement, values)  # type: ignore[arg-type]  # tests write SQL by hand
            return cursor.fetchall() if cursor.description else []

    def login(self, database: str | None = None) -> Login:
        """The superuser's way into the app's database."""
        server = self.server
        return Login(server.host, server.port, database or self.database, server.superuser, server.password)

    def fill(self, *files: Path) -> None:
        """Run SQL files as the app."""
        with psycopg.connect(
            self.server.dsn(self.database, self.role, password=self.password), autocommit=True
        ) as connection:
            for file in files or (RICH,):
                connection.execute(file.read_bytes(), prepare=False)

    def outside(self) -> list[object]:
        """Everything of the server that no import may change."""
        queries = {
            "SELECT datname, datdba::regrole::text, datistemplate, datallowconn, datconnlimit,"
            " ARRAY(SELECT one::text FROM unnest(datacl) AS one ORDER BY 1), shobj_description(oid, 'pg_database')"
            " FROM pg_database"
            " WHERE datname IN (%s, 'postgres', 'template0', 'template1') ORDER BY 1": self.database,
            "SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase"
            " WHERE datname = %s ORDER BY 1": self.database,
            "SELECT to_jsonb(r) FROM pg_roles r WHERE rolname IN (%s, 'postgres') ORDER BY 1": self.role,
            "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members"
            " WHERE %s::regrole IN (member, roleid) ORDER BY 1, 2": self.role,
        }
        return [row for query, name in queries.items() for row in self.run(query, on="postgres", values=[name])]

    async def fingerprint(self, database: str | None = None) -> Fingerprint:
        async with connect(self.login(database)) as connection:
            return await fingerprint(connection)

    async def export(self, form: str = "sql.gz", *, options: Mapping[str, str] | None = None) -> bytes:
        """A whole archive."""
        formats = {one.name: one for one in self.recipe.export_formats}
        wanted = ExportOptions(formats[form], "shop.db", f"shop-db{formats[form].suffix}", options or {})
        async with self.recipe.export_data(wanted, self.progress) as export:
            return b"".join([chunk async for chunk in export.chunks])

    def dump(self, *options: str) -> bytes:
        """What the superuser's own pg_dump writes."""
        client = postgres(max(self.server.install.major, OLDEST_CLIENT_MAJOR)).program("pg_dump")
        environment = self.server.environment(self.database)
        return subprocess.run([client, *options], env=environment, check=True, capture_output=True).stdout

    async def stage(self, content: bytes, record: MemoryRecord | None = None) -> tuple[MemoryRecord, Preview]:
        """As the agent does: what fails is discarded."""
        record = record or MemoryRecord()
        try:
            return record, await self.recipe.stage(upload_of(content), record, self.progress)
        except BaseException:
            await self.recipe.discard(record)
            raise

    async def bring_in(self, content: bytes) -> MemoryRecord:
        """A whole import, staged and restored."""
        record, _ = await self.stage(content)
        await self.recipe.restore(record, self.progress)
        return record

    def left_over(self) -> list[str]:
        """What an agent must not leave: databases, roles, sessions, files, processes."""
        found = [f"database {name}" for (name,) in self.run(_OUR_DATABASES, on="postgres")]
        found += [f"role {name}" for (name,) in self.run(_OUR_ROLES, on="postgres")]
        found += [f"session {name}" for name in self._lasting_sessions()]
        found += [f"file {path}" for path in self.work_directory.rglob("*")]
        for child in psutil.Process(os.getpid()).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.name().startswith("pg_") or "loader" in " ".join(child.cmdline()):
                    found.append(f"process {child.name()}")
        return found

    def _lasting_sessions(self) -> list[str]:
        """Those of agents; the server is done with one a moment after its client has closed it."""
        deadline = time.monotonic() + 5
        while (found := self.run(_OUR_SESSIONS, on="postgres")) and time.monotonic() < deadline:
            time.sleep(0.01)
        return [name for (name,) in found]

    def drop_kept(self) -> None:
        """Drop by hand what imports keep of the previous data."""
        for (name,) in self.run(_OUR_DATABASES, on="postgres"):
            if name.startswith("mathison_kept_"):
                self.run(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)), on="postgres")

    async def close(self) -> None:
        """Drop everything."""
        for (name,) in [*self.run(_OUR_DATABASES, on="postgres"), (self.database,)]:
            statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            self.run(statement, on="postgres")
        for (name,) in [*self.run(_OUR_ROLES, on="postgres"), (self.role,)]:
            self.run(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)), on="postgres")


_OUR_DATABASES = "SELECT datname FROM pg_database WHERE starts_with(datname, 'mathison_')"
_OUR_ROLES = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'mathison_')"
_OUR_SESSIONS = "SELECT application_name FROM pg_stat_activity WHERE starts_with(application_name, 'mathison-')"
