"""The programs of others, as people run them, and curl as our client."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.deployment import Deployment


class BenchmarkError(Exception):
    """Something cannot be measured; the text says why."""


def require(*programs: str) -> None:
    """Check that programs are on PATH.

    Raises:
        BenchmarkError: naming those that are not.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise BenchmarkError(f"not found on PATH: {', '.join(missing)}. Install them, for example by apt-get install.")


def shell(command: str, *, environment: Mapping[str, str] | None = None) -> None:
    """Run a shell line as a person types it.

    Raises:
        BenchmarkError: a program in it failed.
    """
    _run(["bash", "-o", "pipefail", "-c", command], environment)


def curl(deployment: Deployment, path: str, *arguments: str | Path) -> None:
    """A POST to the REST API.

    Raises:
        BenchmarkError: with the answer.
    """
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--noproxy",
        "*",
        "--header",
        f"@{deployment.header_path}",
    ]
    _run([*command, "--request", "POST", *map(str, arguments), f"{deployment.rest}{path}"], None)


def _run(argv: Sequence[str], environment: Mapping[str, str] | None) -> None:
    ended = subprocess.run(
        argv, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if ended.returncode != 0:
        said = (ended.stderr + ended.stdout[-2000:]).decode(errors="replace").strip()
        raise BenchmarkError(f"{argv[0]} ended with status {ended.returncode}: {said[-2000:]}")
