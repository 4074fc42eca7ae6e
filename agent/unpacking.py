"""The compression around an upload, taken off in a jailed child: decompressors are the least trusted code of an import.

An upload that is not compressed passes through. Size and expansion are limited while data flows, so a bomb ends early.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import msgspec

from agent.jail import Jail
from agent.limits import Limits
from agent.processes import Child, Command, feed, start
from common.codecs import HEAD_BYTES, codec_of
from common.errors import LimitExceededError, ToolFailedError, make_error

_JAIL = Jail(address_space_bytes=768 << 20)
"""xz -9 wants 65 MiB, zstd --long=27 128 MiB; the rest is Python and what its libraries map."""
RATIO_COUNTS_FROM_BYTES = 1 << 30
"""Small files may be as dense as they like: a gibibyte of zeros is a legitimate file."""


class _Report(msgspec.Struct, frozen=True):
    layers: tuple[str, ...] = ()
    reason: str = ""
    text: str = ""
    next_step: str = ""


class Content:
    """An upload without its compression.

    Attributes:
        chunks: the content; ends normally only when the upload did and every checksum held. Raises what the upload's
            own iterator raises, ArchiveTruncatedError, ArchiveDamagedError, ArchiveWrongKindError (a zip of several
            files), LimitExceededError.
        layers: names of what was taken off, from the outside in; complete once `chunks` has ended.
        received_bytes: how much of the upload was taken so far.
    """

    def __init__(self) -> None:
        self.chunks: AsyncGenerator[bytes, None]
        self.layers: tuple[str, ...] = ()
        self.received_bytes = 0


@asynccontextmanager
async def unpacked(upload: AsyncIterator[bytes], *, limits: Limits, unpack_zip: bool = True) -> AsyncIterator[Content]:
    """Look at the first bytes of an upload and take off up to two layers of gzip, zstd, xz or zip.

    Args:
        unpack_zip: False passes a zip on as it is, for recipes that read its members.
    """
    content = Content()
    received = _count(upload, content)
    head, whole = await peeked(received)
    codec = codec_of(head)
    if codec is None or (codec == "zip" and not unpack_zip):
        content.chunks = _limited(whole, content, limits)
    else:
        content.chunks = _limited(_from_child(whole, content, unpack_zip=unpack_zip), content, limits)
    async with aclosing(received), aclosing(whole), aclosing(content.chunks):
        yield content


async def peeked(
    chunks: AsyncIterator[bytes], *, head_bytes: int = HEAD_BYTES
) -> tuple[bytes, AsyncGenerator[bytes, None]]:
    """The first bytes of a stream, as many as are asked for if it has them, and all of it."""
    held: deque[bytes] = deque()
    async for chunk in chunks:
        held.append(chunk)
        if sum(map(len, held)) >= head_bytes:
            break
    return b"".join(held)[:head_bytes], rejoined(held, chunks)


async def _count(upload: AsyncIterator[bytes], content: Content) -> AsyncGenerator[bytes, None]:
    async for chunk in upload:
        content.received_bytes += len(chunk)
        yield chunk
        del chunk


async def rejoined(held: deque[bytes], rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What was taken from a stream already, and what comes; no chunk is held once it was given."""
    while held:
        yield held.popleft()
    async for chunk in rest:
        yield chunk
        del chunk


async def _limited(
    chunks: AsyncGenerator[bytes, None], content: Content, limits: Limits
) -> AsyncGenerator[bytes, None]:
    size = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            size += len(chunk)
            if size > limits.content_bytes:
                raise LimitExceededError(f"The archive holds more than the limit of {limits.content_bytes} bytes.")
            if size > RATIO_COUNTS_FROM_BYTES and size > content.received_bytes * limits.expansion_ratio:
                raise LimitExceededError(
                    f"The archive expands to more than {limits.expansion_ratio} times its size; that is a "
                    "decompression bomb or needs a higher limit.",
                    next_step="If the file is right, raise `expansion_ratio` in the agent's [limits].",
                )
            yield chunk
            del chunk


async def _from_child(
    upload: AsyncGenerator[bytes, None], content: Content, *, unpack_zip: bool
) -> AsyncGenerator[bytes, None]:
    argv = ["agent.unpacking_child", *(["unpack-zip"] if unpack_zip else [])]
    async with start(Command(argv, jail=_JAIL, is_module=True)) as child:
        feeding = asyncio.create_task(_feed_whole(child, upload), name="feed an upload to its unpacking")
        try:
            async for chunk in child.chunks():
                yield chunk
                del chunk
            # First what the upload itself says: when it was cut, that the child met a cut stream is no news.
            await feeding
            await child.wait()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        report = _report(child.stderr_tail)
        if report is not None and report.reason:
            raise make_error(report.reason, report.text, next_step=report.next_step)
        await child.check()
        if report is None:
            raise ToolFailedError("The archive was unpacked by a process that did not say whether it is whole.")
        content.layers = report.layers


async def _feed_whole(child: Child, upload: AsyncGenerator[bytes, None]) -> None:
    try:
        await feed(child, upload)
    except BaseException:
        # The child may end now; whoever reads its output meets this error before taking anything for complete.
        child.abort_stdin()
        raise


def _report(stderr: str) -> _Report | None:
    try:
        return msgspec.json.decode(stderr.rpartition("\n")[2], type=_Report)
    except msgspec.DecodeError:
        return None
