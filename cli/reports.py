"""What each command tells a person once it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from cli.exporting import ExportReport
from cli.importing import ImportReport
from cli.inspecting import Inspection
from cli.models import App, AppFingerprint, ItemChanges, Preview, TransferState
from cli.output import Output, counts_text, duration_text, moment_text, printable, size_text
from cli.verifying import Verification

_VERDICTS = {
    "proven": ("Whole: proven.", "green"),
    "plausible": ("Whole: plausible, not proven.", "yellow"),
    "unknown": ("Whole: unknown.", "yellow"),
    "damaged": ("Not whole.", "red"),
}


def report_apps(output: Output, apps: Sequence[App]) -> None:
    """The table of `mathison apps`."""
    if not apps:
        output.say("There is no app that this token may see.")
        return
    rows = []
    for app in apps:
        about = app.description
        kept = about.kept.kept_until if about and about.kept else None
        rows.append(
            (
                app.id,
                app.recipe or "unknown",
                size_text(about.estimated_bytes) if about else "",
                moment_text(kept) or "-",
                _status(app),
            )
        )
    output.table(("App", "Recipe", "Size", "Undo possible until", "Status"), rows)


def _status(app: App) -> Text:
    about = app.description
    if not app.is_available:
        return Text(printable(f"unavailable: {app.obstacle or 'its agent does not answer'}"), style="red")
    if about is None:
        return Text("available", style="green")
    if about.running is not None:
        return Text(printable(f"busy: {about.running.kind} {about.running.phase}".strip()), style="yellow")
    obstacles: dict[str, list[str]] = {}
    for verb, can, obstacle in (
        ("export", about.can_export, about.export_obstacle),
        ("import", about.can_import, about.import_obstacle),
    ):
        if not can:
            obstacles.setdefault(obstacle, []).append(verb)
    if obstacles:
        told = [f"cannot {' or '.join(verbs)}: {obstacle}" for obstacle, verbs in obstacles.items()]
        return Text(printable("; ".join(told)), style="yellow")
    return Text("ready", style="green")


def report_export(output: Output, report: ExportReport) -> None:
    """On standard error when the archive itself went to standard output."""
    is_result = report.file is not None
    where = report.file or "Sent to standard output"
    amount = f"{size_text(report.size_bytes)} in {duration_text(report.seconds)}"
    output.say(f"{where}: {amount}", style="bold", is_result=is_result)
    output.facts(
        {
            "Whole": "yes, size and SHA-256 are those that the app's agent counted",
            "SHA-256": report.sha256,
            "Fingerprint": report.fingerprint.sha256 if report.fingerprint else "",
            "Contents": counts_text(report.counts),
        },
        is_result=is_result,
    )
    for warning in report.warnings:
        output.warn(warning)


def report_fingerprint(output: Output, found: AppFingerprint) -> None:
    """The fingerprint, and what went into it."""
    fingerprint = found.fingerprint
    output.say(fingerprint.sha256, style="bold")
    output.facts({"Of": found.app_id, "Taken": moment_text(found.taken_at), "Scheme": fingerprint.scheme})
    output.facts(dict(sorted(fingerprint.parts.items())))


def report_import(output: Output, report: ImportReport) -> None:
    state, preview = report.transfer, report.transfer.preview
    contents = counts_text((preview.counts_after if preview else {}) or (state.end.counts if state.end else {}))
    if report.is_dry_run:
        output.say(f"{report.file} can be imported into {report.app_id}. Nothing was changed.", style="bold")
    else:
        output.say(
            f"Imported into {report.app_id} in {duration_text(report.seconds)}" + (f": {contents}" if contents else ""),
            style="bold",
        )
    if preview is not None:
        for change in preview.changes:
            output.say(f"  {change}")
        if preview.bridging:
            output.say(f"  {preview.bridging}")
        if report.is_dry_run:
            _report_prospect(output, preview)
        for warning in preview.warnings:
            output.warn(warning)
    for warning in state.end.warnings if state.end else ():
        output.warn(warning)
    if not report.is_dry_run:
        _report_note(output, state)
        _report_kept(output, report.app_id, state)


def _report_prospect(output: Output, preview: Preview) -> None:
    """What a dry run tells besides: how much of what is there stays, and what the import itself would take."""
    output.facts({kind.replace("_", " ").capitalize(): _fates(found) for kind, found in preview.items.items()})
    if preview.room_bytes:
        output.say(f"  Room beside the present data: about {size_text(preview.room_bytes)}.")
    if preview.import_seconds:
        swap = f", the last {duration_text(preview.swap_seconds)} for the swap" if preview.swap_seconds else ""
        output.say(f"  Time: about {duration_text(preview.import_seconds)}{swap}.")
    if preview.needs_app_stop:
        output.say("  The app is stopped and started again for an import.")


def _fates(found: ItemChanges) -> str:
    fates = (
        (found.added, "new"),
        (found.removed, "gone"),
        (found.changed, "changed"),
        (found.same, "the same"),
        (found.not_compared, "there before and after, not compared"),
    )
    return ", ".join(f"{count:,} {fate}" for count, fate in fates if count) or "none"


def _report_kept(output: Output, app_id: str, state: TransferState) -> None:
    if state.kept_until is None:
        return
    output.say(f"The data from before is kept until {moment_text(state.kept_until)}.")
    output.facts({f"mathison undo {app_id}": "brings it back", f"mathison confirm {app_id}": "drops it now"})


def report_undo(output: Output, app_id: str, state: TransferState) -> None:
    when = moment_text(state.started_at)
    output.say(f"{app_id} has the data again that it had before the import" + (f" of {when}." if when else "."))
    _report_note(output, state)


def _report_note(output: Output, state: TransferState) -> None:
    """What is to be known of the data that is in place."""
    if state.phase == "done" and state.progress and state.progress.note:
        output.warn(state.progress.note)


def report_confirm(output: Output, app_id: str, *, is_confirmed: bool) -> None:
    if is_confirmed:
        output.say(
            f"The data from before the last import of {app_id} is dropped. That import cannot be undone any more."
        )
    else:
        output.say(f"Nothing was kept for {app_id}; there was nothing to drop.")


def report_transfers(output: Output, app_id: str, transfers: Sequence[TransferState]) -> None:
    """The table of `mathison transfers`, latest first."""
    if not transfers:
        output.say(f"The agent of {app_id} remembers no transfer.")
        return
    rows: list[tuple[str | Text, ...]] = []
    for state in transfers:
        took = (state.ended_at - state.started_at).total_seconds() if state.ended_at and state.started_at else None
        size = state.end.size_bytes if state.end else state.progress.read_bytes if state.progress else 0
        rows.append(
            (
                state.transfer_id,
                state.kind or "",
                moment_text(state.started_at),
                "" if took is None else duration_text(took),
                size_text(size),
                _outcome(state),
            )
        )
    output.table(("Transfer", "Kind", "Started", "Took", "Size", "Outcome"), rows)


def _outcome(state: TransferState) -> Text:
    if state.result is None and state.phase == "staged":
        # Also after a swap that was refused: it can be asked for again until the agent lets go of what it holds.
        return Text("staged, not swapped in; nothing was changed", style="yellow")
    if state.result is None:
        return Text(printable(f"running: {state.phase}"), style="yellow")
    if state.error is not None and state.result == "failed":
        return Text(printable(f"{state.result}: {state.error.message}"), style="red")
    text = "undone" if state.undone else state.result
    if state.kept_until is not None:
        text += f", undo possible until {moment_text(state.kept_until)}"
    return Text(printable(text), style="green" if state.result == "succeeded" else "yellow")


def report_cancel(output: Output, state: TransferState) -> None:
    if state.result == "succeeded":
        output.say(f"{state.transfer_id} is done already; there was nothing to cancel.")
    elif state.result == "failed" and state.error is not None:
        output.say(f"{state.transfer_id} had failed already: {state.error.message}")
    else:
        output.say(f"{state.transfer_id} is cancelled. Nothing was changed.")


def report_inspection(output: Output, inspection: Inspection) -> None:
    """Everything known, and the verdict last."""
    header = inspection.header
    output.say(inspection.file, style="bold")
    output.say(inspection.title)
    facts: dict[str, str] = {}
    if header is not None:
        facts |= {
            "App": header.app_id,
            "Recipe": header.recipe,
            "Engine": f"{header.engine} {header.engine_version}".strip(),
            "Read from the app": moment_text(header.created_at),
            "Format": header.format,
            **_titled(header.details),
        }
    facts |= inspection.facts
    facts |= {
        "Contents": counts_text(inspection.counts or (header.counts if header else {})),
        "Size": f"{inspection.size_bytes:,} bytes",
        "Compression": " in ".join(reversed(inspection.compression)),
        "Unpacked": f"{inspection.content_bytes:,} bytes"
        if inspection.compression and inspection.content_bytes
        else "",
        "SHA-256": inspection.sha256,
    }
    output.facts(facts)
    verdict, style = _VERDICTS[inspection.completeness]
    output.say(verdict if inspection.error else f"{verdict} {' '.join(inspection.evidence)}", style=style)


def report_verification(output: Output, verification: Verification) -> None:
    output.say(verification.file, style="bold")
    output.facts(
        {
            "Fingerprint": verification.fingerprint.sha256,
            "Scheme": verification.fingerprint.scheme,
            "Replayed": f"into {verification.engine}" if verification.engine else "by reading it through",
        }
    )
    for difference in verification.differences:
        output.say(f"  {difference}")
    if verification.differences:
        output.say("It does not hold what its fingerprint says. Here: the fingerprint; there: the file.", style="red")
    elif verification.unproven:
        output.say("It holds what its fingerprint says.", style="green")
    else:
        output.say("It holds exactly what its app held when it was exported.", style="green")
    if verification.unproven:
        output.say(f"Not proven: {verification.unproven}", style="yellow")


def _titled(details: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", " ").capitalize(): value for name, value in details.items()}
