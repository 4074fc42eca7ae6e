"""The real command as a process, against a fake controller on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pytest

from tests.fakes.fake_controller import TOKEN, FakeController

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it has to be."""
        assert self.stdout.count(b"\n") == 1
        return json.loads(self.stdout)


class Mathison(Protocol):
    """Runs the command to its end."""

    async def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Ended: ...


async def until(condition: Callable[[], bool], *, within_seconds: float = 20) -> None:
    """Return once it is true."""
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110  # what another process does sets no event here
            await asyncio.sleep(0.02)


@pytest.fixture
async def controller() -> AsyncGenerator[FakeController, None]:
    async with FakeController().serve() as controller:
        yield controller


@pytest.fixture
def environment(controller: FakeController, tmp_path: Path) -> dict[str, str]:
    """What the command runs with: the controller's address and token, nothing of the tester's own."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")]),
        "PYTHONWARNINGS": "error",
        "HOME": str(tmp_path),
        "TZ": "UTC",
        "MATHISON_URL": controller.url,
        "MATHISON_TOKEN": TOKEN,
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Start the command in `tmp_path` without waiting; killed at the end when it still runs."""

    @asynccontextmanager
    async def started(
        *arguments: str,
        stdin: int = asyncio.subprocess.PIPE,
        stdout: int | BinaryIO = asyncio.subprocess.PIPE,
        stderr: int = asyncio.subprocess.PIPE,
        preexec_fn: Callable[[], None] | None = None,
        **changes: str,
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli",
            *arguments,
            cwd=tmp_path,
            env=environment | changes,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=preexec_fn,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    return started


@pytest.fixture
def mathison(start: Callable[..., Any]) -> Mathison:
    async def run(*arguments: str, stdin: bytes = b"", **changes: str) -> Ended:
        async with start(*arguments, **changes) as process:
            stdout, stderr = await asyncio.wait_for(process.communicate(stdin), 60)
            return Ended(process.returncode, stdout, stderr.decode())

    return run
