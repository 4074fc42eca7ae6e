"""One transfer: its state, its events, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import structlog
from aiohttp import hdrs, web

from common.errors import ServiceError
from common.transfer_ids import check_transfer_id
from controller.api.keys import CALLER, LIMITS, OPERATIONS, TRANSFER_ID
from controller.api.queries import read_query
from controller.api.shapes import answer, transfer_to_json
from mathison.data.v1.transfer_pb2 import TransferState

QUIET_SECONDS = 15.0
"""Silence after which a comment is sent, so that no proxy takes the connection for dead."""
_log = structlog.get_logger(__name__)


async def get_transfer(request: web.Request) -> web.Response:
    """GET /api/transfers/{id}."""
    app_id, transfer_id = await _find(request)
    state = await request.app[OPERATIONS].transfer(request[CALLER], app_id, transfer_id)
    return answer(transfer_to_json(state, app_id=app_id))


async def cancel_transfer(request: web.Request) -> web.Response:
    """DELETE /api/transfers/{id}: ends an export, or an import before its swap."""
    app_id, transfer_id = await _find(request)
    state = await request.app[OPERATIONS].cancel(request[CALLER], app_id, transfer_id)
    return answer(transfer_to_json(state, app_id=app_id))


async def follow_transfer(request: web.Request) -> web.StreamResponse:
    """GET /api/transfers/{id}/events: server-sent events, each the state as JSON; ends when the transfer is over.

    When the state cannot be followed any more the connection is dropped, which an EventSource meets as an error.
    """
    app_id, transfer_id = await _find(request)
    async with aclosing(request.app[OPERATIONS].watch(request[CALLER], app_id, transfer_id)) as states:
        first = await anext(states)
        events = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "text/event-stream",
                hdrs.CACHE_CONTROL: "no-store",
                "X-Accel-Buffering": "no",  # nginx would hold events back
            }
        )
        await events.prepare(request)
        try:
            stalled_seconds = request.app[LIMITS].stalled_caller_seconds
            await _send(events, first, states, app_id=app_id, stalled_seconds=stalled_seconds)
        except (ServiceError, ConnectionError, TimeoutError) as failure:
            cause = str(failure) or type(failure).__name__
            _log.info("A transfer is followed no longer.", action="follow", transfer_id=transfer_id, cause=cause)
            if request.transport is not None:
                request.transport.abort()
    return events


async def _find(request: web.Request) -> tuple[str, str]:
    read_query(request)
    request[TRANSFER_ID] = transfer_id = check_transfer_id(request.match_info["id"])
    return await request.app[OPERATIONS].app_of_transfer(request[CALLER], transfer_id), transfer_id


async def _send(
    events: web.StreamResponse,
    first: TransferState,
    states: AsyncGenerator[TransferState, None],
    *,
    app_id: str,
    stalled_seconds: float,
) -> None:
    async def write(text: bytes) -> None:
        async with asyncio.timeout(stalled_seconds):
            await events.write(text)

    async def next_state() -> TransferState | None:
        return await anext(states, None)

    state: TransferState | None = first
    while state is not None:
        await write(b"data: " + msgspec.json.encode(transfer_to_json(state, app_id=app_id)) + b"\n\n")
        following = asyncio.create_task(next_state(), name="next state of a transfer")
        try:
            while not (await asyncio.wait({following}, timeout=QUIET_SECONDS))[0]:
                await write(b": still here\n\n")
            state = following.result()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    await events.write_eof()
