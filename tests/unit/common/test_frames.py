"""Frames: only a checked end frame makes a stream whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.errors import (
    DigestMismatchError,
    InvalidRequestError,
    LimitExceededError,
    ServiceError,
    UploadIncompleteError,
)
from common.frames import MAX_CHUNK_BYTES, FrameReceiver
from common.headers import Receipt
from mathison.data.v1 import transfer_pb2 as wire

HEADER = wire.Frame(header=wire.ArchiveHeader(recipe="volume"))
# printf hello | sha256sum
HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
END = wire.Frame(end=wire.End(size_bytes=5, sha256=HELLO))


async def stream(*frames: wire.Frame) -> AsyncIterator[wire.Frame]:
    for frame in frames:
        yield frame


async def receive(*frames: wire.Frame, limit_bytes: int = 1 << 30) -> tuple[bytes, Receipt | None]:
    receiver = FrameReceiver(stream(*frames), limit_bytes=limit_bytes)
    await receiver.open()
    content = b"".join([chunk async for chunk in receiver.chunks()])
    return content, receiver.receipt


def chunk(content: bytes) -> wire.Frame:
    return wire.Frame(chunk=content)


async def test_what_is_whole_has_its_size_counts_and_warnings() -> None:
    end = wire.Frame(end=wire.End(size_bytes=5, sha256=HELLO, counts={"files": 2}, warnings=["one changed"]))

    content, receipt = await receive(HEADER, chunk(b"hel"), chunk(b"lo"), end)

    assert content == b"hello"
    assert receipt is not None
    assert (receipt.size_bytes, receipt.counts, receipt.warnings) == (5, {"files": 2}, ("one changed",))


async def test_progress_between_chunks_is_not_payload() -> None:
    progress = wire.Frame(progress=wire.Progress(read_bytes=1))

    content, _ = await receive(HEADER, progress, chunk(b"hel"), progress, chunk(b"lo"), END)

    assert content == b"hello"


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ((), UploadIncompleteError),
        ((HEADER,), UploadIncompleteError),
        ((HEADER, chunk(b"hello")), UploadIncompleteError),
        ((chunk(b"hello"), END), InvalidRequestError),
        ((HEADER, HEADER, chunk(b"hello"), END), InvalidRequestError),
        ((HEADER, chunk(b""), END), InvalidRequestError),
        ((HEADER, chunk(b"x" * (MAX_CHUNK_BYTES + 1)), END), InvalidRequestError),
        ((HEADER, chunk(b"hell"), END), DigestMismatchError),
        ((HEADER, chunk(b"hellO"), END), DigestMismatchError),
        ((HEADER, chunk(b"hello"), wire.Frame(end=wire.End(size_bytes=5))), DigestMismatchError),
        ((HEADER, chunk(b"x" * 11)), LimitExceededError),
    ],
    ids=[
        "nothing",
        "header only",
        "no end frame",
        "no header",
        "two headers",
        "empty chunk",
        "chunk too large",
        "a byte short",
        "a byte changed",
        "no digest",
        "over the limit",
    ],
)
async def test_a_stream_that_is_not_whole_is_a_typed_error(
    frames: tuple[wire.Frame, ...], error: type[ServiceError]
) -> None:
    with pytest.raises(error):
        await receive(*frames, limit_bytes=10 if error is LimitExceededError else 1 << 30)
