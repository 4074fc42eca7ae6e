"""A child process as a byte stream with an ending; the only module of the agent that starts one.

Every child gets an argv list and an environment of its own (never ours: ours holds secrets), ends when we die
(agent.jail), and is waited for whatever happens. Leaving the context early terminates it, drains it, and kills it after
a grace time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import structlog

from agent.jail import TOOL, Jail, argv_in_jail, argv_of_module
from common.errors import ToolFailedError
from common.frames import CHUNK_BYTES

STDERR_TAIL_BYTES = 4096
"""What is kept of a child's standard error for the error text."""
STOP_GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL: pg_dump tells its server to stop within milliseconds; a hung program gets no more."""
_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 1 << 20
_BASE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
_TRACEBACK = '  File "'
"""In what Python says of a fault; for the log, since it tells where we are installed."""
T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Pipe:
    """Bytes from one child to another, past us: a `Command.stdout` and a `Command.stdin`; used as a context.

    Our own ends have to be closed once both are started: else the reader never meets the end, nor the writer that its
    reader is gone.
    """

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe2(os.O_CLOEXEC)
        self._open = {self.reading, self.writing}
        _enlarge(self.reading)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(*self._open)

    def close(self, *ends: int) -> None:
        """Close ends of it; those that are closed already are left alone."""
        for end in self._open.intersection(ends):
            self._open.discard(end)
            os.close(end)


def has_reader(pipe: int) -> bool:
    """Whether what is written into a pipe can still be read by anyone."""
    poll = select.poll()
    poll.register(pipe, 0)
    return not any(state & select.POLLERR for _, state in poll.poll(0))


class ChildKilledError(ToolFailedError):
    """It was ended by SIGKILL, and not by us: above all the kernel does that, when there is no memory left."""


@dataclass(frozen=True)
class Command:
    """A program to start.

    Attributes:
        argv: the first is a path or a name on the base PATH. Never a secret: argv is there for others to list.
        is_module: the first of `argv` is a Python module of ours that calls `agent.jail.enter_from_argv`.
        environment: added to a small base of PATH, LC_ALL and HOME; ours is not inherited.
        pass_fds: descriptors that the child inherits under their numbers.
        stdin: a descriptor to read from instead of a pipe, for programs that seek or read what another writes.
        stdout: a descriptor to write to instead of a pipe.
    """

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    jail: Jail = TOOL
    pass_fds: Sequence[int] = ()
    stdin: int | None = None
    stdout: int | None = None
    is_module: bool = False

    @property
    def name(self) -> str:
        if self.is_module:
            return f"the agent's {self.argv[0].rpartition('.')[2]}"
        return os.path.basename(self.argv[0])


class Child:
    """A running child; made by `start`."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self.pid = process.pid
        self._process = process
        self._stderr = bytearray()
        self._stderr_reader = asyncio.create_task(self._read_stderr(), name=f"read stderr of {command.name}")

    async def _read_stderr(self) -> None:
        stderr = _pipe(self._process.stderr)
        while chunk := await stderr.read(STDERR_TAIL_BYTES):
            self._stderr += chunk
            del self._stderr[:-STDERR_TAIL_BYTES]

    @property
    def stderr_tail(self) -> str:
        """The last 4 KiB of its standard error; complete once `wait` has returned."""
        return self._stderr.decode(errors="replace").strip()

    @property
    def is_running(self) -> bool:
        """False: it has ended, by itself or by a signal."""
        return self._process.returncode is None

    async def write(self, chunk: bytes) -> None:
        """Give it input; BrokenPipeError or ConnectionResetError once it has closed its stdin or ended."""
        stdin = _pipe(self._process.stdin)
        stdin.write(chunk)
        await stdin.drain()

    async def close_stdin(self) -> None:
        """End of its input."""
        stdin = _pipe(self._process.stdin)
        stdin.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await stdin.wait_closed()

    def abort_stdin(self) -> None:
        """End of its input at once, without what it has not taken yet: waiting for that could be for ever."""
        with contextlib.suppress(AttributeError):
            # So asyncio fails when the child has closed it already (seen with Python 3.11).
            _pipe(self._process.stdin).transport.abort()

    async def read(self, most: int = CHUNK_BYTES) -> bytes:
        """Some of its output, empty at the end."""
        return await _pipe(self._process.stdout).read(most)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All of its output in pieces; does not look at the exit status, see `check`."""
        while chunk := await self.read():
            yield chunk
            del chunk

    async def wait(self) -> int:
        """Exit status, negative for a signal. Its output must be read to the end or closed first."""
        await self._stderr_reader
        return await self._process.wait()

    async def check(self) -> None:
        """Wait for it; ToolFailedError with what it said last unless it exited with 0, ChildKilledError for SIGKILL."""
        status = await self.wait()
        if status:
            said = self.stderr_tail
            if self.command.is_module and _TRACEBACK in said:
                _log.error(
                    "A child of the agent has failed.", action="child_failed", child=self.command.name, said=said
                )
                said = ""
            kind = ChildKilledError if status == -signal.SIGKILL else ToolFailedError
            raise kind(f"{self.command.name} {_ending(status)}{_quote(said)}")

    async def stop(self) -> None:
        """End it: SIGTERM, its output drained so that it is not held up, SIGKILL after the grace time; waited for."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            drain = asyncio.create_task(self._drain(), name=f"drain {self.command.name}")
            try:
                async with asyncio.timeout(STOP_GRACE_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await self._process.wait()
            finally:
                drain.cancel()
        # A grandchild that lived on would hold our pipes open.
        self._signal(signal.SIGKILL)
        self._stderr_reader.cancel()
        await asyncio.gather(self._stderr_reader, return_exceptions=True)
        transport: Any = self._process._transport  # type: ignore[attr-defined]  # no public way to close the pipes
        transport.close()

    async def _drain(self) -> None:
        while self.command.stdout is None and await self.read():
            pass

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@asynccontextmanager
async def start(command: Command) -> AsyncIterator[Child]:
    """Run a command for the time of the block; afterwards it has ended, whatever happened in between.

    Raises:
        ToolFailedError: the program does not exist.
    """
    argv = (
        argv_of_module(command.jail, command.argv[0], command.argv[1:])
        if command.is_module
        else argv_in_jail(command.jail, command.argv)
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if command.stdin is None else command.stdin,
            stdout=asyncio.subprocess.PIPE if command.stdout is None else command.stdout,
            stderr=asyncio.subprocess.PIPE,
            env={**_BASE_ENVIRONMENT, **command.environment},
            pass_fds=command.pass_fds,
            # asyncio reads ahead up to twice this. With 2 MiB it made 8 to 10 MiB in an agent, and nothing faster.
            limit=CHUNK_BYTES // 4,
            start_new_session=True,
        )
    except OSError as failure:
        raise ToolFailedError(f"{command.name} could not be started: {failure.strerror}") from failure
    _enlarge_pipes(process)
    child = Child(command, process)
    try:
        yield child
    finally:
        await asyncio.shield(asyncio.create_task(child.stop(), name=f"stop {command.name}"))


async def run(command: Command, *, input_bytes: bytes = b"", most_bytes: int = 16 << 20) -> bytes:
    """Run a command to its end and return its output.

    Raises:
        ToolFailedError: exit status other than 0, or more than `most_bytes` of output.
    """
    async with start(command) as child:
        if command.stdin is None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await child.write(input_bytes)
            await child.close_stdin()
        output = bytearray()
        async for chunk in child.chunks():
            output += chunk
            if len(output) > most_bytes:
                raise ToolFailedError(f"{command.name} printed more than {most_bytes} bytes")
        await child.check()
        return bytes(output)


async def feed(child: Child, chunks: AsyncIterable[bytes]) -> None:
    """Pass a stream to a child's stdin and close it.

    A child that stops reading ends the feeding without an error: its exit status says why. An error of `chunks` goes
    through, and stdin is left open, so that the child does not take a cut stream for a whole one.
    """
    try:
        async for chunk in chunks:
            await child.write(chunk)
            del chunk
    except (BrokenPipeError, ConnectionResetError):
        return
    await child.close_stdin()


def _pipe(pipe: T | None) -> T:
    if pipe is None:
        raise RuntimeError("this child was started without that pipe")
    return pipe


def _enlarge_pipes(process: asyncio.subprocess.Process) -> None:
    """64 KiB pipes cost a context switch each 64 KiB; best effort, since the kernel limits how many are larger."""
    transport: Any = process._transport  # type: ignore[attr-defined]  # no public way to the pipes
    for number in (0, 1):
        pipe = transport.get_pipe_transport(number)
        if pipe is not None:
            with contextlib.suppress(ValueError):  # the child has ended already
                _enlarge(pipe.get_extra_info("pipe").fileno())


def _enlarge(pipe: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _quote(text: str) -> str:
    return f": {text}" if text else ""
