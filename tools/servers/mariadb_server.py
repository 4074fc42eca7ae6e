"""A real MariaDB as a process of ours: `with MariadbServer(mariadb()) as server:`.

It listens on a free port of 127.0.0.1 and on a unix socket, and is gone when the block or this Python process ends.
Root's servers run as another user: see processes.py.
"""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tools.servers.directories import short_directory
from tools.servers.local_server import LocalServer, free_port
from tools.servers.mariadb import MariadbInstall
from tools.servers.processes import ServerProcess, ServerStartError, ServerUser, give, require_reachable, server_user

START_TIMEOUT_SECONDS = 60.0
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_SYSTEM_SQL = ("{kind}_system_tables.sql", "{kind}_system_tables_data.sql")


class MariadbServer(LocalServer):
    """A data directory in a temporary folder, and the server that runs on it. Calls block.

    Attributes:
        port: the one on 127.0.0.1, the same after a restart; 0 before the first start.
        password: of the superuser, who comes from anywhere.
    """

    superuser = "root"
    client_options: tuple[str, ...] = ()

    def __init__(
        self, install: MariadbInstall, *, settings: Mapping[str, str] | None = None, fsync: bool = False
    ) -> None:
        """Nothing is made or started yet.

        Args:
            settings: options of mariadbd, by name.
            fsync: whether what was committed survives a power cut. Off is faster, and survives all but that.
        """
        super().__init__("MariaDB", None)
        self.install = install
        self.port = 0
        self.password = secrets.token_urlsafe(12)
        self._settings = dict(settings or {})
        self._fsync = fsync

    @property
    def data_directory(self) -> Path:
        return self.directory / "data"

    @property
    def socket_path(self) -> Path:
        return self.directory / "mysqld.sock"

    def start(self) -> None:
        """Start the server and wait until it takes connections.

        Raises:
            ServerStartError: with the server's last words. Nothing is left running.
        """
        user = server_user()
        if self.directory == Path():
            self.directory = self._folders.enter_context(short_directory("mariadb"))
            give(self.directory, user)
        require_reachable(self.data_directory, user)
        if not self.data_directory.exists():
            self._make_data(user)
        self.port = self.port or free_port()
        self._process = ServerProcess.start(
            [*self._command(), f"--port={self.port}", f"--bind-address={self.host}", f"--socket={self.socket_path}"],
            log_path=self.log_path,
            environment=ENVIRONMENT,
            stop_signal=signal.SIGTERM,
            user=user,
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_ready():
            if not self._process.is_running or time.monotonic() > deadline:
                self._process.stop()
                raise ServerStartError(f"MariaDB did not start in {self.directory}: {self._process.log_tail()}")
            time.sleep(0.02)

    def sql(self, text: str, *, database: str = "", user: str = "", password: str = "") -> str:
        """Run SQL, as the superuser unless said otherwise.

        Returns:
            The rows, one per line, columns parted by tabs.
        Raises:
            subprocess.CalledProcessError: a statement failed, and those after it were not run; `stderr` says why.
        """
        login = [f"--user={user or self.superuser}", f"--host={self.host}", f"--port={self.port}", "--protocol=tcp"]
        ended = subprocess.run(
            [self.install.client, "--no-defaults", *login, *self.client_options, "--batch", "--skip-column-names",
             "--default-character-set=utf8mb4", *([database] if database else [])],
            env={**ENVIRONMENT, "MYSQL_PWD": password or self.password},
            input=text,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )  # fmt: skip
        return ended.stdout.rstrip("\n")

    def _command(self) -> list[str | Path]:
        options = {
            "innodb-buffer-pool-size": "32M",
            "innodb-log-file-size": "32M",
            "innodb-flush-log-at-trx-commit": "1" if self._fsync else "0",
            "sync-binlog": "0",
            **({} if self._fsync else {"debug-no-sync": "1"}),
            **self._settings,
        }
        share = self.install.share_directory
        return [
            self.install.server,
            "--no-defaults",
            f"--datadir={self.data_directory}",
            # In a shared one, a server that starts deletes the temporary tables of those that run.
            f"--tmpdir={self.data_directory}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def _make_data(self, user: ServerUser | None) -> None:
        """As mariadb-install-db does, but for the accounts and the texts of HELP."""
        self.data_directory.mkdir()
        give(self.data_directory, user)
        share = self.install.share_directory
        # The names changed after 10.11.
        kind = "mariadb" if (share / _SYSTEM_SQL[0].format(kind="mariadb")).exists() else "mysql"
        system = "\n".join((share / name.format(kind=kind)).read_text() for name in _SYSTEM_SQL)
        access = ["DELETE FROM mysql.global_priv WHERE User <> 'mariadb.sys';", "FLUSH PRIVILEGES;", *self._accounts()]
        start = ["CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket=NULL;"]
        ended = subprocess.run(
            [*self._command(), "--bootstrap"],
            env=ENVIRONMENT,
            input="\n".join([*start, system, *access, ""]),
            capture_output=True,
            text=True,
            check=False,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else [],
        )
        if ended.returncode != 0:
            raise ServerStartError(f"MariaDB's data could not be made: {ended.stderr.strip()[-2000:]}")

    def _accounts(self) -> list[str]:
        """SQL that makes who there is at first."""
        return [
            f"CREATE USER root@'%' IDENTIFIED BY '{self.password}';",
            "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;",
        ]

    def _is_ready(self) -> bool:
        """A server greets whoever connects, and says an error when it is not ready."""
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                greeting = connection.recv(5)
        except OSError:
            return False
        return len(greeting) == 5 and greeting[4] == 10
