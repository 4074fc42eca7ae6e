"""A real n8n as a process of ours: `with N8nServer(n8n(), folder, key="...") as server:`.

It listens on a free port of 127.0.0.1, is gone when the block or this Python process ends, and asks nobody outside.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tools.servers.local_server import free_port
from tools.servers.n8n import N8nInstall
from tools.servers.processes import ServerProcess, ServerStartError

START_TIMEOUT_SECONDS = 240.0
"""A new database goes through 266 migrations first: half a minute on two busy cores."""
COMMAND_TIMEOUT_SECONDS = 240.0
_QUIET = {
    "N8N_DIAGNOSTICS_ENABLED": "false",
    "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
    "N8N_TEMPLATES_ENABLED": "false",
    "N8N_PERSONALIZATION_ENABLED": "false",
    "N8N_HIRING_BANNER_ENABLED": "false",
    "N8N_COMMUNITY_PACKAGES_ENABLED": "false",
    "N8N_LISTEN_ADDRESS": "127.0.0.1",
    "N8N_SECURE_COOKIE": "false",
    "N8N_RUNNERS_BROKER_LISTEN_ADDRESS": "127.0.0.1",
}


class N8nServer:
    """An n8n with its home and key. Calls block; from asyncio use asyncio.to_thread.

    Attributes:
        home: of its user; n8n's own folder is `.n8n` in it.
        key: given to it by its environment; empty: it makes one.
    """

    def __init__(
        self, install: N8nInstall, home: Path, *, key: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        self.install = install
        self.home = home
        self.key = key
        self._environment = dict(environment or {})
        self._process: ServerProcess | None = None
        self._port = 0
        home.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def folder(self) -> Path:
        return self.home / ".n8n"

    @property
    def log_path(self) -> Path:
        return self.home / "server.log"

    @property
    def address(self) -> str:
        """Of its editor; another after each start."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def start(self) -> None:
        """Start it and wait until its editor could be opened; nothing to do when it runs.

        Raises:
            ServerStartError: with its last words. Nothing is left running.
        """
        if self.is_running:
            return
        self._port = free_port()
        process = ServerProcess.start(
            [*self.install.command, "start"],
            log_path=self.log_path,
            environment={**self._variables(), "N8N_PORT": str(self._port)},
            stop_signal=signal.SIGTERM,
            user=None,
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_ready():
            if not process.is_running or time.monotonic() > deadline:
                process.stop()
                raise ServerStartError(f"n8n did not start in {self.home}: {process.log_tail()[-2000:]}")
            time.sleep(0.1)
        self._process = process

    def stop(self) -> None:
        """End it in an orderly way; nothing to do when it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def run(self, *arguments: str | Path) -> str:
        """One of n8n's own commands, to its end.

        Raises:
            AssertionError: it failed; with what it wrote.
        """
        ended = subprocess.run(
            [*self.install.command, *arguments],
            env=self._variables(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"n8n {arguments[0]}: {ended.stdout[-1000:]} {ended.stderr[-1000:]}"
        return ended.stdout

    def credentials(self) -> dict[str, Any]:
        """What n8n's own command reads in its credentials, decrypted, by name."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "credentials.json"
            self.run("export:credentials", "--all", "--decrypted", f"--output={path}")
            return {entry["name"]: entry["data"] for entry in json.loads(path.read_text())}

    def _variables(self) -> dict[str, str]:
        variables = {
            "PATH": f"{self.install.node.parent}:/usr/bin:/bin",
            "HOME": str(self.home),
            "N8N_USER_FOLDER": str(self.home),
            "N8N_RUNNERS_BROKER_PORT": str(free_port()),
            **_QUIET,
            **self._environment,
        }
        if self.key:
            variables["N8N_ENCRYPTION_KEY"] = self.key
        return variables

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            for path in ("healthz/readiness", "rest/settings"):
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{path}", timeout=5) as answer:
                    if answer.status != 200:
                        return False
            return True
        return False
