"""A replica's connection to us, as its master."""

from __future__ import annotations

import asyncio
import hmac
import socket
import ssl
from typing import BinaryIO, Self

from common.errors import ToolFailedError

HANDSHAKE_SECONDS = 30.0
SILENCE_SECONDS = 60.0
"""A server that loads sends an empty line each second or so. What is tried after it takes up to two minutes more."""
TLS_ATTEMPTS = 3
_LINE_BYTES = 1 << 16
_MOST_WORDS = 64
_TLS_HANDSHAKE = b"\x16"


class _NoCertificateError(Exception):
    """Somebody speaks TLS and we cannot; a server that does calls again each second."""


class Session:
    """From the accepted connection to its end."""

    def __init__(self, accepted: socket.socket, *, tls: ssl.SSLContext | None) -> None:
        self._socket = accepted
        self._tls = tls
        self._reader = asyncio.StreamReader(limit=_LINE_BYTES)
        self._writer: asyncio.StreamWriter | None = None

    @classmethod
    async def accept(
        cls, listening: socket.socket, *, peer_host: str, password: str, tls: ssl.SSLContext | None
    ) -> Self:
        """The next connection of a replica that knows the password; others are turned away.

        Raises:
            ToolFailedError: the replica wants TLS again and again, and we have no certificate.
        """
        refused_tls = 0
        while refused_tls < TLS_ATTEMPTS:
            accepted, address = await asyncio.get_running_loop().sock_accept(listening)
            session = cls(accepted, tls=tls)
            is_ours = False
            try:
                if address[0] == peer_host:
                    async with asyncio.timeout(HANDSHAKE_SECONDS):
                        await session._open()
                        is_ours = await session._greet(password)
            except (OSError, EOFError, ValueError, TimeoutError):
                pass
            except _NoCertificateError:
                refused_tls += 1
            finally:
                if not is_ours:
                    session.close()
            if is_ours:
                return session
        raise ToolFailedError(
            "The server replicates over TLS, and the agent has no certificate to be its master.",
            next_step="Set tls_cert_file and tls_key_file in the agent's settings.",
        )

    def close(self) -> None:
        """Close the connection at once."""
        if self._writer is None:
            self._socket.close()
        else:
            self._writer.transport.abort()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        first = await _peek(self._socket)
        if first == _TLS_HANDSHAKE and self._tls is None:
            raise _NoCertificateError
        protocol = asyncio.StreamReaderProtocol(self._reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, self._socket, ssl=self._tls if first == _TLS_HANDSHAKE else None
        )
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)

    async def _greet(self, password: str) -> bool:
        """Answer until the replica asks for the data; whether it may have it."""
        is_known = not password
        while True:
            words = await self._command()
            match words[0].upper() if words else b"":
                case b"PING":
                    self.write(b"+PONG\r\n")
                case b"AUTH":
                    is_known = is_known or hmac.compare_digest(words[-1], password.encode())
                    self.write(b"+OK\r\n" if is_known else b"-WRONGPASS\r\n")
                case b"REPLCONF":
                    self.write(b"+OK\r\n")
                case b"PSYNC" | b"SYNC":
                    return is_known
                case b"":
                    pass
                case _:
                    self.write(b"-ERR not for this\r\n")

    def write(self, content: bytes) -> None:
        """Send soon."""
        self._open_writer().write(content)

    async def send_file(self, file: BinaryIO, start: int, size: int) -> None:
        """Send a part of a file at the replica's pace."""
        async with asyncio.timeout(SILENCE_SECONDS):
            writer = self._open_writer()
            await writer.drain()
            await asyncio.get_running_loop().sendfile(writer.transport, file, start, size)

    async def until_acknowledged(self, offset: int) -> None:
        """Until the replica has executed everything up to there.

        Raises:
            EOFError, OSError: it went away; TimeoutError: it said nothing for too long.
        """
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                words = await self._command()
            if words[:1] == [b"REPLCONF"] and words[1].upper() == b"ACK" and int(words[2]) >= offset:
                return

    async def until_gone(self) -> None:
        """Until the replica leaves; whatever it says until then does not matter."""
        while await self._reader.read(_LINE_BYTES):
            pass

    def _open_writer(self) -> asyncio.StreamWriter:
        if self._writer is None:
            raise RuntimeError("this session was not opened")
        return self._writer

    async def _command(self) -> list[bytes]:
        """What the replica says next; an empty line is a sign of life."""
        line = await self._line()
        if not line.startswith(b"*"):
            return line.split()
        words = []
        count = int(line[1:])
        if count > _MOST_WORDS:
            raise ValueError("too many words")
        for _ in range(count):
            size = int((await self._line())[1:])
            if size > _LINE_BYTES:
                raise ValueError("too long a word")
            words.append((await self._reader.readexactly(size + 2))[:-2])
        return words

    async def _line(self) -> bytes:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the replica closed the connection")
        return line.strip()


async def _peek(accepted: socket.socket) -> bytes:
    """The first byte, left where it is."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(accepted, lambda: None if readable.done() else readable.set_result(None))
    try:
        await readable
        return accepted.recv(1, socket.MSG_PEEK)
    finally:
        loop.remove_reader(accepted)
