"""A real Redis or Valkey as a process of ours: `with RedisServer(redis("redis-7.0")) as server:`.

It listens on a free port of 127.0.0.1, asks for a password when it was given one, and is gone when the block or this
Python process ends. Root's servers run as another user: see processes.py.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.servers.certificates import TlsFiles, make_tls_files
from tools.servers.directories import short_directory
from tools.servers.local_server import LocalServer, free_port
from tools.servers.processes import ServerProcess, ServerStartError, give, require_reachable, server_user
from tools.servers.redis import RedisInstall

START_TIMEOUT_SECONDS = 60.0
START_ATTEMPTS = 5
_UNFIT_PORT = ("Address already in use", "port number too high")
"""Someone took the port between our look and the start; a cluster needs the port 10,000 above as well."""
_READY = (b"+PONG", b"-NOAUTH", b"-NOPERM", b"-DENIED", b"-ERR")
"""What a server answers to PING once its data is loaded; before that it is -LOADING."""


class RedisServer(LocalServer):
    """A folder with a configuration and data, and the server that runs on it. Calls block.

    Attributes:
        port: the one on 127.0.0.1, the same after a restart; 0 before the first start. It takes TLS when `tls` is set.
        password: of the default user; empty: it asks for none.
        directory: holds the data and `server.log`.
        tls: the files of a server that takes TLS only.
    """

    def __init__(
        self,
        install: RedisInstall,
        *,
        directory: Path | None = None,
        port: int | None = None,
        password: str = "",
        settings: Mapping[str, str] | None = None,
        lines: Sequence[str] = (),
        tls: bool = False,
        is_sentinel: bool = False,
    ) -> None:
        """Nothing is made or started yet.

        Args:
            directory: where data is kept; None: a temporary folder, gone with the server.
            port: None: a free one.
            settings: lines of the configuration, by name. Unless they say so, nothing is saved (`save ""`).
            lines: lines that may come more than once, such as `user` and `rename-command`.
            tls: take TLS only, for replication too, with certificates made for the purpose.
            is_sentinel: watch other servers instead of holding data.
        """
        super().__init__(install.name, directory)
        self.install = install
        self.port = port or 0
        self.password = password
        self.tls: TlsFiles | None = None
        self._has_fixed_port = port is not None
        self._settings = dict(settings or {})
        self._lines = list(lines)
        self._takes_tls = tls
        self._is_sentinel = is_sentinel

    def start(self) -> None:
        """Start the server and wait until it has loaded its data.

        Raises:
            ServerStartError: with the server's last words. Nothing is left running.
        """
        user = server_user()
        if self.directory == Path():
            self.directory = self._folders.enter_context(short_directory("redis"))
        self.directory.mkdir(parents=True, exist_ok=True)
        give(self.directory, user)
        require_reachable(self.directory / "data", user)
        if self._takes_tls and self.tls is None:
            self.tls = make_tls_files(self.directory / "tls")
            for path in (self.directory / "tls", *(self.directory / "tls").iterdir()):
                give(path, user)
        for attempt in range(1, START_ATTEMPTS + 1):
            if self.port == 0:
                self.port = free_port()
            try:
                self._start_once()
            except ServerStartError as error:
                is_unfit = any(words in str(error) for words in _UNFIT_PORT)
                if self._has_fixed_port or attempt == START_ATTEMPTS or not is_unfit:
                    raise
                self.port = 0
            else:
                return

    def wait(self, *, within_seconds: float = 10.0) -> None:
        """Until the server has ended by itself."""
        deadline = time.monotonic() + within_seconds
        while self.is_running:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.install.name} still runs")
            time.sleep(0.01)

    def log(self) -> str:
        """All that the server wrote."""
        return self.log_path.read_text(errors="replace")

    def _start_once(self) -> None:
        user = server_user()
        configuration = self.directory / "server.conf"
        configuration.write_text("\n".join([*self._configuration(), ""]))
        configuration.chmod(0o600)
        give(configuration, user)
        log_began_at = self.log_path.stat().st_size if self.log_path.exists() else 0
        process = ServerProcess.start(
            [self.install.server, configuration, *(["--sentinel"] if self._is_sentinel else [])],
            log_path=self.log_path,
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            stop_signal=signal.SIGTERM,
            user=user,
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_ready():
            if not process.is_running or time.monotonic() > deadline:
                process.stop()
                with self.log_path.open("rb") as log:
                    log.seek(log_began_at)
                    words = log.read().decode(errors="replace")[-2000:]
                raise ServerStartError(f"{self.install.name} did not start in {self.directory}: {words}")
            time.sleep(0.01)
        self._process = process

    def _configuration(self) -> list[str]:
        settings = {
            "bind": self.host,
            "port": "0" if self._takes_tls else str(self.port),
            "dir": str(self.directory),
            "daemonize": "no",
        }
        if not self._is_sentinel:
            settings |= {"databases": "16", "save": '""'}
        settings |= self._settings
        if self.password:
            settings["requirepass"] = self.password
        if self.tls is not None:
            settings |= {
                "tls-port": str(self.port),
                "tls-cert-file": str(self.tls.certificate),
                "tls-key-file": str(self.tls.key),
                "tls-ca-cert-file": str(self.tls.authority),
                "tls-auth-clients": "no",
                "tls-replication": "yes",
            }
        return [*(f"{name} {value}" for name, value in settings.items()), *self._lines]

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=5) as connection:
            if self.tls is None:
                return self._answers(connection)
            context = ssl.create_default_context(cafile=self.tls.authority)
            with context.wrap_socket(connection, server_hostname="localhost") as wrapped:
                return self._answers(wrapped)
        return False

    def _answers(self, connection: socket.socket) -> bool:
        if self.password:
            # Else it says -NOAUTH while it loads, too.
            password = self.password.encode()
            connection.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(password), password))
            connection.recv(256)
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(_READY)
