"""What becomes of a transfer, asked on a second connection while the first one carries the bytes, or after it broke."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from cli.client import Controller
from cli.failures import UnreachableError
from cli.models import TransferState
from cli.progress import Gauge
from common.errors import NotPermittedError, ServiceError, TransferNotFoundError

RETRY_SECONDS = 0.5
STAGED_SECONDS = 10.0
"""A staged import is swapped in at once, or not at all."""
PATIENCE_SECONDS = 60.0
"""How long an import or undo whose connection broke is asked for: long enough for a controller to be started again."""
UNSETTLED_SECONDS = 20.0
"""How long after a fault or a broken connection until a person is told what keeps an import or undo from its end, and
how often that is asked: an agent tries to bring it there itself every 15 seconds."""
SWAP_SECONDS = 5.0
"""How long Ctrl-C waits for a swap that has begun; most take less, and then what became of it can be said."""
BEGIN_SECONDS = 2.0
"""How long after a broken connection an undo or a confirmation may take to begin: a controller looks for the agent."""
CANCEL_SECONDS = 10.0
"""How long Ctrl-C waits for the controller to answer at all."""


def new_transfer_id() -> str:
    """An id for a transfer that is about to be asked for: chosen here, so it can be followed from the first moment."""
    return f"cli-{secrets.token_hex(10)}"


@contextlib.asynccontextmanager
async def following(
    controller: Controller, transfer_id: str, on_state: Callable[[TransferState], None]
) -> AsyncGenerator[None, None]:
    """Report the transfer's state while the body runs. Only for showing: its failures are nobody's."""
    task = asyncio.create_task(_follow(controller, transfer_id, on_state), name=f"follow transfer {transfer_id}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow(controller: Controller, transfer_id: str, on_state: Callable[[TransferState], None]) -> None:
    while True:
        # The transfer is not known before its request has reached the agent, so "not found" is a reason to ask again.
        with contextlib.suppress(ServiceError, UnreachableError):
            async with aclosing(controller.watch(transfer_id)) as states:
                async for state in states:
                    on_state(state)
                    if state.result:
                        return
        await asyncio.sleep(RETRY_SECONDS)


def has_result(state: TransferState) -> bool:
    """Whether an export or import is over."""
    return bool(state.result)


class Settling:
    """Whether an undo or a confirmation is over, told by the states of its import.

    That import has succeeded all along: while the controller is on its way to the agent its state is the same as after
    an undo that came to nothing.

    Attributes:
        has_begun: the import was seen without its result, as it is while it is undone.
    """

    def __init__(self, is_done: Callable[[TransferState], bool], *, begin_seconds: float) -> None:
        self.has_begun = False
        self._is_done = is_done
        self._begins_until = time.monotonic() + begin_seconds

    def is_over(self, state: TransferState) -> bool:
        """Done, taken back, or not begun in time."""
        self.has_begun |= not state.result
        has_come_to_nothing = bool(state.result) and (self.has_begun or time.monotonic() > self._begins_until)
        return self._is_done(state) or has_come_to_nothing


async def final_state(
    controller: Controller,
    transfer_id: str,
    *,
    unreachable_seconds: float,
    running_seconds: float | None = None,
    is_over: Callable[[TransferState], bool] = has_result,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> TransferState:
    """The transfer's state once it is over.

    Args:
        unreachable_seconds: how long to go on asking a controller that does not answer.
        running_seconds: how long to wait for a transfer that runs; None: as long as it takes.
        meanwhile: called each time that it was not over when it was asked for.
    Returns:
        A state without a result when `running_seconds` passed, or when an import stays staged: then whoever was to have
        it swapped in has gone.
    Raises:
        UnreachableError: nobody could be asked for that long.
        TransferNotFoundError: the transfer never began.
    """
    answered_at = started_at = moved_at = time.monotonic()
    while True:
        try:
            state = await controller.transfer(transfer_id)
        except TransferNotFoundError:
            raise
        except (UnreachableError, ServiceError):
            if time.monotonic() - answered_at > unreachable_seconds:
                raise
        else:
            answered_at = time.monotonic()
            if state.phase != "staged":
                moved_at = answered_at
            has_waited = running_seconds is not None and answered_at - started_at > running_seconds
            if is_over(state) or has_waited or answered_at - moved_at > STAGED_SECONDS:
                return state
            if meanwhile is not None:
                await meanwhile()
        await asyncio.sleep(RETRY_SECONDS)


class Waiting:
    """Shows that an import or its undo is waited for, and says what keeps it from its end where its agent does not work
    on it now: each reason once."""

    def __init__(
        self, controller: Controller, gauge: Gauge, warn: Callable[[str], None], *, app_id: str, transfer_id: str
    ) -> None:
        self._controller = controller
        self._gauge = gauge
        self._warn = warn
        self._app_id = app_id
        self._transfer_id = transfer_id
        self._looks_at = time.monotonic() + UNSETTLED_SECONDS
        self._told = ""

    async def look(self) -> None:
        """It was asked for, and is not over; may be called often."""
        self._gauge.show()
        if time.monotonic() < self._looks_at:
            return
        with contextlib.suppress(ServiceError, UnreachableError):
            about = (await self._controller.app(self._app_id)).described()
            self._looks_at = time.monotonic() + UNSETTLED_SECONDS
            if about.running is None and about.import_obstacle not in ("", self._told):
                self._told = about.import_obstacle
                self._tell()

    def _tell(self) -> None:
        self._gauge.enter("waiting", "the app's agent tries again by itself")
        self._warn(
            f"{self._told} Until then nobody knows whether {self._app_id} has the data from before or the imported. "
            f"`mathison apps` tells whether this still holds, `mathison transfers {self._app_id}` what becomes of "
            f"{self._transfer_id}. The command waits for it; Ctrl-C ends the command alone."
        )


async def state_soon(
    controller: Controller, transfer_id: str, *, is_over: Callable[[TransferState], bool] = has_result
) -> TransferState | None:
    """For Ctrl-C: a transfer's state, once it is over or has had a little time for that; None where nobody answers.

    A controller that hangs keeps nobody.
    """
    with contextlib.suppress(ServiceError, UnreachableError, TimeoutError):
        async with asyncio.timeout(CANCEL_SECONDS):
            return await final_state(
                controller,
                transfer_id,
                unreachable_seconds=SWAP_SECONDS,
                running_seconds=SWAP_SECONDS,
                is_over=is_over,
            )
    return None


async def settled_state(
    controller: Controller,
    transfer_id: str,
    is_done: Callable[[TransferState], bool],
    *,
    unreachable_seconds: float,
    running_seconds: float | None = None,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> TransferState:
    """As `final_state`, for an import of which an undo or a confirmation was asked for, and whose connection broke."""
    settling = Settling(is_done, begin_seconds=BEGIN_SECONDS)
    return await final_state(
        controller,
        transfer_id,
        unreachable_seconds=unreachable_seconds,
        running_seconds=running_seconds,
        is_over=settling.is_over,
        meanwhile=meanwhile,
    )


async def settled_soon(
    controller: Controller, transfer_id: str, is_done: Callable[[TransferState], bool]
) -> tuple[TransferState | None, bool]:
    """As `state_soon`, likewise; and whether what was asked for was seen to begin."""
    settling = Settling(is_done, begin_seconds=SWAP_SECONDS)
    state = await state_soon(controller, transfer_id, is_over=settling.is_over) if transfer_id else None
    return state, settling.has_begun


async def last_import(controller: Controller, app_id: str) -> str:
    """The id of the import that can be undone or confirmed; empty where none is, which the agent gives the reasons of.

    Raises:
        AgentUnavailableError: the app's agent does not answer; says that nothing was changed.
    """
    try:
        app = await controller.app(app_id)
    except NotPermittedError:
        return ""  # a token may undo without being allowed to read
    kept = app.described().kept
    return kept.transfer_id if kept is not None else ""


async def cancel_quietly(controller: Controller, transfer_id: str) -> TransferState | ServiceError | None:
    """Ask for the transfer's end; the state after that, why it cannot be ended, or None where nobody answered."""
    try:
        return await asyncio.wait_for(controller.cancel(transfer_id), CANCEL_SECONDS)
    except ServiceError as refusal:
        return refusal
    except (UnreachableError, TimeoutError):
        return None


async def cancel_transfer(controller: Controller, app_id: str, transfer_id: str) -> TransferState:
    """End a transfer of this app; ids are unique within an app only, so one of another app is not taken for it."""
    state = await controller.transfer(transfer_id)
    if state.app_id and state.app_id != app_id:
        raise TransferNotFoundError(
            f"{transfer_id} is a transfer of {state.app_id}, not of {app_id}. Nothing was cancelled.",
            next_step=f"`mathison transfers {app_id}` lists those that there are.",
        )
    return await controller.cancel(transfer_id)
