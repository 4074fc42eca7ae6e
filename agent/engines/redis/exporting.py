"""An export: the server's own snapshot as it comes, and what is in it, counted on the way."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.engines.rdb.child import Look
from agent.engines.rdb.content import RdbContent
from agent.engines.rdb.examination import Examination, examining
from agent.engines.rdb.sums import SCHEME
from agent.engines.redis.connection import Connection, connect
from agent.engines.redis.facts import ServerFacts, read_setting
from agent.engines.redis.facts import look as look_at
from agent.engines.redis.lending import FileLedger, Loan, put_back
from agent.engines.redis.obstacles import export_obstacle
from agent.engines.redis.preview import counts_of, counts_of_keys
from agent.engines.redis.replica import Wish, replicating
from agent.engines.redis.settings import RedisSettings
from agent.steps import Progress, Step
from common.codecs import gzip_compressor
from common.errors import AppUnavailableError, ToolFailedError
from common.fingerprints import Fingerprint
from common.frames import CHUNK_BYTES
from common.headers import ArchiveHeader
from common.rdb import HEAD_BYTES, read_header

SMALL_BYTES = 16 << 20
"""Of memory for data: up to here a fingerprint is taken unasked, which takes less than a second."""
_LENT_FILE = "lent-settings.json"


@dataclass
class Dump:
    """An export that has begun; what follows `chunks` is complete when that has ended.

    Attributes:
        header: without what the recipe knows.
    """

    header: ArchiveHeader
    chunks: AsyncGenerator[bytes, None]
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    fingerprint: Fingerprint | None = None
    content: RdbContent | None = None


def ledger_of(work_directory: Path) -> FileLedger:
    """Where settings that an export changed are noted; an import has its record for that."""
    return FileLedger(work_directory / _LENT_FILE)


def has_leftovers(work_directory: Path) -> bool:
    """Whether an export of an agent that was killed has left the server's settings changed."""
    ledger = ledger_of(work_directory)
    if ledger.read() is not None:
        return True
    ledger.write(None)
    return False


async def put_back_leftovers(connection: Connection, work_directory: Path, *, run_id: str) -> None:
    """Put back what an export of an agent that was killed has changed."""
    ledger = ledger_of(work_directory)
    if (note := ledger.read()) is not None:
        await put_back(connection, note, run_id=run_id)
    ledger.write(None)


@asynccontextmanager
async def dumping(
    settings: RedisSettings,
    progress: Progress,
    *,
    work_directory: Path,
    is_compressed: bool = False,
    look: Look | None = None,
) -> AsyncIterator[Dump]:
    """A snapshot of this moment.

    Args:
        look: None: counted, and summed up when that costs little.
    Raises:
        AppUnavailableError: the server does not answer, or cannot give one.
        ToolFailedError: it could not make one.
    """
    progress.step(Step.PREPARING)
    async with connect(settings.login()) as admin:
        server = await look_at(admin)
        await put_back_leftovers(admin, work_directory, run_id=server.run_id)
        if obstacle := export_obstacle(server):
            raise AppUnavailableError(obstacle)
        details = await _details(admin, server)
        if look is None:
            look = Look.SUM if server.data_bytes <= SMALL_BYTES else Look.COUNT
        loan = Loan(ledger_of(work_directory), server.run_id)
        async with (
            examining(work_directory, look) as examination,
            replicating(Wish(server.version), loan=loan, admin=admin) as replica,
            aclosing(replica.snapshot()) as snapshot,
        ):
            pieces = _gathered(snapshot)
            async with aclosing(pieces):
                first = await anext(pieces)
                dump = Dump(_header(server, first, details), pieces, counts_of_keys(server.keys))
                walked = _walked(first, pieces, examination, server, progress, dump)
                dump.chunks = _compressed(walked) if is_compressed else walked
                progress.step(Step.TRANSFERRING)
                async with aclosing(walked), aclosing(dump.chunks):
                    yield dump


async def fingerprint(settings: RedisSettings, progress: Progress, *, work_directory: Path) -> Fingerprint:
    """Of what the server holds at this moment, from a snapshot that is not kept.

    Raises:
        ToolFailedError: something in it cannot be read.
    """
    async with dumping(settings, progress, work_directory=work_directory, look=Look.SUM) as dump:
        async for _ in dump.chunks:
            pass
    if dump.fingerprint is None:
        raise ToolFailedError(f"The server's snapshot cannot be read through. {' '.join(dump.warnings)}")
    return dump.fingerprint


async def _gathered(snapshot: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Pieces of about a chunk; the first as soon as it holds the header."""
    gathered = bytearray()
    wanted = HEAD_BYTES
    async for piece in snapshot:
        gathered += piece
        if len(gathered) >= wanted:
            yield bytes(gathered)
            gathered.clear()
            wanted = CHUNK_BYTES // 2
    if gathered:
        yield bytes(gathered)


async def _walked(
    first: bytes,
    pieces: AsyncIterator[bytes],
    examination: Examination,
    server: ServerFacts,
    progress: Progress,
    dump: Dump,
) -> AsyncGenerator[bytes, None]:
    """The snapshot; ends normally only when its checksum agreed, and then `dump` says what was in it."""
    piece: bytes | None = first
    done = 0
    while piece is not None:
        await examination.add(piece)
        done += len(piece)
        progress.read(len(piece))
        if examination.keys:
            # The walk is a little behind, so this is a little high.
            progress.expect(max(done, done * server.key_count // examination.keys))
        yield piece
        piece = await anext(pieces, None)
    dump.content = content = await examination.finish()
    dump.counts.clear()
    dump.counts |= counts_of(content)
    if content.doubt:
        dump.warnings.append(
            f"The snapshot is whole, but this program cannot read through it and will not import it: {content.doubt} "
            "The counts are incomplete."
        )
    elif content.sums is not None:
        dump.fingerprint = Fingerprint.of(SCHEME, content.sums)
    elif examination.look is Look.SUM:
        dump.warnings.append("No fingerprint was taken: one value is too large to be unpacked for it.")
    dump.warnings += [f"As it is, this program will not import this file: {text}" for text in content.obstacles]
    if not content.has_checksum:
        dump.warnings.append("The server writes no checksum (rdbchecksum no): damage to this file would not show.")


async def _compressed(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    compressor = gzip_compressor()
    ready = bytearray()
    async for chunk in chunks:
        ready += await asyncio.to_thread(compressor.compress, chunk)
        if len(ready) >= CHUNK_BYTES // 2:
            yield bytes(ready)
            ready.clear()
    ready += await asyncio.to_thread(compressor.flush)
    yield bytes(ready)


async def _details(admin: Connection, server: ServerFacts) -> dict[str, str]:
    details = {
        "modules": ", ".join(sorted(server.modules)),
        "used_memory_bytes": str(server.used_bytes),
        "maxmemory_bytes": str(server.maximum_bytes),
        "maxmemory_policy": server.eviction,
        "append_only_file": "yes" if server.has_aof else "no",
        "save": await read_setting(admin, "save") or "",
    }
    return {name: value for name, value in details.items() if value not in ("", "0")}


def _header(server: ServerFacts, first: bytes, details: dict[str, str]) -> ArchiveHeader:
    rdb = read_header(first)
    return ArchiveHeader(
        engine=server.kind,
        engine_version=server.version,
        created_at=dt.datetime.now(dt.UTC),
        counts=counts_of_keys(server.keys),
        details={"rdb_version": rdb.magic if rdb else "", **details},
    )
