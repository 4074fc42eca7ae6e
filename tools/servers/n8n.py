"""n8n from npm, with the Node that it wants from PyPI: 2.9 GB and several minutes, so only its own tests ask for it.

Scripts of its packages are not run: some of them fetch compiled programs from where no registry is. The one native
module that n8n does not start without is compiled here.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.servers.cache import kept
from tools.servers.sources import require_x86_64_linux, run
from tools.servers.toolchains import node_directory

VERSION = "2.41.1"
PACKAGES_BEFORE = "2026-11-23"
"""npm takes no package younger than this: n8n itself pins only some of the two thousand that it needs."""
_TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True)
class N8nInstall:
    """A program that `node` runs.

    Attributes:
        command: to be followed by n8n's own arguments.
    """

    version: str
    node: Path
    program: Path

    @property
    def command(self) -> list[Path]:
        return [self.node, self.program]


def n8n() -> N8nInstall:
    """n8n, installed now when it is not there.

    Raises:
        ServerUnavailableError: npm or a compiler says why.
    """
    node = node_directory()
    root = kept("n8n", VERSION, lambda making: _make(making, node))
    return N8nInstall(VERSION, node / "bin" / "node", root / "node_modules" / "n8n" / "bin" / "n8n")


def _make(making: Path, node: Path) -> None:
    what = f"n8n {VERSION}"
    require_x86_64_linux(what)
    cache = making / ".npm"
    environment = {
        **os.environ,
        "PATH": f"{node / 'bin'}:{os.environ.get('PATH', '')}",
        # A Node that is not the machine's knows only the certificate authorities that it brings.
        "NODE_OPTIONS": "--use-system-ca",
        "npm_config_cache": str(cache),
        "npm_config_nodedir": str(node),
        "npm_config_build_from_source": "true",
        "npm_config_update_notifier": "false",
        # After gyp's own -O3, so it holds: a third of the time, and SQLite's speed does not matter here.
        "CFLAGS": "-O1",
    }
    npm: list[str | Path] = [node / "bin" / "node", node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error"]
    install = [*npm, "install", *options, f"--before={PACKAGES_BEFORE}", f"n8n@{VERSION}"]
    run(install, what=what, cwd=making, environment=environment, timeout_seconds=_TIMEOUT_SECONDS)
    rebuild = [*npm, "rebuild", "sqlite3", "--loglevel=error"]
    run(rebuild, what=what, cwd=making, environment=environment, timeout_seconds=_TIMEOUT_SECONDS)
    shutil.rmtree(cache, ignore_errors=True)
