"""What is wrong with an SQL text, said in the child that reads it.

The classes of common.errors would bring gRPC into that child; so it names an error's reason, and the agent makes the
error of it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

_IN_NO_SCHEMA = re.compile(
    r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:TRUSTED\s+|PROCEDURAL\s+)*"
    r"(LANGUAGE|CAST|ACCESS\s+METHOD|FOREIGN\s+DATA\s+WRAPPER|SERVER|USER\s+MAPPING|TRANSFORM)\b",
    re.IGNORECASE,
)
_FOREIGN = "FOREIGN DATA WRAPPER|FOREIGN TABLE|SERVER|USER MAPPING"

OUT_OF_LOCKS = (
    "Where it is out of shared memory, it has no room for so many locks: set max_locks_per_transaction higher in "
    "postgresql.conf and restart the server; then try again."
)
"""What to do about SQLSTATE 53200."""
DISK_FULL = "Make room there, see that the server runs, and try again."
"""What to do about SQLSTATE 53100."""
LEFT_OUT_BY_HAND = (
    "Leave it and what needs it out of a dump in custom format: pg_restore --list DUMP > LIST; put a semicolon before "
    "its line in LIST; pg_restore --use-list=LIST --file=NEW.sql DUMP; then import NEW.sql. Or drop it in the source."
)
"""What to do about a thing that only a superuser may make."""

MARK = "|"
"""Between the parts of an answer of `kept_state.state_queries`."""


class TextError(Exception):
    """What is wrong with the text, as reason and text of the error that its sender gets; see common.errors."""

    def __init__(self, reason: str, text: str, *, next_step: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.next_step = next_step


def joined(said: str) -> str:
    """What libpq says, each message in one line: it goes on in lines that begin with a tab."""
    return re.sub(r"\s*\n\t\s*", " ", re.sub(r"(?<![.!?\s])\s*\n\t\s*(?=[A-Z])", ". ", said.strip()))


def made_with_create(line: int) -> TextError:
    """The refusal of a dump that brings its own database."""
    return TextError(
        "ARCHIVE_REFUSED",
        f"Line {line}: the dump was made with --create, so it wants to make a database of its own.",
        next_step="Dump without --create (-C).",
    )


def client_command(line: int) -> TextError:
    """The refusal of a backslash command."""
    return TextError(
        "ARCHIVE_REFUSED",
        f"Line {line}: the file tries to run a client command.",
        next_step="A dump made by pg_dump has no such line; make a new one.",
    )


def rows_of_an_extension(line: int, table: bytes) -> TextError:
    """The refusal of rows that only a superuser may add."""
    name = table.decode(errors="replace")
    return TextError(
        "ARCHIVE_INCOMPATIBLE",
        f"Line {line}: the dump brings rows for {name}, which is a table of an extension, and an import may not write "
        "there: an extension's own code may trust it.",
        next_step=f"Dump without them (pg_dump --exclude-table-data={shlex.quote(name)}), import that, and add them as "
        "a superuser.",
    )


def read_otherwise(line: int, encoding: bytes) -> TextError:
    """The refusal of a file after which the server reads text in an encoding that hides where strings end."""
    return TextError(
        "ARCHIVE_REFUSED",
        f"Line {line}: something before it in the file set client_encoding to {encoding.decode(errors='replace')!r}, "
        "in which the server could read the file otherwise than it was looked at.",
        next_step="Make the dump with pg_dump --encoding=UTF8.",
    )


def refused_by_check(said: str) -> TextError:
    """The refusal of a file of which a function did harm while it was loaded, as our own check found."""
    return TextError(
        "ARCHIVE_REFUSED",
        f"PostgreSQL: {said}.",
        next_step="A function in the file did that while rows were loaded; do not import this file, make a new dump.",
    )


def changed_by_somebody(what: Collection[str]) -> TextError:
    """The end of an import during which something changed, by the file's code or by somebody else."""
    return TextError(
        "APP_BUSY",
        f"While the file was loaded, something changed that an import leaves alone: {', '.join(sorted(what))}.",
        next_step="Another session of the database may have done that, as when an app makes its tables or an extension "
        "is created: see that none does, then import again. Where there is none, a function in the file did it; do not "
        "import that file.",
    )


def made_outside_of_schemas(head: str) -> tuple[str, str] | None:
    """What a statement makes, with its article, if that is in no schema, and how to leave it out.

    No option of pg_dump does that.
    """
    found = _IN_NO_SCHEMA.match(head)
    if found is None:
        return None
    kind = " ".join(found[1].upper().split())
    kinds = _FOREIGN if kind in _FOREIGN else kind
    there = (
        " An import takes a server with its user mappings from the app's database, where the agent has a superuser as "
        "its admin_user and the server's wrapper is an extension's: so an administrator may make it there first."
        if kind in ("SERVER", "USER MAPPING")
        else ""
    )
    return (
        f"{'an' if kind.startswith('A') else 'a'} {kind.lower()}",
        "Leave it and what needs it out of a dump in custom format: "
        f"pg_restore --list DUMP | grep -vE ' ({kinds}) ' > LIST; "
        f"pg_restore --use-list=LIST --file=NEW.sql DUMP; then import NEW.sql. Or drop it in the source.{there}",
    )
