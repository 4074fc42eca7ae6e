"""All transfers of one app, as callers ask for them.

An export or a stage ends with its caller; a restore or an undo goes on without. What an import holds is let go of by
the next import, by a caller, or by `agent.housekeeping` when its time is over.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from agent.clock import Clock
from agent.descriptions import describe
from agent.exports import ExportPipe, OutgoingFrame
from agent.faults import given_up
from agent.history import History
from agent.housekeeping import Housekeeping
from agent.imports import Imports
from agent.journal import ImportPhase, Journal
from agent.operations import Operations
from agent.progress import GAP_SECONDS
from agent.receiving import unless_idle
from agent.recipes.base import Capability, Description, ExportOptions, Format, Limits, Recipe
from agent.repeats import check_order, check_still_there, check_upload, is_spent, order_of
from agent.states import Kind, TransferState
from agent.steps import Unwatched
from agent.transfer_list import Transfer, TransferList
from agent.versions import UnknownVersionError
from common.errors import (
    CancelledError,
    FormatNotSupportedError,
    NothingToUndoError,
    ServiceError,
    TransferInProgressError,
    TransferNotFoundError,
    unchanged,
)
from common.fingerprints import Fingerprint
from common.frames import IncomingFrame
from common.transfer_ids import check_transfer_id

_CALLER_LEFT = "The caller went away."


@dataclass(frozen=True)
class TransferRules:
    """What imports may cost, and how long things are kept and waited for; see agent.settings."""

    limits: Limits
    keep_previous: dt.timedelta
    keep_staged: dt.timedelta
    idle_seconds: float
    event_gap_seconds: float = GAP_SECONDS


@dataclass(frozen=True)
class Overview:
    """The app and what goes on with it."""

    description: Description
    running: TransferState | None
    kept: TransferState | None


@dataclass(frozen=True)
class FingerprintTaken:
    """What the app's content was, and when the reading of it began."""

    fingerprint: Fingerprint
    taken_at: dt.datetime


class Transfers:
    """What one app's agent can be asked to do."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        app_id: str,
        made_by: str,
        journal: Journal,
        history: History,
        rules: TransferRules,
        clock: Clock,
    ) -> None:
        self._recipe = recipe
        self._app_id = app_id
        self._made_by = made_by
        self._rules = rules
        self._clock = clock
        self._transfers = TransferList(history)
        self._operations = Operations(self._transfers, clock, app_id=app_id, gap_seconds=rules.event_gap_seconds)
        self._imports = Imports(
            recipe,
            journal,
            self._transfers,
            clock,
            limits=rules.limits,
            keep_staged=rules.keep_staged,
            keep_previous=rules.keep_previous,
            idle_seconds=rules.idle_seconds,
        )
        self.housekeeping = Housekeeping(self._imports, journal, self._transfers, self._operations, clock)

    async def overview(self) -> Overview:
        """Describe the app; always comes, within seconds."""
        description = await describe(self._recipe)
        if unsettled := self.housekeeping.unsettled(only_reads=True):
            description = dataclasses.replace(description, can_export=Capability(_with_next_step(unsettled)))
        if unsettled := self.housekeeping.unsettled():
            description = dataclasses.replace(description, can_import=Capability(_with_next_step(unsettled)))
        running = self._operations.running
        kept = self._transfers.holding(ImportPhase.KEPT)
        return Overview(
            description=description,
            running=running.state if running else None,
            kept=kept[0].state if kept else None,
        )

    def list(self) -> list[TransferState]:
        """The transfers that are remembered, latest first."""
        return [transfer.state for transfer in self._transfers.latest_first()][: History.LIMIT]

    def watch(self, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        """The state of one transfer now and at each change until it is over."""
        return self._operations.watch(self._transfers.get(transfer_id))

    async def export(
        self, transfer_id: str, format_name: str, options: Mapping[str, str]
    ) -> AsyncGenerator[OutgoingFrame, None]:
        """The frames of a new archive; leaving early ends the dump.

        Args:
            format_name: empty: the recipe's first.
        Raises:
            FormatNotSupportedError: the recipe does not write that format.
            InvalidRequestError: the id was used for another transfer.
            ServiceError: the dump failed; no end frame came.
        """
        chosen = self._format(format_name)
        order = order_of(Kind.EXPORT, options, format=chosen.name)
        self._done_before(transfer_id, order)
        transfer = self._begin(transfer_id, Kind.EXPORT, order)
        day = self._clock.now().date().isoformat()
        export_options = ExportOptions(
            format=chosen,
            app_id=self._app_id,
            file_name=f"{self._app_id.replace('.', '-')}-{day}{chosen.suffix}",
            options=options,
        )
        pipe = ExportPipe(transfer, self._clock, idle_seconds=self._rules.idle_seconds)
        self._operations.start(
            transfer,
            lambda: pipe.produce(self._recipe, export_options, made_by=self._made_by),
            on_end=pipe.close,
        )
        try:
            async with aclosing(pipe.deliver()) as frames:
                async for frame in frames:
                    yield frame
        finally:
            await self._operations.end(transfer, CancelledError(_CALLER_LEFT))
        if transfer.failure is not None:
            raise transfer.failure

    async def fingerprint(self) -> FingerprintTaken:
        """The fingerprint of the app's content now; leaving early ends the reading."""
        self._refuse_if_occupied(only_reads=True)
        async with self._operations.reading():
            taken_at = self._clock.now()
            return FingerprintTaken(await self._recipe.fingerprint(Unwatched()), taken_at)

    async def stage(
        self, transfer_id: str, frames: AsyncIterator[IncomingFrame], options: Mapping[str, str], *, dry_run: bool
    ) -> AsyncGenerator[TransferState, None]:
        """Build an upload beside the app's data; leaving early drops it.

        One that is staged or done is only told, once the upload has arrived and is the same.

        Raises:
            InvalidRequestError: the id was used for another transfer, or for an import that is not there any more.
        """
        order = order_of(Kind.IMPORT, options, dry_run=dry_run)
        with unchanged():
            known = self._done_before(transfer_id, order)
            if known is None:
                transfer = self._begin(transfer_id, Kind.IMPORT, order)
            else:
                await self._check_repeat(known, frames, order)
        if known is not None:
            yield known.state
            return
        self._operations.start(transfer, lambda: self._imports.stage(transfer, frames, options, dry_run=dry_run))
        try:
            async with aclosing(self._operations.follow(transfer)) as states:
                async for state in states:
                    yield state
        finally:
            await self._operations.end(transfer, CancelledError(_CALLER_LEFT))

    @unchanged()
    def restore(self, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        """Swap what is staged in; begun on return, and goes on when the caller leaves."""
        try:
            transfer = self._transfers.get(transfer_id)
        except TransferNotFoundError:
            # It may be the one of the line that is not read.
            if unsettled := self.housekeeping.unsettled():
                raise unsettled from None
            raise
        if transfer.state.is_done_import and not transfer.state.undone:
            return _one(transfer.state)
        self._refuse_if_occupied()
        if transfer.phase is not ImportPhase.STAGED:
            raise TransferNotFoundError(
                f"Nothing is staged under {transfer_id}.", next_step="Send the archive again, then restore it."
            )
        self._operations.start(transfer, lambda: self._imports.restore(transfer), is_swap=True)
        return self._operations.follow(transfer)

    @unchanged()
    def undo(self, transfer_id: str) -> AsyncGenerator[TransferState, None]:
        """Swap the previous data back in; begun on return, and goes on when the caller leaves.

        Args:
            transfer_id: empty: the latest import whose previous data is kept.
        """
        transfer = self._find(transfer_id, ImportPhase.KEPT)
        if transfer is not None and transfer.state.undone:
            return _one(transfer.state)
        self._refuse_if_occupied()
        if transfer is None or transfer.phase is not ImportPhase.KEPT:
            raise NothingToUndoError(
                "No data from before an import is kept: never imported, undone already, confirmed, or its time is "
                "over.",
                next_step="The app's transfers tell which; an export from before can be imported.",
            )
        kept = transfer
        self._operations.start(kept, lambda: self._imports.undo(kept), is_swap=True)
        return self._operations.follow(kept)

    async def discard(self, transfer_id: str) -> bool:
        """Drop what an import holds; False when there is nothing.

        Args:
            transfer_id: empty: the latest import whose previous data is kept; without one, the latest that holds any.
        Raises:
            UnknownVersionError: an agent of another version noted what it is; nothing was changed.
            ServiceError: it could not be dropped yet; it is given up all the same.
        """
        phases = (ImportPhase.STAGED, ImportPhase.KEPT, ImportPhase.DROPPING)
        with unchanged():
            self._refuse_if_occupied()
            transfer = self._find(transfer_id, ImportPhase.KEPT) or self._find(transfer_id, *phases)
        if transfer is None or transfer.phase not in phases:
            return False
        async with self._operations.recipe_lock:
            failure = await self._imports.abandon(transfer, CancelledError("The staged import was discarded."))
        if failure is not None:
            raise failure if isinstance(failure, UnknownVersionError) else given_up(transfer.transfer_id, failure)
        return True

    async def cancel(self, transfer_id: str) -> TransferState:
        """End a running export or stage, or drop what is staged; returns when that is done.

        One that ends already, by another cancel, its caller's leaving or a failure, is waited for.

        Returns:
            Its state then. A transfer that was over before has not been changed.
        Raises:
            TransferInProgressError: its data is being swapped in or back.
        """
        transfer = self._transfers.get(transfer_id)
        reason = CancelledError("The transfer was cancelled.")
        if self._operations.running is transfer and not transfer.is_swap:
            await self._operations.end(transfer, reason)
        if self._operations.running is transfer:
            raise TransferInProgressError(
                f"Transfer {transfer_id} is too far to be cancelled; it will be finished or taken back.",
                next_step="Watch it; an import can be undone afterwards.",
            )
        if transfer.phase is ImportPhase.STAGED:
            async with self._operations.recipe_lock:
                await self._imports.abandon(transfer, reason)
        return transfer.state

    async def close(self, grace_seconds: float) -> bool:
        """Take nothing new and end; False when a restore or an undo outlasted the grace period."""
        return await self._operations.close(grace_seconds)

    def _format(self, name: str) -> Format:
        formats = self._recipe.export_formats
        for found in formats:
            if name in (found.name, ""):
                return found
        raise FormatNotSupportedError(
            f"There is no format {name!r}.", next_step=f"Choose one of {', '.join(found.name for found in formats)}."
        )

    def _find(self, transfer_id: str, *phases: ImportPhase) -> Transfer | None:
        """The transfer of that id; without an id the latest that holds data in one of these phases."""
        if transfer_id:
            return self._transfers.find(check_transfer_id(transfer_id))
        return next(iter(self._transfers.holding(*phases)), None)

    def _refuse_if_occupied(self, *, only_reads: bool = False) -> None:
        self._operations.refuse_if_occupied()
        if unsettled := self.housekeeping.unsettled(only_reads=only_reads):
            raise unsettled

    def _done_before(self, transfer_id: str, order: str) -> Transfer | None:
        """What the id stands for, if the same is asked for again; None when it is free, or worked on now.

        Raises:
            InvalidRequestError: something else is asked for, or its data is not the app's any more.
        """
        known = self._transfers.find(check_transfer_id(transfer_id))
        if known is None or known is self._operations.running:
            return None
        if not is_spent(known.state, is_staged=known.phase is ImportPhase.STAGED):
            return None
        check_order(known.state, order)
        check_still_there(known.state, (other.state for other in self._transfers.latest_first()))
        return known

    async def _check_repeat(self, known: Transfer, frames: AsyncIterator[IncomingFrame], order: str) -> None:
        """Returns once the upload has arrived and turned out to be the one that `known` stands for."""
        async with aclosing(unless_idle(frames, self._rules.idle_seconds)) as patient_frames:
            await check_upload(known.state, patient_frames, limit_bytes=self._rules.limits.archive_bytes)
        if self._done_before(known.transfer_id, order) is not known:
            raise TransferInProgressError(
                f"Transfer {known.transfer_id} went on or was dropped meanwhile.",
                next_step="Look at it, then ask again.",
            )

    def _begin(self, transfer_id: str, kind: Kind, order: str) -> Transfer:
        self._refuse_if_occupied(only_reads=kind is Kind.EXPORT)
        state = TransferState(
            transfer_id=transfer_id,
            kind=kind,
            started_at=self._clock.now(),
            number=self._transfers.next_number(),
            order=order,
        )
        transfer = Transfer(state, self._clock)
        self._transfers.add(transfer)
        return transfer


def _with_next_step(error: ServiceError) -> str:
    return f"{error.text} {error.next_step}"


async def _one(state: TransferState) -> AsyncGenerator[TransferState, None]:
    yield state
