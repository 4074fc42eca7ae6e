"""A real PostgreSQL as a process of ours: `with PostgresServer(postgres(17)) as server:`.

It listens on a free port of 127.0.0.1 and on a unix socket, asks for a password on both, and is gone when the block or
this Python process ends. Root's servers run as another user: see processes.py.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.sql import Composable

from tools.servers.directories import short_directory
from tools.servers.local_server import LocalServer, free_port
from tools.servers.postgresql import PostgresInstall
from tools.servers.postgresql_cluster import SUPERUSER, bare_environment, make_cluster
from tools.servers.processes import (
    ServerProcess,
    ServerStartError,
    ServerUser,
    give,
    require_reachable,
    server_user,
)

START_TIMEOUT_SECONDS = 60.0
START_ATTEMPTS = 5
SOCKET_PATH_LIMIT_BYTES = 107
"""sockaddr_un.sun_path holds 108 bytes, the last of them zero (unix(7))."""


class PostgresServer(LocalServer):
    """A cluster in a folder, and the server that runs on it. Calls block; from asyncio use asyncio.to_thread.

    Attributes:
        install: the programs it runs.
        password: the superuser's.
        port: the one on 127.0.0.1, the same after a restart; 0 before the first start.
        directory: holds `data`, the server's `server.log` and, unless its path is too long, the socket.
    """

    superuser = SUPERUSER

    def __init__(
        self,
        install: PostgresInstall,
        *,
        directory: Path | None = None,
        port: int | None = None,
        password: str | None = None,
        encoding: str = "UTF8",
        locale: str = "C",
        settings: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> None:
        """Nothing is made or started yet.

        Args:
            directory: where the cluster is kept; one that is there already is used, with the password that it was
                made with. None: a temporary folder, gone with the server.
            port: None: a free one.
            password: of a new cluster. None: a random one.
            settings: lines of postgresql.conf, by name.
            fsync: whether what was committed survives a power cut. Off is faster, and survives all but that.
        """
        super().__init__("PostgreSQL", directory)
        self.install = install
        self.port = port or 0
        self.password = password or secrets.token_urlsafe(12)
        self._has_fixed_port = port is not None
        self._encoding = encoding
        self._locale = locale
        self._settings = dict(settings or {})
        self._fsync = fsync
        self._socket_directory = Path()
        self._is_prepared = False
        self._session: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def data_directory(self) -> Path:
        return self.directory / "data"

    @property
    def socket_directory(self) -> Path:
        """A client's `host` for the unix socket."""
        return self._socket_directory

    def start(self) -> None:
        """Make the cluster when there is none, start the server and wait until it takes connections.

        Raises:
            ServerStartError: with the server's last words. Nothing is left running.
        """
        user = server_user()
        require_reachable(self.install.bin_directory / "postgres", user)
        if not self._is_prepared:
            self._prepare_folders(user)
            self._make_cluster(user)
            self._is_prepared = True
        for attempt in range(1, START_ATTEMPTS + 1):
            if not self._has_fixed_port and self.port == 0:
                self.port = free_port()
            try:
                self._start_once(user)
            except ServerStartError as error:
                # Someone took the port between our look and the start; or, after `kill`, the old server's children
                # have not ended yet.
                is_taken = not self._has_fixed_port and "Address already in use" in str(error)
                is_ending = "still in use" in str(error) or 'lock file "postmaster.pid"' in str(error)
                if attempt == START_ATTEMPTS or not (is_taken or is_ending):
                    raise
                if is_taken:
                    self.port = 0
                time.sleep(0.2 * attempt)
            else:
                return

    def stop(self) -> None:
        self._end_session()
        super().stop()

    def kill(self) -> None:
        super().kill()
        self._end_session()

    def close(self) -> None:
        """Stop, and remove what is temporary. Never by `kill`: that leaves shared memory to the machine."""
        self.stop()
        super().close()
        self._is_prepared = False

    def dsn(self, database: str = "postgres", user: str | None = None, *, password: str | None = None) -> str:
        """A connection URI over TCP; without `user`, the superuser's."""
        who = quote(user or self.superuser, safe="")
        secret = quote(password if password is not None else self.password, safe="")
        return f"postgresql://{who}:{secret}@{self.host}:{self.port}/{quote(database, safe='')}"

    def environment(self, database: str = "postgres", user: str | None = None) -> dict[str, str]:
        """libpq's variables for a connection over TCP, for programs such as pg_dump."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": user or self.superuser,
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
        }

    def run(
        self, statement: str | Composable, values: Sequence[object] | Mapping[str, object] | None = None
    ) -> list[Any]:
        """Execute SQL in the database `postgres` as the superuser, in autocommit mode.

        One session does it all while the server runs, since a new one costs 10 ms of CPU.

        Returns:
            The rows of the first statement.
        Raises:
            psycopg.Error: it failed.
        """
        if self._session is None or self._session.closed:
            self._session = psycopg.connect(self.dsn(), autocommit=True, client_encoding="utf8", prepare_threshold=None)
        cursor = self._session.execute(statement, values)  # type: ignore[arg-type]  # SQL is written by hand
        return cursor.fetchall() if cursor.description else []

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        """Run SQL, or psql's own commands, as the superuser.

        Returns:
            The rows, one per line, columns parted by `|`.
        Raises:
            subprocess.CalledProcessError: a statement failed, and those after it were not run; `stderr` says why.
        """
        ended = subprocess.run(
            [self.install.psql, "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"],
            env={**bare_environment(), **self.environment(database), "PGCLIENTENCODING": "UTF8"},
            input=sql,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        return ended.stdout.rstrip("\n")

    def _prepare_folders(self, user: ServerUser | None) -> None:
        if self._is_temporary:
            self.directory = self._folders.enter_context(short_directory("pg"))
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.directory = self.directory.resolve()
        give(self.directory, user)
        require_reachable(self.data_directory, user)
        self._socket_directory = self.directory / "socket"
        if len(f"{self._socket_directory}/.s.PGSQL.65535.lock") > SOCKET_PATH_LIMIT_BYTES:
            self._socket_directory = self._folders.enter_context(short_directory("pg"))
        self._socket_directory.mkdir(exist_ok=True)
        give(self._socket_directory, user)

    def _make_cluster(self, user: ServerUser | None) -> None:
        """Under another name at first, so that a cut one is not taken for a cluster."""
        password_file = self.directory / "superuser-password"
        if (self.data_directory / "PG_VERSION").exists():
            self.password = password_file.read_text().strip()
            return
        password_file.unlink(missing_ok=True)
        with open(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.password + "\n")
        making = self.directory / "data.making"
        shutil.rmtree(making, ignore_errors=True)
        make_cluster(
            self.install,
            making,
            user=user,
            password=self.password,
            encoding=self._encoding,
            locale=self._locale,
            settings=self._settings,
        )
        making.rename(self.data_directory)

    def _start_once(self, user: ServerUser | None) -> None:
        settings = {
            "listen_addresses": self.host,
            "unix_socket_directories": str(self._socket_directory),
            "fsync": "on" if self._fsync else "off",
            "logging_collector": "off",
            # Small, so that several majors run beside each other; the data of tests fits.
            "shared_buffers": "32MB",
            **self._settings,
        }
        command: list[str | Path] = [self.install.bin_directory / "postgres", "-D", self.data_directory]
        command += ["-p", str(self.port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log_began_at = self.log_path.stat().st_size if self.log_path.exists() else 0
        process = ServerProcess.start(
            command,
            log_path=self.log_path,
            environment=bare_environment(),
            stop_signal=signal.SIGINT,
            user=user,
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_ready(process.pid):
            if not process.is_running or time.monotonic() > deadline:
                process.stop()
                with self.log_path.open("rb") as log:
                    log.seek(log_began_at)
                    words = log.read().decode(errors="replace")[-2000:]
                raise ServerStartError(f"PostgreSQL {self.install.version} did not start in {self.directory}: {words}")
            time.sleep(0.02)
        self._process = process

    def _is_ready(self, pid: int) -> bool:
        """As pg_ctl knows it: the first line of postmaster.pid is the process, the eighth its state (since 10)."""
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
