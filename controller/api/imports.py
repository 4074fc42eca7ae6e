"""Import, undo, confirm: data in, back, and settled."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from common.errors import InternalError, unchanged
from controller.api.bodies import refuse_body
from controller.api.keys import CALLER, LIMITS, OPERATIONS, TRANSFER_HEADER, TRANSFER_ID
from controller.api.queries import read_query
from controller.api.shapes import answer, transfer_to_json
from controller.api.uploads import Upload
from controller.operations import Order, transfer_id_or_new
from mathison.data.v1.transfer_pb2 import TransferState


async def import_data(request: web.Request) -> web.Response:
    """POST /api/deployments/{id}/import-data: answers when the import is done, or staged in a dry run.

    A caller who leaves before the swap ends the import; one who leaves later finds its result under its id.
    """
    with unchanged():
        query = read_query(request, "dry_run", takes_options=True)
        order = Order(
            app_id=request.match_info["id"],
            transfer_id=transfer_id_or_new(request.headers.get(TRANSFER_HEADER, "")),
            options=query.options,
            is_dry_run=query.flag("dry_run"),
        )
        request[TRANSFER_ID] = order.transfer_id
        upload = Upload(request, request.app[LIMITS])
    states = request.app[OPERATIONS].import_data(request[CALLER], order, upload.frames())
    return await _last(states, app_id=order.app_id)


async def undo_import(request: web.Request) -> web.Response:
    """POST /api/deployments/{id}/undo-import[?transfer_id=]: back to the data from before; goes on when the caller
    leaves."""
    app_id, transfer_id = request.match_info["id"], await _read_transfer_id(request)
    return await _last(request.app[OPERATIONS].undo(request[CALLER], app_id, transfer_id), app_id=app_id)


async def confirm_import(request: web.Request) -> web.Response:
    """POST /api/deployments/{id}/confirm-import[?transfer_id=]: drop the data from before."""
    transfer_id = await _read_transfer_id(request)
    confirmed = await request.app[OPERATIONS].confirm(request[CALLER], request.match_info["id"], transfer_id)
    return answer({"confirmed": confirmed})


async def _read_transfer_id(request: web.Request) -> str:
    with unchanged():
        transfer_id = read_query(request, "transfer_id").text("transfer_id")
        await refuse_body(request, "transfer_id")
        return transfer_id


async def _last(states: AsyncGenerator[TransferState, None], *, app_id: str) -> web.Response:
    last: TransferState | None = None
    async with aclosing(states):
        async for state in states:
            last = state
    if last is None:
        raise InternalError("The transfer ended without a word.")
    made = answer(transfer_to_json(last, app_id=app_id))
    made.headers[TRANSFER_HEADER] = last.transfer_id
    return made
