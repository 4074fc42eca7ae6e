"""What servers of ours have in common that live in one folder: how they begin, end, and are found."""

from __future__ import annotations

import abc
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.servers.processes import ServerProcess, ServerStartError


class LocalServer(abc.ABC):
    """A server as a context manager. Calls block.

    Attributes:
        directory: holds the data and `server.log`.
    """

    host = "127.0.0.1"

    def __init__(self, name: str, directory: Path | None) -> None:
        """
        Args:
            name: of the program, for people.
            directory: None: a temporary folder, made at the start, gone with the server.
        """
        self.directory = directory or Path()
        self._name = name
        self._is_temporary = directory is None
        self._process: ServerProcess | None = None
        self._folders = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def log_path(self) -> Path:
        return self.directory / "server.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    @property
    def pid(self) -> int:
        """
        Raises:
            ServerStartError: it is not running.
        """
        if self._process is None or not self._process.is_running:
            raise ServerStartError(f"{self._name} in {self.directory} is not running")
        return self._process.pid

    @abc.abstractmethod
    def start(self) -> None:
        """Start the server and wait until it serves.

        Raises:
            ServerStartError: with the server's last words. Nothing is left running.
        """

    def stop(self) -> None:
        """End the server in an orderly way; it saves as its settings say."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End the server as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        """Stop, and remove what is temporary."""
        self.kill() if self._is_temporary else self.stop()
        self._folders.close()
        if self._is_temporary:
            self.directory = Path()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; someone may before its taker does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
