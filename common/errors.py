"""The closed list of errors that a caller can meet, raised where they happen and translated in one place.

Each class is one reason of docs/errors.md. The text is for the person who asked: it names the thing, says what was
changed (nothing, unless it says otherwise) and holds no secret. `common.status` turns an error into a gRPC status and
back; the controller's `api.problems` turns it into an HTTP answer.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import ClassVar


class Code(enum.Enum):
    """gRPC's status codes by their names, as far as an error means one. Without gRPC itself: jailed children raise
    errors too, and importing it would cost each of them 12 MiB or more."""

    ABORTED = enum.auto()
    CANCELLED = enum.auto()
    DATA_LOSS = enum.auto()
    FAILED_PRECONDITION = enum.auto()
    INTERNAL = enum.auto()
    INVALID_ARGUMENT = enum.auto()
    NOT_FOUND = enum.auto()
    OUT_OF_RANGE = enum.auto()
    PERMISSION_DENIED = enum.auto()
    RESOURCE_EXHAUSTED = enum.auto()
    UNAUTHENTICATED = enum.auto()
    UNAVAILABLE = enum.auto()


class ServiceError(Exception):
    """The base of all errors that are answers; never raised itself."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    usual_next_step: ClassVar[str] = ""
    """What to do where whoever raises it knows nothing better."""
    says_what_changed = False
    """The text says itself what was changed."""

    def __init__(self, text: str, *, next_step: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.next_step = next_step or self.usual_next_step


NOTHING_CHANGED = "Nothing was changed."


def say_unchanged(error: ServiceError) -> None:
    """End the text of an error that left everything as it was with what a person wants to know first."""
    # Also as the end of a sentence.
    if error.says_what_changed or NOTHING_CHANGED.lower() in error.text.lower():
        return
    text = error.text.rstrip()
    error.text = f"{text}{'' if text.endswith(('.', '!', '?')) else '.'} {NOTHING_CHANGED}"
    error.args = (error.text,)


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """Around what leaves everything as it was where it fails: errors that come out of it say so."""
    try:
        yield
    except ServiceError as error:
        say_unchanged(error)
        raise


class InternalError(ServiceError):
    """A fault of ours; the log has the cause."""


class InvalidRequestError(ServiceError):
    """The request itself is wrong: an unknown option, a malformed id."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"
    usual_next_step = "Correct the request."


class NotAuthenticatedError(ServiceError):
    """No credentials, or unknown ones."""

    code = Code.UNAUTHENTICATED
    reason = "NOT_AUTHENTICATED"


class NotPermittedError(ServiceError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "NOT_PERMITTED"


class AppNotFoundError(ServiceError):
    """No such app, or one of a workspace that the caller may not see."""

    code = Code.NOT_FOUND
    reason = "APP_NOT_FOUND"


class TransferNotFoundError(ServiceError):
    """The agent knows no transfer, or nothing staged, under this id."""

    code = Code.NOT_FOUND
    reason = "TRANSFER_NOT_FOUND"


class TransferInProgressError(ServiceError):
    """The app is busy with another transfer; ask again when that one has ended."""

    code = Code.ABORTED
    reason = "TRANSFER_IN_PROGRESS"


class CancelledError(ServiceError):
    """The transfer was cancelled by a caller before it could change anything."""

    code = Code.CANCELLED
    reason = "CANCELLED"


class FormatNotSupportedError(ServiceError):
    """The recipe does not write this format."""

    code = Code.INVALID_ARGUMENT
    reason = "FORMAT_NOT_SUPPORTED"


class UploadIncompleteError(ServiceError):
    """The upload ended without its end frame, or the HTTP body was cut."""

    code = Code.ABORTED
    reason = "UPLOAD_INCOMPLETE"
    usual_next_step = "Send it again."


class DigestMismatchError(ServiceError):
    """Size or SHA-256 of what arrived differs from what its sender said."""

    code = Code.DATA_LOSS
    reason = "DIGEST_MISMATCH"
    usual_next_step = "Send it again."


class ArchiveError(ServiceError):
    """The uploaded file cannot be imported because of what it is; uploading it again does not help."""

    code = Code.INVALID_ARGUMENT
    reason = "ARCHIVE_DAMAGED"
    usual_next_step = "Take another copy of the file, or make it again."


class ArchiveWrongKindError(ArchiveError):
    """The file is whole as far as one can tell, but is not what this app takes."""

    reason = "ARCHIVE_WRONG_KIND"
    usual_next_step = "Choose another file."


class ArchiveTruncatedError(ArchiveError):
    """The file's own format says that its end is missing."""

    reason = "ARCHIVE_TRUNCATED"
    usual_next_step = "Send the whole file, or make it again."


class ArchiveDamagedError(ArchiveError):
    """The file's own structure or checksums do not hold."""

    reason = "ARCHIVE_DAMAGED"


class ArchiveRefusedError(ArchiveError):
    """The file tries something that no honest archive does, or something that an import may not do."""

    reason = "ARCHIVE_REFUSED"
    usual_next_step = "Make the file again where it comes from; if you do not know that, do not trust it."


class ArchiveIncompatibleError(ArchiveError):
    """A good file that this app cannot take, for example one of a newer version."""

    code = Code.FAILED_PRECONDITION
    reason = "ARCHIVE_INCOMPATIBLE"
    usual_next_step = "Import it into an app like the one that it comes from, or change that one and make it again."


class LimitExceededError(ServiceError):
    """Size, number of entries or expansion ratio is over the agent's limit."""

    code = Code.OUT_OF_RANGE
    reason = "LIMIT_EXCEEDED"
    usual_next_step = "Raise the limit in the agent's settings, or do not import it."


class NoSpaceError(ServiceError):
    """There is no room to build the staged copy."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "NO_SPACE"
    usual_next_step = "Free some, then try again."


class AppUnavailableError(ServiceError):
    """The app itself does not answer, or refuses the agent's credentials."""

    code = Code.UNAVAILABLE
    reason = "APP_UNAVAILABLE"
    usual_next_step = "See that the app runs and lets the agent in, then try again."


class AppBusyError(ServiceError):
    """The app could not be interrupted for the swap; what was staged is still there and the step may be repeated."""

    code = Code.UNAVAILABLE
    reason = "APP_BUSY"
    usual_next_step = "Try again when the app is less busy."


class AppMustStopError(ServiceError):
    """The swap needs the app stopped, and the agent has no way to stop it."""

    code = Code.FAILED_PRECONDITION
    reason = "APP_MUST_STOP"


class SourceUnreadableError(ServiceError):
    """Part of the app's data cannot be read; an export that silently lacks it would be worse than none."""

    code = Code.FAILED_PRECONDITION
    reason = "SOURCE_UNREADABLE"
    usual_next_step = "Give the agent the right to read it."


class ToolFailedError(ServiceError):
    """A dump or restore program ended badly; the text has what it said last."""

    code = Code.INTERNAL
    reason = "TOOL_FAILED"
    usual_next_step = "See the app's log and the agent's, then try again."


class NothingToUndoError(ServiceError):
    """No previous data is kept: never imported, already undone, confirmed or expired."""

    code = Code.FAILED_PRECONDITION
    reason = "NOTHING_TO_UNDO"


class AgentUnavailableError(ServiceError):
    """The app's agent does not answer, or went away in the middle."""

    code = Code.UNAVAILABLE
    reason = "AGENT_UNAVAILABLE"
    is_refusal = False
    """The agent itself answered so, being stopped: it has begun nothing of what was asked."""


def _subclasses(parent: type[ServiceError]) -> list[type[ServiceError]]:
    return [parent, *(found for child in parent.__subclasses__() for found in _subclasses(child))]


ERRORS_BY_REASON: dict[str, type[ServiceError]] = {
    found.reason: found for found in _subclasses(ServiceError) if found not in (ServiceError, ArchiveError)
}
"""Every reason on the wire and its class; docs/errors.md lists the same reasons."""


def make_error(reason: str, text: str, *, next_step: str = "") -> ServiceError:
    """The typed error of a reason; InternalError for a reason that this version does not know."""
    return ERRORS_BY_REASON.get(reason, InternalError)(text, next_step=next_step)
