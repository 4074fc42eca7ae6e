"""The program minio, built from the last version of its Go module; older releases are on no registry."""

from __future__ import annotations

from pathlib import Path

from tools.servers.cache import kept
from tools.servers.sources import GoProgram, build_go_program
from tools.servers.toolchains import go_toolchain

MINIO = GoProgram("github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c")


def minio() -> Path:
    """The server program, built now when it is not there (2 minutes on two cores)."""
    root = kept("minio", MINIO.version, lambda making: build_go_program(MINIO, making, go=go_toolchain().go))
    return root / "bin" / "minio"
