"""The programs minio and mc, built from the last versions of their Go modules; older releases are on no registry."""

from __future__ import annotations

from pathlib import Path

from tools.servers.cache import kept
from tools.servers.sources import GoProgram, build_go_program
from tools.servers.toolchains import go_toolchain

MINIO = GoProgram("github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c")
MC = GoProgram("github.com/minio/mc", "v0.0.0-20250313080218-cf909e1063a9")


def minio() -> Path:
    """The server program, built now when it is not there (2 minutes on two cores)."""
    return _built("minio", MINIO)


def minio_client() -> Path:
    """MinIO's own client, mc, built now when it is not there; only the benchmarks compare with it."""
    return _built("mc", MC)


def _built(name: str, program: GoProgram) -> Path:
    root = kept(name, program.version, lambda making: build_go_program(program, making, go=go_toolchain().go))
    return root / "bin" / name
