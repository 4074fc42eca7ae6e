"""What an import goes through: staged, restored, undone or dropped, and settled after a crash.

The journal is a step ahead of the recipe at every point, so a kill -9 anywhere leaves an entry from which the next
start knows what to do. Nothing here runs twice at a time: `agent.transfers` holds the lock.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping

import msgspec
import structlog

from agent.clock import Clock
from agent.descriptions import describe
from agent.faults import fault_of, outcome_unknown
from agent.journal import Entry, ImportPhase, Journal
from agent.receiving import ReceivingProgress, opened, received
from agent.recipes.base import Limits, Preview, Recipe, Recovered, Step
from agent.states import Failure, Phase, Result
from agent.transfer_list import Transfer, TransferList
from agent.versions import UnknownVersionError
from common.errors import (
    AppUnavailableError,
    ArchiveError,
    CancelledError,
    InternalError,
    NoSpaceError,
    NothingToUndoError,
    ServiceError,
    TransferNotFoundError,
    say_unchanged,
    unchanged,
)
from common.frames import FrameReceiver, IncomingFrame
from common.headers import Receipt

TIDY_SECONDS = 30.0
"""For an app that hangs: its agent has to start all the same."""
_log = structlog.get_logger(__name__)


class Imports:
    """The operations on one app's imports."""

    def __init__(
        self,
        recipe: Recipe,
        journal: Journal,
        transfers: TransferList,
        clock: Clock,
        *,
        limits: Limits,
        keep_staged: dt.timedelta,
        keep_previous: dt.timedelta,
        idle_seconds: float,
    ) -> None:
        self._recipe = recipe
        self._journal = journal
        self._transfers = transfers
        self._clock = clock
        self._limits = limits
        self._keep_staged = keep_staged
        self._keep_previous = keep_previous
        self._idle_seconds = idle_seconds

    async def stage(
        self, transfer: Transfer, frames: AsyncIterator[IncomingFrame], options: Mapping[str, str], *, dry_run: bool
    ) -> None:
        """Build an upload beside the app's data. Whatever goes wrong, nothing of it stays.

        An import that an earlier Stage left is dropped first: its room may be needed. The previous data of a restored
        import stays until this one is restored.
        """
        with unchanged():
            await self._stage(transfer, frames, options, dry_run=dry_run)

    async def _stage(
        self, transfer: Transfer, frames: AsyncIterator[IncomingFrame], options: Mapping[str, str], *, dry_run: bool
    ) -> None:
        for earlier in self._transfers.holding(ImportPhase.STAGED):
            await self.give_up(
                earlier, CancelledError("A new import took the place of this one before it was restored.")
            )
        tracker = transfer.tracker
        limit_bytes = self._limits.archive_bytes
        async with opened(frames, tracker, limit_bytes=limit_bytes, idle_seconds=self._idle_seconds) as receiver:
            transfer.entry = self._journal.open(tracker.state)
            try:
                preview = await self._build(transfer, transfer.entry, receiver, options)
                transfer.is_cancellable = False
                if not dry_run:
                    tracker.update(phase=Phase.STAGED, note="")
                    expires_at = self._clock.now() + self._keep_staged
                    transfer.entry.move(ImportPhase.STAGED, transfer.state, expires_at=expires_at)
            except BaseException:
                # A second cancel would cut the cleaning up short.
                transfer.is_cancellable = False
                await self._drop(transfer, transfer.entry)
                raise
        if dry_run:
            await self._drop(transfer, transfer.entry)
            tracker.update(phase=Phase.STAGED, note="", result=Result.SUCCEEDED, ended_at=self._clock.now())
        _log.info(
            "An archive was staged.",
            action="stage",
            transfer_id=transfer.transfer_id,
            dry_run=dry_run,
            changes=list(preview.changes),
        )

    async def _build(
        self, transfer: Transfer, entry: Entry, receiver: FrameReceiver, options: Mapping[str, str]
    ) -> Preview:
        tracker = transfer.tracker
        began = self._clock.monotonic()
        async with received(receiver, tracker, options) as upload:
            preview = await self._recipe.stage(upload, entry, ReceivingProgress(tracker))
        if receiver.receipt is None:
            raise RuntimeError("the upload ended without its end frame, and nothing raised")
        description = await describe(self._recipe)
        staged: dict[str, object] = {
            "preview": preview,
            # The rest of its end frame is the sender's word, which nobody has checked.
            "receipt": Receipt(size_bytes=receiver.receipt.size_bytes, sha256=receiver.receipt.sha256),
            "header": (preview.header or receiver.header).abridged(),
            "needs_app_stop": description.import_needs_app_stop,
            "stage_seconds": self._clock.monotonic() - began,
        }
        # What cannot be told to a caller must not stay: it would stand in the way of every later list of transfers.
        msgspec.structs.replace(tracker.state, **staged).to_proto()
        tracker.update(**staged)
        return preview

    async def restore(self, transfer: Transfer) -> None:
        """Swap what is staged in. Fails with it still staged, or, after a fault or because of what the file is, with
        nothing of it left and the app's data as it was."""
        entry = transfer.entry
        if entry is None or entry.phase is not ImportPhase.STAGED:
            raise TransferNotFoundError(f"Nothing is staged under {transfer.transfer_id} any more.")
        tracker = transfer.tracker
        tracker.step(Step.RESTORING)
        tracker.update(swap_failure=None)
        try:
            entry.move(ImportPhase.RESTORING, tracker.state)
            told = await self._recipe.restore(entry, tracker)
        except ArchiveError as refusal:
            say_unchanged(refusal)
            self._fail(transfer, refusal)
            await self._drop(transfer, entry)
            raise
        except ServiceError as error:
            say_unchanged(error)
            _tell_way_out(error, entry)
            note = f"The last attempt failed: {error.text}"
            tracker.update(phase=Phase.STAGED, note=note, swap_failure=Failure.of(error))
            self._move(transfer, entry, ImportPhase.STAGED, expires_at=self._clock.now() + self._keep_staged)
            raise
        except Exception as fault:
            answer = await self._settle_after_fault(transfer, "restore")
            if transfer.phase is not ImportPhase.KEPT:
                raise answer from fault
        else:
            self._keep(transfer, entry, note=told or "")
        await self.drop_superseded()

    def _keep(self, transfer: Transfer, entry: Entry, *, note: str = "") -> None:
        now = self._clock.now()
        transfer.tracker.update(
            phase=Phase.DONE,
            note=note,
            result=Result.SUCCEEDED,
            ended_at=now,
            kept_until=now + self._keep_previous,
        )
        self._move(transfer, entry, ImportPhase.KEPT, expires_at=transfer.state.kept_until)

    async def drop_superseded(self) -> None:
        """Only the latest restored import can be undone: let go of what others still keep."""
        for earlier in self._transfers.holding(ImportPhase.KEPT)[1:]:
            await self.abandon(earlier)

    async def undo(self, transfer: Transfer) -> None:
        """Swap the previous data back in. Fails with the imported data in place and the previous still kept."""
        entry = transfer.entry
        if entry is None or entry.phase is not ImportPhase.KEPT:
            raise NothingToUndoError(f"The data from before import {transfer.transfer_id} is not kept any more.")
        tracker, before = transfer.tracker, transfer.state
        tracker.update(phase=Phase.UNDOING, note="", result=None, ended_at=None)
        try:
            entry.move(ImportPhase.UNDOING, tracker.state, expires_at=entry.expires_at)
            told = await self._recipe.undo(entry, tracker)
        except ServiceError as error:
            say_unchanged(error)
            _tell_way_out(error, entry)
            tracker.update(phase=before.phase, note=before.note, result=before.result, ended_at=before.ended_at)
            self._move(transfer, entry, ImportPhase.KEPT, expires_at=entry.expires_at)
            raise
        except Exception as fault:
            answer = await self._settle_after_fault(transfer, "undo")
            if not transfer.state.undone:
                raise answer from fault
        else:
            self._mark_undone(transfer, note=told or "")
            entry.remove()
            transfer.entry = None

    def _mark_undone(self, transfer: Transfer, *, note: str = "") -> None:
        transfer.tracker.update(
            phase=Phase.DONE,
            note=note,
            result=Result.SUCCEEDED,
            ended_at=self._clock.now(),
            kept_until=None,
            undone=True,
        )

    async def abandon(self, transfer: Transfer, reason: ServiceError | None = None) -> ServiceError | None:
        """Drop what an import holds: a staged copy, or the previous data.

        Args:
            reason: becomes the error of an import that was only staged.
        Returns:
            Why it could not be dropped yet; it will be tried again. UnknownVersionError: it is left alone as it was.
        """
        entry = transfer.entry
        if entry is None:
            return None
        if entry.phase is ImportPhase.STAGED and reason is not None:
            transfer.tracker.update(
                phase=Phase.DONE,
                note="",
                result=Result.CANCELLED,
                failure=Failure.of(reason),
                ended_at=self._clock.now(),
            )
        failure = await self._drop(transfer, entry)
        self._transfers.remember()
        return failure

    async def give_up(self, transfer: Transfer, reason: ServiceError) -> None:
        """Drop what an import holds and nobody asked for any more; one whose swap had failed ends with that."""
        if transfer.phase is ImportPhase.STAGED and transfer.state.swap_failure is not None:
            self._fail(transfer, transfer.state.swap_failure.to_error())
        await self.abandon(transfer, reason if transfer.state.result is None else None)

    async def _drop(self, transfer: Transfer, entry: Entry) -> ServiceError | None:
        phase, expires_at, kept_until = entry.phase, entry.expires_at, transfer.state.kept_until
        transfer.tracker.update(kept_until=None)
        self._move(transfer, entry, ImportPhase.DROPPING)
        try:
            await self._recipe.discard(entry)
            entry.remove()
        except UnknownVersionError as cause:
            transfer.tracker.update(kept_until=kept_until)
            self._move(transfer, entry, phase, expires_at=expires_at)
            transfer.entry = None
            return self._journal.leave_alone(entry, cause)
        except Exception as fault:
            _log.warning(
                "What an import held could not be dropped; it will be tried again.",
                action="discard",
                transfer_id=transfer.transfer_id,
                error=str(fault),
                exc_info=not isinstance(fault, ServiceError),
            )
            if isinstance(fault, ServiceError):
                return fault
            return InternalError(
                f"What import {transfer.transfer_id} held could not be dropped; the log has the cause."
            )
        transfer.entry = None
        return None

    async def tidy_app(self) -> None:
        """Put right what a killed agent left in the app outside any import; never fails."""
        try:
            async with asyncio.timeout(TIDY_SECONDS):
                await self._recipe.tidy()
        except Exception as fault:
            _log.warning(
                "What an earlier agent may have left in the app could not be put right.",
                action="tidy",
                error=str(fault),
                exc_info=not isinstance(fault, ServiceError),
            )

    async def settle(self, transfer: Transfer, reason: ServiceError) -> None:
        """Bring an import to one side after a crash. May be repeated.

        Args:
            reason: becomes the error of an import that came to nothing.
        Raises:
            ServiceError: not possible now, for example AppUnavailableError; nothing else was done.
        """
        entry = transfer.entry
        if entry is None:
            return
        match entry.phase:
            case ImportPhase.STAGING | ImportPhase.STAGED:
                failed = transfer.state.swap_failure
                found = await self._put_right(entry)
                self._fail(transfer, found or (failed.to_error() if failed else reason))
                await self.abandon(transfer)
            case ImportPhase.DROPPING:
                found = await self._put_right(entry)
                if found or transfer.state.result is None:
                    self._fail(transfer, found or reason)
                await self.abandon(transfer)
            case ImportPhase.RESTORING:
                if await self._recipe.recover(entry) is Recovered.IMPORTED:
                    self._keep(transfer, entry)
                else:
                    self._fail(transfer, await self._put_right(entry) or reason)
                    await self.abandon(transfer)
            case ImportPhase.UNDOING:
                if await self._recipe.recover(entry) is Recovered.IMPORTED:
                    self._keep(transfer, entry)
                else:
                    self._mark_undone(transfer)
                    await self.abandon(transfer)
            case ImportPhase.KEPT:
                pass

    async def _put_right(self, entry: Entry) -> ServiceError | None:
        """What an import had changed outside before the crash, if anything."""
        if found := await self._recipe.put_right(entry):
            say_unchanged(found)
        return found

    async def _settle_after_fault(self, transfer: Transfer, action: str) -> ServiceError:
        """Log the fault that is being handled, settle, and return what to answer unless that completed the step."""
        _log.exception(
            "A swap ended with a fault; the app is brought to one side.",
            action=action,
            transfer_id=transfer.transfer_id,
        )
        error: ServiceError = fault_of(transfer.transfer_id)
        try:
            await self.settle(transfer, error)
        except Exception as obstacle:
            if isinstance(obstacle, AppUnavailableError):
                error = outcome_unknown(transfer.transfer_id, obstacle)
            _log.error(
                "The app could not be brought to one side yet; it will be tried again.",
                action="recover",
                transfer_id=transfer.transfer_id,
                error=str(obstacle),
                exc_info=not isinstance(obstacle, ServiceError),
            )
        return error

    def _fail(self, transfer: Transfer, error: ServiceError) -> None:
        transfer.tracker.update(
            phase=Phase.DONE,
            note="",
            result=Result.FAILED,
            failure=Failure.of(error),
            ended_at=self._clock.now(),
        )

    def _move(
        self, transfer: Transfer, entry: Entry, phase: ImportPhase, *, expires_at: dt.datetime | None = None
    ) -> None:
        """Note a step that has been made already: a full disk cannot take it back, and `settle` would find it out."""
        try:
            entry.move(phase, transfer.state, expires_at=expires_at)
        except NoSpaceError as error:
            _log.error(
                "The journal could not be written; it is corrected at the next start.",
                action="write_journal",
                transfer_id=transfer.transfer_id,
                error=error.text,
            )


def _tell_way_out(error: ServiceError, entry: Entry) -> None:
    if isinstance(error, UnknownVersionError):
        error.next_step = f"{error.next_step} {entry.way_out}"
