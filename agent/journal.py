"""What exists outside the process on behalf of imports, durable: one JSON file for each import that holds anything.

A line is written before what it names is made, and removed after that is gone, so whatever kills the agent, the next
one finds what is left. That one may be older or newer: what it cannot read it leaves alone, see `agent.versions`.
Finished transfers are remembered too (`History`), for callers who ask again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import errno
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from agent.recipes.base import Fact
from agent.states import TransferState
from agent.versions import UnknownVersionError, not_read, require_known
from common.errors import NoSpaceError
from common.files import private_directory, sync_directory, write_atomically

_DAMAGED_SUFFIX = ".damaged"
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
        self._path = path
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
        self._path.unlink(missing_ok=True)
        sync_directory(self._path.parent)

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
            write_atomically(self._path, msgspec.json.encode(self._line))
        except OSError as failure:
            if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpaceError("There is no room left in the agent's state directory.") from failure


class _Named(msgspec.Struct):
    transfer_id: str = ""


class _Head(msgspec.Struct):
    """What of a line stays the same in every version."""

    app_id: str
    recipe: str
    key: str
    made_by: str = ""
    phase: str = ""
    state: _Named = msgspec.field(default_factory=_Named)


@dataclass(frozen=True)
class UnknownLine:
    """A line that another agent wrote, in a form that this one does not read.

    Attributes:
        is_at_rest: the import was in no swap, so what the app reads is all of one side.
    """

    path: Path
    is_at_rest: bool
    text: str

    def to_error(self) -> UnknownVersionError:
        """Why nothing is done beside it."""
        usual = UnknownVersionError.usual_next_step
        return UnknownVersionError(
            self.text,
            next_step=f"{usual} If that cannot be, see to the app's data yourself, then move {self.path} away.",
        )


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
        """What the last `read` could not read of other agents' lines, as long as it is there."""
        return [line for line in self._unknown if line.path.exists()]

    def read(self) -> list[Entry]:
        """All lines that this agent knows, in the order in which their imports were started; see `unknown` too.

        What is damaged, or belongs to another app or recipe, is renamed to *.damaged and reported once: the agent
        must start, and a person may want to see what it named.
        """
        entries = []
        self._unknown = []
        for path in self._directory.iterdir():
            if path.name.startswith(".") and path.is_file():
                # Left by a kill between the two steps of an atomic write.
                path.unlink()
            elif path.suffix == ".json":
                try:
                    line = self._read_line(path)
                    if isinstance(line, UnknownLine):
                        self._unknown.append(line)
                        _log.error("A line of the journal is left alone.", action="read_journal", error=line.text)
                    else:
                        entries.append(Entry(path, line))
                except (ValueError, OSError) as failure:
                    with contextlib.suppress(OSError):
                        path.rename(path.with_name(path.name + _DAMAGED_SUFFIX))
                    _log.error(
                        "A line of the journal cannot be used and was set aside; what it names may be left over.",
                        action="read_journal",
                        file=path.name + _DAMAGED_SUFFIX,
                        error=str(failure),
                    )
        return sorted(entries, key=lambda entry: entry.state.place)

    def _read_line(self, path: Path) -> _Line | UnknownLine:
        """Raises ValueError where it is damaged, or of another app."""
        content = path.read_bytes()
        head = msgspec.json.decode(content, type=_Head)
        if (head.app_id, head.recipe) != (self._app_id, self._recipe):
            raise ValueError(f"it belongs to {head.app_id} with recipe {head.recipe}")
        if path.stem != head.key:
            raise ValueError(f"its key is {head.key}")
        what = f"Import {head.state.transfer_id}"
        try:
            require_known(content, self._versions, what)
            line = msgspec.json.decode(content, type=_Line)
        except UnknownVersionError as unknown:
            text = unknown.text
        except ValueError as failure:
            text = not_read(what, head.made_by, str(failure)).text
        else:
            # Once it is written, it holds what only this agent may know how to read.
            line.version, line.made_by = self._versions[-1], self._made_by
            return line
        return UnknownLine(path, head.phase in {phase.value for phase in _AT_REST}, text)


class History:
    """The last finished transfers, in one file; losing it costs an answer to a repeated call, no data."""

    LIMIT = 100

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[TransferState]:
        """Oldest first; empty when there is no file or it cannot be used."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[TransferState])
        except FileNotFoundError:
            return []
        except ValueError as failure:
            _log.warning(
                "The list of finished transfers cannot be read; a new one is begun.",
                action="read_history",
                error=str(failure),
            )
            return []

    def write(self, states: Iterable[TransferState]) -> None:
        """Replace it; a failure is logged, since no transfer should fail for its entry in a list."""
        try:
            write_atomically(self._path, msgspec.json.encode(list(states)[-self.LIMIT :]))
        except OSError as failure:
            _log.warning("The list of transfers was not written.", action="write_history", error=str(failure))
