"""`mathison confirm`: which import it is about is asked first, so that what became of it can be asked when it breaks.

What the app's agent has begun to drop it drops to the end, whoever goes away: a lost connection says nothing of it.
"""

from __future__ import annotations

import asyncio

from cli.client import ConnectionLostError, Controller
from cli.failures import StoppedError, TransferBrokenError, UnreachableError
from cli.following import PATIENCE_SECONDS, last_import, settled_soon, settled_state
from cli.models import TransferState
from cli.progress import Gauge
from common.errors import NOTHING_CHANGED, AgentUnavailableError, InternalError, ServiceError


async def confirm_import(
    controller: Controller, gauge: Gauge, app_id: str, *, patience_seconds: float = PATIENCE_SECONDS
) -> bool:
    """Drop the data from before an app's last import; False when none was kept.

    Args:
        patience_seconds: how long a controller or agent that went away may take to come back.
    Raises:
        ServiceError: refused or failed; nothing was changed, unless its text says so.
        TransferBrokenError: the connection broke; the text says what is known of the outcome.
        StoppedError: Ctrl-C; likewise.
    """
    gauge.enter("dropping")
    transfer_id = await last_import(controller, app_id)
    try:
        try:
            return await controller.confirm(app_id, transfer_id)
        except (ConnectionLostError, AgentUnavailableError, InternalError) as failure:
            if not transfer_id or NOTHING_CHANGED in failure.text:
                raise
            gauge.enter("asking", "the connection broke; asking what became of it")
            return await _settle(controller, app_id, transfer_id, failure, patience_seconds=patience_seconds)
    except asyncio.CancelledError:
        gauge.enter("asking", "what has begun to be dropped is dropped; asking what became of it")
        raise await _stopped(controller, app_id, transfer_id) from None


async def _settle(
    controller: Controller,
    app_id: str,
    transfer_id: str,
    failure: ConnectionLostError | ServiceError,
    *,
    patience_seconds: float,
) -> bool:
    """After a lost connection, here or to the agent: whether the data is dropped, as `confirm_import` says it."""
    try:
        state = await settled_state(controller, transfer_id, _is_dropped, unreachable_seconds=patience_seconds)
    except (ServiceError, UnreachableError) as unknown:
        raise TransferBrokenError(
            f"{failure.text} Now nobody can be asked whether the data from before was dropped. It may have been.",
            next_step=f"Once the app's agent answers again, `mathison transfers {app_id}` tells whether import "
            f"{transfer_id} can still be undone.",
        ) from unknown
    if state.kept_until is not None:
        raise TransferBrokenError(
            f"{failure.text} The data from before was not dropped. {NOTHING_CHANGED}",
            next_step="Run the command again.",
        ) from failure
    return not state.undone


async def _stopped(controller: Controller, app_id: str, transfer_id: str) -> StoppedError:
    """After Ctrl-C, which does not bring back what has begun to be dropped."""
    state, _ = await settled_soon(controller, transfer_id, _is_dropped)
    if state is not None and state.kept_until is None and not state.undone:
        return StoppedError(
            f"Stopped too late: the data from before the last import of {app_id} is dropped. That import cannot be "
            "undone any more."
        )
    return StoppedError(
        "Stopped watching. The data from before may have been dropped, or may still be.",
        next_step=f"`mathison transfers {app_id}` tells whether the import can still be undone.",
    )


def _is_dropped(state: TransferState) -> bool:
    return state.kept_until is None
