"""`mathison export`: an archive is downloaded, compared with what its agent counted, and only then given its name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cli.client import ConnectionLostError, Controller, Download
from cli.failures import LocalFileError, StoppedError, TransferBrokenError, UnreachableError, UsageError
from cli.following import cancel_quietly, final_state, following, new_transfer_id
from cli.models import App, End, Fingerprint, TransferState
from cli.output import Output, size_text
from cli.progress import Gauge
from cli.session import Session
from cli.targets import FileTarget, StandardOutput, Target, check_target, safe_file_name
from common.errors import AgentUnavailableError, ServiceError

_MOVING = "downloading"
VERDICT_SECONDS = 20.0
"""How long to ask for size and SHA-256 once the body has ended: the controller knows them before it ends the body."""


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints after an export. `file` is None for standard output."""

    transfer_id: str
    app_id: str
    file: str | None
    size_bytes: int
    sha256: str
    counts: Mapping[str, int]
    warnings: tuple[str, ...]
    fingerprint: Fingerprint | None
    seconds: float


@dataclass(frozen=True)
class _Place:
    """
    Attributes:
        folder: where the archive will be; None: it goes to standard output.
        file: None: the server names it.
    """

    folder: Path | None
    file: Path | None = None

    def target(self, server_name: str, *, may_replace: bool) -> Target:
        if self.folder is None:
            return StandardOutput()
        return FileTarget(self.file or self.folder / server_name, may_replace=may_replace)


def _place_of(destination: str) -> _Place:
    if destination == "-":
        return _Place(None)
    if not destination or os.path.isdir(destination):
        return _Place(Path(destination))
    if destination.endswith("/"):
        raise LocalFileError(f"There is no folder {destination}", next_step="Make it, or take another by -o.")
    return _Place(Path(destination).parent, Path(destination))


async def export_app(
    session: Session, app_id: str, *, destination: str, format: str, options: Mapping[str, str], may_replace: bool
) -> ExportReport:
    """The whole command; see `Exporting.run`."""
    if destination == "-":
        if session.output.is_json:
            raise UsageError(
                "--json and -o - both want standard output.", next_step="Take one of them, or a file by -o."
            )
        if sys.stdout.isatty() and not may_replace:
            raise UsageError(
                "The archive would go to the terminal.", next_step="Redirect it, name a file by -o, or add --force."
            )
    async with session.controller() as controller:
        with session.gauge() as gauge:
            return await Exporting(controller, session.output, gauge).run(
                app_id, destination=destination, format=format, options=options, may_replace=may_replace
            )


class Exporting:
    """One run of the command."""

    def __init__(self, controller: Controller, output: Output, gauge: Gauge) -> None:
        self._controller = controller
        self._output = output
        self._gauge = gauge
        self._transfer_id = new_transfer_id()
        self._target: Target | None = None

    async def run(
        self, app_id: str, *, destination: str, format: str, options: Mapping[str, str], may_replace: bool
    ) -> ExportReport:
        """Export an app.

        Args:
            destination: a file, a folder, "-" for standard output, or empty for the server's name in this folder.
            format: empty: told by the destination's ending where that is one of the app's formats, else the default.
        Raises:
            TransferBrokenError: what arrived is not whole; no file is left, unless its text says so.
            LocalFileError: the file cannot be written; the transfer was cancelled.
            StoppedError: Ctrl-C.
        """
        started_at = time.monotonic()
        place = _place_of(destination)
        if place.file is not None:
            check_target(place.file, may_replace=may_replace)
        self._gauge.enter("preparing")
        app = await self._controller.app(app_id)
        if place.file is not None and not format:
            format = _format_by_name(app, place.file.name)
        self._look_ahead(app, place.folder)
        try:
            async with (
                following(self._controller, self._transfer_id, self._show),
                self._controller.export(
                    app_id, transfer_id=self._transfer_id, format=format, options=options
                ) as download,
            ):
                name = safe_file_name(download.file_name, otherwise=f"{app_id}.export")
                self._target = place.target(name, may_replace=may_replace)
                await self._receive(download, self._target)
            end = await self._compare(app_id, self._target)
            self._target.keep()
        except asyncio.CancelledError:
            raise await self._stopped() from None
        except TransferBrokenError:
            self._drop()
            raise
        except LocalFileError:
            self._drop()
            await cancel_quietly(self._controller, self._transfer_id)
            raise
        return ExportReport(
            transfer_id=self._transfer_id,
            app_id=app_id,
            file=None if place.folder is None else self._target.name,
            size_bytes=self._target.size_bytes,
            sha256=self._target.sha256,
            counts=end.counts,
            warnings=end.warnings,
            fingerprint=end.fingerprint,
            seconds=round(time.monotonic() - started_at, 3),
        )

    def _look_ahead(self, app: App, folder: Path | None) -> None:
        """Say what can be known before the first byte."""
        description = app.description
        if description is None:
            return
        for warning in description.warnings:
            self._output.warn(warning)
        if folder is not None and description.estimated_bytes:
            with contextlib.suppress(OSError):
                free_bytes = shutil.disk_usage(folder).free
                if free_bytes < description.estimated_bytes:
                    self._output.warn(
                        f"The app holds about {size_text(description.estimated_bytes)} before compression, and only "
                        f"{size_text(free_bytes) or '0 bytes'} are free in {folder.resolve()}."
                    )

    def _show(self, state: TransferState) -> None:
        self._gauge.follow(state, _MOVING)
        if state.progress:
            self._gauge.measure(state.progress.read_bytes, state.progress.total_bytes)

    async def _receive(self, download: Download, target: Target) -> None:
        try:
            async for chunk in download.chunks:
                if not target.size_bytes:
                    self._gauge.enter(_MOVING)
                await target.add(chunk)
                self._gauge.move(target.size_bytes)
            await target.finish()
        except ConnectionLostError as failure:
            raise await self._broken(target.size_bytes, failure) from failure

    async def _broken(self, size_bytes: int, failure: ConnectionLostError) -> TransferBrokenError:
        """Why the body broke, as far as anyone can tell."""
        arrived = size_text(size_bytes) or "its first byte"
        cause = failure.text
        try:
            state = await final_state(self._controller, self._transfer_id, unreachable_seconds=3, running_seconds=3)
            if state.result == "cancelled":  # the agent's caller, of whom it tells, is the controller
                cause += " The export is cancelled."
            elif state.error is not None:
                cause = state.error.message
        except AgentUnavailableError as gone:
            cause = gone.text
        except (ServiceError, UnreachableError):
            pass
        return TransferBrokenError(
            f"The export broke after {arrived}: {_ended(cause)} {self._nothing_kept()}",
            next_step="An export cannot be resumed; run the command again to start over.",
        )

    async def _compare(self, app_id: str, target: Target) -> End:
        """The promise of an export: what was received is what the agent sent, to the last byte."""
        self._gauge.enter("verifying")
        try:
            state = await final_state(
                self._controller,
                self._transfer_id,
                unreachable_seconds=VERDICT_SECONDS,
                running_seconds=VERDICT_SECONDS,
            )
        except (ServiceError, UnreachableError) as failure:
            raise self._unproven(target) from failure
        if state.error is not None:
            raise TransferBrokenError(
                f"The export failed: {_ended(state.error.message)} {self._nothing_kept()}",
                next_step=state.error.next_step,
            )
        if state.end is None or state.result != "succeeded":
            raise self._unproven(target)
        if (state.end.size_bytes, state.end.sha256) != (target.size_bytes, target.sha256):
            raise TransferBrokenError(
                f"What arrived is not what the agent of {app_id} sent: {target.size_bytes} bytes with SHA-256 "
                f"{target.sha256} instead of {state.end.size_bytes} bytes with SHA-256 {state.end.sha256}. "
                + self._nothing_kept(),
                next_step="Something between here and the controller changes data (a proxy?); run the command again.",
            )
        return state.end

    def _unproven(self, target: Target) -> TransferBrokenError:
        if isinstance(target, FileTarget):
            target.keep_as_part()
            return TransferBrokenError(
                "The download ended as it should, but the controller did not say what size and SHA-256 it has to have. "
                f"It is kept as {target.part}, not proven whole.",
                next_step=f"See what `mathison inspect {target.part}` says of it, or export again.",
            )
        return TransferBrokenError(
            "The download ended as it should, but the controller did not say what size and SHA-256 it has to have.",
            next_step="Treat what came out as not whole, and export again.",
        )

    def _nothing_kept(self) -> str:
        if isinstance(self._target, StandardOutput):
            return "What came out of standard output so far is worthless."
        if isinstance(self._target, FileTarget) and self._target.path.exists():  # and was to be replaced
            return f"{self._target.path} is as it was."
        return "No file was kept."

    def _drop(self) -> None:
        if self._target is not None:
            self._target.abandon()

    async def _stopped(self) -> StoppedError:
        """After Ctrl-C: the file first, since a second Ctrl-C ends the command at once."""
        self._drop()
        self._gauge.enter("cancelling")
        outcome = await cancel_quietly(self._controller, self._transfer_id)
        done = (
            "The controller does not answer; it ends the export when it notices that the connection is gone."
            if outcome is None
            else "The export was cancelled."
        )
        return StoppedError(
            f"Stopped. {done} {self._nothing_kept()}",
            next_step="An export cannot be resumed; running the command again starts over.",
        )


def _format_by_name(app: App, file_name: str) -> str:
    """The format whose suffix the file's name has; the longest that fits, empty when none does."""
    formats = app.description.export_formats if app.description else ()
    fitting = [found for found in formats if found.suffix and file_name.endswith(found.suffix)]
    return max(fitting, key=lambda found: len(found.suffix)).name if fitting else ""


def _ended(sentence: str) -> str:
    """With a full stop, which what a program said may lack."""
    said = sentence.rstrip()
    return said if said.endswith((".", "!", "?", "…")) else f"{said}."
