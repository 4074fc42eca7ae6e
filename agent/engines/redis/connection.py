"""One connection to a server, in the protocol that all of them speak (RESP 2): a command, then its answer.

A client library is not used: replication is half of what is done here and no library has it, and the one for asyncio
takes 18 MB of memory where the agent has 64.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from common.errors import AppUnavailableError

CONNECT_SECONDS = 10.0
FIRST_ANSWER_SECONDS = 10.0
"""The same for a server that takes the connection and says nothing: whoever hangs, or is no Redis."""
ANSWER_SECONDS = 60.0
"""Long for a command, short for a server that hangs; a large one that forks stands still for a second."""
AWAKE_SECONDS = 0.5
"""A server that has a `timeout` closes the connections that were silent for so long; the shortest is 1 second."""
_SIGN_OF_LIFE = ("INFO", "?")
"""Its answer is empty, and who may do anything here may ask for it."""
OWN_KEYS = "~mathison-data:*"
"""The keys that an import makes and removes; see marker.py."""
_LIMIT_BYTES = 1 << 18

Reply = bytes | int | list["Reply | ReplyError"] | None


class ReplyError(Exception):
    """The server's own answer that it will not do something; the first word is its kind."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        # It is put into sentences, and some answers end with a stop.
        self.text = text.rstrip(".")

    @property
    def kind(self) -> str:
        """For example "ERR", "NOPERM", "LOADING"."""
        return self.text.partition(" ")[0]

    @property
    def is_of_unknown_command(self) -> bool:
        """The server has no command of that name, or not any more: `rename-command` takes one away."""
        return "unknown command" in self.text.lower()


class NotAllowedError(AppUnavailableError):
    """The agent's user lacks a right; `next_step` gives it."""


class ConnectionLostError(AppUnavailableError):
    """The server went away, or was silent for too long."""


@dataclass(frozen=True)
class Login:
    """A way to a server.

    Attributes:
        host: starts with "/" for a unix socket.
        user: empty for the default user.
        tls: None: without.
    """

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """For texts."""
        return self.host if self.host.startswith("/") else f"{self.host}:{self.port}"


class Connection:
    """An open connection; one command at a time."""

    def __init__(
        self,
        login: Login,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        first_answer_seconds: float,
    ) -> None:
        self.login = login
        self._reader = reader
        self._writer = writer
        self._answer_seconds = first_answer_seconds
        self._signs = 0
        self._signs_before = 0
        """Of life, whose answers come before the one that is read next."""

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it, as far as is known."""
        return not self._writer.transport.is_closing() and not self._reader.at_eof()

    @property
    def local_host(self) -> str:
        """The address that the server sees us at."""
        name = self._writer.get_extra_info("sockname")
        return name[0] if isinstance(name, tuple) else "127.0.0.1"

    @property
    def peer_host(self) -> str:
        """The server's address."""
        name = self._writer.get_extra_info("peername")
        return name[0] if isinstance(name, tuple) else "127.0.0.1"

    async def call(self, *words: bytes | str | int, timeout_seconds: float | None = None) -> Reply:
        """Send a command and wait for its answer.

        Args:
            timeout_seconds: None: as long as `answer` does.
        Raises:
            ReplyError: the server's own refusal.
            NotAllowedError: the user may not do this; names what it lacks.
            ConnectionLostError: no answer came.
        """
        try:
            await self.send(*words)
            return await self.answer(timeout_seconds=timeout_seconds)
        except ReplyError as error:
            if error.kind == "NOPERM":
                raise self._not_allowed(words, error.text) from error
            raise
        except BaseException:
            # An answer that comes late would be taken for that of the next command.
            self.close()
            raise

    async def text(self, *words: bytes | str | int) -> str:
        """`call` for an answer that is one string."""
        return cast(bytes, await self.call(*words)).decode("utf-8", "replace")

    async def calls(self, commands: Sequence[Sequence[bytes | str | int]]) -> list[Reply | ReplyError]:
        """Several commands at once; a refusal is among the answers."""
        answers: list[Reply | ReplyError] = []
        self._write(b"".join(encode(*words) for words in commands))
        for _ in commands:
            try:
                answers.append(await self.answer())
            except ReplyError as error:
                answers.append(error)
        return answers

    async def send(self, *words: bytes | str | int) -> None:
        """Send a command whose answer, if any, is read otherwise."""
        try:
            self._write(encode(*words))
            await self._writer.drain()
        except OSError as failure:
            raise self._lost(failure) from failure

    async def answer(self, *, timeout_seconds: float | None = None) -> Reply:
        """The next answer.

        Args:
            timeout_seconds: None: ANSWER_SECONDS, and less where the server has said nothing yet.
        """
        seconds = self._answer_seconds if timeout_seconds is None else timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                while self._signs_before:
                    await self._read_one()
                    self._signs_before -= 1
                line = await self._line()
                self._answer_seconds = ANSWER_SECONDS
                return await self._read(line)
        except TimeoutError:
            raise ConnectionLostError(f"{self.login.place} did not answer within {seconds:.0f} seconds.") from None

    async def line(self, *, timeout_seconds: float = ANSWER_SECONDS) -> bytes:
        """The next line of what is no answer, without its end."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return (await self._line()).rstrip(b"\r\n")
        except TimeoutError:
            raise ConnectionLostError(f"{self.login.place} was silent for {timeout_seconds:.0f} seconds.") from None

    async def some(self, most: int, *, timeout_seconds: float = ANSWER_SECONDS) -> bytes:
        """Up to so many raw bytes, at least one."""
        try:
            async with asyncio.timeout(timeout_seconds):
                found = await self._reader.read(most)
        except TimeoutError:
            raise ConnectionLostError(f"{self.login.place} was silent for {timeout_seconds:.0f} seconds.") from None
        except OSError as failure:
            raise self._lost(failure) from failure
        if not found:
            raise self._lost(None)
        return found

    async def stay_awake(self) -> None:
        """Say something now and then, until it is closed."""
        while True:
            await asyncio.sleep(AWAKE_SECONDS)
            if not self.is_open:
                return
            self._writer.write(encode(*_SIGN_OF_LIFE))
            self._signs += 1

    def _write(self, commands: bytes) -> None:
        self._signs_before += self._signs
        self._signs = 0
        self._writer.write(commands)

    async def _read(self, line: bytes) -> Reply:
        """What begins with a line."""
        kind, value = line[:1], line[1:-2]
        match kind:
            case b"+":
                return value
            case b"-":
                raise ReplyError(value.decode("utf-8", "replace"))
            case b":":
                return int(value)
            case b"$":
                return await self._bulk(int(value))
            case b"*":
                return None if value == b"-1" else [await self._read_one() for _ in range(int(value))]
        raise ConnectionLostError(f"{self.login.place} does not answer as Redis does.")

    async def _read_one(self) -> Reply | ReplyError:
        """One of several answers; a refusal among them does not end the others."""
        try:
            return await self._read(await self._line())
        except ReplyError as refusal:
            return refusal

    async def _bulk(self, size: int) -> bytes | None:
        if size < 0:
            return None
        try:
            return (await self._reader.readexactly(size + 2))[:-2]
        except (OSError, asyncio.IncompleteReadError) as failure:
            raise self._lost(failure) from failure

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except (OSError, ValueError) as failure:
            raise self._lost(failure) from failure
        if not line.endswith(b"\n"):
            raise self._lost(None)
        return line

    def _lost(self, failure: BaseException | None) -> ConnectionLostError:
        said = f": {failure.strerror}" if isinstance(failure, OSError) and failure.strerror else ""
        return ConnectionLostError(f"The connection to {self.login.place} was lost{said}.")

    def _not_allowed(self, words: tuple[bytes | str | int, ...], said: str) -> NotAllowedError:
        command = str(words[0]).lower()
        if command in ("client", "config"):
            command = f"{command}|{str(words[1]).lower()}"
        user = self.login.user or "default"
        # The server says "one of the keys" where the command itself is allowed.
        what, right = (f"{command} on keys of ours", OWN_KEYS) if "keys" in said else (command, f"+{command}")
        return NotAllowedError(
            f"User {user} of {self.login.place} may not run {what}.",
            next_step=f"Allow it, for example: ACL SETUSER {user} {right}",
        )

    def close(self) -> None:
        """Close without waiting; what is not sent yet is lost."""
        self._writer.transport.abort()


@asynccontextmanager
async def connect(
    login: Login, *, first_answer_seconds: float | None = None, stays_awake: bool = True
) -> AsyncIterator[Connection]:
    """A connection for the time of the block.

    Args:
        first_answer_seconds: None: FIRST_ANSWER_SECONDS.
        stays_awake: it may be silent for longer than the server lets clients be; nothing but commands and their answers
            may pass then, and no transaction.
    Raises:
        AppUnavailableError: nobody answers there, or the password is wrong.
    """
    connection = await _open(login, first_answer_seconds=first_answer_seconds)
    staying = asyncio.create_task(connection.stay_awake(), name="stay awake") if stays_awake else None
    try:
        yield connection
    finally:
        if staying is not None:
            staying.cancel()
            await asyncio.gather(staying, return_exceptions=True)
        connection.close()


@asynccontextmanager
async def reusing(connection: Connection, *, first_answer_seconds: float | None = None) -> AsyncIterator[Connection]:
    """That connection or, where it was lost, a new one: a server may have no room for another client.

    Args:
        first_answer_seconds: of a new one.
    """
    if connection.is_open:
        yield connection
        return
    async with connect(connection.login, first_answer_seconds=first_answer_seconds) as another:
        yield another


async def _open(login: Login, *, first_answer_seconds: float | None) -> Connection:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if login.host.startswith("/"):
                reader, writer = await asyncio.open_unix_connection(login.host, limit=_LIMIT_BYTES)
            else:
                reader, writer = await asyncio.open_connection(
                    login.host, login.port, ssl=login.tls, limit=_LIMIT_BYTES
                )
    except ssl.SSLError as failure:
        raise AppUnavailableError(f"{login.place} and the agent do not agree on TLS: {failure.reason}.") from failure
    except (OSError, TimeoutError) as failure:
        reason = getattr(failure, "strerror", "") or "no answer"
        raise AppUnavailableError(f"{login.place} cannot be reached: {reason}.") from failure
    seconds = FIRST_ANSWER_SECONDS if first_answer_seconds is None else first_answer_seconds
    connection = Connection(login, reader, writer, first_answer_seconds=seconds)
    try:
        if login.user or login.password:
            await connection.call("AUTH", *([login.user] if login.user else []), login.password)
    except ReplyError as error:
        connection.close()
        raise AppUnavailableError(f"{login.place} refuses the agent's password: {error.text}.") from error
    except BaseException:
        connection.close()
        raise
    return connection


def encode(*words: bytes | str | int) -> bytes:
    """A command as it is sent."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)
