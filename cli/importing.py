"""`mathison import`: the archive is checked here, sent with its digest, and followed until it is in place or refused.

Whatever breaks, the truth is with the app's agent: a lost connection ends in asking for the transfer's state, never in
a guess.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from cli.client import ConnectionLostError, Controller
from cli.failures import CommandError, LocalFileError, StoppedError, TransferBrokenError, UnreachableError, said_by
from cli.following import (
    PATIENCE_SECONDS,
    Waiting,
    cancel_quietly,
    final_state,
    following,
    new_transfer_id,
    state_soon,
)
from cli.inspecting import Inspection, describe_briefly, inspect_file, open_archive
from cli.models import App, Failure, TransferState
from cli.output import size_text
from cli.progress import Gauge
from cli.session import Session
from cli.worker import Worker
from common.errors import (
    NOTHING_CHANGED,
    AgentUnavailableError,
    AppUnavailableError,
    InternalError,
    ServiceError,
    TransferInProgressError,
    TransferNotFoundError,
    make_error,
    say_unchanged,
)

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """What is sent. `size_bytes` and `sha256` are None for standard input, of which nothing is known before its end."""

    file: BinaryIO
    name: str
    size_bytes: int | None = None
    sha256: bytes | None = None


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints after an import or a dry run."""

    app_id: str
    file: str
    is_dry_run: bool
    transfer: TransferState
    seconds: float


class Importing:
    """One run of the command, after its questions were answered."""

    def __init__(
        self,
        controller: Controller,
        gauge: Gauge,
        *,
        warn: Callable[[str], None],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """
        Args:
            warn: what a person should know while the command waits.
            patience_seconds: how long a controller that went away may take to come back.
        """
        self._controller = controller
        self._warn = warn
        self._patience_seconds = patience_seconds
        self._gauge = gauge
        self._transfer_id = new_transfer_id()
        self._sent_bytes = 0
        self._is_sent = False
        self._unreadable: LocalFileError | None = None
        self._reader = Worker("read the archive")

    async def run(self, app_id: str, source: Source, *, options: Mapping[str, str], is_dry_run: bool) -> ImportReport:
        """Import an archive; returns once it is in place, or verified for a dry run.

        Raises:
            ServiceError: refused or failed; nothing was changed, unless its text says so.
            TransferBrokenError: the connection broke; the text says what is known of the outcome.
            StoppedError: Ctrl-C; the text says what became of the import.
        """
        started_at = time.monotonic()
        self._gauge.enter("preparing")
        try:
            async with following(self._controller, self._transfer_id, self._show):
                state = await self._send(app_id, source, options=options, is_dry_run=is_dry_run)
        except asyncio.CancelledError:
            raise await self._stopped(app_id, is_dry_run=is_dry_run) from None
        if state.error is not None:
            raise make_error(state.error.reason, state.error.message, next_step=state.error.next_step)
        if state.result != "succeeded":
            raise TransferBrokenError(
                "The archive was checked and lies beside the app's data, but was not swapped in. Nothing was changed.",
                next_step="Run the command again; what was left is dropped then.",
            )
        return ImportReport(
            app_id=app_id,
            file=source.name,
            is_dry_run=is_dry_run,
            transfer=state,
            seconds=round(time.monotonic() - started_at, 3),
        )

    async def _send(
        self, app_id: str, source: Source, *, options: Mapping[str, str], is_dry_run: bool
    ) -> TransferState:
        try:
            return await self._controller.import_(
                app_id,
                self._body(source),
                transfer_id=self._transfer_id,
                file_name=Path(source.name).name,
                size_bytes=source.size_bytes,
                digest=source.sha256,
                options=options,
                is_dry_run=is_dry_run,
            )
        except ConnectionLostError as failure:
            if self._unreadable is not None:
                raise self._unreadable from failure
            return await self._settle(app_id, failure, is_dry_run=is_dry_run)
        except (AgentUnavailableError, InternalError) as failure:
            if not self._sent_bytes:
                raise
            return await self._settle(app_id, failure, is_dry_run=is_dry_run)

    async def _body(self, source: Source) -> AsyncGenerator[bytes, None]:
        try:
            while chunk := await self._reader.run(partial(source.file.read, CHUNK_BYTES)):
                yield chunk
                self._sent_bytes += len(chunk)
                self._gauge.move(self._sent_bytes)
                self._gauge.measure(self._sent_bytes, source.size_bytes or 0)
        except OSError as failure:
            self._unreadable = LocalFileError(
                f"{source.name} cannot be read: {said_by(failure)}. Nothing was imported."
            )
            raise
        if source.size_bytes is not None and self._sent_bytes != source.size_bytes:
            self._unreadable = LocalFileError(
                f"{source.name} changed while it was sent. Nothing was imported.",
                next_step="Try again when it is at rest.",
            )
            raise self._unreadable
        self._is_sent = True

    def _show(self, state: TransferState) -> None:
        self._gauge.follow(state, "loading" if self._is_sent else "uploading")

    async def _settle(
        self, app_id: str, failure: ConnectionLostError | ServiceError, *, is_dry_run: bool
    ) -> TransferState:
        """After a lost connection, here or to the agent: a cut upload changes nothing, a whole one may go on."""
        ended_by = "a fault ended it" if isinstance(failure, InternalError) else "the connection broke"
        self._gauge.enter("asking", f"{ended_by}; asking what became of the import")
        broken = failure.text.removesuffix(NOTHING_CHANGED).rstrip()
        waiting = Waiting(self._controller, self._gauge, self._warn, app_id=app_id, transfer_id=self._transfer_id)
        try:
            state = await final_state(
                self._controller,
                self._transfer_id,
                unreachable_seconds=self._patience_seconds,
                meanwhile=waiting.look,
            )
        except TransferNotFoundError:
            raise TransferBrokenError(
                f"{broken} The import had not begun. Nothing was changed.", next_step="Run the command again."
            ) from failure
        except (ServiceError, UnreachableError) as unknown:
            raise TransferBrokenError(
                f"{broken} Now nobody can be asked what became of the import. "
                + (
                    "It was a dry run: nothing was changed."
                    if is_dry_run
                    else "The archive was sent in full, so it may have been put in place: either all of it or nothing."
                    if self._is_sent
                    else "The archive was not sent in full, so nothing was changed."
                ),
                next_step=f"Once the app's agent answers again, `mathison transfers {app_id}` tells; "
                f"this import is {self._transfer_id}.",
            ) from unknown
        if state.result == "cancelled":
            raise TransferBrokenError(
                f"{broken} The import ended with the connection. Nothing was changed.",
                next_step="Run the command again.",
            ) from failure
        return state

    async def _stopped(self, app_id: str, *, is_dry_run: bool) -> CommandError:
        """After Ctrl-C: what became of the import, from the agent's own word."""
        self._gauge.enter("cancelling")
        outcome = await cancel_quietly(self._controller, self._transfer_id)
        if isinstance(outcome, TransferInProgressError):
            self._gauge.enter("asking", "too late to cancel; asking what becomes of the import")
            outcome = await self._late_outcome()
        look = f"`mathison transfers {app_id}` shows it as {self._transfer_id}."
        match outcome:
            case TransferState(result="succeeded") if is_dry_run:
                return StoppedError("Stopped too late: the dry run had ended. Nothing was changed.")
            case TransferState(result="succeeded"):
                return StoppedError(
                    "Stopped too late: the import is done.", next_step=f"`mathison undo {app_id}` takes it back."
                )
            case TransferState(result="failed", error=Failure() as error):
                return StoppedError(f"Stopped. The import had failed already: {error.message}", next_step=look)
            case TransferState(result=str()) | TransferNotFoundError():
                return StoppedError("Stopped. The import was cancelled and nothing was changed.")
            case TransferInProgressError():
                return StoppedError(
                    "Stopped watching, but the imported data is being swapped in already; the agent finishes that, or "
                    "takes it back.",
                    next_step=f"{look} Once it is done, `mathison undo {app_id}` takes it back.",
                )
            case TransferState():
                return StoppedError(
                    f"Stopped watching. The import is not over: its agent goes on to bring {app_id} to one side.",
                    next_step=f"{look} `mathison apps` tells what its agent waits for.",
                )
            case _ if not self._is_sent:
                return StoppedError("Stopped before the archive was sent in full: nothing was changed.", next_step=look)
            case _:
                return StoppedError(
                    "Stopped, but the controller did not say whether the import could be cancelled.", next_step=look
                )

    async def _late_outcome(self) -> TransferState | ServiceError | None:
        """Of an import that could not be cancelled a moment ago; as `cancel_quietly` tells it."""
        state = await state_soon(self._controller, self._transfer_id)
        if state is not None and state.result:
            return state
        return await cancel_quietly(self._controller, self._transfer_id)


async def import_archive(
    session: Session,
    app_id: str,
    file_name: str,
    *,
    options: Mapping[str, str],
    is_dry_run: bool,
    is_agreed: bool,
    is_inspected: bool,
) -> ImportReport:
    """The whole command: look at the file, ask, send.

    Args:
        file_name: "-" for standard input, which cannot be looked at before.
        is_agreed: --yes was given.
    """
    if not is_dry_run:
        session.require_answer(is_agreed=is_agreed)
    async with session.controller() as controller:
        app = await controller.app(app_id)
        _require_importable(app)
        with _opened(file_name) as file:
            source, inspection = Source(file=file, name="standard input"), None
            if file_name != "-":
                path = Path(file_name)
                takes_zip = "zip" in app.described().import_formats
                inspection = await inspect_file(
                    file, path, session, is_looked_into=is_inspected, unpacks_zip=not takes_zip
                )
                if inspection.completeness == "damaged" and inspection.error is not None:
                    raise make_error(
                        inspection.error.reason,
                        f"{inspection.error.message} Nothing was sent and nothing was changed.",
                        next_step=inspection.error.next_step,
                    )
                source = Source(file, file_name, inspection.size_bytes, bytes.fromhex(inspection.sha256))
            if not is_dry_run:
                await session.ask(*_question(app, source, inspection), is_agreed=is_agreed)
            with session.gauge() as gauge:
                importing = Importing(controller, gauge, warn=session.output.warn_urgently)
                return await importing.run(app_id, source, options=options, is_dry_run=is_dry_run)


def _require_importable(app: App) -> None:
    """What the agent would say after the upload, said before the file is read."""
    description = app.described()
    if not description.can_import:
        error = AppUnavailableError(
            f"Nothing can be imported into {app.id} now: {description.import_obstacle}",
            next_step="Once that is mended, run the command again.",
        )
        say_unchanged(error)
        raise error


def _opened(name: str) -> BinaryIO:
    if name != "-":
        return open_archive(name)
    if sys.stdin is None or sys.stdin.isatty():
        raise LocalFileError(
            "Standard input is no archive but a terminal, or closed.",
            next_step="Name a file, or pipe one into the command.",
        )
    return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)


def _question(app: App, source: Source, inspection: Inspection | None) -> list[str]:
    about = app.description
    lines = [f"{source.name}: {describe_briefly(inspection) if inspection else 'not looked into'}"]
    if about is not None:
        now = f"{about.engine} {about.engine_version}".strip()
        size = size_text(about.estimated_bytes)
        lines.append(f"{app.id}: {app.recipe}" + (f", {now}" if now else "") + (f", about {size} now" if size else ""))
        if about.import_needs_app_stop:
            lines.append("The app is stopped and started again for this.")
        if about.kept is not None and about.kept.kept_until is not None:
            lines.append("The data that is still kept from before an earlier import is dropped for good.")
    lines.append(
        f"What {app.id} holds now is kept, and `mathison undo {app.id}` can bring it back."
        if about is None or about.can_undo
        else f"What {app.id} holds now is lost: this app cannot undo an import."
    )
    lines.append(f"Replace the data of {app.id}?")
    return lines
