"""Servers as processes of ours: never as root, never left behind, never holding our standard streams.

This is for tests, demo and measurements; the agent's own child processes are in agent/processes.py.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launcher.py")
LOG_TAIL_BYTES = 4096

_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="start servers")
"""Servers end with the thread that started them (launcher.py). This one lives as long as Python does, so that a server
may be started from any thread, such as one of asyncio.to_thread."""


class ServerStartError(Exception):
    """A server did not come up; the text ends with what it wrote last."""


@dataclass(frozen=True)
class ServerUser:
    """Who a server runs as."""

    name: str
    uid: int
    gid: int


def server_user() -> ServerUser | None:
    """For root an unprivileged user that is there already; None for others, whose servers run as they do."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ServerStartError("root may not run database servers, and there is neither a user postgres nor nobody")


def give(path: Path, user: ServerUser | None) -> None:
    """Make a path the server user's own; nothing to do when that is the caller."""
    if user is not None:
        os.chown(path, user.uid, user.gid)


def require_reachable(path: Path, user: ServerUser | None) -> None:
    """Check that the server user may pass through every folder above a path.

    Raises:
        ServerStartError: naming the folder in the way. pytest's tmp_path is one when root runs pytest; use
            `short_directory()` or the fixture of that name.
    """
    if user is None:
        return
    for folder in path.resolve().parents:
        found = folder.stat()
        is_open = found.st_mode & stat.S_IXOTH
        is_own = found.st_uid == user.uid and found.st_mode & stat.S_IXUSR
        if not (is_open or is_own):
            raise ServerStartError(f"{path} cannot be used: the server runs as {user.name}, who may not enter {folder}")


class ServerProcess:
    """One running server. It ends with this Python process at the latest, even when that is killed."""

    def __init__(self, process: subprocess.Popen[bytes], *, log_path: Path, stop_signal: signal.Signals) -> None:
        self._process = process
        self._stop_signal = stop_signal
        self.log_path = log_path

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        *,
        log_path: Path,
        environment: Mapping[str, str],
        stop_signal: signal.Signals,
        user: ServerUser | None,
    ) -> ServerProcess:
        """Start a server in the background, its output appended to a log file.

        Args:
            stop_signal: asks the server to end in an orderly way; also sent when this Python process dies.
        """
        uid, gid = (-1, -1) if user is None else (user.uid, user.gid)
        launcher = [
            sys.executable,
            "-I",
            "-S",
            str(LAUNCHER),
            *(f"{n:d}" for n in (os.getpid(), stop_signal, uid, gid)),
        ]

        def start() -> subprocess.Popen[bytes]:
            with log_path.open("ab") as log:
                return subprocess.Popen(
                    [*launcher, *command],
                    cwd="/",
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

        return cls(_starter.submit(start).result(), log_path=log_path, stop_signal=stop_signal)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def log_tail(self) -> str:
        """The last 4 KiB of what the server wrote."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def stop(self, *, grace_seconds: float = 20.0) -> int:
        """Ask the server to end, kill it when it does not within the grace, and wait for it.

        Returns:
            Its exit status, negative for a signal as in subprocess.
        """
        if self.is_running:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def kill(self) -> None:
        """End the server as a power cut would, and wait for it."""
        self._process.kill()
        self._process.wait()


def run_as(
    user: ServerUser | None, command: Sequence[str | Path], *, environment: Mapping[str, str], script: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as the server user; the caller looks at the exit status.

    Args:
        script: its standard input.
    """
    return subprocess.run(
        command,
        cwd="/",
        env=dict(environment),
        input=script,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
    )
