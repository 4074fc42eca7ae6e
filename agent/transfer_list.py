"""The transfers that the agent knows: the one that runs, imports that hold data, and the last that ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from agent.clock import Clock
from agent.history import History
from agent.journal import Entry, ImportPhase
from agent.progress import Tracker
from agent.states import TransferState
from common.errors import ServiceError, TransferNotFoundError
from common.transfer_ids import check_transfer_id


class Transfer:
    """One export or import.

    Attributes:
        entry: its line in the journal while it holds data beside the app's; None for exports.
        operation: the task that works on it now.
        has_begun: that task has run its first line; asyncio never runs one at all that is cancelled before.
        is_swap: its last operation is a restore or an undo, which nobody ends.
        is_cancellable: an operation is under way and may be ended without harm.
        cancelled_with: why it is being ended.
        failure: the error of its last operation.
    """

    def __init__(self, state: TransferState, clock: Clock, *, entry: Entry | None = None) -> None:
        self.transfer_id = state.transfer_id
        self.tracker = Tracker(state, clock)
        self.entry = entry
        self.operation: asyncio.Task[None] | None = None
        self.has_begun = False
        self.is_swap = False
        self.is_cancellable = False
        self.cancelled_with: ServiceError | None = None
        self.failure: ServiceError | None = None

    @property
    def state(self) -> TransferState:
        return self.tracker.state

    @property
    def phase(self) -> ImportPhase | None:
        """What it holds as the journal has it; None when it holds nothing."""
        return None if self.entry is None else self.entry.phase

    def cancel(self, error: ServiceError) -> None:
        """End its operation with an error, if that can still be done without harm."""
        if self.operation is not None and self.is_cancellable and self.cancelled_with is None:
            self.cancelled_with = error
            if self.has_begun:
                self.operation.cancel()


class TransferList:
    """All of them by id, the latest last; at most History.LIMIT beside those that hold data."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._transfers: dict[str, Transfer] = {}
        self._replaced: list[Transfer] = []

    def add(self, transfer: Transfer) -> None:
        """Add one, in place of an ended one with its id; what that could not drop yet is still known to `holding`."""
        replaced = self._transfers.pop(transfer.transfer_id, None)
        if replaced is not None and replaced.entry is not None:
            self._replaced.append(replaced)
        self._transfers[transfer.transfer_id] = transfer
        removable = [found for found in self._transfers.values() if found.entry is None and found.state.result]
        for found in removable[: max(0, len(self._transfers) - History.LIMIT)]:
            del self._transfers[found.transfer_id]

    def find(self, transfer_id: str) -> Transfer | None:
        return self._transfers.get(transfer_id)

    def get(self, transfer_id: str) -> Transfer:
        """As find; TransferNotFoundError when there is none."""
        transfer = self.find(check_transfer_id(transfer_id))
        if transfer is None:
            raise TransferNotFoundError(
                f"The agent knows no transfer {transfer_id}.", next_step="Look at the app's transfers."
            )
        return transfer

    def next_number(self) -> int:
        """Of the transfer that is added next; above all that are known."""
        return max((transfer.state.number for transfer in self._all()), default=0) + 1

    def latest_first(self) -> list[Transfer]:
        return list(reversed(self._transfers.values()))

    def holding(self, *phases: ImportPhase) -> list[Transfer]:
        """The imports whose journal entry is in one of these phases, latest first."""
        self._replaced = [transfer for transfer in self._replaced if transfer.entry is not None]
        return [transfer for transfer in self._all() if transfer.phase in phases]

    def _all(self) -> list[Transfer]:
        return [*self.latest_first(), *self._replaced]

    def remember(self) -> None:
        """Write the ended ones to the history, so that a repeated call is answered after a restart too."""
        ended = [found.state for found in self._transfers.values() if found.state.result and found.entry is None]
        self._history.write(ended)

    def restore(self, entries: Iterable[Entry], clock: Clock) -> None:
        """Fill the list when the agent starts, from the history and from the journal, in the order of before."""
        known = [Transfer(state, clock) for state in self._history.read()]
        known += [Transfer(entry.state, clock, entry=entry) for entry in entries]
        for transfer in sorted(known, key=lambda transfer: transfer.state.place):
            self.add(transfer)
