"""Where the app's database is, and who may do what there: the recipe's table in the agent's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from agent.engines.configured import checked, read_secret
from agent.engines.pg.server.clients import DEFAULT_DIRECTORIES
from agent.engines.pg.server.connection import Login


class PostgresSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a PostgreSQL database is reached. Files with passwords are read each time, so they may be rotated."""

    database: str
    """The app's."""
    user: str
    """The role that the app itself uses."""
    host: str = "127.0.0.1"
    """A name, an address, or the directory of a unix socket."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 5432
    password_file: str = ""
    """Holds the password of `user`, with or without a line end; empty: the server asks for none."""
    admin_user: str = ""
    """A role that may make databases and roles (a superuser, best); empty: `user` does what it may."""
    admin_password_file: str = ""
    maintenance_database: str = "postgres"
    """Where the agent is connected while it renames the app's database; must not be that one."""
    client_directories: tuple[str, ...] = (DEFAULT_DIRECTORIES,)
    """Directories with pg_dump and pg_restore, one per major; `*` is expanded."""
    data_directory: str = ""
    """The server's, where it is mounted for the agent: an import stops before that disk is full. Empty: the server is
    asked, and looked for."""
    load_sessions: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    """Connections that load an import in parallel; more than cores + 1 bring nothing (measured)."""

    def app_login(self) -> Login:
        """The app's own role in its database; AppUnavailableError when the password file cannot be read."""
        return Login(self.host, self.port, self.database, self.user, read_secret(self.password_file) or None)

    def admin_login(self) -> Login | None:
        """The admin role in the maintenance database; None where there is none."""
        if not self.admin_user:
            return None
        password = read_secret(self.admin_password_file) or None
        return Login(self.host, self.port, self.safe_maintenance_database, self.admin_user, password)

    @property
    def place(self) -> str:
        """Which database is the app's, for a person."""
        return f"PostgreSQL (database {self.database} on {self.host}:{self.port})"

    @property
    def safe_maintenance_database(self) -> str:
        """A database that is not the app's: many an app lives in the one called postgres."""
        return self.maintenance_database if self.maintenance_database != self.database else "template1"

    def client_paths(self) -> list[Path]:
        """The directories that there are."""
        return [path for pattern in self.client_directories for path in sorted(Path("/").glob(pattern.lstrip("/")))]


def read_settings(table: Mapping[str, object]) -> PostgresSettings:
    """Check a table of the configuration; InvalidRequestError names what is wrong."""
    return checked(table, PostgresSettings, recipe="postgresql")
