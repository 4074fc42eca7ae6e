"""What an import would change, told from the databases before and after."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agent.engines.pg.exports.fingerprint import NEWER_SCHEME, SCHEME, read_small_tables
from agent.engines.pg.loading.load import Loaded
from agent.engines.pg.server.catalog import ROWS_ABOUT, USER_SCHEMA, count_objects, no_member
from agent.engines.pg.server.connection import Connection
from agent.item_changes import ItemChanges
from common.fingerprints import Fingerprint
from common.headers import ArchiveHeader
from common.wording import some_of

_MOST_NAMES = 10
_COMPARED_BYTES = 32 << 20
_COMPARED_SECONDS = 2.0
_MOST_ROWS = 2**63 - 1
RENAMES_SECONDS = 0.2
"""What clients meet when two databases are exchanged: 0.1 s was measured."""
DUMPED_BYTES_A_SECOND, LOADED_BYTES_A_SECOND = 50e6, 30e6
"""On two cores: pg_dump wrote 85 MB a second, one session loaded 37 MB of SQL text."""


@dataclass(frozen=True)
class Content:
    """One database: names of its tables, as SQL needs them, and counts of objects."""

    tables: frozenset[str]
    counts: Mapping[str, int]
    rows: int
    """As the server's statistics say; about right after ANALYZE."""


async def look_at_content(connection: Connection) -> Content:
    """The connected database."""
    cursor = await connection.execute(f"""
        SELECT format('%I.%I', n.nspname, c.relname), CASE c.relkind WHEN 'r' THEN {ROWS_ABOUT} ELSE 0 END
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {USER_SCHEMA} AND c.relkind IN ('r', 'p') AND {no_member("pg_class", "c.oid")}
    """)  # noqa: S608
    tables = await cursor.fetchall()
    return Content(
        frozenset(name for name, _ in tables), await count_objects(connection), int(sum(rows for _, rows in tables))
    )


Held: TypeAlias = Mapping[str, tuple[int, str | None]]
"""Tables and materialized views by name: the number of rows, and what tells their content where it was looked at."""


async def look_at_tables(connection: Connection) -> Held:
    """What the tables of the connected database hold, the content of the small ones.

    A preview is to cost little: with both databases a second at most, usually far less.
    """
    return await read_small_tables(connection, most_bytes=_COMPARED_BYTES, within_seconds=_COMPARED_SECONDS)


def tables_of(fingerprint: Fingerprint | None) -> Held | None:
    """What an archive says of its tables; None where it says nothing of each."""
    if fingerprint is None or fingerprint.scheme not in (SCHEME, NEWER_SCHEME):
        return None
    parts = {name[6:]: text for name, text in fingerprint.parts.items() if name.startswith("table ")}
    try:
        held = {name: (int(text.partition(" rows, ")[0]), text) for name, text in parts.items()}
    except ValueError:
        return None
    numbers = [rows for rows, _ in held.values()]
    # The archive's word, which may be a lie: more rows than there can be are none that can be told.
    return held if held and min(numbers) >= 0 and sum(numbers) <= _MOST_ROWS else None


async def size_of(connection: Connection) -> int:
    """Bytes that the connected database takes."""
    cursor = await connection.execute("SELECT pg_database_size(current_database())")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True)
class Changes:
    """What an import would change; the attributes are those of recipes.base.Preview."""

    changes: tuple[str, ...]
    counts_now: Mapping[str, int]
    counts_after: Mapping[str, int]
    items: Mapping[str, ItemChanges]
    bridging: str
    room_bytes: int
    swap_seconds: float
    warnings: tuple[str, ...]
    header: ArchiveHeader


def items_between(
    now: Held, after: Held, *, views_now: Collection[str] = (), views_after: Collection[str] = ()
) -> Mapping[str, ItemChanges]:
    """Tables and materialized views by their content. Of rows it is known that they come, go or stay with a whole
    table; of a table that differs, what it has more or less counts as added or removed, and the rest is not compared.

    Args:
        views_now, views_after: the materialized views. Their rows do not count: they are those of tables, told again.
    """
    tables = ItemChanges.between(
        {name: content for name, (_, content) in now.items()}, {name: content for name, (_, content) in after.items()}
    )
    now = {name: table for name, table in now.items() if name not in views_now}
    after = {name: table for name, table in after.items() if name not in views_after}
    rows = {"added": 0, "removed": 0, "same": 0, "not_compared": 0}
    for name in now.keys() | after.keys():
        if name not in after:
            rows["removed"] += now[name][0]
        elif name not in now:
            rows["added"] += after[name][0]
        elif after[name][1] is not None and now[name] == after[name]:
            rows["same"] += after[name][0]
        elif not (_is_counted(now[name]) and _is_counted(after[name])):
            rows["not_compared"] += max(now[name][0], after[name][0])
        else:
            both = min(now[name][0], after[name][0])
            rows["not_compared"] += both
            rows["removed"] += now[name][0] - both
            rows["added"] += after[name][0] - both
    return {"tables": tables, "rows": ItemChanges(**rows)}


def _is_counted(table: tuple[int, str | None]) -> bool:
    """A table that was not read and has no rows by the statistics may be one that they know nothing of yet."""
    rows, content = table
    return content is not None or rows > 0


def bridging_of(loaded: Loaded, server_version: str) -> str:
    """Between which versions an archive goes, and what was done for that; empty when they are of one major."""
    source = loaded.source_version.partition(" ")[0]
    if not source or _major(source) == _major(server_version):
        return ""
    done = "; ".join(loaded.bridged) or "nothing of it had to be left out for that"
    return f"Written by PostgreSQL {source}, goes into {server_version}: {done}."


def changes_between(
    before: Content,
    after: Content,
    loaded: Loaded,
    *,
    held: Held,
    items: Mapping[str, ItemChanges],
    server_version: str,
    room_bytes: int,
    warnings: Iterable[str],
) -> Changes:
    """What to tell about an import that is ready.

    Args:
        held: by the app's database now.
    """
    rows = loaded.counts.get("rows", after.rows)
    changes = [
        f"{_now(before, held)}; after the import {_tables(after)} with {rows:,} rows.",
        *_named("New tables", after.tables - before.tables),
        *_named("Tables that will be gone", before.tables - after.tables),
    ]
    return Changes(
        changes=tuple(changes),
        counts_now=before.counts,
        counts_after={**after.counts, "rows": rows},
        items=items,
        bridging=bridging_of(loaded, server_version),
        room_bytes=room_bytes,
        swap_seconds=RENAMES_SECONDS,
        warnings=(*warnings, *_emptied(held, rows), *loaded.warnings, *_deferred(loaded)),
        header=loaded.header or _header_of(loaded),
    )


def _emptied(held: Held, rows: int) -> Sequence[str]:
    """A warning of a dump that was made without the rows."""
    now = sum(number for number, _ in held.values())
    if rows or not now:
        return ()
    return (
        f"The file brings no row at all, as one of pg_dump --schema-only or --statistics-only: the {now:,} rows of now "
        "will be gone.",
    )


def changes_by_file(
    before: Content,
    loaded: Loaded,
    *,
    held: Held,
    server_version: str,
    present_bytes: int,
    upload_bytes: int,
    warnings: Iterable[str],
) -> Changes:
    """What to tell about an import of which only the file was read.

    Args:
        held: by the app's database now.
        present_bytes: of that database, which is dumped before the file is loaded.
        upload_bytes: of the file, which is kept until then.
    """
    after = tables_of(loaded.fingerprint)
    tables = loaded.counts.get("tables", 0)
    # A file's fingerprint does not tell which of its tables are views; most have the same name as now.
    views = held.keys() - before.tables
    return Changes(
        changes=(
            f"{_now(before, held)}; the file has {tables:,} tables and "
            f"{loaded.counts.get('large_objects', 0):,} large objects.",
        ),
        counts_now=before.counts,
        counts_after={"tables": tables},
        items=items_between(held, after, views_now=views, views_after=views) if after else {},
        bridging=bridging_of(loaded, server_version),
        room_bytes=upload_bytes,
        swap_seconds=present_bytes / DUMPED_BYTES_A_SECOND + loaded.text_bytes / LOADED_BYTES_A_SECOND + 1,
        warnings=(*warnings, *loaded.warnings, *_deferred(loaded)),
        header=loaded.header or _header_of(loaded),
    )


def _deferred(loaded: Loaded) -> Sequence[str]:
    names = [f"{one.kind} {one.name}" for one in loaded.deferred]
    return _named("Left out, because they cannot be made safely from a file", names)


def _header_of(loaded: Loaded) -> ArchiveHeader:
    """What is known of a file that somebody else made."""
    return ArchiveHeader(
        format=loaded.archive_format,
        engine="postgresql",
        engine_version=loaded.source_version,
        made_by=f"pg_dump {loaded.dumper_version}" if loaded.dumper_version else "",
        counts=loaded.counts,
    )


def _major(version: str) -> str:
    return ".".join(version.split(".")[: 2 if version.startswith("9.") else 1])


def _tables(content: Content) -> str:
    number = len(content.tables)
    return f"{number:,} table{'' if number == 1 else 's'}"


def _now(content: Content, held: Held) -> str:
    """With the number of rows where it is known, by the statistics at least."""
    tables = [held[name] for name in content.tables if name in held]
    rows = sum(rows for rows, _ in tables)
    if not all(_is_counted(table) for table in tables):
        return f"Now {_tables(content)} with {f'more than {rows:,}' if rows else 'an unknown number of'} rows"
    about = "" if all(content is not None for _, content in tables) else "about "
    return f"Now {_tables(content)} with {about}{rows:,} rows"


def _named(what: str, names: Iterable[str]) -> Sequence[str]:
    listed = sorted(names)
    if not listed:
        return ()
    return (f"{what}: {some_of(listed, _MOST_NAMES)}.",)
