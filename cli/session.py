"""One run of a command: its connection, where it speaks, and how whatever happens becomes an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cli.entry import stop_at_once
from cli.exit_codes import ExitCode
from cli.failures import LocalFileError, StoppedError, UsageError, explain, said_by
from cli.output import Output
from cli.progress import BarGauge, Gauge, LineGauge, NoGauge
from cli.settings import Settings
from cli.worker import Worker

if TYPE_CHECKING:
    from cli.client import Connection, Controller

DEFAULT_URL = "http://127.0.0.1:8080"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Session:
    """What a command works with."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self.output = Output(is_json=settings.is_json, is_quiet=settings.is_quiet)
        self._settings = settings
        self._environment = environment

    def controller(self) -> Controller:
        """The controller that was named; UsageError when it or the token was named wrongly."""
        # Not for commands that look at a file alone: it costs them a quarter of a second.
        from cli.client import Controller

        return Controller(read_connection(self._settings, self._environment, self.output))

    def gauge(self) -> Gauge:
        """A bar on a terminal, lines where --progress asks for them, else nothing."""
        is_terminal = sys.stderr.isatty()
        wanted = is_terminal if self._settings.shows_progress is None else self._settings.shows_progress
        if self._settings.is_quiet or not wanted:
            return NoGauge()
        if is_terminal and not self.output.errors.is_dumb_terminal:
            return BarGauge(self.output.errors)
        return LineGauge(self.output.errors)

    def give(self, value: object, tell: Callable[[], None]) -> None:
        """The result: as the one JSON document, or told to a person.

        Raises:
            LocalFileError: standard output takes no more, for another reason than that its reader has gone.
        """
        try:
            if self.output.is_json:
                self.output.json(value)
            else:
                tell()
        except OSError as failure:
            self.output.drop_results()
            raise LocalFileError(
                f"The command was carried out, but its result cannot be written: {said_by(failure)}."
            ) from failure

    @property
    def can_ask(self) -> bool:
        # A stream that was closed before the start is None.
        return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))

    async def ask(self, *question: str, is_agreed: bool) -> None:
        """Go on only with a yes.

        Args:
            question: its lines.
            is_agreed: --yes was given.
        Raises:
            UsageError: there is nobody to ask.
            StoppedError: the answer was no.
        """
        if is_agreed:
            return
        self.require_answer(is_agreed=is_agreed)
        self.output.ask(*question)
        worker = Worker("wait for an answer")
        # Not sys.stdin: its lock, held by a thread that waits, is a fatal error when Ctrl-C ends the interpreter.
        try:
            answer = await worker.run(partial(os.read, sys.stdin.fileno(), 1024))
        except asyncio.CancelledError:
            self.output.errors.print()
            raise
        finally:
            worker.close(wait=False)
        if answer.strip().lower() not in (b"y", b"yes"):
            raise StoppedError("Nothing was changed.")

    def require_answer(self, *, is_agreed: bool) -> None:
        """UsageError when `ask` is going to fail for want of a terminal; for before the work that leads to it."""
        if not is_agreed and not self.can_ask:
            raise UsageError(
                "This replaces or drops an app's data, and without a terminal nobody can be asked.",
                next_step="Add --yes to say that it is meant. Nothing was changed.",
            )


def execute(settings: Settings, work: Callable[[Session], Awaitable[int | None]]) -> int:
    """Run a command to its end; the exit code. Says what went wrong, and never with a traceback."""
    session = Session(settings, os.environ)
    if signal.getsignal(signal.SIGINT) is stop_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return asyncio.run(_until_signalled(work(session))) or ExitCode.OK
    except (Exception, KeyboardInterrupt, asyncio.CancelledError) as failure:
        if os.environ.get("MATHISON_TRACEBACK"):
            traceback.print_exc()
        explanation = explain(failure)
        session.output.fail(explanation)
        return explanation.exit_code


async def _until_signalled(work: Awaitable[int | None]) -> int | None:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: tidily."""
    loop = asyncio.get_running_loop()
    if (task := asyncio.current_task()) is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
    return await work


def read_connection(settings: Settings, environment: Mapping[str, str], output: Output) -> Connection:
    """Where the controller is and how to be let in; warns where the token is not safe.

    Raises:
        UsageError: an address, a token or a file that cannot be used.
    """
    from cli.client import Connection

    url = (settings.url or environment.get("MATHISON_URL") or DEFAULT_URL).rstrip("/")
    if "@" in url:
        raise UsageError(
            "The controller's address holds an '@': it takes no user and no password.",
            next_step=f"It has to look like {DEFAULT_URL}; who asks is told by the token.",
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise UsageError(f"{url} is not an address.", next_step=f"It has to look like {DEFAULT_URL}.")
    token_file = settings.token_file or _path(environment.get("MATHISON_TOKEN_FILE"))
    token = _read_token(token_file, output) if token_file else environment.get("MATHISON_TOKEN", "").strip()
    if not all("!" <= character <= "~" for character in token):
        raise UsageError("The token holds characters that no token has.", next_step="Give it as it was printed.")
    if token and parts.scheme == "http" and host not in _LOOPBACK:
        output.warn(f"The token goes to {host} unencrypted; use https where that is possible.")
    return Connection(url=url, token=token, ca_file=settings.ca_file or _path(environment.get("MATHISON_CA_FILE")))


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


def _read_token(path: Path, output: Output) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(1 << 16).strip()
    except (OSError, UnicodeDecodeError) as failure:
        said = failure.strerror if isinstance(failure, OSError) else "it is not text"
        raise UsageError(
            f"The token file {path} cannot be read: {(said or 'unknown error').lower()}.",
            next_step="Name another by --token-file or MATHISON_TOKEN_FILE.",
        ) from failure
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        output.warn(f"Everybody on this machine can read the token file {path}; `chmod 600 {path}` ends that.")
    if not token:
        raise UsageError(f"The token file {path} is empty.", next_step="Put the token into it, on a line by itself.")
    return token
