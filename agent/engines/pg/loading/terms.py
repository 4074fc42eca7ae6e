"""How a dump is loaded where its loader's role owns more than an empty database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.engines.pg.server.clients import Clients
from agent.engines.pg.server.settings import PostgresSettings
from agent.limits import Limits
from agent.steps import Progress, Step


@dataclass(frozen=True)
class LoadSurroundings:
    """What loading needs besides a database."""

    clients: Clients
    spool_directory: Path
    limits: Limits
    settings: PostgresSettings

    @property
    def sessions(self) -> int:
        """How many connections load in parallel."""
        return self.settings.load_sessions


class LoadProgressOf:
    """What the loader says, told as a recipe's progress."""

    def __init__(self, progress: Progress, step: Step) -> None:
        self._progress = progress
        self._step = step

    def read(self, size_bytes: int) -> None:
        self._progress.read(size_bytes)

    def note(self, sentence: str) -> None:
        self._progress.step(self._step, sentence)


@dataclass(frozen=True)
class Terms:
    """What `load` does beside sending a dump's statements.

    Attributes:
        is_restricted: statements that pg_dump does not write are refused, see `restricted`.
        is_check: nothing is sent anywhere; the file is read and judged to its end.
        before: statements of ours that run first. With them, all runs in one session and one transaction, which is
            committed only after everything.
        same: with `before`, a query of queries; what those answer has to be the same before the file and after
            `settling`, else the import ends as refused.
        settling: statements of ours that run after the file; what they raise ends the import as refused.
        after: statements of ours that run last.
        foreign_servers: those that are there already; the file's statements about them are left out.
        extension_tables: schema and name of those in which a file can put no rows; it may say that it has none.
    """

    is_restricted: bool = False
    is_check: bool = False
    before: Sequence[str] = ()
    same: str = ""
    settling: Sequence[str] = ()
    after: Sequence[str] = ()
    foreign_servers: frozenset[str] = frozenset()
    extension_tables: frozenset[tuple[str, str]] = frozenset()


ORDINARY = Terms()
