"""Triggers and views of a SQLite database: what an upload would have an app run without knowing of it.

An import takes those that the app itself makes, and those that it has already, word for word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from agent.archives.members import printable
from common.errors import ArchiveRefusedError

_NAME = "programs"
PROGRAMS = {_NAME: "SELECT type, name, sql FROM sqlite_schema WHERE type IN ('trigger', 'view') ORDER BY type, name"}
"""The query for them, to be asked with an app's others."""
Programs = Mapping[str, str]
"""What a person calls each, by its text without quotes and line ends."""
_Rows = Mapping[str, Sequence[Sequence[object]] | None]


def programs_of(rows: _Rows) -> Programs:
    """
    Args:
        rows: answers to queries of which `PROGRAMS` was one.
    """
    return {without_quotes(str(sql)): f"the {kind} {printable(str(name))}" for kind, name, sql in rows.get(_NAME) or ()}


def without_quotes(sql: str) -> str:
    """A definition, the same however it is laid out."""
    return " ".join(sql.replace('"', "").split())


def foreign(programs: Programs, known: Collection[str]) -> str:
    """What is not among those known, for a person; empty: nothing."""
    return ", ".join(name for text, name in programs.items() if text not in known)


def warnings_of(programs: Programs, known: Collection[str], app: str) -> list[str]:
    """What is to be said with an export of a database; nothing where an import takes all of it.

    Args:
        known: texts of those that the app makes.
    """
    if found := foreign(programs, known):
        return [
            f"The database holds {found}, which {app} does not make: an import is refused, unless into an app that has "
            "the very same."
        ]
    return []


def require_known(programs: Programs, known: Collection[str], app: str) -> None:
    """
    Args:
        known: texts of those that the app makes, and of those that it has.
    Raises:
        ArchiveRefusedError: there are others.
    """
    if found := foreign(programs, known):
        raise ArchiveRefusedError(
            f"The database holds {found}, which {app} does not make: it would run whenever the app uses the database. "
            "Nothing was changed.",
            next_step="If it is meant to be there, make the same in the app that takes the data, then import again; "
            "otherwise drop it in a copy of the database, and import that.",
        )
