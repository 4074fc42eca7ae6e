"""Our own programs as child processes: started, watched until they are ready, restarted, and gone when we are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.servers.processes import ServerProcess

LOG_TAIL_LINES = 15
POLL_SECONDS = 0.05


class DeploymentError(Exception):
    """Something did not come up or do what was asked; the text ends with what explains it."""


def script(name: str) -> Path:
    """One of the project's commands, as installed beside this Python.

    Raises:
        DeploymentError: it is not there.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise DeploymentError(f"{path} is not there: run make setup")
    return path


def environment(home: Path) -> dict[str, str]:
    """What our programs get: nothing of the caller's, whose variables could hold secrets or change what they do."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(home)}


class Program:
    """One long-running program of ours, its output appended to one log file."""

    def __init__(self, name: str, argv: Sequence[str | Path], *, directory: Path) -> None:
        """
        Args:
            name: for texts, for example "agent of shop.db".
            directory: where its log is written.
        """
        self.name = name
        self.argv = argv
        self.log_path = directory / "program.log"
        self._home = directory
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int:
        """Of the latest start, ended or not; 0 before the first."""
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def start(self) -> None:
        """Start it; it is not ready yet."""
        self._process = ServerProcess.start(
            self.argv,
            log_path=self.log_path,
            environment=environment(self._home),
            stop_signal=signal.SIGTERM,
            user=None,
        )

    def stop(self) -> int:
        """Ask it to end and wait; returns its exit status, negative for a signal, 0 when it never ran."""
        return self._process.stop() if self._process else 0

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process:
            self._process.kill()

    def log_tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(nothing)"
        return "\n".join(lines[-LOG_TAIL_LINES:]) or "(nothing)"

    def wait_until(self, is_met: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Look again and again.

        Args:
            what: names the condition in the error, for example "answers at 127.0.0.1:8080".
        Raises:
            DeploymentError: the program ended or the time is over; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not is_met():
            if not self.is_running:
                raise DeploymentError(f"The {self.name} ended before it {what}. Its log ends with:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"The {self.name} runs, but in {seconds:.0f} s it never {what}. Its log ends with:\n"
                    f"{self.log_tail()}"
                )
            time.sleep(POLL_SECONDS)


def run_command(argv: Sequence[str | Path], *, home: Path, timeout_seconds: float = 60.0) -> str:
    """Run a command of ours to its end and return what it printed.

    Raises:
        DeploymentError: exit status other than 0, with what it wrote to standard error; or its time is over.
    """
    name = f"{os.path.basename(argv[0])} {argv[1]}"
    try:
        ended = subprocess.run(
            argv,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as failure:
        raise DeploymentError(f"{name} did not end within {timeout_seconds:.0f} s.") from failure
    if ended.returncode != 0:
        said = (ended.stderr or ended.stdout).strip()[-2000:]
        raise DeploymentError(f"{name} ended with status {ended.returncode}: {said}")
    return ended.stdout
