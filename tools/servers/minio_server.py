"""A real MinIO as a process of ours: `with MinioServer(minio()) as server:`.

It listens on a free port of 127.0.0.1 and keeps its data in one directory (or several drives), open to the agent of a
test. Root's servers run as another user: see processes.py.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tools.servers.directories import short_directory
from tools.servers.local_server import LocalServer, free_port
from tools.servers.processes import ServerProcess, ServerStartError, give, require_reachable, server_user

START_TIMEOUT_SECONDS = 60.0
START_ATTEMPTS = 5
_UNFIT_PORT = "already in use"
_NOT_LOADED = ("offline", "bucket-metadata-offline")


class MinioServer(LocalServer):
    """A drive and the server that runs on it. Calls block.

    Attributes:
        port: the one on 127.0.0.1, the same after a restart; 0 before the first start.
        user, password: of root.
        drives: its data directories, one as a rule.
    """

    def __init__(
        self,
        program: Path,
        *,
        directory: Path | None = None,
        user: str = "rootuser",
        password: str = "rootpass123",  # noqa: S107  # made up
        environment: Mapping[str, str] | None = None,
        drives: int = 1,
    ) -> None:
        """Nothing is made or started yet.

        Args:
            directory: holds drives and log; None: a temporary folder, gone with the server.
            environment: added to the server's.
        """
        super().__init__("MinIO", directory)
        self.program = program
        self.port = 0
        self.user = user
        self.password = password
        self.environment = dict(environment or {})
        self._drive_count = drives

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def drives(self) -> list[Path]:
        if self._drive_count == 1:
            return [self.directory / "data"]
        return [self.directory / f"data{number}" for number in range(1, self._drive_count + 1)]

    @property
    def drive(self) -> Path:
        """The one that there is, or the first."""
        return self.drives[0]

    def prepare(self) -> None:
        """Make the drives, for who puts something into them before the start."""
        user = server_user()
        if self.directory == Path():
            self.directory = self._folders.enter_context(short_directory("minio"))
        for folder in (self.directory, *self.drives):
            folder.mkdir(parents=True, exist_ok=True)
            give(folder, user)
        require_reachable(self.drive, user)

    def start(self) -> None:
        """Start the server and wait until it serves S3.

        Raises:
            ServerStartError: with the server's last words. Nothing is left running.
        """
        self.prepare()
        is_new_port = self.port == 0
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = self.port or free_port()
            try:
                self._start_once()
            except ServerStartError as error:
                if not is_new_port or attempt == START_ATTEMPTS or _UNFIT_PORT not in str(error):
                    raise
                self.port = 0
            else:
                return

    def _start_once(self) -> None:
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.directory),
            "MINIO_ROOT_USER": self.user,
            "MINIO_ROOT_PASSWORD": self.password,
            "MINIO_BROWSER": "off",
            # It refuses several drives on one disk otherwise.
            "MINIO_CI_CD": "1",
            "MINIO_UPDATE": "off",
            # Go looks for what it can free when there is that much, not from 4 MB on.
            "GOGC": "off",
            "GOMEMLIMIT": "512MiB",
            **self.environment,
        }
        process = ServerProcess.start(
            [self.program, "server", *map(str, self.drives), "--address", f"{self.host}:{self.port}", "--quiet"],
            log_path=self.log_path,
            environment=environment,
            stop_signal=signal.SIGTERM,
            user=server_user(),
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_ready():
            if not process.is_running or time.monotonic() > deadline:
                process.stop()
                raise ServerStartError(f"MinIO did not start in {self.directory}: {process.log_tail()}")
            time.sleep(0.01)
        self._process = process

    def _is_ready(self) -> bool:
        """Whether S3 answers and all buckets are loaded; users follow, where there is a KMS only if it has the key."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
            try:
                connection.request("GET", "/minio/health/cluster/read")
                return connection.getresponse().getheader("x-minio-server-status") not in _NOT_LOADED
            finally:
                connection.close()
        return False
