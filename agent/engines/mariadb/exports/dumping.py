"""mariadb-dump as a stream that ends only when the dump is proven whole.

It reads in one transaction, so the app goes on writing meanwhile. Its exit status alone proves nothing here: its own
last line has to be there too.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager

from agent.engines.mariadb.exports import dump_sessions
from agent.engines.mariadb.exports.content import Content
from agent.engines.mariadb.exports.table_watch import TableWatch
from agent.engines.mariadb.server.client import error_of_query, query
from agent.engines.mariadb.server.kept_clients import keeping_clients
from agent.engines.mariadb.server.settings import Login
from agent.processes import Command, start
from common.codecs import Compressor, gzip_compressor
from common.errors import AppBusyError, AppUnavailableError, ServiceError, ToolFailedError
from common.fingerprints import Fingerprint
from common.frames import LEAN_CHUNK_BYTES
from common.headers import ArchiveHeader
from common.seals import SqlSealWriter

_END = re.compile(rb"\n-- Dump completed[^\n]*\n\Z")
_END_WITHIN_BYTES = 200
_SANDBOX = b"/*M!999999\\- enable the sandbox mode */"


def dump_argv(login: Login, database: str, *, has_history: bool = False, session: Sequence[str] = ()) -> list[str]:
    """What is left out, and why: tablespaces are places on a disk; names of databases, so that it fits any.

    Args:
        session: what `dump_sessions.options_of` gives.
        has_history: with the earlier rows of system-versioned tables; programs before 10.11 do not know how.
    """
    return [
        str(login.dump_program),
        *login.options(),
        *session,
        "--single-transaction",
        "--quick",
        "--routines",
        "--events",
        "--triggers",
        "--hex-blob",
        # Of a row that it reads, too: the client of 10.11 breaks off at 24 MB by itself.
        "--max-allowed-packet=1G",
        "--no-tablespaces",
        # Under locks, plain clients stop at rows of a table whose default takes its number from a sequence.
        "--skip-add-locks",
        # MySQL's only, which would need rights of a replica for it; MariaDB's own had this name, too.
        *(["--loose-set-gtid-purged=OFF"] if login.dump_program.name == "mysqldump" else []),
        # Rows in the same order each time, so that fingerprints can be compared.
        "--order-by-primary",
        *(["--dump-history"] if has_history else []),
        database,
    ]


@asynccontextmanager
async def dump(
    login: Login,
    database: str,
    *,
    header: ArchiveHeader,
    is_compressed: bool,
    has_history: bool,
    content: Content | None,
    watch: TableWatch,
    on_read: Callable[[int], None],
) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The archive of a database in pieces of about 1 MiB; ends normally only when it is whole.

    Args:
        content: is shown the dump while it passes; its fingerprint goes into the archive's end.
        watch: has a doubt at the end, or none.
        on_read: called with the size of each piece of the dump.
    Raises:
        AppUnavailableError: the server's settings would falsify it.
        AppUnavailableError, ToolFailedError: from the chunks, at any point.
        AppBusyError: from them at the end: tables took each other's places.
    """
    session = await dump_sessions.options_of(login)
    encoder = _Encoder(header, content, is_compressed=is_compressed)

    async def chunks() -> AsyncGenerator[bytes, None]:
        ready = bytearray()
        async with keeping_clients():
            await watch.begin()
            if content:
                await content.begin()
        async with aclosing(raw_dump(login, database, has_history=has_history, session=session)) as pieces:
            async for piece in pieces:
                on_read(len(piece))
                ready += await asyncio.to_thread(encoder.add, piece)
                if len(ready) >= LEAN_CHUNK_BYTES // 2:
                    yield bytes(ready)
                    ready.clear()
        async with keeping_clients():
            await watch.finish(content.read_at if content else {})
            if content and not watch.doubt:
                await content.finish()
        ready += await asyncio.to_thread(encoder.finish)
        yield bytes(ready)

    async with aclosing(chunks()) as archive:
        yield archive


async def raw_dump(
    login: Login, database: str, *, has_history: bool = False, session: Sequence[str] | None = None
) -> AsyncGenerator[bytes, None]:
    """What mariadb-dump prints, without the line that only newer clients read; ends normally only when it is whole.

    Args:
        session: as for `dump_argv`; None: it is asked for here.
    Raises:
        AppUnavailableError: no server, or its settings would falsify a dump.
        ToolFailedError: the program failed.
    """
    if session is None:
        session = await dump_sessions.options_of(login)
    argv = dump_argv(login, database, has_history=has_history, session=session)
    tail = b""
    is_first = True
    pauses = _Pauses()
    async with start(Command(argv, environment=login.environment())) as child:
        await child.close_stdin()
        block = bytearray()
        while piece := await child.read(LEAN_CHUNK_BYTES - len(block)):
            block += piece
            if is_first and len(block) < len(_SANDBOX):
                continue
            if is_first and block.startswith(_SANDBOX):
                del block[: block.find(b"\n") + 1 or len(block)]
            if is_first or len(block) >= LEAN_CHUNK_BYTES:
                is_first = False
                tail = bytes(tail + block)[-_END_WITHIN_BYTES:]
                if block:
                    with pauses.measured():
                        yield bytes(block)
                block.clear()
        if block:
            tail = bytes(tail + block)[-_END_WITHIN_BYTES:]
            yield bytes(block)
        try:
            await child.check()
        except ToolFailedError as failure:
            raise await _error_of_dump(failure.text, login, pauses.longest_seconds) from failure
    if not _END.search(tail):
        raise ToolFailedError(f"{login.dump_program.name} ended without the line that says that its dump is complete.")
    if not session:
        # Nor have the server's settings become others meanwhile.
        await dump_sessions.require_harmless(login)


async def _error_of_dump(text: str, login: Login, longest_pause_seconds: float) -> ServiceError:
    """The error for what the program said, by which time its reader had paused for so long."""
    error = error_of_query(text, login)
    if isinstance(error, AppUnavailableError):
        # It has no option to make the server wait for longer.
        with contextlib.suppress(ServiceError):
            [[waits]] = await query(login, "SELECT @@net_write_timeout;")
            if longest_pause_seconds >= int(waits):
                return AppUnavailableError(
                    f"{login.place} ended the export, since nothing of it was taken for {longest_pause_seconds:.0f} "
                    f"seconds: it waits for {waits}.",
                    next_step="Export again and take it without such pauses, or raise net_write_timeout of the server.",
                )
    return error


class _Pauses:
    """How long a reader left something lying."""

    def __init__(self) -> None:
        self.longest_seconds = 0.0

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)


async def fingerprint_of(
    login: Login, database: str, *, on_read: Callable[[int], None] = lambda _: None, is_staged: bool = False
) -> Fingerprint:
    """The content of a database as it is now; reads all of it.

    Args:
        is_staged: it was loaded by `loading.load` and is not in its place.
    Raises:
        AppBusyError: its tables or definitions were altered meanwhile.
    """
    content, watch = Content(login, database, is_staged=is_staged), TableWatch(login, database)
    async with keeping_clients():
        await watch.begin()
        await content.begin()
    async with aclosing(raw_dump(login, database)) as pieces:
        async for piece in pieces:
            on_read(len(piece))
            await asyncio.to_thread(content.add, piece)
    async with keeping_clients():
        await watch.finish(content.read_at)
        if watch.doubt:
            raise AppBusyError(watch.doubt, next_step="Try again when nothing alters tables.")
        await content.finish()
    if content.fingerprint is None:
        raise AppBusyError(
            f"Views, triggers, routines or events of {database} were altered while it was read.",
            next_step="Try again.",
        )
    return content.fingerprint


class _Encoder:
    """SQL text with our seal, compressed or not. Called in a thread, one call at a time."""

    def __init__(self, header: ArchiveHeader, content: Content | None, *, is_compressed: bool) -> None:
        self._seal = SqlSealWriter()
        self._content = content
        self._compressor: Compressor | None = gzip_compressor() if is_compressed else None
        self._opening: bytes | None = self._seal.opening(header)

    def add(self, piece: bytes) -> bytes:
        opening, self._opening = self._opening, None
        self._seal.add(piece)
        if self._content:
            self._content.add(piece)
        return self._write(opening + piece if opening else piece)

    def finish(self) -> bytes:
        end = self._write(self._seal.closing(self._content.fingerprint if self._content else None))
        return end + self._compressor.flush() if self._compressor else end

    def _write(self, text: bytes) -> bytes:
        return self._compressor.compress(text) if self._compressor else text
