"""What callers are told of what should not happen: where to look, no details."""

from __future__ import annotations

from common.errors import AppUnavailableError, InternalError, ServiceError


def fault_of(transfer_id: str) -> InternalError:
    """A fault of ours ended an operation."""
    return InternalError(f"A fault of the agent ended this; its log has the cause under {transfer_id}.")


def outcome_unknown(transfer_id: str, obstacle: AppUnavailableError) -> AppUnavailableError:
    """The app went away in the middle of a swap and is not back."""
    error = AppUnavailableError(
        f"The app went away in the middle of import {transfer_id}; which data it has is not known before it answers "
        f"again: {obstacle.text}",
        next_step="Start the app again if it does not come back by itself; the agent then brings it to one side.",
    )
    error.says_what_changed = True
    return error


def given_up(transfer_id: str, obstacle: ServiceError) -> ServiceError:
    """The obstacle, with what became of data that was to be dropped and could not be removed yet."""
    obstacle.text = (
        f"{obstacle.text} What import {transfer_id} held is given up all the same and cannot be brought back; the "
        "agent goes on trying to remove it."
    )
    obstacle.args = (obstacle.text,)
    obstacle.says_what_changed = True
    return obstacle
