"""Where the app's database is, and who may do what there: the recipe's table in the agent's configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from agent.engines.configured import checked, read_secret
from common.errors import AppUnavailableError

_ON_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Login:
    """Who connects where. The password reaches the client programs by their environment."""

    host: str
    port: int
    user: str
    password: str
    programs: Path

    @property
    def place(self) -> str:
        """For a person."""
        return f"MariaDB on {self.host}" if self.host.startswith("/") else f"MariaDB on {self.host}:{self.port}"

    @property
    def client(self) -> Path:
        """MariaDB's or, where its clients are not, MySQL's."""
        return self._first("mariadb", "mysql")

    @property
    def dump_program(self) -> Path:
        return self._first("mariadb-dump", "mysqldump")

    def _first(self, *names: str) -> Path:
        paths = [self.programs / name for name in names]
        return next((path for path in paths if path.exists()), paths[0])

    def options(self) -> list[str]:
        """For any of the client programs; no option file of the machine has a say."""
        if self.host.startswith("/"):
            place = ["--protocol=socket", f"--socket={self.host}"]
        else:
            place = ["--protocol=tcp", f"--host={self.host}", f"--port={self.port}"]
        if self.host.startswith("/") or self.host in _ON_THIS_MACHINE:
            # MariaDB's clients since 11.4, and MySQL's by TCP, would not talk to a server that has no TLS, even here.
            is_mysql = self.client.name == "mysql"
            place.append("--loose-get-server-public-key" if is_mysql else "--loose-skip-ssl-verify-server-cert")
        return ["--no-defaults", *place, f"--user={self.user}", "--default-character-set=utf8mb4"]

    def environment(self) -> dict[str, str]:
        return {"MYSQL_PWD": self.password} if self.password else {}


class MariadbSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a database is reached. Files with passwords are read each time, so they may be rotated."""

    database: str
    """The app's."""
    user: str
    """The account that the app itself uses."""
    host: str = "127.0.0.1"
    """A name, an address, or the path of a unix socket."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 3306
    password_file: str = ""
    """Holds the password of `user`, with or without a line end; empty: the server asks for none."""
    admin_user: str = ""
    """An account that may make schemas and accounts (docs/recipes/mariadb.md has its grants); empty: exports only."""
    admin_password_file: str = ""
    client_directory: str = "/usr/bin"
    """Where `mariadb` and `mariadb-dump` are, or MySQL's `mysql` and `mysqldump`; not older than the server."""

    @property
    def place(self) -> str:
        """Which database is the app's, for a person."""
        server = self.host if self.host.startswith("/") else f"{self.host}:{self.port}"
        return f"MariaDB (database {self.database} on {server})"

    def app_login(self) -> Login:
        """The app's own account; AppUnavailableError when the password file cannot be read."""
        return self._login(self.user, self.password_file)

    def admin_login(self) -> Login | None:
        """None where there is none."""
        return self._login(self.admin_user, self.admin_password_file) if self.admin_user else None

    def admin_if_readable(self) -> Login | None:
        """The same, for who goes without where its password file cannot be read."""
        with contextlib.suppress(AppUnavailableError):
            return self.admin_login()
        return None

    def _login(self, user: str, password_file: str) -> Login:
        return Login(self.host, self.port, user, read_secret(password_file), Path(self.client_directory))


def read_settings(table: Mapping[str, object]) -> MariadbSettings:
    """Check a table of the configuration; InvalidRequestError names what is wrong."""
    return checked(table, MariadbSettings, recipe="mariadb")
