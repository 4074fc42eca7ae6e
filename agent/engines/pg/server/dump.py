"""pg_dump as a stream that ends only when the dump is proven whole.

pg_dump takes one snapshot, so the app goes on writing meanwhile. Its exit status alone proves nothing here: the text's
own last line, or the archive's last bytes, have to be there too. However the dump ends, no backend of it is left.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Protocol

from agent.engines.pg.server.clients import Client
from agent.engines.pg.server.connection import Connection, Login, connect
from agent.engines.pg.server.text_errors import joined
from agent.processes import Child, Command, start
from common.codecs import Compressor, gzip_compressor
from common.errors import ServiceError, ToolFailedError
from common.fingerprints import Fingerprint
from common.frames import LEAN_CHUNK_BYTES
from common.headers import ArchiveHeader
from common.seals import DumpSealWriter, SqlSealWriter

LOCK_WAIT_SECONDS = 120
"""pg_dump waits at most so long for a table that is locked exclusively (VACUUM FULL, a migration that hangs)."""
BACKEND_END_SECONDS = 10.0
TRAILER = b"\n-- PostgreSQL database dump complete\n--"
TRAILER_WITHIN_BYTES = 600
"""After the trailer comes `\\unrestrict` with its key, since the releases of 2025-08."""
ARCHIVE_START = b"PGDMP"
ARCHIVE_END = bytes(5)
"""A custom archive ends with a block length or a large object's number of 0: a sign byte and four zeros."""


class DumpForm(enum.Enum):
    """What a dump looks like."""

    SQL = "sql"
    SQL_GZIP = "sql.gz"
    CUSTOM = "custom"


class Proof(Protocol):
    """What a dump can be compared with."""

    snapshot: str
    """An exported one; empty: none."""

    def begin(self) -> None:
        """The dump has begun to flow; may be called again."""

    async def fingerprint(self) -> Fingerprint | None:
        """Of that snapshot; None when it could not be taken."""


class _Encoder(Protocol):
    """Turns pg_dump's output into the archive. Called in a thread, one call at a time."""

    def add(self, pieces: Sequence[bytes]) -> bytes: ...
    def finish(self, fingerprint: Fingerprint | None) -> bytes:
        """The archive's end; ToolFailedError unless all that was added looks whole."""
        ...


@asynccontextmanager
async def dump(
    login: Login,
    client: Client,
    *,
    form: DumpForm,
    header: ArchiveHeader,
    app_id: str,
    encoding: str,
    without: Sequence[str],
    on_read: Callable[[int], None],
    proof: Proof | None = None,
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The archive of a database in pieces; ends normally only when it is whole.

    Args:
        header: written into SQL forms as their first line.
        app_id: marks the dump's session, so that one left by an agent that was killed is found by `end_leftovers`.
        encoding: the database's own. By itself pg_dump writes in the client's, which a setting of the role or database
            may say, also one that has not all characters, or in which no database can be, and which no import takes.
        without: schemas that are left out, from `kept_schema_names`.
        on_read: called with the size of each piece of pg_dump's output.
        proof: whose snapshot is dumped, and whose fingerprint closes SQL forms.
    Raises:
        AppUnavailableError, ToolFailedError: from the chunks, at any point.
    """
    session = f"{session_prefix(app_id)}{secrets.token_hex(6)}"
    command = Command(
        pg_dump_argv(client, form, encoding=encoding, without=without, snapshot=proof.snapshot if proof else ""),
        environment={**client.environment(), **login.environment(application_name=session)},
    )
    is_whole = False

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal is_whole
        encoder = _CustomEncoder(header) if form is DumpForm.CUSTOM else _SqlEncoder(form, header)
        ready: list[bytes] = []
        least_bytes = 1
        async for pieces in _pieces(child):
            on_read(sum(map(len, pieces)))
            if proof:
                proof.begin()
            ready.append(await asyncio.to_thread(encoder.add, pieces))
            if sum(map(len, ready)) >= least_bytes:
                yield b"".join(ready)
                ready.clear()
                least_bytes = LEAN_CHUNK_BYTES
        await _check(child, login)
        fingerprint = await proof.fingerprint() if proof else None
        ready.append(await asyncio.to_thread(encoder.finish, fingerprint))
        is_whole = True
        yield b"".join(ready)

    try:
        async with start(command) as child, aclosing(chunks()) as archive:
            yield archive
    finally:
        if not is_whole:
            await asyncio.shield(_end_sessions_quietly(login, session))


def session_prefix(app_id: str) -> str:
    """Begins the application_name of every dump of one app; one transfer runs at a time, so others are leftovers."""
    return f"mathison-export-{hashlib.sha256(app_id.encode()).hexdigest()[:8]}-"


async def end_leftovers(connection: Connection, app_id: str) -> None:
    """End dumps of this app that an agent which was killed left in the server, waiting for a lock for example."""
    await _terminate(connection, session_prefix(app_id))


def pg_dump_argv(
    client: Client, form: DumpForm, *, encoding: str, without: Sequence[str], snapshot: str = ""
) -> list[str]:
    """What is left out, and why: owners and grants belong to the server, not the data; subscriptions hold passwords of
    other servers; tablespaces are places on a disk; what an import within the database keeps is not the app's any more.
    """
    argv = [
        client.program("pg_dump"),
        "--no-password",
        "--no-owner",
        "--no-privileges",
        "--no-subscriptions",
        "--no-tablespaces",
        f"--encoding={encoding}",
        *(f'--exclude-schema="{name}"' for name in without),
        f"--lock-wait-timeout={LOCK_WAIT_SECONDS}s",
        *([f"--snapshot={snapshot}"] if snapshot else []),
    ]
    if form is not DumpForm.CUSTOM:
        return [*argv, "--format=plain"]
    # gzip although zstd is faster: not every build has zstd, and without compression no checksum would cover the rows.
    return [*argv, "--format=custom", "--compress=gzip:1" if client.major >= 16 else "--compress=1"]


async def _pieces(child: Child) -> AsyncGenerator[list[bytes], None]:
    """pg_dump's output, half a mebibyte at a time; the first as soon as there is any, for the caller who waits for it.

    As it was read, never joined: that would copy all of the text twice more.
    """
    pieces: list[bytes] = []
    size = 0
    is_first = True
    while piece := await child.read():
        pieces.append(piece)
        size += len(piece)
        if is_first or size >= 2 * LEAN_CHUNK_BYTES:
            yield pieces
            pieces, size = [], 0
            is_first = False
    if pieces:
        yield pieces


async def _check(child: Child, login: Login) -> None:
    """Wait for pg_dump; where it failed, ask the server whether that is the reason."""
    try:
        await child.check()
    except ToolFailedError as failure:
        async with connect(login):
            pass
        failure.text = joined(failure.text)
        raise


class _SqlEncoder:
    """SQL text with our seal, compressed or not."""

    def __init__(self, form: DumpForm, header: ArchiveHeader) -> None:
        self._seal = SqlSealWriter()
        self._compressor: Compressor | None = gzip_compressor() if form is DumpForm.SQL_GZIP else None
        self._opening: bytes | None = self._seal.opening(header)
        self._tail = b""

    def add(self, pieces: Sequence[bytes]) -> bytes:
        opening, self._opening = self._opening, None
        written = [self._write(opening)] if opening else []
        for piece in pieces:
            self._seal.add(piece)
            self._tail = (self._tail + piece[-TRAILER_WITHIN_BYTES:])[-TRAILER_WITHIN_BYTES:]
            written.append(self._write(piece))
        return b"".join(written)

    def finish(self, fingerprint: Fingerprint | None) -> bytes:
        if TRAILER not in self._tail:
            raise ToolFailedError("pg_dump ended without the line that says that its dump is complete.")
        end = self._write(self._seal.closing(fingerprint))
        return end + self._compressor.flush() if self._compressor else end

    def _write(self, text: bytes) -> bytes:
        return self._compressor.compress(text) if self._compressor else text


class _CustomEncoder:
    """pg_dump's own archive, passed through, with our seal behind it."""

    def __init__(self, header: ArchiveHeader) -> None:
        self._header = header
        self._seal = DumpSealWriter()
        self._head = b""
        self._tail = b""

    def add(self, pieces: Sequence[bytes]) -> bytes:
        for piece in pieces:
            self._seal.add(piece)
            self._head = (self._head + piece[: len(ARCHIVE_START)])[: len(ARCHIVE_START)]
            self._tail = (self._tail + piece[-len(ARCHIVE_END) :])[-len(ARCHIVE_END) :]
        return b"".join(pieces)

    def finish(self, fingerprint: Fingerprint | None) -> bytes:
        if self._head != ARCHIVE_START or self._tail != ARCHIVE_END:
            raise ToolFailedError("pg_dump ended before the end of its archive.")
        return self._seal.closing(self._header, fingerprint)


async def _end_sessions_quietly(login: Login, session: str) -> None:
    """A pg_dump that ended by itself took its session along; one that was killed may have left it waiting."""
    with suppress(ServiceError, TimeoutError):
        async with asyncio.timeout(BACKEND_END_SECONDS), connect(login) as connection:
            while await _terminate(connection, session):  # noqa: ASYNC110  # the event is the server's
                await asyncio.sleep(0.02)


async def _terminate(connection: Connection, prefix: str) -> int:
    """Sessions whose application_name begins so; how many there were."""
    cursor = await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE starts_with(application_name, %s) AND usename = current_user",
        [prefix],
    )
    return len(await cursor.fetchall())
