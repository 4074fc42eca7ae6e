"""Our own replication server, for one replica and one load: the server is told to copy us, and we send it a file.

A load that fails must not begin again by itself, so the port takes one replica, once. Whether that one speaks TLS is
seen from its first byte.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import BinaryIO, Self

from agent.engines.redis.connection import encode
from agent.engines.redis.session import Session
from common.errors import ToolFailedError

CALL_SECONDS = 60.0
"""A server calls within a second; one that is refused calls again each second."""
SLICE_BYTES = 8 << 20
AT_ONCE_BYTES = 14 << 10
"""A server reads 16 KiB at a time, and executes all of that before it turns to another client."""
LAST_BYTES = 1 << 16
"""Held back until it is certain that the load may take effect."""


@dataclass(frozen=True)
class Tail:
    """Commands in a file, with others before and after them."""

    before: bytes
    file: BinaryIO
    size_bytes: int
    after: bytes


@dataclass(frozen=True)
class Payload:
    """What is to be loaded: the beginning of a file, and another end for it.

    Attributes:
        body_bytes: how much of the file is sent.
        ending: sent instead of the rest.
        tail: commands to be executed after the load; None: there are none.
    """

    file: BinaryIO
    body_bytes: int
    ending: bytes
    tail: Tail | None = None


class Master:
    """Listens from `listen` on until the block is left."""

    def __init__(
        self,
        payload: Payload,
        *,
        replication_id: str,
        offset: int,
        password: str,
        peer_host: str,
        tls: ssl.SSLContext | None,
        before_the_end: Callable[[], None],
        after_load: Callable[[], Awaitable[None]],
        on_sent: Callable[[int], None],
    ) -> None:
        """
        Args:
            replication_id: the target's own: it then serves reads while it loads.
            password: what the replica has to know; empty: nothing.
            peer_host: nobody else is answered.
            before_the_end: called before the bytes that make the load take effect; raising prevents it. The server
                waits for them and answers nothing at that moment.
            after_load: called when it has taken effect, before the tail.
            on_sent: told the size of each piece.
        """
        self._payload = payload
        self._replication_id = replication_id
        self._offset = offset
        self._password = password
        self._peer_host = peer_host
        self._tls = tls
        self._before_the_end = before_the_end
        self._after_load = after_load
        self._on_sent = on_sent
        self._listening: socket.socket | None = None
        self._session: Session | None = None
        self._serving: asyncio.Task[None] | None = None
        self._loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        self._stop_listening()
        self._loaded.cancel()

    def listen(self, host: str, port: int) -> int:
        """Wait for the replica's call.

        Args:
            port: 0 for any free one.
        Returns:
            The port.
        Raises:
            ToolFailedError: it cannot be had.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listening = socket.create_server((host, port), family=family, backlog=4)
        except OSError as failure:
            raise ToolFailedError(
                f"The agent cannot listen on {host}:{port} for the server: {failure.strerror}."
            ) from failure
        self._listening.setblocking(False)
        self._serving = asyncio.create_task(self._serve(self._listening), name="be a server's master")
        return int(self._listening.getsockname()[1])

    async def loaded(self) -> None:
        """Until the replica said that it has everything.

        Raises:
            ServiceError: what `before_the_end` raised.
            OSError, EOFError, TimeoutError: the replica left, or said nothing for too long; see its log.
        """
        await asyncio.shield(self._loaded)

    def tell(self, commands: bytes) -> None:
        """More commands for a replica that `loaded`; sent soon."""
        if self._session is not None:
            self._session.write(commands)

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def _serve(self, listening: socket.socket) -> None:
        try:
            self._session = session = await self._wait_for_call(listening)
            try:
                await self._send(session)
                self._loaded.set_result(None)
                # A connection that was closed would have the replica call again.
                await session.until_gone()
            finally:
                session.close()
        except Exception as failure:
            # Whatever it is: who waits for the load would wait for ever.
            if not self._loaded.done():
                self._loaded.set_exception(failure)
                # Nobody may be waiting any more.
                self._loaded.exception()

    async def _wait_for_call(self, listening: socket.socket) -> Session:
        host, port = listening.getsockname()[:2]
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await Session.accept(
                    listening, peer_host=self._peer_host, password=self._password, tls=self._tls
                )
        except TimeoutError:
            raise ToolFailedError(
                f"The server did not call the agent at {host}:{port} within {CALL_SECONDS:.0f} seconds.",
                next_step="See that the server can reach the agent there, and trusts its certificate if it replicates "
                "over TLS; the server's log has the cause.",
            ) from None
        finally:
            self._stop_listening()

    async def _send(self, session: Session) -> None:
        payload = self._payload
        mark = secrets.token_hex(20).encode()
        session.write(b"+FULLRESYNC %s %d\r\n$EOF:%s\r\n" % (self._replication_id.encode(), self._offset, mark))
        held_back = min(LAST_BYTES, payload.body_bytes)
        for start in range(0, payload.body_bytes - held_back, SLICE_BYTES):
            size = min(SLICE_BYTES, payload.body_bytes - held_back - start)
            await session.send_file(payload.file, start, size)
            self._on_sent(size)
        payload.file.seek(payload.body_bytes - held_back)
        last = payload.file.read(held_back)
        self._before_the_end()
        session.write(last + payload.ending + mark)
        await session.until_acknowledged(self._offset)
        await self._after_load()
        if (tail := payload.tail) is not None:
            after = tail.after + encode("REPLCONF", "GETACK", "*")
            if tail.size_bytes <= AT_ONCE_BYTES:
                session.write(tail.before + tail.file.read() + after)
            else:
                session.write(tail.before)
                await session.send_file(tail.file, 0, tail.size_bytes)
                session.write(after)
            await session.until_acknowledged(self._offset + len(tail.before) + tail.size_bytes + len(tail.after))
