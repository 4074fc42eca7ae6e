"""The command `mathison`: takes people's arguments apart and hands them to the module of each command.

Only what help needs is imported at the top; each command imports its own work, so that help comes at once.
"""

from __future__ import annotations

import contextlib
import inspect as introspection
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from cli.exit_codes import EXIT_CODE_MEANINGS, ExitCode
from cli.settings import Settings
from cli.streams import hold_closed_streams, lead_nowhere
from common.version import VERSION

if TYPE_CHECKING:
    from cli.session import Session

_EPILOG = "\b\nExit codes:\n" + "\n".join(
    f"  {code.value:<4} {meaning}" for code, meaning in EXIT_CODE_MEANINGS.items()
)
app = typer.Typer(
    name="mathison",
    help="Takes the data of self-hosted apps out and puts it back in: consistent, verified, undoable.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _check_options(options: list[str]) -> list[str]:
    for option in options:
        if not option.partition("=")[0] or "=" not in option:
            raise typer.BadParameter(f"{option} is not NAME=VALUE.")
        if option.encode(errors="ignore").decode() != option:  # else sent without the bytes in question
            raise typer.BadParameter("An option holds bytes that are no UTF-8.")
    names = [option.partition("=")[0] for option in options]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise typer.BadParameter(f"{twice} is there twice.")
    return options


def _check_transfer(transfer: str) -> str:
    app_id, _, transfer_id = transfer.rpartition("/")
    if not app_id or not transfer_id:
        raise typer.BadParameter(f"{transfer} is not APP/TRANSFER, for example shop.db/cli-0123456789abcdef.")
    return transfer


AppId = Annotated[str, typer.Argument(metavar="APP", help="The app's id, as `mathison apps` lists it.")]
RecipeOptions = Annotated[
    list[str],
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the app's recipe; may be repeated.",
        callback=_check_options,
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed where there is no terminal to ask on.")]


def _shared(
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="The controller's address. [env: MATHISON_URL; default: http://127.0.0.1:8080]"
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="A file with the API token. [env: MATHISON_TOKEN_FILE, or the token itself in MATHISON_TOKEN]",
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="Certificates to trust for https. [env: MATHISON_CA_FILE]"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")] = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="Show progress. [default: on a terminal]")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors (and JSON).")] = False,
) -> Settings:
    """The options that every command has, before its name or after it."""
    return Settings(
        url=url, token_file=token_file, ca_file=ca_file, is_json=json, shows_progress=progress, is_quiet=quiet
    )


_SHARED = introspection.signature(_shared, eval_str=True).parameters


def _take(command: Callable[..., None], own: list[introspection.Parameter]) -> None:
    """Show typer a function's own parameters and the shared ones, which it takes as **arguments."""
    context = introspection.Parameter("context", introspection.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *(found.replace(kind=context.kind) for found in [*own, *_SHARED.values()])]
    command.__signature__ = introspection.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {found.name: found.annotation for found in parameters}


def _command(body: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """Make a command of a coroutine function; it gets a Session in place of the shared options.

    What it returns is the exit code, None being success.
    """

    def command(*, context: typer.Context, **arguments: Any) -> None:
        from cli.session import execute

        settings = _shared(**{name: arguments.pop(name) for name in _SHARED}).over(context.obj)
        raise typer.Exit(execute(settings, lambda session: body(session, **arguments)))

    hints = get_type_hints(body, localns={"Session": object}, include_extras=True)
    parameters = introspection.signature(body).parameters.values()
    _take(command, [found.replace(annotation=hints[found.name]) for found in parameters if found.name != "session"])
    command.__doc__ = body.__doc__
    return command


def _say_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"mathison {VERSION}")
        raise typer.Exit


_VERSION_OPTION = introspection.Parameter(
    "version",
    introspection.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version it is, and end.")
    ],
)


def _start(*, context: typer.Context, version: bool, **shared: Any) -> None:
    context.obj = _shared(**shared)


_take(_start, [_VERSION_OPTION])
app.callback()(_start)


@app.command("apps")
@_command
async def list_apps(session: Session) -> None:
    """List the apps: what they are and what can be done with them.

    That is whether each can be exported and imported, and which import can be undone.
    """
    from cli.reports import report_apps

    async with session.controller() as controller:
        apps = await controller.apps()
    session.give({"apps": apps}, lambda: report_apps(session.output, apps))


@app.command("export")
@_command
async def export(
    session: Session,
    app_id: AppId,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write: a file, a folder, or - for standard output. [default: the export's own name, here]",
        ),
    ] = "",
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="One of the app's formats, for example custom. [default: told by FILE's ending, else the first]",
        ),
    ] = "",
    option: RecipeOptions = [],  # noqa: B006  # typer copies it
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Download an app's data as one file. The app goes on running.

    The file is written as FILE.part and gets its name only when its size and SHA-256 are those that the app's agent
    counted. An export that breaks, or is ended by Ctrl-C, leaves no file and cannot be resumed.
    """
    from cli.exporting import export_app
    from cli.reports import report_export

    report = await export_app(
        session, app_id, destination=output, format=format, options=_pairs(option), may_replace=force
    )
    session.give(report, lambda: report_export(session.output, report))


@app.command("fingerprint")
@_command
async def fingerprint(session: Session, app_id: AppId) -> None:
    """Fingerprint an app's content: equal for equal content.

    All of it is read, and the app goes on running. Two apps of one recipe hold the same when their fingerprints are the
    same; `mathison export` says the fingerprint of what it exported.
    """
    from cli.reports import report_fingerprint

    async with session.controller() as controller:
        with session.gauge() as gauge:
            gauge.enter("reading")
            found = await controller.fingerprint(app_id)
    session.give(found, lambda: report_fingerprint(session.output, found))


@app.command("import")
@_command
async def import_(
    session: Session,
    app_id: AppId,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The archive, or - for standard input.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would change; change nothing.")
    ] = False,
    yes: Yes = False,
    inspect: Annotated[
        bool, typer.Option("--inspect/--no-inspect", help="Check the file here before sending it.")
    ] = True,
    option: RecipeOptions = [],  # noqa: B006  # typer copies it
) -> None:
    """Replace an app's data by an archive's, once it is checked. What was there is kept for `mathison undo`.

    Takes exports of Mathison Data and what the apps' own tools write, pg_dump for example, also inside gzip, zstd, xz
    or zip. From standard input nothing can be checked before it is sent, and a cut is noticed only where the archive's
    own format shows it.
    """
    from cli.importing import import_archive
    from cli.reports import report_import

    report = await import_archive(
        session, app_id, file, options=_pairs(option), is_dry_run=dry_run, is_agreed=yes, is_inspected=inspect
    )
    session.give(report, lambda: report_import(session.output, report))


@app.command("undo")
@_command
async def undo(session: Session, app_id: AppId, yes: Yes = False) -> None:
    """Bring back the data that an app had before its last import. What was imported and written since is dropped."""
    from cli.reports import report_undo
    from cli.undoing import undo_import

    await session.ask(
        f"Bring back the data that {app_id} had before its last import, and drop what it has now?", is_agreed=yes
    )
    async with session.controller() as controller:
        with session.gauge() as gauge:
            state = await undo_import(controller, gauge, app_id, warn=session.output.warn_urgently)
    session.give(state, lambda: report_undo(session.output, app_id, state))


@app.command("confirm")
@_command
async def confirm(session: Session, app_id: AppId, yes: Yes = False) -> None:
    """Drop the data from before an app's last import. That import cannot be undone any more."""
    from cli.confirming import confirm_import
    from cli.reports import report_confirm

    await session.ask(
        f"Drop what {app_id} had before its last import, so that it cannot be undone any more?", is_agreed=yes
    )
    async with session.controller() as controller:
        with session.gauge() as gauge:
            is_confirmed = await confirm_import(controller, gauge, app_id)
    session.give({"confirmed": is_confirmed}, lambda: report_confirm(session.output, app_id, is_confirmed=is_confirmed))


@app.command("transfers")
@_command
async def transfers(session: Session, app_id: AppId) -> None:
    """List an app's exports and imports and what became of them."""
    from cli.reports import report_transfers

    async with session.controller() as controller:
        found = await controller.transfers(app_id)
    session.give({"transfers": found}, lambda: report_transfers(session.output, app_id, found))


@app.command("cancel")
@_command
async def cancel(
    session: Session,
    transfer: Annotated[
        str,
        typer.Argument(
            metavar="APP/TRANSFER",
            help="An app's id and one of those that `mathison transfers` lists.",
            callback=_check_transfer,
        ),
    ],
) -> None:
    """End an export, or an import that is not being swapped in yet. Nothing is changed by it."""
    from cli.following import cancel_transfer
    from cli.reports import report_cancel

    app_id, _, transfer_id = transfer.rpartition("/")
    async with session.controller() as controller:
        state = await cancel_transfer(controller, app_id, transfer_id)
    session.give(state, lambda: report_cancel(session.output, state))


@app.command("inspect")
@_command
async def inspect(
    session: Session, file: Annotated[str, typer.Argument(metavar="FILE", help="An archive on this machine.")]
) -> int | None:
    """Say what an archive is and whether it is whole. Reads all of it; asks no controller.

    "proven" means that the SHA-256 at its end agrees with its content, as exports of Mathison Data have it. "plausible"
    means that the format's own end is there; most formats of others cannot prove more. Exit code 6: damaged or unknown.
    """
    from cli.inspecting import inspect_file, open_archive
    from cli.reports import report_inspection

    with open_archive(file) as opened:
        inspection = await inspect_file(opened, Path(file), session)
    session.give(inspection, lambda: report_inspection(session.output, inspection))
    if inspection.error is None:
        return None
    session.output.complain(inspection.error)
    return inspection.error.exit_code


@app.command("verify")
@_command
async def verify(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export on this machine.")],
    told: Annotated[
        str,
        typer.Option(
            "--fingerprint",
            metavar="JSON",
            help="A file with what `mathison export --json` printed, for archives that have no room for a fingerprint.",
        ),
    ] = "",
) -> int | None:
    """Prove that an export holds what its app held.

    It is replayed into a throw-away engine and compared. Asks no controller and touches no app. SQL exports need the
    server programs of PostgreSQL, of the same major version or a newer one, or of MariaDB on this machine; those of
    Redis are loaded by a redis-server or valkey-server of this machine, or read through where there is none; all others
    are read through. Exit code 6: the file is damaged; 10: it does not hold what its fingerprint says; 11: that cannot
    be found out here.
    """
    from cli.reports import report_verification
    from cli.verifying import verify_file

    verification = await verify_file(file, session, told=told)
    session.give(verification, lambda: report_verification(session.output, verification))
    return verification.exit_code


def _pairs(options: list[str]) -> dict[str, str]:
    return dict(option.split("=", 1) for option in options)


def main() -> None:
    hold_closed_streams()
    try:
        app(prog_name="mathison")
    except OSError as failure:  # of help, version or usage; those of commands are explained by `execute`
        from cli.failures import said_by

        lead_nowhere(sys.stdout)
        with contextlib.suppress(OSError):
            typer.echo(f"Error: What was to be said cannot be written: {said_by(failure)}.", err=True)
        lead_nowhere(sys.stderr)
        sys.exit(ExitCode.LOCAL_FILE)


if __name__ == "__main__":
    main()
