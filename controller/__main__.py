"""`mathison-controller`: serves, and makes what callers and agents need to be let in.

Exit status: 0 done, 1 it failed, 2 the command or the settings are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import controller.footprint  # noqa: F401  # first of ours: before gRPC and any thread
from common.credentials import check_workspace
from common.errors import ServiceError
from common.files import private_directory, state_directory, write_atomically
from common.logs import set_up_logs
from common.settings_files import SettingsError
from common.sole_use import InUseError
from common.version import VERSION
from common.wording import sentence_of
from controller.callers import Scope
from controller.identity.ca import AuthorityError, CertificateAuthority
from controller.identity.tokens import TokenError
from controller.settings import Settings, load_settings
from controller.state import State

CONFIG_VARIABLE = "MATHISON_CONTROLLER_CONFIG"
_MOST = 1_000_000
"""Of days or minutes; calendars end with the year 9999."""
_CLIENT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    try:
        settings = load_settings(_config_path(parsed))
        return int(parsed.run(parsed, settings) or 0)
    except (SettingsError, TokenError) as failure:
        print(f"mathison-controller: {failure}", file=sys.stderr)
        return 2
    except (AuthorityError, InUseError, ServiceError, OSError) as failure:
        print(f"mathison-controller: {sentence_of(failure)}", file=sys.stderr)
        return 1


def _serve(parsed: argparse.Namespace, settings: Settings) -> None:
    from controller.serving import serve  # the commands beside it start faster without

    set_up_logs(program="controller")
    # aiohttp's, of a malformed Content-Disposition: the request's own words, between lines of JSON.
    warnings.filterwarnings("ignore", module=r"aiohttp\.multipart")
    asyncio.run(serve(settings, _config_path(parsed)))


def _token_create(parsed: argparse.Namespace, settings: Settings) -> None:
    workspaces = _workspaces(parsed.workspace)
    secret = (
        _state(settings)
        .tokens()
        .create(
            parsed.name,
            scopes=_scopes(_split(parsed.scope)),
            workspaces=workspaces,
            lifetime=dt.timedelta(days=parsed.expires_days) if parsed.expires_days is not None else None,
        )
    )
    print(secret)
    there = {app.id.partition(".")[0] for app in settings.apps}
    for name in sorted((workspaces or frozenset()) - there):
        print(f"mathison-controller: no app is in the workspace {name!r} now.", file=sys.stderr)


def _token_list(parsed: argparse.Namespace, settings: Settings) -> None:
    for token in _state(settings).tokens().list():
        workspaces = "*" if token.workspaces is None else ",".join(sorted(token.workspaces))
        expires = token.expires_at.isoformat(timespec="seconds") if token.expires_at else "never"
        print(f"{token.name}\t{','.join(sorted(token.scopes))}\t{workspaces}\texpires {expires}")


def _token_revoke(parsed: argparse.Namespace, settings: Settings) -> None:
    _state(settings).tokens().revoke(parsed.name)


def _join_token(parsed: argparse.Namespace, settings: Settings) -> None:
    if parsed.app_id not in (app.id for app in settings.apps):
        raise TokenError(f"{parsed.app_id!r} is not among the apps in the settings.")
    state = _state(settings)
    token = state.join_tokens().create(
        parsed.app_id,
        authority=CertificateAuthority.open(state.authority).certificate,
        lifetime=dt.timedelta(minutes=parsed.valid_minutes),
    )
    print(token.text)


def _issue_client_certificate(parsed: argparse.Namespace, settings: Settings) -> None:
    if not _CLIENT_NAME.fullmatch(parsed.name) or parsed.name == "ca":
        raise TokenError(
            f"{parsed.name!r} is no name for a client: lower-case letters, digits and inner '-', not 'ca'."
        )
    identity = CertificateAuthority.open(_state(settings).authority).issue_client(parsed.name)
    directory = Path(parsed.out)
    if not directory.exists():
        private_directory(directory)
    for name, content, mode in (
        ("ca.crt", identity.authorities, 0o644),
        (f"{parsed.name}.crt", identity.certificate, 0o644),
        (f"{parsed.name}.key", identity.key, 0o600),
    ):
        write_atomically(directory / name, content, mode=mode)
        print(directory / name)


def _state(settings: Settings) -> State:
    return State(state_directory(settings.state))


def _config_path(parsed: argparse.Namespace) -> Path:
    given = parsed.config or os.environ.get(CONFIG_VARIABLE, "")
    if not given:
        raise SettingsError(f"Name the settings file by --config or {CONFIG_VARIABLE}.")
    return Path(given)


def _scopes(names: Sequence[str]) -> frozenset[Scope]:
    try:
        return frozenset(map(Scope, names))
    except ValueError as failure:
        wrong = next(name for name in names if name not in list(Scope))
        raise TokenError(f"{wrong!r} is no scope; there are {', '.join(Scope)}.") from failure


def _workspaces(values: Sequence[str]) -> frozenset[str] | None:
    """None, which is all, only when none was named: an empty name is a variable that was not set."""
    names = [name for value in values for name in value.split(",")]
    if "" in names:
        raise TokenError("A workspace's name is empty; leave out --workspace for all of them.")
    try:
        for name in names:
            check_workspace(name)
    except ValueError as failure:
        raise TokenError(f"{failure}.") from failure
    return frozenset(names) or None


def _split(values: Sequence[str]) -> list[str]:
    """From a repeated option whose values may be lists, too: `--scope read,export --scope import`."""
    return [name for value in values for name in value.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", metavar="FILE", help=f"the settings; or {CONFIG_VARIABLE}")
    parser = argparse.ArgumentParser(prog="mathison-controller", description="Takes apps' data out and puts it back.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", parents=[config], help="serve until SIGTERM; SIGHUP reads the apps again")
    serve.set_defaults(run=_serve)

    tokens = commands.add_parser("token", help="API tokens of callers").add_subparsers(required=True, metavar="COMMAND")
    create = tokens.add_parser("create", parents=[config], help="make one and print it; it is shown only now")
    create.add_argument("name", metavar="NAME", help="whom or what it is for; stands in the audit log")
    create.add_argument("--scope", action="append", required=True, metavar="read|export|import", help="repeatable")
    create.add_argument("--workspace", action="append", default=[], metavar="NAME", help="repeatable; not given: all")
    create.add_argument("--expires-days", type=_positive, metavar="N", help="it lasts for ever when not given")
    create.set_defaults(run=_token_create)
    listing = tokens.add_parser("list", parents=[config], help="names, scopes, workspaces; no secrets")
    listing.set_defaults(run=_token_list)
    revoke = tokens.add_parser("revoke", parents=[config], help="forget one; it is refused from the next call on")
    revoke.add_argument("name", metavar="NAME", help="as `token list` shows it")
    revoke.set_defaults(run=_token_revoke)

    join = commands.add_parser("join-token", parents=[config], help="make what an agent enrols with, and print it")
    join.add_argument("app_id", metavar="APP_ID", help="as the settings have it, for example shop.db")
    join.add_argument("--valid-minutes", type=_positive, default=60, metavar="N", help="60 when not given")
    join.set_defaults(run=_join_token)

    client = commands.add_parser(
        "issue-client-certificate", parents=[config], help="key and certificate for a program, or for debugging"
    )
    client.add_argument("name", metavar="NAME", help="stands in the certificate; lower-case letters, digits, '-'")
    client.add_argument("--out", required=True, metavar="DIRECTORY", help="where ca.crt, NAME.crt and NAME.key go")
    client.set_defaults(run=_issue_client_certificate)
    return parser


def _positive(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 < (value := int(text)) <= _MOST:
            return value
    raise argparse.ArgumentTypeError(f"it has to be a whole number from 1 to {_MOST}, not {text!r}")


if __name__ == "__main__":
    sys.exit(main())
