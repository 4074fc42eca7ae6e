"""Frames taken apart into a byte stream, the end frame checked.

The one fact to know: a stream's own end proves nothing (grpc.aio meets a crashed sender as a normal end of the stream,
grpc/grpc#33038). Only a checked end frame makes `FrameReceiver.chunks` end normally.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from concurrent.futures import ThreadPoolExecutor

from common.errors import DigestMismatchError, InvalidRequestError, LimitExceededError, UploadIncompleteError
from common.headers import ArchiveHeader, Receipt
from mathison.data.v1 import transfer_pb2 as wire

CHUNK_BYTES = 1 << 20
"""Size of a chunk where we choose it: measured fastest over gRPC (64 KiB and 4 MiB are up to 40 % slower)."""
UPLOAD_CHUNK_BYTES = 512 << 10
"""Size of an upload's chunk. An agent holds some five at a time, and takes in no faster what is larger."""
LEAN_CHUNK_BYTES = 256 << 10
"""Size of an export's chunk where making it costs far more than passing it on: a quarter of the memory."""
MAX_CHUNK_BYTES = 2 << 20
"""Largest chunk accepted, below gRPC's default message limit of 4 MiB."""

IncomingFrame = wire.Frame | bytes
"""Bytes are a chunk that was taken out of its frame already."""

_AT_ONCE_BYTES = 256 << 10
"""Hashed in 0.2 ms; handing it to a thread would cost half of that."""
_DIGESTS = ThreadPoolExecutor(thread_name_prefix="digest")


class RunningDigest:
    """SHA-256 and size of a stream, computed beside the event loop: one chunk is hashed while the next is fetched."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._last: asyncio.Future[None] | None = None

    async def add(self, chunk: bytes | memoryview) -> None:
        """Count a chunk; returns once the one before is hashed, so at most two are held."""
        if self._last is not None:
            await self._last
            self._last = None
        self.size_bytes += len(chunk)
        if len(chunk) <= _AT_ONCE_BYTES:
            self._hash.update(chunk)
            return
        self._last = asyncio.get_running_loop().run_in_executor(_DIGESTS, self._hash.update, chunk)

    async def finish(self) -> str:
        """SHA-256 of everything added, 64 digits of lower-case hex."""
        if self._last is not None:
            await self._last
        return self._hash.hexdigest()

    async def check(self, receipt: Receipt) -> None:
        """Compare with what the sender counted; DigestMismatchError."""
        sha256 = await self.finish()
        if (receipt.size_bytes, receipt.sha256) != (self.size_bytes, sha256):
            raise DigestMismatchError(
                f"The sender counted {receipt.size_bytes} bytes with SHA-256 {receipt.sha256}, "
                f"but {self.size_bytes} bytes with SHA-256 {sha256} arrived.",
                next_step="Send the file again.",
            )


class FrameReceiver:
    """Takes frames apart and checks them.

    Attributes:
        header: set by `open`.
        receipt: the checked end frame; None until `chunks` has ended normally.
    """

    def __init__(self, frames: AsyncIterable[IncomingFrame], *, limit_bytes: int) -> None:
        """
        Args:
            limit_bytes: most payload accepted; the caller's quota, not a buffer size.
        """
        self.header = ArchiveHeader()
        self.receipt: Receipt | None = None
        self._frames = aiter(frames)
        self._limit_bytes = limit_bytes
        self._digest = RunningDigest()

    async def open(self) -> ArchiveHeader:
        """Read the header frame.

        Raises:
            UploadIncompleteError: the stream ended before it.
            InvalidRequestError: something else came first.
        """
        frame = await anext(self._frames, None)
        if frame is None:
            raise UploadIncompleteError("The stream ended before its first frame.")
        if isinstance(frame, bytes) or frame.WhichOneof("content") != "header":
            raise InvalidRequestError("The first frame has to be the header.")
        self.header = ArchiveHeader.from_proto(frame.header)
        return self.header

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The payload. Ends normally only after an end frame that agrees with what was received.

        Raises:
            UploadIncompleteError: the stream ended without an end frame.
            DigestMismatchError: size or SHA-256 differ.
            LimitExceededError: more than `limit_bytes`.
            InvalidRequestError: frames out of order, an empty or oversized chunk.
        """
        async for frame in self._frames:
            if isinstance(frame, bytes) or frame.WhichOneof("content") == "chunk":
                chunk = frame if isinstance(frame, bytes) else frame.chunk
                del frame
                if not 0 < len(chunk) <= MAX_CHUNK_BYTES:
                    raise InvalidRequestError(f"A chunk has 1 to {MAX_CHUNK_BYTES} bytes, not {len(chunk)}.")
                await self._digest.add(chunk)
                if self._digest.size_bytes > self._limit_bytes:
                    raise LimitExceededError(f"The archive is larger than the limit of {self._limit_bytes} bytes.")
                yield chunk
                del chunk  # there would otherwise be two while the next is waited for
                continue
            match frame.WhichOneof("content"):
                case "progress":
                    pass
                case "end":
                    receipt = Receipt.from_proto(frame.end)
                    await self._digest.check(receipt)
                    self.receipt = receipt
                    return
                case _:
                    raise InvalidRequestError("After the header come chunks, progress and the end frame only.")
        raise UploadIncompleteError(
            f"The stream stopped after {self._digest.size_bytes} bytes without saying that it was whole.",
            next_step="Send the file again.",
        )
