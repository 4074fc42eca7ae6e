"""Export: an archive as a download that is whole or visibly broken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

import structlog
from aiohttp import HttpVersion11, hdrs, web

from common.errors import InternalError, ServiceError
from controller.api.bodies import refuse_body
from controller.api.keys import CALLER, LIMITS, OPERATIONS, TRANSFER_HEADER, TRANSFER_ID
from controller.api.problems import HttpVersionTooOldError
from controller.api.queries import read_query
from controller.operations import Order, transfer_id_or_new
from controller.raw_frames import RawFrame
from mathison.data.v1.transfer_pb2 import ArchiveHeader

_log = structlog.get_logger(__name__)
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*", re.IGNORECASE)
_WRITE_BYTES = 256 << 10
"""Most that is given to the connection at a time. asyncio copies what the kernel does not take at once into memory made
for it: with whole chunks of 1 MiB this cost twice the CPU (0.9 s a GB, not 0.5; aiohttp 3.14, Python 3.11)."""
_PLAIN_OPTIONS = ("database", "fingerprint")
"""Options that may be asked for without `option.` before them."""
_Frames = AsyncGenerator[RawFrame, None]


async def export_data(request: web.Request) -> web.StreamResponse:
    """POST /api/deployments/{id}/export-data: the archive, streamed.

    The answer begins once the agent's header and first chunk are there, so what fails early is a clean problem. Its
    last HTTP chunk is sent only after the checked end frame; whatever fails in between drops the connection.
    """
    if request.version < HttpVersion11:
        raise HttpVersionTooOldError("An export needs HTTP/1.1 or newer.", next_step="Use another client or proxy.")
    query = read_query(request, "format", *_PLAIN_OPTIONS, takes_options=True)
    options = {**query.options, **{name: text for name in _PLAIN_OPTIONS if (text := query.text(name))}}
    order = Order(
        app_id=request.match_info["id"],
        transfer_id=transfer_id_or_new(request.headers.get(TRANSFER_HEADER, "")),
        format=query.text("format"),
        options=options,
    )
    request[TRANSFER_ID] = order.transfer_id
    await refuse_body(request, "format", "option.<name>")
    async with aclosing(request.app[OPERATIONS].export(request[CALLER], order)) as frames:
        header, first = await _beginning(frames)
        answer = web.StreamResponse(headers=_headers(header, order.transfer_id))
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        try:
            await _send(answer, first, frames, stalled_seconds=request.app[LIMITS].stalled_caller_seconds)
        except Exception as failure:
            _break_off(request, failure, transfer_id=order.transfer_id)
    return answer


async def _beginning(frames: _Frames) -> tuple[ArchiveHeader, RawFrame]:
    """The header, and the first chunk, or the end of an empty archive."""
    header = ArchiveHeader()
    async for frame in frames:
        if frame.kind == "header" and frame.message is not None:
            header = frame.message.header
        elif frame.kind != "progress":
            return header, frame
    raise InternalError("The archive has neither content nor end.")


async def _send(answer: web.StreamResponse, first: RawFrame, frames: _Frames, *, stalled_seconds: float) -> None:
    frame: RawFrame | None = first
    while frame is not None:
        async with asyncio.timeout(stalled_seconds):
            if frame.kind == "chunk":
                for start in range(0, len(frame.chunk), _WRITE_BYTES):
                    await answer.write(frame.chunk[start : start + _WRITE_BYTES])
            elif frame.kind == "end":
                await answer.write_eof()
        frame = await anext(frames, None)


def _break_off(request: web.Request, failure: Exception, *, transfer_id: str) -> None:
    """Drop the connection: without its last chunk no client takes the answer for whole."""
    _log.warning(
        "A download was broken off.",
        action="export",
        transfer_id=transfer_id,
        cause=failure.text if isinstance(failure, ServiceError) else type(failure).__name__,
        exc_info=not isinstance(failure, ServiceError | ConnectionError | TimeoutError),
    )
    if request.transport is not None:
        request.transport.abort()


def _headers(header: ArchiveHeader, transfer_id: str) -> dict[str, str]:
    media_type = header.media_type if _MEDIA_TYPE.fullmatch(header.media_type) else "application/octet-stream"
    return {
        hdrs.CONTENT_TYPE: media_type,
        hdrs.CONTENT_DISPOSITION: _disposition(header.file_name or "export"),
        hdrs.CACHE_CONTROL: "no-store",
        "X-Content-Type-Options": "nosniff",
        TRANSFER_HEADER: transfer_id,
        "Mathison-Recipe": _printable(header.recipe),
        "Mathison-Format": _printable(header.format),
        "Mathison-Engine-Version": _printable(header.engine_version),
    }


def _disposition(file_name: str) -> str:
    """RFC 6266: a plain name for old clients, the real one for all others."""
    name = re.split(r"[/\\]", file_name)[-1]
    plain = re.sub(r"[^ !#-$&-\[\]-~]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _printable(text: str) -> str:
    return re.sub(r"[^ -~]", "?", text)
