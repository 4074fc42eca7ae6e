"""Where the installed command begins: Ctrl-C ends it without a traceback before it has loaded what it works with."""

from __future__ import annotations

import os
import signal
from types import FrameType

from cli.exit_codes import ExitCode


def main() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop_at_once)
    from cli.__main__ import main as run

    run()


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """For as long as nothing was begun; `cli.session.execute` puts Python's own handler in its place."""
    os.write(2, b"Stopped.\n")
    os._exit(ExitCode.INTERRUPTED)
