"""Client programs that are kept for the questions of an operation: to start one takes longer than most answers.

A client ends at the first statement that fails, as one that was started for a question does, and another is started for
the next. The one fact to know: a kept one's session goes on. So each question has a beginning that sets again what
others have set, and what leaves more than that behind is not asked of a kept one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar

from agent.engines.mariadb.server.settings import Login
from agent.processes import Child, Command, start
from common.errors import ToolFailedError

MOST_BYTES = 16 << 20
"""Of an answer."""


class KeptClients:
    """Those of an operation: one for each login, as long as only one question at a time is asked.

    Args:
        around: of the operation that this one is a part of.
    """

    def __init__(self, around: KeptClients | None = None) -> None:
        self._around = around
        self._idle: dict[Login, _Client] = {}
        self._is_closed = False

    async def ask(
        self, login: Login, command: Command, *, beginning: str, question: bytes, within_seconds: float
    ) -> bytes:
        """What a client prints for a question.

        Args:
            command: starts one that reads statements and prints what they give at once.
            beginning: statements that come first, in a session that others may have used.
            within_seconds: for a session that was used before to take the beginning; then another is opened.
        Raises:
            ToolFailedError: a statement failed; those before it were carried out.
        """
        client = self._idle.pop(login, None)
        if client is None or not await client.is_ready(beginning.encode(), within_seconds):
            await self.release(login)
            client = await _Client.started(command)
            await client.answer(beginning.encode())
        output = await client.answer(question)
        if login in self._idle or self._is_closed:
            await client.close()
        else:
            self._idle[login] = client
        return output

    async def release(self, login: Login) -> None:
        """End the one of a login that waits for a question, before another session is opened: an account may have room
        for no more (MAX_USER_CONNECTIONS)."""
        if client := self._idle.pop(login, None):
            await client.close()
        if self._around:
            await self._around.release(login)

    async def close(self) -> None:
        """End them."""
        self._is_closed = True
        while self._idle:
            _, client = self._idle.popitem()
            await client.close()


class _Client:
    """A running client program, which has ended when any of its methods raises."""

    def __init__(self, child: Child, ending: AsyncExitStack) -> None:
        self._child = child
        self._ending = ending

    @classmethod
    async def started(cls, command: Command) -> _Client:
        ending = AsyncExitStack()
        return cls(await ending.enter_async_context(start(command)), ending)

    async def is_ready(self, beginning: bytes, within_seconds: float) -> bool:
        """Whether it can be asked; if not, it has ended."""
        with contextlib.suppress(ToolFailedError, TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self.answer(beginning)
                return True
        return False

    async def answer(self, statements: bytes) -> bytes:
        """What it prints for them."""
        # Nobody can have this in a database before it is asked for.
        mark = secrets.token_hex(16).encode()
        output = bytearray()
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await self._child.write(b"%b\nSELECT '%b';\n" % (statements, mark))
            while not output.endswith(mark + b"\n"):
                if not (piece := await self._child.read()):
                    await self._child.check()
                    raise ToolFailedError(f"{self._child.command.name} ended before it had answered.")
                output += piece
                if len(output) > MOST_BYTES:
                    raise ToolFailedError(f"{self._child.command.name} printed more than {MOST_BYTES} bytes")
        except BaseException:
            await self._ending.aclose()
            raise
        return bytes(output[: -len(mark) - 1])

    async def close(self) -> None:
        """End it in the way of a client that has read all there is, of which the server makes no note."""
        async with self._ending:
            await self._child.close_stdin()
            await self._child.wait()


_clients: ContextVar[KeptClients | None] = ContextVar("kept_clients", default=None)


def kept_clients() -> KeptClients | None:
    """Those of the operation that goes on; None: none are kept."""
    return _clients.get()


@asynccontextmanager
async def keeping_clients(*, are_own: bool = False) -> AsyncIterator[None]:
    """Keep clients for what is asked within the block. After it they have ended, or go on with the block around it.

    Args:
        are_own: they end with this block, for a login whose sessions have to be gone after it.
    """
    if _clients.get() and not are_own:
        yield
        return
    clients = KeptClients(_clients.get())
    token = _clients.set(clients)
    try:
        yield
    finally:
        _clients.reset(token)
        await clients.close()
