"""What exists outside the process on behalf of imports, durable: one JSON file for each import that holds anything.

A line is written before what it names is made, and removed after that is gone, so whatever kills the agent, the next
one finds what is left. That one may be older or newer: what it cannot read it leaves alone, see `agent.versions`.
"""

from __future__ import annotations

import datetime as dt
import enum
import errno
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from agent.recipes.base import Fact
from agent.states import TransferState
from agent.versions import UnknownVersionError, not_read, require_known
from common.errors import NOTHING_CHANGED, AppUnavailableError, NoSpaceError
from common.files import private_directory, sync_directory, write_atomically

_STAYS = f"{NOTHING_CHANGED} All that the import keeps stays."
_log = structlog.get_logger(__name__)


class ImportPhase(enum.Enum):
    """How far an import is; drawn in docs/architecture.md."""

    STAGING = "staging"
    STAGED = "staged"
    RESTORING = "restoring"
    KEPT = "kept"
    UNDOING = "undoing"
    DROPPING = "dropping"
    """Nobody needs what it holds any more; it is tried again until that is gone."""


_AT_REST = (ImportPhase.STAGING, ImportPhase.STAGED, ImportPhase.KEPT, ImportPhase.DROPPING)
"""What the app reads is all of one side."""


class _Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The file's content.

    Attributes:
        version: see `recipes.base.Recipe.journal_versions`.
        made_by: the agent that wrote it; empty: it did not say.
    """

    version: int
    made_by: str = ""
    app_id: str
    recipe: str
    key: str
    phase: ImportPhase
    state: TransferState
    expires_at: dt.datetime | None = None
    facts: dict[str, Fact] = {}


class Entry:
    """One import's line; implements recipes.base.Record."""

    def __init__(self, path: Path, line: _Line) -> None:
        self.path = path
        self._line = line
        self.transfer_id = line.state.transfer_id
        self.key = line.key
        self.facts = line.facts

    def save(self, **facts: Fact) -> None:
        """Merge into `facts`; durable on return.

        Raises:
            NoSpaceError: the disk is full; the file is as it was.
        """
        self.facts.update(facts)
        self._write()

    def move(self, phase: ImportPhase, state: TransferState, *, expires_at: dt.datetime | None = None) -> None:
        """Enter a phase; durable on return.

        Args:
            expires_at: when what it holds is dropped if nobody does anything; None: never.
        """
        self._line.phase, self._line.state, self._line.expires_at = phase, state, expires_at
        self._write()

    def remove(self) -> None:
        """Forget it, after what it names is gone; durable on return."""
        self.path.unlink(missing_ok=True)
        sync_directory(self.path.parent)

    @property
    def way_out(self) -> str:
        """A sentence for a person, where nothing else helps."""
        return _way_out(self.path)

    @property
    def phase(self) -> ImportPhase:
        return self._line.phase

    @property
    def state(self) -> TransferState:
        """As of the last move."""
        return self._line.state

    @property
    def expires_at(self) -> dt.datetime | None:
        return self._line.expires_at

    def _write(self) -> None:
        try:
            write_atomically(self.path, msgspec.json.encode(self._line))
        except OSError as failure:
            if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpaceError("There is no room left in the agent's state directory.") from failure


@dataclass(frozen=True)
class UnknownLine:
    """A line that this agent does not read: another one wrote it, or it is damaged, or cannot be had now.

    Attributes:
        is_at_rest: the import was in no swap, so what the app reads is all of one side.
        next_step: what would have it read.
    """

    path: Path
    text: str
    is_at_rest: bool = False
    next_step: str = "See that the agent's state directory is its own and can be read, then start the agent again."

    def to_error(self) -> AppUnavailableError:
        """Why nothing is done beside it."""
        return AppUnavailableError(self.text, next_step=f"{self.next_step} {_way_out(self.path)}")


class Journal:
    """The directory of all lines."""

    def __init__(
        self, directory: Path, *, app_id: str, recipe: str, versions: Sequence[int] = (1,), made_by: str = ""
    ) -> None:
        """
        Args:
            versions: the recipe's `journal_versions`.
            made_by: this agent, for the next one.
        """
        self._directory = private_directory(directory)
        self._app_id = app_id
        self._recipe = recipe
        self._versions = versions
        self._made_by = made_by
        self._unknown: list[UnknownLine] = []

    def open(self, state: TransferState) -> Entry:
        """A new line, in phase STAGING; durable on return."""
        key = secrets.token_hex(6)
        line = _Line(
            version=self._versions[-1],
            made_by=self._made_by,
            app_id=self._app_id,
            recipe=self._recipe,
            key=key,
            phase=ImportPhase.STAGING,
            state=state,
        )
        entry = Entry(self._directory / f"{key}.json", line)
        entry.move(ImportPhase.STAGING, state)
        return entry

    @property
    def unknown(self) -> list[UnknownLine]:
        """The lines that the last `read` could not read, or that were left alone since, as long as they are there."""
        return [line for line in self._unknown if not _is_gone(line.path)]

    def leave_alone(self, entry: Entry, cause: UnknownVersionError) -> UnknownVersionError:
        """Count a line from now on as one that could not be read, since what is noted beside it cannot be.

        Returns:
            Why, for who wanted what it names to be dropped.
        """
        text = f"What import {entry.transfer_id} keeps cannot be dropped: {cause.text}"
        line = UnknownLine(entry.path, text, is_at_rest=True, next_step=cause.next_step)
        self._unknown.append(line)
        _log.error("A line of the journal is left alone.", action="drop", error=text)
        return UnknownVersionError(text, next_step=line.to_error().next_step)

    def read(self) -> list[Entry]:
        """All lines that this agent knows, in the order in which their imports were started; see `unknown` too.

        None of the others is taken for nothing, since the import that it is of may be in the middle of a swap.
        """
        entries = []
        self._unknown = []
        for path in self._directory.iterdir():
            if path.name.startswith(".") and path.is_file():
                # Left by a kill between the two steps of an atomic write.
                path.unlink()
            elif path.suffix == ".json":
                line = self._read_line(path)
                if isinstance(line, UnknownLine):
                    self._unknown.append(line)
                    _log.error("A line of the journal is left alone.", action="read_journal", error=line.text)
                else:
                    entries.append(Entry(path, line))
        return sorted(entries, key=lambda entry: entry.state.place)

    def _read_line(self, path: Path) -> _Line | UnknownLine:
        try:
            content = path.read_bytes()
            # These mean the same in every version; of what type they are in a later one, nobody knows.
            head = msgspec.json.decode(content, type=dict[str, Any])
        except (ValueError, OSError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) else f"it is damaged ({failure})"
            return UnknownLine(path, f"What was noted of an import in {path.name} cannot be read: {reason}. {_STAYS}")
        whose = tuple(head.get(name) for name in ("app_id", "recipe", "key"))
        if whose != (self._app_id, self._recipe, path.stem):
            app_id, recipe, key = whose
            return UnknownLine(
                path,
                f"What was noted of an import in {path.name} is not this app's: it names the app {app_id}, the recipe "
                f"{recipe} and the key {key}. {_STAYS}",
            )
        state = head.get("state")
        what = f"Import {state.get('transfer_id', '')}" if isinstance(state, dict) else f"The import of {path.name}"
        try:
            require_known(content, self._versions, what)
            line = msgspec.json.decode(content, type=_Line)
        except UnknownVersionError as unknown:
            text = unknown.text
        except ValueError as failure:
            made_by = head.get("made_by")
            text = not_read(what, made_by if isinstance(made_by, str) else "", str(failure)).text
        else:
            # Once it is written, it holds what only this agent may know how to read.
            line.version, line.made_by = self._versions[-1], self._made_by
            return line
        is_at_rest = head.get("phase") in [phase.value for phase in _AT_REST]
        return UnknownLine(path, text, is_at_rest, UnknownVersionError.usual_next_step)


def _way_out(path: Path) -> str:
    return f"If that cannot be, see to the app's data yourself, then move {path} away."


def _is_gone(path: Path) -> bool:
    """Whether somebody moved it away; a disk that does not answer says nothing of that."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
