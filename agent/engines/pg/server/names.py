"""What we make in a server, by name and by label: so that it is found again when the journal is lost.

Names derive from an import's key alone, never from the database's name, which may be 63 bytes long already. The label
is a comment in JSON; it says whose import it was.
"""

from __future__ import annotations

import re

import msgspec

from agent.engines.pg.server.connection import Connection

_VERSION = 1
_OURS = re.compile(r"mathison_(new|kept|restore)_([0-9a-f]{12})")


def new_name(key: str) -> str:
    """The database that is being made, or that an undo left."""
    return f"mathison_new_{key}"


def kept_name(key: str) -> str:
    """The previous database of an import."""
    return f"mathison_kept_{key}"


def role_name(key: str) -> str:
    """The throw-away role that loads an import."""
    return f"mathison_restore_{key}"


def session_name(key: str) -> str:
    """The application_name of the agent's own sessions for an import."""
    return f"mathison-import-{key}"


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """The comment on what we made.

    Attributes:
        of: the app's database.
        comment: the kept database's own comment, which an undo puts back.
        imported: on a kept database: the number of the one that took its name; None: an older agent did not say.
        belongings: of a new database that is ready: what the app's had when it was carried over; see `same_belongings`.
    """

    mathison_data: int = _VERSION
    of: str
    app_id: str
    key: str
    comment: str | None = None
    imported: int | None = None
    belongings: dict[str, str] | None = None

    def to_text(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_text(cls, text: str | None) -> Label | None:
        """None for a comment that is not ours, or of another agent's version: what carries it is left alone."""
        try:
            label = msgspec.json.decode(text or "", type=cls)
        except msgspec.DecodeError:
            return None
        return label if label.mathison_data == _VERSION else None


class Found(msgspec.Struct, frozen=True):
    """What is in the server of imports into one database, by key."""

    new: dict[str, Label]
    """Unfinished ones: a database, a role, or both."""
    kept: dict[str, Label]


async def find_ours(connection: Connection, database: str) -> Found:
    """Everything that carries our name and label and belongs to the app's database `database`."""
    cursor = await connection.execute("""
        SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE starts_with(datname, 'mathison_')
        UNION ALL
        SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE starts_with(rolname, 'mathison_')
    """)
    found = Found({}, {})
    for name, comment in await cursor.fetchall():
        label = Label.from_text(comment)
        match = _OURS.fullmatch(name)
        if match and label and label.of == database:
            (found.kept if match[1] == "kept" else found.new)[match[2]] = label
    return found
