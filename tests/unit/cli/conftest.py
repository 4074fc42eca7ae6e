"""The real command as a process, against a fake controller on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pytest

from tests.fakes.fake_controller import TOKEN, FakeController

ROOT = Path(__file__).parents[3]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "protos")])


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
        "PYTHONPATH": PYTHONPATH,
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


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Callable[[dict[str, object]], int]]:
    """Runs one request of preloaded.py and returns its exit code; one at a time."""
    turn = threading.Lock()
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("preloaded.py")],
        env={"PYTHONPATH": PYTHONPATH, "PYTHONWARNINGS": "error"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def run(request: dict[str, object]) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            with turn:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                return int(process.stdout.readline())

        yield run


@pytest.fixture
def mathison(
    preloaded: Callable[[dict[str, object]], int],
    environment: dict[str, str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Mathison:
    """Runs the command in `tmp_path`."""

    async def run(*arguments: str, stdin: bytes = b"", **changes: str) -> Ended:
        streams = [tmp_path_factory.mktemp("streams") / name for name in ("stdin", "stdout", "stderr")]
        for stream, content in zip(streams, (stdin, b"", b""), strict=True):
            stream.write_bytes(content)
        request: dict[str, object] = {
            "arguments": arguments,
            "environment": environment | changes,
            "folder": str(tmp_path),
            "streams": [str(stream) for stream in streams],
        }
        exit_code = await asyncio.to_thread(preloaded, request)
        return Ended(exit_code, streams[1].read_bytes(), streams[2].read_text())

    return run
