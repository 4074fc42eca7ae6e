"""What can go wrong at this end, and the exit code of every failure.

Errors of the controller and its agents arrive as `common.errors`; the classes here are for what only the command can
meet: its arguments, its connection, its files. `explain` turns any of them into what a person reads and a script tests.
"""

from __future__ import annotations

import asyncio
import errno
from typing import ClassVar

import msgspec

from cli.exit_codes import ExitCode
from common.errors import ServiceError

EXIT_CODES_BY_REASON = {
    "INTERNAL": ExitCode.INTERNAL,
    "INVALID_REQUEST": ExitCode.USAGE,
    "FORMAT_NOT_SUPPORTED": ExitCode.USAGE,
    "NOT_AUTHENTICATED": ExitCode.NOT_PERMITTED,
    "NOT_PERMITTED": ExitCode.NOT_PERMITTED,
    "APP_NOT_FOUND": ExitCode.NOT_FOUND,
    "TRANSFER_NOT_FOUND": ExitCode.NOT_FOUND,
    "NOTHING_TO_UNDO": ExitCode.NOT_FOUND,
    "ARCHIVE_WRONG_KIND": ExitCode.ARCHIVE,
    "ARCHIVE_TRUNCATED": ExitCode.ARCHIVE,
    "ARCHIVE_DAMAGED": ExitCode.ARCHIVE,
    "ARCHIVE_REFUSED": ExitCode.ARCHIVE,
    "ARCHIVE_INCOMPATIBLE": ExitCode.ARCHIVE,
    "LIMIT_EXCEEDED": ExitCode.ARCHIVE,
    "TRANSFER_IN_PROGRESS": ExitCode.APP,
    "NO_SPACE": ExitCode.APP,
    "APP_UNAVAILABLE": ExitCode.APP,
    "APP_BUSY": ExitCode.APP,
    "APP_MUST_STOP": ExitCode.APP,
    "AGENT_UNAVAILABLE": ExitCode.APP,
    "CANCELLED": ExitCode.TRANSFER,
    "UPLOAD_INCOMPLETE": ExitCode.TRANSFER,
    "DIGEST_MISMATCH": ExitCode.TRANSFER,
    "SOURCE_UNREADABLE": ExitCode.TRANSFER,
    "TOOL_FAILED": ExitCode.TRANSFER,
}
"""Every reason of `common.errors`."""


class CommandError(Exception):
    """A failure at this end; never raised itself. Text and next step are sentences for the person who typed."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, text: str, *, next_step: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.next_step = next_step


class UsageError(CommandError):
    """The arguments do not make sense together, or a question cannot be asked."""

    exit_code = ExitCode.USAGE
    reason = "USAGE"


class UnreachableError(CommandError):
    """There is no talking to the controller: no connection, no trust, or something else answers."""

    exit_code = ExitCode.UNREACHABLE
    reason = "UNREACHABLE"


class TransferBrokenError(CommandError):
    """What arrived is not whole, or it is not known whether it is."""

    exit_code = ExitCode.TRANSFER
    reason = "TRANSFER_BROKEN"


class LocalFileError(CommandError):
    """A file or a filesystem of this machine is in the way."""

    exit_code = ExitCode.LOCAL_FILE
    reason = "LOCAL_FILE"


class UnverifiableError(CommandError):
    """An archive that may be whole and right, which cannot be shown here."""

    exit_code = ExitCode.UNVERIFIABLE
    reason = "UNVERIFIABLE"


class StoppedError(CommandError):
    """Ctrl-C or a signal, after tidying up; the text says what became of the transfer."""

    exit_code = ExitCode.INTERRUPTED
    reason = "INTERRUPTED"


def said_by(failure: OSError) -> str:
    """What the system says, as the end of a sentence: "permission denied"."""
    if failure.errno == errno.EBADF:  # only of standard streams; see cli.streams
        return "standard output is closed"
    return (failure.strerror or str(failure)).lower()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A failure as `--json` prints it, under "error"."""

    reason: str
    message: str
    next_step: str
    exit_code: int


def explain(failure: BaseException) -> Explanation:
    """What to tell about any exception; those that nobody expected become INTERNAL, without their details."""
    match failure:
        case CommandError():
            exit_code = failure.exit_code
        case ServiceError():
            exit_code = EXIT_CODES_BY_REASON[failure.reason]
        case KeyboardInterrupt() | asyncio.CancelledError():
            return explain(StoppedError("Stopped."))
        case _:
            return Explanation(
                reason="INTERNAL",
                message=f"This is a fault in mathison itself ({type(failure).__name__}).",
                next_step="Please report it; MATHISON_TRACEBACK=1 in the environment shows where it happened.",
                exit_code=ExitCode.INTERNAL,
            )
    return Explanation(
        reason=failure.reason, message=failure.text, next_step=failure.next_step, exit_code=int(exit_code)
    )
