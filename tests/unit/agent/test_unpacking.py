"""Uploads lose their compression in a jailed child, whole or with a typed error."""

from __future__ import annotations

import asyncio
import gzip
import lzma
import os
from collections.abc import AsyncIterator

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import processes, unpacking
from agent.limits import Limits
from agent.processes import Command
from agent.unpacking import peeked, unpacked
from common.errors import (
    ArchiveDamagedError,
    ArchiveTruncatedError,
    LimitExceededError,
    ServiceError,
    ToolFailedError,
    UploadIncompleteError,
)
from tests.fixtures.children import agent_children
from tests.fixtures.waiting import until, until_still

CONTENT = bytes(range(256)) * 20_000


async def pieces(archive: bytes, *, piece_bytes: int = 100_000, error: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(archive), piece_bytes):
        yield archive[start : start + piece_bytes]
    if error is not None:
        raise error


async def unpack(upload: AsyncIterator[bytes], limits: Limits | None = None) -> tuple[bytes, tuple[str, ...]]:
    async with unpacked(upload, limits=limits or Limits()) as content:
        found = b"".join([chunk async for chunk in content.chunks])
    return found, content.layers


@pytest.mark.parametrize(
    ("archive", "layers"),
    [(CONTENT, ()), (gzip.compress(CONTENT), ("gzip",)), (gzip.compress(lzma.compress(CONTENT)), ("gzip", "xz"))],
    ids=["plain", "gzip", "xz in gzip"],
)
async def test_content_comes_out_and_the_layers_are_named(archive: bytes, layers: tuple[str, ...]) -> None:
    assert await unpack(pieces(archive)) == (CONTENT, layers)


@pytest.mark.parametrize("piece_bytes", [1, 3, 7])
async def test_the_first_bytes_may_come_one_by_one(piece_bytes: int) -> None:
    archive = gzip.compress(b"hello")

    assert await unpack(pieces(archive, piece_bytes=piece_bytes)) == (b"hello", ("gzip",))


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (gzip.compress(CONTENT)[:-5], ArchiveTruncatedError),
        (gzip.compress(CONTENT)[:-8] + b"12345678", ArchiveDamagedError),
        (b"\x1f\x8b" + b"not gzip at all", ArchiveDamagedError),
    ],
    ids=["cut", "wrong checksum", "garbage"],
)
async def test_what_does_not_check_out_is_a_typed_error(archive: bytes, error: type[ServiceError]) -> None:
    with pytest.raises(error):
        await unpack(pieces(archive))


@pytest.mark.parametrize("archive", [CONTENT, gzip.compress(CONTENT)], ids=["plain", "gzip"])
async def test_an_upload_that_breaks_off_raises_its_own_error_and_never_ends_normally(archive: bytes) -> None:
    with pytest.raises(UploadIncompleteError):
        await unpack(pieces(archive, error=UploadIncompleteError("cut")))


async def test_a_child_that_gives_all_and_does_not_say_that_it_was_whole_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpacking, "start", lambda command: processes.start(Command(["cat"])))

    with pytest.raises(ToolFailedError, match="did not say whether it is whole"):
        await unpack(pieces(gzip.compress(CONTENT)))


async def test_leaving_in_the_middle_ends_at_once_although_every_pipe_is_full() -> None:
    archive = gzip.compress(os.urandom(16 << 20), 0)

    async with asyncio.timeout(60), unpacked(pieces(archive), limits=Limits()) as content:
        await anext(content.chunks)
        [child] = agent_children()

        async def received_bytes() -> int:
            await until(lambda: child.status() == psutil.STATUS_SLEEPING)
            return content.received_bytes

        await until_still(received_bytes)

    assert content.received_bytes < len(archive)


async def test_a_bomb_is_stopped_by_its_size() -> None:
    bomb = gzip.compress(bytes(50 << 20))

    with pytest.raises(LimitExceededError):
        await unpack(pieces(bomb), Limits(content_bytes=10 << 20))


async def test_a_bomb_is_stopped_by_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "RATIO_COUNTS_FROM_BYTES", 1 << 20)
    bomb = gzip.compress(bytes(50 << 20))

    with pytest.raises(LimitExceededError, match="bomb"):
        await unpack(pieces(bomb))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=600), max_size=6))
async def test_looking_at_a_stream_takes_nothing_from_it(chunks: list[bytes]) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    head, whole = await peeked(stream(), head_bytes=500)

    assert head == b"".join(chunks)[:500]
    assert b"".join([chunk async for chunk in whole]) == b"".join(chunks)
