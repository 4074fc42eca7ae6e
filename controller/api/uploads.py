"""A request's file as the frames of an upload.

The end frame is made only when the body was complete and its SHA-256 is the one that the caller announced, if any.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from aiohttp import hdrs, web

from common.errors import DigestMismatchError, InvalidRequestError
from common.frames import UPLOAD_CHUNK_BYTES, RunningDigest
from controller.api.bodies import SEND_AGAIN, Body, FormBody, RawBody, refuse_encodings
from controller.api.problems import ExpectationNotMetError
from controller.raw_frames import stage_request_of_chunk, stage_request_of_frame
from controller.relay import over_limit
from controller.settings import LimitSettings
from mathison.data.v1.transfer_pb2 import End, Frame


class Upload:
    """The file of one import request."""

    def __init__(self, request: web.Request, limits: LimitSettings) -> None:
        """Look at the request's headers only.

        Raises:
            InvalidRequestError: digests that cannot be understood, or a part of a file.
            ExpectationNotMetError: an Expect that asks for more than to be asked for the body.
            LimitExceededError: the announced length is over the limit.
            EncodingNotSupportedError: the body would have to be decoded.
        """
        self._request = request
        self._limit_bytes = limits.upload_bytes
        refuse_encodings(request.headers)
        if hdrs.CONTENT_RANGE in request.headers:  # as `curl --continue-at` sends it: the rest of a file, not the file
            raise InvalidRequestError(
                "A Content-Range says that this is a part of the file only.", next_step="Send the whole file."
            )
        if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            raise ExpectationNotMetError("The only expectation that is met is 100-continue.")
        kind = FormBody if request.content_type.startswith("multipart/") else RawBody
        self._body: Body = kind(request, stalled_seconds=limits.stalled_caller_seconds)
        if (request.content_length or 0) > self._limit_bytes:
            raise over_limit(self._limit_bytes)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Encoded StageRequests: header, chunks, end. Asks for the body, where the caller waits to be asked.

        Raises:
            UploadIncompleteError: the body was cut, or its sender fell silent.
            DigestMismatchError, LimitExceededError, InvalidRequestError: it must not be used.
        """
        await _ask_for_body(self._request)
        yield stage_request_of_frame(Frame(header=await self._body.open()))
        digest = RunningDigest()
        async for pieces in _chunks(self._body):
            size = sum(map(len, pieces))
            if digest.size_bytes + size > self._limit_bytes:
                raise over_limit(self._limit_bytes)
            encoded = stage_request_of_chunk(pieces)
            await digest.add(memoryview(encoded)[-size:])
            yield encoded
        await self._body.finish()
        sha256 = await digest.finish()
        for expected in self._body.expected_digests:
            if expected != sha256:
                raise DigestMismatchError(
                    f"The file's SHA-256 was announced as {expected}, but {sha256} arrived.", next_step=SEND_AGAIN
                )
        yield stage_request_of_frame(Frame(end=End(size_bytes=digest.size_bytes, sha256=sha256)))


async def ask_later(request: web.Request) -> None:
    """The route's answer to `Expect: 100-continue`: nothing, until the import is known to be let through."""


async def _ask_for_body(request: web.Request) -> None:
    if hdrs.EXPECT in request.headers and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp does: the answer has not begun


async def _chunks(body: Body) -> AsyncIterator[list[bytes]]:
    """The file in pieces that are about one chunk together."""
    pieces: list[bytes] = []
    size = 0
    while piece := await body.read(UPLOAD_CHUNK_BYTES - size):
        pieces.append(piece)
        size += len(piece)
        if size >= UPLOAD_CHUNK_BYTES:
            yield pieces
            pieces, size = [], 0
    if pieces:
        yield pieces
