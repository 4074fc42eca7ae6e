"""A tar of an app's files on its way out: sealed, compressed, and made in a thread beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from common.codecs import Compressor, gzip_compressor, zstd_compressor
from common.fingerprints import Fingerprint
from common.frames import CHUNK_BYTES
from common.headers import ArchiveHeader
from common.seals import TarSealWriter

_COMPRESSORS = {"tar.gz": gzip_compressor, "tar.zst": zstd_compressor}


def sealed(
    blocks: Generator[bytes, None, None],
    header: ArchiveHeader,
    fingerprint: Callable[[], Fingerprint | None] = lambda: None,
) -> Generator[bytes, None, None]:
    """A whole tar: our opening member, the blocks, our closing members and the end.

    Args:
        fingerprint: asked after the last block.
    """
    seal = TarSealWriter()
    with contextlib.closing(blocks):
        yield seal.opening(header)
        for block in blocks:
            seal.add(block)
            yield block
    yield seal.closing(fingerprint())


def compressed(blocks: Generator[bytes, None, None], compressor: Compressor) -> Generator[bytes, None, None]:
    """The blocks compressed, in pieces of any size."""
    with contextlib.closing(blocks):
        for block in blocks:
            yield compressor.compress(block)
    yield compressor.flush()


def compressed_as(blocks: Generator[bytes, None, None], format_name: str) -> Generator[bytes, None, None]:
    """The blocks of a tar as its format has them: "tar", "tar.gz" or "tar.zst"."""
    make_compressor = _COMPRESSORS.get(format_name)
    return compressed(blocks, make_compressor()) if make_compressor else blocks


def gathered(pieces: Generator[bytes, None, None], *, size_bytes: int = CHUNK_BYTES) -> Generator[bytes, None, None]:
    """The same bytes in pieces of about that size; none is empty."""
    held: list[bytes] = []
    size = 0
    with contextlib.closing(pieces):
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= size_bytes - (size_bytes >> 4):
                yield b"".join(held)
                held, size = [], 0
    if last := b"".join(held):
        yield last


async def from_thread(
    blocks: Generator[bytes, None, None],
    *,
    name: str,
    size_bytes: int = CHUNK_BYTES,
    interrupt: Callable[[], None] = lambda: None,
) -> AsyncGenerator[bytes, None]:
    """Run a generator in a thread of its own, one piece ahead of whoever takes its pieces.

    Args:
        size_bytes: to which they are gathered; three of them are held at a time.
        interrupt: called when nobody wants more: it frees the thread from what it may be waiting for.
    """
    loop = asyncio.get_running_loop()
    blocks = gathered(blocks, size_bytes=size_bytes)
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    upcoming = loop.run_in_executor(executor, next, blocks, b"")
    try:
        while block := await upcoming:
            upcoming = loop.run_in_executor(executor, next, blocks, b"")
            yield block
            del block
    finally:
        # Nobody takes it any more; the thread cannot be stopped within a piece.
        upcoming.cancel()
        interrupt()
        await asyncio.shield(asyncio.create_task(_close(blocks, executor), name=f"end {name}"))


async def measured(
    chunks: AsyncGenerator[bytes, None], *, read_bytes: Callable[[], int], on_read: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    """The chunks, and word of how much more was read of the app for each.

    Args:
        read_bytes: how much was read by now.
    """
    told = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            read = read_bytes()
            on_read(read - told)
            told = read
            yield chunk
            del chunk


async def _close(blocks: Generator[bytes, None, None], executor: ThreadPoolExecutor) -> None:
    # In the generator's own thread, so after the piece that it may be at.
    await asyncio.get_running_loop().run_in_executor(executor, blocks.close)
    executor.shutdown(wait=False)
