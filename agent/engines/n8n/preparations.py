"""What the agent and the child that prepares an uploaded database say to each other."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from common.errors import AppBusyError

Items = Mapping[str, Mapping[str, str]]
"""Digests of what a database holds, by kind and id; see items.py."""


class Request(msgspec.Struct, kw_only=True):
    """What to do with which database.

    Attributes:
        directory: descriptor of the SQLite file's directory, `file` its name there; -1: it is another.
        seconds: how long that file, or a database in a server, may be worked with at most.
        is_live: whether an app has that file open.
        connection: libpq's parameters, for PostgreSQL.
        keys: those that may open the secrets, the likeliest first.
        target_key: the one that they are to be under; empty: this is only a look at what an app has.
        salt: of the digests of what is in there; both databases of a comparison have the same.
        known_migrations: of the n8n that is to take the data; None: not compared.
    """

    directory: int = -1
    file: str = ""
    seconds: float = 0.0
    is_live: bool = False
    connection: dict[str, str | int | None] = {}
    schema: str = ""
    keys: list[str] = []
    target_key: str = ""
    known_migrations: list[str] | None = None
    without_credentials: bool = False
    deactivate_workflows: bool = False
    salt: str = ""


class Active(msgspec.Struct, frozen=True):
    """What acts by itself as soon as n8n starts; `executions` are those in the queue."""

    workflows: int = 0
    agents: int = 0
    executions: int = 0


class Prepared(msgspec.Struct, kw_only=True):
    """What came of it; `reason` is empty on success, otherwise as in `common.errors`.

    Attributes:
        key_used: position in the request's keys of the one that fits; -1: none was needed.
        secrets: encrypted again.
        emptied: credentials that lost what they held.
        deactivated: what was switched off; `active` is what remains.
        waiting: executions that n8n will go on with.
        warnings: of loading it, in sentences.
        items: digests by kind and id, see `items`.
        size_bytes: of a database that is not among the staged files.
    """

    reason: str = ""
    text: str = ""
    next_step: str = ""
    counts: dict[str, int] = {}
    migrations: list[str] = []
    is_rotating: bool = False
    key_used: int = -1
    secrets: int = 0
    unreadable: list[str] = []
    emptied: int = 0
    active: Active = Active()
    deactivated: Active = Active()
    waiting: int = 0
    warnings: list[str] = []
    items: Items = {}
    size_bytes: int = 0


def table_locked() -> AppBusyError:
    return AppBusyError(
        "Another session has locked a table of n8n's database for long.",
        next_step="See in pg_stat_activity who holds it, and try again when that has ended.",
    )
