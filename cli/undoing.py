"""`mathison undo`: which import it is about is asked first, so that what became of it can be asked when it breaks.

An undo goes on in the app's agent when its caller or the controller goes away: a lost connection says nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cli.client import ConnectionLostError, Controller
from cli.failures import StoppedError, TransferBrokenError, UnreachableError
from cli.following import PATIENCE_SECONDS, Waiting, last_import, settled_soon, settled_state
from cli.models import TransferState
from cli.progress import Gauge
from common.errors import (
    NOTHING_CHANGED,
    AgentUnavailableError,
    InternalError,
    ServiceError,
)


async def undo_import(
    controller: Controller,
    gauge: Gauge,
    app_id: str,
    *,
    warn: Callable[[str], None],
    patience_seconds: float = PATIENCE_SECONDS,
) -> TransferState:
    """Put back the data from before an app's last import; returns once it is there.

    Args:
        warn: what a person should know while the command waits.
        patience_seconds: how long a controller or agent that went away may take to come back.
    Raises:
        ServiceError: refused or failed; nothing was changed, unless its text says so.
        TransferBrokenError: the connection broke; the text says what is known of the outcome.
        StoppedError: Ctrl-C; likewise.
    """
    gauge.enter("putting back")
    transfer_id = await last_import(controller, app_id)
    try:
        try:
            return await controller.undo(app_id, transfer_id)
        except (ConnectionLostError, AgentUnavailableError, InternalError) as failure:
            if not transfer_id:
                raise
            ended_by = "a fault ended it" if isinstance(failure, InternalError) else "the connection broke"
            gauge.enter("asking", f"{ended_by}; asking what became of the undo")
            waiting = Waiting(controller, gauge, warn, app_id=app_id, transfer_id=transfer_id)
            return await _settle(controller, app_id, transfer_id, failure, waiting, patience_seconds=patience_seconds)
    except asyncio.CancelledError:
        gauge.enter("asking", "an undo goes on; asking what becomes of it")
        raise await _stopped(controller, app_id, transfer_id) from None


async def _settle(
    controller: Controller,
    app_id: str,
    transfer_id: str,
    failure: ConnectionLostError | ServiceError,
    waiting: Waiting,
    *,
    patience_seconds: float,
) -> TransferState:
    """After a lost connection, here or to the agent: the import's state, if it is undone."""
    broken = failure.text.removesuffix(NOTHING_CHANGED).rstrip()
    has_ended = isinstance(failure, InternalError)
    try:
        state = await settled_state(
            controller,
            transfer_id,
            _is_undone,
            unreachable_seconds=patience_seconds,
            # The agent may go on for ever to put right what ended so.
            running_seconds=patience_seconds if has_ended else None,
            meanwhile=waiting.look,
        )
    except (ServiceError, UnreachableError) as unknown:
        raise TransferBrokenError(
            f"{broken} Now nobody can be asked what became of the undo. It may have been carried out: either all of it "
            "or nothing.",
            next_step=f"Once the app's agent answers again, `mathison transfers {app_id}` tells whether import "
            f"{transfer_id} is undone.",
        ) from unknown
    if has_ended and not state.result:
        raise TransferBrokenError(
            f"{broken} The app is not brought to one side yet; its agent goes on trying.",
            next_step=f"`mathison apps` tells what it waits for, `mathison transfers {app_id}` whether import "
            f"{transfer_id} is undone.",
        ) from failure
    if not state.undone:
        raise TransferBrokenError(
            f"{broken} The undo was not carried out. Nothing was changed.", next_step="Run the command again."
        ) from failure
    return state


async def _stopped(controller: Controller, app_id: str, transfer_id: str) -> StoppedError:
    """After Ctrl-C, which does not end an undo."""
    state, has_begun = await settled_soon(controller, transfer_id, _is_undone)
    if state is not None and state.undone:
        return StoppedError(f"Stopped too late: the undo is done, and {app_id} has the data from before the import.")
    if state is not None and state.result and has_begun:
        return StoppedError(f"Stopped. The undo failed, and {app_id} has the imported data. {NOTHING_CHANGED}")
    return StoppedError(
        "Stopped watching, but an undo that was asked for goes on: the agent finishes it, or takes it back.",
        next_step=f"`mathison transfers {app_id}` tells whether the import is undone.",
    )


def _is_undone(state: TransferState) -> bool:
    return state.undone
