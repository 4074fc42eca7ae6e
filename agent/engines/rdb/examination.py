"""An RDB stream looked at in a child process while it goes somewhere else: an export on its way, an upload to its file.

The child is another process for three reasons: an upload is hostile, the walk needs a core of its own, and its memory
must not add to the agent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent.engines.rdb.child import Line, Look
from agent.engines.rdb.content import RdbContent
from agent.jail import Jail
from agent.processes import Child, Command, start
from common.errors import ServiceError, ToolFailedError, make_error
from common.rdb import RdbHeader

_MEMORY_BYTES = 768 << 20
"""Of address space. A walk takes 30 MiB as a rule; one packed value of 64 MiB takes ten times its size."""
_SPILL_BYTES = 1 << 36


class Examination:
    """A stream that is being looked at.

    Attributes:
        keys: seen so far.
    """

    def __init__(self, child: Child, look: Look, on_header: Callable[[RdbHeader], None]) -> None:
        self.look = look
        self.keys = 0
        self._child = child
        self._on_header = on_header
        self._content: RdbContent | None = None
        self._error: ServiceError | None = None
        self._is_over = False
        self._listening = asyncio.create_task(self._listen(), name="listen to the examination of an RDB")

    async def add(self, chunk: bytes) -> None:
        """The next bytes of the stream.

        Raises:
            ServiceError: the file is to be refused, known before its end; also what `on_header` raised.
        """
        if self._error is not None:
            raise self._error
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._child.write(chunk)

    async def finish(self) -> RdbContent:
        """The stream has ended, whole as far as its sender knows.

        Raises:
            ServiceError: the file is to be refused.
        """
        await self._child.close_stdin()
        await self._listening
        if self._error is not None:
            raise self._error
        if self._content is None:
            await self._child.check()
            raise ToolFailedError("The examination of the RDB ended without a result.")
        return self._content

    async def close(self) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        pending = b""
        async for text in self._child.chunks():
            *lines, pending = (pending + text).split(b"\n")
            for line in lines:
                self._hear(msgspec.json.decode(line, type=Line))

    def _hear(self, line: Line) -> None:
        if line.reason:
            self._error = self._error or make_error(line.reason, line.text, next_step=line.next_step)
        elif line.content is not None:
            self._content = line.content
        elif line.flavour:
            try:
                self._on_header(RdbHeader(line.flavour, line.version))
            except ServiceError as error:
                self._error = error
        else:
            self.keys = line.keys


@asynccontextmanager
async def examining(
    work_directory: Path, look: Look, *, on_header: Callable[[RdbHeader], None] = lambda header: None
) -> AsyncIterator[Examination]:
    """Look at a stream.

    Args:
        work_directory: on disk; a nameless file there takes what is too much for the memory.
        on_header: may refuse the file by its version, by raising a ServiceError.
    """
    with tempfile.TemporaryFile(dir=work_directory) as spill:
        may_spill = look is Look.CHECK
        descriptor = spill.fileno() if may_spill else -1
        command = Command(
            ["agent.engines.rdb.child", look.value, str(descriptor)],
            jail=Jail(address_space_bytes=_MEMORY_BYTES, file_size_bytes=_SPILL_BYTES if may_spill else 0),
            pass_fds=(descriptor,) if may_spill else (),
            is_module=True,
        )
        async with start(command) as child:
            examination = Examination(child, look, on_header)
            try:
                yield examination
            finally:
                await examination.close()
