"""Who did what to whose data: one JSON object a line, only ever added to, never a secret.

An operation that is let through has two lines, `started` before anything happens and its result at the end, so that a
controller that is killed in between has said what it was doing. One that is refused has a single line. Callers without
a valid token share a line a second at most, which says how many went before without one: they could otherwise fill the
disk. The program's log has each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from common.errors import (
    AppNotFoundError,
    CancelledError,
    InternalError,
    NotAuthenticatedError,
    NotPermittedError,
    ServiceError,
)
from controller.callers import Caller
from controller.clock import Clock

Action = Literal["export", "fingerprint", "import", "undo", "confirm", "cancel", "authenticate"]
Result = Literal["succeeded", "failed", "cancelled", "refused", "unknown"]
"""unknown: we stopped while an agent was exchanging data, which it finishes or takes back by itself."""
_MOST_ID_CHARACTERS = 128
"""All of an app's id; of something else that a caller names, the beginning."""
_TURNED_AWAY_GAP = dt.timedelta(seconds=1)
"""Between two lines about callers without a valid token; a day of nothing else adds less than 20 MB."""
_log = structlog.get_logger(__name__)


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line; what is empty is left out."""

    at: dt.datetime
    action: Action
    result: Result | Literal["started"]
    caller: str = ""
    """Of the token; empty where it was not a valid one."""
    remote_address: str = ""
    """Empty where a line is about nobody in particular."""
    app_id: str = ""
    transfer_id: str = ""
    is_dry_run: bool = False
    size_bytes: int = 0
    sha256: str = ""
    reason: str = ""
    left_out: int = 0
    """How many callers were turned away since the line before about one, without one of their own."""


class Attempt:
    """One operation while it goes on; what becomes known is set on it."""

    def __init__(self, audit: Audit, caller: Caller, action: Action, app_id: str) -> None:
        self.transfer_id = ""
        self.is_dry_run = False
        self.size_bytes = 0
        self.sha256 = ""
        self.is_past_return = False
        """From here on ending the operation here does not end what the agent does."""
        self._audit = audit
        self._caller = caller
        self._action: Action = action
        self._app_id = app_id[:_MOST_ID_CHARACTERS]

    def start(self) -> None:
        """The operation is let through. Raises InternalError when that cannot be written down: then it must not be."""
        try:
            self.write("started")
        except OSError as failure:
            raise InternalError("The controller cannot write its audit log.") from failure

    def write(self, result: Result | Literal["started"], *, reason: str = "") -> None:
        self._audit.append(
            Line(
                at=self._audit.now(),
                action=self._action,
                result=result,
                caller=self._caller.name,
                remote_address=self._caller.remote_address,
                app_id=self._app_id,
                transfer_id=self.transfer_id,
                is_dry_run=self.is_dry_run,
                size_bytes=self.size_bytes,
                sha256=self.sha256,
                reason=reason,
            )
        )


class Audit:
    """The audit log's file, mode 0600."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self.now = clock
        self.is_stopping = False
        """What is broken off from now on may be so because the controller stops."""
        self._turned_away_at: dt.datetime | None = None
        self._left_out = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._descriptor).st_size
        self._is_torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    def close(self) -> None:
        if self._left_out:
            self._write_turned_away("", NotAuthenticatedError.reason)
        os.close(self._descriptor)

    def append(self, line: Line) -> None:
        """One write a line, so lines of two processes never mix. OSError: it is not there, or only its beginning."""
        text = b"\n" * self._is_torn + msgspec.json.encode(line) + b"\n"
        written = os.write(self._descriptor, text)
        self._is_torn = written < len(text)
        if self._is_torn:
            raise OSError(errno.ENOSPC, "the line was written in part")

    def turn_away(self, remote_address: str, reason: str) -> None:
        """Note that somebody without a valid token was refused; never fails, and writes one line a second at most."""
        now, before = self.now(), self._turned_away_at
        if before is not None and before <= now < before + _TURNED_AWAY_GAP:  # a clock that was set back is no gap
            self._left_out += 1
            return
        self._turned_away_at = now
        if not self._write_turned_away(remote_address, reason):
            self._left_out += 1

    def _write_turned_away(self, remote_address: str, reason: str) -> bool:
        line = Line(
            at=self.now(),
            action="authenticate",
            result="refused",
            remote_address=remote_address,
            reason=reason,
            left_out=self._left_out,
        )
        try:
            self.append(line)
        except OSError:
            _log.exception("The audit log cannot be written.", action="audit", result=line.result)
            return False
        self._left_out = 0
        return True

    @contextlib.contextmanager
    def attempt(self, caller: Caller, action: Action, app_id: str) -> Iterator[Attempt]:
        """Around an operation, authorisation included; how the block is left decides the last line."""
        attempt = Attempt(self, caller, action, app_id)
        try:
            yield attempt
        except (NotPermittedError, AppNotFoundError) as refusal:
            _write_last(attempt, "refused", refusal.reason)
            raise
        except CancelledError as cancellation:
            _write_last(attempt, "cancelled", cancellation.reason)
            raise
        except ServiceError as failure:
            _write_last(attempt, "failed", failure.reason)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            result: Result = "unknown" if attempt.is_past_return else "cancelled"
            _write_last(attempt, result, "CONTROLLER_STOPPED" if self.is_stopping else "CALLER_LEFT")
            raise
        except BaseException:
            _write_last(attempt, "failed", InternalError.reason)
            raise
        else:
            _write_last(attempt, "succeeded")


def _write_last(attempt: Attempt, result: Result, reason: str = "") -> None:
    """A result that cannot be written down changes nothing about what happened."""
    try:
        attempt.write(result, reason=reason)
    except OSError:
        _log.exception(
            "The audit log cannot be written.", action="audit", result=result, transfer_id=attempt.transfer_id
        )
